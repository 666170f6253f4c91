"""The run as a user sees it: Apply, progress, Cancel, errors, and a scene that changes meanwhile."""

import os
import re
import signal
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from helpers.child_processes import (
    as_urgent_as_the_tests,
    child_with,
    children_with,
    living_processes,
    long_ct,
    own_temporary_folder,
    wait_until,
)
from helpers.placed_chest import chest_ct
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.remaining import duration_text
from NLSTSegLib.models.bundle import DEFAULT_MODEL
from NLSTSegLib.phantom.make import make_phantom
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

TESTING = Path(__file__).resolve().parents[2]


DURATION = r"\d+ (s|min|h|h \d+ min)"
"""In words; on a busy computer a run may take any time."""

NAME = "DOE^JANE thorax"
"""Of the CT: nothing that is copied may hold it."""


class RunTestCase(ModuleTestCase):
    """``self.panel`` in a window; it runs ``self.volume_node`` with ``self.options`` unless ``self.problems``."""

    @classmethod
    def setUpClass(cls):
        cls.bundle = Path(cls.enterClassContext(tempfile.TemporaryDirectory())) / "model"
        write_threshold_bundle(cls.bundle, min_volume_mm3=30.0)

    def setUp(self):
        super().setUp()
        self.temporary = own_temporary_folder(self)
        as_urgent_as_the_tests(self)
        self.problems, self.results, self.prepared = [], [], []
        self.options = RunOptions(model=str(self.bundle), device="cpu", threads=1)
        self.prepare = lambda: self.prepared.append(True)
        self.volume_node = self.add_ct(chest_ct(np.eye(3)))
        self.panel = self.open_panel()
        self.ui = self.panel.ui

    def add_ct(self, ct):
        from NLSTSegLib.scene.volumes import volume_node_of_ct

        return volume_node_of_ct(ct, self.scene, NAME)

    def open_panel(self):
        import qt

        from NLSTSegLib.widgets.run_panel import RunPanel

        panel = RunPanel(
            lambda: self.problems,
            lambda: (self.volume_node, self.options),
            lambda: self.prepare(),
            lambda segmentation_node, volume_node: self.results.append(segmentation_node),
            self.choose,
        )
        self.addCleanup(panel.close)
        self.window = qt.QWidget()
        self.addCleanup(self.window.deleteLater)
        column = qt.QVBoxLayout(self.window)
        column.addWidget(panel.widget)
        column.addStretch(1)
        self.window.resize(480, 420)
        self.window.show()
        panel.refresh()
        return panel

    def choose(self, volume_node):
        self.volume_node = volume_node
        self.panel.refresh()

    def use_long_ct(self):
        self.volume_node = self.add_ct(long_ct())

    def apply(self, until: str = "end") -> int:
        """Click Apply and wait until the run has "started", has "begun" to work or is at its "end".

        Returns the number of the child's process group; 0 where there was no run.
        """
        host.click(self.ui.applyButton)
        if not self.panel.is_running:
            return 0
        group = child_with("segment")
        if until == "begun":
            self.wait(lambda: not self.panel.is_running or self.ui.stageLabel.text != "Starting")
            self.assertTrue(self.panel.is_running, self.ui.statusLabel.text)
        elif until == "end":
            self.wait(lambda: not self.panel.is_running)
        return group

    def wait(self, until):
        host.process_events(until=until)

    def nodes(self) -> list[str]:
        return sorted(self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes()))

    def assert_nothing_left(self, group: int):
        self.assertFalse(self.panel.is_running)
        self.wait(lambda: not living_processes(group))
        self.assertEqual(os.listdir(self.temporary), [])

    def clipboard(self) -> str:
        import slicer

        return slicer.app.clipboard().text()


