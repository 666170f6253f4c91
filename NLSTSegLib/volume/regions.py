"""Boxes and regions of voxels on the grid of a CT."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Region:
    """Voxels on the grid of a CT: ``mask`` is bool ``[k, j, i]`` of the shape of ``box`` and touches all of its sides."""

    box: Box
    mask: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, box: Box) -> Region:
        """The voxels of ``mask`` (bool, of the shape of ``box``), cut down to them; of no voxels, an empty region."""
        if not mask.any():
            return cls((slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool))
        tight = bounding_box(mask)
        k, j, i = (slice(o.start + t.start, o.start + t.stop) for o, t in zip(box, tight, strict=True))
        return cls((k, j, i), mask[tight].copy())

    @classmethod
    def union(cls, regions: Iterable[Region]) -> Region:
        """All voxels of ``regions``."""
        parts = [region for region in regions if region.voxels]
        if not parts:
            return cls.of(np.zeros((1, 1, 1), bool), (slice(0, 1), slice(0, 1), slice(0, 1)))
        box = box_around([part.box for part in parts])
        return cls(box, np.logical_or.reduce([part.within(box) for part in parts]))

    @cached_property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.mask))

    @cached_property
    def fingerprint(self) -> str:
        """Equal for regions of the same shape, wherever they lie; else different."""
        packed = np.packbits(self.mask).tobytes()
        return hashlib.sha256(repr(self.mask.shape).encode() + packed).hexdigest()[:16]

    def within(self, box: Box) -> np.ndarray:
        """bool ``[k, j, i]`` of the shape of ``box``: the part of the region that lies in it."""
        inside = np.zeros([side.stop - side.start for side in box], bool)
        here, there = [], []
        for own, other in zip(self.box, box, strict=True):
            low, high = max(own.start, other.start), min(own.stop, other.stop)
            if low >= high:
                return inside
            here.append(slice(low - own.start, high - own.start))
            there.append(slice(low - other.start, high - other.start))
        inside[tuple(there)] = self.mask[tuple(here)]
        return inside

    def common_voxels(self, other: Region) -> int:
        """How many voxels belong to both."""
        return int(np.count_nonzero(self.within(other.box) & other.mask))

    def dice(self, other: Region) -> float:
        """Twice the common voxels by the sum of both, 0 to 1 (Dice 1945); 1 for two empty regions."""
        total = self.voxels + other.voxels
        return 2 * self.common_voxels(other) / total if total else 1.0


def covered(regions: Iterable[Region], box: Box) -> np.ndarray:
    """bool ``[k, j, i]`` of the shape of ``box``: what belongs to any of ``regions``."""
    taken = np.zeros([side.stop - side.start for side in box], bool)
    for region in regions:
        taken |= region.within(box)
    return taken


def box_around(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all ``boxes``."""
    k, j, i = (slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))
    return k, j, i


def grown_box(box: Box, margin_mm: float, spacing_ijk_mm: tuple[float, float, float], shape_kji: tuple[int, ...]) -> Box:
    """``box`` with at least ``margin_mm`` on every side, as far as the grid of ``shape_kji`` reaches."""
    margins = [int(np.ceil(margin_mm / spacing_mm)) for spacing_mm in spacing_ijk_mm[::-1]]
    k, j, i = (
        slice(max(0, side.start - margin), min(size, side.stop + margin))
        for side, margin, size in zip(box, margins, shape_kji, strict=True)
    )
    return k, j, i


Box = tuple[slice, slice, slice]
"""Where a cut-out lies in a ``[k, j, i]`` array."""


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box that holds all of ``mask`` (bool ``[k, j, i]``, not empty)."""
    # Axis by axis, each on what the one before left: of a whole volume, only the first pass sees all.
    bounds: list[slice] = []
    for axis in range(3):
        rest = mask[tuple(bounds)]
        hits = np.flatnonzero(rest.any(axis=tuple(other for other in range(3) if other != axis)))
        bounds.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return bounds[0], bounds[1], bounds[2]
