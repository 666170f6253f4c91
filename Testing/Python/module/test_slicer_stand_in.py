"""The bench itself, on a small sample module: what it lets the tests of the Slicer module rely on."""

import re
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from helpers.marks import real_data
from helpers.shared_data import shared_data
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

TESTING = Path(__file__).resolve().parents[2]


SAMPLE = TESTING / "slicer_stand_in" / "sample" / "BenchSample.py"

BOX_KJI = (slice(15, 25), slice(20, 40), slice(20, 44))
"""Where the CT of :func:`add_ct` holds tissue."""

IJK_TO_RAS = np.diag([-2.0, -2.0, 3.0, 1.0])

BOX_CENTRE_RAS_MM = (-63.0, -59.0, 58.5)
"""The centre of :data:`BOX_KJI` by :data:`IJK_TO_RAS`."""


def add_ct(name: str = "CT"):
    import slicer

    hu = np.full((40, 64, 64), -800, np.int16)
    hu[BOX_KJI] = 40
    node = slicer.util.addVolumeFromArray(hu, IJK_TO_RAS, name)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(1500, -500)
    return node


def jump_to(ras_mm=BOX_CENTRE_RAS_MM) -> None:
    import slicer

    slicer.modules.markups.logic().JumpSlicesToLocation(*ras_mm, True)


class BenchTestCase(ModuleTestCase):
    def open_sample(self):
        return self.open_module(SAMPLE)

    def temporary_folder(self) -> Path:
        return Path(self.enterContext(tempfile.TemporaryDirectory()))


class TestQtAsInSlicer(BenchTestCase):
    def test_properties_are_attributes(self):
        import qt

        button = qt.QPushButton("first")
        self.assertEqual((button.text, button.enabled, button.visible), ("first", True, False))
        button.text, button.checkable, button.name = "second", True, "theButton"
        self.assertEqual((button.text, button.isCheckable(), button.objectName), ("second", True, "theButton"))
        self.assertGreater(button.sizeHint.width(), 0)
        with self.assertRaisesRegex(TypeError, "not callable"):
            button.text()

    def test_misspelt_and_read_only_properties_are_refused(self):
        import ctk
        import qt

        for widget in (qt.QSpinBox(), ctk.ctkSliderWidget()):
            with self.assertRaisesRegex(AttributeError, "maximun"):
                widget.maximun = 5
        with self.assertRaisesRegex(AttributeError, "only be read"):
            qt.QLabel().sizeHint = 5

    def test_functions_and_signals_are_not_overwritten(self):
        import qt
        import slicer

        class Panel(qt.QWidget):
            pass

        # The static function hides the property of that name.
        cases = [(qt.QTimer(), "singleShot"), (qt.QLabel(), "setText"), (qt.QPushButton(), "clicked"), (Panel(), "hide")]
        for widget, name in [*cases, (slicer.qMRMLNodeComboBox(), "setCurrentNode")]:
            with self.assertRaisesRegex(AttributeError, f"'{name}' .* can not be overwritten"):
                setattr(widget, name, True)

    def test_a_python_subclass_takes_attributes(self):
        import qt

        class Panel(qt.QWidget):
            pass

        panel = Panel()
        panel.lesions = [1]
        self.assertEqual(panel.lesions, [1])

    def test_connect_takes_the_signature_as_text(self):
        import qt

        box, got = qt.QSpinBox(), []
        keep = got.append
        box.connect("valueChanged(int)", lambda value: keep(("value", value)))
        box.connect("valueChanged(int)", lambda: keep("no argument"))
        box.valueChanged.connect(keep)
        box.value = 3
        self.assertCountEqual(got, [("value", 3), "no argument", 3])
        with self.assertRaisesRegex(ValueError, "no signal valueChange"):
            box.connect("valueChange(int)", keep)

    def test_disconnect_stops_and_says_whether_it_did(self):
        import qt

        class Counter:
            count = 0

            def up(self):
                self.count += 1

        button, counter = qt.QPushButton(), Counter()
        button.connect("clicked()", counter.up)
        button.click()
        self.assertTrue(button.disconnect("clicked()", counter.up))
        self.assertFalse(button.disconnect("clicked()", counter.up))
        button.click()
        self.assertEqual(counter.count, 1)

    def test_names_that_pythonqt_lacks_are_absent(self):
        import qt

        self.assertTrue(hasattr(qt, "QTimer"))
        for name in ("Signal", "Slot", "Property", "QNothing"):
            self.assertFalse(hasattr(qt, name), name)

    def test_static_and_bound_functions_of_one_name_work(self):
        import qt

        self.assertTrue(qt.QFile.exists(str(SAMPLE)))
        self.assertTrue(qt.QFile(str(SAMPLE)).exists())
        fired = []
        qt.QTimer.singleShot(1, lambda: fired.append(True))
        timer = qt.QTimer()
        timer.setSingleShot(True)
        timer.connect("timeout()", lambda: fired.append(False))
        timer.start(1)
        host.process_events(until=lambda: len(fired) == 2)
        self.assertFalse(timer.active)

    def test_a_modal_dialog_is_an_error_and_no_hang(self):
        import qt

        for wait in (qt.QDialog().exec_, qt.QMessageBox().exec_, lambda: qt.QMessageBox.question(None, "a", "b")):
            with self.assertRaisesRegex(RuntimeError, "would wait for a user"):
                wait()

    def test_a_ui_file_with_an_unknown_class_is_refused(self):
        import slicer

        text = (SAMPLE.parent / "Resources/UI/BenchSample.ui").read_text(encoding="utf-8")
        path = self.temporary_folder() / "unknown.ui"
        path.write_text(text.replace("ctkSliderWidget", "ctkNothingWidget"), encoding="utf-8")
        with self.assertRaisesRegex(ValueError, "ctkNothingWidget"):
            slicer.util.loadUI(str(path))


