"""A tilted or unevenly spaced stack of slices as a regular grid, and a mask on that grid back on the slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from NLSTSegLib.volume import PADDING_HU, CtVolume

ALIGNED_MM = 0.05
"""Slices that lie nearer than this to their place on the regular grid are left where they are."""


@dataclass(frozen=True)
class SliceStack:
    """Where the slices of a CT lie, as against its own grid.

    ``height_mm`` is each slice's position along the slice normal from the first slice, ascending; ``shift_ij_mm``
    (``[k, 2]``) how far each lies aside of the first, along i and j.
    """

    height_mm: np.ndarray
    shift_ij_mm: np.ndarray


def slice_stack(ct: CtVolume) -> SliceStack | None:
    """The slices of ``ct`` where they do not lie on a right-angled, even grid; ``None`` where they do.

    The i and j axes are at right angles (the caller has checked); k may lean, and DICOM slices may lie unevenly.
    """
    directions = ct.direction_matrix
    normal = np.cross(directions[:, 0], directions[:, 1])
    k = np.arange(ct.hu.shape[0])
    if ct.acquisition.slice_origins_lps_mm:
        offsets = np.asarray(ct.acquisition.slice_origins_lps_mm) - ct.acquisition.slice_origins_lps_mm[0]
    else:
        offsets = k[:, None] * ct.spacing_ijk_mm[2] * directions[:, 2]
    height = offsets @ normal
    shift = offsets @ directions[:, :2]
    even = np.linspace(0, height[-1], len(k))
    if np.abs(height - even).max() <= ALIGNED_MM and np.abs(shift).max() <= ALIGNED_MM:
        return None
    return SliceStack(height, shift)


def to_regular(ct: CtVolume, stack: SliceStack) -> CtVolume:
    """``ct`` on a right-angled grid with the pixels of its slices and their median distance, linearly interpolated.

    Where a slice is missing its neighbours are interpolated; what no slice covers is :data:`PADDING_HU`.
    """
    up = np.sign(stack.height_mm[-1])
    height_mm = np.abs(stack.height_mm)
    step_mm = float(np.median(np.diff(height_mm)))
    spacing_ij_mm = np.array(ct.spacing_ijk_mm[:2])
    # Whole pixels around all shifted slices: the grid holds everything.
    low = np.floor(stack.shift_ij_mm.min(axis=0) / spacing_ij_mm).astype(int)
    high = np.ceil(stack.shift_ij_mm.max(axis=0) / spacing_ij_mm).astype(int)
    width, rows = np.array(ct.hu.shape[:0:-1]) + high - low
    count = int(np.floor(height_mm[-1] / step_mm + 1e-6)) + 1
    hu = np.empty((count, rows, width), ct.hu.dtype)
    shift_px = stack.shift_ij_mm / spacing_ij_mm - low

    cache: dict[int, np.ndarray] = {}
    for n in range(count):
        at = min(n * step_mm, height_mm[-1])
        above = int(np.clip(np.searchsorted(height_mm, at, side="left"), 1, len(height_mm) - 1))
        share = (at - height_mm[above - 1]) / (height_mm[above] - height_mm[above - 1])
        cache = {k: cache[k] if k in cache else _shifted(ct.hu[k], shift_px[k], (rows, width)) for k in (above - 1, above)}
        values = (1 - share) * cache[above - 1] + share * cache[above]
        hu[n] = np.rint(values) if ct.hu.dtype == np.int16 else values

    directions = ct.direction_matrix.copy()
    directions[:, 2] = up * np.cross(directions[:, 0], directions[:, 1])
    origin = np.asarray(ct.origin_lps_mm) + directions[:, :2] @ (low * spacing_ij_mm)
    spacing = (ct.spacing_ijk_mm[0], ct.spacing_ijk_mm[1], step_mm)
    return replace(
        ct,
        hu=hu,
        spacing_ijk_mm=spacing,
        origin_lps_mm=tuple(origin.tolist()),
        direction_lps=tuple(directions.ravel().tolist()),
    )


def from_regular(array: np.ndarray, regular: CtVolume, ct: CtVolume, stack: SliceStack) -> np.ndarray:
    """``array`` on ``regular`` at the voxels of ``ct``, by the nearest neighbour."""
    spacing_ij_mm = np.array(ct.spacing_ijk_mm[:2])
    low = np.floor(stack.shift_ij_mm.min(axis=0) / spacing_ij_mm).astype(int)
    start = np.rint(stack.shift_ij_mm / spacing_ij_mm).astype(int) - low
    nearest = np.rint(np.abs(stack.height_mm) / regular.spacing_ijk_mm[2]).astype(int).clip(0, len(array) - 1)
    _, rows, width = ct.hu.shape
    return np.stack([array[k, j : j + rows, i : i + width] for k, (i, j) in zip(nearest, start, strict=True)])


def _shifted(slice_hu: np.ndarray, shift_px: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The slice moved by a fraction of pixels into a larger one, float32 ``[j, i]``."""
    result = slice_hu.astype(np.float32)
    whole = np.floor(shift_px).astype(int)
    for axis, part in ((1, shift_px[0] - whole[0]), (0, shift_px[1] - whole[1])):
        if part > 0:
            padded = np.pad(result, [(1, 0) if n == axis else (0, 0) for n in range(2)], constant_values=PADDING_HU)
            ahead = np.pad(result, [(0, 1) if n == axis else (0, 0) for n in range(2)], constant_values=PADDING_HU)
            result = (1 - np.float32(part)) * ahead + np.float32(part) * padded
    canvas = np.full(shape, PADDING_HU, np.float32)
    canvas[whole[1] : whole[1] + result.shape[0], whole[0] : whole[0] + result.shape[1]] = result
    return canvas
