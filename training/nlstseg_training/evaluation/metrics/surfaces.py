"""How far the surfaces of two masks lie apart: the share within a tolerance (NSD), HD95 and ASSD, weighted by area."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NLSTSegLib.volume.components import boxed_components

TOLERANCES_MM = (1.0, 2.0)
"""NSD is reported at 1 mm (primary) and 2 mm: about the in-plane and the through-plane spacing of a screening CT."""

SMOOTHING_VOXELS = 0.5
"""Standard deviation by which the distance to the mask's edge is smoothed before the surface is taken: of a sphere in voxels of
2 x 0.66 x 0.66 mm it leaves no stairs, and its area comes within 5 %."""

LEAST_DISTANCE = 0.25
"""Part of the smallest spacing that a voxel's middle keeps from the surface, on its own side: so no voxel changes sides."""

HD_PERCENTILE = 95.0


@dataclass(frozen=True)
class SurfaceDistances:
    """Figures of two masks; NaN what is not defined."""

    nsd: tuple[float, ...]
    """Area, at each tolerance, of either surface within it of the other, over the area of both (Nikolov et al. 2018, arXiv
    1809.04430; Metrics Reloaded 2024). 0 where one mask is empty, NaN where both are."""
    hd95_mm: float
    """The larger one of the two distances within which 95 % of either surface lie; NaN where a mask is empty."""
    assd_mm: float
    """Mean distance of both surfaces from each other; NaN where a mask is empty."""


def surface_distances(
    reference: np.ndarray,
    predicted: np.ndarray,
    spacing_kji_mm: tuple[float, float, float],
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
) -> SurfaceDistances:
    """Figures of two boolean masks ``[k, j, i]``.

    A surface is the zero of the smoothed signed distance to the mask's edge, as triangles (marching cubes of scikit-image):
    faces of voxels, on which it is often taken, make the NSD generous where slices are thick. It is made component by
    component, which is as if of the whole: no two 26-connected components share a cell of it.
    """
    from scipy.spatial import KDTree

    nothing = float("nan")
    sizes = [int(np.count_nonzero(mask)) for mask in (reference, predicted)]
    if not all(sizes):
        return SurfaceDistances(tuple(0.0 if any(sizes) else nothing for _ in tolerances_mm), nothing, nothing)
    surfaces = [_surface(mask, spacing_kji_mm) for mask in (reference, predicted)]
    trees = [KDTree(np.concatenate((surface.centres, surface.corners))) for surface in surfaces]
    distances = [trees[1 - n].query(surface.centres)[0] for n, surface in enumerate(surfaces)]
    areas = [surface.areas for surface in surfaces]
    total = sum(float(area.sum()) for area in areas)
    nsd = []
    for tolerance in tolerances_mm:
        # Rounding must not decide about a distance that equals the tolerance.
        close = sum(float(area[far <= tolerance + 1e-6].sum()) for area, far in zip(areas, distances, strict=True))
        nsd.append(close / total)
    hd95_mm = max(_percentile(far, area) for area, far in zip(areas, distances, strict=True))
    assd_mm = sum(float(far @ area) for area, far in zip(areas, distances, strict=True)) / total
    return SurfaceDistances(tuple(nsd), hd95_mm, assd_mm)


@dataclass(frozen=True, eq=False)
class _Surface:
    """Triangles: the middle of each ``[n, 3]`` in mm (k, j, i), its area in mm2, and the corners of all."""

    centres: np.ndarray
    areas: np.ndarray
    corners: np.ndarray


def _surface(mask: np.ndarray, spacing_kji_mm: tuple[float, float, float]) -> _Surface:
    parts = [_triangles(np.pad(own, 3), spacing_kji_mm, box) for box, own in boxed_components(mask, 1)]
    return _Surface(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _triangles(
    mask: np.ndarray, spacing_kji_mm: tuple[float, float, float], box: tuple[slice, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from skimage.measure import marching_cubes

    depth_mm = distance_transform_edt(mask, spacing_kji_mm) - distance_transform_edt(~mask, spacing_kji_mm)
    smooth_mm = gaussian_filter(depth_mm, SMOOTHING_VOXELS)
    least_mm = LEAST_DISTANCE * min(spacing_kji_mm)
    smooth_mm = np.where(mask, np.maximum(smooth_mm, least_mm), np.minimum(smooth_mm, -least_mm))
    corners, faces, _, _ = marching_cubes(smooth_mm.astype(np.float32), 0.0, spacing=spacing_kji_mm)
    corners = corners + (np.array([side.start for side in box]) - 3) * spacing_kji_mm
    triangles = corners[faces]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return triangles.mean(axis=1), np.linalg.norm(normals, axis=1) / 2, corners


def _percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    order = np.argsort(distances)
    reached = np.cumsum(areas[order])
    return float(distances[order][np.searchsorted(reached, HD_PERCENTILE / 100 * reached[-1])])