class TestModule(BenchTestCase):
    def test_opening_sets_up_and_enters_and_closing_leaves(self):
        import slicer

        widget = host.open_module(SAMPLE)
        self.assertIs(slicer.util.getModuleWidget("BenchSample"), widget)
        self.assertIs(slicer.modules.BenchSampleWidget, widget)
        self.assertEqual(slicer.modules.benchsample.title, "Bench sample")
        self.assertTrue(widget.parent.isEntered)
        host.close_module(widget)
        self.scene.Clear()
        self.assertEqual(widget.received, ["enter", "exit"], "the observer of the scene is gone")
        again = self.open_sample()
        self.assertIsNot(again, widget)

    def test_reload_runs_the_file_again(self):
        import slicer

        widget = self.open_sample()
        before = sys.modules["BenchSample"]
        widget.onReload()
        self.assertIsNot(sys.modules["BenchSample"], before)
        self.assertIsNot(slicer.util.getModuleWidget("BenchSample"), widget)

    def test_clicks_work_on_what_a_user_can_click(self):
        widget = self.open_sample()
        with self.assertRaisesRegex(AssertionError, "disabled: Choose a volume first"):
            host.click(widget.ui.applyButton)
        widget.ui.volumeSelector.setCurrentNode(add_ct())
        host.click(widget.ui.applyButton)
        self.assertEqual(widget.ui.statusLabel.text, "4800 voxels")

    def test_a_collapsed_section_hides_its_buttons(self):
        ui = self.open_sample().ui
        with self.assertRaisesRegex(AssertionError, "'Ask' .* hidden"):
            host.click(ui.askButton)
        host.click(ui.moreButton)
        self.assertFalse(ui.moreButton.collapsed)
        host.click(ui.checkBox)
        self.assertTrue(ui.checkBox.checked)
        host.click(ui.moreButton)
        self.assertFalse(ui.checkBox.visible)

    def test_settings_last_for_one_test(self):
        class Changes(BenchTestCase):
            def test(self):
                widget = self.open_sample()
                self.assertEqual(widget.ui.thresholdSlider.value, -400)
                widget.ui.thresholdSlider.value = 120
                host.close_module(widget)
                self.assertEqual(self.open_sample().ui.thresholdSlider.value, 120)

        for _ in range(2):
            result = unittest.TestResult()
            Changes("test").run(result)
            self.assertEqual((result.failures, result.errors), ([], []))

    def test_slider_moves_with_its_value_and_stays_in_range(self):
        import ctk

        slider, got = ctk.ctkSliderWidget(), []
        slider.minimum, slider.maximum, slider.singleStep = 0.1, 0.9, 0.05
        slider.connect("valueChanged(double)", got.append)
        slider.value = 0.5
        slider.value = 7
        np.testing.assert_allclose(got, [0.5, 0.9])

    def test_shortcut_lives_only_inside_the_panel(self):
        import qt

        widget = self.open_sample()
        outside = qt.QLineEdit()
        outside.show()
        host.press_key(outside, "N")
        self.assertEqual((outside.text.upper(), widget.ui.statusLabel.text), ("N", ""))
        host.press_key(widget.ui.applyButton if widget.ui.applyButton.enabled else widget.ui.thresholdSlider, "N")
        self.assertEqual(widget.ui.statusLabel.text, "next")

    def test_child_process_reports_output_and_exit_code(self):
        widget = self.open_sample()
        host.click(widget.ui.moreButton)
        for exit_code in (0, 3):
            widget.ui.exitCodeSpinBox.value = exit_code
            host.click(widget.ui.runButton)
            host.process_events(until=lambda: widget.ui.runButton.enabled)
            self.assertEqual(widget.received[-1], (exit_code, {"arguments": [str(exit_code)]}, "warned"))

    def test_waiting_in_vain_is_an_error(self):
        with self.assertRaisesRegex(TimeoutError, r"0\.05 s"):
            host.process_events(until=lambda: False, timeout_s=0.05)


