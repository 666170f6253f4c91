"""The lesions of a phantom: radial shapes of known size, density and place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from NLSTSegLib.phantom.anatomy import lung_level
from NLSTSegLib.phantom.canvas import SUBSLICES, Axes, Canvas, coverage, slice_mean

SOLID_HU = 30.0
"""Solid lesions and the core of the part-solid one."""

GROUND_GLASS_HU = -600.0

SOLID_EDGE_MM, GROUND_GLASS_EDGE_MM = 1.0, 2.5
"""Width over which a lesion fades into the lung, half of it inside the outline."""

WAVES, UNDULATION, SPICULE = 5, 0.03, 0.25
"""An outline's gentle waves, how many and how high each, and the height of the mass's spicules, as shares of the radius."""

GAP_MM = 15.0
"""Least distance between the surfaces of two lesions."""


@dataclass(frozen=True)
class PhantomLesion:
    """What is known of one lesion.

    ``diameter_mm`` is that of the sphere of the lesion's volume, ``solid_diameter_mm`` the same for its solid part (0 for
    ground glass). ``hu`` is the density before blur and noise, for the part-solid lesion that of the ground glass.
    """

    label: int
    kind: str
    diameter_mm: float
    solid_diameter_mm: float
    centre_lps_mm: tuple[float, float, float]
    hu: float


@dataclass(frozen=True)
class LesionShape:
    """The outline lies at ``radius_mm`` from the centre, times a factor that depends on the direction."""

    truth: PhantomLesion
    radius_mm: float
    waves: np.ndarray
    """Four columns: the wave vector and the phase of a gentle undulation."""
    spikes: np.ndarray
    """Directions of spicules."""

    @property
    def centre_mm(self) -> np.ndarray:
        return np.array(self.truth.centre_lps_mm)

    @property
    def reach_mm(self) -> float:
        """No part of the lesion is farther from its centre."""
        return (1 + WAVES * UNDULATION + (SPICULE if len(self.spikes) else 0)) * self.radius_mm

    def factor(self, unit: Sequence[np.ndarray]) -> np.ndarray:
        x, y, z = unit
        factor = np.ones_like(x)
        for a, b, c, phase in self.waves.astype(np.float32):
            factor += np.float32(UNDULATION) * np.cos(a * x + b * y + c * z + phase)
        spicules = np.zeros_like(x)
        for a, b, c in self.spikes.astype(np.float32):
            np.maximum(spicules, np.exp(110 * (a * x + b * y + c * z - 1)), out=spicules)
        return factor + np.float32(SPICULE) * spicules

    def distance_mm(self, axes: Axes) -> np.ndarray:
        """Signed, along the ray from the centre to the outline; below 0 inside."""
        offsets = np.broadcast_arrays(*(axis - np.float32(c) for axis, c in zip(axes, self.centre_mm, strict=True)))
        distance = np.sqrt(sum(offset * offset for offset in offsets)) + np.float32(1e-3)
        return distance - np.float32(self.radius_mm) * self.factor([offset / distance for offset in offsets])

    def inside(self, axes: Axes, lungs: Callable[[Axes], np.ndarray] = lung_level) -> np.ndarray:
        """Which points belong to the lesion."""
        return (self.distance_mm(axes) < 0) & (lungs(axes) < 0)

    def core(self) -> LesionShape:
        """The solid part of the part-solid lesion: the outline mirrored and smaller, off the centre."""
        share = self.truth.solid_diameter_mm / self.truth.diameter_mm
        x, y, z = self.centre_mm + 0.15 * self.radius_mm * self.waves[0, :3] / np.linalg.norm(self.waves[0, :3])
        return replace(
            self,
            truth=replace(self.truth, centre_lps_mm=(x, y, z), hu=SOLID_HU),
            radius_mm=share * self.radius_mm,
            waves=self.waves * [-1, -1, -1, 1],
        )

    def paint(self, canvas: Canvas, labels: np.ndarray, lungs: Callable[[Axes], np.ndarray]) -> None:
        """Into the voxels, fading at the edge, and into the labels, to the voxel."""
        reach_mm = self.reach_mm + GROUND_GLASS_EDGE_MM
        box = canvas.box(self.centre_mm - reach_mm, self.centre_mm + reach_mm)
        in_lung = coverage(lungs(canvas.axes(box)))
        for part in (self, self.core()) if self.truth.kind == "part-solid" else (self,):
            edge_mm = SOLID_EDGE_MM if part.truth.hu == SOLID_HU else GROUND_GLASS_EDGE_MM
            distance_mm = part.distance_mm(canvas.axes(box, subslices=SUBSLICES))
            canvas.blend(box, slice_mean(distance_mm, edge_mm) * in_lung, part.truth.hu)
        labels[box][self.inside(canvas.axes(box), lungs)] = self.truth.label


def outlined(rng: np.random.Generator, label: int, kind: str, diameter_mm: float, solid_mm: float, hu: float) -> LesionShape:
    """A lesion of that volume and a random outline, not yet placed."""
    directions = rng.standard_normal((WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = np.column_stack([directions * rng.uniform(1.5, 4, (WAVES, 1)), rng.uniform(0, 2 * np.pi, WAVES)])
    spikes = rng.standard_normal((26 if kind == "mass" else 0, 3))
    spikes /= np.linalg.norm(spikes, axis=1, keepdims=True)
    truth = PhantomLesion(label, kind, diameter_mm, solid_mm, (0.0, 0.0, 0.0), hu)
    lesion = LesionShape(truth, diameter_mm / 2, waves, spikes)
    # Evenly spread directions (golden spiral); the volume of a radial shape goes with the mean cube of its radius.
    n = np.arange(20000) + 0.5
    z = 1 - 2 * n / len(n)
    around = np.pi * (1 + 5**0.5) * n
    unit = (np.sqrt(1 - z * z) * np.cos(around), np.sqrt(1 - z * z) * np.sin(around), z)
    scale = float(np.mean(lesion.factor(unit) ** 3) ** (1 / 3))
    return replace(lesion, radius_mm=lesion.radius_mm / scale)


def placed(lesion: LesionShape, centre_mm: np.ndarray, lungs: Callable[[Axes], np.ndarray] = lung_level) -> LesionShape:
    """The lesion at that place; on the pleura, the diameter becomes that of the part in the lung."""
    x, y, z = (float(c) for c in centre_mm)
    lesion = replace(lesion, truth=replace(lesion.truth, centre_lps_mm=(x, y, z)))
    if lesion.truth.kind != "juxtapleural":
        return lesion
    step_mm = 0.25
    offsets = np.arange(-lesion.reach_mm, lesion.reach_mm, step_mm).astype(np.float32)
    axes = ((x + offsets)[None, None, :], (y + offsets)[None, :, None], (z + offsets)[:, None, None])
    diameter_mm = float(np.cbrt(6 / np.pi * lesion.inside(axes, lungs).sum() * step_mm**3))
    return replace(lesion, truth=replace(lesion.truth, diameter_mm=diameter_mm, solid_diameter_mm=diameter_mm))


def clear_of(others: Sequence[LesionShape], lesion: LesionShape, points_mm: np.ndarray) -> np.ndarray:
    """Whether the lesion keeps, at each of the points ``[n, 3]``, :data:`GAP_MM` to the others."""
    clear = np.ones(len(points_mm), bool)
    for other in others:
        clear &= np.linalg.norm(points_mm - other.centre_mm, axis=1) > other.reach_mm + lesion.reach_mm + GAP_MM
    return clear
