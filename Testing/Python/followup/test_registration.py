"""Registration of a phantom with its second time point, whose motion is known."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk

from NLSTSegLib.errors import InputError
from NLSTSegLib.followup import registration
from NLSTSegLib.followup.registration import Registration, register
from NLSTSegLib.followup.registration_files import read_registration, write_registration
from NLSTSegLib.inference.lung_field import find_lungs
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.phantom.second import Motion, make_follow_up

VOXELS_MM = (2.0, 2.0, 3.0)
MOTION = Motion(breath_mm=22.0)


def errors_mm(found: Registration, followup, motion: Motion) -> np.ndarray:
    """At 100 places in the lungs of the follow-up that the baseline shows."""
    lungs = find_lungs(followup)
    assert lungs is not None
    inside = np.argwhere(lungs.mask & (followup.hu < -500))[:, ::-1]
    later = followup.lps_from_ijk_mm(np.random.default_rng(0).permutation(inside)[:100])
    return np.array([np.linalg.norm(found.forward(motion.back(place)) - place) for place in later])


class TestRegistration(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.baseline = make_phantom(0, spacing_ijk_mm=VOXELS_MM).ct
        cls.followup = make_follow_up(0, spacing_ijk_mm=(2.2, 2.2, 2.5), motion=MOTION).ct
        cls.stages = []
        cls.found = register(cls.baseline, cls.followup, lambda done, stage: cls.stages.append((done, stage)))

    def test_places_are_found_within_3_mm_where_the_diaphragm_moved_by_22(self):
        self.assertTrue(self.found.is_accepted, self.found.refusal)
        error = errors_mm(self.found, self.followup, MOTION)
        self.assertLess(error.mean(), 3.0)
        self.assertLess(error.max(), 10.0)
        self.assertGreater(self.found.seen_share, 0.95)

    def test_backward_is_the_inverse_of_forward(self):
        for place in ([60.0, 20, 30], [-50, -10, -40], [0, 0, 0], [80, 40, 80]):
            there = self.found.forward(np.array(place))
            self.assertLess(np.linalg.norm(self.found.backward(there) - place), 0.05)

    def test_progress_goes_forward_to_the_end(self):
        done = [share for share, _ in self.stages]
        self.assertEqual(done, sorted(done))
        self.assertEqual(self.stages[-1], (1.0, "done"))

    def test_the_upper_half_of_a_chest_lies_in_the_upper_half(self):
        cut = len(self.followup.hu) // 2
        step = self.followup.spacing_ijk_mm[2]
        x, y, z = self.followup.origin_lps_mm
        half = replace(self.followup, hu=self.followup.hu[cut:], origin_lps_mm=(x, y, z + cut * step))
        found = register(self.baseline, half)
        self.assertTrue(found.is_accepted, found.refusal)
        self.assertLess(errors_mm(found, half, MOTION).mean(), 3.0)
        self.assertLess(found.seen_share, 0.8)

    def test_another_chest_is_refused(self):
        # Fewer samples are enough for it, and take less time.
        with mock.patch.multiple(registration, AFFINE_SAMPLES=5000, SPLINE_SAMPLES=5000):
            found = register(self.baseline, make_phantom(3, spacing_ijk_mm=VOXELS_MM).ct)
        self.assertFalse(found.is_accepted)
        self.assertIn("do not agree", found.refusal)

    def test_what_shows_no_lungs_is_refused_and_said(self):
        water = replace(self.baseline, hu=np.zeros_like(self.baseline.hu))
        self.assertIn("no lungs were found in the follow-up", register(self.baseline, water).refusal)


class TestFiles(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "registration"

    def test_what_is_written_is_read_again(self):
        affine = sitk.AffineTransform((1.0, 0.1, 0, 0, 1.0, 0, 0, 0, 0.9), (3.0, -4.0, 30.0), (10.0, 20.0, 30.0))
        spline = sitk.BSplineTransformInitializer(sitk.Image(20, 20, 20, sitk.sitkUInt8), [2, 2, 2])
        spline.SetParameters(np.random.default_rng(0).normal(0, 1, spline.GetNumberOfParameters()).tolist())
        made = Registration(sitk.CompositeTransform([affine, spline]), 0.91, 0.5, 0.001, 0.25, (4100.0, 3900.0), "")
        write_registration(made, self.folder)
        read = read_registration(self.folder)
        for place in ([5.0, 5, 5], [12, 3, 9], [90, -40, 80]):
            np.testing.assert_allclose(read.forward(np.array(place)), made.forward(np.array(place)))
        facts = ("correlation", "seen_share", "folded_share", "seen_share_back", "lungs_ml", "refusal")
        self.assertEqual([getattr(read, name) for name in facts], [getattr(made, name) for name in facts])
        with self.assertRaisesRegex(InputError, "not empty"):
            write_registration(made, self.folder)

    def test_a_refused_one_is_read_as_such_and_has_no_transform(self):
        bent = sitk.TranslationTransform(3, (3.0, 0.0, 0.0))
        write_registration(Registration(bent, 0.5, 1.0, 0.0, 1.0, (4100.0, 3900.0), "their lungs do not agree"), self.folder)
        self.assertEqual([file.name for file in self.folder.iterdir()], ["registration.json"])
        read = read_registration(self.folder)
        self.assertEqual(read.refusal, "their lungs do not agree")
        np.testing.assert_array_equal(read.forward(np.array([1.0, 2, 3])), [1, 2, 3])

    def test_a_folder_without_one_is_refused(self):
        with self.assertRaisesRegex(InputError, "no whole registration"):
            read_registration(self.folder)


class TestMotion(unittest.TestCase):
    def test_forward_is_the_inverse_of_back(self):
        motion, places = Motion(), np.random.default_rng(0).uniform(-120, 120, (200, 3))
        self.assertLess(np.abs(motion.back(motion.forward(places)) - places).max(), 0.01)


if __name__ == "__main__":
    unittest.main()
