"""From a CT to its result folder: the model runs, unless an earlier run has left the same there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions, segment
from NLSTSegLib.progress import Progress, silent
from NLSTSegLib.results.folder import SR_FILE, write_result
from NLSTSegLib.results.saved import REPORT_FILE, Summary, same_result
from NLSTSegLib.volume.ct import CtVolume

SEGMENT_SHARE = 0.95
"""Part of the progress that is the segmentation; the rest is the writing."""


def segment_to_folder(
    ct: CtVolume,
    folder: Path,
    model: Model,
    options: SegmentOptions,
    *,
    reuse: bool,
    force: bool,
    save_probability: bool,
    image_format: Literal["nrrd", "nifti"] = "nrrd",
    case: str | None,
    seconds: dict[str, float] | None = None,
    identity: Mapping[str, str] | None,
    write_more: Callable[[Path], object] | None,
    progress: Progress = silent,
) -> SegmentationResult | Summary:
    """Segment ``ct`` and write the result into ``folder``, which the caller holds (:func:`NLSTSegLib.disk.atomic_folder.held`).

    With ``reuse`` what an earlier run wrote there of the same voxels, model and options is what is returned; files of
    ``write_more`` that it lacks are added. The other arguments are those of :func:`NLSTSegLib.results.folder.write_result`.
    Raises :class:`InputError` where ``reuse`` finds a result of another CT, model or options and not ``force``.
    """
    if reuse and (folder / REPORT_FILE).exists():
        there = same_result(folder, ct, model.card, options, image_format, probability=save_probability)
        if there is not None:
            if write_more and not (folder / SR_FILE).exists():
                write_more(folder)
            progress(1.0, "skipped")
            return there
        if not force:
            hint = "only --force (of a cohort --retry all) replaces it"
            raise InputError(f"'{folder}' holds a result of another CT, model or options; {hint}")
    result = segment(ct, model, options, before_end(lambda done, stage: progress(SEGMENT_SHARE * done, stage)))
    write_result(
        result,
        folder,
        force=force,
        save_probability=save_probability,
        image_format=image_format,
        case=case,
        seconds=seconds,
        identity=identity,
        write_more=write_more,
        progress=lambda done, stage: progress(SEGMENT_SHARE + (1 - SEGMENT_SHARE) * done, stage),
    )
    progress(1.0, "done")
    return result


def before_end(progress: Progress) -> Progress:
    """Progress of a segmentation whose result is still to be written: its end is not passed on."""

    def tell(done: float, stage: str) -> None:
        if done < 1:
            progress(done, stage)

    return tell
