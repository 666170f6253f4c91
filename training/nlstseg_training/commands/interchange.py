"""``ensemble``, ``convert`` and ``nnunet`` of the command line: models and data in other forms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlstseg_training.commands.common import (
    Accelerator,
    Attribution,
    Cache,
    Debug,
    IntendedUse,
    Kind,
    Licence,
    Name,
    SplitFile,
    Threads,
    Version,
    measuring_on,
    show_card,
)


def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Folders of the folds' 'fit'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle to write; nothing is overwritten.")],
    pooled: Annotated[Path | None, typer.Option(help="Folder that 'pool' wrote: its figures go into the card.")] = None,
    name: Name = "",
    version: Version = "",
    licence: Licence = "",
    attribution: Attribution = "",
    intended_use: IntendedUse = "",
    accelerator: Kind = Accelerator.auto,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Write one bundle whose probabilities are the means of the folds' networks, and say what it costs in time."""
    from nlstseg_training.export.card import Texts
    from nlstseg_training.export.ensemble import write_ensemble

    texts = Texts(name, version, licence, attribution, intended_use)
    card = write_ensemble(runs, out, texts, pooled=pooled, device=measuring_on(accelerator, threads))
    show_card(card)
    told = card.metrics
    print(f"{told['seconds_of']}: {told['seconds_one_network']} s by one network, {told['seconds_ensemble']} s by the ensemble")
    print(f"model: {out}")


def convert(
    bundle: Annotated[str, typer.Argument(help="Name of a model, or path of a bundle or published checkpoint.")],
    onnx: Annotated[Path | None, typer.Option(help="ONNX file to write, compared with torch (extra 'onnx').")] = None,
    pth: Annotated[Path | None, typer.Option(help="Checkpoint to write that the published code loads.")] = None,
    debug: Debug = False,
) -> None:
    """Write a model's first network for other programs."""
    from nlstseg_training.export.interchange import write_onnx, write_pth
    from NLSTSegLib.errors import InputError
    from NLSTSegLib.models.bundle import find_model, load_model

    if onnx is None and pth is None:
        raise InputError("name a file to write with --onnx or --pth")
    model = load_model(find_model(bundle))
    if pth is not None:
        write_pth(model, pth)
        print(f"checkpoint of the published code: {pth}")
    if onnx is not None:
        print(f"ONNX: {onnx} (probabilities differ from torch's by {write_onnx(model, onnx):.1g} at most)")
    if model.refinement is not None:
        print("note: its refinement network and the search in the lung field are not in it")


def nnunet(
    cache: Cache,
    split: SplitFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder, as nnUNet_raw/Dataset501_NLSTseg.")],
    debug: Debug = False,
) -> None:
    """Write the cases as nnU-Net's raw data set with the same parts; what it predicts is measured by 'evaluate --predictions'."""
    from nlstseg_training.data.cache import read_split
    from nlstseg_training.export.nnunet import SPLITS_FILE, write_nnunet
    from NLSTSegLib.cli.show import progress_display

    with progress_display("", (0, 1), as_json=False) as progress:
        number = write_nnunet(cache, read_split(split), out, progress=progress)
    print(f"{number} cases in {out}; copy {out / SPLITS_FILE} to nnUNet_preprocessed/{out.name} before nnUNetv2_train")
