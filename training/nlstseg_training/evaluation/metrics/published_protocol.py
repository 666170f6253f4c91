"""The protocol behind the published IoU of 0.42, faults and all, computed for no other purpose than to compare with it.

Every axial slice counts for itself; slices without tumour are left out, so false positives there cost nothing; a voxel is
lesion where the *logit*, not the probability, is above 0.5; the slices run in batches of 16 through the cases, and through the
slices of each, in the order of their names as strings; the IoU is averaged in each batch, and then over the batches that have a
slice with tumour, however few.
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


class PublishedProtocol:
    """The figure of a set of cases, each its number of slices and those of them with tumour, in the order of their names.

    The published loader takes the slices of a case in the order of its files' names, which is that of strings: 0, 1, 10, 11,
    and so on. The files are called after the numbers of the slices, from 0.
    """

    def __init__(self, cases: Sequence[tuple[int, Sequence[SliceOverlap]]]) -> None:
        self._slices = np.array([slices for slices, _ in cases], int)
        self._number = np.array([len(overlaps) for _, overlaps in cases], int)
        self._places = np.concatenate([np.zeros(0, int), *(_places(slices, overlaps) for slices, overlaps in cases)])
        self._iou = np.array([overlap.iou for _, overlaps in cases for overlap in overlaps])
        self._first = np.cumsum(self._number) - self._number

    def iou(self, times: np.ndarray) -> float:
        """Mean over batches of the mean IoU in each, every case so many ``times``; NaN without a slice with tumour."""
        drawn = np.repeat(np.arange(len(times)), times)
        before = np.cumsum(self._slices[drawn]) - self._slices[drawn]
        number = self._number[drawn]
        if not number.sum():
            return float("nan")
        within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        chosen = np.repeat(self._first[drawn], number) + within
        batches = (np.repeat(before, number) + self._places[chosen]) // BATCH_SLICES
        counts = np.bincount(batches)
        sums = np.bincount(batches, weights=self._iou[chosen])
        return float(np.mean(sums[counts > 0] / counts[counts > 0]))


def _places(slices: int, overlaps: Sequence[SliceOverlap]) -> np.ndarray:
    """Where each slice comes among those of its case."""
    place = {int(name): n for n, name in enumerate(sorted(map(str, range(slices))))}
    return np.array([place[overlap.k] for overlap in overlaps], int)
