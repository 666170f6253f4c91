"""The whole module as a reader uses it: from a CT to decisions that are saved, through the real window."""

import functools
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from helpers.forked_command import forked_jobs
from helpers.marks import slow
from helpers.placed_chest import LESIONS, chest_ct
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.resources import MODELS_VARIABLE
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

ROOT = Path(__file__).resolve().parents[3]


class WholeModuleTestCase(ModuleTestCase):
    """``self.widget`` is the module, opened, with the model "threshold" among its models."""

    def setUp(self):
        super().setUp()
        self.enterContext(forked_jobs())
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        models = self.folder / "models"
        write_threshold_bundle(models / "threshold", min_volume_mm3=30.0)
        self.enterContext(mock.patch.dict(os.environ, {MODELS_VARIABLE: str(models)}))
        self.widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")

    def add_ct(self, name="CT", middle_lps_mm=(0.0, 0.0, 0.0)):
        from NLSTSegLib.scene.volumes import volume_node_of_ct

        return volume_node_of_ct(chest_ct(np.eye(3), middle_lps_mm=middle_lps_mm), self.scene, name)

    def choose_ct(self, volume_node):
        self.widget.input.ui.volumeSelector.setCurrentNode(volume_node)
        host.process_events()

    def choose_model(self):
        ui = self.widget.input.ui
        names = [ui.modelComboBox.itemText(n) for n in range(ui.modelComboBox.count)]
        ui.modelComboBox.currentIndex = next(n for n, name in enumerate(names) if name.startswith("threshold"))
        if ui.acceptModelButton.isVisible():
            host.click(ui.acceptModelButton)

    def apply(self):
        host.click(self.widget.run.ui.applyButton)
        host.process_events(until=lambda: not self.widget.run.is_running)
        # The table follows a little later.
        host.process_events(until=lambda: not self.widget.lesions._gather.active)

    def run_on(self, volume_node):
        self.choose_ct(volume_node)
        self.choose_model()
        self.apply()
        return self.widget.lesions.segmentation_node

    @property
    def rows(self):
        return self.widget.lesions._table.rows


class JourneyTest(WholeModuleTestCase):
    def test_apply_says_why_it_cannot_be_pressed_until_it_can(self):
        button = self.widget.run.ui.applyButton
        self.assertFalse(button.enabled)
        self.assertIn("CT", button.toolTip)
        self.choose_ct(self.add_ct())
        self.choose_model()
        self.assertTrue(button.enabled, button.toolTip)

    def test_the_sample_ct_is_offered_while_there_is_none(self):
        from NLSTSegLib.widgets import input_panel

        inputs = self.widget.input
        coarse = functools.partial(input_panel.make_phantom, spacing_ijk_mm=(4.0, 4.0, 4.0))
        self.enterContext(mock.patch.object(input_panel, "make_phantom", coarse))
        host.click(inputs.ui.phantomButton)
        host.process_events()
        self.assertEqual(inputs.volume_node.GetName(), "Phantom")
        self.assertFalse(inputs.ui.phantomButton.isVisible())
        shown = self.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()
        self.assertEqual(shown, inputs.volume_node.GetID())

    def test_the_ct_that_was_loaded_last_is_taken_when_the_module_is_opened(self):
        ct = self.add_ct()
        self.widget.exit()
        self.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(ct.GetID())
        self.widget.enter()
        self.assertIs(self.widget.input.volume_node, ct)

    def test_lesions_are_found_in_place_reviewed_and_exported(self):
        ct = self.add_ct()
        node = self.run_on(ct)
        self.assertEqual(len(self.rows), len(LESIONS))
        self.assertIs(self.widget.segmentations.widget.currentNode(), node)
        self.assertTrue(self.widget.inputSection.collapsed, "the table takes its place")
        # The largest is selected; its centre is where the chest has it.
        lesions = self.widget.lesions
        first = self.rows[0]
        centre_ras_mm = np.array(node.GetSegmentCenterRAS(first["segment"]))
        np.testing.assert_allclose(centre_ras_mm * (-1, -1, 1), LESIONS[0][0], atol=2.0)
        host.click(lesions.ui.acceptButton)
        host.click(lesions.ui.rejectButton)
        host.process_events(until=lambda: "rejected" in lesions.ui.summaryLabel.text)
        self.assertEqual([row["status"] for row in self.rows], ["accepted", "rejected", "new"])
        self.assertEqual([row["side"] for row in self.rows], ["right", "left", "left"])
        self.talk.answer(True, str(self.folder))
        host.click(self.widget.export.ui.reviewButton)
        written = sorted(path.name for path in next(self.folder.glob("*lesions*")).iterdir())
        self.assertEqual(written, ["audit.csv", "labels.nii.gz", "lesions.csv", "segmentation.seg.nrrd"])

    def test_a_second_run_comes_beside_what_was_reviewed(self):
        node = self.run_on(self.add_ct())
        host.click(self.widget.lesions.ui.acceptButton)
        self.apply()
        self.assertIs(self.widget.lesions.segmentation_node, node)
        self.assertTrue(self.widget.lesions.ui.laterRunBox.isVisible())
        self.assertEqual(self.rows[0]["status"], "accepted")

    def test_options_that_are_not_the_models_own_are_said_beside_apply_and_taken_back_by_a_click(self):
        self.choose_ct(self.add_ct())
        self.choose_model()
        run, inputs = self.widget.run.ui, self.widget.input.ui
        self.assertFalse(run.ownOptionsLabel.isVisible() or run.modelsOwnButton.isVisible())
        inputs.minimumVolumeSpinBox.value = 90000
        inputs.thresholdSpinBox.value = 0.9
        self.assertEqual(run.ownOptionsLabel.text, "Not the model's own: threshold 0.90, smallest lesion 90000 mm³")
        host.click(run.modelsOwnButton)
        options = self.widget.input.options()
        self.assertEqual((options.threshold, options.min_volume_mm3), (None, None))
        self.assertFalse(run.modelsOwnButton.isVisible())

    def test_a_second_run_replaces_the_view_of_an_untouched_one_and_keeps_it(self):
        first = self.run_on(self.add_ct())
        self.apply()
        second = self.widget.lesions.segmentation_node
        self.assertIsNot(first, second)
        self.assertIs(self.scene.GetNodeByID(first.GetID()), first)


