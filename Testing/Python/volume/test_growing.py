"""Regions of voxels, growing one from a seed and cutting one in two, on shapes whose parts are known."""

import unittest

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.growing import GROWTH_RADIUS_MM, cut_in_two, grow_from
from NLSTSegLib.volume.components import components_by_size, touching
from NLSTSegLib.volume.probability import lowest_level
from NLSTSegLib.volume.regions import Box, Region, grown_box

SPACING_IJK_MM = (0.7, 0.8, 1.25)

SHAPE_KJI = (44, 72, 84)

WHOLE: Box = (slice(0, SHAPE_KJI[0]), slice(0, SHAPE_KJI[1]), slice(0, SHAPE_KJI[2]))


def distance2_mm2(centre_kji: tuple[float, float, float], axes: str = "kji") -> np.ndarray:
    """Square of the distance from a point, or from a line along the axes left out."""
    parts = {
        axis: ((index - at) * step) ** 2
        for axis, index, at, step in zip("kji", np.indices(SHAPE_KJI), centre_kji, SPACING_IJK_MM[::-1], strict=True)
    }
    return sum(parts[axis] for axis in axes)


def ball(centre_kji: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    return distance2_mm2(centre_kji) <= radius_mm**2


def lung(*dense: np.ndarray) -> np.ndarray:
    hu = np.full(SHAPE_KJI, -850, np.int16) + np.random.default_rng(3).integers(-40, 40, SHAPE_KJI, np.int16)
    for mask in dense:
        hu[mask] = 40
    return hu


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


@st.composite
def masks(draw) -> np.ndarray:
    count = draw(st.integers(0, 12))
    mask = np.zeros((5, 6, 7), bool)
    for _ in range(count):
        mask[draw(st.integers(0, 4)), draw(st.integers(0, 5)), draw(st.integers(0, 6))] = True
    return mask


SMALL_BOX: Box = (slice(10, 15), slice(20, 26), slice(3, 10))


class RegionTest(unittest.TestCase):
    @settings(max_examples=60, deadline=None)
    @given(masks(), masks())
    def test_union_overlap_and_dice_are_those_of_the_masks(self, first, second):
        one, other = Region.of(first, SMALL_BOX), Region.of(second, SMALL_BOX)
        np.testing.assert_array_equal(one.within(SMALL_BOX), first)
        np.testing.assert_array_equal(Region.union([one, other]).within(SMALL_BOX), first | second)
        self.assertEqual(one.common_voxels(other), np.count_nonzero(first & second))
        self.assertEqual(one.dice(other), other.dice(one))
        if first.any() or second.any():
            self.assertAlmostEqual(one.dice(other), dice(first, second))
        self.assertEqual(one.dice(one), 1)

    @settings(max_examples=60, deadline=None)
    @given(masks(), masks())
    def test_fingerprint_tells_shapes_apart(self, first, second):
        one, other = Region.of(first, SMALL_BOX), Region.of(second, SMALL_BOX)
        same = one.mask.shape == other.mask.shape and (one.mask == other.mask).all()
        self.assertEqual(one.fingerprint == other.fingerprint, bool(same))

    def test_box_is_as_small_as_the_voxels(self):
        mask = np.zeros((5, 6, 7), bool)
        mask[1, 2:4, 6] = True
        region = Region.of(mask, SMALL_BOX)
        self.assertEqual(region.box, (slice(11, 12), slice(22, 24), slice(9, 10)))
        self.assertEqual((region.mask.shape, region.voxels), ((1, 2, 1), 2))
        beyond = region.within((slice(0, 12), slice(23, 30), slice(0, 20)))
        self.assertEqual(np.argwhere(beyond).tolist(), [[11, 0, 9]])
        self.assertFalse(region.within((slice(12, 14), slice(22, 24), slice(9, 10))).any())

    def test_grown_box_reaches_the_margin_and_no_further_than_the_grid(self):
        box = grown_box((slice(1, 3), slice(30, 40), slice(80, 82)), 2.0, SPACING_IJK_MM, SHAPE_KJI)
        self.assertEqual(box, (slice(0, 5), slice(27, 43), slice(77, 84)))

    def test_lowest_level_is_the_first_above_the_threshold(self):
        for threshold in (0, 0.001, 0.1, 0.5, 128 / 255, 0.999, 1):
            above = [level for level in range(256) if level / 255 > threshold]
            self.assertEqual(lowest_level(threshold), min(above, default=256))


class ComponentsTest(unittest.TestCase):
    def test_touching_keeps_what_shares_a_voxel_with_the_seed_corners_included(self):
        above, seed = np.zeros((3, 4, 9), bool), np.zeros((3, 4, 9), bool)
        above[0, 0, 0] = above[1, 1, 1] = above[1, 1, 5] = above[2, 3, 8] = True
        seed[1, 1, 1] = seed[2, 3, 8] = seed[0, 0, 7] = True
        self.assertEqual(np.argwhere(touching(above, seed)).tolist(), [[0, 0, 0], [1, 1, 1], [2, 3, 8]])

    def test_components_come_largest_first_and_equal_ones_by_their_first_voxel(self):
        mask = np.zeros((1, 3, 12), bool)
        mask[0, 0, 0:2] = mask[0, 0, 4:8] = mask[0, 2, 10:12] = True
        found = components_by_size(mask)
        self.assertEqual([np.flatnonzero(part[0].any(axis=0)).tolist() for part in found], [[4, 5, 6, 7], [0, 1], [10, 11]])
        self.assertEqual(components_by_size(np.zeros((2, 2, 2), bool)), [])


class GrowTest(unittest.TestCase):
    def grow(self, hu, seed_kji, blocked=None):
        return grow_from(hu, SPACING_IJK_MM, seed_kji, np.zeros(SHAPE_KJI, bool) if blocked is None else blocked)

    def test_nodule_is_found_from_anywhere_inside(self):
        truth = ball((20, 34, 40), 7)
        for seed_kji in ((20, 34, 40), (17, 36, 44), (23, 30, 35)):
            self.assertGreater(dice(self.grow(lung(truth), seed_kji), truth), 0.98)

    def test_vessel_through_the_nodule_is_cut_off(self):
        truth = ball((20, 34, 40), 7)
        vessel = distance2_mm2((20, 34, 40), "kj") <= 1.6**2
        grown = self.grow(lung(truth, vessel), (20, 33, 41))
        self.assertGreater(dice(grown, truth), 0.94)
        self.assertFalse((grown & (distance2_mm2((20, 34, 40)) > 12**2)).any())

    def test_ground_glass_nodule_is_found(self):
        truth = ball((20, 34, 40), 6)
        hu = lung()
        hu[truth] = -560
        self.assertGreater(dice(self.grow(hu, (20, 34, 40)), truth), 0.95)

    def test_blocked_voxels_are_left_out(self):
        truth = ball((20, 34, 40), 7)
        blocked = np.zeros(SHAPE_KJI, bool)
        blocked[:, :, :38] = True
        grown = self.grow(lung(truth), (20, 34, 42), blocked)
        self.assertFalse((grown & blocked).any())
        self.assertGreater(dice(grown, truth & ~blocked), 0.95)

    def test_point_in_lung_or_air_is_refused(self):
        for value in (-850, -1000):
            with self.assertRaisesRegex(InputError, "air or healthy lung"):
                self.grow(np.full(SHAPE_KJI, value, np.int16), (20, 34, 40))

    def test_tissue_without_an_end_is_refused(self):
        wall = np.zeros(SHAPE_KJI, bool)
        wall[:, 20:, :] = True
        vessel = distance2_mm2((20, 34, 40), "kj") <= 2**2
        self.assertGreater(SHAPE_KJI[2] * SPACING_IJK_MM[0] / 2, GROWTH_RADIUS_MM - 2)
        for mask, seed_kji in ((wall, (20, 40, 40)), (vessel, (20, 34, 40))):
            with self.assertRaisesRegex(InputError, "goes on beyond"):
                self.grow(lung(mask), seed_kji)

    def test_point_on_blocked_voxels_is_refused(self):
        truth = ball((20, 34, 40), 6)
        with self.assertRaisesRegex(InputError, "another lesion"):
            self.grow(lung(truth), (20, 34, 40), truth)


class CutTest(unittest.TestCase):
    def test_two_balls_that_overlap_are_cut_apart_the_larger_first(self):
        large, small = ball((20, 34, 30), 7), ball((20, 34, 46), 6)
        first, second = cut_in_two(large | small, SPACING_IJK_MM)
        np.testing.assert_array_equal(first | second, large | small)
        self.assertFalse((first & second).any())
        self.assertGreater(dice(first, large), 0.96)
        self.assertGreater(dice(second, small), 0.96)

    def test_of_three_balls_the_deepest_waist_is_cut(self):
        chain = ball((20, 34, 18), 6) | ball((20, 34, 29), 6), ball((20, 34, 44), 6)
        first, second = cut_in_two(chain[0] | chain[1], SPACING_IJK_MM)
        self.assertGreater(dice(first, chain[0]), 0.96)
        self.assertGreater(dice(second, chain[1]), 0.95)

    def test_shape_without_a_waist_is_not_cut(self):
        ellipsoid = distance2_mm2((20, 34, 40), "i") / 14**2 + distance2_mm2((20, 34, 40), "kj") / 6**2 <= 1
        one = np.zeros((1, 1, 1), bool)
        one[:] = True
        for mask in (ball((20, 34, 40), 8), ball((20, 34, 40), 3), ellipsoid, one):
            self.assertIsNone(cut_in_two(mask, SPACING_IJK_MM))


if __name__ == "__main__":
    unittest.main()