class TestMessages(BenchTestCase):
    def setUp(self):
        super().setUp()
        self.widget = self.open_sample()
        host.click(self.widget.ui.moreButton)

    def test_questions_get_the_answers_of_the_test(self):
        self.talk.answer(False, True)
        host.click(self.widget.ui.askButton)
        host.click(self.widget.ui.askButton)
        self.assertEqual(self.talk.texts("question"), ["Install torch?"] * 2)
        self.assertEqual((self.talk.texts("error"), self.talk.texts("info")), (["Not installed"], ["Installed"]))
        self.assertEqual([m.details for m in self.talk.messages], ["two gigabytes", "declined", "two gigabytes", ""])

    def test_file_dialogs_give_the_path_alone(self):
        self.talk.answer("table.csv")
        host.click(self.widget.ui.saveButton)
        self.assertEqual(self.widget.received[-1], "table.csv")
        self.assertEqual(self.talk.texts("file"), ["Save the table"])

    def test_a_question_without_an_answer_is_an_error(self):
        host.click(self.widget.ui.askButton)
        self.assertRegex(self.slot_errors[0], "asked 'Install torch\\?' and the test has no answer")
        self.slot_errors.clear()


class TestSlotErrors(BenchTestCase):
    def collected(self, error: str):
        self.assertEqual(len(self.slot_errors), 1)
        self.assertRegex(self.slot_errors[0], error)
        self.slot_errors.clear()

    def test_exceptions_in_slots_timers_and_observers_are_collected(self):
        import qt
        import vtk

        widget = self.open_sample()
        host.click(widget.ui.moreButton)
        host.click(widget.ui.brokenButton)
        self.collected("ValueError: broken on purpose")

        qt.QTimer.singleShot(0, lambda: 1 / 0)
        host.process_events()
        self.collected("ZeroDivisionError")

        observed = vtk.vtkObject()
        observed.AddObserver("ModifiedEvent", lambda caller, event: [][1])
        observed.Modified()
        self.collected("IndexError")

    def test_one_fails_the_test(self):
        class Broken(BenchTestCase):
            def test(self):
                widget = self.open_sample()
                host.click(widget.ui.moreButton)
                host.click(widget.ui.brokenButton)

        result = unittest.TestResult()
        Broken("test").run(result)
        self.assertEqual((len(result.failures), result.errors), (1, []))
        self.assertIn("broken on purpose", result.failures[0][1])
        self.slot_errors.clear()

    def test_waiting_ends_when_a_slot_raises(self):
        import qt

        qt.QTimer.singleShot(0, lambda: 1 / 0)
        with self.assertRaisesRegex(AssertionError, "ZeroDivisionError"):
            host.process_events(until=lambda: False)
        self.slot_errors.clear()


