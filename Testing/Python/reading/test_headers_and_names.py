"""Fields of NIfTI, NRRD and MetaImage headers that mean something are honoured or refused by name; files of any name."""

import os
import struct
import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.read import read_ct, read_labels, read_mask

SPACING, ORIGIN = (0.75, 0.5, 2.5), (-10.0, -20.0, 30.0)


class HeaderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.hu = np.random.default_rng(0).integers(-1000, 100, (6, 7, 8)).astype(np.int16)
        self.image = sitk.GetImageFromArray(self.hu)
        self.image.SetSpacing(SPACING)
        self.image.SetOrigin(ORIGIN)

    def assert_read(self, path: Path, hu=None, spacing=SPACING, origin=ORIGIN):
        ct = read_ct(path)
        np.testing.assert_array_equal(ct.hu, self.hu if hu is None else hu)
        np.testing.assert_allclose(ct.spacing_ijk_mm, spacing, rtol=1e-5)
        np.testing.assert_allclose(ct.origin_lps_mm, origin, rtol=1e-5)

    def assert_refused(self, path: Path, word: str):
        with self.assertRaisesRegex(InputError, word) as raised:
            read_ct(path)
        self.assertIn(str(path), str(raised.exception))

    def nifti(self, *edits: tuple[int, str, object], scale: float = 1.0) -> Path:
        path = self.folder / "ct.nii"
        image = sitk.Image(self.image)
        image.SetSpacing([scale * step for step in SPACING])
        image.SetOrigin([scale * x for x in ORIGIN])
        sitk.WriteImage(image, str(path))
        data = bytearray(path.read_bytes())
        for offset, kind, *values in edits:
            struct.pack_into(f"<{kind}", data, offset, *values)
        path.write_bytes(data)
        return path

    def text(self, name: str, *lines: str, replaced: tuple[str, str] = ("", "")) -> Path:
        path = self.folder / name
        sitk.WriteImage(self.image, str(path))
        data = path.read_bytes()
        end = data.index(b"\n\n") + 1 if name.endswith("nrrd") else data.index(b"ElementDataFile")
        header = data[:end].decode()
        assert replaced[0] in header
        header = header.replace(*replaced) if replaced[0] else header
        path.write_bytes((header + "".join(f"{line}\n" for line in lines)).encode() + data[end:])
        return path


class NiftiTest(HeaderTest):
    def test_a_slope_of_0_or_nan_scales_nothing(self):
        for slope, intercept in ((0, -1024), (float("nan"), -1024), (0, 0), (0, float("nan")), (1, 0)):
            with self.subTest(slope=slope, intercept=intercept):
                self.assert_read(self.nifti((112, "2f", slope, intercept)))
        self.assert_read(self.nifti((112, "2f", 2, -24)), 2.0 * self.hu - 24)

    def test_a_rescale_that_is_no_number_is_refused(self):
        self.assert_refused(self.nifti((112, "2f", float("inf"), 0)), "scl_slope")
        self.assert_refused(self.nifti((112, "2f", 1, float("nan"))), "scl_inter")

    def test_units_of_length(self):
        for unit, scale in ((0, 1), (2, 1), (2 | 8, 1), (1, 0.001), (3, 1000), (3 | 16, 1000)):
            for codes in ((1, 1), (0, 1), (1, 0)):
                with self.subTest(unit=unit, codes=codes):
                    self.assert_read(self.nifti((123, "B", unit), (252, "2h", *codes), scale=scale))
        self.assert_refused(self.nifti((123, "B", 5)), "xyzt_units")

    def test_analyze_is_refused(self):
        self.assert_refused(self.nifti((344, "4s", b"\0\0\0\0")), "Analyze")


