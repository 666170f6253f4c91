"""The phantom's anatomy: body, organs, lungs, bones, vessels and airways in LPS millimetres from the middle of the chest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from NLSTSegLib.phantom.canvas import Axes, Canvas, Ellipsoid, Tube, coverage, smooth_max

LUNG_HU = -885.0
"""Parenchyma at the level of the heart's back."""

LUNG_GRADIENT_HU_PER_MM = 0.35
"""The lung is denser towards the back, where the patient lies."""

TEXTURE_HU, TEXTURE_MM = 25.0, 3.0
"""Unevenness of the parenchyma (what is too small to be drawn) and its grain."""

LEAF_RADIUS_MM = 0.62
"""Radius of the last branches of the vessels; a stem's follows from its branches by Murray's law (r^3 adds up)."""

BRONCHUS_ARTERY_MM = 2.2
"""Arteries of at least this radius have a bronchus beside them; a smaller one's wall is hardly seen."""

CLEARANCE_MM = 2.0
"""How far the vessels' walls keep from what they grow around."""

HILA_MM = {
    -1: (np.array([-27.0, 6, 18]), np.array([-24.0, -4, 4])),
    1: (np.array([27.0, 8, 14]), np.array([25.0, -2, 0])),
}
"""Where the arteries and the veins enter the right (-1) and the left (1) lung."""

_FOREVER_MM = 1000.0
_FAT_HU = -100.0
_TABLE_HU = 60.0
_ABDOMEN_HU = 55.0
_BODY = Ellipsoid((0, 0, 0), (162, 112, _FOREVER_MM), 20, n=2.3)
_MUSCLE = Ellipsoid((0, 0, 0), (142, 103, _FOREVER_MM), 50, n=2.3)
_SIDES = {
    -1: Ellipsoid((-56, -3, 20), (64, 86, 106), n=2.4, open_below=True, taper=0.12),
    1: Ellipsoid((56, -3, 20), (64, 86, 103), n=2.4, open_below=True, taper=0.12),
}
"""Inside of the ribs on the patient's right and left."""
_BETWEEN = Ellipsoid((0, -6, 0), (45, 83, _FOREVER_MM), n=2.5)
_ORGANS = (
    # heart, its apex, ascending aorta, pulmonary trunk, arch, vena cava, great vessels, aorta, oesophagus, hila
    Ellipsoid((12, -32, -28), (48, 42, 50)),
    Ellipsoid((38, -32, -40), (44, 36, 36)),
    Ellipsoid((-12, -22, 36), (17, 17, 44)),
    Ellipsoid((14, -22, 30), (15, 20, 26)),
    Ellipsoid((6, 2, 62), (15, 34, 12)),
    Ellipsoid((-27, -14, 50), (9, 9, 52)),
    Ellipsoid((2, -8, 100), (28, 16, 48)),
    Ellipsoid((21, 42, -440), (12, 12, 508), m=8),
    Ellipsoid((6, 28, 0), (8, 7, _FOREVER_MM)),
    Ellipsoid((-28, 6, 16), (7, 12, 18)),
    Ellipsoid((28, 8, 12), (7, 12, 18)),
)
_MEDIASTINAL_FAT = (
    Ellipsoid((0, 0, 0), (4, 90, _FOREVER_MM)),
    Ellipsoid((0, 70, 0), (21, 29, _FOREVER_MM)),
    Ellipsoid((0, -30, 0), (8, 60, _FOREVER_MM)),
)
"""The lungs keep clear of these too: the membrane between them, the spine and the fat behind the sternum."""
_SPLEEN_AND_STOMACH = (Ellipsoid((80, 38, -105), (34, 40, 32), 52), Ellipsoid((62, -35, -112), (38, 36, 42), 35))
_DISCS = Ellipsoid((0, 60, 0), (16.5, 12.5, _FOREVER_MM), 80)
_VERTEBRAE_Z_MM = np.arange(-156.0, 157, 24)
_CANAL = Tube(np.array([0.0, 79, -200]), np.array([0.0, 79, 200]), (8, 8), 25)


def lung_level(axes: Axes) -> np.ndarray:
    """Level that is below 0 in the lungs: the two sides of the chest without what lies between them and below the diaphragm."""
    chest = np.minimum(*(side.level(axes) for side in _SIDES.values()))
    middle = _ORGANS[0].level(axes)
    for shape in (*_ORGANS[1:], *_MEDIASTINAL_FAT):
        np.minimum(middle, shape.level(axes), out=middle)
    above = smooth_max(chest, np.float32(-0.7) * _above_diaphragm_mm(axes), 3)
    return smooth_max(above, np.float32(1) - middle, 4)


