"""A hole in the lungs is an error unless it was asked for; one elsewhere, or a small one, is not."""

import unittest

import numpy as np

from helpers.dicom_files import write_series
from helpers.placed_chest import chest_ct
from helpers.whole_command import WholeCommandTest
from NLSTSegLib.checks.holes import check_holes
from NLSTSegLib.volume.ct import Acquisition, CtVolume
from NLSTSegLib.volume.regular_grid import slice_stack, to_regular


class HolesTest(unittest.TestCase):
    def codes(self, missing: slice, step_mm: float, *, accepted: bool = False, heights_mm: np.ndarray | None = None):
        """Of a stack of 40 slices, lung from the 10th to the 29th, without some of them."""
        hu = np.full((40, 30, 30), 40, np.int16)
        hu[10:30, 5:25, 5:25] = -850
        heights_mm = step_mm * np.arange(40) if heights_mm is None else heights_mm
        kept = np.delete(np.arange(40), missing)
        origins = tuple((0.0, 0.0, float(height)) for height in heights_mm[kept])
        ct = CtVolume(hu[kept], (3.0, 3.0, step_mm), acquisition=Acquisition(slice_origins_lps_mm=origins))
        stack = slice_stack(ct)
        regular = to_regular(ct, stack)
        findings = check_holes(stack, regular, regular.hu < -500, accepted=accepted)
        return [(finding.severity, finding.code) for finding in findings], "".join(f.message for f in findings)

    def test_slices_missing_within_the_lungs_are_an_error_unless_accepted(self):
        for missing, step_mm in ((slice(18, 20), 2.0), (slice(18, 27), 1.0), (slice(20, 21), 3.0), (slice(10, 14), 2.5)):
            with self.subTest(missing=missing, step_mm=step_mm):
                self.assertEqual(self.codes(missing, step_mm)[0], [("error", "hole")])
                self.assertEqual(self.codes(missing, step_mm, accepted=True)[0], [("warning", "hole")])
        self.assertIn("(3; 8.0 mm between slices 15 and 16)", self.codes(slice(15, 18), 2.0)[1])

    def test_holes_elsewhere_narrow_ones_and_drifting_slices_are_none(self):
        for missing, step_mm in ((slice(2, 6), 2.5), (slice(32, 37), 2.5), (slice(20, 21), 2.5), (slice(0), 6.0)):
            with self.subTest(missing=missing, step_mm=step_mm):
                self.assertEqual(self.codes(missing, step_mm)[0], [])
        drifting_mm = np.append(0, np.cumsum(np.linspace(4.4, 6.4, 39)))
        self.assertEqual(self.codes(slice(0), 5.0, heights_mm=drifting_mm)[0], [])


class CommandTest(WholeCommandTest):
    def test_a_series_with_a_hole_is_refused_and_goes_on_when_asked_for(self):
        ct = chest_ct(np.eye(3))
        place = {"spacing_ijk_mm": ct.spacing_ijk_mm, "origin_lps_mm": ct.origin_lps_mm}
        write_series(self.folder / "ct", ct.hu, skip=(19, 20), **place)
        self.assert_refused(self.folder / "ct", "within the lungs (2; 12.0 mm between slices 19 and 20)", "--skip-unreadable")
        outcome = self.segmented(self.folder / "ct", "--skip-unreadable")
        self.assertEqual((outcome.findings["hole"], outcome.findings["missing_slices"]), ("warning", "warning"))


if __name__ == "__main__":
    unittest.main()