class WidthTest(WholeModuleTestCase):
    def test_panel_fits_into_300_pixels_with_every_section_open_and_a_large_font(self):
        import qt
        import slicer

        if host.inside_slicer():
            self.skipTest("the font is Slicer's")
        font = qt.QApplication.font()
        self.addCleanup(qt.QApplication.setFont, font)
        for scale in (1.0, 1.75):
            with self.subTest(scale=scale):
                host.close_module(self.widget)
                larger = qt.QFont(font)
                larger.setPointSizeF(font.pointSizeF() * scale)
                qt.QApplication.setFont(larger)
                self.widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
                self.choose_ct(self.add_ct("a CT with a name that is much longer than the panel is wide"))
                for section in slicer.util.findChildren(self.widget.parent, className="ctkCollapsibleButton"):
                    section.collapsed = False
                host.process_events()
                self.assertLessEqual(self.widget.parent.minimumSizeHint.width(), 300)


class TwoCtsTest(WholeModuleTestCase):
    def test_the_lesions_follow_the_ct_and_the_ct_the_lesions(self):
        one, other = self.add_ct("one"), self.add_ct("other", (0.0, 0.0, 40.0))
        of_one, of_other = self.run_on(one), self.run_on(other)
        selector, inputs = self.widget.segmentations.widget, self.widget.input
        self.choose_ct(one)
        self.assertIs(selector.currentNode(), of_one)
        self.assertIs(self.widget.lesions.segmentation_node, of_one)
        selector.setCurrentNode(of_other)
        host.process_events()
        self.assertIs(inputs.volume_node, other)
        self.choose_ct(self.add_ct("third"))
        self.assertIsNone(selector.currentNode())
        self.assertIsNone(self.widget.lesions.segmentation_node)

    def test_result_of_another_ct_waits_and_nothing_of_it_is_shown_before(self):
        one, other = self.add_ct("one"), self.add_ct("other", (0.0, 0.0, 40.0))
        of_other = self.run_on(other)
        lesions, run = self.widget.lesions, self.widget.run.ui
        self.choose_ct(one)
        self.assertNotIn("other", run.statusLabel.text + lesions.ui.summaryLabel.text)
        host.click(run.applyButton)
        self.choose_ct(other)
        host.process_events(until=lambda: not self.widget.run.is_running)
        self.assertIs(lesions.segmentation_node, of_other)
        self.assertIn("other: 3 lesions were found", run.statusLabel.text)
        self.assertEqual(run.readyButton.text, "one is ready: show")
        shown = self.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()
        self.assertEqual(shown, other.GetID())
        host.click(run.readyButton)
        self.assertIs(self.widget.input.volume_node, one)
        self.assertIn("one: 3 lesions were found", run.statusLabel.text)
        self.assertIn("one: 3 lesions: 3 new", lesions.ui.summaryLabel.text)
        self.assertFalse(run.readyButton.isVisible() or of_other.GetDisplayNode().GetVisibility())
        host.click(lesions.ui.acceptButton)
        self.assertEqual(self.rows[0]["status"], "accepted", "the first lesion is shown")

    def test_later_run_that_ends_while_another_ct_is_read_comes_beside_the_touched_review(self):
        one, other = self.add_ct("one"), self.add_ct("other", (0.0, 0.0, 40.0))
        touched = self.run_on(one)
        host.click(self.widget.lesions.ui.acceptButton)
        host.click(self.widget.run.ui.applyButton)
        self.choose_ct(other)
        host.process_events(until=lambda: not self.widget.run.is_running)
        for _ in range(2):
            self.choose_ct(one)
            self.assertIs(self.widget.lesions.segmentation_node, touched)
            self.assertEqual(self.rows[0]["status"], "accepted")
            self.assertTrue(self.widget.lesions.ui.laterRunBox.isVisible())
            self.choose_ct(other)

    def test_sentence_on_a_result_goes_with_its_ct_and_with_the_scene(self):
        one = self.add_ct("one")
        of_one = self.run_on(one)
        run, lesions = self.widget.run.ui, self.widget.lesions.ui
        self.assertIn("one: 3 lesions were found (threshold 0.5, smallest volume 30 mm³", run.statusLabel.text)
        self.choose_ct(self.add_ct("two"))
        self.assertEqual((run.statusLabel.text, lesions.summaryLabel.text), ("", ""))
        self.assertFalse(of_one.GetDisplayNode().GetVisibility())
        self.choose_ct(one)
        self.assertTrue(of_one.GetDisplayNode().GetVisibility())
        self.assertIn("one: 3 lesions were found", run.statusLabel.text)
        self.scene.Clear()
        host.process_events()
        self.assertEqual((run.statusLabel.text, lesions.summaryLabel.text), ("", ""))

    def test_a_segmentation_of_another_grid_is_refused_in_a_sentence(self):
        self.choose_ct(self.add_ct())
        stranger = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "stranger")
        stranger.GetSegmentation().AddEmptySegment("a", "a")
        self.choose_ct(None)
        self.widget.segmentations.widget.setCurrentNode(stranger)
        host.process_events()
        (sentence,) = self.talk.texts("error")
        self.assertIn("stranger", sentence)
        self.assertIsNone(self.widget.lesions.segmentation_node)