def _above_diaphragm_mm(axes: Axes) -> np.ndarray:
    """Height over the two domes, which fall towards the ribs, most at the back."""
    x, y, z = axes
    right, left = (((x - cx) / 66) ** 2 + ((y + 14) / 97) ** 2 for cx in (-58, 60))
    return z - np.maximum(-46 - 70 * right**1.7, -60 - 58 * left**1.7).astype(np.float32)


def paint_body(canvas: Canvas, rng: np.random.Generator) -> None:
    """Table, chest wall, abdomen, organs, vertebrae and lungs; ``rng`` makes the lungs' texture."""
    for box in canvas.slabs():
        x, y, _ = axes = canvas.axes(box)
        body, inside = _BODY.level(axes), _BETWEEN.level(axes)
        for side in _SIDES.values():
            np.minimum(inside, side.level(axes), out=inside)
        below = _above_diaphragm_mm(axes)
        canvas.blend(box, coverage(np.abs(y - 130 + x * x / 1100) - 3 + 0 * body), _TABLE_HU)
        canvas.blend(box, coverage(body), _BODY.hu)
        canvas.blend(box, coverage(body + 2), _FAT_HU)
        canvas.blend(box, coverage(_MUSCLE.level(axes)), _MUSCLE.hu)
        canvas.blend(box, coverage(inside), _FAT_HU)
        canvas.blend(box, coverage(np.maximum(inside, below)), _ABDOMEN_HU)
        canvas.blend(box, coverage(np.maximum(np.maximum(inside, below) + 4, 22 - x)), _FAT_HU)
    for shape in (*_SPLEEN_AND_STOMACH, *_ORGANS, _DISCS):
        canvas.paint_ellipsoid(shape)
    for z in _VERTEBRAE_Z_MM:
        for inset_mm, hu in ((0, 350), (1.5, 170)):
            semi_axes_mm = (18.0 - inset_mm, 14.0 - inset_mm, 10.5 - inset_mm)
            canvas.paint_ellipsoid(Ellipsoid((0, 60, z), semi_axes_mm, hu, n=2.3, m=6))
    texture = _texture(canvas, rng)
    for box in canvas.slabs():
        axes = canvas.axes(box)
        canvas.blend(box, coverage(lung_level(axes)), texture[box] + np.float32(LUNG_GRADIENT_HU_PER_MM) * axes[1])


