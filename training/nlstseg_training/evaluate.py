"""How good a model is on patients it has not seen; everything runs through the library's :func:`segment`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nlstseg_training.sources import Stack
from NLSTSegLib.models import Model
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume import CtVolume

DIAMETER_BINS_MM = (0.0, 6.0, 10.0, 1000.0)
"""Nodules are reported below 6 mm, from 6 to 10 mm and above, by the diameter of the sphere of their volume."""

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.98)
"""Scores from which a whole chest's marks are counted."""


@dataclass(frozen=True)
class NoduleResult:
    """One nodule crop against the votes of two and more readers."""

    name: str
    diameter_mm: float
    matched_dice: float
    """With the one predicted lesion that overlaps most; 0 where none does."""
    crop_dice: float
    """With everything that was marked in the crop."""


@dataclass(frozen=True)
class ChestResult:
    """A whole chest: lesions of two and more readers, how many were hit, and marks that hit none, by score."""

    name: str
    lesions: int
    found: dict[float, int]
    false_positives: dict[float, int]


def evaluate_nodules(model: Model, stacks: Sequence[Stack]) -> list[NoduleResult]:
    """Segment every crop without a lung field; crops without a voxel of two votes are left out."""
    results = []
    for stack in stacks:
        truth = stack.votes >= 2
        if not truth.any():
            continue
        ct = CtVolume(stack.hu, stack.spacing_kji_mm[::-1])
        labels = segment(ct, model, SegmentOptions(lung_field="none")).labels
        overlap = np.bincount(labels[truth], minlength=2)
        best = int(overlap[1:].argmax()) + 1 if overlap[1:].any() else 0
        matched = labels == best if best else np.zeros(truth.shape, bool)
        diameter_mm = float(np.cbrt(6 * truth.sum() * ct.voxel_volume_mm3 / np.pi))
        results.append(NoduleResult(stack.name, diameter_mm, dice(truth, matched), dice(truth, labels > 0)))
    return results


def evaluate_chest(model: Model, stack: Stack) -> ChestResult:
    """Segment a whole chest as ``nlstseg segment`` does and count marks by their score."""
    import SimpleITK as sitk

    truth = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray((stack.votes >= 2).astype(np.uint8)), True))
    result = segment(CtVolume(stack.hu, stack.spacing_kji_mm[::-1]), model)
    hits = {lesion.label: set(np.unique(truth[result.labels == lesion.label])) - {0} for lesion in result.lesions}
    found, false_positives = {}, {}
    for threshold in THRESHOLDS:
        sure = [lesion for lesion in result.lesions if lesion.score >= threshold]
        found[threshold] = len(set().union(*(hits[lesion.label] for lesion in sure)))
        false_positives[threshold] = sum(not hits[lesion.label] for lesion in sure)
    return ChestResult(stack.name, int(truth.max()), found, false_positives)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """``2 |a and b| / (|a| + |b|)`` of two boolean arrays; NaN when both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def summary(nodules: Sequence[NoduleResult], chests: Sequence[ChestResult]) -> dict[str, object]:
    """The figures of the model card."""
    bins = {}
    for low, high in itertools.pairwise(DIAMETER_BINS_MM):
        values = [r.matched_dice for r in nodules if low <= r.diameter_mm < high]
        name = f"{low:g}-{high:g} mm" if high < 1000 else f"from {low:g} mm"
        bins[name] = {"nodules": len(values), "matched_dice": _mean(values)}
    return {
        "validation_nodules": len(nodules),
        "matched_dice": _mean([r.matched_dice for r in nodules]),
        "crop_dice": _mean([r.crop_dice for r in nodules]),
        "missed": sum(r.matched_dice == 0 for r in nodules),
        "matched_dice_by_diameter": bins,
        "chests": {
            r.name: {"lesions": r.lesions, "found_by_score": r.found, "false_positives_by_score": r.false_positives}
            for r in chests
        },
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 3) if values else float("nan")
