"""Geometry: to the canonical axes and exactly back, for every permutation, flip and rotation."""

import unittest

import numpy as np
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.placed_chest import AXES, leaning, rotation
from NLSTSegLib.errors import InputError
from NLSTSegLib.volume.ct import PADDING_HU, Acquisition, CtVolume, from_canonical, to_canonical

SHAPE_KJI = (4, 5, 7)
SPACING = (0.7, 1.3, 2.5)
ORIGIN = (-101.5, 33.25, 512.0)


def volume(direction, shape_kji=SHAPE_KJI, spacing=SPACING, origin=ORIGIN) -> CtVolume:
    hu = np.random.default_rng(0).permutation(np.prod(shape_kji)).reshape(shape_kji).astype(np.int16)
    return CtVolume(hu, spacing, origin, tuple(np.ravel(direction).tolist()))


def world_of(ct: CtVolume, value: int) -> np.ndarray:
    """Where the one voxel with ``value`` lies in the patient."""
    ((k, j, i),) = np.argwhere(ct.hu == value)
    return ct.lps_from_ijk_mm(np.array([i, j, k]))


class CanonicalTest(unittest.TestCase):
    def check(self, ct: CtVolume) -> CtVolume:
        canonical = to_canonical(ct)
        nearest = np.sort(np.abs(ct.direction_matrix), axis=0)
        if (nearest[2] - nearest[1]).min() > 1e-6:
            # Half way between two sides an axis has no letter of its own.
            self.assertEqual(canonical.orientation, "LPS")
        np.testing.assert_allclose(canonical.voxel_volume_mm3, ct.voxel_volume_mm3)
        for value in {0, ct.hu.size // 2, ct.hu.size - 1}:
            np.testing.assert_allclose(world_of(canonical, value), world_of(ct, value), atol=1e-9)
        back = from_canonical(canonical.hu, canonical, ct)
        np.testing.assert_array_equal(back, ct.hu)
        self.assertEqual(back.dtype, ct.hu.dtype)
        return canonical

    def test_there_are_48_axes(self):
        self.assertEqual(len({a.tobytes() for a in AXES}), 48)

    def test_every_permutation_and_flip_there_and_back(self):
        for axes in AXES:
            with self.subTest(axes=axes.tolist()):
                canonical = self.check(volume(axes))
                np.testing.assert_array_equal(canonical.direction_matrix, np.eye(3))

    @settings(deadline=None, max_examples=100)
    @given(
        st.sampled_from(AXES),
        st.tuples(*[st.floats(-4, 4)] * 3),
        st.tuples(*[st.integers(1, 6)] * 3),
        st.tuples(*[st.floats(0.1, 12)] * 3),
        st.tuples(*[st.floats(-2000, 2000)] * 3),
    )
    def test_rotated_axes_there_and_back(self, axes, vector, shape, spacing, origin):
        self.check(volume(rotation(vector) @ axes, shape, spacing, origin))

    def test_axes_half_way_between_two_of_the_patients(self):
        quarter_turns = np.pi / 4 * np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, -1], [1.2, 1.2, 0]])
        # A third of a turn about the room's diagonal, halved: all three axes are as near to one side as to another.
        between_all = np.pi / 3 * np.array([[1, 1, 1], [1, -1, 1], [-1, 1, 1]]) / np.sqrt(3)
        exact = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
        for axes in AXES:
            for turn in (*map(rotation, quarter_turns), *map(rotation, between_all), exact):
                self.check(volume(turn @ axes))

    def test_slightly_sheared_axes_there_and_back(self):
        for axes in AXES:
            self.check(volume(rotation((0.3, -0.2, 0.1)) @ axes @ leaning(0.02, 0.03, 0.0005)))

    def test_canonical_axes_are_left_alone(self):
        ct = volume(np.eye(3))
        self.assertIs(to_canonical(ct), ct)
        self.assertIs(from_canonical(ct.hu, ct, ct), ct.hu)

    def test_masks_of_other_types_come_back_too(self):
        ct = volume(AXES[29])
        canonical = to_canonical(ct)
        for dtype in (np.uint8, np.float32):
            back = from_canonical((canonical.hu % 7).astype(dtype), canonical, ct)
            np.testing.assert_array_equal(back, (ct.hu % 7).astype(dtype))

    def test_acquisition_is_kept_but_for_the_places_of_slices_that_are_no_more(self):
        acquisition = Acquisition(series_uid="1.2.3", slice_origins_lps_mm=((0.0, 0.0, 0.0),) * SHAPE_KJI[0])
        ct = CtVolume(volume(AXES[29]).hu, SPACING, ORIGIN, tuple(AXES[29].ravel()), acquisition)
        canonical = to_canonical(ct)
        self.assertEqual(canonical.acquisition.series_uid, "1.2.3")
        self.assertEqual(canonical.acquisition.slice_origins_lps_mm, ())