class TestNodeComboBox(BenchTestCase):
    def setUp(self):
        super().setUp()
        self.combo = self.open_sample().ui.volumeSelector
        self.got = []
        self.combo.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: self.got.append(node and node.GetName()))

    def names(self):
        return [self.combo.nodeFromIndex(index).GetName() for index in range(self.combo.nodeCount())]

    def shown(self):
        (box,) = (child for child in self.combo.children() if child.className() == "QComboBox")
        return [box.itemText(index) for index in range(box.count)], box.currentText

    def test_list_follows_the_scene(self):
        first, second = add_ct("first"), add_ct("second")
        self.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "label map")
        self.scene.AddNewNodeByClass("vtkMRMLTextNode", "text")
        self.assertEqual((self.names(), self.combo.currentNode()), (["first", "second"], None))
        second.SetName("renamed")
        self.combo.setCurrentNode(second)
        self.assertEqual(self.shown(), (["None", "first", "renamed"], "renamed"))
        first.SetHideFromEditors(True)
        self.assertEqual(self.names(), ["renamed"])
        self.scene.RemoveNode(second)
        self.assertEqual((self.names(), self.combo.currentNode()), ([], None))
        self.assertEqual(self.got, ["renamed", None])

    def test_closing_the_scene_empties_it(self):
        self.combo.setCurrentNode(add_ct())
        self.scene.Clear()
        self.assertEqual((self.names(), self.combo.currentNode(), self.got), ([], None, ["CT", None]))

    def test_the_neighbour_is_chosen_when_the_chosen_node_is_removed_or_hidden(self):
        first, second, third = (add_ct(name) for name in ("first", "second", "third"))
        self.combo.setCurrentNode(second)
        self.scene.RemoveNode(second)
        self.assertIs(self.combo.currentNode(), third)
        third.SetHideFromEditors(True)
        self.assertIs(self.combo.currentNode(), first)
        self.assertEqual(self.got, ["second", "third", "first"])

    def test_a_node_of_the_same_name_is_told_only_to_who_asks_for_what_a_person_chose(self):
        first, second = add_ct("CT"), add_ct("CT")
        activated = []
        self.combo.connect("nodeActivated(vtkMRMLNode*)", activated.append)
        host.choose(self.combo, first)
        host.choose(self.combo, second)
        self.assertIs(self.combo.currentNode(), second)
        self.assertEqual((self.got, activated), (["CT"], [first, second]))

    def test_an_import_into_the_scene_leaves_none_chosen(self):
        self.combo.setCurrentNode(add_ct())
        self.scene.StartState(self.scene.ImportState)
        add_ct("imported")
        self.assertEqual(self.names(), ["CT"])
        self.scene.EndState(self.scene.ImportState)
        self.assertEqual((self.names(), self.combo.currentNode()), (["CT", "imported"], None))

    def test_without_an_entry_for_none_the_first_node_is_chosen(self):
        self.combo.noneEnabled = False
        first = add_ct("first")
        add_ct("second")
        self.assertIs(self.combo.currentNode(), first)
        self.assertEqual(self.got[-1], "first")

    def test_it_can_be_asked_for_nodes_with_an_attribute(self):
        wanted = add_ct("wanted")
        add_ct("other")
        wanted.SetAttribute("Modality", "CT")
        self.combo.addAttribute("vtkMRMLScalarVolumeNode", "Modality", "CT")
        self.assertEqual(self.names(), ["wanted"])


