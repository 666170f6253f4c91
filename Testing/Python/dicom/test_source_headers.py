"""What SEG and SR take over from the CT's headers: an allow list, mended; what cannot be mended is refused."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import pydicom

from helpers.dicom_files import change, write_series
from helpers.dicom_lesions import found_in, series_at
from helpers.marked_files import MARK, UID_ROOT, mark_dicom, marks_in
from NLSTSegLib.dicom.codes import SegType
from NLSTSegLib.dicom.read_seg import read_seg
from NLSTSegLib.dicom.source import OPTIONAL, REQUIRED, read_source
from NLSTSegLib.dicom.write import write_dicom
from NLSTSegLib.errors import InputError

UIDS = {"StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "ReferencedSOPInstanceUID", "UID"}
"""Where a UID of the CT may stand."""


class HeadersTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.series_written = 0

    def series(self, first_only: bool = False, **attributes: object) -> Path:
        """Three slices with these attributes, the first one or all."""
        self.series_written += 1
        folder = self.folder / f"ct {self.series_written}"
        files = write_series(folder, np.zeros((3, 6, 7), np.int16), (0.7, 0.8, 2.5))
        for file in files[:1] if first_only else files:
            change(file, **attributes)
        return folder

    def written(self, folder: Path) -> tuple[pydicom.Dataset, pydicom.Dataset, tuple[str, ...]]:
        series = series_at(folder)
        labels = np.zeros((3, 6, 7), np.uint16)
        labels[1, 2:4, 3] = 1
        source = read_source(series)
        (self.folder / "out").mkdir(exist_ok=True)
        paths = write_dicom(self.folder / "out", source, found_in(labels), SegType.BINARY, force=True)
        np.testing.assert_array_equal(read_seg(paths[0], series).labels, labels)
        seg, report = map(pydicom.dcmread, paths)
        return seg, report, source.notes

    def assert_refused(self, folder: Path, words: str) -> None:
        with self.assertRaisesRegex(InputError, words):
            read_source(series_at(folder))


class TestMending(HeadersTest):
    def test_what_is_missing_is_written_empty_and_said(self):
        seg, report, notes = self.written(self.series(PatientName=None, PatientID=None))
        for dataset in (seg, report):
            self.assertEqual([str(dataset.get(keyword) or "") for keyword in REQUIRED], [""] * len(REQUIRED))
        for keyword in REQUIRED:
            self.assertIn(f"{keyword} is missing, written empty", notes)

    def test_values_that_no_object_may_hold_are_shortened_or_left_empty(self):
        wrong = {"PatientSex": "MALE", "PatientBirthDate": "1950", "StudyTime": "256199", "StudyDate": "20261301"}
        seg, report, notes = self.written(self.series(**wrong))
        for dataset in (seg, report):
            self.assertEqual([str(dataset.get(keyword) or "") for keyword in wrong], ["M", "", "", ""])
        self.assertEqual({note.split()[0] for note in notes} & set(wrong), set(wrong))
        self.assertNotIn("1950", " ".join(notes))
        self.assertEqual(self.written(self.series(PatientSex="U"))[0].PatientSex, "")

    def test_the_frame_of_reference_is_made_from_the_series_where_it_is_missing(self):
        folder = self.series()
        first, _, notes = self.written(folder)
        self.assertTrue(first.FrameOfReferenceUID.startswith("2.25."))
        self.assertEqual(self.written(folder)[0].FrameOfReferenceUID, first.FrameOfReferenceUID)
        self.assertIn("FrameOfReferenceUID is missing", " ".join(notes))

    def test_the_thickness_is_the_slice_distance_where_it_is_missing(self):
        seg, _, notes = self.written(self.series(SliceThickness=None))
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        self.assertEqual((float(measures.SliceThickness), float(measures.SpacingBetweenSlices)), (2.5, 2.5))
        self.assertIn("SliceThickness is missing", " ".join(notes))

    def test_directions_that_differ_a_little_between_slices_are_those_of_the_first(self):
        folder = self.series(first_only=True, ImageOrientationPatient=["1", "0", "0", "0", "1", "0.000001"])
        seg, _, _ = self.written(folder)
        orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
        self.assertEqual(float(orientation[5]), 1e-6)

    def test_names_come_out_as_the_same_text_whatever_their_character_set(self):
        names = {
            "ISO_IR 100": "Müller^Jörg",
            "ISO_IR 101": "Łukasz^Żółć",
            "ISO_IR 144": "Люк^Иван",
            "ISO_IR 126": "Διονυσιος",
            "ISO_IR 127": "قباني^لنزار",
            "ISO_IR 166": "สมชาย",
            "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
            "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞",
            "GB18030": "Wang^XiaoDong=王^小东",
            "GBK": "Wang^XiaoDong=王^小东",
            "": "Plain^Name",
            "ISO_IR 6": "Plain^Name",
            "ISO_IR 192": "Łukasz^山田",
        }
        folder = self.series()
        for charset, name in names.items():
            with self.subTest(charset):
                for file in folder.glob("000*.dcm"):
                    change(file, SpecificCharacterSet=charset.split("\\") if charset else "", PatientName=name)
                source = read_source(series_at(folder))
                self.assertEqual(source.images[0].PatientName, name)
                self.assertNotIn("PatientName", " ".join(source.notes))
        for dataset in self.written(folder)[:2]:
            self.assertEqual((str(dataset.PatientName), dataset.SpecificCharacterSet), (name, "ISO_IR 192"))

    def test_a_name_in_another_character_set_than_it_says_is_left_empty(self):
        folder = self.series(PatientName="Mxller")
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes().replace(b"Mxller", b"M\xfcller"))
        seg, _, notes = self.written(folder)
        self.assertEqual(str(seg.PatientName), "")
        self.assertIn("PatientName is not in the character set", " ".join(notes))


class TestRefusals(HeadersTest):
    def test_what_cannot_be_mended_is_refused_by_name(self):
        self.assert_refused(self.series(SOPInstanceUID="1.2.3"), "SOPInstanceUID")
        self.assert_refused(self.series(StudyInstanceUID=None), "StudyInstanceUID")
        self.assert_refused(self.series(SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), "not CT images")
        self.assert_refused(self.series(first_only=True, PatientName="Other^Name"), "another PatientName")


class TestIdentity(HeadersTest):
    def test_nothing_but_the_allow_list_gets_through(self):
        folder = self.series()
        for file in folder.iterdir():
            mark_dicom(file)
        for dataset in self.written(folder)[:2]:
            marked = {}
            for element in dataset.iterall():
                value = "" if element.VR == "SQ" else str(element.value)
                # By chance a UID may hold the digits of a marked date.
                if UID_ROOT in value or (element.VR != "UI" and marks_in(value.encode())):
                    marked.setdefault(element.keyword, value)
            self.assertLessEqual(set(marked), {*REQUIRED, *OPTIONAL, *UIDS})
            # The marks are there: the patient's own data are in the patient's objects.
            self.assertIn(MARK, marked["PatientName"])
            self.assertTrue(marked["StudyInstanceUID"].startswith(UID_ROOT))

    def test_the_codes_of_a_deidentification_stay_and_nothing_beside_them(self):
        code = pydicom.Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Profile"
        code.InstitutionName = "Hospital"
        folder = self.series(PatientIdentityRemoved="YES", DeidentificationMethodCodeSequence=[code])
        for dataset in self.written(folder)[:2]:
            (kept,) = dataset.DeidentificationMethodCodeSequence
            self.assertEqual(sorted(element.keyword for element in kept), ["CodeMeaning", "CodeValue", "CodingSchemeDesignator"])
            self.assertEqual(dataset.PatientIdentityRemoved, "YES")


if __name__ == "__main__":
    unittest.main()
