"""``python -m nlstseg_training --data ../shared/data --out runs/default``: train the bundled model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[Path, typer.Option(help="Folder with lidc_nodules/, ct/ and background/.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log; a run that stopped there goes on.")],
    seed: Annotated[int, typer.Option(help="Seed of split, weights and patches.")] = 0,
) -> None:
    """Train the bundled 2.5D U-Net, measure it on the validation patients and write the bundle OUT/lidc-25d."""
    from nlstseg_training.default import train_default

    train_default(data, out, seed=seed)


if __name__ == "__main__":
    typer.run(train)
