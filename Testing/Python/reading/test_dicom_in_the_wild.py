"""DICOM folders as scanners, archives and people leave them: the lesion is marked where it is, or one sentence says why not."""

import os
import shutil
import struct
import tarfile
import zipfile

import numpy as np
import pydicom
from pydicom.fileset import FileSet

from helpers.dicom_files import change, write_directory, write_enhanced, write_series
from helpers.marks import real_data
from helpers.placed_chest import LESIONS, chest_ct, rotation
from helpers.shared_data import shared_data
from helpers.whole_command import Outcome, WholeCommandTest
from NLSTSegLib.reading.dicom_folder import list_series
from NLSTSegLib.reading.read import read_ct

LEGACY_CONVERTED_CT, SC_IMAGE, MULTI_FRAME_SC = (f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2.2", "7", "7.3"))

IDENTITY = {"PatientID": "ID-8317", "PatientBirthDate": "19410203", "SeriesDescription": "CT"}

DIRECTORY = {"StudyDate": "20200229", "StudyTime": "120000", "StudyID": "7"}
"""What a DICOMDIR needs to know."""


ONE_SERIES = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}


class WildTest(WholeCommandTest):
    def setUp(self):
        super().setUp()
        self.ct = chest_ct(np.eye(3))

    def write(self, folder="ct", hu=None, **options):
        place = {"spacing_ijk_mm": self.ct.spacing_ijk_mm, "origin_lps_mm": self.ct.origin_lps_mm, **options}
        return write_series(self.folder / folder, self.ct.hu if hu is None else hu, **place)

    def write_enhanced(self, name="ct", **options):
        write_enhanced(self.folder / name, self.ct.hu, self.ct.spacing_ijk_mm, self.ct.origin_lps_mm, **options)
        return self.folder / name


