"""The panel of DICOM SEG and SR: real clicks, files read back; Slicer's database of DICOM files is a stand-in."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom

from helpers.dicom_files import write_series
from helpers.example_results import oblique_direction
from helpers.mrml_nodes import add_volume
from helpers.review_scene import begin, ct_with_balls, soft_result, voxels_of
from NLSTSegLib.dicom.read_seg import read_seg
from NLSTSegLib.dicom.sr import read_numbers
from NLSTSegLib.reading.dicom_folder import list_series
from NLSTSegLib.review.state import Origin, Status
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.volume.ct import CtVolume
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase
from slicer_stand_in.dicom_database import dicom_database

ROOT = Path(__file__).resolve().parents[3]


def turned_round(ct: CtVolume) -> CtVolume:
    """The same CT with its slices in the other order, as a reader may have it."""
    direction = ct.direction_matrix * [1, 1, -1]
    origin = tuple(ct.lps_from_ijk_mm(np.array([0, 0, len(ct.hu) - 1])).tolist())
    return replace(ct, hu=ct.hu[::-1].copy(), origin_lps_mm=origin, direction_lps=tuple(direction.ravel().tolist()))


class DicomTestCase(ModuleTestCase):
    """A CT from DICOM files that the database knows, in the scene with its slices turned round, and a review of it."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "database").mkdir()
        self.database = self.enterContext(dicom_database(self.folder / "database"))
        self.of_files = ct_with_balls(direction_lps=oblique_direction())
        self.write_series("ct", self.of_files.hu)
        (self.series,) = list_series(self.folder / "ct")
        self.ct = turned_round(self.of_files)
        self.volume_node = self.add_ct(known=True)
        self.node = begin(soft_result(self.ct), self.volume_node)
        self.node.SetName("CT: lesions")

    def write_series(self, name: str, hu: np.ndarray) -> None:
        orientation = self.of_files.direction_matrix[:, :2].T.ravel().tolist()
        place = (self.of_files.spacing_ijk_mm, self.of_files.origin_lps_mm, orientation)
        write_series(self.folder / name, hu, *place, PatientName="Doe^Jane", FrameOfReferenceUID="1.2.3")

    def add_ct(self, known: bool):
        node = add_volume(self.ct)
        node.CreateDefaultDisplayNodes()
        if known:
            node.SetAttribute("DICOM.instanceUIDs", " ".join(one.sop_uid for one in self.series.slices))
            self.database.files.update({one.sop_uid: one.path for one in self.series.slices})
        return node

    def seg_of(self, *places: Path) -> tuple[Path, Path]:
        """SEG and SR among the files there."""
        files = sorted(file for place in places for file in place.rglob("*.dcm"))
        kinds = {pydicom.dcmread(file, stop_before_pixels=True).Modality: file for file in files}
        return kinds["SEG"], kinds["SR"]

    def voxels_on_series(self, node, segment: str) -> np.ndarray:
        """``[k, j, i]`` in the order of the files."""
        return voxels_of(node, self.ct.hu.shape)[segment][::-1]