class GeometryTest(unittest.TestCase):
    def test_voxel_positions_are_simpleitks(self):
        ct = volume(rotation((0.3, -0.4, 0.9)) @ AXES[13])
        image = ct.to_image()
        for ijk in ((0, 0, 0), (6, 4, 3), (2, 1, 3)):
            np.testing.assert_allclose(ct.lps_from_ijk_mm(np.array(ijk)), image.TransformIndexToPhysicalPoint(ijk), atol=1e-9)
        many = np.array([[0, 0, 0], [1.5, 2.5, 0.25]])
        np.testing.assert_allclose(
            ct.lps_from_ijk_mm(many)[1], image.TransformContinuousIndexToPhysicalPoint(many[1].tolist()), atol=1e-9
        )

    def test_voxel_volume_counts_shear(self):
        self.assertAlmostEqual(volume(np.eye(3)).voxel_volume_mm3, 0.7 * 1.3 * 2.5)
        for angle in (10, 30):
            tilted = np.eye(3)
            tilted[:, 2] = 0, np.sin(np.radians(angle)), np.cos(np.radians(angle))
            self.assertAlmostEqual(volume(tilted).voxel_volume_mm3, 0.7 * 1.3 * 2.5 * np.cos(np.radians(angle)))

    def test_shear_is_noticed_and_rotation_is_not(self):
        rotated = rotation((0.5, 0.2, -1.0))
        self.assertTrue(volume(rotated).is_orthogonal)
        for shear in (0.005, 0.25):
            self.assertFalse(volume(rotated @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])).is_orthogonal)

    def test_image_there_and_back(self):
        ct = volume(rotation((0.5, 0.2, -1.0)))
        again = CtVolume.from_image(ct.to_image(), ct.acquisition)
        np.testing.assert_array_equal(again.hu, ct.hu)
        self.assertEqual((again.spacing_ijk_mm, again.origin_lps_mm), (ct.spacing_ijk_mm, ct.origin_lps_mm))
        np.testing.assert_allclose(again.direction_lps, ct.direction_lps, atol=1e-12)


class ValuesTest(unittest.TestCase):
    def test_integers_become_int16_clipped_to_its_range(self):
        values = np.array([[[-70000, -1024, 0, 3071, 70000]]], np.int32)
        hu = CtVolume.from_image(sitk.GetImageFromArray(values)).hu
        self.assertEqual(hu.dtype, np.int16)
        self.assertEqual(hu.ravel().tolist(), [-32768, -1024, 0, 3071, 32767])

    def test_unsigned_and_wide_integers_keep_their_values(self):
        for dtype in (np.uint8, np.uint16, np.uint32, np.int8, np.int32, np.int64):
            with self.subTest(dtype=dtype.__name__):
                hu = CtVolume.from_image(sitk.GetImageFromArray(np.full((2, 3, 4), 100, dtype))).hu
                self.assertTrue((hu == 100).all())

    def test_floats_become_float32_and_bad_ones_air(self):
        values = np.array([[[1.5, np.nan, np.inf, -np.inf]]])
        ct = CtVolume.from_image(sitk.GetImageFromArray(values))
        self.assertEqual(ct.hu.dtype, np.float32)
        self.assertEqual(ct.hu.ravel().tolist(), [1.5, PADDING_HU, PADDING_HU, PADDING_HU])
        self.assertEqual(ct.acquisition.nonfinite_voxels, 3)

    def test_what_is_no_volume_is_refused(self):
        hu = np.zeros((2, 3, 4), np.int16)
        for bad in (hu[0], hu[None], hu[:0], hu.astype(np.float64), hu.astype(np.uint8)):
            with self.assertRaises(InputError):
                CtVolume(bad, SPACING)
        for spacing in ((0.0, 1, 1), (-1.0, 1, 1), (np.nan, 1, 1), (np.inf, 1, 1)):
            with self.assertRaises(InputError):
                CtVolume(hu, spacing)
        for direction in ((1.0, 0, 0, 1, 0, 0, 0, 0, 1), (0.0,) * 9, (1.0, 0, 0, 1)):
            with self.assertRaises(InputError):
                CtVolume(hu, SPACING, direction_lps=direction)

    def test_an_array_of_another_shape_is_no_image_of_this_grid(self):
        with self.assertRaises(ValueError):
            volume(np.eye(3)).image_like(np.zeros((2, 2, 2)))
