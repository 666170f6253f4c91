"""A chest as other scanners, and the pass at half the resolution, would show it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from nlstseg_training.data.cache import Case
from NLSTSegLib.inference.low_resolution import FACTOR, downsampled, slices_of_block

BLOOD_HU = (-20, 180)
"""Blood without contrast, and the soft tissue that looks like it; bone and contrast are brighter."""


def downsampled_case(case: Case) -> Case:
    """The case as the pass at half the resolution sees it. What is marked anywhere in a block is marked in it."""
    ct, lungs = downsampled(case.ct, case.lungs)
    blocks = (slices_of_block(case.ct), FACTOR, FACTOR)
    labels, target = (_largest_of_blocks(volume, blocks) for volume in (case.labels, case.target))
    return replace(case, ct=ct, lungs=lungs, labels=labels, target=target)


def thicker(case: Case, slices: int) -> Case:
    """The case with the mean of so many slices in each; what is left over at the upper end is not in it."""
    i_mm, j_mm, k_mm = case.ct.spacing_ijk_mm
    hu, target = (_stacked(volume, slices).mean(axis=1, dtype=np.float32) for volume in (case.ct.hu, case.target))
    labels = _stacked(case.labels, slices).max(axis=1) * (target >= 127.5)
    lungs = None if case.lungs is None else np.any(_stacked(case.lungs, slices), axis=1)
    ct = replace(case.ct, hu=np.round(hu).astype(np.int16), spacing_ijk_mm=(i_mm, j_mm, k_mm * slices))
    # Rounded up, so that what a minority marked stays marked.
    return replace(case, ct=ct, labels=labels.astype(case.labels.dtype), target=np.ceil(target).astype(np.uint8), lungs=lungs)


def between_lungs(lungs: np.ndarray) -> np.ndarray:
    """bool ``[k, j, i]``: between voxels of the lung field along rows and along columns, as heart and large vessels are."""

    def spanned(axis: int) -> np.ndarray:
        ahead = np.maximum.accumulate(lungs, axis)
        behind = np.flip(np.maximum.accumulate(np.flip(lungs, axis), axis), axis)
        return ahead & behind

    return spanned(2) & spanned(1)


def with_contrast(hu: np.ndarray, where: np.ndarray, more_hu: float) -> np.ndarray:
    """float32 HU ``[k, j, i]`` in which the blood in ``where`` (bool) is brighter by ``more_hu``, less at its edges."""
    blood = (hu > BLOOD_HU[0]) & (hu < BLOOD_HU[1]) & where
    share = functional.avg_pool2d(torch.from_numpy(blood.astype(np.float32))[:, None], 3, 1, 1)[:, 0].numpy()
    return hu + more_hu * share


def _stacked(array: np.ndarray, slices: int) -> np.ndarray:
    whole = len(array) // slices
    return array[: whole * slices].reshape(whole, slices, *array.shape[1:])


def _largest_of_blocks(array: np.ndarray, blocks: tuple[int, int, int]) -> np.ndarray:
    """Less than a block at the upper ends is left out."""
    k, j, i = (length // size for length, size in zip(array.shape, blocks, strict=True))
    whole = array[: k * blocks[0], : j * blocks[1], : i * blocks[2]]
    return whole.reshape(k, blocks[0], j, blocks[1], i, blocks[2]).max(axis=(1, 3, 5))
