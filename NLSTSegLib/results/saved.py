"""A result folder as plain data: what a run in another process found."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from NLSTSegLib.checks.preflight import Finding
from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.card import ModelIdentity
from NLSTSegLib.volume.ct import Grid

LABELS_FILE = "labels.nrrd"
PROBABILITY_FILE = "probability.nrrd"
REPORT_FILE = "report.json"


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
    findings: tuple[Finding, ...]
    device_note: str
    seconds: dict[str, float]
    """Wall time of each stage and their ``total``."""


def read_result(folder: Path) -> SavedResult:
    """Read the labels, the probability and the report of a result that was written with the probability.

    Raises :class:`InputError` when one of them is missing or damaged, or they do not belong together.
    """
    import SimpleITK as sitk

    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        with point_in_numbers():
            labels_image = sitk.ReadImage(str(folder / LABELS_FILE))
            probability = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / PROBABILITY_FILE)))
        result = SavedResult(
            grid=(labels_image.GetSpacing(), labels_image.GetOrigin(), labels_image.GetDirection()),
            labels=sitk.GetArrayFromImage(labels_image),
            probability=probability,
            lesions=tuple(_lesion(label, row) for label, row in enumerate(report["lesions"], start=1)),
            card=ModelIdentity(**{field.name: str(report["model"][field.name]) for field in fields(ModelIdentity)}),
            threshold=float(report["options"]["threshold"]),
            findings=tuple(Finding(**finding) for finding in report["findings"]),
            device_note=str(report["options"]["device"]),
            seconds={stage: float(value) for stage, value in report["seconds"].items()},
        )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"the result in '{folder}' is not whole ({type(error).__name__}: {error}); run it again") from error
    there = set(np.unique(result.labels).tolist()) - {0}
    if there != {lesion.label for lesion in result.lesions} or result.labels.shape != probability.shape:
        raise InputError(f"the files of the result in '{folder}' do not belong together; run it again")
    return result


def _lesion(label: int, row: dict[str, Any]) -> SavedLesion:
    return SavedLesion(label, str(row["lesion"]), float(row["score"]))