class TestSegmentEditor(BenchTestCase):
    def setUp(self):
        super().setUp()
        self.widget = self.open_sample()
        self.editor = self.widget.editor
        self.volume = add_ct()
        self.widget.ui.volumeSelector.setCurrentNode(self.volume)
        host.click(self.widget.ui.applyButton)

    def test_it_shows_the_segments_of_its_node(self):
        segmentation = self.editor.segmentationNode()
        self.assertIs(self.editor.sourceVolumeNode(), self.volume)
        self.assertEqual(self.editor.currentSegmentID(), "above")
        got = []
        self.editor.connect("currentSegmentIDChanged(QString)", got.append)
        segmentation.GetSegmentation().AddEmptySegment("second", "second")
        self.editor.setCurrentSegmentID("second")
        segmentation.GetSegmentation().RemoveSegment("second")
        self.assertEqual(got, ["second", "above"])

    def test_undo_brings_the_voxels_back(self):
        import slicer

        segmentation = self.editor.segmentationNode()
        before = self.widget.logic.count(segmentation, self.volume)
        self.editor.saveStateForUndo()
        slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros((40, 64, 64), np.uint8), segmentation, "above", self.volume)
        self.assertEqual(self.widget.logic.count(segmentation, self.volume), 0)
        (undo,), (redo,) = (slicer.util.findChildren(self.editor, name=f"{step}Button") for step in ("Undo", "Redo"))
        self.assertEqual((undo.enabled, redo.enabled), (True, False))
        host.click(undo)
        self.assertEqual((undo.enabled, redo.enabled), (False, True))
        self.assertEqual(self.widget.logic.count(segmentation, self.volume), before)

    def test_only_the_named_effects_are_offered_and_one_is_active(self):
        import slicer

        buttons = slicer.util.findChildren(self.editor, className="QToolButton")
        self.assertEqual({button.text for button in buttons}, {"Paint", "Erase", "Scissors", "Undo", "Redo"})
        host.click(next(button for button in buttons if button.text == "Erase"))
        self.assertEqual(self.editor.activeEffect().name, "Erase")
        self.assertEqual(self.editor.mrmlSegmentEditorNode().GetActiveEffectName(), "Erase")
        self.editor.setActiveEffect(None)
        self.assertIsNone(self.editor.activeEffect())

    def test_read_only_it_offers_no_effect_and_no_undo(self):
        import slicer

        self.editor.saveStateForUndo()
        buttons = {button.text: button for button in slicer.util.findChildren(self.editor, className="QToolButton")}
        host.click(buttons["Paint"])
        self.editor.setReadOnly(True)
        self.assertIsNone(self.editor.activeEffect())
        self.assertEqual([buttons[name].enabled for name in ("Paint", "Undo")], [False, False])

    def test_it_turns_to_another_segmentation_when_an_import_has_ended(self):
        shown = self.editor.segmentationNode()
        other = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
        self.editor.setSegmentationNode(other)
        self.scene.StartState(self.scene.ImportState)
        self.scene.EndState(self.scene.ImportState)
        self.assertIs(self.editor.segmentationNode(), shown)

    def test_its_keys_work_in_the_window_they_are_installed_in(self):
        import qt

        field = qt.QPushButton()
        field.show()
        node = self.editor.mrmlSegmentEditorNode()
        self.editor.installKeyboardShortcuts(field)
        for expected in (True, False):
            host.press_key(field, "I")
            self.assertEqual(node.GetSourceVolumeIntensityMask(), expected)
        host.press_key(field, "1")
        self.assertEqual(self.editor.activeEffect().name, "Paint")
        self.editor.uninstallKeyboardShortcuts()
        host.press_key(field, "1")
        self.assertEqual(self.editor.activeEffect().name, "Paint")

    def test_a_closed_scene_leaves_it_empty(self):
        self.scene.Clear()
        self.editor.updateWidgetFromMRML()
        self.assertEqual((self.editor.segmentationNode(), self.editor.currentSegmentID()), (None, ""))


