"""Overlap of two masks: Dice and IoU of the voxels, and the share of the surfaces that lies close together (NSD)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NLSTSegLib.volume.components import boxed_components

TOLERANCES_MM = (1.0, 2.0)
"""NSD is reported at 1 mm (primary) and 2 mm: about the in-plane and the through-plane spacing of a screening CT."""


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels in both masks, in the predicted one alone and in the reference alone; counts of several cases add up."""

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def dice(self) -> float:
        """``2 TP / (2 TP + FP + FN)``: 0 where one mask is empty, NaN where both are."""
        return ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """``TP / (TP + FP + FN)``: 0 where one mask is empty, NaN where both are."""
        return ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)


def count_voxels(reference: np.ndarray, predicted: np.ndarray) -> VoxelCounts:
    """Count two boolean masks of one shape.

    MONAI's Dice has other rules for empty masks (NaN or 0 for a false positive on an empty reference, as one asks) and sums
    in float32; with a reference it gives the same.
    """
    both = int(np.count_nonzero(reference & predicted))
    return VoxelCounts(both, int(np.count_nonzero(predicted)) - both, int(np.count_nonzero(reference)) - both)


def surface_dice(
    reference: np.ndarray,
    predicted: np.ndarray,
    spacing_kji_mm: tuple[float, float, float],
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
) -> tuple[float, ...]:
    """Normalised surface Dice of two boolean masks ``[k, j, i]`` at each tolerance.

    The area of either surface within the tolerance of the other, over the area of both (Nikolov et al. 2018, arXiv
    1809.04430; Metrics Reloaded 2024). 0 where one mask is empty, NaN where both are.

    Surfaces are known to half a voxel, which makes the tolerance as much more generous: two spheres of 24 mm, 3 mm apart,
    agree to 0.33 within 1 mm; counted with voxels of 0.2 mm they do to 0.37, with 0.4 mm to 0.42.

    Surface elements and their areas are MONAI's (sub-voxel: the marching-cubes patches of 2x2x2 voxels). They are taken
    component by component: over the box of everything in a chest MONAI takes gigabytes, and no such patch touches two
    26-connected components, so the result is that of ``compute_surface_dice(use_subvoxels=True)``.
    """
    from scipy.spatial import KDTree

    sizes = [int(np.count_nonzero(mask)) for mask in (reference, predicted)]
    if not all(sizes):
        return tuple(0.0 if any(sizes) else float("nan") for _ in tolerances_mm)
    points, areas = _surfaces(reference, predicted, spacing_kji_mm)
    close = np.zeros(len(tolerances_mm))
    for own, other, area in ((points[0], points[1], areas[0]), (points[1], points[0], areas[1])):
        # Farther than the largest tolerance the distance does not matter; it is then infinite.
        distance_mm = KDTree(other).query(own, distance_upper_bound=max(tolerances_mm) + 1e-3)[0]
        # Distances between grid points equal the tolerance often: rounding must not decide.
        close += [float(area[distance_mm <= tolerance + 1e-6].sum()) for tolerance in tolerances_mm]
    return tuple((close / (areas[0].sum() + areas[1].sum())).tolist())


def _surfaces(
    reference: np.ndarray, predicted: np.ndarray, spacing_kji_mm: tuple[float, float, float]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Positions ``[n, 3]`` (mm, k j i) and areas ``[n]`` (mm2) of the surface elements of both masks."""
    import torch
    from monai.metrics import get_mask_edges

    spacing = np.array(spacing_kji_mm)
    points: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    areas: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for box, own in boxed_components(reference | predicted, 1):
        # One voxel of background around, so that the surface closes at the edge of the image too.
        masks = [torch.from_numpy(np.pad(mask[box] & own, 1)) for mask in (reference, predicted)]
        edges = get_mask_edges(*masks, crop=False, spacing=list(map(float, spacing_kji_mm)))
        for n in range(2):
            is_edge = edges[n].numpy().astype(bool)
            points[n].append((np.argwhere(is_edge) + [side.start for side in box]) * spacing)
            areas[n].append(edges[2 + n].numpy()[is_edge].astype(float))
    return [np.concatenate(part) for part in points], [np.concatenate(part) for part in areas]


def ratio(part: float, whole: float) -> float:
    """``part / whole``; NaN when ``whole`` is 0."""
    return part / whole if whole else float("nan")
