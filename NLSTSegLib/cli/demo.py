"""``nlstseg demo``: a phantom, the bundled model, and how what was found compares with what was put in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.cli.batch import SegmentJob, run_one
from NLSTSegLib.cli.dicom import dicom_round_trip
from NLSTSegLib.cli.inputs import Case
from NLSTSegLib.disk.atomic_folder import NOT_COUNTED, atomic_folder, held, other_than_files, prepare_place
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import DEFAULT_MODEL, find_model, load_model
from NLSTSegLib.phantom.dicom_series import SERIES_FILES
from NLSTSegLib.phantom.folder import CT_FILE, PHANTOM_FILES, write_phantom
from NLSTSegLib.phantom.make import Phantom, make_phantom
from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions
from NLSTSegLib.results.folder import PREVIEW_FILE, RESULT_FILES, SEGMENTATION_FILE

if TYPE_CHECKING:
    from rich.table import Table

MARK_FILE = "nlstseg-demo.txt"
"""Tells a folder of an earlier demo, which may be replaced, from any other."""

PHANTOM_FOLDER, DICOM_FOLDER, RESULT_FOLDER = "phantom", "phantom-dicom", "result"


def run_demo(output: Path, seed: int) -> None:
    """Write the phantom to ``output/phantom``, as DICOM to ``output/phantom-dicom``, and the result, with SEG and SR, to
    ``output/result``, replacing an earlier demo there."""
    from rich.console import Console

    from NLSTSegLib.cli.show import progress_display, show_findings, show_lesions, show_place

    console = Console()
    with held(output):
        other = not_of_a_demo(output) if prepare_place(output) else None
        if other:
            raise InputError(f"the folder '{output}' holds other files ({other}); choose another with --output")
        console.print(f"making the chest phantom (seed {seed})")
        phantom = make_phantom(seed)
        with atomic_folder(output) as partial:
            (partial / MARK_FILE).write_text("Made by 'nlstseg demo'; running it again replaces this folder.\n")
            write_phantom(phantom, partial / PHANTOM_FOLDER)
            job = SegmentJob(partial / RESULT_FOLDER, DEFAULT_MODEL, SegmentOptions(), save_probability=True)
            with progress_display("", (0, 1), as_json=False) as progress:
                model = load_model(find_model(job.model))
                result = run_one(Case(partial / PHANTOM_FOLDER / CT_FILE, "ct"), job.output, job, model, progress)
            dicom_note = dicom_round_trip(phantom.ct, partial / DICOM_FOLDER, job.output)
            assert isinstance(result, SegmentationResult), "nothing is skipped"
    show_findings(result.findings)
    show_lesions(result)
    show_place(output / RESULT_FOLDER)
    console.print(comparison(phantom, result.labels))
    console.print(dicom_note, markup=False, soft_wrap=True)
    show_place(output / RESULT_FOLDER / PREVIEW_FILE, "look at")
    show_place(output / RESULT_FOLDER / SEGMENTATION_FILE, "open in 3D Slicer:")


def not_of_a_demo(folder: Path) -> str | None:
    """A name in ``folder`` by which it is not what :func:`run_demo` has written; ``None`` where it is."""
    for name in sorted(set(os.listdir(folder)) - NOT_COUNTED - {MARK_FILE}):
        files = {PHANTOM_FOLDER: PHANTOM_FILES, DICOM_FOLDER: SERIES_FILES, RESULT_FOLDER: RESULT_FILES}.get(name)
        if files is None or (folder / name).is_symlink() or not (folder / name).is_dir():
            return name
        if other := other_than_files(folder / name, files):
            return f"{name}/{other}"
    return None if (folder / MARK_FILE).is_file() else MARK_FILE


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
        table.add_row(lesion.kind, f"{lesion.diameter_mm:.1f}", "yes" if value else "no", f"{value:.2f}")
    return table
