"""Side and third of the lung: told where they can be, else empty."""

import unittest

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.lung_field import find_lungs
from NLSTSegLib.lesions.place import LungExtent
from NLSTSegLib.review.lesion_text import place_text, report_line, volume_text
from NLSTSegLib.volume.ct import CtVolume

AIR_HU, LUNG_HU, TISSUE_HU = -1000, -850, 40

LUNGS = LungExtent(5.0, (-90.0, 60.0), (-60.0, 60.0))


def box_chest() -> np.ndarray:
    """At 1 x 1 x 2 mm: a body from 10 mm on, 20 mm nearer to the first column than to the last, a box for each lung."""
    hu = np.full((60, 130, 190), AIR_HU, np.int16)
    hu[:, 10:-10, 10:-30] = TISSUE_HU
    hu[6:-6, 30:-30, 20:70] = LUNG_HU
    hu[12:-6, 30:-30, -90:-40] = LUNG_HU
    return hu


class ExtentTest(unittest.TestCase):
    def test_side_and_third_of_that_lungs_height(self):
        for point, expected in (
            ((-40.0, 0.0, 55.0), ("right", "upper")),
            ((-40.0, 0.0, -35.0), ("right", "middle")),
            ((45.0, 0.0, -35.0), ("left", "lower")),
            ((45.0, 0.0, 68.0), ("left", "upper")),
            ((45.0, 0.0, 75.0), ("left", "")),
            ((14.0, 0.0, 0.0), ("", "")),
        ):
            self.assertEqual(LUNGS.side_and_third(point), expected, point)

    def test_lung_that_the_scan_cuts_has_no_thirds(self):
        self.assertEqual(LungExtent(0.0, None, (0.0, 90.0)).side_and_third((-40.0, 0.0, 30.0)), ("right", ""))

    def test_as_text_and_back(self):
        for extent in (LUNGS, LungExtent(0.0, None, None)):
            self.assertEqual(LungExtent.of_text(extent.as_text()), extent)
        self.assertIsNone(LungExtent.of_text(None))
        for damaged in ("{", "[1]", '{"middle_left_mm": 1}'):
            with self.assertRaises(InputError):
                LungExtent.of_text(damaged)


class FoundTest(unittest.TestCase):
    def extent_of(self, hu: np.ndarray, **changes: object) -> LungExtent | None:
        lungs = find_lungs(CtVolume(np.ascontiguousarray(hu), (1.0, 1.0, 2.0), (-100.0, -65.0, 0.0), **changes))
        assert lungs is not None
        return lungs.extent

    def test_middle_of_the_body_and_ends_of_the_lungs(self):
        extent = self.extent_of(box_chest())
        assert extent is not None
        # The skin lies at columns 9 and 160, the lungs from slice 6 or 12 to 53.
        self.assertAlmostEqual(extent.middle_left_mm, -100 + (9 + 160) / 2, delta=2.0)
        np.testing.assert_allclose(extent.right_superior_mm, (12, 106), atol=2.1)
        np.testing.assert_allclose(extent.left_superior_mm, (24, 106), atol=2.1)

    def test_cut_lungs_tell_no_height_and_a_body_out_of_view_no_side(self):
        extent = self.extent_of(box_chest()[20:])
        assert extent is not None
        self.assertEqual((extent.right_superior_mm, extent.left_superior_mm), (None, None))
        self.assertIsNone(self.extent_of(box_chest()[:, :, 12:-32]))

    def test_ct_that_is_not_upright_tells_nothing(self):
        turned = np.radians(20)
        direction = (np.cos(turned), -np.sin(turned), 0, np.sin(turned), np.cos(turned), 0, 0, 0, 1)
        self.assertIsNone(self.extent_of(box_chest(), direction_lps=tuple(map(float, direction))))


ROW = {
    **{"lesion": "Lesion 01", "status": "accepted", "score": 0.873, "slice": 57, "side": "right", "third": "upper"},
    **{"volume_mm3": 999, "long_axis_mm": 14.24, "short_axis_mm": 10.0, "mean_diameter_mm": 12.1, "mean_hu": -12},
}


class TextTest(unittest.TestCase):
    def test_line_for_the_report(self):
        expected = "Lesion 01, right upper third, slice 57, 14.2 x 10.0 mm (mean 12.1 mm), 999 mm³, -12 HU, score 0.87, accepted"
        self.assertEqual(report_line(ROW), expected)

    def test_what_is_not_known_is_left_out(self):
        row = ROW | {"score": "", "side": "", "third": "", "long_axis_mm": "", "slice": ""}
        self.assertEqual((report_line(row), place_text(row)), ("Lesion 01, accepted", "-"))

    def test_volume_in_ml_from_1000_mm3(self):
        self.assertEqual([volume_text(ROW | {"volume_mm3": v}) for v in (999, 1000, 160_250)], ["999 mm³", "1.0 ml", "160.3 ml"])
