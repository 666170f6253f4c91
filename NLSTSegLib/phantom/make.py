"""A synthetic chest CT with six lesions of known place, size and density, for demonstrations and tests.

Everything is a shape in the patient's millimetres (LPS, the origin in the middle of the chest): ellipsoids for the organs,
tubes for vessels, airways and bones, radial shapes for the lesions. Each is painted over what was there before; noise and
the blur of a reconstruction come last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.phantom.anatomy import HILA_MM, airways, bones, branches, lung_level, paint_body
from NLSTSegLib.phantom.canvas import SUBSLICES, Axes, Canvas, Tube, coverage, slice_mean
from NLSTSegLib.volume.ct import CtVolume

FIELD_OF_VIEW_IJK_MM = (336.0, 336.0, 288.0)
"""A little wider than the body; from the upper abdomen to above the apices."""

SPACING_IJK_MM = (0.75, 0.75, 2.25)
"""Default voxels, those of an everyday chest CT: 128 slices of 448x448."""

NOISE_HU = 22.0
"""Standard deviation of the noise in the finished CT."""

PSF_SIGMA_MM = 0.55
"""In-plane blur of the reconstruction (Gaussian), for image and noise alike: 1.3 mm full width at half maximum."""

SOLID_HU = 30.0
"""Solid lesions and the core of the part-solid one."""

GROUND_GLASS_HU = -600.0

SOLID_EDGE_MM, GROUND_GLASS_EDGE_MM = 1.0, 2.5
"""Width over which a lesion fades into the lung, half of it inside the outline."""

WAVES, UNDULATION, SPICULE = 5, 0.03, 0.25
"""An outline's gentle waves, how many and how high each, and the height of the mass's spicules, as shares of the radius."""

GAP_MM = 15.0
"""Least distance between the surfaces of two lesions."""

SEARCH_MM = 3.0
"""Grid on which places for lesions and ends of vessels are looked for."""

VESSEL_LEAVES = (620, 420)
"""Last branches of the arteries and of the veins in each lung."""


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
class Phantom:
    """A phantom CT (int16 HU) with its truth: ``labels`` is uint8 ``[k, j, i]``, n in lesion n and 0 elsewhere."""

    ct: CtVolume
    labels: np.ndarray
    lesions: tuple[PhantomLesion, ...]


_PLAN = (
    # label, kind, diameter, solid diameter, HU; the largest finds its place first
    (6, "mass", 38.0, 38.0, SOLID_HU),
    (4, "juxtapleural", 15.0, 15.0, SOLID_HU),
    (2, "part-solid", 16.0, 8.0, GROUND_GLASS_HU),
    (3, "ground glass", 14.0, 0.0, GROUND_GLASS_HU),
    (1, "solid", 10.0, 10.0, SOLID_HU),
    (5, "juxtavascular", 9.0, 9.0, SOLID_HU),
)


def make_phantom(seed: int = 0, *, spacing_ijk_mm: tuple[float, float, float] = SPACING_IJK_MM) -> Phantom:
    """The phantom of ``seed``: always the same voxels for the same seed and spacing.

    The seed sets the vessels, where the lesions lie, their outlines and the noise; the spacing only samples the same chest
    finer or coarser. A voxel belongs to a lesion when its centre is inside the lesion's outline (and, for the lesion on the
    pleura, inside the lung). Raises :class:`InputError` for a negative seed or a spacing outside 0.5 to 4 mm.
    """
    if not all(0.5 <= s <= 4 for s in spacing_ijk_mm):
        raise InputError(f"the phantom's spacing {spacing_ijk_mm} mm is outside 0.5 to 4 mm: give values within")
    chest = chest_of(seed)
    canvas = chest.paint(spacing_ijk_mm)
    return finished(canvas, chest.lesions, chest.noise_rng, canvas.origin_lps_mm)


@dataclass(frozen=True)
class Chest:
    """The shapes of a phantom."""

    lesions: list[LesionShape]
    arteries: list[Tube]
    veins: list[Tube]
    noise_rng: np.random.Generator

    def paint(self, spacing_ijk_mm: tuple[float, float, float]) -> Canvas:
        """The chest without its lesions, neither blurred nor noisy."""
        canvas = Canvas(FIELD_OF_VIEW_IJK_MM, spacing_ijk_mm)
        paint_body(canvas, self.noise_rng)
        for tube in [*bones(), *self.arteries, *self.veins, *airways(self.arteries)]:
            canvas.paint_tube(tube)
        return canvas


def chest_of(seed: int) -> Chest:
    """The chest of ``seed``; raises :class:`InputError` for a negative one."""
    if seed < 0:
        raise InputError(f"the phantom's seed {seed} is negative: give 0 or more")
    chest_rng, noise_rng = np.random.default_rng(seed).spawn(2)
    return Chest(*_lesions_and_vessels(chest_rng), noise_rng)


def finished(
    canvas: Canvas,
    lesions: Sequence[LesionShape],
    rng: np.random.Generator,
    origin_lps_mm: tuple[float, float, float],
    lungs: Callable[[Axes], np.ndarray] = lung_level,
) -> Phantom:
    """The phantom of a painted chest: with these lesions, blurred and noisy, its first voxel at ``origin_lps_mm``.

    ``lungs`` is the level of the lungs on the canvas, below 0 inside.
    """
    labels = np.zeros(canvas.hu.shape, np.uint8)
    for lesion in lesions:
        lesion.paint(canvas, labels, lungs)
    ct = CtVolume(_reconstruct(canvas, rng), canvas.spacing_ijk_mm, origin_lps_mm)
    return Phantom(ct, labels, tuple(sorted((lesion.truth for lesion in lesions), key=lambda truth: truth.label)))


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


class LungSearch:
    """Points in the lungs on a coarse grid, with their distance to the lungs' surface."""

    def __init__(self) -> None:
        import SimpleITK as sitk

        self.canvas = Canvas(FIELD_OF_VIEW_IJK_MM, (SEARCH_MM,) * 3)
        inside = lung_level(self.canvas.axes((slice(None),) * 3)) < 0
        image = sitk.GetImageFromArray(inside.astype(np.uint8))
        # Counted from the outermost voxels inside, whose centres lie about half a step within the lung.
        depths = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=False)
        self._depths_mm = (sitk.GetArrayFromImage(depths) + 0.5) * SEARCH_MM
        self.points_mm = np.argwhere(inside)[:, ::-1] * SEARCH_MM + np.array(self.canvas.origin_lps_mm)
        self.depths_mm = self._depths_mm[inside]

    def depths_at_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """Distance to the lungs' surface at any points ``[n, 3]``, below 0 outside."""
        i, j, k = np.rint((points_mm - np.array(self.canvas.origin_lps_mm)) / SEARCH_MM).astype(int).T
        return self._depths_mm[k, j, i]