class TestRun(RunTestCase):
    def test_apply_shows_progress_hands_over_the_segmentation_and_shows_warnings(self):
        self.assertFalse(self.ui.progressWidget.visible)
        group = self.apply(until="started")
        self.assertEqual(self.prepared, [True])
        self.assertTrue(self.ui.cancelButton.visible)
        self.assertEqual(self.ui.stageLabel.text, "Starting")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertEqual(self.ui.applyButton.toolTip, "A run is under way.")
        self.wait(lambda: not self.panel.is_running)
        found = rf"^{re.escape(NAME)}: 3 lesions were found \(threshold 0\.5, smallest volume 30 mm³, {DURATION}\)\."
        self.assertRegex(self.ui.statusLabel.text, found)
        (node,) = self.results
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 3)
        self.assertFalse(self.ui.progressWidget.visible)
        self.assertFalse(self.ui.reportWidget.visible)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assert_nothing_left(group)

        self.volume_node = self.add_ct(chest_ct(np.eye(3), shape_kji=(24, 56, 60), spacing_ijk_mm=(3.0, 3.2, 6.0)))
        self.apply()
        self.assertEqual(len({id(node) for node in self.results}), 2, "a second run makes a second segmentation")
        self.assertRegex(self.ui.statusLabel.text, r"\n• The slices are 6\.00 mm apart, .* Give the thin-slice")

    def test_tooltip_lists_every_reason(self):
        self.problems = ["Choose a CT first.", "Choose a model first."]
        self.panel.refresh()
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertEqual(self.ui.applyButton.toolTip, "Choose a CT first.\nChoose a model first.")
        self.problems = []
        self.panel.refresh()
        self.assertTrue(self.ui.applyButton.enabled)

    def test_bundled_model_finds_lesions_of_the_phantom_and_the_time_is_learnt(self):
        from NLSTSegLib.widgets.run_times import RunTimes

        phantom = make_phantom(0, spacing_ijk_mm=(0.98, 0.98, 4.0))
        few = replace(phantom.ct, hu=phantom.ct.hu[38:46])
        lesions = set(phantom.labels[38:46].ravel()) - {0}
        self.assertEqual(len(lesions), 4)
        self.enterContext(mock.patch("NLSTSegLib.jobs.learned_duration.LEAST_SLICES", 3))
        self.volume_node = self.add_ct(few)
        self.options = RunOptions()
        self.assertEqual(self.options.model, DEFAULT_MODEL)
        self.apply()
        (node,) = self.results
        self.assertGreaterEqual(node.GetSegmentation().GetNumberOfSegments(), len(lesions))
        learnt = RunTimes(lambda: None).of(self.options)
        self.assertGreater(learnt.start_s, 0)
        time = duration_text(learnt.estimate_s(few.hu.shape))
        self.assertEqual(self.ui.estimateLabel.text, f"about {time} on this computer")


class TestPreparation(RunTestCase):
    def test_a_declined_preparation_is_told_and_nothing_runs(self):
        def decline():
            raise InputError("torch was not installed, so no model can run")

        self.prepare = decline
        self.assertEqual(self.apply(), 0)
        self.assertEqual(self.ui.statusLabel.text, "torch was not installed, so no model can run")
        self.assertTrue(self.ui.applyButton.enabled, "it can be tried again")

    def test_a_scene_that_is_closed_meanwhile_ends_it(self):
        def close_scene():
            self.scene.Clear()
            self.problems = ["Choose a CT first."]
            self.panel.refresh()
            self.assertFalse(self.ui.applyButton.enabled)

        self.prepare = close_scene
        self.assertEqual(self.apply(), 0)
        self.assertEqual(self.ui.statusLabel.text, "Choose a CT first.")

    def test_a_panel_that_is_closed_meanwhile_starts_nothing(self):
        self.prepare = lambda: self.panel.close()
        self.assertEqual(self.apply(), 0)
        self.assertEqual(os.listdir(self.temporary), [])


