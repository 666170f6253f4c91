"""A result as a folder of files: whole or not at all, and never over something else."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from NLSTSegLib.errors import InputError
from NLSTSegLib.export.preview import write_preview
from NLSTSegLib.export.report import write_report
from NLSTSegLib.export.segmentation_file import write_segmentation
from NLSTSegLib.export.tables import write_csv
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.progress import Progress, silent

REPORT_FILE = "report.json"
"""Its presence marks a folder as one of our results."""

PARTIAL_MARK = ".partial-"
"""Part of the name of a temporary folder that is being filled."""


def check_output(folder: Path, force: bool) -> None:
    """Raise :class:`InputError` unless a result can go to ``folder``: new, empty, or with ``force`` an earlier result."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"the output '{folder}' is not a folder; choose another name")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / REPORT_FILE).is_file():
        raise InputError(f"the output folder '{folder}' holds other files; choose a new or empty folder")
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
    """Write all files of ``result`` into ``folder``.

    They are written into a temporary folder beside it, which then takes its name; with ``force`` an earlier result
    stays whole until then. ``seconds`` are earlier stages for the report. Raises :class:`InputError` when ``folder``
    cannot be used, written to, or the disk is full; nothing is left half written.
    """
    import SimpleITK as sitk

    check_output(folder, force)
    partial = folder.parent / f".{folder.name}{PARTIAL_MARK}{os.getpid()}"
    start = time.perf_counter()
    try:
        remove_abandoned(folder)
        partial.mkdir(parents=True)
        progress(0.0, "write")
        sitk.WriteImage(result.ct.image_like(result.labels), str(partial / "labels.nrrd"), useCompression=True)
        progress(0.3, "write")
        write_segmentation(result, partial / "segmentation.seg.nrrd")
        progress(0.6, "write")
        if save_probability:
            sitk.WriteImage(result.ct.image_like(result.probability), str(partial / "probability.nrrd"), useCompression=True)
        write_csv(result, partial / "lesions.csv")
        write_preview(result, partial / "preview.png")
        progress(0.9, "write")
        stages = {**(seconds or {}), "write": round(time.perf_counter() - start, 3)}
        write_report(result, partial / REPORT_FILE, stages)
        _take_name(partial, folder)
    except (OSError, RuntimeError) as error:
        # SimpleITK reports a full disk or a missing right as RuntimeError.
        raise InputError(f"the result could not be written to '{folder}': {_reason(error)}; nothing was changed there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what a killed run left beside ``folder``, unless the run that made it still lives."""
    for left in folder.parent.glob(f".{folder.name}{PARTIAL_MARK}*"):
        if not _is_running(left.name.rpartition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    replaced = _replaced(folder)
    if replaced.exists():
        if folder.exists():
            shutil.rmtree(replaced)
        else:
            # Killed between the two renames: the earlier result goes back to its place.
            replaced.rename(folder)


def _take_name(partial: Path, folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        folder.rename(_replaced(folder))
        partial.rename(folder)
        shutil.rmtree(_replaced(folder))
    else:
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)


def _replaced(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.replaced"


def _is_running(process: str) -> bool:
    if not process.isdigit() or os.name == "nt":
        # On Windows os.kill would end the process; a folder that is in use there cannot be removed anyway.
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[-1]
