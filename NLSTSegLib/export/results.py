"""A result as a folder of files: whole or not at all, and never over something else."""

from __future__ import annotations

import time
from pathlib import Path

from NLSTSegLib.errors import InputError
from NLSTSegLib.export.preview import write_preview
from NLSTSegLib.export.report import write_report
from NLSTSegLib.export.segmentation_file import write_segmentation
from NLSTSegLib.export.tables import write_csv
from NLSTSegLib.export.whole_folder import prepare_place, whole_folder
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.progress import Progress, silent

SEGMENTATION_FILE = "segmentation.seg.nrrd"
LABELS_FILE = "labels.nrrd"
PROBABILITY_FILE = "probability.nrrd"
TABLE_FILE = "lesions.csv"
PREVIEW_FILE = "preview.png"
REPORT_FILE = "report.json"

RESULT_FILES = {SEGMENTATION_FILE, LABELS_FILE, PROBABILITY_FILE, TABLE_FILE, PREVIEW_FILE, REPORT_FILE}
"""A folder with a report and no file of another name is an earlier result, which may be replaced."""


def check_output(folder: Path, force: bool) -> None:
    """Raise :class:`InputError` unless a result can go to ``folder``: new, empty, or with ``force`` an earlier result."""
    names = prepare_place(folder)
    if not names:
        return
    others = sorted(names - RESULT_FILES)
    if others or REPORT_FILE not in names:
        raise InputError(f"the output folder '{folder}' holds other files ({(others or sorted(names))[0]}); choose a new folder")
    if not force:
        raise InputError(f"the output folder '{folder}' holds an earlier result; add --force to replace it")


def write_result(
    result: SegmentationResult,
    folder: Path,
    *,
    force: bool = False,
    save_probability: bool = False,
    seconds: dict[str, float] | None = None,
    progress: Progress = silent,
) -> None:
    """Write all files of ``result`` into ``folder``; with ``force`` an earlier result stays whole until they are there.

    ``seconds`` are earlier stages for the report. Raises :class:`InputError` when ``folder`` cannot be used or written to,
    or the disk is full; nothing is left half written.
    """
    import SimpleITK as sitk

    check_output(folder, force)
    start = time.perf_counter()
    with whole_folder(folder) as partial:
        progress(0.0, "write")
        sitk.WriteImage(result.ct.image_like(result.labels), str(partial / LABELS_FILE), useCompression=True)
        progress(0.3, "write")
        write_segmentation(result, partial / SEGMENTATION_FILE)
        progress(0.6, "write")
        if save_probability:
            sitk.WriteImage(result.ct.image_like(result.probability), str(partial / PROBABILITY_FILE), useCompression=True)
        write_csv(result, partial / TABLE_FILE)
        write_preview(result, partial / PREVIEW_FILE)
        progress(0.9, "write")
        stages = {**(seconds or {}), "write": round(time.perf_counter() - start, 3)}
        write_report(result, partial / REPORT_FILE, stages)