class NrrdTest(HeaderTest):
    def test_what_changes_nothing_is_read(self):
        for line in (
            'space units: "mm" "mm" "mm"',
            "sample units: HU",
            "measurement frame: (0,1,0) (1,0,0) (0,0,1)",
            "old min: nan",
            "thicknesses: 1 1 5",
            "content: chest",
            "modality:=CT",
            "centerings: cell cell cell",
        ):
            with self.subTest(line):
                self.assert_read(self.text("ct.nrrd", line))

    def test_what_means_something_is_refused_by_name(self):
        for line in (
            'space units: "m" "m" "m"',
            'space units: "mm" "mm" "um"',
            "sample units: 1/cm",
            "old min: -1024",
            "old max: 3071",
        ):
            with self.subTest(line):
                self.assert_refused(self.text("ct.nrrd", line), line.partition(":")[0])
        self.assert_refused(self.text("ct.nrrd", replaced=("domain domain domain", "domain domain time")), "kinds")

    def test_spaces_are_turned_to_lps(self):
        for space, signs in (("RAS", (-1, -1)), ("left-anterior-superior", (1, -1)), ("Left-Posterior-Superior", (1, 1))):
            with self.subTest(space):
                path = self.text("ct.nrrd", replaced=("left-posterior-superior", space))
                if space.startswith("left-anterior") and sitk.Version.VersionString() < "2.5.6":
                    self.assert_refused(path, "reads mirrored")
                    continue
                self.assert_read(path, origin=(signs[0] * ORIGIN[0], signs[1] * ORIGIN[1], ORIGIN[2]))
        for space in ("3D-right-handed", "scanner-xyz"):
            path = self.text("ct.nrrd", replaced=("left-posterior-superior", space))
            self.assertFalse(read_ct(path).acquisition.orientation_known)


class MetaImageTest(HeaderTest):
    def test_what_changes_nothing_is_read(self):
        for line in (
            "DistanceUnits = mm",
            "DistanceUnits = ?",
            "Modality = MET_MOD_CT",
            "ElementToIntensityFunctionSlope = 1",
            "ElementToIntensityFunctionOffset = 0.0",
            "ElementSize = 1 1 5",
        ):
            with self.subTest(line):
                self.assert_read(self.text("ct.mha", line))

    def test_what_means_something_is_refused_by_name(self):
        for line in (
            "DistanceUnits = um",
            "DistanceUnits = cm",
            "Modality = MET_MOD_MR",
            "ElementToIntensityFunctionSlope = 2",
            "ElementToIntensityFunctionOffset = -1024",
            "ElementToIntensityFunctionOffset = x",
        ):
            with self.subTest(line):
                self.assert_refused(self.text("ct.mha", line), line.partition(" ")[0])

    def test_axes_that_are_not_told_are_said(self):
        for name, known in (("TransformMatrix", True), ("Orientation", True), ("Rotation", True), ("Comment", False)):
            path = self.text("ct.mha", replaced=("TransformMatrix", name))
            self.assertEqual(read_ct(path).acquisition.orientation_known, known, name)


