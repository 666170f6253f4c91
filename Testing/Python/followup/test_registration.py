"""Registration of a phantom with its second time point, whose motion is known."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.followup.registration_files import read_registration, write_registration
from NLSTSegLib.phantom.second import Motion


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
