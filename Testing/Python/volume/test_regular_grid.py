"""Leaning, sheared and uneven stacks: resampled to a right-angled grid that shows the same patient, and masks back again."""

import unittest
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.placed_chest import (
    AXES,
    LESIONS,
    chest_ct,
    chest_of_slices,
    label_centroids_lps_mm,
    leaning,
    off_voxels,
    placed,
    rotation,
    true_centres_lps_mm,
    voxel_places_lps_mm,
)
from helpers.threshold_model import THRESHOLD_HU
from NLSTSegLib.volume.ct import PADDING_HU, CtVolume
from NLSTSegLib.volume.regular_grid import LEAN_PIXELS, from_regular, nearest_voxel, regular_shape, slice_stack, to_regular

SPACING = (1.1, 0.9, 2.5)

OBLIQUE = rotation((0.4, -0.3, 0.8))

EVEN_MM = 4.0 * np.arange(40)


STACKS = {
    **{f"tilted {a} degrees": (EVEN_MM, (0.0, 4.0 * np.tan(np.radians(a)))) for a in (-25, -12, 5, 15, 25)},
    "leaning towards i and j": (EVEN_MM, (0.7, -0.9)),
    "missing slices": (np.delete(4.0 * np.arange(43), [9, 20, 21]), (0.0, 0.0)),
    "missing slices, tilted": (np.delete(4.0 * np.arange(43), [9, 20, 21]), (0.0, 1.0)),
    "one wide gap": (EVEN_MM + 3.0 * (np.arange(40) >= 25), (0.0, 0.0)),
    "drifting": (np.append(0.0, np.cumsum(np.linspace(3.2, 4.8, 39))), (0.0, 0.0)),
    "jittering": (EVEN_MM + np.random.default_rng(1).uniform(-1.2, 1.2, 40), (0.3, 0.0)),
}
"""Heights in mm, and how far along i and j every slice lies aside of the one 4 mm below."""


def stack_of(name: str, direction: np.ndarray) -> tuple[CtVolume, tuple]:
    heights_mm, aside_mm = STACKS[name]
    return chest_of_slices(direction, heights_mm, heights_mm[:, None] / 4.0 * aside_mm)


SHEARS = {
    "k leans": leaning(0.0, 0.3),
    "k leans both ways": leaning(0.25, -0.2),
    "i and j": leaning(in_plane=0.25),
    "all": leaning(-0.2, 0.15, 0.2),
}


class ShapeOfTheStackTest(unittest.TestCase):
    def test_tilt_and_step_are_those_of_the_headers(self):
        for axes in (AXES[0], AXES[21] @ OBLIQUE, OBLIQUE):
            for degrees in (-25.0, 5.0, 20.0):
                ct, _ = chest_of_slices(axes, EVEN_MM, EVEN_MM[:, None] * (0, np.tan(np.radians(degrees))))
                stack = slice_stack(ct)
                self.assertAlmostEqual(stack.tilt_degrees, abs(degrees), places=6)
                self.assertAlmostEqual(stack.step_mm, 4.0, places=6)
                np.testing.assert_allclose(stack.height_mm, EVEN_MM, atol=1e-9)
                np.testing.assert_allclose(stack.plane_lps, axes, atol=1e-9)

    def test_tilt_is_the_same_by_headers_and_by_a_leaning_grid(self):
        by_headers, _ = chest_of_slices(OBLIQUE, EVEN_MM, EVEN_MM[:, None] * (0.1, 0.3))
        lean = leaning(0.1, 0.3)
        step_mm = 4.0 / lean[2, 2]
        by_grid = CtVolume(by_headers.hu, (3.0, 3.2, step_mm), by_headers.origin_lps_mm, tuple((OBLIQUE @ lean).ravel()))
        for field in ("plane_lps", "frame_mm", "shift_mm", "height_mm"):
            np.testing.assert_allclose(getattr(slice_stack(by_grid), field), getattr(slice_stack(by_headers), field), atol=1e-9)

    def test_regular_is_what_stays_within_half_a_pixel(self):
        last = len(EVEN_MM) - 1
        for aside_mm, sheared in ((0.0, False), (LEAN_PIXELS * 3.0 - 0.01, False), (LEAN_PIXELS * 3.0 + 0.01, True)):
            for axis in range(2):
                aside = np.zeros((len(EVEN_MM), 2))
                aside[:, axis] = np.arange(len(EVEN_MM)) / last * aside_mm
                stack = slice_stack(chest_of_slices(OBLIQUE, EVEN_MM, aside)[0])
                self.assertEqual((stack.is_sheared, stack.is_regular), (sheared, not sheared))

    def test_uneven_is_what_lies_a_tenth_of_the_step_off(self):
        for off_mm, uneven in ((0.0, False), (0.39, False), (0.41, True), (-0.39, False), (-0.41, True)):
            heights_mm = EVEN_MM.copy()
            heights_mm[17] += off_mm
            stack = slice_stack(chest_of_slices(OBLIQUE, heights_mm)[0])
            self.assertEqual((stack.is_uneven, stack.is_regular), (uneven, not uneven))
        self.assertFalse(slice_stack(chest_of_slices(OBLIQUE, np.array([0.0, 9.0]))[0]).is_uneven)