class NamesTest(HeaderTest):
    def test_data_files_with_names_in_any_letters(self):
        for name in ("Müller.mhd", "患者.mhd", "Jiří.nhdr", "Ü b e r.nhdr", "Ω.mhd"):
            for packed in (False, True):
                with self.subTest(name, packed=packed):
                    sitk.WriteImage(self.image, str(self.folder / name), packed)
                    self.assert_read(self.folder / name)

    def test_a_missing_data_file_is_named(self):
        path = self.folder / "Müller.mhd"
        sitk.WriteImage(self.image, str(path))
        path.with_suffix(".raw").unlink()
        self.assert_refused(path, r"its data file Müller\.raw is missing")

    @unittest.skipIf(os.name == "nt", "names are in UTF-16 there")
    def test_a_name_that_is_not_in_utf_8_is_one_sentence(self):
        sitk.WriteImage(self.image, str(self.folder / "ct.nrrd"))
        for ending in (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd"):
            odd = os.fsencode(self.folder) + b"/M\xfcller" + ending.encode()
            Path(os.fsdecode(odd)).write_bytes((self.folder / "ct.nrrd").read_bytes())
            with self.assertRaisesRegex(InputError, "not in UTF-8.*; rename it") as raised:
                read_ct(os.fsdecode(odd))
            self.assertTrue(str(raised.exception).isprintable())


class MaskTest(HeaderTest):
    def write_mask(self, image: sitk.Image, name: str = "mask.nii.gz") -> Path:
        sitk.WriteImage(image, str(self.folder / name))
        return self.folder / name

    def test_a_mask_on_the_same_voxels_is_taken_whichever_way_its_axes_run(self):
        turned = sitk.Image(self.image)
        angle = 0.7
        turned.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1))
        for image in (self.image, turned):
            sitk.WriteImage(image, str(self.folder / "ct.nrrd"))
            ct = read_ct(self.folder / "ct.nrrd")
            mask = sitk.Cast(image < -500, sitk.sitkUInt8)
            labels = sitk.Cast(mask * 7, sitk.sitkUInt8)
            for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)):
                for flips in ((False, True, False), (True, True, False), (False, False, True), (True, True, True)):
                    with self.subTest(order=order, flips=flips):
                        stored = sitk.Flip(sitk.PermuteAxes(mask, order), flips)
                        np.testing.assert_array_equal(read_mask(self.write_mask(stored), ct), ct.hu < -500)
                        stored = sitk.Flip(sitk.PermuteAxes(labels, order), flips)
                        read = read_labels(self.write_mask(stored, "labels.nrrd"), ct)
                        np.testing.assert_array_equal(read, 7 * (ct.hu < -500))

    def test_a_part_of_the_ct_s_voxels_is_taken_whichever_way_its_axes_run(self):
        sitk.WriteImage(self.image, str(self.folder / "ct.nrrd"))
        ct = read_ct(self.folder / "ct.nrrd")
        mask = sitk.Cast(self.image < -500, sitk.sitkUInt8)
        expected = np.zeros(ct.hu.shape, bool)
        expected[2:5, 1:6, 3:9] = ct.hu[2:5, 1:6, 3:9] < -500
        self.assertTrue(expected.any())
        part = mask[3:9, 1:6, 2:5]
        for order in ((0, 1, 2), (2, 0, 1)):
            for flips in ((False, False, False), (True, False, True)):
                with self.subTest(order=order, flips=flips):
                    stored = sitk.Flip(sitk.PermuteAxes(part, order), flips)
                    np.testing.assert_array_equal(read_mask(self.write_mask(stored), ct), expected)

    def test_a_part_that_reaches_out_lies_between_voxels_or_has_no_place_is_refused(self):
        sitk.WriteImage(self.image, str(self.folder / "ct.nrrd"))
        ct = read_ct(self.folder / "ct.nrrd")
        part = sitk.Cast(self.image < -500, sitk.sitkUInt8)[3:9, 1:6, 2:5]
        out, between, coarse = (sitk.Image(part) for _ in range(3))
        out.SetOrigin(self.image.TransformContinuousIndexToPhysicalPoint((self.image.GetSize()[0] - 2.0, 1.0, 2.0)))
        between.SetOrigin(self.image.TransformContinuousIndexToPhysicalPoint((3.5, 1.0, 2.0)))
        coarse.SetSpacing([step * 1.1 for step in part.GetSpacing()])
        for stored in (out, between, coarse):
            with self.assertRaisesRegex(InputError, "off the CT's voxels"):
                read_mask(self.write_mask(stored), ct)
        for stored in (sitk.Cast(self.image < -500, sitk.sitkUInt8)[:9, :6, :5], sitk.ConstantPad(part, (9, 9, 9), (9, 9, 9))):
            with self.assertRaisesRegex(InputError, "voxels .* where the CT has"):
                read_mask(self.write_mask(stored), ct)

    def test_a_mask_that_lies_elsewhere_is_refused_whichever_way_its_axes_run(self):
        sitk.WriteImage(self.image, str(self.folder / "ct.nrrd"))
        ct = read_ct(self.folder / "ct.nrrd")
        moved = sitk.Cast(self.image < -500, sitk.sitkUInt8)
        moved.SetOrigin([x + 0.4 for x in ORIGIN])
        tilted = sitk.Cast(self.image < -500, sitk.sitkUInt8)
        tilted.SetDirection((np.cos(0.3), -np.sin(0.3), 0, np.sin(0.3), np.cos(0.3), 0, 0, 0, 1))
        mirrored = sitk.Cast(self.image < -500, sitk.sitkUInt8)
        mirrored.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
        for stored in (moved, tilted, mirrored):
            for flips in ((False, False, False), (True, False, True)):
                with self.assertRaisesRegex(InputError, "off the CT's voxels"):
                    read_mask(self.write_mask(sitk.Flip(stored, flips)), ct)
