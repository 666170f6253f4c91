"""The CT at half its resolution: what it shows, and what comes back from it."""

import unittest

import numpy as np

from NLSTSegLib.inference.low_resolution import FACTOR, LEAST_MM3, can_be_downsampled, downsampled, upsampled
from NLSTSegLib.volume.ct import CtVolume

AIR_HU = -850


def ball(shape, centre, radius_mm, spacing_kji_mm):
    """bool ``[k, j, i]``."""
    axes = [(np.arange(n) - c) * step for n, c, step in zip(shape, centre, spacing_kji_mm, strict=True)]
    k, j, i = np.meshgrid(*axes, indexing="ij")
    return k**2 + j**2 + i**2 <= radius_mm**2


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


class DownsampledTest(unittest.TestCase):
    def test_rows_and_columns_are_averaged_in_pairs(self):
        hu = np.random.default_rng(0).integers(-1000, 400, (3, 6, 8)).astype(np.int16)
        small, lung_mask = downsampled(CtVolume(hu, (0.7, 0.8, 3.5)), None)
        expected = hu.reshape(3, 3, 2, 4, 2).mean(axis=(2, 4))
        np.testing.assert_allclose(small.hu, expected, atol=0.5001)
        self.assertEqual(small.hu.dtype, np.int16)
        self.assertIsNone(lung_mask)

    def test_the_network_is_told_of_a_body_half_as_large(self):
        small, _ = downsampled(CtVolume(np.zeros((12, 8, 8), np.int16), (0.7, 0.8, 1.25)), None)
        self.assertEqual(small.hu.shape, (4, 4, 4))
        np.testing.assert_allclose(small.spacing_ijk_mm, (0.7, 0.8, 1.25 * 3 / FACTOR))

    def test_thick_slices_are_all_taken(self):
        small, _ = downsampled(CtVolume(np.zeros((5, 8, 8), np.int16), (0.7, 0.7, 5.0)), None)
        self.assertEqual(small.hu.shape, (5, 4, 4))

    def test_a_block_with_any_lung_is_lung(self):
        lung_mask = np.zeros((6, 5, 7), bool)
        lung_mask[4, 1, 2] = True
        _, small = downsampled(CtVolume(np.zeros(lung_mask.shape, np.int16), (0.7, 0.7, 1.25)), lung_mask)
        self.assertEqual(small.shape, (2, 2, 3))
        self.assertEqual(np.argwhere(small).tolist(), [[1, 0, 1]])

    def test_an_image_of_one_row_is_not_downsampled(self):
        self.assertFalse(can_be_downsampled(CtVolume(np.zeros((9, 1, 9), np.int16), (1, 1, 1))))
        self.assertTrue(can_be_downsampled(CtVolume(np.zeros((1, 2, 2), np.int16), (1, 1, 1))))


class EnlargedTest(unittest.TestCase):
    def test_a_mass_comes_back_where_it_was(self):
        for spacing_k_mm, shape in ((1.0, (91, 101, 97)), (2.5, (37, 101, 97)), (5.0, (19, 101, 97))):
            with self.subTest(spacing_k_mm):
                centre = (shape[0] // 2, 44, 51)
                mass = ball(shape, centre, 30, (spacing_k_mm, 0.8, 0.8))
                ct = CtVolume(np.where(mass, 40, AIR_HU).astype(np.int16), (0.8, 0.8, spacing_k_mm))
                small, _ = downsampled(ct, None)
                probability = np.where(small.hu > -400, 200, 30).astype(np.uint8)
                back = upsampled(probability, small, ct, 0.5)
                self.assertEqual(back.shape, shape)
                self.assertEqual(set(np.unique(back)), {0, 200})
                self.assertGreater(dice(back > 0, mass), 0.95)

    def test_what_is_small_is_left_to_the_full_resolution(self):
        shape, spacing_mm = (60, 60, 60), 1.0
        for share, is_there in ((0.8, False), (1.25, True)):
            radius_mm = (share * LEAST_MM3 * 3 / 4 / np.pi) ** (1 / 3)
            mass = ball(shape, (30, 30, 30), radius_mm, (spacing_mm,) * 3)
            ct = CtVolume(np.where(mass, 40, AIR_HU).astype(np.int16), (spacing_mm,) * 3)
            small, _ = downsampled(ct, None)
            back = upsampled(np.where(small.hu > -400, 255, 0).astype(np.uint8), small, ct, 0.5)
            self.assertEqual(bool(back.any()), is_there)

    def test_a_dome_that_goes_on_below_does_not_come_back(self):
        shape = (60, 100, 100)
        whole = ball(shape, (30, 50, 50), 25, (1.0, 1.0, 1.0))
        # The mark ends 5 mm below the middle; with tissue below it is a dome, with air a mass that is cut there.
        marked = whole & (np.arange(60)[:, None, None] >= 25)
        for tissue, comes_back in ((whole, False), (marked, True)):
            ct = CtVolume(np.where(tissue, 40, AIR_HU).astype(np.int16), (1.0, 1.0, 1.0))
            small, _ = downsampled(ct, None)
            marked_there = marked[1::4, ::2, ::2][: len(small.hu)]
            back = upsampled(np.where(marked_there, 200, 0).astype(np.uint8), small, ct, 0.5)
            self.assertEqual(bool(back.any()), comes_back)

    def test_what_is_below_the_threshold_does_not_come_back(self):
        ct = CtVolume(np.zeros((40, 80, 80), np.int16), (1.0, 1.0, 1.0))
        small, _ = downsampled(ct, None)
        self.assertFalse(upsampled(np.full(small.hu.shape, 100, np.uint8), small, ct, 0.5).any())

    def test_what_is_rather_no_lesion_does_not_come_back_at_a_low_threshold_either(self):
        ct = CtVolume(np.zeros((40, 80, 80), np.int16), (1.0, 1.0, 1.0))
        small, _ = downsampled(ct, None)
        for value, comes_back in ((126, False), (129, True)):
            back = upsampled(np.full(small.hu.shape, value, np.uint8), small, ct, 0.2)
            self.assertEqual(bool(back.any()), comes_back)


if __name__ == "__main__":
    unittest.main()