class RegularTest(unittest.TestCase):
    def test_a_regular_ct_is_left_alone_whatever_its_axes(self):
        for axes in AXES:
            ct = chest_ct(OBLIQUE @ axes, shape_kji=(5, 6, 7))
            stack = slice_stack(ct)
            self.assertTrue(stack.is_regular)
            self.assertIs(to_regular(ct, stack), ct)
            self.assertIs(from_regular(ct.hu, ct, stack), ct.hu)

    def test_even_slices_with_headers_are_left_alone(self):
        for size in (1, 2, 40):
            ct, _ = chest_of_slices(OBLIQUE, EVEN_MM[:size])
            self.assertIs(to_regular(ct, slice_stack(ct)), ct)


class ThereAndBackTest(unittest.TestCase):
    def check(self, ct: CtVolume, middle_lps_mm) -> None:
        stack = slice_stack(ct)
        self.assertFalse(stack.is_regular)
        regular = to_regular(ct, stack)
        self.assertTrue(regular.is_orthogonal)
        self.assertTrue(slice_stack(regular).is_regular)
        self.assertEqual(regular.hu.shape, regular_shape(ct, stack))
        self.assertEqual(regular.hu.dtype, ct.hu.dtype)
        self.assertEqual(regular.spacing_ijk_mm[:2], ct.spacing_ijk_mm[:2])

        # A perfect model on the regular grid: every lesion by its own truth.
        places = voxel_places_lps_mm(regular)
        labels = np.zeros(regular.hu.shape, np.uint8)
        source_places, truth = voxel_places_lps_mm(ct), np.zeros(ct.hu.shape, np.uint8)
        for label, ((_, radius_mm), centre) in enumerate(zip(LESIONS, true_centres_lps_mm(middle_lps_mm), strict=True), start=1):
            near = np.linalg.norm(places - centre, axis=-1) < radius_mm + 2 * max(ct.spacing_ijk_mm)
            labels[near & (regular.hu > THRESHOLD_HU)] = label
            truth[np.linalg.norm(source_places - centre, axis=-1) < radius_mm] = label
        self.assertEqual(np.count_nonzero(labels), np.count_nonzero(regular.hu > THRESHOLD_HU))
        true = true_centres_lps_mm(middle_lps_mm)
        self.assertLess(off_voxels(label_centroids_lps_mm(labels, places), true, regular), 0.4)

        back = from_regular(labels, ct, stack)
        self.assertEqual((back.shape, back.dtype), (ct.hu.shape, labels.dtype))
        # Where slices are missing the truth itself has lost a part.
        true = label_centroids_lps_mm(truth, source_places)
        self.assertLess(off_voxels(label_centroids_lps_mm(back, source_places), true, ct), 0.4)
        for label in range(1, len(LESIONS) + 1):
            found, there = back == label, truth == label
            dice = 2 * np.count_nonzero(found & there) / (np.count_nonzero(found) + np.count_nonzero(there))
            # The smallest spans three slices; the nearest regular one may lie half a step off.
            self.assertGreater(dice, 0.65 if label == len(LESIONS) else 0.8)

    def test_slices_that_lean_or_lie_unevenly(self):
        for name in STACKS:
            for direction in (np.eye(3), OBLIQUE @ AXES[22]):
                with self.subTest(name):
                    self.check(*stack_of(name, direction))

    def test_grids_that_are_not_right_angled(self):
        middle = (-20.0, 310.0, -1200.0)
        for name, shear in SHEARS.items():
            for direction in (np.eye(3), OBLIQUE, AXES[29]):
                with self.subTest(name):
                    self.check(chest_ct(direction @ shear, middle_lps_mm=middle), middle)

    def test_the_last_slice_is_not_lost(self):
        # Of even slices the last is moved up, or down, by less than half a step.
        for last_mm in (1.6, -1.6):
            heights_mm = EVEN_MM + last_mm * (np.arange(40) == 39)
            ct, _ = chest_of_slices(np.eye(3), heights_mm)
            hu = np.full(ct.hu.shape, -850, np.int16)
            hu[-1, 20:30, 20:30] = 100
            ct = replace(ct, hu=hu)
            stack = slice_stack(ct)
            self.assertTrue(stack.is_uneven)
            back = from_regular(to_regular(ct, stack).hu, ct, stack)
            self.assertTrue((back[-1, 20:30, 20:30] > THRESHOLD_HU).all())
            self.assertFalse((back[:-2] > THRESHOLD_HU).any())

    def test_what_no_slice_covers_is_padding(self):
        ct, _ = chest_of_slices(np.eye(3), EVEN_MM, EVEN_MM[:, None] * (0.0, 0.4))
        ct = replace(ct, hu=np.full(ct.hu.shape, 100, np.int16))
        regular = to_regular(ct, slice_stack(ct))
        self.assertTrue((regular.hu[0, -10:] == PADDING_HU).all())
        self.assertTrue((regular.hu[-1, :10] == PADDING_HU).all())
        self.assertEqual(set(np.unique(regular.hu)), {100, PADDING_HU})

    def test_a_missing_slice_is_the_mean_of_its_neighbours(self):
        ct, _ = chest_of_slices(np.eye(3), np.delete(EVEN_MM, 12))
        regular = to_regular(ct, slice_stack(ct))
        self.assertEqual(len(regular.hu), 40)
        np.testing.assert_array_equal(np.delete(regular.hu, 12, axis=0), ct.hu)
        np.testing.assert_array_equal(regular.hu[12], np.rint((ct.hu[11].astype(float) + ct.hu[12]) / 2))


