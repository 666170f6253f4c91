"""The CT at half its resolution, on which the same networks see a mass as they see a nodule.

A network of lesions up to some 30 mm takes the inside of a larger one for mediastinum or wall. Shown a body half as large, it
sees a mass of 60 mm as a nodule of 30.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from NLSTSegLib.inference.candidates import Candidate, find_candidates
from NLSTSegLib.volume.ct import CtVolume

FACTOR = 2
"""Rows and columns are averaged in pairs."""

SLICES_MM = 3.5
"""Slices about this far apart, which the networks take for half of it."""

SOFT_HU, OPEN_SHARE = -200, 0.4
"""What rises from below with this share of its widest slice and goes on there as soft tissue is a dome of the diaphragm: 0.58 in
LIDC-IDRI-0001, 0 to 0.01 in synthetic masses."""

LEAST_MM3 = 10_000.0
"""Only larger lesions, of 27 mm and more, are taken from there."""

LEAST_SCORE, SURE_FROM_MM3 = 0.5, 5_000.0
"""Least score of what is at least so large, at any resolution, so that only what is rather a lesion than not is taken: masses
have scores of 0.9 and more, organs and hilar vessels of chests that were not trained on some below this (docs/experiments.md)."""


def can_be_downsampled(ct: CtVolume) -> bool:
    """Whether anything is left of it then."""
    return min(ct.hu.shape[1:]) >= FACTOR


def downsampled(ct: CtVolume, lung_mask: np.ndarray | None) -> tuple[CtVolume, np.ndarray | None]:
    """The canonical ``ct`` with half as many rows and columns, as of a body half as large, and the lung field (bool) alike."""
    step = slices_of_block(ct)
    size = _covered(ct.hu.shape, step)
    blocks = ct.hu[: size[0] : step, : size[1], : size[2]].reshape(-1, size[1] // FACTOR, FACTOR, size[2] // FACTOR, FACTOR)
    hu = np.round(blocks.mean(axis=(2, 4), dtype=np.float32)).astype(np.int16)
    i, j, k = ct.spacing_ijk_mm
    small = replace(ct, hu=hu, spacing_ijk_mm=(i, j, k * step / FACTOR))
    if lung_mask is None:
        return small, None
    parts = lung_mask[: size[0], : size[1], : size[2]].reshape(size[0] // step, step, *blocks.shape[1:])
    return small, np.asarray(parts.any(axis=(1, 3, 5)))


def least_voxels(ct: CtVolume) -> int:
    """Least number of voxels, in the downsampled CT, of a lesion of :data:`LEAST_MM3`."""
    return int(LEAST_MM3 / (ct.voxel_volume_mm3 * slices_of_block(ct) * FACTOR**2))


def upsampled(probability: np.ndarray, small: CtVolume, ct: CtVolume, threshold: float) -> np.ndarray:
    """``probability`` (uint8) of ``small``, the downsampled CT, on the voxels of ``ct``.

    Only what is above ``threshold``, large enough, of :data:`LEAST_SCORE` and no dome of the diaphragm; all else is 0.
    """
    step = slices_of_block(ct)
    result = np.zeros(ct.hu.shape, np.uint8)
    for mass in find_candidates(probability, threshold, least_voxels=least_voxels(ct)):
        values = np.where(mass.mask, probability[mass.box], 0).astype(np.uint8)
        if values.max() < LEAST_SCORE * 255 or _rises_from_below(mass, small.hu):
            continue
        for axis, times in enumerate((step, FACTOR, FACTOR)):
            values = values.repeat(times, axis)
        box = tuple(
            slice(side.start * times, side.stop * times) for side, times in zip(mass.box, (step, FACTOR, FACTOR), strict=True)
        )
        np.maximum(result[box], values, out=result[box])
    return result


def _rises_from_below(mass: Candidate, hu: np.ndarray) -> bool:
    k = mass.box[0].start
    if k == 0:
        return False
    goes_on = mass.mask[0] & (hu[k - 1][mass.box[1:]] > SOFT_HU)
    return bool(np.count_nonzero(goes_on) > OPEN_SHARE * np.count_nonzero(mass.mask, axis=(1, 2)).max())


def slices_of_block(ct: CtVolume) -> int:
    """Every so many slices of the canonical ``ct`` become one of the downsampled."""
    return max(1, min(round(SLICES_MM / ct.spacing_ijk_mm[2]), len(ct.hu)))


def _covered(shape: tuple[int, ...], step: int) -> tuple[int, int, int]:
    """Voxels that whole blocks cover; less than a block at the upper ends is left out."""
    k, j, i = (length // times * times for length, times in zip(shape, (step, FACTOR, FACTOR), strict=True))
    return k, j, i
