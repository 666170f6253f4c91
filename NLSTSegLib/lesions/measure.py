"""Sizes of one lesion as a radiologist reads them: volume, axial axes, density, solid part."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from NLSTSegLib.volume.components import component_labels
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regions import bounding_box

SOLID_ABOVE_HU = -160
"""Voxels above count as solid (soft tissue); ground glass and the lung around it are below."""

TIE_MM = 1e-6
"""Axes closer in length than this count as equally long, so that rounding noise cannot choose between them."""


Point = tuple[float, float, float]
"""Left, posterior, superior in mm."""


@dataclass(frozen=True)
class Measurements:
    """The sizes of one lesion, unrounded; round once, at output, with :func:`round_half_up`."""

    volume_mm3: float
    """Voxel count times voxel volume."""
    equivalent_diameter_mm: float
    """Diameter of the sphere of this volume, ``(6 V / pi) ** (1/3)``."""
    long_axis_mm: float
    """Largest Feret diameter of the mask's contour in any axial slice."""
    short_axis_mm: float
    """Longest line perpendicular to the long axis, in its slice, inside the contour's convex hull."""
    mean_diameter_mm: float
    """Mean of the long and the short axis."""
    mean_hu: float
    solid_volume_mm3: float
    """Volume of the voxels above :data:`SOLID_ABOVE_HU`; they need not hang together."""
    solid_long_axis_mm: float
    """Long axis of the largest 26-connected piece of the solid part (a bright speck of noise far off does not stretch
    it); 0 where nothing is solid."""
    centroid_lps_mm: Point
    slice_k: int
    """Index k, on the canonical grid, of the slice in which the axes were taken."""
    long_axis_ends_lps_mm: tuple[Point, Point]
    short_axis_ends_lps_mm: tuple[Point, Point]


