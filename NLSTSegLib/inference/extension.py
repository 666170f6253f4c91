"""Lesions that lead out of what was searched: where to search on, so that none is cut."""

from __future__ import annotations

import numpy as np

from NLSTSegLib.volume.regions import bounding_box

STEP_PX = 16
"""The search goes on so far around the place where a lesion leads out."""

MAXIMUM_ML = 500.0
"""More than this above the threshold is no picture of lesions (the largest of NLSTseg has 372 ml), and not followed."""


def beyond_the_edge(above: np.ndarray, searched: np.ndarray, voxel_mm3: float) -> np.ndarray | None:
    """Where to search next, bool ``[k, j, i]``: around the voxels outside ``searched`` that touch, by a corner at least,
    one that is ``above`` the threshold; ``None`` where nothing leads out.

    ``above`` and ``searched`` are bool ``[k, j, i]``; nothing is above outside ``searched``. Voxels have ``voxel_mm3``.
    """
    if not above.any() or np.count_nonzero(above) * voxel_mm3 > MAXIMUM_ML * 1000:
        return None
    touched = _grown(above, (1, 1, 1)) & ~searched
    return _grown(touched, (0, STEP_PX, STEP_PX)) & ~searched if touched.any() else None


def _grown(mask: np.ndarray, by_kji: tuple[int, int, int]) -> np.ndarray:
    """``mask``, larger by so many voxels on both sides along each axis; only what is near something is looked at."""
    import SimpleITK as sitk

    box = tuple(slice(max(0, s.start - by), s.stop + by) for s, by in zip(bounding_box(mask), by_kji, strict=True))
    near = sitk.GetImageFromArray(mask[box].astype(np.uint8))
    grown = mask.copy()
    grown[box] = sitk.GetArrayFromImage(sitk.BinaryDilate(near, by_kji[::-1], sitk.sitkBox)) > 0
    return grown