def _lesions_and_vessels(rng: np.random.Generator) -> tuple[list[LesionShape], list[Tube], list[Tube]]:
    """The six lesions, the arteries and the veins.

    All lesions but one are placed first, so the vessels can grow around them; the last is set beside a vein.
    """
    lungs = LungSearch()
    points_mm, depths_mm = lungs.points_mm, lungs.depths_mm
    hila_mm = np.concatenate(list(HILA_MM.values()))
    peripheral = np.linalg.norm(points_mm[:, None] - hila_mm, axis=2).min(axis=1) > 42
    out_mm, front_mm, up_mm = np.abs(points_mm - [0, 0, 5]).T
    on_ribs = (out_mm > 100) & (front_mm < 55) & (up_mm < 45) & (depths_mm > 3) & (depths_mm < 5)
    lesions: list[LesionShape] = []
    for plan in _PLAN[:-1]:
        lesion = outlined(rng, *plan)
        where = on_ribs if lesion.truth.kind == "juxtapleural" else peripheral & (depths_mm > lesion.reach_mm + 5)
        lesions.append(placed(lesion, rng.permutation(points_mm[where & clear_of(lesions, lesion, points_mm)])[0]))
    vessels: tuple[list[Tube], list[Tube]] = ([], [])
    # Vessels run into a mass, and around what is smaller.
    obstacles = [(lesion.centre_mm, lesion.reach_mm) for lesion in lesions if lesion.truth.kind != "mass"]
    for side, hila in HILA_MM.items():
        ends_mm = rng.permutation(points_mm[(depths_mm > 3) & (points_mm[:, 0] * side > 0)])[: sum(VESSEL_LEAVES)]
        ends_mm = ends_mm + rng.uniform(-0.5, 0.5, ends_mm.shape) * SEARCH_MM
        for tree, hilum, targets in zip(vessels, hila, np.split(ends_mm, VESSEL_LEAVES[:1]), strict=True):
            tree.extend(branches(hilum, targets, obstacles, rng))
    lesion = outlined(rng, *_PLAN[-1])
    lesions.append(placed(lesion, _beside_a_vein(lesion, lesions, vessels, lungs, rng)))
    return lesions, *vessels


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
    """At that place; on the pleura, the diameter becomes that of the part in the lung."""
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
    """At which of the points ``[n, 3]`` the lesion keeps :data:`GAP_MM` to the others."""
    clear = np.ones(len(points_mm), bool)
    for other in others:
        clear &= np.linalg.norm(points_mm - other.centre_mm, axis=1) > other.reach_mm + lesion.reach_mm + GAP_MM
    return clear