class TestStop(RunTestCase):
    def test_cancel_ends_the_run_at_once(self):
        self.use_long_ct()
        before = self.nodes()
        for stage in ("started", "begun"):
            with self.subTest(stage):
                group = self.apply(until=stage)
                host.click(self.ui.cancelButton)
                self.assertEqual(self.ui.statusLabel.text, "The run was cancelled; the scene is as it was.")
                self.assertTrue(self.ui.applyButton.enabled)
                self.assert_nothing_left(group)
                self.assertEqual(self.nodes(), before)
        self.assertEqual(self.results, [])

    def test_scene_closed_at_every_stage(self):
        for stage in ("started", "begun"):
            with self.subTest(stage):
                self.use_long_ct()
                group = self.apply(until=stage)
                self.scene.Clear()
                before = self.nodes()
                self.wait(lambda: not self.panel.is_running)
                self.assertIn("no longer in the scene", self.ui.statusLabel.text)
                self.assert_nothing_left(group)
                self.assertEqual(self.nodes(), before)
        self.assertEqual(self.results, [])

    def test_scene_closed_when_the_result_is_there_already(self):
        group = self.apply(until="started")
        # The panel looks at nothing meanwhile.
        wait_until(lambda: not living_processes(group), "the child has ended")
        self.scene.Clear()
        before = self.nodes()
        self.wait(lambda: not self.panel.is_running)
        self.assertIn("no longer in the scene", self.ui.statusLabel.text)
        self.assert_nothing_left(group)
        self.assertEqual((self.nodes(), self.results), (before, []))

    def test_volume_removed_or_moved_during_the_run(self):
        for change, sentence in (
            (self.scene.RemoveNode, "no longer in the scene"),
            (lambda node: node.SetSpacing(1, 1, 1), "voxel grid"),
        ):
            with self.subTest(sentence):
                self.volume_node = self.add_ct(chest_ct(np.eye(3)))
                group = self.apply(until="started")
                change(self.volume_node)
                before = self.nodes()
                self.wait(lambda: not self.panel.is_running)
                self.assertIn(sentence, self.ui.statusLabel.text)
                self.assert_nothing_left(group)
                self.assertEqual((self.nodes(), self.results), (before, []))

    def test_stop_says_why_and_is_silent_without_a_run(self):
        self.panel.stop("The scene was closed, so the run was stopped.")
        self.assertEqual(self.ui.statusLabel.text, "")
        group = self.apply(until="started")
        self.panel.stop("The scene was closed, so the run was stopped.")
        self.assertEqual(self.ui.statusLabel.text, "The scene was closed, so the run was stopped.")
        self.assert_nothing_left(group)

    def test_closing_the_panel_ends_the_run(self):
        self.use_long_ct()
        group = self.apply(until="begun")
        self.panel.close()
        self.assertIn("module was closed", self.ui.statusLabel.text)
        self.assert_nothing_left(group)
        self.panel.close()
        self.panel.refresh()


class TestFailure(RunTestCase):
    def test_error_of_the_child_is_told_with_details_and_diagnostics(self):
        self.options = replace(self.options, model=str(self.bundle / "missing"))
        group = self.apply()
        self.assertRegex(self.ui.statusLabel.text, "^There is no model '.*missing': the installed ones are")
        self.assertTrue(self.ui.detailsButton.collapsed)
        self.assertFalse(self.ui.logEdit.visible)
        host.click(self.ui.detailsButton)
        self.assertTrue(self.ui.logEdit.visible)
        self.assertIn("nlstseg: error: there is no model", self.ui.logEdit.plainText)
        self.assert_nothing_left(group)

        host.click(self.ui.copyButton)
        text = self.clipboard()
        for part in (
            "size_ijk: (60, 56, 40)",
            "threads: 1",
            "exit code: 3",
            "== Log\nnlstseg: error: there is no model '<path>'",
        ):
            self.assertIn(part, text)
        self.assertIn(f"3D Slicer: {self.app.applicationVersion}", text)
        for private in (NAME, "DOE", str(self.bundle), str(Path.home()) + os.sep):
            self.assertNotIn(private, text)
        self.assertEqual(Path(self.app.temporaryPath, "NLSTSeg-last-run.txt").read_text(encoding="utf-8"), text)

    @unittest.skipIf(os.name == "nt", "there is no such signal")
    def test_crash_of_the_child_is_told(self):
        self.use_long_ct()
        before = self.nodes()
        group = self.apply(until="begun")
        os.killpg(group, signal.SIGKILL)
        self.wait(lambda: not self.panel.is_running)
        self.assertRegex(self.ui.statusLabel.text, "memory .* ran out")
        self.assertTrue(self.ui.copyButton.visible)
        self.assert_nothing_left(group)
        self.assertEqual(self.nodes(), before)
        self.assertTrue(self.ui.applyButton.enabled)

    def test_a_child_that_cannot_start_is_told(self):
        before, sys.executable = sys.executable, "/no/such/python"
        self.addCleanup(setattr, sys, "executable", before)
        if host.inside_slicer():
            self.skipTest("Slicer starts PythonSlicer")
        self.apply()
        self.assertIn("Python '/no/such/python' cannot be started", self.ui.statusLabel.text)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertEqual(os.listdir(self.temporary), [])

    def test_a_volume_without_voxels_is_told(self):
        self.volume_node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", NAME)
        self.apply()
        self.assertIn("holds no voxels", self.ui.statusLabel.text)
        host.click(self.ui.copyButton)
        self.assertNotIn("DOE", self.clipboard())


