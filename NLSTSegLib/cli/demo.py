"""``nlstseg demo``: a phantom, the bundled model, and how what was found compares with what was put in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.cli.run import SegmentJob, run_jobs
from NLSTSegLib.errors import InputError
from NLSTSegLib.export.phantom_files import write_phantom
from NLSTSegLib.export.whole_folder import prepare_place
from NLSTSegLib.models import DEFAULT_MODEL
from NLSTSegLib.phantom import Phantom, make_phantom
from NLSTSegLib.pipeline import SegmentOptions

if TYPE_CHECKING:
    from rich.table import Table

MARK_FILE = "nlstseg-demo.txt"
"""Tells a folder of an earlier demo, which may be replaced, from any other."""


def run_demo(output: Path, seed: int, *, debug: bool) -> None:
    """Write the phantom to ``output/phantom`` and the result to ``output/result``, replacing an earlier demo there."""
    import SimpleITK as sitk
    from rich.console import Console

    names = prepare_place(output)
    if names and MARK_FILE not in names:
        raise InputError(f"the folder '{output}' holds other files; choose another with --output")
    if names:
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARK_FILE).write_text("Made by 'nlstseg demo'; running it again replaces this folder.\n")
    console = Console()
    console.print(f"making the chest phantom (seed {seed})")
    phantom = make_phantom(seed)
    write_phantom(phantom, output / "phantom")
    job = SegmentJob(output / "result", DEFAULT_MODEL, SegmentOptions(), "auto", None, True, False)
    run_jobs([output / "phantom" / "ct.nrrd"], job, json_progress=False, debug=debug)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "result" / "labels.nrrd")))
    console.print(comparison(phantom, labels))
    console.print(
        f"look at {output / 'result' / 'preview.png'}; open {output / 'result' / 'segmentation.seg.nrrd'} in 3D Slicer",
        soft_wrap=True,
    )


def found_lesions(phantom: Phantom, labels: np.ndarray) -> dict[int, float]:
    """Dice of every phantom lesion with the union of the lesions in ``labels`` (``[k, j, i]``) that touch it; 0 if missed."""
    dice = {}
    for lesion in phantom.lesions:
        truth = phantom.labels == lesion.label
        touching = np.unique(labels[truth])
        found = np.isin(labels, touching[touching > 0])
        dice[lesion.label] = 2 * float((truth & found).sum()) / float(truth.sum() + found.sum())
    return dice


def comparison(phantom: Phantom, labels: np.ndarray) -> Table:
    """Table of what was put in and how well it was found."""
    from rich.table import Table

    dice = found_lesions(phantom, labels)
    extra = set(np.unique(labels)) - set(np.unique(labels[phantom.labels > 0])) - {0}
    table = Table(
        title=f"{sum(value > 0 for value in dice.values())} of {len(dice)} phantom lesions found, {len(extra)} other mark(s)"
    )
    for heading in ("put in", "diameter mm", "found", "Dice"):
        table.add_column(heading)
    for lesion in phantom.lesions:
        value = dice[lesion.label]
        table.add_row(lesion.kind, f"{lesion.diameter_mm:g}", "yes" if value else "no", f"{value:.2f}")
    return table
