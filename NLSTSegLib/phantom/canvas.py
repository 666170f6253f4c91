"""Painting shapes given in millimetres into CT voxels, each voxel weighted by the share of it that the shape covers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SUBSLICES = 3
"""Small shapes are averaged over this many planes within a slice, as a slice averages over its thickness."""

SLAB_SLICES = 8
"""Shapes that fill the CT are painted so many slices at a time: what is computed stays small."""

Box = tuple[slice, slice, slice]
"""Part of a CT, ``[k, j, i]``."""

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""x, y, z of voxel centres in LPS millimetres, shaped to broadcast over ``[k, j, i]``."""


class Ellipsoid(NamedTuple):
    """``|x/a|^n + |y/b|^n + |z/c|^m = 1`` in LPS millimetres: n > 2 is squarer in-plane, m > 2 flatter above and below."""

    centre_mm: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]
    hu: float = 45.0
    n: float = 2.0
    m: float = 2.0
    open_below: bool = False
    """Whether the cross-section at the centre goes on below it."""
    taper: float = 0.0
    """Share by which it is narrower at the front and wider at the back than in the middle."""

    def level(self, axes: Axes) -> np.ndarray:
        """Level that is below 0 inside; near the surface about the distance in mm."""
        x, y, z = (axis - np.float32(c) for axis, c in zip(axes, self.centre_mm, strict=True))
        a, b, c = self.semi_axes_mm
        if self.open_below:
            z = np.maximum(z, 0)
        if self.taper:
            x = x / (1 + np.clip(y / b, -1.5, 1.5) * np.float32(self.taper))
        plane = np.abs(x / a) ** self.n + np.abs(y / b) ** self.n - 1
        return (plane + np.abs(z / c) ** self.m) * np.float32(min(a, b, c) / self.n)


class Tube(NamedTuple):
    """A cone with round ends from ``start_mm`` to ``end_mm`` (LPS) and its radius at each."""

    start_mm: np.ndarray
    end_mm: np.ndarray
    radii_mm: tuple[float, float]
    hu: float = 45.0

    @property
    def middle_mm(self) -> np.ndarray:
        return (self.start_mm + self.end_mm) / 2

    @property
    def direction(self) -> np.ndarray:
        along = self.end_mm - self.start_mm
        return along / max(float(np.linalg.norm(along)), 1e-6)


class Canvas:
    """The voxels while they are painted: float32 ``hu`` ``[k, j, i]``, air at first, centred on the origin."""

    def __init__(self, field_of_view_ijk_mm: tuple[float, float, float], spacing_ijk_mm: tuple[float, float, float]) -> None:
        self.spacing_ijk_mm = spacing_ijk_mm
        counts = [round(fov / s) for fov, s in zip(field_of_view_ijk_mm, spacing_ijk_mm, strict=True)]
        x, y, z = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(counts, spacing_ijk_mm, strict=True))
        self.origin_lps_mm = (float(x[0]), float(y[0]), float(z[0]))
        self._x, self._y, self._z = (axis.astype(np.float32) for axis in (x, y, z))
        self.hu = np.full(counts[::-1], -1000, np.float32)

    def box(self, low_mm: np.ndarray, high_mm: np.ndarray) -> Box:
        """The voxels between two corners (LPS)."""
        i, j, k = (
            slice(*np.searchsorted(axis, ends).tolist())
            for axis, ends in zip((self._x, self._y, self._z), np.stack((low_mm, high_mm), axis=1), strict=True)
        )
        return k, j, i

    def axes(self, box: Box, *, subslices: int = 1) -> Axes:
        """The voxel centres in ``box``, with ``subslices`` planes for every slice."""
        k, j, i = box
        offsets = ((np.arange(subslices) + 0.5) / subslices - 0.5) * self.spacing_ijk_mm[2]
        z = (self._z[k, None] + offsets.astype(np.float32)).reshape(-1, 1, 1)
        return self._x[None, None, i], self._y[None, j, None], z

    def slabs(self) -> Iterator[Box]:
        """The whole CT in pieces of :data:`SLAB_SLICES`."""
        for k in range(0, len(self.hu), SLAB_SLICES):
            yield slice(k, k + SLAB_SLICES), slice(None), slice(None)

    def blend(self, box: Box, coverage: np.ndarray, hu: float | np.ndarray) -> None:
        """Paint ``hu`` over ``box`` where ``coverage`` is 1, and mix where it is less."""
        view = self.hu[box]
        view += coverage * (hu - view)

    def paint_ellipsoid(self, shape: Ellipsoid) -> None:
        reach = np.add(shape.semi_axes_mm, self.spacing_ijk_mm)
        box = self.box(shape.centre_mm - reach, shape.centre_mm + reach)
        if min(self.hu[box].shape) > 1:
            self.blend(box, coverage(shape.level(self.axes(box))), shape.hu)

    def paint_tube(self, tube: Tube) -> None:
        reach = max(tube.radii_mm) + np.array(self.spacing_ijk_mm)
        box = self.box(np.minimum(tube.start_mm, tube.end_mm) - reach, np.maximum(tube.start_mm, tube.end_mm) + reach)
        x, y, z = (a - np.float32(c) for a, c in zip(self.axes(box, subslices=SUBSLICES), tube.start_mm, strict=True))
        dx, dy, dz = (tube.end_mm - tube.start_mm).astype(np.float32)
        length2 = max(dx * dx + dy * dy + dz * dz, np.float32(1e-6))
        along = x * dx + y * dy + z * dz
        share = np.clip(along / length2, 0, 1)
        distance = np.sqrt(np.maximum(x * x + y * y + z * z + share * (share * length2 - 2 * along), 0))
        radius = np.float32(tube.radii_mm[0]) + share * np.float32(tube.radii_mm[1] - tube.radii_mm[0])
        self.blend(box, slice_mean(distance - radius, self.spacing_ijk_mm[0]), tube.hu)


def slice_mean(distance_mm: np.ndarray, edge_mm: float) -> np.ndarray:
    """The coverage from the signed distance on :data:`SUBSLICES` planes a slice; the edge is a ramp ``edge_mm`` wide."""
    inside = np.clip(0.5 - distance_mm / np.float32(edge_mm), 0, 1)
    return inside.reshape(-1, SUBSLICES, *inside.shape[1:]).mean(axis=1)


def coverage(level: np.ndarray) -> np.ndarray:
    """The share of each voxel where ``level`` < 0: the level over its change from voxel to voxel is the distance in voxels."""
    steps = np.gradient(level)
    return np.clip(0.5 - level / np.sqrt(sum(step * step for step in steps) + np.float32(1e-6)), 0, 1)


def smooth_max(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    """The level of the intersection of two shapes, with the edge between them rounded over about ``round_mm``."""
    overlap = np.maximum(np.float32(round_mm) - np.abs(a - b), 0)
    return np.maximum(a, b) + overlap * overlap / np.float32(4 * round_mm)
