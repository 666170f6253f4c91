"""The export panel: real clicks, files read back, nothing overwritten."""

import csv
import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.mrml_nodes import add_volume
from helpers.review_scene import begin, ct_with_balls, soft_result, voxels_of
from NLSTSegLib.disk.free_name import new_folder
from NLSTSegLib.review.state import Status
from NLSTSegLib.scene.editor import LesionEditor
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

ROOT = Path(__file__).resolve().parents[3]


class TestExportPanel(ModuleTestCase):
    """A review of three lesions: the first accepted, the second rejected, the third still new."""

    def setUp(self):
        super().setUp()
        import qt

        from NLSTSegLib.widgets.export_panel import ExportPanel

        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.ct = ct_with_balls()
        self.volume_node = add_volume(self.ct)
        self.node = begin(soft_result(self.ct), self.volume_node)
        self.node.SetName("CT: lesions")
        self.editor = LesionEditor(self.node)
        self.addCleanup(self.editor.close)
        self.editor.decide(["Lesion_01"], Status.ACCEPTED, "Dr. A")
        self.editor.decide(["Lesion_02"], Status.REJECTED, "Dr. A")
        self.panel = ExportPanel()
        self.ui = self.panel.ui
        self.window = qt.QWidget()
        qt.QVBoxLayout(self.window).addWidget(self.panel.widget)
        self.window.resize(480, 200)
        self.window.show()
        self.addCleanup(self.window.close)
        self.addCleanup(self.panel.close)

    def export_review(self, *answers: bool) -> str:
        self.talk.answer(*(answers or (True,)), str(self.folder))
        host.click(self.ui.reviewButton)
        return self.ui.resultLabel.text

    def export_training_case(self, name: str, *answers: str) -> str:
        self.talk.answer(*answers)
        self.ui.caseIdEdit.text = name
        host.click(self.ui.trainingCaseButton)
        return self.ui.resultLabel.text

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))

    def test_without_a_segmentation_the_buttons_say_why_they_are_disabled(self):
        for node in (None, self.node, None):
            self.panel.show(node)
            self.assertEqual(self.ui.reviewButton.enabled, node is not None)
            self.assertFalse(self.ui.trainingCaseButton.enabled)
            wanted = "name the case" if node else "choose a segmentation"
            self.assertIn(wanted, self.ui.trainingCaseButton.toolTip)
        self.ui.caseIdEdit.text = "a"
        self.assertFalse(self.ui.trainingCaseButton.enabled)
        self.panel.show(self.node)
        self.ui.caseIdEdit.text = "a"
        self.assertTrue(self.ui.trainingCaseButton.enabled)

    def test_review_is_one_new_folder_with_everything(self):
        self.panel.show(self.node)
        text = self.export_review()
        folder = self.folder / "CT_ lesions"
        self.assertEqual(text, f"The review (lesions: 2, undecided: 1, rejected or empty: 1) is in {folder}")
        self.assertTrue(self.ui.resultLabel.visible)
        self.assertEqual(
            {path.name for path in folder.iterdir()}, {"labels.nii.gz", "lesions.csv", "audit.csv", "segmentation.seg.nrrd"}
        )
        labels = sitk.GetArrayFromImage(sitk.ReadImage(folder / "labels.nii.gz"))
        voxels = voxels_of(self.node, self.ct.hu.shape)
        np.testing.assert_array_equal(labels, voxels["Lesion_01"] + 2 * voxels["Lesion_03"])
        with open(folder / "audit.csv", newline="", encoding="utf-8") as file:
            rows = [(row["lesion"], row["status"], row["reader"]) for row in csv.DictReader(file)]
        self.assertEqual(rows, [("Lesion 01", "accepted", "Dr. A"), ("Lesion 02", "rejected", "Dr. A"), ("Lesion 03", "new", "")])
        question = "1 of 3 lesions are undecided. Export them as they are? Every file says so."
        self.assertEqual(self.talk.texts("question"), [question])
        with open(folder / "lesions.csv", newline="", encoding="utf-8") as file:
            self.assertEqual([row["status"] for row in csv.DictReader(file)], ["accepted", "rejected", "new"])
        note = sitk.ReadImage(folder / "labels.nii.gz").GetMetaData("ITK_FileNotes")
        self.assertEqual(note, "1 new (undecided), 1 accepted, 1 rejected")
        header = (folder / "segmentation.seg.nrrd").read_bytes().partition(b"\n\n")[0]
        self.assertEqual([header.count(b"NLSTSeg.Status:" + each) for each in (b"new", b"accepted", b"rejected")], [1, 1, 1])
        self.assertFalse(self.ui.progressBar.visible)

    def test_undecided_lesions_are_not_exported_against_the_readers_will(self):
        self.panel.show(self.node)
        self.talk.answer(False)
        host.click(self.ui.reviewButton)
        self.assertEqual((self.names(), self.ui.resultLabel.text), ([], ""))

    def test_nothing_is_asked_where_all_are_decided_on_and_the_bar_moves(self):
        self.editor.decide(["Lesion_03"], Status.ACCEPTED)
        self.panel.show(self.node)
        moved = []
        self.ui.progressBar.connect("valueChanged(int)", moved.append)
        self.talk.answer(str(self.folder))
        host.click(self.ui.reviewButton)
        self.assertEqual(self.talk.texts("question"), [])
        self.assertEqual((moved, moved[-1]), (sorted(moved), 100))
        self.assertGreater(len(moved), 4)

    def test_review_written_again_gets_a_folder_of_its_own(self):
        self.panel.show(self.node)
        self.export_review()
        before = {path: path.read_bytes() for path in self.folder.rglob("*.*")}
        self.editor.decide(["Lesion_03"], Status.REJECTED, "Dr. A")
        self.talk.answer(str(self.folder))
        host.click(self.ui.reviewButton)
        where = self.folder / "CT_ lesions 2"
        self.assertEqual(self.ui.resultLabel.text, f"The review (lesions: 1, undecided: 0, rejected or empty: 2) is in {where}")
        self.assertEqual({path: path.read_bytes() for path in before}, before)

    def test_training_case_is_ct_and_mask(self):
        self.editor.decide(["Lesion_03"], Status.ACCEPTED)
        self.panel.show(self.node)
        text = self.export_training_case("100012", str(self.folder))
        self.assertEqual(text, f"The training case (lesions: 2) is in {self.folder / '100012'}")
        self.assertEqual(self.names(), ["100012", "100012/100012_CT.nii.gz", "100012/100012_tumor.nii.gz"])
        ct, mask = (sitk.GetArrayFromImage(sitk.ReadImage(self.folder / name)) for name in self.names()[1:])
        voxels = voxels_of(self.node, self.ct.hu.shape)
        np.testing.assert_array_equal(ct, self.ct.hu)
        np.testing.assert_array_equal(mask, voxels["Lesion_01"] + 2 * voxels["Lesion_03"])
        self.assertIn("There is a training case", self.export_training_case("100012", str(self.folder)))

    def test_faults_of_a_training_case_are_told_before_a_folder_is_asked_for(self):
        self.panel.show(self.node)
        self.assertIn("1 lesion(s) of 'CT: lesions' are still new ('Lesion 03')", self.export_training_case("a"))
        self.assertIn("'a b' cannot name a training case", self.export_training_case("a b"))
        self.assertEqual((self.talk.messages, self.names()), ([], []))

    def test_cancelled_choice_of_the_folder_writes_and_says_nothing(self):
        self.editor.decide(["Lesion_03"], Status.ACCEPTED)
        self.panel.show(self.node)
        self.talk.answer("")
        host.click(self.ui.reviewButton)
        self.assertEqual(self.export_training_case("a", ""), "")
        self.assertFalse(self.ui.resultLabel.visible)
        self.assertEqual((len(self.talk.texts("file")), self.names()), (2, []))

    def test_errors_are_one_sentence_and_the_panel_stays_usable(self):
        self.panel.show(self.node)
        (self.folder / "file").write_text("x")
        self.talk.answer(True, str(self.folder / "file"))
        host.click(self.ui.reviewButton)
        self.assertRegex(self.ui.resultLabel.text, "cannot be made: .* is not a folder; choose another place\\.$")
        self.assertTrue(self.panel.widget.enabled)
        self.scene.RemoveNode(self.volume_node)
        host.click(self.ui.reviewButton)
        self.assertIn("CT", self.ui.resultLabel.text)
        self.assertEqual(self.names(), ["file"])

    def test_another_segmentation_takes_name_and_message_away(self):
        self.panel.show(self.node)
        self.export_review()
        self.ui.caseIdEdit.text = "patient-1"
        self.panel.show(self.node)
        self.assertEqual(self.ui.caseIdEdit.text, "patient-1")
        self.panel.show(begin(soft_result(self.ct), self.volume_node))
        self.assertEqual((self.ui.caseIdEdit.text, self.ui.resultLabel.text), ("", ""))
        self.assertFalse(self.ui.trainingCaseButton.enabled)

    def test_chosen_folder_is_kept(self):
        from NLSTSegLib.widgets.export_panel import FOLDER_SETTING
        from NLSTSegLib.widgets.settings import setting

        self.panel.show(self.node)
        self.export_review()
        self.assertEqual(setting(FOLDER_SETTING, ""), str(self.folder))

    def test_long_paths_are_wrapped_and_do_not_widen_the_panel(self):
        self.folder = self.folder / "a folder with quite a long name/and_another_one_below_it_that_has_no_blank_in_it"
        self.folder.mkdir(parents=True)
        self.panel.show(self.node)
        self.export_review()
        self.assertLessEqual(self.panel.widget.minimumSizeHint.width(), 480 - 20)