class TestDicomPanel(DicomTestCase):
    def setUp(self):
        super().setUp()
        import qt

        from NLSTSegLib.widgets.dicom_panel import DicomPanel
        from NLSTSegLib.widgets.lesion_panel import READER_KEY
        from NLSTSegLib.widgets.settings import save_setting

        save_setting(READER_KEY, "Reader^First")
        self.editor = LesionEditor(self.node)
        self.addCleanup(self.editor.close)
        self.editor.decide(["Lesion_01", "Lesion_03"], Status.ACCEPTED, "Dr. A")
        self.editor.decide(["Lesion_02"], Status.REJECTED, "Dr. A")
        self.opened = []
        self.chosen = self.volume_node
        self.panel = DicomPanel(lambda: self.chosen, self.opened.append)
        self.ui = self.panel.ui
        self.window = qt.QWidget()
        qt.QVBoxLayout(self.window).addWidget(self.panel.widget)
        self.window.resize(480, 200)
        self.window.show()
        self.addCleanup(self.window.close)
        self.panel.show(self.node)

    def click(self, button: str, *answers: object) -> str:
        self.talk.answer(*answers)
        host.click(getattr(self.ui, button))
        self.assertEqual(self.talk.answers, [])
        return self.ui.resultLabel.text

    def export(self) -> tuple[Path, Path]:
        text = self.click("folderButton", str(self.folder))
        self.assertIn("SEG and SR (lesions: 2) are in", text)
        return self.seg_of(self.folder / "CT_ lesions DICOM")

    def test_buttons_say_what_is_missing(self):
        self.chosen = None
        self.panel.show(None)
        for button, words in (
            ("openButton", "choose the CT"),
            ("folderButton", "segmentation"),
            ("databaseButton", "segmentation"),
        ):
            self.assertFalse(getattr(self.ui, button).enabled)
            self.assertIn(words, getattr(self.ui, button).toolTip)
        self.assertIn("patient's name", self.ui.identityLabel.text)

    def test_a_review_becomes_a_folder_with_seg_and_sr(self):
        seg, report = self.export()
        read = read_seg(seg, self.series)
        self.assertEqual([segment.name for segment in read.segments], ["Lesion 01", "Lesion 03"])
        for label, segment in enumerate(("Lesion_01", "Lesion_03"), start=1):
            np.testing.assert_array_equal(read.labels == label, self.voxels_on_series(self.node, segment))
        self.assertEqual([segment.algorithm_type for segment in read.segments], ["AUTOMATIC", "AUTOMATIC"])
        from NLSTSegLib.review.folder import table_rows
        from NLSTSegLib.scene.sizes import reviewed_case

        rows = [row for row in table_rows(reviewed_case(self.node)) if row["label"]]
        for numbers, row in zip(read_numbers(report), rows, strict=True):
            self.assertEqual({column: float(row[column]) for column in numbers}, numbers)
        said = pydicom.dcmread(report)
        self.assertEqual([item.PersonName for item in said.ContentSequence if item.ValueType == "PNAME"], ["Reader^First"])
        self.assertEqual(str(said.PatientName), "Doe^Jane")
        self.assertIn("AccessionNumber is missing, written empty", self.ui.resultLabel.text)

    def test_the_database_takes_both(self):
        text = self.click("databaseButton")
        self.assertIn("SEG and SR (lesions: 2) are in Slicer's DICOM database.", text)
        seg, _ = self.seg_of(self.folder / "database")
        self.assertEqual(len(read_seg(seg, self.series).segments), 2)

    def test_a_database_that_does_not_take_them_or_is_closed_is_told(self):
        self.database.takes_files = False
        self.assertIn("did not take lesions.seg.dcm", self.click("databaseButton"))
        self.database.isOpen = False
        self.assertIn("is not open", self.click("databaseButton", str(self.folder / "ct")))

    def test_files_that_no_database_knows_are_asked_for_and_must_be_those_of_the_ct(self):
        self.database.files.clear()
        self.write_series("other", self.of_files.hu + 40)
        (self.folder / "out").mkdir()
        answers = (str(self.folder / "other"), str(self.folder / "out"))
        self.assertIn("not that of the DICOM files", self.click("folderButton", *answers))
        self.assertEqual(list((self.folder / "out").iterdir()), [])
        self.assertEqual(self.click("folderButton", ""), "")
        text = self.click("folderButton", str(self.folder / "ct"), str(self.folder / "out"))
        self.assertIn("SEG and SR (lesions: 2) are in", text)

    def test_undecided_lesions_are_not_written_against_the_readers_will(self):
        self.editor.decide(["Lesion_03"], Status.NEW)
        self.assertEqual(self.click("folderButton", False), "")
        self.assertEqual(self.talk.texts("question"), ["1 of 3 lesions are undecided. Write them as they are?"])

    def test_a_seg_becomes_a_review_of_the_ct_and_keeps_its_tracking(self):

        self.editor.close()
        seg, _ = self.export()
        before = pydicom.dcmread(seg)
        text = self.click("openButton", str(seg))
        (node,) = self.opened
        self.assertEqual(text, f"The SEG (segments: 2) is the review '{node.GetName()}'.")
        voxels = voxels_of(node, self.ct.hu.shape)
        np.testing.assert_array_equal(voxels["Lesion_02"], voxels_of(self.node, self.ct.hu.shape)["Lesion_03"])
        state = lesion_state(node, "Lesion_01")
        self.assertEqual((state.status, state.origin, state.score), (Status.NEW, Origin.MODEL, self.score("Lesion_01")))
        self.assertEqual((state.model, state.weights_sha256), ("x published", "ab" * 32))
        self.assertIs(node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()), self.volume_node)
        editor = LesionEditor(node)
        self.addCleanup(editor.close)
        editor.decide(["Lesion_01", "Lesion_02"], Status.ACCEPTED)
        self.panel.show(node)
        self.click("folderButton", str(self.folder))
        after = pydicom.dcmread(self.seg_of(self.folder / f"{node.GetName()} DICOM")[0])
        for one, other in zip(before.SegmentSequence, after.SegmentSequence, strict=True):
            self.assertEqual(
                (one.TrackingUID, one.SegmentLabel, one.SegmentAlgorithmType),
                (other.TrackingUID, other.SegmentLabel, other.SegmentAlgorithmType),
            )

    def score(self, segment: str) -> float | None:
        return lesion_state(self.node, segment).score

    def test_a_seg_of_another_ct_and_other_files_are_refused_in_a_sentence(self):
        seg, report = self.export()
        self.assertIn("is not a DICOM SEG but of modality 'SR'", self.click("openButton", str(report)))
        data = pydicom.dcmread(seg)
        data.StudyInstanceUID, data.FrameOfReferenceUID = "1.2", "1.9"
        del data.ReferencedSeriesSequence
        data.save_as(self.folder / "other.dcm")
        self.assertIn("of another CT", self.click("openButton", str(self.folder / "other.dcm")))
        self.assertEqual(self.click("openButton", ""), "")
        self.assertEqual(self.opened, [])


class TestInTheModule(DicomTestCase):
    def test_a_seg_is_opened_and_exported_by_clicks_in_the_module(self):
        widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
        ui = widget.dicom.ui
        widget.dicom.widget.parent().collapsed = False
        self.assertFalse(ui.folderButton.enabled)
        widget.segmentations.widget.setCurrentNode(self.node)
        self.talk.answer(True, str(self.folder))
        host.click(ui.folderButton)
        seg, _ = self.seg_of(self.folder / "CT_ lesions DICOM")
        self.talk.answer(str(seg))
        host.click(ui.openButton)
        self.assertEqual(ui.resultLabel.text, "The SEG (segments: 3) is the review 'CT SEG'.")
        self.assertEqual(widget.lesions.segmentation_node.GetName(), "CT SEG")
        self.assertEqual(widget.lesions.ui.lesionTable.rowCount, 3)


if __name__ == "__main__":
    unittest.main()