def measure(mask: np.ndarray, ct: CtVolume, offset_kji: tuple[int, int, int]) -> Measurements:
    """Measure one lesion.

    ``mask`` is bool ``[k, j, i]``, a cut-out of the canonical ``ct`` that starts at voxel ``offset_kji``.

    In each axial slice the outline is the 0.5-level contour of the mask, which runs through the middles between inside
    and outside pixels: a single pixel is as long and wide as its spacing. The long axis is the largest distance between
    two of its points, in the slice where that is largest. The short axis is the longest *line* perpendicular to it that
    fits the convex hull of the same contour, as a reader draws it, and not the width of the shadow: a 20 mm x 10 mm
    rectangle has the axes 22.4 and 11.2 mm. Among equally long axes the one with the longest short axis is taken, so
    flipping the CT changes no size; among equal slices the lowest.

    Raises ``ValueError`` for a mask that is empty, not bool, or reaches out of the CT.
    """
    cut_out = tuple(slice(start, start + size) for start, size in zip(offset_kji, mask.shape, strict=True))
    hu = ct.hu[cut_out]
    if min(offset_kji) < 0 or hu.shape != mask.shape:
        raise ValueError(f"a mask of shape {mask.shape} at {offset_kji} reaches out of the CT's {ct.hu.shape}")
    if mask.dtype != bool or not mask.any():
        raise ValueError(f"the mask must be bool and not empty; this one is {mask.dtype} with {np.count_nonzero(mask)} voxels")
    tight = bounding_box(mask)
    start_kji = [start + inner.start for start, inner in zip(offset_kji, tight, strict=True)]
    mask, hu = mask[tight], hu[tight]
    voxels_hu = hu[mask]
    solid = mask & (hu > SOLID_ABOVE_HU)
    volume_mm3 = float(len(voxels_hu) * ct.voxel_volume_mm3)
    frame_mm = _frame_mm(ct)

    hulls = _hulls_mm(mask, frame_mm)
    longest_mm = max(_distances_mm(hull).max() for hull in hulls.values())
    candidates = [(k, *axes) for k, hull in hulls.items() for axes in _axes(hull, longest_mm)]
    slice_k, long_axis, short_axis = max(candidates, key=lambda found: round(_length_mm(found[2]) / TIE_MM))
    long_axis_mm = _length_mm(long_axis)
    # Where both are equal, rounding must not make the short one the longer.
    short_axis_mm = min(_length_mm(short_axis), long_axis_mm)

    def to_lps_mm(ij_k: np.ndarray) -> Point:
        left, posterior, superior = ct.lps_from_ijk_mm(ij_k + np.asarray(start_kji[::-1])).tolist()
        return left, posterior, superior

    def ends_lps_mm(axis: np.ndarray) -> tuple[Point, Point]:
        first, second = (np.append(ij, slice_k) for ij in axis @ np.linalg.inv(frame_mm))
        return to_lps_mm(first), to_lps_mm(second)

    return Measurements(
        volume_mm3=volume_mm3,
        equivalent_diameter_mm=sphere_diameter_mm(volume_mm3),
        long_axis_mm=long_axis_mm,
        short_axis_mm=short_axis_mm,
        mean_diameter_mm=(long_axis_mm + short_axis_mm) / 2,
        mean_hu=float(voxels_hu.mean(dtype=np.float64)),
        solid_volume_mm3=float(np.count_nonzero(solid) * ct.voxel_volume_mm3),
        solid_long_axis_mm=_solid_long_axis_mm(solid, frame_mm),
        centroid_lps_mm=to_lps_mm(np.array([axis.mean() for axis in mask.nonzero()[::-1]])),
        slice_k=slice_k + start_kji[0],
        long_axis_ends_lps_mm=ends_lps_mm(long_axis),
        short_axis_ends_lps_mm=ends_lps_mm(short_axis),
    )


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere of this volume, ``(6 V / pi) ** (1/3)``."""
    return float(np.cbrt(6 * volume_mm3 / np.pi))


def round_half_up(value: float, decimals: int) -> float:
    """``value`` rounded to ``decimals`` places for output, halves away from zero: 2.25 gives 2.3 and 5.5 gives 6.0.

    Python's ``round`` takes halves to the even neighbour and 2.675, stored as 2.67499..., down.
    """
    # What is beyond nine places is noise of the arithmetic: 5.499999999999999 is a 5.5 that was missed.
    exact = Decimal(repr(round(float(value), 9)))
    return float(exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)) + 0.0  # + 0.0 makes -0.0 a 0.0


def shown_sizes(sizes: Measurements | None) -> dict[str, str | int | float]:
    """Sizes as they are shown and written, rounded once, here; those of a lesion without voxels (``None``) are 0 and "".

    Volumes in whole mm3, diameters in mm to one decimal (Lung-RADS v2022), HU as whole numbers.
    """
    if sizes is None:
        diameters = ("equivalent_diameter_mm", "long_axis_mm", "short_axis_mm", "mean_diameter_mm")
        return {"volume_mm3": 0, **dict.fromkeys((*diameters, "mean_hu", "solid_volume_mm3"), "")}
    return {
        "volume_mm3": int(round_half_up(sizes.volume_mm3, 0)),
        "equivalent_diameter_mm": round_half_up(sizes.equivalent_diameter_mm, 1),
        "long_axis_mm": round_half_up(sizes.long_axis_mm, 1),
        "short_axis_mm": round_half_up(sizes.short_axis_mm, 1),
        "mean_diameter_mm": round_half_up(sizes.mean_diameter_mm, 1),
        "mean_hu": int(round_half_up(sizes.mean_hu, 0)),
        "solid_volume_mm3": int(round_half_up(sizes.solid_volume_mm3, 0)),
    }


def _frame_mm(ct: CtVolume) -> np.ndarray:
    """2x2, rows are the steps of i and j in right-angled axial coordinates, mm.

    Without origin and obliqueness, which would add rounding noise to sizes that do not depend on them.
    """
    cosine = float(ct.direction_matrix[:, 0] @ ct.direction_matrix[:, 1])
    spacing_i, spacing_j = ct.spacing_ijk_mm[:2]
    return np.array([[spacing_i, 0.0], [spacing_j * cosine, spacing_j * np.sqrt(1 - cosine**2)]])


def _solid_long_axis_mm(solid: np.ndarray, frame_mm: np.ndarray) -> float:
    if not solid.any():
        return 0.0
    labels = component_labels(solid)
    largest = labels == np.bincount(labels[solid]).argmax()
    return max(float(_distances_mm(hull).max()) for hull in _hulls_mm(largest, frame_mm).values())


def _hulls_mm(mask: np.ndarray, frame_mm: np.ndarray) -> dict[int, np.ndarray]:
    """Corners ``[n, 2]``, in order, of the convex hull of the 0.5-level contour of each slice k with voxels."""
    # Between the first and the last pixel of a row or column lie no corners, so these alone are looked at: twice their
    # index, to have whole numbers, for no rounding to decide what is a corner.
    _, height, width = mask.shape
    k, j = np.nonzero(mask.any(axis=2))
    first_i, last_i = mask.argmax(axis=2)[k, j], width - 1 - mask[:, :, ::-1].argmax(axis=2)[k, j]
    row_ends = [np.stack([k, 2 * first_i - 1, 2 * j]), np.stack([k, 2 * last_i + 1, 2 * j])]
    k, i = np.nonzero(mask.any(axis=1))
    first_j, last_j = mask.argmax(axis=1)[k, i], height - 1 - mask[:, ::-1].argmax(axis=1)[k, i]
    column_ends = [np.stack([k, 2 * i, 2 * first_j - 1]), np.stack([k, 2 * i, 2 * last_j + 1])]
    points = np.concatenate(row_ends + column_ends, axis=1)
    points = points[:, np.lexsort(points[::-1])]

    sides = _left_turns(points), _left_turns(points[:, ::-1])
    hulls = {}
    for slice_k in np.unique(k):
        # Each side ends in the corner with which the other begins.
        corners = [side[1:, side[0] == slice_k][:, :-1] for side in sides]
        hulls[int(slice_k)] = np.concatenate(corners, axis=1).T / 2 @ frame_mm
    return hulls


def _left_turns(points: np.ndarray) -> np.ndarray:
    """One side of the convex hull in each slice: those of the ``[3, n]`` sorted points (k, i, j) at which it turns left.

    A point that makes no left turn is not on this side of the hull, as the line between its neighbours runs further out;
    so all of them can go at once. Repeated until all turn left, this is Andrew's (1979) chain for all slices together.
    """
    while True:
        steps = np.diff(points)
        turns_left = steps[1, :-1] * steps[2, 1:] > steps[2, :-1] * steps[1, 1:]
        # The first and the last point of a slice are corners in any case.
        keep = np.ones(points.shape[1], bool)
        keep[1:-1] = turns_left | (steps[0, :-1] != 0) | (steps[0, 1:] != 0)
        if keep.all():
            return points
        points = points[:, keep]


def _distances_mm(hull: np.ndarray) -> np.ndarray:
    """``[n, n]``, from every corner to every other."""
    return np.hypot(*(hull[:, None] - hull[None]).transpose(2, 0, 1))


def _length_mm(axis: np.ndarray) -> float:
    return float(np.hypot(*(axis[1] - axis[0])))


def _axes(hull: np.ndarray, longest_mm: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every pair of corners that is ``longest_mm`` apart, and the short axis across it; each axis is ``[2, 2]``."""
    pairs = np.argwhere(np.triu(_distances_mm(hull) >= longest_mm - TIE_MM))
    return [(hull[pair], _short_axis(hull, *pair)) for pair in pairs]


def _short_axis(hull: np.ndarray, start: int, end: int) -> np.ndarray:
    """Ends ``[2, 2]`` of the longest line inside ``hull`` perpendicular to its largest diameter, corners ``start < end``."""
    along = (hull[end] - hull[start]) / np.hypot(*(hull[end] - hull[start]))
    across = np.array([-along[1], along[0]])
    # No corner lies beyond the ends of the largest diameter, so each side of it is a function of the way along it.
    one_side = hull[start : end + 1]
    other_side = np.concatenate([hull[end:], hull[: start + 1]])[::-1]
    # The width is piecewise linear between corners: it is largest at one. The middle is there for parallel sides.
    middle = (hull[start] + hull[end]) @ along / 2
    stations = np.append(hull @ along, middle)
    edges = [np.interp(stations, side @ along, side @ across) for side in (one_side, other_side)]
    widths = np.abs(edges[0] - edges[1])
    widest = (widths >= widths.max() - TIE_MM).nonzero()[0]
    best = widest[np.abs(stations[widest] - middle).argmin()]
    return np.array([stations[best] * along + edge[best] * across for edge in edges])