class TestSliceViews(BenchTestCase):
    def setUp(self):
        super().setUp()
        self.volume = add_ct()
        self.widget = self.open_sample()
        self.widget.ui.volumeSelector.setCurrentNode(self.volume)

    def view(self, name="Red"):
        import slicer

        return slicer.app.layoutManager().sliceWidget(name)

    def picture(self, name="Red") -> np.ndarray:
        """RGB of the view ``[row, column]``, without the bar."""
        path = host.screenshot(self.view(name).sliceView(), self.temporary_folder() / "view.png")
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    def test_picture_shows_the_outline_and_the_filling_of_the_segment(self):
        host.click(self.widget.ui.applyButton)
        jump_to()
        picture = self.picture()
        red = picture[..., 0] - picture[..., 1:].max(axis=2)
        rows, columns = np.nonzero(red > 40)
        # By the field of view: the box measures 48 x 40 mm.
        node = self.view().mrmlSliceNode()
        mm_per_pixel = node.GetFieldOfView()[0] / node.GetDimensions()[0]
        self.assertAlmostEqual(np.ptp(columns) * mm_per_pixel, 48, delta=3 * mm_per_pixel)
        self.assertAlmostEqual(np.ptp(rows) * mm_per_pixel, 40, delta=3 * mm_per_pixel)
        self.assertAlmostEqual(rows.mean(), picture.shape[0] / 2, delta=2)
        middle = red[picture.shape[0] // 2]
        inside = middle[columns.min() + 6 : columns.max() - 6]
        self.assertGreater(middle[columns.min() : columns.min() + 4].max(), inside.max() + 20, "the outline is stronger")

        self.widget.editor.segmentationNode().GetDisplayNode().SetVisibility(False)
        hidden = self.picture()
        self.assertLess((hidden[..., 0] - hidden[..., 1]).max(), 10)
        self.assertGreater(np.ptp(hidden[..., 0]), 100, "the CT is still there")

    def test_views_can_be_centred(self):
        import slicer

        jump_to((-40.0, -50.0, 60.0))
        for name in ("Red", "Yellow", "Green"):
            ras_from_slice = slicer.util.arrayFromVTKMatrix(self.view(name).mrmlSliceNode().GetSliceToRAS())
            np.testing.assert_allclose(ras_from_slice[:3, 3], (-40, -50, 60), atol=1e-6)

    def test_a_click_places_a_markups_point_there(self):
        import slicer

        host.click(self.widget.ui.applyButton)
        jump_to()
        points = self.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "seed")
        points.CreateDefaultDisplayNodes()
        slicer.modules.markups.logic().SetActiveListID(points)
        slicer.modules.markups.logic().StartPlaceMode(False)
        wanted_ras_mm = (BOX_CENTRE_RAS_MM[0] + 10, BOX_CENTRE_RAS_MM[1] - 12, BOX_CENTRE_RAS_MM[2])
        host.click_slice("Red", wanted_ras_mm)
        self.assertEqual(points.GetNumberOfDefinedControlPoints(), 1)
        node = self.view().mrmlSliceNode()
        mm_per_pixel = node.GetFieldOfView()[0] / node.GetDimensions()[0]
        np.testing.assert_allclose(points.GetNthControlPointPositionWorld(0), wanted_ras_mm, atol=mm_per_pixel)

    def test_panel_and_views_in_one_picture(self):
        host.click(self.widget.ui.applyButton)
        jump_to()
        with host.beside_views(self.widget, ("Red", "Green"), (1000, 700)) as window:
            path = host.screenshot(window, self.temporary_folder() / "deep" / "window.png")
        picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
        self.assertEqual(picture.shape, (700, 1000, 3))
        self.assertGreater(picture[:, : host.PANEL_SIZE[0]].mean(), 150, "the panel is light")
        red = picture[:, host.PANEL_SIZE[0] + 20 :, 0] - picture[:, host.PANEL_SIZE[0] + 20 :, 2]
        self.assertTrue((red[40:340] > 40).any() and (red[380:] > 40).any(), "both views show the segment")

        host.click(self.widget.ui.moreButton)
        with host.beside_views(self.widget, ("Yellow",)) as window:
            self.assertTrue(self.view("Yellow").visible and window.visible)
        self.assertFalse(self.view("Yellow").visible)
        host.click(self.widget.ui.checkBox)


