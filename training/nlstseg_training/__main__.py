"""``python -m nlstseg_training --data ../shared/data --out runs/default``: train the bundled model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[Path, typer.Option(help="Folder with lidc_nodules/, ct/ and background/.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log; a run that stopped there goes on.")],
    epochs: Annotated[int, typer.Option(help="Epochs of 250 batches of 48 patches.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of split, weights and patches.")] = 0,
) -> None:
    """Train the default 2.5D U-Net and write its weights to OUT/weights.safetensors."""
    from nlstseg_training.default import train_default

    train_default(data, out, epochs=epochs, seed=seed)


if __name__ == "__main__":
    typer.run(train)
