"""A result as a folder of files: whole or not at all, and never over something else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.disk.atomic_folder import atomic_folder, held, other_than_files, prepare_place
from NLSTSegLib.errors import InputError
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.progress import Progress, silent
from NLSTSegLib.reading.write import write_image
from NLSTSegLib.results.preview import write_preview
from NLSTSegLib.results.report import PROGRAM, write_report
from NLSTSegLib.results.saved import LABELS_FILE, LABELS_NIFTI, PROBABILITY_FILE, PROBABILITY_NIFTI, REPORT_FILE
from NLSTSegLib.results.segmentation_file import write_segmentation
from NLSTSegLib.results.tables import write_csv
from NLSTSegLib.volume.ct import CtVolume

SEGMENTATION_FILE = "segmentation.seg.nrrd"
TABLE_FILE = "lesions.csv"
PREVIEW_FILE = "preview.png"
SEG_FILE = "lesions.seg.dcm"
SR_FILE = "measurements.sr.dcm"

IMAGE_FILES = {"nrrd": (LABELS_FILE, PROBABILITY_FILE), "nifti": (LABELS_NIFTI, PROBABILITY_NIFTI)}
"""Names of label map and probability, by their format."""

RESULT_FILES = {
    SEGMENTATION_FILE,
    TABLE_FILE,
    PREVIEW_FILE,
    REPORT_FILE,
    *IMAGE_FILES["nrrd"],
    *IMAGE_FILES["nifti"],
    SEG_FILE,
    SR_FILE,
}
"""Names of the files of a result."""


def check_output(folder: Path, force: bool) -> None:
    """Raise :class:`InputError` unless a result can go to ``folder``: new, empty, or with ``force`` an earlier result."""
    names = prepare_place(folder)
    if not names:
        return
    other = not_of_a_result(folder)
    if other:
        raise InputError(f"the output folder '{folder}' holds other files ({other}); choose a new folder")
    if not force:
        raise InputError(f"the output folder '{folder}' holds an earlier result; only --force (in Python force=True) replaces it")


def not_of_a_result(folder: Path) -> str | None:
    """A name in ``folder`` by which it is no result that :func:`write_result` has written; ``None`` where it is one.

    A result has a report of this program, and no file of another name, no folder and no link.
    """
    other = other_than_files(folder, RESULT_FILES)
    if other:
        return other
    try:
        report = json.loads((folder / REPORT_FILE).read_bytes())
        is_ours = report["program"]["name"] == PROGRAM
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        is_ours = False
    return None if is_ours else REPORT_FILE


def write_result(
    result: SegmentationResult,
    folder: Path | str,
    *,
    force: bool = False,
    save_probability: bool = False,
    image_format: Literal["nrrd", "nifti"] = "nrrd",
    case: str | None = None,
    seconds: dict[str, float] | None = None,
    identity: Mapping[str, str] | None = None,
    write_more: Callable[[Path], object] | None = None,
    progress: Progress = silent,
) -> None:
    """Write all files of ``result`` into ``folder``; with ``force`` an earlier result stays whole until they are there.

    ``image_format`` is that of label map and probability; ``case``, where the CT is one of several, becomes a column of
    ``lesions.csv``. ``seconds`` are earlier stages for the report. No file says whose CT it was, unless ``identity``, which
    :func:`NLSTSegLib.results.report.patient_identity` makes, is given for the report. ``write_more(folder)`` may add files of
    :data:`RESULT_FILES` to the others, which are there by then. Raises :class:`InputError` when
    ``folder`` cannot be used or written to, another run writes to it, or the disk is full; nothing is left half written.
    """
    start, folder = time.perf_counter(), Path(folder)
    check_format(result.ct, image_format == "nifti")
    labels_file, probability_file = IMAGE_FILES[image_format]
    with held(folder):
        check_output(folder, force)
        with atomic_folder(folder) as partial:
            progress(0.0, "write")
            write_image(result.ct.image_like(result.labels), partial / labels_file)
            progress(0.3, "write")
            write_segmentation(result, partial / SEGMENTATION_FILE)
            progress(0.6, "write")
            if save_probability:
                write_image(result.ct.image_like(result.probability), partial / probability_file)
            write_csv(result.to_rows(), partial / TABLE_FILE, case)
            write_preview(result, partial / PREVIEW_FILE)
            progress(0.9, "write")
            stages = {**(seconds or {}), "write": round(time.perf_counter() - start, 3)}
            write_report(result, partial / REPORT_FILE, stages, identity)
            if write_more:
                write_more(partial)


def write_labels(result: SegmentationResult, path: Path) -> None:
    """Write the label map alone, as the ending of ``path`` says (``.nrrd`` or ``.nii.gz``); what is there is replaced.

    Raises :class:`InputError` when it cannot be written, or the format cannot hold the grid.
    """
    check_format(result.ct, path.name.endswith(".nii.gz"))
    with atomic_file(path) as partial:
        write_image(result.label_image(), partial)


def check_format(ct: CtVolume, is_nifti: bool) -> None:
    """Raise :class:`InputError` where NIfTI is wanted for a grid that it cannot hold."""
    if is_nifti and not ct.is_orthogonal:
        raise InputError("the axes of this CT are not at right angles, which NIfTI cannot hold; choose NRRD")
