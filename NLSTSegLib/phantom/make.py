"""A synthetic chest CT with six lesions of known place, size and density, for demonstrations and tests.

Everything is a shape in the patient's millimetres (LPS, the origin in the middle of the chest): ellipsoids for the organs,
tubes for vessels, airways and bones, radial shapes for the lesions. Each is painted over what was there before; noise and
the blur of a reconstruction come last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.phantom.anatomy import HILA_MM, airways, bones, branches, lung_level, paint_body
from NLSTSegLib.phantom.canvas import Axes, Canvas, Tube
from NLSTSegLib.phantom.lesion import GROUND_GLASS_HU, SOLID_HU, LesionShape, PhantomLesion, clear_of, outlined, placed
from NLSTSegLib.volume.ct import CtVolume

FIELD_OF_VIEW_IJK_MM = (336.0, 336.0, 288.0)
"""A little wider than the body; from the upper abdomen to above the apices."""

SPACING_IJK_MM = (0.75, 0.75, 2.25)
"""Default voxels, those of an everyday chest CT: 128 slices of 448x448."""

NOISE_HU = 22.0
"""Standard deviation of the noise in the finished CT."""

PSF_SIGMA_MM = 0.55
"""In-plane blur of the reconstruction (Gaussian), for image and noise alike: 1.3 mm full width at half maximum."""


SEARCH_MM = 3.0
"""Grid on which places for lesions and ends of vessels are looked for."""

VESSEL_LEAVES = (620, 420)
"""Last branches of the arteries and of the veins in each lung."""


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
