"""Every finding appears when it must, and none on a clean CT."""

import unittest
from dataclasses import replace

import numpy as np

from helpers.dicom_files import small_chest
from helpers.marks import real_data
from helpers.placed_chest import leaning
from helpers.shared_data import shared_data
from NLSTSegLib.checks.preflight import (
    CUT_AREA_MM2,
    RESAMPLED,
    Finding,
    check_ct,
    check_known_voxels,
    check_lungs,
    stop_on_errors,
)
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import Acquisition, CtVolume

SPACING = (0.7, 0.8, 2.5)


def chest(hu=None, spacing=SPACING, direction=None, **acquisition) -> CtVolume:
    hu = small_chest((20, 40, 44)) if hu is None else hu
    direction = (1.0, 0, 0, 0, 1, 0, 0, 0, 1) if direction is None else tuple(np.ravel(direction).tolist())
    return CtVolume(hu, spacing, direction_lps=direction, acquisition=Acquisition(**acquisition))


def slice_origins(heights_mm, aside_mm=0.0) -> tuple[tuple[float, float, float], ...]:
    """Upright slices, or such that each lies ``aside_mm`` further towards posterior than the one before."""
    return tuple((0.0, k * aside_mm, float(height)) for k, height in enumerate(heights_mm))


def codes(ct: CtVolume) -> dict[str, str]:
    return {finding.code: finding.severity for finding in check_ct(ct)}