def _texture(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """HU ``[k, j, i]`` of parenchyma that is smoothly uneven."""
    import SimpleITK as sitk

    counts = [int(n * s / TEXTURE_MM) + 2 for n, s in zip(canvas.hu.shape, canvas.spacing_ijk_mm[::-1], strict=True)]
    grain = sitk.GetImageFromArray(LUNG_HU + rng.standard_normal(counts, np.float32) * np.float32(TEXTURE_HU))
    grain.SetSpacing([TEXTURE_MM / s for s in canvas.spacing_ijk_mm])
    return sitk.GetArrayFromImage(sitk.Resample(grain, canvas.hu.shape[::-1]))


def bones() -> Iterator[Tube]:
    """Ribs that fall from the spine to the front and end in cartilage, the spine's arches, the sternum; marrow inside."""
    for inset_mm, bone_hu in ((0.0, 520.0), (1.8, 230.0)):
        for side in _SIDES:
            for top_mm in np.arange(118.0, -120, -25):
                path = [_beside_pleura(side, top_mm, share) for share in np.linspace(0, 1, 40)]
                for n, (a, b) in enumerate(pairwise(path)):
                    yield Tube(a, b, (4.8 - inset_mm,) * 2, bone_hu if n < 30 else 120)
            for z in _VERTEBRAE_Z_MM:
                arch, process, tip, end = np.array([[side * 13, 70, z], [side * 30, 84, z + 3], [0, 91, z - 4], [0, 103, z - 9]])
                yield Tube(arch, process, (5.5 - inset_mm, 4.5 - inset_mm), bone_hu)
                yield Tube(arch, tip, (4.5 - inset_mm,) * 2, bone_hu)
                yield Tube(tip, end, (3.5 - inset_mm,) * 2, bone_hu)
        for x in (-9.0, -3, 3, 9):
            yield Tube(np.array([x, -94, -40]), np.array([x, -91, 95]), (5 - inset_mm,) * 2, bone_hu)
    yield _CANAL


def _beside_pleura(side: int, top_mm: float, share: float) -> np.ndarray:
    """On a rib, 7 mm outside the pleura: from beside the spine (0) round to the front (1), where it is 62 mm lower."""
    chest = _SIDES[side]
    angle = np.radians(-28 + 190 * share)
    s, t = np.sin(angle), np.cos(angle)
    z = top_mm - 62 * share
    a, b, c = chest.semi_axes_mm
    narrowed = max(0.0, 1 - (max(z - chest.centre_mm[2], 0) / c) ** chest.m) ** (1 / chest.n)
    radius = narrowed / (abs(s / a) ** chest.n + abs(t / b) ** chest.n) ** (1 / chest.n)
    wide = 1 + chest.taper * radius * t / b
    return np.array([chest.centre_mm[0] + side * (radius * wide + 7) * s, chest.centre_mm[1] + (radius + 7) * t, z])


def branches(
    start_mm: np.ndarray, ends_mm: np.ndarray, obstacles: Sequence[tuple[np.ndarray, float]], rng: np.random.Generator
) -> Iterator[Tube]:
    """A tree of vessels from ``start_mm`` to all ``ends_mm`` ``[n, 3]``, around the obstacles (centre and radius of each).

    It runs some way towards the middle of the ends, parts them in two across their longest extent, and goes on for each part.
    """
    many = len(ends_mm) > 1
    radius_mm = LEAF_RADIUS_MM * len(ends_mm) ** (1 / 3)
    kept_clear = [(centre_mm, reach_mm + radius_mm + CLEARANCE_MM) for centre_mm, reach_mm in obstacles]
    stem_mm = _outside(start_mm + 0.4 * (ends_mm.mean(axis=0) - start_mm) if many else ends_mm[0], kept_clear)
    tip_mm = radius_mm if many else 0.85 * radius_mm
    length_mm = float(np.linalg.norm(stem_mm - start_mm))
    bend_mm = rng.standard_normal(3) * 0.06 * length_mm
    steps = np.linspace(0, 1, max(2, int(length_mm / 5) + 1))
    path_mm = [_outside(start_mm + (stem_mm - start_mm) * step + bend_mm * np.sin(np.pi * step), kept_clear) for step in steps]
    radii_mm = (radius_mm + (tip_mm - radius_mm) * steps).tolist()
    for n in range(len(steps) - 1):
        yield Tube(path_mm[n], path_mm[n + 1], (radii_mm[n], radii_mm[n + 1]))
    if many:
        spread_mm = ends_mm - ends_mm.mean(axis=0)
        order = (spread_mm @ np.linalg.svd(spread_mm, full_matrices=False)[2][0]).argsort()
        cut = min(max(int(len(ends_mm) * rng.uniform(0.3, 0.7)), 1), len(ends_mm) - 1)
        for part in (order[:cut], order[cut:]):
            yield from branches(stem_mm, ends_mm[part], obstacles, rng)


def _outside(point_mm: np.ndarray, obstacles: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    """The point, or where it comes to lie when the obstacles push it aside."""
    for centre_mm, radius_mm in obstacles:
        offset_mm = point_mm - centre_mm
        distance_mm = float(np.linalg.norm(offset_mm))
        if distance_mm < radius_mm:
            point_mm = centre_mm + offset_mm * (radius_mm / max(distance_mm, 1e-3))
    return point_mm


def airways(arteries: Sequence[Tube]) -> Iterator[Tube]:
    """Trachea, main bronchi and a bronchus beside every larger artery: first all walls, then the air in them."""
    carina_mm = np.array([0.0, 10, 34])
    beside = np.array([0, 0.8, 0.6])
    lumens = [Tube(np.array([0.0, 4, 200]), carina_mm, (8.5, 8.5))]
    for side, radius_mm in ((-1, 6.0), (1, 5.5)):
        lumens.append(Tube(carina_mm, HILA_MM[side][0] + 8 * beside, (radius_mm, 4.5)))
    for artery in arteries:
        if min(artery.radii_mm) >= BRONCHUS_ARTERY_MM:
            first, last = artery.radii_mm
            # Beside the artery: its radius and the bronchus's own away.
            lumens.append(
                Tube(artery.start_mm + 1.75 * first * beside, artery.end_mm + 1.75 * last * beside, (0.7 * first, 0.7 * last))
            )
    for tube in lumens:
        yield tube._replace(radii_mm=(1.1 * tube.radii_mm[0] + 0.4, 1.1 * tube.radii_mm[1] + 0.4), hu=10)
    for tube in lumens:
        yield tube._replace(hu=-985)