class SceneTest(WholeModuleTestCase):
    def test_a_saved_scene_brings_ct_lesions_and_decisions_back(self):
        import slicer

        self.run_on(self.add_ct())
        host.click(self.widget.lesions.ui.acceptButton)
        host.process_events(until=lambda: "accepted" in self.widget.lesions.ui.summaryLabel.text)
        file = str(self.folder / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(file))
        self.scene.Clear()
        host.process_events()
        self.assertIsNone(self.widget.input.volume_node)
        self.assertEqual(list(self.rows), [])
        slicer.util.loadScene(file)
        host.process_events(until=lambda: len(self.rows) == len(LESIONS))
        self.assertEqual([row["status"] for row in self.rows], ["accepted", "new", "new"])
        self.assertEqual(self.widget.input.volume_node.GetName(), "CT")

    def test_a_scene_that_is_closed_during_a_run_ends_it(self):
        self.choose_ct(self.add_ct())
        self.choose_model()
        host.click(self.widget.run.ui.applyButton)
        self.scene.Clear()
        host.process_events(until=lambda: not self.widget.run.is_running)
        self.assertIn("scene", self.widget.run.ui.statusLabel.text)
        self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def test_reload_opens_it_again_on_the_same_ct(self):
        import slicer

        # The library is imported anew; the other tests go on with the one that they have.
        self.enterContext(mock.patch.dict(sys.modules))
        ct = self.add_ct()
        self.choose_ct(ct)
        self.widget.onReload()
        again = slicer.util.getModuleWidget("NLSTSeg")
        self.assertIsNot(again, self.widget)
        self.assertIs(again.input.volume_node, ct)

    def test_reload_during_a_run_ends_it(self):
        import slicer

        self.enterContext(mock.patch.dict(sys.modules))
        self.choose_ct(self.add_ct())
        self.choose_model()
        host.click(self.widget.run.ui.applyButton)
        self.assertTrue(self.widget.run.is_running)
        self.widget.onReload()
        self.assertFalse(self.widget.run.is_running)
        self.assertFalse(slicer.util.getModuleWidget("NLSTSeg").run.is_running)


class ScriptTest(WholeModuleTestCase):
    def test_process_needs_no_panel_and_its_progress_stops_it(self):
        import slicer

        from NLSTSegLib.jobs.options import RunOptions

        logic, ct = slicer.modules.NLSTSegWidget.logic, self.add_ct()
        options = RunOptions(model=str(self.folder / "models" / "threshold"), device="cpu", threads=1)
        seen = []
        node = logic.process(ct, options=options, progress=lambda fraction, stage: seen.append(fraction))
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), len(LESIONS))
        self.assertEqual(seen, sorted(seen))

        def stop(fraction, stage):
            raise InterruptedError

        with self.assertRaises(InterruptedError):
            logic.process(ct, options=options, progress=stop)
        self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 2)

    @slow
    def test_the_self_test_of_the_module_passes(self):
        import NLSTSeg

        done = unittest.TestResult()
        NLSTSeg.NLSTSegTest("test_phantom").run(done)
        self.assertEqual((done.errors, done.failures, done.skipped), ([], [], []))


if __name__ == "__main__":
    unittest.main()
