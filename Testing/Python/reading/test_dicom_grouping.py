"""Which DICOM files make one scan, which scan is the chest, and what cannot be read: never a wrong volume in silence."""

import io
import os
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from helpers.dicom_files import change, small_chest, write_enhanced, write_series
from NLSTSegLib.checks.preflight import check_ct
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_folder import list_series
from NLSTSegLib.reading.dicom_series import read_series
from NLSTSegLib.reading.read import read_ct

ORIGIN = (-150.0, -160.0, -300.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def chest_of_lung(shape_kji=(20, 40, 44)) -> np.ndarray:
    """int16 HU at 8 x 8 x 8 mm: a body with two lungs of 1.5 litres each, in room air."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape_kji), indexing="ij")
    hu = np.where((i / 0.9) ** 2 + (j / 0.8) ** 2 < 1, 40.0, -1000.0)
    hu[((np.abs(i) - 0.4) / 0.3) ** 2 + (j / 0.5) ** 2 + (k / 0.9) ** 2 < 1] = -850
    return hu.astype(np.int16)


class FolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "Lékař 胸部"
        self.hu = small_chest()

    def codes(self, **options) -> dict[str, str]:
        return {finding.code: finding.severity for finding in check_ct(read_ct(self.folder, **options))}


class ScansUnderOneUidTest(FolderTest):
    SLICES = 8
    BETWEEN_MM, BEHIND_MM = ORIGIN[2] + 1.25, ORIGIN[2] + SLICES * 2.5
    """Where a second scan begins so that its slices lie between those of the first, or after them."""

    def setUp(self):
        super().setUp()
        self.hu = small_chest((self.SLICES, 24, 28))

    def write_two(self, uid: str | None, first: dict, second: dict, start_mm: float = BETWEEN_MM):
        """Two scans of the same chest, the second between the slices of the first or after them."""
        one = {"StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.3", "SeriesInstanceUID": uid or "1.4"}
        files = write_series(self.folder / "a", self.hu, **{**one, **first})
        files += write_series(
            self.folder / "a", self.hu, origin_lps_mm=(*ORIGIN[:2], start_mm), name="b{}".format, **{**one, **second}
        )
        for file in files if uid is None else []:
            change(file, SeriesInstanceUID=None)

    def test_what_tells_scans_apart_splits_them_wherever_they_lie(self):
        for name, first, second in (
            ("study", {}, {"StudyInstanceUID": "1.9"}),
            ("frame of reference", {}, {"FrameOfReferenceUID": "1.9"}),
            ("series number", {"SeriesNumber": 2}, {"SeriesNumber": 3}),
            ("description", {"SeriesDescription": "LUNG"}, {"SeriesDescription": "SOFT"}),
            ("kernel", {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
            ("tube voltage", {"KVP": "80"}, {"KVP": "140"}),
            ("contrast", {}, {"ContrastBolusAgent": "ULTRAVIST"}),
            ("phase", {"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
            ("image type", {}, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}),
            ("position of the patient", {"PatientPosition": "HFS"}, {"PatientPosition": "HFP"}),
        ):
            for uid in ("1.5", None):
                for start_mm in (self.BETWEEN_MM, self.BEHIND_MM):
                    with self.subTest(name, uid=uid, start_mm=start_mm):
                        self.write_two(uid, first, second, start_mm)
                        series = list_series(self.folder)
                        self.assertEqual([len(s.slices) for s in series], [self.SLICES] * 2)
                        self.assertEqual([s.key for s in series], [f"{uid or 'no-uid'}/1", f"{uid or 'no-uid'}/2"])
                        for one in series:
                            ct = read_series(choose_chest_series(series, one.key))
                            np.testing.assert_array_equal(ct.hu, self.hu)

    def test_what_may_differ_within_a_scan_splits_only_what_lies_between_one_another(self):
        for name, first, second in (
            ("acquisition", {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
            ("thickness", {"SliceThickness": 1.25}, {"SliceThickness": 5}),
            ("time", {"SeriesTime": "101010"}, {"SeriesTime": "101510"}),
            ("phase of the heart", {"NominalPercentageOfCardiacPhase": 40}, {"NominalPercentageOfCardiacPhase": 75}),
        ):
            with self.subTest(name):
                self.write_two("1.5", first, second)
                self.assertEqual([len(s.slices) for s in list_series(self.folder)], [self.SLICES] * 2)
                self.write_two("1.5", first, second, self.BEHIND_MM)
                self.assertEqual([len(s.slices) for s in list_series(self.folder)], [2 * self.SLICES])

    def test_folders_tell_apart_what_lies_at_the_same_positions(self):
        shared = {"SeriesInstanceUID": "1.5", "StudyInstanceUID": "1.2"}
        write_series(self.folder / "a", self.hu, **shared)
        write_series(self.folder / "b", self.hu + 5, **shared)
        self.assertEqual([len(s.slices) for s in list_series(self.folder)], [self.SLICES] * 2)

    def test_a_scan_laid_into_folders_is_one(self):
        shared = {"SeriesInstanceUID": "1.5", "StudyInstanceUID": "1.2"}
        write_series(self.folder, self.hu, name=lambda k: f"{k % 3}{k:03d}.dcm", **shared)
        for n in range(3):
            (self.folder / str(n)).mkdir()
            for file in self.folder.glob(f"{n}*.dcm"):
                file.rename(self.folder / str(n) / file.name)
        np.testing.assert_array_equal(read_ct(self.folder).hu, self.hu)

    def test_orientations_split(self):
        shared = {"SeriesInstanceUID": "1.5", "StudyInstanceUID": "1.2"}
        write_series(self.folder, self.hu, **shared)
        write_series(self.folder, self.hu[:4], orientation=CORONAL, name="b{}".format, **shared)
        self.assertEqual(sorted(len(s.slices) for s in list_series(self.folder)), [4, self.SLICES])
        self.assertTrue(choose_chest_series(list_series(self.folder)).is_axial)

    def test_several_patients_are_refused_with_the_list(self):
        for start_mm in (self.BETWEEN_MM, self.BEHIND_MM):
            for uid in ("1.5", None):
                with self.subTest(start_mm=start_mm, uid=uid):
                    self.write_two(uid, {"PatientID": "ONE"}, {"PatientID": "TWO"}, start_mm)
                    with self.assertRaisesRegex(InputError, "several patients; choose one with --series.*/1.*/2") as raised:
                        read_ct(self.folder)
                    self.assertNotIn("TWO", str(raised.exception))
                    np.testing.assert_array_equal(read_ct(self.folder, series_uid=f"{uid or 'no-uid'}/2").hu, self.hu)

    def test_two_phases_in_an_enhanced_file_are_not_one_volume(self):
        write_enhanced(self.folder / "a", np.concatenate([self.hu, self.hu]), order=range(2 * self.SLICES))
        dataset = pydicom.dcmread(self.folder / "a")
        for n, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            content = Dataset()
            content.TemporalPositionIndex = 1 + n % 2
            frame.FrameContentSequence = [content]
        dataset.save_as(self.folder / "a")
        self.assertEqual([len(s.slices) for s in list_series(self.folder)], [self.SLICES] * 2)


class ContinuedTest(FolderTest):
    def write(self, number: int | None, hu: np.ndarray, start_mm: float, name: str, **attributes):
        origin = (*ORIGIN[:2], start_mm)
        shared = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "AcquisitionNumber": number, **attributes}
        write_series(self.folder, hu, origin_lps_mm=origin, name=f"{name}{{:03d}}".format, **shared)

    def test_acquisitions_that_share_one_position_are_one_chest(self):
        # As a real helical chest has them: 47 and 17 slices of 5 mm, the joint 0.005 mm apart.
        hu = small_chest((63, 24, 28))
        for numbers in ((1, 2), (2, 1), (None, None)):
            for off_mm in (0.005, -0.005, 0.0):
                with self.subTest(numbers=numbers, off_mm=off_mm):
                    self.write(numbers[0], hu[:47], -300.0, "a")
                    self.write(numbers[1], hu[46:], -300 + 46 * 2.5 + off_mm, "b")
                    ct = read_ct(self.folder)
                    np.testing.assert_array_equal(ct.hu, hu)
                    self.assertEqual(ct.acquisition.doubled_slices, 1)
                    self.assertEqual({f.code: f.severity for f in check_ct(ct)}["doubled_slices"], "info")

    def test_a_long_and_a_short_acquisition_are_not_taken_for_two_scans(self):
        hu = small_chest((63, 24, 28))
        self.write(1, hu[:60], -300.0, "a")
        self.write(2, hu[59:], -300 + 59 * 2.5 + 0.005, "b")
        np.testing.assert_array_equal(read_ct(self.folder).hu, hu)


class ChestTest(FolderTest):
    def write(self, name: str, hu: np.ndarray, number: int, spacing=(8.0, 8.0, 8.0), **attributes):
        write_series(self.folder / name, hu, spacing, SeriesNumber=number, StudyInstanceUID="1.2", **attributes)

    def chosen(self) -> str:
        return choose_chest_series(list_series(self.folder)).slices[0].path.parent.name

    def test_a_longer_abdomen_is_not_taken_for_the_chest(self):
        chest = chest_of_lung()
        below = np.where(chest[:1] < -900, chest[:1], 40).repeat(40, axis=0)
        self.write("chest", chest, 3)
        self.write("abdomen", np.concatenate([below, chest[:6]]), 4)
        self.assertEqual(self.chosen(), "chest")
        self.write("abdomen", np.concatenate([below, chest[:6]]), 2, BodyPartExamined="CHEST")
        self.assertEqual(self.chosen(), "chest")

    def test_of_series_with_all_of_the_lungs(self):
        chest = chest_of_lung()
        longer = np.concatenate([np.where(chest[:1] < -900, chest[:1], 40).repeat(20, axis=0), chest])
        for name, first, second in (
            (
                "the chest alone",
                (chest, {"BodyPartExamined": "CHEST"}),
                (longer, {"SeriesDescription": "CHEST ABD"}),
            ),
            ("the reconstruction", (chest, {}), (chest, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]})),
            ("the original", (chest, {}), (chest, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]})),
        ):
            for numbers in ((1, 2), (2, 1)):
                with self.subTest(name, numbers=numbers):
                    self.write("a", first[0], numbers[0], **first[1])
                    self.write("b", second[0], numbers[1], **second[1])
                    self.assertEqual(self.chosen(), "a")
                    for file in self.folder.rglob("*.dcm"):
                        file.unlink()

    def test_a_series_that_cannot_be_decoded_does_not_hide_the_chest(self):
        self.write("chest", chest_of_lung()[:8], 1)
        self.write("damaged", chest_of_lung(), 2, encoding="JPEG")
        for file in (self.folder / "damaged").iterdir():
            data = file.read_bytes()
            file.write_bytes(data[:-300] + bytes(292) + data[-8:])
        self.assertEqual(self.chosen(), "chest")


class UnreadableTest(FolderTest):
    def write(self, name: str = "{:03d}.dcm") -> list[Path]:
        for file in self.folder.iterdir() if self.folder.exists() else []:
            file.unlink()
        return write_series(self.folder, self.hu, name=name.format)

    def test_spoiled_files_are_counted_and_an_error_unless_asked_for(self):
        for name in ("{:03d}.dcm", "IM{}", "1.2.840.{}", "{}.IMA", "{:02d}c3f-9e"):
            whole = {file: file.read_bytes() for file in self.write(name)}
            for what, spoil in (
                ("empty", lambda f: f.write_bytes(b"")),
                ("zeros", lambda f: f.write_bytes(bytes(f.stat().st_size))),
                ("cut", lambda f: f.write_bytes(f.read_bytes()[:100])),
                ("a pointer of git", lambda f: f.write_text("version https://git-lfs.github.com/spec/v1\n")),
                ("a page of an error", lambda f: f.write_text("<html>404</html>")),
                ("a dangling link", lambda f: (f.unlink(), f.symlink_to("../.git/annex/objects/" + f.name))),
            ):
                for which in (slice(4), slice(8, 12)):
                    with self.subTest(what, name=name, which=which):
                        spoiled = list(whole)[which]
                        for file in spoiled:
                            spoil(file)
                        with self.assertRaisesRegex(InputError, "4 files beside its slices cannot be read .*--skip-unreadable"):
                            read_ct(self.folder)
                        ct = read_ct(self.folder, skip_unreadable=True)
                        self.assertEqual(len(ct.hu), 16)
                        found = {f.code: f.severity for f in check_ct(ct)}
                        self.assertEqual(found["unreadable_files"], "warning")
                        for file in spoiled:
                            file.unlink()
                            file.write_bytes(whole[file])

    def test_damaged_files_are_left_out_when_asked_for(self):
        for file in self.write()[:3]:
            file.write_bytes(file.read_bytes()[:700])
        with self.assertRaisesRegex(InputError, "damaged"):
            read_ct(self.folder)
        self.assertEqual(len(read_ct(self.folder, skip_unreadable=True).hu), 17)

    def test_files_without_the_mark_are_read(self):
        for which in (slice(4), slice(20)):
            for file in self.write()[which]:
                plain = DicomFileLike(io.BytesIO())
                plain.is_little_endian, plain.is_implicit_VR = True, True
                write_dataset(plain, Dataset(dict(pydicom.dcmread(file).items())))
                file.write_bytes(plain.parent.getvalue())
            np.testing.assert_array_equal(read_ct(self.folder).hu, self.hu)
            np.testing.assert_array_equal(read_ct(file).hu, self.hu)

    def test_other_files_do_not_count(self):
        self.write()
        for name in ("readme.txt", "LICENSE", "._000.dcm", ".DS_Store", "Thumbs.db", "report.pdf", "checksums.md5"):
            (self.folder / name).write_bytes(b"")
        np.testing.assert_array_equal(read_ct(self.folder).hu, self.hu)

    def test_a_folder_of_links_that_lead_nowhere(self):
        for file in self.write():
            file.unlink()
            file.symlink_to("nowhere")
        with self.assertRaisesRegex(InputError, r"no DICOM images were found in .*\(20 files there are empty, or links"):
            read_ct(self.folder)


class LinksTest(FolderTest):
    def test_folders_and_files_reached_by_links_are_read_once(self):
        outside = self.folder.parent / "elsewhere"
        write_series(outside / "deep", self.hu)
        self.folder.mkdir()
        (self.folder / "link").symlink_to(outside)
        (self.folder / "again").symlink_to(outside / "deep")
        (outside / "back").symlink_to(self.folder)
        np.testing.assert_array_equal(read_ct(self.folder).hu, self.hu)
        (self.folder / "link").unlink()
        (self.folder / "again").unlink()
        for file in (outside / "deep").iterdir():
            (self.folder / file.name).symlink_to(file)
        np.testing.assert_array_equal(read_ct(self.folder).hu, self.hu)

    def test_a_deep_tree_is_walked(self):
        deep = self.folder
        for _ in range(300):
            deep = deep / "d"
        deep.mkdir(parents=True)
        write_series(self.folder, self.hu[:3])
        self.assertEqual(len(list_series(self.folder)[0].slices), 3)

    @unittest.skipIf(os.name == "nt" or os.geteuid() == 0, "everything is readable")
    def test_a_closed_folder_is_told(self):
        write_series(self.folder / "a", self.hu)
        (self.folder / "a").chmod(0)
        self.addCleanup((self.folder / "a").chmod, 0o700)
        with self.assertRaisesRegex(InputError, "cannot be looked into"):
            read_ct(self.folder)


class OddTextsTest(FolderTest):
    def set_text(self, file: Path, keyword: str, text: str):
        dataset = pydicom.dcmread(file)
        tag, value = Tag(keyword), text.encode("latin-1") + b" " * (len(text) % 2)
        dataset._dict[tag] = RawDataElement(tag, pydicom.datadict.dictionary_VR(tag), len(value), value, 0, False, True)
        dataset.save_as(file)

    def test_what_is_not_needed_is_read_over(self):
        for keyword, text in (
            ("SliceThickness", "2,5"),
            ("SliceThickness", "1.25mm"),
            ("SliceThickness", "2.5\\2.5"),
            ("SeriesNumber", "A1"),
            ("SeriesNumber", "1.5"),
            ("SeriesNumber", "99999999999999999999"),
            ("AcquisitionNumber", "first"),
            ("KVP", "120 kV"),
            ("SeriesTime", "half past ten"),
            ("ImageType", ""),
        ):
            with self.subTest(keyword, text=text):
                for file in write_series(self.folder, self.hu):
                    self.set_text(file, keyword, text)
                np.testing.assert_array_equal(read_ct(self.folder).hu, self.hu)

    def test_what_is_needed_is_named(self):
        for keyword, text in (
            ("PixelSpacing", "0,7\\0,7"),
            ("ImagePositionPatient", "-150,5\\-160\\-300"),
            ("ImageOrientationPatient", "1\\0\\0\\0\\eins\\0"),
            ("RescaleSlope", "1,0"),
            ("RescaleIntercept", "minus 1024"),
        ):
            with self.subTest(keyword, text=text):
                for file in write_series(self.folder, self.hu):
                    self.set_text(file, keyword, text)
                with self.assertRaisesRegex(InputError, f"{keyword} is no number"):
                    read_ct(self.folder)


class MeaningTest(FolderTest):
    def test_images_calculated_from_others_are_a_warning(self):
        for attributes in (
            {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]},
            {"ImageType": ["DERIVED", "SECONDARY", "MINIP"]},
            {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
            {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SeriesDescription": "Thorax MIP 10mm"},
            {"VolumeBasedCalculationTechnique": "MAX_IP"},
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "IODINE"]},
        ):
            with self.subTest(attributes):
                write_series(self.folder, self.hu, **attributes)
                self.assertEqual(self.codes().get("derived_images"), "warning")
        write_series(self.folder, self.hu, SeriesDescription="Thorax 1.25 Lunge")
        self.assertNotIn("derived_images", self.codes())

    def test_thickness_against_distance(self):
        for thickness_mm, step_mm, expected in (
            (2.5, 2.5, set()),
            (2.5, 1.25, set()),
            (5.0, 2.5, set()),
            (1.25, 2.5, set()),
            (10.0, 2.5, {"overlapping_slabs", "thick_slices"}),
            (5.0, 1.0, {"overlapping_slabs"}),
            (8.0, 8.0, {"thick_slices"}),
            (8.0, 4.0, {"thick_slices"}),
            (1.0, 5.0, {"gaps"}),
            (1.0, 10.0, {"gaps", "thick_slices"}),
        ):
            with self.subTest(thickness_mm=thickness_mm, step_mm=step_mm):
                write_series(self.folder, self.hu, (0.7, 0.8, step_mm), SliceThickness=thickness_mm)
                self.assertEqual(set(self.codes()) & {"overlapping_slabs", "thick_slices", "gaps"}, expected)

    def test_values_that_are_no_hu_are_refused_by_their_name(self):
        for unit in ("HU", "US", "Hounsfield Units", None):
            with self.subTest(unit=unit):
                write_series(self.folder, self.hu, **({"RescaleType": unit} if unit else {}))
                np.testing.assert_array_equal(read_ct(self.folder).hu, self.hu)
        for unit in ("OD", "MGML", "Z_EFF", "ED", "PCT"):
            with self.subTest(unit=unit):
                write_series(self.folder, self.hu, RescaleType=unit)
                with self.assertRaisesRegex(InputError, f"RescaleType {unit}"):
                    read_ct(self.folder)
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [2, 0, 16], "HU", b"\0\0\1\0"
        write_series(self.folder, self.hu, slope=None, intercept=None, ModalityLUTSequence=[table])
        with self.assertRaisesRegex(InputError, "ModalityLUTSequence"):
            read_ct(self.folder)

    def test_overlays_in_unused_bits_do_not_change_the_values(self):
        hu = np.maximum(self.hu, -1024)
        for file in write_series(self.folder, hu, dtype=np.uint16):
            dataset = pydicom.dcmread(file)
            stored = np.frombuffer(dataset.PixelData, "<u2").copy()
            stored[::7] |= 0x8000
            dataset.PixelData, dataset.BitsStored, dataset.HighBit = stored.tobytes(), 12, 11
            dataset.save_as(file)
        np.testing.assert_array_equal(read_ct(self.folder).hu, hu)
