"""The phantom's patient months later: the same chest, breathing less deep, turned on the table, in other slices; one lesion has
grown, one is gone, one is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from NLSTSegLib.phantom.anatomy import lung_level
from NLSTSegLib.phantom.canvas import Axes, Canvas
from NLSTSegLib.phantom.lesion import SOLID_HU, LesionShape, clear_of, outlined, placed
from NLSTSegLib.phantom.make import Chest, LungSearch, Phantom, chest_of, finished

GROWN, GONE, NEW = 1, 3, 7
"""Labels of the lesion that has grown (solid), of the one that is gone (ground glass) and of the new one."""

GROWTH = 2.0
"""Factor by which the volume has grown."""

NEW_DIAMETER_MM = 9.0

SPACING_IJK_MM = (0.8, 0.8, 1.5)
"""Default voxels: thinner slices than the first time."""

BREATH_MM, STILL_MM, FULL_MM = 16.0, 70.0, -70.0
"""Height by which the diaphragm stands higher; the breath moves nothing above the second height and all of it below the third."""

SPINE_MM, SPINE_WIDTH_MM = 62.0, 38.0
"""The breath leaves the spine, so far behind the middle, where it is."""

TURN_DEGREES, TABLE_LPS_MM = 4.0, (9.0, -14.0, 37.0)
"""How the patient lies the second time, turned about the long axis and moved on the table."""

FIELD_MM = 6.0
"""Grid on which the motion is sampled."""


@dataclass(frozen=True)
class Motion:
    """How places move from the first CT to the second, in LPS mm; arrays are ``[..., 3]``."""

    breath_mm: float = BREATH_MM
    turn_degrees: float = TURN_DEGREES
    table_lps_mm: tuple[float, float, float] = TABLE_LPS_MM

    def back(self, second_lps_mm: np.ndarray) -> np.ndarray:
        """Places in the first CT of places in the second."""
        x, y, z = np.moveaxis(np.asarray(second_lps_mm, float) - self.table_lps_mm, -1, 0)
        cosine, sine = np.cos(np.radians(self.turn_degrees)), np.sin(np.radians(self.turn_degrees))
        x, y = cosine * x + sine * y, cosine * y - sine * x
        depth = np.clip((STILL_MM - z) / (STILL_MM - FULL_MM), 0, 1)
        bends = 1 - np.exp(-((x / SPINE_WIDTH_MM) ** 2) - ((y - SPINE_MM) / SPINE_WIDTH_MM) ** 2)
        sides = 1 + 0.2 * np.tanh(x / 50)
        lower = self.breath_mm * depth * depth * (3 - 2 * depth) * bends * sides
        return np.stack([x, y, z - lower], axis=-1)

    def forward(self, first_lps_mm: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`back`, step by step to a thousandth of a mm."""
        first = np.asarray(first_lps_mm, float)
        second = first + self.table_lps_mm
        for _ in range(200):
            off = self.back(second) - first
            if np.abs(off).max() < 1e-3:
                break
            second = second - off
        return second


def make_follow_up(
    seed: int = 0, *, spacing_ijk_mm: tuple[float, float, float] = SPACING_IJK_MM, motion: Motion | None = None
) -> Phantom:
    """The second CT of the patient whose first one is :func:`NLSTSegLib.phantom.make.make_phantom` of the same ``seed``.

    Label n is lesion n of both, so :data:`GONE` has no voxel, and :data:`NEW` is in this one alone. Lesions keep their sizes
    while the lung around them moves. Raises :class:`InputError` for a negative seed.
    """
    motion, chest = motion or Motion(), chest_of(seed)
    rng = np.random.default_rng((seed, 2))
    canvas = chest.paint(spacing_ijk_mm)
    _move(canvas, motion)

    def lungs(axes: Axes) -> np.ndarray:
        x, y, z = motion.back(np.stack(np.broadcast_arrays(*axes), axis=-1) + motion.table_lps_mm).astype(np.float32).T
        return lung_level((x.T, y.T, z.T))

    lesions = []
    for lesion in [*(one for one in chest.lesions if one.truth.label != GONE), _new_lesion(chest, rng)]:
        scale = GROWTH ** (1 / 3) if lesion.truth.label == GROWN else 1.0
        truth = replace(
            lesion.truth, diameter_mm=scale * lesion.truth.diameter_mm, solid_diameter_mm=scale * lesion.truth.solid_diameter_mm
        )
        grown = replace(lesion, truth=truth, radius_mm=scale * lesion.radius_mm)
        lesions.append(placed(grown, motion.forward(lesion.centre_mm) - motion.table_lps_mm, lungs))
    x, y, z = np.add(canvas.origin_lps_mm, motion.table_lps_mm).tolist()
    phantom = finished(canvas, lesions, rng, (x, y, z), lungs)
    return replace(
        phantom, lesions=tuple(replace(one, centre_lps_mm=_on_table(one.centre_lps_mm, motion)) for one in phantom.lesions)
    )


def _on_table(centre_mm: Sequence[float], motion: Motion) -> tuple[float, float, float]:
    x, y, z = np.add(centre_mm, motion.table_lps_mm).tolist()
    return x, y, z


def _new_lesion(chest: Chest, rng: np.random.Generator) -> LesionShape:
    """Where the lung has most room between vessels and the other lesions."""
    lesion = outlined(rng, NEW, "new", NEW_DIAMETER_MM, NEW_DIAMETER_MM, SOLID_HU)
    lungs = LungSearch()
    points_mm = lungs.points_mm[(lungs.depths_mm > lesion.reach_mm + 5) & clear_of(chest.lesions, lesion, lungs.points_mm)]
    points_mm = rng.permutation(points_mm)[:800]
    middles_mm = np.array([tube.middle_mm for tube in (*chest.arteries, *chest.veins)])
    room_mm = [np.linalg.norm(middles_mm - point, axis=1).min() for point in points_mm]
    return placed(lesion, points_mm[int(np.argmax(room_mm))])


def _move(painted: Canvas, motion: Motion) -> None:
    """Bring the painted chest to where it lies the second time, without the shift of the table."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(painted.hu)
    image.SetSpacing(painted.spacing_ijk_mm)
    image.SetOrigin(painted.origin_lps_mm)
    counts = [int(np.ceil(n * step / FIELD_MM)) + 3 for n, step in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    origin = np.subtract(painted.origin_lps_mm, FIELD_MM)
    places = np.stack(np.meshgrid(*(np.arange(n) * FIELD_MM for n in counts), indexing="ij"), axis=-1) + origin
    moves = motion.back(places + motion.table_lps_mm) - places
    field = sitk.GetImageFromArray(np.ascontiguousarray(moves.transpose(2, 1, 0, 3)), isVector=True)
    field.SetSpacing([FIELD_MM] * 3)
    field.SetOrigin(origin.tolist())
    # What comes into the field of view from below is what is at its edge.
    moved = sitk.Resample(
        image, sitk.DisplacementFieldTransform(field), sitk.sitkLinear, -1000.0, useNearestNeighborExtrapolator=True
    )
    painted.hu[:] = sitk.GetArrayViewFromImage(moved)
