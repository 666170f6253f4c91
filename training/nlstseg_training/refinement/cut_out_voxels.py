"""What a cut-out is made of: voxels around a place, lung where a nodule was, vessels that no reader marked."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from nlstseg_training.refinement.candidates import LabelledCandidate
from nlstseg_training.refinement.pool import LoadedCase
from NLSTSegLib.inference.candidates import cut_out
from NLSTSegLib.inference.lung_air import AIR_BELOW_HU

CROP_PX = 128
"""Width of a nodule crop: other places are now and then shown as narrow, or edges would tell that there is a lesion."""

CROP_SLICES = 6
"""And at most so many slices up and down."""

SHIFTS, SHIFT_PX, MOST_SHARED = 24, 48, 0.2
"""Places tried for the lung that fills the hole of a nodule, how far away, and how much of them may be nodule."""

DENSE_HU, BESIDE_PX, LUNG_SHARE, DENSE_PLACES = -400, 8, 0.25, 100
"""Vessels and walls: voxels above this, so far from any mark, with so much lung among their neighbours; so many of a case."""

Size = tuple[int, int, int]

CutOutArrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""HU (float32), target (float32, 0..1) and where there are voxels (bool), each ``[k, j, i]``."""


def arrays_around(
    hu: np.ndarray, target: np.ndarray, centre: np.ndarray, size: Size, step: int, *, short: bool, rng: np.random.Generator
) -> CutOutArrays:
    """The voxels around ``centre`` (whole numbers k, j, i), of every ``step``-th slice; NaN in ``hu`` is no voxel.

    With ``short`` as if the CT were as small as a nodule crop, unless nothing were left of a lesion. ``target`` is given as
    readers' shares (uint8) or as it is.
    """
    kji = (int(centre[0]), int(centre[1]), int(centre[2]))
    cut, marked = (cut_out(array, kji, size, step) for array in (hu, target))
    soft = soft_target(marked.values) if target.dtype == np.uint8 else marked.values
    inside_volume = cut.inside_volume & np.isfinite(cut.values)
    if short:
        up, down = rng.integers(1, CROP_SLICES + 1, 2) * step
        j, i = centre[1:] + rng.integers(-20, 21, 2)
        half = CROP_PX // 2
        ends = ((kji[0] - up, kji[0] + down), (j - half, j + half), (i - half, i + half))
        k, j, i = ((index >= low) & (index < high) for index, (low, high) in zip(cut.axes, ends, strict=True))
        shown = inside_volume & k[:, None, None] & j[:, None] & i
        lesion = inside_volume & (soft > 0.5)
        if lesion[shown].any() or not lesion.any():
            inside_volume = shown
    return np.nan_to_num(cut.values.astype(np.float32)), soft, inside_volume


def soft_target(shares: np.ndarray) -> np.ndarray:
    """float32 0..1 of the share of readers (0..255): above 0.5 where two of four or more marked, however many readers."""
    return np.interp(shares / 255, (0, 0.25, 0.5, 0.75), (0, 0.2, 0.8, 1)).astype(np.float32)


def dense_places(loaded: LoadedCase, *, beside_lung: bool = True) -> list[LabelledCandidate]:
    """Some voxels of vessels, walls and the like beside lung, or of organs too, away from what any reader marked; always the same
    of a case."""
    rng = np.random.default_rng(len(loaded.places))
    air, marked = loaded.hu < AIR_BELOW_HU, loaded.target > 0
    dense = loaded.hu > DENSE_HU
    if loaded.case.lungs is not None:
        dense &= loaded.case.lungs
    found: list[LabelledCandidate] = []
    for k, half_j, half_i in rng.permutation(np.argwhere(dense[:, ::2, ::2]))[: 20 * DENSE_PLACES]:
        j, i = 2 * half_j, 2 * half_i
        near = (slice(max(0, j - BESIDE_PX), j + BESIDE_PX + 1), slice(max(0, i - BESIDE_PX), i + BESIDE_PX + 1))
        if (air[k][near].mean() > LUNG_SHARE or not beside_lung) and not marked[max(0, k - 3) : k + 4][:, near[0], near[1]].any():
            found.append(LabelledCandidate(loaded.case.id, (int(k), int(j), int(i)), 0))
            if len(found) == DENSE_PLACES:
                break
    return found


def continued(loaded: LoadedCase, more: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """HU (float32) and target of a crop with ``more`` slices at each end: the end slice with lung in the nodule's place."""
    hu, target = loaded.hu.astype(np.float32), loaded.target
    first, last = (fill_with_lung(hu[end], target[end] > 0, rng) for end in (0, -1))
    whole = np.concatenate((np.repeat(first[None], more, 0), hu, np.repeat(last[None], more, 0)))
    return whole, np.pad(target, ((more, more), (0, 0), (0, 0)))


def fill_with_lung(hu: np.ndarray, marked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice ``[j, i]`` with the darkest of some stretches of the same shape in place of what is ``marked``, softly blended."""
    if not marked.any():
        return hu
    grown = functional.max_pool2d(torch.from_numpy(marked.astype(np.float32))[None], 7, 1, 3)
    share = functional.avg_pool2d(grown, 5, 1, 2)[0].numpy()
    rows, columns = np.nonzero(share)
    filling = np.full(len(rows), np.percentile(hu, 20), np.float32)
    darkest = np.inf
    for j, i in rng.integers(-SHIFT_PX, SHIFT_PX + 1, (SHIFTS, 2)):
        there_j, there_i = rows + j, columns + i
        if min(there_j.min(), there_i.min()) < 0 or there_j.max() >= hu.shape[0] or there_i.max() >= hu.shape[1]:
            continue
        values = hu[there_j, there_i]
        if (share[there_j, there_i] > 0).mean() <= MOST_SHARED and values.mean() < darkest:
            filling, darkest = values, values.mean()
    result = hu.copy()
    result[rows, columns] = (1 - share[rows, columns]) * hu[rows, columns] + share[rows, columns] * filling
    return result