class TestTime(RunTestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch("NLSTSegLib.widgets.run_times.WAIT_MS", 0))

    def test_nothing_is_said_before_anything_is_known_and_measuring_changes_that(self):
        self.assertEqual((self.ui.estimateLabel.text, self.ui.estimateLabel.visible), ("", False))
        self.panel.refresh()
        self.wait(lambda: self.ui.estimateLabel.text)
        self.assertRegex(self.ui.estimateLabel.text, rf"^about {DURATION} on this computer$")
        self.assertEqual(os.listdir(self.temporary), [])
        again = self.open_panel()
        self.assertTrue(again.ui.estimateLabel.text, "it is kept in the settings")

    def test_a_run_ends_the_measuring(self):
        self.panel.refresh()
        self.wait(lambda: children_with("time"))
        group = child_with("time")
        self.apply(until="started")
        self.wait(lambda: not living_processes(group))

    def test_what_cannot_be_measured_is_tried_once_and_says_nothing(self):
        self.options = replace(self.options, model=str(self.bundle / "missing"))
        self.panel.refresh()
        self.wait(lambda: children_with("time"))
        self.wait(lambda: not os.listdir(self.temporary))
        self.assertEqual(self.ui.estimateLabel.text, "")
        self.panel.refresh()
        host.process_events()
        self.assertEqual(children_with("time"), [])


class TestWholeModule(ModuleTestCase):
    """The run as part of the module, with the bundled model."""

    def setUp(self):
        super().setUp()
        self.temporary = own_temporary_folder(self)
        as_urgent_as_the_tests(self)
        # A reload runs the library's files again; other tests hold what is there now.
        before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "NLSTSegLib"}
        self.addCleanup(self.restore_library, before)

    def restore_library(self, before: dict):
        for name in [name for name in sys.modules if name.partition(".")[0] == "NLSTSegLib"]:
            del sys.modules[name]
        sys.modules.update(before)

    def begin(self):
        """The module's widget object and the process group of the run that is under way."""
        from NLSTSegLib.scene.volumes import volume_node_of_ct

        node = volume_node_of_ct(long_ct(), self.scene, NAME)
        widget = self.open_module(TESTING.parent / "NLSTSeg" / "NLSTSeg.py")
        widget.input.select_volume(node)
        if widget.input.ui.acceptModelButton.visible:
            host.click(widget.input.ui.acceptModelButton)
        host.click(widget.run.ui.applyButton)
        self.assertTrue(widget.run.is_running, widget.run.ui.statusLabel.text)
        return widget, child_with("segment")

    def assert_gone(self, group: int):
        host.process_events(until=lambda: not living_processes(group))
        self.assertEqual(os.listdir(self.temporary), [])

    def test_run_ends_with_the_scene_the_module_and_its_code(self):
        import slicer

        for what, end in (
            ("the scene is closed", lambda widget: self.scene.Clear()),
            ("the module is reloaded", lambda widget: widget.onReload()),
            ("Slicer quits", host.close_module),
        ):
            with self.subTest(what):
                widget, group = self.begin()
                end(widget)
                self.assert_gone(group)
                self.assertFalse(widget.run.is_running)
                self.assertIsNone(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))


if __name__ == "__main__":
    unittest.main()
