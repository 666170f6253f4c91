"""The CT with pixels of a size that the networks know, and their answer back on its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from NLSTSegLib.volume.ct import CtVolume

CHUNK_SLICES = 16
"""Resampled at once, so that float32 voxels of a few slices alone are in the memory."""


def with_known_pixels(
    ct: CtVolume, field: np.ndarray | None, range_mm: tuple[float, float] | None
) -> tuple[CtVolume, np.ndarray | None]:
    """``ct`` and the lung field (bool ``[k, j, i]``), or both resampled in the plane, over the same extent, to the nearer end of
    ``range_mm`` where the pixels are smaller or larger."""
    shape = known_shape(ct, range_mm)
    if shape == ct.hu.shape[1:]:
        return ct, field
    i_mm, j_mm, k_mm = ct.spacing_ijk_mm
    rows, columns = shape
    spacing_ijk_mm = (i_mm * ct.hu.shape[2] / columns, j_mm * ct.hu.shape[1] / rows, k_mm)
    hu = resized(ct.hu, shape)
    if field is not None:
        j, i = ((np.arange(new) * 2 + 1) * old // (2 * new) for old, new in zip(field.shape[1:], shape, strict=True))
        field = field[:, j[:, None], i]
    return replace(ct, hu=hu, spacing_ijk_mm=spacing_ijk_mm), field


def known_shape(ct: CtVolume, range_mm: tuple[float, float] | None) -> tuple[int, int]:
    """Rows and columns with which its pixels lie in ``range_mm``; its own where they do."""
    rows, columns = ct.hu.shape[1:]
    if range_mm is None:
        return rows, columns
    i_mm, j_mm, _ = ct.spacing_ijk_mm
    rows, columns = (
        max(1, round(length * own_mm / float(np.clip(own_mm, *range_mm))))
        for length, own_mm in zip((rows, columns), (j_mm, i_mm), strict=True)
    )
    return rows, columns


def resized(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whole numbers ``[k, j, i]`` on other rows and columns over the same extent: averaged where these become fewer, linear
    between pixels where they become more."""
    import torch
    from torch.nn import functional

    result = np.empty((len(array), *shape), array.dtype)
    for first in range(0, len(array), CHUNK_SLICES):
        part = torch.from_numpy(array[first : first + CHUNK_SLICES].astype(np.float32))[None]
        small = functional.interpolate(part, shape, mode="bilinear", antialias=True, align_corners=False)
        result[first : first + CHUNK_SLICES] = small[0].round_().numpy()
    return result
