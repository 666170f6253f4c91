"""Overlap of two masks: Dice and IoU of the voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels in both masks, in the predicted one alone and in the reference alone; counts of several cases add up."""

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def dice(self) -> float:
        """``2 TP / (2 TP + FP + FN)``: 0 where one mask is empty, NaN where both are."""
        return ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """``TP / (TP + FP + FN)``: 0 where one mask is empty, NaN where both are."""
        return ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)


def count_voxels(reference: np.ndarray, predicted: np.ndarray) -> VoxelCounts:
    """Count two boolean masks of one shape.

    MONAI's Dice has other rules for empty masks (NaN or 0 for a false positive on an empty reference, as one asks) and sums
    in float32; with a reference it gives the same.
    """
    both = int(np.count_nonzero(reference & predicted))
    return VoxelCounts(both, int(np.count_nonzero(predicted)) - both, int(np.count_nonzero(reference)) - both)


def ratio(part: float, whole: float) -> float:
    """``part / whole``; NaN when ``whole`` is 0."""
    return part / whole if whole else float("nan")