class FilesTest(WildTest):
    def test_shuffled_and_renamed_files_without_an_ending(self):
        names = [f"{n:08X}" for n in np.random.default_rng(3).permutation(10**6)[: len(self.ct.hu)]]
        # Neither the order of the names nor the numbers inside tell the order of the slices.
        files = self.write(name=lambda k: names[k])
        for file, number in zip(files, np.random.default_rng(4).permutation(len(files)), strict=True):
            change(file, InstanceNumber=int(number))
        self.assert_in_place(self.folder / "ct")
        self.assert_in_place(files[7])

    def test_turned_upside_down_and_oblique(self):
        for n, vector in enumerate(((np.pi, 0, 0), (0.2, -0.3, 0.4))):
            self.ct = chest_ct(rotation(vector))
            self.write(str(n), orientation=self.ct.direction_matrix[:, :2].T.ravel())
            self.assert_in_place(self.folder / str(n))

    def test_a_study_of_several_series_localizers_and_other_things(self):
        scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "orientation": (0, 1, 0, 0, 0, -1)}
        wide = {"spacing_ijk_mm": (1.0, 1.0, 900.0)}
        uid = "1.2.3.4"
        self.write("study/chest", SeriesInstanceUID=uid, SeriesNumber=4, SeriesDescription="Lunge 1.0", name="{}".format)
        self.write("study/scout", self.ct.hu[:2], SeriesNumber=1, **wide, **scout)
        # Some scanners put the localizer into the series itself.
        self.write("study/chest", self.ct.hu[:1], SeriesInstanceUID=uid, name="scout{}".format, **wide, **scout)
        self.write("study/few", self.ct.hu[:12], SeriesNumber=2)
        self.write("study/derived", SeriesNumber=3, ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
        self.write("study/mr", SeriesNumber=5, Modality="MR")
        screenshot = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
        colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
        file = self.write("study", self.ct.hu[:1], slope=None, intercept=None, SeriesNumber=999, name="dose{}".format)[0]
        change(file, SOPClassUID=SC_IMAGE, **screenshot, **colour, PixelData=bytes(3 * self.ct.hu[0].size))
        report = self.write("study", self.ct.hu[:1], Modality="SR", name="report{}".format)[0]
        without = {"Rows": None, "Columns": None, "PixelData": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}
        change(report, **without)
        dataset = pydicom.dcmread(report)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(report)
        write_directory(self.folder / "study" / "DICOMDIR")
        for name in ("Thumbs.db", ".DS_Store", "viewer.exe", "autorun.inf"):
            (self.folder / "study" / name).write_bytes(b"MZ" * 100)
        outcome = self.assert_in_place(self.folder / "study")
        self.assertRegex(outcome.stderr, r"taken: CT 'Lunge 1.0' \(40 slices")
        self.assertEqual(outcome.stderr.count("there: "), 6)

    def test_files_that_are_there_twice_and_thrice(self):
        files = self.write()
        for n, folder in enumerate(("copy", "ct/again")):
            (self.folder / "ct" / folder).mkdir(parents=True)
            for file in files[n :: n + 1]:
                shutil.copy(file, self.folder / "ct" / folder / f"{file.stem} (1).dcm")
        self.assertEqual([len(s.slices) for s in list_series(self.folder / "ct")], [40])
        self.assert_in_place(self.folder / "ct")

    def test_one_missing_slice_through_the_largest_lesion(self):
        middle = round((LESIONS[0][0][2] - self.ct.origin_lps_mm[2]) / self.ct.spacing_ijk_mm[2])
        self.write(skip=[middle])
        self.assert_refused(self.folder / "ct", "within the lungs (1; 8.0 mm")
        outcome = self.segmented(self.folder / "ct", "--skip-unreadable")
        self.assertEqual(outcome.findings["missing_slices"], "warning")
        self.assertIn("Slices are missing (1): 8.00 mm", outcome.stderr)
        whole = self.write("whole") and self.segmented(self.folder / "whole")
        for found, true in zip(outcome.report["lesions"], whole.report["lesions"], strict=True):
            for axis, most_mm in (("l", 1.5), ("p", 1.6), ("s", 2.0)):
                self.assertLess(abs(found[f"centroid_{axis}_mm"] - true[f"centroid_{axis}_mm"]), most_mm)
            self.assertAlmostEqual(found["volume_mm3"] / true["volume_mm3"], 1, delta=0.15)

    def test_a_dicomdir_with_its_folders(self):
        files = self.write("loose", **DIRECTORY) + self.write("loose", self.ct.hu[:3], name="b{}".format, **DIRECTORY)
        directory = FileSet()
        for file in files:
            directory.add(file)
        directory.write(self.folder / "disc")
        self.assertFalse((self.folder / "disc" / "0000.dcm").exists())
        self.assert_in_place(self.folder / "disc" / "DICOMDIR")
        self.assert_in_place(self.folder / "disc")

    def test_archives_are_refused_with_what_to_do_and_never_unpacked(self):
        files = self.write()
        with zipfile.ZipFile(self.folder / "ct.zip", "w") as packed:
            for file in files:
                packed.write(file, f"../outside/{file.name}")
        for ending, mode in ((".tar", "w"), (".tar.gz", "w:gz"), (".tar.xz", "w:xz"), (".tar.bz2", "w:bz2")):
            with tarfile.open(self.folder / f"ct{ending}", mode) as packed:
                packed.add(self.folder / "ct")
        shutil.copy(self.folder / "ct.zip", self.folder / "ct.dcm")
        for name in ("ct.zip", "ct.tar", "ct.tar.gz", "ct.tar.xz", "ct.tar.bz2", "ct.dcm"):
            with self.subTest(name):
                self.assert_refused(self.folder / name, self.folder / name, "archive", "unpack")
        (self.folder / "packed").mkdir()
        shutil.move(self.folder / "ct.zip", self.folder / "packed")
        self.assert_refused(self.folder / "packed", self.folder / "packed", "no DICOM", "archive")

    def test_names_of_patients_in_other_letters_stay_out_of_the_result(self):
        for characters, name in (
            (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
            ("ISO_IR 100", "Müller^Jörg"),
            ("ISO_IR 144", "Иванов^Пётр"),
            ("GB18030", "Wang^XiaoDong=王^小东"),
            ("ISO_IR 192", "Žluťoučký^Kůň"),
        ):
            with self.subTest(name):
                self.write(name, SpecificCharacterSet=characters, PatientName=name, **IDENTITY)
                self.assert_kept_out(name, self.assert_in_place(self.folder / name))

    def test_a_character_set_that_nobody_knows(self):
        # pydicom does not write it.
        for file in self.write(SpecificCharacterSet="ISO_IR 192", PatientName="Škvorecký^Zdeněk", **IDENTITY):
            content = file.read_bytes()
            self.assertEqual(content.count(b"ISO_IR 192"), 1)
            file.write_bytes(content.replace(b"ISO_IR 192", b"ISO_IR 999"))
        self.assert_kept_out("Škvorecký^Zdeněk", self.assert_in_place(self.folder / "ct"))

    def assert_kept_out(self, name: str, outcome: Outcome) -> None:
        for file in (self.out / str(self.tries)).iterdir():
            content = file.read_bytes()
            for word in (*name.replace("=", "^").split("^"), "ID-8317", "19410203"):
                self.assertNotIn(word.encode(), content, file.name)
        self.assertNotIn(name, outcome.stderr)

    @real_data
    def test_real_series_under_other_names(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        files = sorted((data / "ct" / "LIDC-IDRI-0001" / "dicom").glob("*"))
        (self.folder / "real").mkdir()
        for file, number in zip(files, np.random.default_rng(5).permutation(len(files)), strict=True):
            os.symlink(file, self.folder / "real" / f"IM{number}")
        found, expected = read_ct(self.folder / "real"), read_ct(files[0].parent)
        np.testing.assert_array_equal(found.hu, expected.hu)
        self.assertEqual(found.origin_lps_mm, expected.origin_lps_mm)
        self.assertEqual(found.direction_lps, expected.direction_lps)

    def test_distances_that_contradict_the_positions_are_not_believed(self):
        for spacing, thickness in ((-4.0, 4.0), (1.0, 1.0), (4.0, None)):
            with self.subTest(spacing=spacing, thickness=thickness):
                self.write(f"{spacing}", SpacingBetweenSlices=spacing, SliceThickness=thickness)
                self.assert_in_place(self.folder / f"{spacing}")

    def test_pixel_spacings_that_are_not_positive(self):
        for spacing in ([-3.2, 3.0], [3.2, -3.0], [0.0, 3.0]):
            files = self.write(PixelSpacing=spacing)
            self.assert_refused(self.folder / "ct", files[0], "PixelSpacing")


class AcquisitionsTest(WildTest):
    def test_two_acquisitions_between_one_another(self):
        x, y, z = self.ct.origin_lps_mm
        later = chest_ct(np.eye(3), middle_lps_mm=(6.0, -9.0, 2.0))
        self.write("ct", **ONE_SERIES, AcquisitionNumber=1, name="b{}".format)
        moved = {"origin_lps_mm": (x + 6, y - 9, z + 2)}
        self.write("ct", later.hu, **ONE_SERIES, AcquisitionNumber=2, name="a{}".format, **moved)
        self.assert_in_place(self.folder / "ct")
        self.assert_in_place(self.folder / "ct", "--series", "1.2.3/1")
        outcome = self.assert_in_place(self.folder / "ct", "--series", "1.2.3/2", at_lps_mm=(6.0, -9.0, 2.0))
        self.assertRegex(outcome.stderr, r"taken: CT \(40 slices, 156 mm, 1.2.3/2\)")

    def test_two_acquisitions_at_the_same_places(self):
        self.write("ct", **ONE_SERIES, AcquisitionNumber=1, name="b{}".format)
        self.write("ct", self.ct.hu[::-1], **ONE_SERIES, AcquisitionNumber=2, name="a{}".format)
        self.assert_in_place(self.folder / "ct")

    def test_the_same_places_twice_without_telling_apart(self):
        self.write("ct", **ONE_SERIES, name="b{}".format)
        self.write("ct", self.ct.hu[::-1], **ONE_SERIES, name="a{}".format)
        folder = self.folder / "ct"
        self.assert_refused(folder, folder / "a0", folder / "b0", "same position", "keep one acquisition")


class EncodingTest(WildTest):
    def test_compressed_slices(self):
        for encoding, name in (
            ("RLE", "RLE Lossless"),
            ("JPEG", "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])"),
            ("JPEG2000", "JPEG 2000 Image Compression (Lossless Only)"),
            ("deflated", "Deflated Explicit VR Little Endian"),
        ):
            with self.subTest(encoding):
                self.write(encoding, encoding=encoding)
                (series,) = list_series(self.folder / encoding)
                self.assertEqual(pydicom.uid.UID(series.transfer_syntax).name, name)
                self.assert_in_place(self.folder / encoding)

    def test_byte_orders_and_headers_without_types(self):
        for syntax in (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian):
            with self.subTest(syntax.name):
                for file in self.write(syntax):
                    dataset = pydicom.dcmread(file)
                    if not syntax.is_little_endian:
                        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
                    dataset.file_meta.TransferSyntaxUID = syntax
                    order = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
                    pydicom.dcmwrite(file, dataset, force_encoding=True, **order)
                self.assertEqual(list_series(self.folder / syntax)[0].transfer_syntax, syntax)
                self.assert_in_place(self.folder / syntax)

    def test_voxels_of_twelve_bits_with_and_without_sign(self):
        for signed, intercept in ((0, -1024.0), (1, 0.0)):
            with self.subTest(signed=signed):
                for file in self.write(str(signed), intercept=intercept):
                    dataset = pydicom.dcmread(file)
                    stored = np.frombuffer(dataset.PixelData, np.int16) & np.int16(0x0FFF)
                    bits = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
                    change(file, **bits, PixelData=stored.tobytes())
                np.testing.assert_array_equal(read_ct(self.folder / str(signed)).hu, self.ct.hu)

    def test_enhanced_multi_frame(self):
        order = np.random.default_rng(6).permutation(len(self.ct.hu)).tolist()
        for encoding in ("", "RLE", "JPEG", "JPEG2000"):
            with self.subTest(encoding):
                file = self.write_enhanced(f"ct{encoding}", order=order, encoding=encoding)
                np.testing.assert_array_equal(read_ct(file).hu, self.ct.hu)
        self.assert_in_place(file)

    def test_multi_frame_images_of_other_kinds(self):
        for sop_class in (LEGACY_CONVERTED_CT, MULTI_FRAME_SC):
            file = self.write_enhanced(sop_class, intercepts=(-1024, -1000, 0))
            dataset = pydicom.dcmread(file)
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
            dataset.save_as(file)
            np.testing.assert_array_equal(read_ct(file).hu, self.ct.hu)
        self.assert_in_place(file)

    def test_more_frames_than_are_described(self):
        file = self.write_enhanced()
        change(file, NumberOfFrames=2_000_000_000)
        self.assert_refused(file, file, "damaged", "copy it again")

    def test_a_file_that_describes_eight_thousand_frames_and_holds_one(self):
        file = self.write("ct")[3]
        content = file.read_bytes()
        place = content.index(b"\xe0\x7f\x10\x00")
        items = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFF) + 8_000 * struct.pack("<HHI", 0xFFFE, 0xE000, 0)
        file.write_bytes(content[:place] + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) + content[place:])
        self.assert_refused(self.folder / "ct", file, "damaged DICOM file", "copy it again")

    def test_an_encoding_that_is_not_what_the_header_says(self):
        files = self.write(encoding="JPEG2000")
        for syntax in (pydicom.uid.MPEG4HP41, pydicom.uid.JPEGLSLossless):
            dataset = pydicom.dcmread(files[3])
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(files[3])
            self.assert_refused(self.folder / "ct", files[3], syntax.name, "export it uncompressed")


class ValuesTest(WildTest):
    def test_missing_rescale_is_a_warning_where_the_values_are_hu(self):
        self.write(slope=None, intercept=None)
        self.assertEqual(self.assert_in_place(self.folder / "ct").findings["no_rescale"], "warning")

    def test_missing_rescale_is_refused_where_they_are_not(self):
        for file in self.write():
            change(file, RescaleSlope=None, RescaleIntercept=None)
        self.assert_refused(self.folder / "ct", "not HU", "rescale slope and intercept")

    def test_rescale_that_one_slice_lacks(self):
        files = self.write()
        change(files[9], RescaleSlope=None, RescaleIntercept=None)
        self.assert_refused(self.folder / "ct", files[9], "lacks a rescale", "export")

    def test_inverted_grey_values(self):
        files = self.write(PhotometricInterpretation="MONOCHROME1")
        self.assert_refused(self.folder / "ct", files[0], "MONOCHROME1", "export the series anew as MONOCHROME2")

    def test_colour(self):
        files = self.write(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
        self.assert_refused(self.folder / "ct", files[0], "RGB", "export")

    def test_control_characters_in_the_texts(self):
        description = "\x1b[31mred\x07\nnlstseg: error: false"
        self.write(SeriesDescription="Lunge", Modality="MR")
        for file in (self.folder / "ct").iterdir():
            content = file.read_bytes()
            place = content.index(b"Lunge ")
            length = len(description.encode() + b" ") // 2 * 2
            padded = description.encode().ljust(length)[:length]
            file.write_bytes(content[: place - 2] + length.to_bytes(2, "little") + padded + content[place + 6 :])
        message = self.assert_refused(self.folder / "ct", "MR", "[31mred")
        self.assertTrue(message.isprintable())
