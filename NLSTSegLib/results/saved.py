"""A result folder as plain data: what a run in another process found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from NLSTSegLib.checks.preflight import Finding
from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.place import LungExtent
from NLSTSegLib.lesions.rows import Row
from NLSTSegLib.models.card import ModelCard, ModelIdentity
from NLSTSegLib.pipeline import SegmentOptions
from NLSTSegLib.results.report import voxels_sha256
from NLSTSegLib.volume.ct import CtVolume, Grid

LABELS_FILE = "labels.nrrd"
PROBABILITY_FILE = "probability.nrrd"
LABELS_NIFTI, PROBABILITY_NIFTI = "labels.nii.gz", "probability.nii.gz"
REPORT_FILE = "report.json"

Read = TypeVar("Read")


@dataclass(frozen=True)
class SavedLesion:
    """What the report says of a lesion, as far as a segment needs it."""

    label: int
    name: str
    score: float


@dataclass(frozen=True, eq=False)
class SavedResult:
    """What a run has written; its names are those of :class:`NLSTSegLib.pipeline.SegmentationResult`."""

    grid: Grid
    labels: np.ndarray
    """uint8 or uint16 ``[k, j, i]`` on the voxels of the CT: k is lesion k."""
    probability: np.ndarray
    """uint8 ``[k, j, i]`` on the same voxels, 255 is 1."""
    lesions: tuple[SavedLesion, ...]
    card: ModelIdentity
    threshold: float
    min_volume_mm3: float
    lungs: LungExtent | None
    findings: tuple[Finding, ...]
    device_note: str
    seconds: dict[str, float]
    """Wall time of each stage and their ``total``."""


@dataclass(frozen=True)
class Summary:
    """What the report of a result tells without its voxels; the names are those of ``SegmentationResult``."""

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    card: ModelIdentity
    threshold: float
    min_volume_mm3: float
    lung_field_note: str
    device_note: str
    seconds: dict[str, float]
    grid: Grid
    voxels_sha256: str

    def to_rows(self) -> list[Row]:
        """Rows as :meth:`NLSTSegLib.pipeline.SegmentationResult.to_rows` gives them."""
        return list(self.rows)


def read_summary(folder: Path) -> Summary:
    """Read the report of a result; raises :class:`InputError` when it is missing or damaged."""

    def read() -> Summary:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        options, geometry = report["options"], report["geometry"]
        spacing, origin, direction = (tuple(geometry[name]) for name in ("spacing_ijk_mm", "origin_lps_mm", "direction_lps"))
        return Summary(
            rows=tuple(report["lesions"]),
            findings=tuple(Finding(**finding) for finding in report["findings"]),
            card=_identity(report),
            threshold=float(options["threshold"]),
            min_volume_mm3=float(options["min_volume_mm3"]),
            lung_field_note=str(options["lung_field"]),
            device_note=str(options["device"]),
            seconds={stage: float(value) for stage, value in report["seconds"].items()},
            grid=(spacing, origin, direction),
            voxels_sha256=str(report["input"]["voxels_sha256"]),
        )

    return _whole(folder, read)


def same_result(
    folder: Path, ct: CtVolume, card: ModelCard, options: SegmentOptions, image_format: str, *, probability: bool
) -> Summary | None:
    """The result in ``folder`` if it is what a run on ``ct`` with this model, these options and files would write again.

    The voxels, their place, the weights and the options are compared, not the version of the program and where it ran. Raises
    :class:`InputError` for a lung field of the user's own, of which a result does not say which it was.
    """
    if not isinstance(options.lung_field, str):
        raise InputError(
            "a result does not say which lung field file it was made with, so --skip-existing cannot tell; leave it out"
        )
    labels, probabilities = (LABELS_FILE, PROBABILITY_FILE) if image_format == "nrrd" else (LABELS_NIFTI, PROBABILITY_NIFTI)
    if not (folder / labels).is_file() or (probability and not (folder / probabilities).is_file()):
        return None
    there = read_summary(folder)
    threshold = card.threshold if options.threshold is None else options.threshold
    minimum = card.min_volume_mm3 if options.min_volume_mm3 is None else options.min_volume_mm3
    same = (
        (there.voxels_sha256, there.grid) == (voxels_sha256(ct), ct.grid)
        and there.card.weights_sha256 == card.weights_sha256
        and (there.threshold, there.min_volume_mm3) == (threshold, minimum)
        and there.lung_field_note.partition(":")[0] == options.lung_field
    )
    return there if same else None


def read_result(folder: Path) -> SavedResult:
    """Read the labels, the probability and the report of a result that was written with the probability.

    Raises :class:`InputError` when one of them is missing or damaged, or they do not belong together.
    """
    import SimpleITK as sitk

    def read() -> SavedResult:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        with point_in_numbers():
            labels_image = sitk.ReadImage(str(folder / LABELS_FILE))
            probability = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / PROBABILITY_FILE)))
        return SavedResult(
            grid=(labels_image.GetSpacing(), labels_image.GetOrigin(), labels_image.GetDirection()),
            labels=sitk.GetArrayFromImage(labels_image),
            probability=probability,
            lesions=tuple(_lesion(label, row) for label, row in enumerate(report["lesions"], start=1)),
            card=_identity(report),
            threshold=float(report["options"]["threshold"]),
            min_volume_mm3=float(report["options"]["min_volume_mm3"]),
            lungs=LungExtent.of_values(report.get("lungs")),
            findings=tuple(Finding(**finding) for finding in report["findings"]),
            device_note=str(report["options"]["device"]),
            seconds={stage: float(value) for stage, value in report["seconds"].items()},
        )

    result = _whole(folder, read)
    there = set(np.unique(result.labels).tolist()) - {0}
    if there != {lesion.label for lesion in result.lesions} or result.labels.shape != result.probability.shape:
        raise InputError(f"the files of the result in '{folder}' do not belong together; run it again")
    return result


def _identity(report: dict[str, Any]) -> ModelIdentity:
    return ModelIdentity(**{field.name: str(report["model"][field.name]) for field in fields(ModelIdentity)})


def _lesion(label: int, row: dict[str, Any]) -> SavedLesion:
    return SavedLesion(label, str(row["lesion"]), float(row["score"]))


def _whole(folder: Path, read: Callable[[], Read]) -> Read:
    """What ``read`` reads of ``folder``, with every way in which files can be damaged as one sentence."""
    try:
        return read()
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"the result in '{folder}' is not whole ({type(error).__name__}: {error}); run it again") from error
