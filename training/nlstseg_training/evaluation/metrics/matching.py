"""Which reference lesions were found by which predicted ones.

A reference lesion is a label value (one lesion may lie in several pieces), a predicted one a 26-connected component after
the minimum-volume filter, as :func:`NLSTSegLib.lesions.find.find_lesions` gives them. Two rules, both after evaluation.md and
Metrics Reloaded (Maier-Hein et al. 2024):

- *lenient*: a lesion is found when a predicted one shares a voxel with it;
- *strict*: one predicted lesion each, paired by the Hungarian method so that the sum of the IoU is largest, and an IoU of at
  least :data:`MINIMUM_IOU` in every pair.

By either rule several predicted lesions on one found lesion count as one hit and the rest is ignored. What touches no found
lesion lies *outside the annotation*: as not every nodule of a chest is annotated, it is not a proven false positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nlstseg_training.evaluation.metrics.overlap import ratio

MINIMUM_IOU = 0.1
"""Least IoU of a pair by the strict rule: an 8 mm sphere and one of 3.7 mm inside it."""


@dataclass(frozen=True, eq=False)
class Matches:
    """What one of the rules tells: which reference lesions were found, and which predicted lesions lie outside the annotation."""

    found: np.ndarray
    """bool ``[reference lesions]``."""
    outside: np.ndarray
    """bool ``[predicted lesions]``; what is neither outside nor a hit of its own is ignored."""


@dataclass(frozen=True)
class Detection:
    """Counts of lesions, pooled over cases by adding them."""

    lesions: int
    found: int
    outside: int

    @property
    def sensitivity(self) -> float:
        """Found lesions of all; NaN without a lesion."""
        return ratio(self.found, self.lesions)

    @property
    def f1(self) -> float:
        """Harmonic mean of the two, ``2 TP / (2 TP + FP + FN)``; NaN without a lesion and without a mark outside."""
        return ratio(2 * self.found, self.found + self.outside + self.lesions)


def shared_voxels(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Voxels with each pair of values in two label maps of one shape: int64 ``[largest label + 1, largest predicted + 1]``.

    Row and column 0 are the background; that of both is not counted and 0.
    """
    either = (labels > 0) | (predicted > 0)
    columns = int(predicted.max()) + 1
    pairs = labels[either].astype(np.int64) * columns + predicted[either]
    return np.bincount(pairs, minlength=(int(labels.max()) + 1) * columns).reshape(-1, columns)


def match_lenient(shared: np.ndarray) -> Matches:
    """Matches by one shared voxel; ``shared`` as :func:`shared_voxels` gives it."""
    touches = shared[1:, 1:] > 0
    return Matches(np.any(touches, axis=1), ~np.any(touches, axis=0))


def match_strict(shared: np.ndarray) -> Matches:
    """One to one by the largest sum of IoU, pairs below :data:`MINIMUM_IOU` left out."""
    from scipy.optimize import linear_sum_assignment

    touches = shared[1:, 1:]
    union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:] - touches
    iou = touches / np.maximum(union, 1)
    # The last bit must not decide on a pair of exactly the minimum.
    iou[iou < MINIMUM_IOU * (1 - 1e-9)] = 0
    found = np.zeros(len(iou), bool)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    found[rows[iou[rows, columns] > 0]] = True
    return Matches(found, ~np.any(touches[found] > 0, axis=0))


def union_of_matches(shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the union of the predicted lesions that touch each reference lesion, and the Dice of both.

    Both ``[reference lesions]``; 0 where none touches it. A predicted lesion that touches several counts whole for each.
    """
    touches = shared[1:, 1:] > 0
    union = (touches * shared.sum(axis=0)[None, 1:]).sum(axis=1)
    own = shared.sum(axis=1)[1:]
    return union, 2 * shared[1:, 1:].sum(axis=1) / np.maximum(own + union, 1)