class TestFiles(BenchTestCase):
    def test_a_saved_scene_is_loaded_again(self):
        import slicer

        widget = self.open_sample()
        widget.ui.volumeSelector.setCurrentNode(add_ct("kept"))
        host.click(widget.ui.applyButton)
        path = self.temporary_folder() / "scene.mrb"
        self.assertTrue(slicer.util.saveScene(str(path)))
        self.scene.Clear()
        self.assertEqual(widget.ui.volumeSelector.nodeCount(), 0)
        slicer.util.loadScene(str(path))
        volume, segmentation = slicer.util.getNode("kept"), slicer.util.getNode("kept segments")
        self.assertEqual(widget.ui.volumeSelector.nodeFromIndex(0), volume)
        self.assertEqual(widget.logic.count(segmentation, volume), 4800)

    def test_nodes_are_written_and_read(self):
        import slicer

        widget, folder = self.open_sample(), self.temporary_folder()
        volume = add_ct("CT")
        segmentation = widget.logic.process(volume, 0)
        self.assertTrue(slicer.util.exportNode(volume, str(folder / "ct.nii.gz"), {}))
        self.assertTrue(slicer.util.saveNode(segmentation, str(folder / "lesions.seg.nrrd"), {}))
        read = slicer.util.loadVolume(str(folder / "ct.nii.gz"), {})
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(read), slicer.util.arrayFromVolume(volume))
        again = slicer.util.loadSegmentation(str(folder / "lesions.seg.nrrd"), {})
        self.assertEqual(widget.logic.count(again, volume), 4800)
        self.assertIsNone(volume.GetStorageNode(), "an export leaves no trace")

    def test_nodes_get_and_lose_their_item_in_the_subject_hierarchy(self):
        hierarchy = self.scene.GetSubjectHierarchyNode()
        node = add_ct()
        item = hierarchy.GetItemByDataNode(node)
        self.assertTrue(item)
        self.scene.RemoveNode(node)
        self.assertEqual(hierarchy.GetItemName(item), "")


class TestBesideSlicer(BenchTestCase):
    def test_host_imports_no_pyside_so_that_slicer_can(self):
        code = "import sys; from slicer_stand_in import host, case; sys.exit(any(n.startswith('PySide6') for n in sys.modules))"
        subprocess.run([sys.executable, "-c", code], cwd=TESTING, check=True)

    def test_the_same_test_uses_an_application_that_is_there(self):
        widget = self.open_sample()
        with mock.patch.dict(sys.modules, PythonQt=types.ModuleType("PythonQt")):

            class Inside(BenchTestCase):
                def test(self):
                    found = self.open_sample()
                    assert found is widget
                    host.click(found.ui.moreButton)
                    assert not found.ui.moreButton.collapsed

            result = unittest.TestResult()
            Inside("test").run(result)
        self.assertEqual((result.testsRun, result.failures, result.errors), (1, [], []))
        self.assertFalse(widget.parent.isEntered)

    @real_data
    def test_module_sample_and_stand_ins_have_only_names_that_slicer_has(self):
        data = shared_data()
        lint = data and data.parent / "tools" / "slicer_lint.py"
        if not lint or not lint.is_file():
            self.skipTest("the list of Slicer's names is not there")
        root = TESTING.parent
        panels = [root / "NLSTSeg/NLSTSeg.py", *sorted((root / "NLSTSegLib/widgets").glob("*.py"))]
        self.assertGreater(len(panels), 10)
        stand_ins = [word for path in sorted((TESTING / "slicer_stand_in").glob("*.py")) for word in ("--standins", path)]
        for sources, folder, more in (([SAMPLE], SAMPLE.parent, stand_ins), (panels, root, [])):
            forms = [word for path in sorted((folder / "Resources/UI").glob("*.ui")) for word in ("--ui", path)]
            done = subprocess.run([sys.executable, lint, *forms, *more, *sources], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_without_qt_the_error_names_the_system_packages(self):
        folder = self.temporary_folder()
        (folder / "PySide6.py").write_text('raise ImportError("libEGL.so.1: cannot open shared object file")', encoding="utf-8")
        code = (
            f"import sys; sys.path.insert(0, {str(folder)!r}); from slicer_stand_in import host; host.application().__enter__()"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=TESTING, capture_output=True, text=True, check=False)
        self.assertRegex(done.stderr, "RuntimeError: Qt does not load .libEGL.so.1.*libegl1 libgl1 .*fonts-dejavu-core")

    def test_error_and_script_name_the_same_system_packages(self):
        script = (TESTING.parent / ".ci" / "system-packages.sh").read_text(encoding="utf-8")
        self.assertEqual(re.search(r"packages=\((.*)\)", script).group(1).split(), list(host.SYSTEM_PACKAGES))
        self.assertTrue((TESTING.parent / ".ci" / "run").read_text(encoding="utf-8").count(".ci/system-packages.sh"))
