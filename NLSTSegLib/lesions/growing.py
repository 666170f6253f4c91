"""Regions of voxels: where they lie, which hang together, grown from a seed, cut in two."""

from __future__ import annotations

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.volume.components import touching

LUNG_HU = -850
"""Healthy lung around a lesion; the outline lies halfway from it to the lesion's own density."""

LEAST_LESION_HU = -700
"""What is no denser is air or healthy lung; faint ground glass is denser."""

GROWTH_RADIUS_MM = 30.0
"""A region grown from a seed ends within this distance of it, or it has no outline of its own."""

NECK_SHARE = 0.5
"""A part thinner than this share of the lesion's own radius, such as a vessel, does not belong to the lesion."""


def distance_mm(
    shape_kji: tuple[int, ...], spacing_ijk_mm: tuple[float, float, float], from_kji: tuple[int, int, int]
) -> np.ndarray:
    """float ``[k, j, i]``: how far every voxel of a right-angled grid lies from one of them."""
    steps_mm = ((np.arange(size) - at) * step for size, at, step in zip(shape_kji, from_kji, spacing_ijk_mm[::-1], strict=True))
    return np.sqrt(sum(part**2 for part in np.meshgrid(*steps_mm, indexing="ij", sparse=True)))


def nearest(mask: np.ndarray, distance: np.ndarray) -> tuple[int, int, int]:
    """(k, j, i) of the voxel of ``mask`` (bool, not empty) with the least ``distance``, the first of equal ones."""
    k, j, i = np.unravel_index(np.where(mask, distance, np.inf).argmin(), mask.shape)
    return int(k), int(j), int(i)


def uphill(height: np.ndarray, start_kji: tuple[int, int, int]) -> tuple[int, int, int]:
    """The local maximum of ``height`` (``[k, j, i]``) reached from a voxel by stepping to the highest of 26 neighbours."""
    at = np.array(start_kji)
    while True:
        low = np.maximum(at - 1, 0)
        around = height[tuple(slice(a, b) for a, b in zip(low, at + 2, strict=True))]
        best = low + np.unravel_index(around.argmax(), around.shape)
        if height[tuple(best)] <= height[tuple(at)]:
            k, j, i = at.tolist()
            return k, j, i
        at = best


def grow_from(
    hu: np.ndarray, spacing_ijk_mm: tuple[float, float, float], seed_kji: tuple[int, int, int], blocked: np.ndarray
) -> np.ndarray:
    """bool ``[k, j, i]``: the lesion around a seed, by its density alone; ``blocked`` voxels are left out.

    Of the tissue denser than halfway from lung to the seed, hanging together with it, the ball-like part around the seed
    is kept: from the seed the way goes inwards to the middle of that part, whose depth is the lesion's radius, and what
    can only be reached through a neck thinner than :data:`NECK_SHARE` of it is cut off (a morphological opening).

    Raises :class:`InputError` when the seed lies in air or lung, or the region does not end within
    :data:`GROWTH_RADIUS_MM` of the seed (``hu`` should reach as far).
    """
    k, j, i = seed_kji
    near = (slice(k, k + 1), slice(max(0, j - 1), j + 2), slice(max(0, i - 1), i + 2))
    seed_hu = float(np.median(hu[near]))
    if seed_hu <= LEAST_LESION_HU:
        raise InputError(f"the point lies in air or healthy lung ({seed_hu:.0f} HU); click on the lesion itself")
    from_seed_mm = distance_mm(hu.shape, spacing_ijk_mm, seed_kji)
    dense = (hu > (seed_hu + LUNG_HU) / 2) & ~blocked & (from_seed_mm <= GROWTH_RADIUS_MM)
    seed = np.zeros(hu.shape, bool)
    seed[near] = dense[near]
    dense = touching(dense, seed)
    if not dense.any():
        raise InputError("around the point every voxel belongs to another lesion already; click elsewhere, or use paint")

    depth_mm = _depth_mm(dense, spacing_ijk_mm)
    middle = uphill(depth_mm, nearest(seed & dense, from_seed_mm))
    neck_mm = NECK_SHARE * depth_mm[middle]
    start = np.zeros(hu.shape, bool)
    start[middle] = True
    core = touching(dense & (depth_mm >= neck_mm), start)
    # Depths are those of the voxels' middles: without two voxels more, the opening would take the skin off.
    grown = touching(dense & (-_depth_mm(core, spacing_ijk_mm, inside=False) <= neck_mm + 2 * max(spacing_ijk_mm)), core)
    if from_seed_mm[grown].max() > GROWTH_RADIUS_MM - max(spacing_ijk_mm):
        raise InputError(
            f"around the point tissue of the same density goes on beyond {GROWTH_RADIUS_MM:.0f} mm, so no outline of a lesion "
            "is found there; click nearer to the lesion's middle, or use paint"
        )
    return grown


