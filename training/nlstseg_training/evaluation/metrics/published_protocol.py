"""The protocol behind the published IoU of 0.42, faults and all, computed for no other purpose than to compare with it.

Every axial slice counts for itself; slices without tumour are left out, so false positives there cost nothing; a voxel is
lesion where the *logit*, not the probability, is above 0.5; the slices run in batches of 16 through the cases in the order
of their names, the IoU is averaged in each batch, and then over the batches that have a slice with tumour, however few.
The best epoch was chosen on the same slices; that cannot be undone here and is not imitated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOGIT_ABOVE = 0.5
"""A probability of 0.62."""

BATCH_SLICES = 16

PUBLISHED_IOU = 0.42
"""IoU of the published 2D U-Net on its test slices (Chen et al. 2025)."""


@dataclass(frozen=True)
class SliceOverlap:
    """One axial slice with tumour."""

    k: int
    iou: float


def slices_with_tumour(probability: np.ndarray, reference: np.ndarray) -> tuple[SliceOverlap, ...]:
    """IoU of each slice with tumour: ``probability`` uint8 (255 is 1) and ``reference`` bool, both ``[k, j, i]``."""
    lowest = 255 / (1 + np.exp(-LOGIT_ABOVE))
    found = []
    for k in np.flatnonzero(reference.any(axis=(1, 2))).tolist():
        predicted = probability[k] > lowest
        union = np.count_nonzero(predicted | reference[k])
        found.append(SliceOverlap(k, np.count_nonzero(predicted & reference[k]) / union))
    return tuple(found)


def published_iou(cases: Sequence[tuple[int, Sequence[SliceOverlap]]]) -> float:
    """Mean over batches of the mean IoU in each; a case is its number of slices and those of them with tumour.

    The cases come in the order of their names. NaN without a slice with tumour.
    """
    batches: dict[int, list[float]] = {}
    first = 0
    for slices, overlaps in cases:
        for overlap in overlaps:
            batches.setdefault((first + overlap.k) // BATCH_SLICES, []).append(overlap.iou)
        first += slices
    return float(np.mean([np.mean(batch) for batch in batches.values()])) if batches else float("nan")