def _beside_a_vein(
    lesion: LesionShape,
    others: Sequence[LesionShape],
    vessels: Sequence[Sequence[Tube]],
    lungs: LungSearch,
    rng: np.random.Generator,
) -> np.ndarray:
    """A centre from which the lesion just reaches into a vein, with as few other vessels around as there are."""
    veins = [tube for tube in vessels[1] if 1.2 < tube.radii_mm[0] < 2.0]
    across = np.cross([tube.direction for tube in veins], rng.standard_normal((len(veins), 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    away_mm = np.array([[tube.radii_mm[0]] for tube in veins]) + 0.8 * lesion.radius_mm
    centres_mm = np.array([tube.middle_mm for tube in veins]) + across * away_mm
    deep = lungs.depths_at_mm(centres_mm) > lesion.reach_mm + 5
    centres_mm = centres_mm[deep & clear_of(others, lesion, centres_mm)]
    middles_mm = np.array([tube.middle_mm for tree in vessels for tube in tree])
    crossings = [(np.linalg.norm(middles_mm - c, axis=1) < lesion.radius_mm + 2).sum() for c in centres_mm]
    return centres_mm[np.argmin(crossings)]


def _reconstruct(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """int16 HU with noise and blur. One blur serves both, so the noise has the grain of the image's sharpness."""
    import SimpleITK as sitk

    variances = [(PSF_SIGMA_MM / s) ** 2 for s in canvas.spacing_ijk_mm[:2]]
    # What a discrete Gaussian of variance t leaves of white noise's variance: exp(-2t) I0(2t) per axis (Lindeberg 1990).
    kept = float(np.prod([np.exp(-2 * t) * np.i0(2 * t) for t in variances])) ** 0.5
    for box in canvas.slabs():
        view = canvas.hu[box]
        view += rng.standard_normal(view.shape, np.float32) * np.float32(NOISE_HU / kept)
    image = sitk.DiscreteGaussian(sitk.GetImageFromArray(canvas.hu), [*variances, 0.0], 32, 0.01, False)
    return np.rint(sitk.GetArrayViewFromImage(image)).clip(-1024, 3071).astype(np.int16)