def cut_in_two(mask: np.ndarray, spacing_ijk_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray] | None:
    """``mask`` (bool ``[k, j, i]``) cut at its deepest waist, the larger part first; ``None`` where it has no waist.

    The watershed of the distance from the surface (Meyer 1994) gives one basin for each bulge; the basin that stands out
    least over the pass to a neighbour joins it, again and again, until two are left.
    """
    import SimpleITK as sitk

    inside = np.pad(mask, 1)
    depth_mm = _depth_mm(inside, spacing_ijk_mm)
    # Bulges that stand out less come from the voxels' steps, not from the shape.
    level_mm = max(spacing_ijk_mm) / 2
    flooded = sitk.MorphologicalWatershed(sitk.GetImageFromArray(-depth_mm), level_mm, False, True)
    basins = np.where(inside, sitk.GetArrayFromImage(flooded), 0)
    peaks_mm = {int(basin): float(depth_mm[basins == basin].max()) for basin in np.unique(basins[inside])}
    passes_mm = _passes_mm(basins, depth_mm)
    while len(peaks_mm) > 2:
        _, lower, higher = min((peaks_mm[a] - passes_mm[a, b], a, b) for a, b in passes_mm if peaks_mm[a] <= peaks_mm[b])
        basins[basins == lower] = higher
        del peaks_mm[lower]
        passes_mm = _passes_mm(basins, depth_mm)
    if len(peaks_mm) < 2:
        return None
    parts = [(basins == basin)[1:-1, 1:-1, 1:-1] for basin in sorted(peaks_mm)]
    parts.sort(key=np.count_nonzero, reverse=True)
    return parts[0], parts[1]


def _passes_mm(basins: np.ndarray, depth_mm: np.ndarray) -> dict[tuple[int, int], float]:
    """Depth of the deepest pass between every two basins that touch, both ways round."""
    passes_mm: dict[tuple[int, int], float] = {}
    for step in list(np.ndindex(3, 3, 3))[14:]:
        # Every voxel and its neighbour one step on, as two views; half of the 26 directions see every pair once.
        here = tuple(slice(max(0, 1 - s), min(size, size + 1 - s)) for s, size in zip(step, basins.shape, strict=True))
        there = tuple(slice(part.start + s - 1, part.stop + s - 1) for part, s in zip(here, step, strict=True))
        first, second = basins[here], basins[there]
        border = (first != second) & (first > 0) & (second > 0)
        levels_mm = np.minimum(depth_mm[here], depth_mm[there])[border]
        for a, b, level_mm in zip(first[border].tolist(), second[border].tolist(), levels_mm.tolist(), strict=True):
            for pair in ((a, b), (b, a)):
                passes_mm[pair] = max(level_mm, passes_mm.get(pair, 0.0))
    return passes_mm


def _depth_mm(mask: np.ndarray, spacing_ijk_mm: tuple[float, float, float], *, inside: bool = True) -> np.ndarray:
    """float32 ``[k, j, i]``: distance from the surface, positive inside the mask and negative outside; of one side only."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_ijk_mm)
    distance = sitk.SignedMaurerDistanceMapImageFilter()
    distance.SetInsideIsPositive(True)
    distance.SetSquaredDistance(False)
    distance.SetUseImageSpacing(True)
    distance.SetNumberOfWorkUnits(1)
    depth_mm = sitk.GetArrayFromImage(distance.Execute(image))
    return np.where(mask == inside, depth_mm, 0)