def ramp(places_lps_mm: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return places_lps_mm @ slope - 300.0


class AnyStackTest(unittest.TestCase):
    @settings(deadline=None, max_examples=60)
    @given(
        st.sampled_from(AXES),
        st.tuples(*[st.floats(-3, 3)] * 3),
        st.tuples(*[st.floats(-0.5, 0.5)] * 3),
        st.lists(st.floats(0.5, 6.0), min_size=2, max_size=9),
        st.tuples(*[st.integers(2, 9)] * 2),
        st.tuples(*[st.floats(-20, 20)] * 3),
    )
    def test_every_stack_there_and_back(self, axes, vector, lean, gaps_mm, size_ij, slope):
        aside_i, aside_j, in_plane = lean
        direction = rotation(vector) @ axes @ leaning(in_plane=in_plane)
        heights_mm = np.append(0.0, np.cumsum(gaps_mm))
        shape = (len(heights_mm), size_ij[1], size_ij[0])
        grid = CtVolume(np.zeros(shape, np.float32), SPACING, (-50.0, 20.0, 999.0), tuple(direction.ravel().tolist()))
        # The axes lean within the plane alone, so k still runs along the normal.
        ct = placed(grid, heights_mm, heights_mm[:, None] * (aside_i, aside_j))
        places = voxel_places_lps_mm(ct)
        ct = replace(ct, hu=ramp(places, np.array(slope)).astype(np.float32))
        stack = slice_stack(ct)
        if stack.is_regular:
            return
        regular = to_regular(ct, stack)
        self.assert_holds_all(regular, places)
        self.assert_ramp(ct, regular, heights_mm, np.array(slope))
        self.assert_back(ct, regular, places, heights_mm)

    def index_on(self, ct: CtVolume, places_lps_mm: np.ndarray) -> np.ndarray:
        return (places_lps_mm - ct.origin_lps_mm) @ np.linalg.inv(ct.direction_matrix * ct.spacing_ijk_mm).T

    def assert_holds_all(self, regular: CtVolume, places: np.ndarray) -> None:
        at = self.index_on(regular, places)
        self.assertGreater(at[..., :2].min(), -1e-6)
        self.assertLess((at - (np.array(regular.hu.shape[::-1]) - 1))[..., :2].max(), 1e-6)
        self.assertGreater(at[..., 2].min(), -1e-6)
        self.assertLess(at[..., 2].max(), len(regular.hu) - 0.5 + 1e-6)

    def assert_ramp(self, ct: CtVolume, regular: CtVolume, heights_mm: np.ndarray, slope: np.ndarray) -> None:
        """Where the slices above and below both have voxels around it, every voxel has the ramp's value at its place."""
        places = voxel_places_lps_mm(regular)
        right = np.zeros(regular.hu.shape, bool)
        for k, plane in enumerate(places):
            height_mm = k * regular.spacing_ijk_mm[2]
            if height_mm > heights_mm[-1]:
                continue
            above = int(np.clip(np.searchsorted(heights_mm, height_mm), 1, len(heights_mm) - 1))
            right[k] = True
            for near in (above - 1, above):
                at = self.index_on(replace(ct, origin_lps_mm=ct.acquisition.slice_origins_lps_mm[near]), plane)[..., :2]
                right[k] &= ((at > 1e-6) & (at < np.array(ct.hu.shape[:0:-1]) - 1 - 1e-6)).all(axis=-1)
        scale = 1 + np.abs(slope).sum() * 1000
        np.testing.assert_allclose(regular.hu[right], ramp(places[right], slope), atol=2e-6 * scale)

    def assert_back(self, ct: CtVolume, regular: CtVolume, places: np.ndarray, heights_mm: np.ndarray) -> None:
        """Each voxel gets the value of the regular voxel nearest to it."""
        names = np.arange(regular.hu.size, dtype=np.int32).reshape(regular.hu.shape)
        back = from_regular(names, ct, slice_stack(ct))
        got_ijk = np.stack(np.unravel_index(back, names.shape)[::-1], axis=-1)
        self.assertLess(np.abs(got_ijk - self.index_on(regular, places)).max(), 0.5 + 1e-5)


class NearestVoxelTest(unittest.TestCase):
    def test_the_place_of_a_voxel_is_that_voxel(self):
        rng = np.random.default_rng(3)
        stacks = [stack_of(name, OBLIQUE @ AXES[13])[0] for name in ("missing slices, tilted", "jittering", "tilted 25 degrees")]
        stacks += [chest_ct(OBLIQUE @ AXES[40] @ shear) for shear in SHEARS.values()] + [chest_ct(AXES[7])]
        for ct in stacks:
            stack, places = slice_stack(ct), voxel_places_lps_mm(ct)
            for kji in rng.integers(0, ct.hu.shape, (20, 3)):
                self.assertEqual(nearest_voxel(places[tuple(kji)], ct, stack), tuple(kji[::-1]))

    def test_a_place_outside_is_the_nearest_border_voxel(self):
        ct = chest_ct(np.eye(3))
        self.assertEqual(nearest_voxel(np.array([1e4, -1e4, 1e4]), ct, slice_stack(ct)), (59, 0, 39))


if __name__ == "__main__":
    unittest.main()