class CleanTest(unittest.TestCase):
    def test_a_clean_ct_has_no_findings(self):
        origins = slice_origins(-300 + 2.5 * np.arange(20))
        self.assertEqual(codes(chest(modality="CT", format="DICOM", slice_origins_lps_mm=origins)), {})
        self.assertEqual(codes(chest(small_chest((20, 40, 44)).astype(np.float32))), {})

    @real_data
    def test_real_chests_have_only_padding(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        for path in ("LIDC-IDRI-0001/dicom", "LIDC-IDRI-0002/ct.nrrd"):
            with self.subTest(path=path):
                ct = read_ct(data / "ct" / path)
                self.assertEqual(codes(ct), {"padding": "info"})
                self.assertEqual(check_lungs(ct, lung_field(ct)), [])
                # The same scans as many converters leave them: without the intercept, in float, in 8 bit, scaled.
                coarse = ct.hu[::4, ::4, ::4]
                window = np.clip((coarse + 1000) / 1400, 0, 1).astype(np.float32)
                for hu in (coarse + np.int16(1024), (coarse + 1000).astype(np.float32), (window * 255).astype(np.int16), window):
                    self.assertIn("not_hu", codes(replace(ct, hu=hu)))


class ValuesTest(unittest.TestCase):
    def test_values_that_are_not_hu(self):
        hu = small_chest((20, 40, 44))
        scaled = ((hu + 1100) / 1300).astype(np.float32)
        for name, values in (
            ("0 to 1", scaled),
            ("-1 to 1", scaled * 2 - 1),
            ("z-score", ((hu - hu.mean()) / hu.std()).astype(np.float32)),
            ("8 bit", (scaled * 255).astype(np.int16)),
            ("MR", (hu + np.int16(1100)) // np.int16(3)),
            ("labels", (hu > -500).astype(np.int16)),
            ("no intercept", np.maximum(hu + np.int16(1024), 0)),
            ("no intercept and noise below 0", hu + np.int16(1000)),
            ("no intercept and padding", np.where(hu < -900, np.int16(-1024), hu + np.int16(1024))),
        ):
            with self.subTest(name):
                ct = chest(values)
                self.assertEqual(codes(ct).get("not_hu"), "error")
                with self.assertRaisesRegex(InputError, "not HU"):
                    stop_on_errors(check_ct(ct))

    def test_constant_volume(self):
        self.assertEqual(codes(chest(np.full((20, 9, 9), -1000, np.int16))), {"constant": "error"})

    def test_padding_is_told_and_harmless(self):
        for padding in (-2048, -3024):
            hu = small_chest((20, 40, 44))
            hu[:, :4] = padding
            (finding,) = check_ct(chest(hu))
            self.assertEqual((finding.severity, finding.code), ("info", "padding"))
            self.assertIn(str(padding), finding.message)

    def test_header_findings(self):
        self.assertEqual(codes(chest(modality="MR")), {"modality": "error"})
        self.assertEqual(codes(chest(modality="CT")), {})
        self.assertEqual(codes(chest(rescale_missing=True)), {"no_rescale": "warning"})
        self.assertEqual(codes(chest(orientation_known=False)), {"orientation_unknown": "warning"})
        self.assertEqual(codes(chest(nonfinite_voxels=7)), {"nonfinite": "warning"})
        self.assertIn("7 voxels", check_ct(chest(nonfinite_voxels=7))[0].message)


class SlicesTest(unittest.TestCase):
    def slices(self, heights_mm, aside_mm=0.0):
        return codes(chest(slice_origins_lps_mm=slice_origins(heights_mm, aside_mm)))

    def test_missing_slices_and_where(self):
        heights_mm = np.delete(-300 + 2.5 * np.arange(23), [7, 8, 15])
        (finding,) = check_ct(chest(slice_origins_lps_mm=slice_origins(heights_mm)))
        self.assertEqual((finding.severity, finding.code), ("warning", "missing_slices"))
        for text in ("(3)", "7.50 mm between slices 7 and 8", "instead of 2.50 mm"):
            self.assertIn(text, finding.message)
        self.assertIn(RESAMPLED, finding.fix)

    def test_uneven_slices(self):
        heights_mm = -300 + 2.5 * np.arange(20)
        heights_mm[12:] += 1.0
        (finding,) = check_ct(chest(slice_origins_lps_mm=slice_origins(heights_mm)))
        self.assertEqual((finding.severity, finding.code), ("warning", "uneven_spacing"))
        for text in ("3.50 mm between slices 12 and 13", "instead of 2.50 mm"):
            self.assertIn(text, finding.message)
        self.assertEqual(finding.fix, RESAMPLED)

    def test_missing_slices_among_uneven_ones_are_uneven(self):
        heights_mm = np.delete(-300 + 2.5 * np.arange(21), 7)
        heights_mm[12:] += 1.0
        self.assertEqual(self.slices(heights_mm), {"uneven_spacing": "warning"})

    def test_slow_drift_of_the_distance_is_uneven(self):
        gaps = np.repeat([2.4, 2.6], 10)
        self.assertEqual(self.slices(np.cumsum(gaps)), {"uneven_spacing": "warning"})

    def test_rounded_positions_are_even(self):
        self.assertEqual(self.slices(np.round(0.625 * np.arange(20), 1)), {})
        self.assertEqual(self.slices(np.round(1.25 * np.arange(20), 1)), {})

    def test_slices_that_are_no_stack_are_refused(self):
        even_mm = 2.5 * np.arange(20)
        far_mm = even_mm + np.where(np.arange(20) == 19, 300.0, 0)
        dense_mm = np.append(0.01 * np.arange(19), 50.0)
        turned_mm = even_mm[[0, 1, 2, 4, 3, *range(5, 20)]]
        for heights_mm, aside_mm, code in (
            (far_mm, 0.0, "scattered"),
            (dense_mm, 0.0, "scattered"),
            (even_mm, 10.0, "scattered"),
            (turned_mm, 0.0, "uneven_spacing"),
            (even_mm[::-1], 0.0, "uneven_spacing"),
            (np.zeros(20), 0.0, "uneven_spacing"),
        ):
            with self.subTest(heights_mm=heights_mm, aside_mm=aside_mm):
                self.assertEqual(self.slices(heights_mm, aside_mm), {code: "error"})
        self.assertNotIn("scattered", self.slices(np.delete(2.5 * np.arange(50), range(10, 40)), 0.5))

    def test_thick_slices(self):
        self.assertEqual(codes(chest(spacing=(0.7, 0.7, 5.0))), {})
        self.assertEqual(codes(chest(spacing=(0.7, 0.7, 5.5))), {"thick_slices": "warning"})

    def test_few_slices(self):
        hu = small_chest((20, 40, 44))
        self.assertEqual(codes(chest(hu[2:18])), {})
        self.assertEqual(codes(chest(hu[2:17])), {"few_slices": "warning"})

    def test_slices_are_counted_along_the_patient_on_any_axis(self):
        sagittal_axes = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # i runs to P, j to S, k to L
        hu = np.ascontiguousarray(small_chest((10, 40, 44)).transpose(2, 0, 1))
        self.assertEqual(codes(chest(hu, (0.8, 6.0, 0.7), sagittal_axes)), {"few_slices": "warning", "thick_slices": "warning"})


class GridTest(unittest.TestCase):
    def test_sheared_grid(self):
        rotated = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        for turn in (np.eye(3), rotated):
            self.assertNotIn("sheared", codes(chest(direction=turn)))
            for lean in (leaning(in_plane=0.25), leaning(aside_j=0.2), leaning(0.2, -0.1, 0.1)):
                found = {finding.code: finding for finding in check_ct(chest(direction=turn @ lean))}
                self.assertEqual(found["sheared"].severity, "warning")
                self.assertEqual(found["sheared"].fix, RESAMPLED)

    def test_a_single_sheared_slice_is_refused(self):
        slab = small_chest((20, 40, 44))[9:10]
        found = codes(chest(slab, direction=leaning(in_plane=0.25)))
        self.assertEqual(found, {"sheared": "error", "few_slices": "warning"})
        self.assertEqual(codes(chest(slab)), {"few_slices": "warning"})

    def test_gantry_tilt(self):
        even_mm = 2.5 * np.arange(20)
        # A stack that leans by less than half a pixel in all is upright.
        self.assertEqual(codes(chest(slice_origins_lps_mm=slice_origins(even_mm, 0.34 / 19))), {})
        self.assertEqual(codes(chest(slice_origins_lps_mm=slice_origins(even_mm, 0.36 / 19))), {"sheared": "warning"})
        tilted = chest(slice_origins_lps_mm=slice_origins(even_mm, 2.5 * np.tan(np.radians(12))))
        (finding,) = check_ct(tilted)
        self.assertEqual((finding.severity, finding.code, finding.fix), ("warning", "sheared", RESAMPLED))
        self.assertIn("12.0 degrees", finding.message)
        stop_on_errors([finding])

    def test_tilt_and_missing_slices_are_both_told(self):
        heights_mm = np.delete(2.5 * np.arange(22), [7, 8])
        origins = tuple((0.0, 0.3 * h, float(h)) for h in heights_mm)
        self.assertEqual(codes(chest(slice_origins_lps_mm=origins)), {"missing_slices": "warning", "sheared": "warning"})

    def test_odd_spacing(self):
        for spacing in ((0.1, 0.1, 2.0), (4.0, 4.0, 4.0), (0.7, 3.5, 2.0)):
            self.assertEqual(codes(chest(spacing=spacing)), {"odd_spacing": "warning"})


class KnownVoxelsTest(unittest.TestCase):
    def test_voxels_beyond_what_the_card_names_are_told(self):
        for spacing, expected in (
            ((0.7, 0.7, 1.25), []),
            ((0.45, 0.7, 0.44), []),
            ((0.33, 0.33, 1.25), ["odd_spacing"]),
            ((0.7, 1.4, 1.25), ["odd_spacing"]),
            ((0.7, 0.7, 5.0), ["unknown_slice_distance"]),
            ((1.4, 1.4, 0.3), ["odd_spacing", "unknown_slice_distance"]),
        ):
            with self.subTest(spacing=spacing):
                ct = CtVolume(np.zeros((2, 3, 4), np.int16), spacing)
                self.assertEqual([f.code for f in check_known_voxels(ct, (0.46, 0.98), (0.45, 2.5))], expected)
                self.assertEqual(check_known_voxels(ct, None, None), [])


class LungsTest(unittest.TestCase):
    def setUp(self):
        self.hu = np.full((20, 40, 50), 40, np.int16)
        self.hu[3:17, 8:32, 8:42] = -850

    def cut(self, hu, field=None):
        findings = check_lungs(CtVolume(hu, (2.0, 2.0, 3.0)), (hu < -500) if field is None else field)
        # These lungs have the size of a rat's.
        findings = [f for f in findings if f.code not in ("lung_volume", "one_lung")]
        return [(f.severity, f.code) for f in findings], "".join(f.message for f in findings)

    def test_whole_lungs_have_no_findings(self):
        self.assertEqual(self.cut(self.hu)[0], [])

    def test_a_field_at_the_border_is_no_cut_where_there_is_no_lung(self):
        self.assertEqual(self.cut(self.hu, np.ones(self.hu.shape, bool))[0], [])

    def test_lungs_that_hold_too_little_or_too_much_air_for_an_adult(self):
        for step_mm, expected in ((2.0, ["lung_volume"]), (7.0, []), (14.0, ["lung_volume"])):
            with self.subTest(step_mm=step_mm):
                findings = check_lungs(CtVolume(self.hu, (step_mm,) * 3), self.hu < -500)
                self.assertEqual([f.code for f in findings], expected)

    def test_one_lung_with_much_less_air_than_the_other(self):
        hu = np.full((20, 40, 50), 40, np.int16)
        hu[3:17, 8:32, 6:22] = hu[3:17, 8:32, -22:-6] = -850
        for rows, expected in ((0, []), (16, []), (19, ["one_lung"]), (24, ["one_lung"])):
            for part in (np.s_[3:17, 8 : 8 + rows, 6:22], np.s_[3:17, 8 : 8 + rows, -22:-6]):
                collapsed = hu.copy()
                collapsed[part] = 20
                findings = check_lungs(CtVolume(collapsed, (8.0, 8.0, 8.0)), collapsed < -500)
                self.assertEqual([f.code for f in findings], expected, rows)

    def test_no_lungs(self):
        self.assertEqual([(f.severity, f.code) for f in check_lungs(CtVolume(self.hu, SPACING), None)], [("warning", "no_lungs")])

    def test_cut_lungs_and_where(self):
        for crop, side in (
            (np.s_[5:], "bottom"),
            (np.s_[:15], "top"),
            (np.s_[:, 10:], "front"),
            (np.s_[:, :30], "back"),
            (np.s_[:, :, 12:], "right"),
            (np.s_[:, :, :40], "left"),
        ):
            with self.subTest(side=side):
                found, message = self.cut(self.hu[crop])
                self.assertEqual(found, [("warning", "lungs_cut")])
                self.assertIn(f"({side})", message)

    def test_a_small_contact_is_no_cut(self):
        columns = int(CUT_AREA_MM2 / (2.0 * 2.0 * 10))
        hu = np.full((20, 40, 50), 40, np.int16)
        hu[:, 5:15, 5 : 5 + columns] = -850
        self.assertEqual(self.cut(hu)[0], [])
        hu[:, 5:15, 5 : 6 + columns] = -850
        self.assertIn("bottom, top", self.cut(hu)[1])

    @real_data
    def test_real_chest_without_its_base(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        whole = read_ct(data / "ct" / "LIDC-IDRI-0002" / "ct.nrrd")
        ct = replace(whole, hu=whole.hu[120:])
        (finding,) = check_lungs(ct, lung_field(ct))
        self.assertEqual(finding.code, "lungs_cut")
        self.assertIn("(bottom)", finding.message)


class StopTest(unittest.TestCase):
    def test_the_first_error_stops_with_message_and_fix(self):
        findings = [Finding("warning", "a", "A."), Finding("error", "b", "B is wrong.", "Do C."), Finding("error", "d", "D.")]
        with self.assertRaisesRegex(InputError, r"^B is wrong\. Do C\.$"):
            stop_on_errors(findings)

    def test_warnings_do_not_stop(self):
        stop_on_errors([Finding("warning", "a", "A."), Finding("info", "b", "B.")])

    def test_errors_come_first(self):
        findings = check_ct(chest(small_chest((8, 40, 44)), modality="MR", nonfinite_voxels=3))
        self.assertEqual([f.severity for f in findings], ["error", "warning", "warning"])

    def test_every_text_is_one_line(self):
        flat = np.zeros((3, 4, 5), np.int16)
        for heights_mm in ((0, 9, 18), (0, 1, 18), (0, 9, 9)):
            origins = slice_origins(heights_mm, 4.0)
            ct = chest(flat, (9.0, 9.0, 9.0), modality="MR", nonfinite_voxels=1, slice_origins_lps_mm=origins)
            self.assert_one_line(check_ct(ct))

    def assert_one_line(self, findings):
        for finding in findings:
            self.assertRegex(finding.message, r"^[^\n]+\.$")
            self.assertNotIn("\n", finding.fix)
