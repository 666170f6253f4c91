"""A CT with smaller or larger pixels than a model knows: what it is shown, and that its answer comes back where it belongs."""

import dataclasses
import unittest

import numpy as np
import torch

from helpers.threshold_model import CARD, threshold_network
from NLSTSegLib.inference.in_plane import with_known_pixels
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.card import ModelCard
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume.ct import CtVolume

RANGE_MM = (0.5, 1.0)


def ball_ct(pixel_mm: float) -> tuple[CtVolume, np.ndarray]:
    """A ball of 20 mm off the middle of 60 x 80 x 100 mm of lung, and its voxels."""
    spacing_kji_mm = (2.0, pixel_mm, pixel_mm)
    shape = [round(length / step) for length, step in zip((60, 80, 100), spacing_kji_mm, strict=True)]
    axes = [(np.arange(n) + 0.5) * step for n, step in zip(shape, spacing_kji_mm, strict=True)]
    k, j, i = np.meshgrid(*axes, indexing="ij")
    ball = (k - 33) ** 2 + (j - 31) ** 2 + (i - 57) ** 2 <= 10**2
    return CtVolume(np.where(ball, 40, -850).astype(np.int16), spacing_kji_mm[::-1]), ball


class KnownPixelsTest(unittest.TestCase):
    def test_pixels_in_the_range_stay_as_they_are(self):
        for pixel_mm in (0.5, 0.7, 1.0):
            ct, ball = ball_ct(pixel_mm)
            same, field = with_known_pixels(ct, ball, RANGE_MM)
            self.assertIs(same, ct)
            self.assertIs(field, ball)
        ct, _ = ball_ct(0.25)
        self.assertIs(with_known_pixels(ct, None, None)[0], ct)

    def test_others_are_brought_to_its_nearer_end_and_cover_the_same_extent(self):
        for pixel_mm, expected_mm in ((0.25, 0.5), (0.3, 0.5), (1.6, 1.0)):
            with self.subTest(pixel_mm):
                ct, ball = ball_ct(pixel_mm)
                shown, field = with_known_pixels(ct, ball, RANGE_MM)
                np.testing.assert_allclose(shown.spacing_ijk_mm, (expected_mm, expected_mm, 2.0), rtol=0.01)
                extent_mm = np.multiply(shown.hu.shape[1:], shown.spacing_ijk_mm[1::-1])
                np.testing.assert_allclose(extent_mm, np.multiply(ct.hu.shape[1:], ct.spacing_ijk_mm[1::-1]))
                self.assertEqual(field.shape, shown.hu.shape)
                disagreement = (shown.hu > -400) != field
                self.assertLess(disagreement.sum(), 0.05 * field.sum())
                self.assertAlmostEqual(shown.hu.mean(), ct.hu.mean(), delta=1)

    def test_a_fine_grain_is_averaged_not_picked(self):
        hu = np.random.default_rng(0).normal(-850, 100, (4, 200, 200)).astype(np.int16)
        shown, _ = with_known_pixels(CtVolume(hu, (0.25, 0.25, 2.0)), None, RANGE_MM)
        self.assertLess(shown.hu.std(), 60)


class SegmentTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)

    def test_the_lesion_comes_back_on_the_ct_s_own_voxels(self):
        model = Model(dataclasses.replace(CARD, in_plane_range_mm=RANGE_MM), threshold_network())
        for pixel_mm in (0.25, 0.3, 0.8, 1.6):
            with self.subTest(pixel_mm):
                ct, ball = ball_ct(pixel_mm)
                result = segment(ct, model, SegmentOptions(lung_field="none"))
                self.assertEqual(len(result.lesions), 1)
                self.assertEqual(result.labels.shape, ct.hu.shape)
                found = result.labels > 0
                self.assertGreater(2 * (found & ball).sum() / (found.sum() + ball.sum()), 0.97)
                self.assertEqual("with pixels of" in result.device_note, not 0.5 <= pixel_mm <= 1.0)


class CardTest(unittest.TestCase):
    def test_a_range_that_no_ct_has_is_refused(self):
        for range_mm in ((0.0, 1.0), (1.0, 0.5), (0.5, 1e6)):
            for name in ("in_plane_range_mm", "slice_range_mm"):
                with self.assertRaisesRegex(ValueError, name):
                    dataclasses.replace(CARD, **{name: range_mm})
        self.assertIsInstance(dataclasses.replace(CARD, slice_range_mm=(0.6, 8.0)), ModelCard)


if __name__ == "__main__":
    unittest.main()
