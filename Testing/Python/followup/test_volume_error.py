"""The error of a volume by its tables."""

import unittest

from NLSTSegLib.followup.volume_error import SCANS_CV, source_text, volume_cv


class TestVolumeError(unittest.TestCase):
    def test_it_is_never_below_that_of_two_scans(self):
        for diameter_mm in (2, 6, 8, 10, 40):
            for slice_mm in (0.6, 1, 2.5, 3, 5):
                self.assertGreater(volume_cv(diameter_mm, slice_mm, slice_mm), SCANS_CV)

    def test_it_grows_with_what_makes_volumes_less_sure(self):
        thin = volume_cv(8, 1.0, 1.0)
        self.assertGreater(volume_cv(8, 5.0, 5.0), thin)
        self.assertGreater(volume_cv(8, 1.0, 5.0), thin)
        self.assertGreater(volume_cv(4, 1.0, 1.0), thin)
        self.assertGreater(volume_cv(8, 1.0, 1.0, kernels_differ=True), thin)

    def test_slices_that_differ_count_once_for_the_two_volumes(self):
        one, other = volume_cv(20, 1.0, 5.0), volume_cv(20, 5.0, 1.0)
        added = one**2 + other**2 - volume_cv(20, 1.0, 1.0) ** 2 - volume_cv(20, 5.0, 5.0) ** 2
        self.assertAlmostEqual(added, 0.24**2)

    def test_the_report_names_the_source(self):
        self.assertIn("PMC3043750", source_text(None))
        self.assertIn("0.12", source_text(0.12))


if __name__ == "__main__":
    unittest.main()
