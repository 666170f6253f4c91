"""What is kept of each case: every figure that the pooled ones are made of, as JSON, without voxels."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlstseg_training.data.cache import Kind, LesionKind, read_json
from nlstseg_training.evaluation.metrics.overlap import VoxelCounts
from nlstseg_training.evaluation.metrics.published_protocol import SliceOverlap
from NLSTSegLib.errors import InputError

RECORD_FORMAT = 2
"""Goes up when the records or the rules behind them change, so that none of an older version is taken over."""


@dataclass(frozen=True)
class LesionRecord:
    """A reference lesion."""

    label: int
    kind: LesionKind
    volume_mm3: float
    diameter_mm: float
    """Diameter of the sphere of that volume."""
    found: bool
    found_strictly: bool
    dice: float
    """Dice with the union of the predicted lesions that touch it; 0 when missed."""
    matched_volume_mm3: float
    """Volume of that union; 0 when missed."""
    froc_score: float
    """See :class:`nlstseg_training.evaluation.metrics.froc.Scan`."""


@dataclass(frozen=True)
class MarkRecord:
    """A predicted lesion."""

    label: int
    volume_mm3: float
    score: float
    """Highest probability in it."""
    outside: bool
    """Whether it lies outside the annotation: it touches no lesion."""
    outside_strictly: bool
    """It touches no lesion that was found by the strict rule."""
    hits_nothing: bool
    """Its centre lies in no lesion and near none, as the FROC counts."""


@dataclass(frozen=True)
class CaseRecord:
    """One case at one threshold; ``None`` stands for a figure that is not defined or was not asked for."""

    id: str
    patient: str
    kind: Kind
    complete: bool
    """Whether every lesion of it is annotated."""
    findings: tuple[str, ...]
    """Codes of the pre-flight's warnings."""
    threshold: float
    voxels: VoxelCounts
    dice: float | None
    iou: float | None
    nsd_1mm: float | None
    nsd_2mm: float | None
    hd95_mm: float | None
    assd_mm: float | None
    lesions: tuple[LesionRecord, ...]
    marks: tuple[MarkRecord, ...]
    slices: int
    tumour_slices: tuple[SliceOverlap, ...]
    """IoU of each slice with tumour by the published protocol, whatever the threshold."""


@dataclass(frozen=True)
class Kept:
    """The records of a case, one for each threshold, in a file of their own."""

    state: str
    """Changes with anything they depend on."""
    records: tuple[CaseRecord, ...]


def digest(*parts: Any) -> str:
    """Hash of plain values; equal for equal values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_kept(path: Path, state: str) -> tuple[CaseRecord, ...] | None:
    """The records in ``path``, when they are there, whole, and of this ``state``."""
    if not path.exists():
        return None
    try:
        kept = read_json(path, Kept, "")
    except InputError:
        # Of another version, or damaged: measured again.
        return None
    return kept.records if kept.state == state else None
