"""``evaluate`` of the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nlstseg_training.commands.common import Cache, Debug, SplitFile, show_alarms
from NLSTSegLib.cli.options import Device


class PartName(StrEnum):
    """Values of ``--part``."""

    train = "train"
    validation = "validation"
    test = "test"


def evaluate(
    cache: Cache,
    split: SplitFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report; a run that was stopped there goes on.")],
    bundle: Annotated[str, typer.Option(help="Name of a model, or path of a bundle or published checkpoint.")] = "",
    predictions: Annotated[
        Path | None, typer.Option(help="Instead of a model: folder with a mask of each case by any tool, <id>.nii.gz.")
    ] = None,
    part: Annotated[PartName, typer.Option(help="Validation chooses the threshold, test reports.")] = PartName.test,
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which a voxel is lesion (default: the model's; chosen on validation).")
    ] = None,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")] = None,
    debug: Debug = False,
) -> None:
    """Measure a model, or the masks of another tool, on a part of the split and write OUT/report.html and OUT/evaluation.json."""
    from nlstseg_training.evaluation.evaluate import REPORT_FILE, evaluate_masks
    from nlstseg_training.evaluation.evaluate import evaluate as evaluate_part
    from NLSTSegLib.cli.show import progress_display
    from NLSTSegLib.errors import InputError
    from NLSTSegLib.inference.devices import DeviceRequest
    from NLSTSegLib.models.bundle import find_model, load_model

    if bool(bundle) == (predictions is not None):
        raise InputError("name either a model (--bundle) or a folder of masks (--predictions)")
    with progress_display("", (0, 1), as_json=False) as progress:
        if predictions is not None:
            content = evaluate_masks(predictions, cache, split, part.value, out, progress=progress)
        else:
            content = evaluate_part(
                load_model(find_model(bundle)),
                cache,
                split,
                part.value,
                out,
                threshold=threshold,
                device=DeviceRequest(device, threads),
                progress=progress,
            )
    _show(content)
    print(f"report: {out / REPORT_FILE}")


def pool(
    runs: Annotated[list[Path], typer.Argument(help="Folders of the folds' 'fit'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")],
    debug: Debug = False,
) -> None:
    """Pool the folds of a cross-validation: every case by the model that was not trained on it."""
    from nlstseg_training.evaluation.evaluate import REPORT_FILE
    from nlstseg_training.evaluation.folds import pool_folds

    _show(pool_folds(runs, out))
    print(f"report: {out / REPORT_FILE}")


def _show(content: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    overlap, found = content["overlap"][0], content["detection"]
    rows = (
        ("Dice per case", overlap["dice"]),
        ("IoU per case", overlap["iou"]),
        ("surface Dice at 1 mm", overlap["nsd_1mm"]),
        ("lesions found", found["lenient"]["sensitivity"]),
        ("lesions found, strict", found["strict"]["sensitivity"]),
        ("Dice per lesion, 0 if missed", content["all_lesions"]["dice_all"]),
        ("marks outside the annotation per case", found["lenient"]["outside_per_case"]),
        ("CPM", content["froc"]["cpm"]),
        ("IoU by the published protocol", content["published_protocol"]["iou"]),
    )
    threshold = content["threshold"]
    title = f"{content['part']}: {content['cases']} cases, threshold {threshold['value']:g} ({threshold['chosen_by']})"
    table = Table("figure", "value", "95 % interval", title=title)
    for name, each in rows:
        value, low, high = ("n/a" if each[key] is None else f"{each[key]:.3f}" for key in ("value", "low", "high"))
        table.add_row(name, value, f"{low} to {high}")
    Console().print(table)
    show_alarms(content)