class TestInTheModule(ModuleTestCase):
    def test_the_segmentation_that_is_shown_is_exported_until_the_scene_is_closed(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
        ui, ct = widget.export.ui, ct_with_balls()
        self.assertFalse(ui.reviewButton.enabled)
        first, second = (begin(soft_result(ct), add_volume(ct, name)) for name in ("One", "Two"))
        first.SetName("First")
        second.SetName("Second")
        for node in (second, first):
            widget.segmentations.widget.setCurrentNode(node)
            self.talk.answer(True, str(folder))
            host.click(ui.reviewButton)
            self.assertIn(f"is in {folder / node.GetName()}", ui.resultLabel.text)
        self.scene.Clear()
        self.assertEqual((ui.reviewButton.enabled, ui.resultLabel.text), (False, ""))
        self.assertEqual({path.name for path in folder.iterdir()}, {"First", "Second"})


class TestNewFolder(unittest.TestCase):
    def test_names_are_what_every_file_system_takes(self):
        parent = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name, wanted in (
            ("Chest 01 lesions", "Chest 01 lesions"),
            ("../a/b\\c:d*?", "___a_b_c_d__"),
            ("胸部 Lékař", "胸部 Lékař"),
            (" . ", "_"),
            ("", "_"),
            ("x" * 200, "x" * 80),
        ):
            with self.subTest(name=name):
                self.assertEqual(new_folder(parent, name), parent / wanted)

    def test_taken_names_get_a_number(self):
        parent = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for wanted in ("a", "a 2", "a 3"):
            folder = new_folder(parent, "a")
            self.assertEqual(folder, parent / wanted)
            folder.mkdir()
