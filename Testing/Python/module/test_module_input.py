"""The upper part of the panel: which CT, what is wrong with it and what mends it, which model, where it runs."""

import json
import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from helpers.child_processes import as_urgent_as_the_tests
from helpers.mrml_nodes import add_grid_transform, add_transform, add_volume
from helpers.placed_chest import chest_ct, chest_of_slices
from helpers.stored_ct import body_hu
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.models.bundle import DEFAULT_MODEL, WEIGHTS_FILE, find_model, list_models
from NLSTSegLib.models.card import CARD_FILE
from NLSTSegLib.resources import MODELS_VARIABLE
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

ROOT = Path(__file__).resolve().parents[3]


def good_ct():
    """A CT with green lines alone."""
    return chest_ct(np.eye(3), shape_kji=(40, 60, 60), spacing_ijk_mm=(2.9, 2.9, 3.9))


class InputTestCase(ModuleTestCase):
    """``self.panel`` in a window of its own; ``self.changes`` counts the calls of ``on_change``."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.dict(os.environ, {MODELS_VARIABLE: str(self.folder / "models")}))
        self.changes = 0
        self.panel = self.open()

    def open(self):
        from NLSTSegLib.widgets.input_panel import InputPanel

        panel = InputPanel(self.changed)
        self.addCleanup(panel.close)
        panel.widget.resize(460, 700)
        panel.widget.show()
        host.process_events()
        self.ui = panel.ui
        return panel

    def reopen(self):
        self.panel.close()
        self.panel.widget.hide()
        self.panel = self.open()
        return self.panel

    def changed(self):
        self.changes += 1

    def accept(self):
        host.click(self.ui.acceptModelButton)

    def lines(self) -> list[str]:
        """Sign and sentence of every line of the card."""
        # New widgets are shown by the next look at events.
        host.process_events()
        labels = [child for child in self.ui.preflightFrame.children() if child.className() == "QLabel" and child.visible]
        texts = [label.text for label in labels]
        return [f"{sign[sign.index('>') + 1]} {sentence}" for sign, sentence in zip(texts[::2], texts[1::2], strict=True)]

    def fix_button(self, kind: str):
        host.process_events()
        (button,) = (c for c in self.ui.preflightFrame.children() if c.objectName == f"{kind}Button" and c.visible)
        return button

    def wait_for_a_look(self):
        """So long that a changed volume would have been looked at."""
        import qt

        from NLSTSegLib.widgets.input_panel import SETTLE_MS

        passed = []
        qt.QTimer.singleShot(2 * SETTLE_MS, lambda: passed.append(True))
        host.process_events(until=lambda: passed)

    def settle(self, words: str):
        host.process_events(until=lambda: any(words in line for line in self.lines()))


class VolumeTest(InputTestCase):
    def test_nothing_is_chosen_at_first(self):
        add_volume(good_ct())
        self.assertIsNone(self.panel.volume_node)
        self.assertEqual((self.lines(), self.ui.preflightFrame.visible), ([], False))
        self.assertIn("Choose the CT to segment.", self.panel.reasons())

    def test_opening_the_panel_tells_nobody(self):
        self.assertEqual(self.changes, 0)

    def test_a_good_ct_leaves_no_reason(self):
        node = add_volume(good_ct())
        self.panel.select_volume(node)
        self.accept()
        self.assertIs(self.panel.volume_node, node)
        self.assertEqual([line[0] for line in self.lines()], ["✓", "✓"])
        self.assertEqual(self.panel.reasons(), [])
        self.assertGreater(self.changes, 0)

    def test_only_scalar_volumes_are_offered(self):
        import slicer

        ct = good_ct()
        label = slicer.util.addVolumeFromArray(
            (ct.hu > 0).astype(np.uint8), name="label", nodeClassName="vtkMRMLLabelMapVolumeNode"
        )
        slicer.util.addVolumeFromArray(np.zeros((4, 5, 6, 3), np.uint8), name="rgb", nodeClassName="vtkMRMLVectorVolumeNode")
        self.assertEqual(self.ui.volumeSelector.nodeCount(), 0)
        self.panel.select_volume(label)
        self.assertIsNone(self.panel.volume_node)

    def test_values_that_are_no_hu_are_a_red_line_and_a_reason(self):
        ct = good_ct()
        scaled = ((ct.hu - ct.hu.min()) / np.ptp(ct.hu)).astype(np.float32)
        labels = (ct.hu > -400).astype(np.uint8)
        self.accept()
        for voxels in (scaled, labels):
            self.panel.select_volume(add_volume(ct, voxels=voxels))
            (reason,) = self.panel.reasons()
            self.assertRegex(reason, "^The values run from 0 to 1 like a scaled image or a label map.*rescale slope")
            self.assertEqual(self.lines()[0][0], "✕")

    def test_two_volumes_switching(self):
        self.accept()
        good, bad = add_volume(good_ct(), "good"), add_volume(good_ct(), "bad", np.zeros((40, 60, 60), np.int16))
        for _ in range(2):
            self.panel.select_volume(bad)
            self.assertEqual(len(self.panel.reasons()), 1)
            self.panel.select_volume(good)
            self.assertEqual(self.panel.reasons(), [])
        # The one that is not chosen may change as it likes.
        before = self.changes
        bad.SetSpacing(9.0, 9.0, 9.0)
        self.wait_for_a_look()
        self.assertEqual([line[0] for line in self.lines()], ["✓", "✓"])
        self.assertEqual((self.changes, self.panel.reasons()), (before, []))

    def test_removed_volume_and_closed_scene(self):
        for remove in (self.scene.RemoveNode, lambda node: self.scene.Clear()):
            node = add_volume(good_ct())
            self.panel.select_volume(node)
            # A look at it is due when it goes.
            node.SetSpacing(1.0, 1.0, 1.0)
            remove(node)
            del node
            host.process_events()
            self.assertIsNone(self.panel.volume_node)
            self.assertIn("Choose the CT to segment.", self.panel.reasons())
            self.assertEqual(self.lines(), [])

    def test_card_follows_values_geometry_and_transform(self):
        import slicer

        node = add_volume(good_ct())
        self.panel.select_volume(node)
        node.SetSpacing(2.9, 2.9, 7.0)
        self.settle("7.00 mm apart")
        node.SetSpacing(2.9, 2.9, 3.9)
        self.settle("The grid is even")

        slicer.util.arrayFromVolume(node)[:] = 3
        slicer.util.arrayFromVolumeModified(node)
        before = self.changes
        self.settle("All voxels have the value 3")
        self.assertGreater(self.changes, before, "nobody was told")
        slicer.util.updateVolumeFromArray(node, good_ct().hu)
        self.settle("look like HU")

        inner, outer = add_transform(self.scene, np.eye(4)), add_transform(self.scene, np.eye(4))
        inner.SetAndObserveTransformNodeID(outer.GetID())
        before = self.changes
        node.SetAndObserveTransformNodeID(inner.GetID())
        host.process_events(until=lambda: self.changes > before)
        # Of the transform of the transform.
        outer.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([2.0, 2, 2, 1])))
        self.settle("scales or shears")

    def test_voxels_that_were_changed_in_place_are_looked_at_again(self):
        import slicer

        node = add_volume(good_ct())
        self.panel.select_volume(node)
        modified = []
        observer = node.AddObserver("ModifiedEvent", lambda caller, event: modified.append(event))
        slicer.util.arrayFromVolume(node)[:] = 3
        # As a filter does that writes into the image, which tells nothing of the node.
        node.GetImageData().Modified()
        self.settle("All voxels have the value 3")
        node.RemoveObserver(observer)
        self.assertEqual(modified, [])

    def test_reasons_are_those_of_now_however_the_volume_was_changed(self):
        self.accept()
        node = add_volume(good_ct())
        self.panel.select_volume(node)
        node.SetAndObserveTransformNodeID(add_transform(self.scene, np.diag([2.0, 2, 2, 1])).GetID())
        self.assertIn("scales or shears", self.panel.reasons()[0])

    def test_a_name_cannot_format_the_card(self):
        node = add_volume(good_ct(), "<h1>big</h1>")
        node.SetAndObserveTransformNodeID(add_transform(self.scene, np.diag([2.0, 2, 2, 1])).GetID())
        self.panel.select_volume(node)
        self.assertIn("'<h1>big</h1>'", self.lines()[0])
        import qt

        (label,) = (c for c in self.ui.preflightFrame.children() if c.className() == "QLabel" and "<h1>" in c.text)
        self.assertEqual(label.textFormat, qt.Qt.PlainText)

    def test_a_closed_panel_sees_no_more(self):
        node = add_volume(good_ct())
        self.panel.select_volume(node)
        before = self.changes
        self.panel.close()
        node.SetSpacing(2.9, 2.9, 9.0)
        self.wait_for_a_look()
        self.assertEqual(self.changes, before)


class FixTest(InputTestCase):
    def setUp(self):
        super().setUp()
        self.accept()

    def assert_mended(self, node, kind: str, name: str):
        import slicer

        self.panel.select_volume(node)
        self.assertEqual(len(self.panel.reasons()), 1)
        host.click(self.fix_button(kind))
        copy = self.panel.volume_node
        self.assertIsNot(copy, node)
        self.assertTrue(copy.GetName().startswith(name), copy.GetName())
        self.assertEqual(self.panel.reasons(), [])
        layer = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()
        self.assertEqual(layer, copy.GetID())
        host.process_events()

    def test_tilted_ct_of_dicom_import(self):
        heights_mm = np.arange(40) * 4.0
        ct, _ = chest_of_slices(np.eye(3), heights_mm, np.column_stack([0 * heights_mm, 0.27 * heights_mm]))
        node = add_volume(ct, "Tilted")
        grid = add_grid_transform(self.scene, ct)
        node.SetAndObserveTransformNodeID(grid.GetID())
        self.assert_mended(node, "harden", "Tilted hardened")
        self.assertEqual(node.GetTransformNodeID(), grid.GetID())

    def test_scaled_volume(self):
        node = add_volume(good_ct(), "Twice")
        node.SetAndObserveTransformNodeID(add_transform(self.scene, np.diag([1.1, 1.1, 1.1, 1])).GetID())
        self.assert_mended(node, "harden", "Twice hardened")

    def test_stored_values(self):
        hu = body_hu()
        ct = chest_ct(np.eye(3), shape_kji=hu.shape, spacing_ijk_mm=(2.0, 2.0, 4.0))
        node = add_volume(ct, "Stored", (hu.astype(np.int32) + 1024).astype(np.uint16))
        self.assert_mended(node, "convert", "Stored in HU")

    def test_odd_pixels(self):
        node = add_volume(chest_ct(np.eye(3), spacing_ijk_mm=(4.0, 4.0, 4.0)), "Coarse")
        self.panel.select_volume(node)
        self.assertEqual(self.lines()[0][0], "▲")
        host.click(self.fix_button("resample"))
        self.assertEqual([line[0] for line in self.lines()], ["✓", "✓"])

    def test_a_fix_that_does_not_fit_any_more_says_so(self):
        import slicer

        hu = body_hu()
        node = add_volume(chest_ct(np.eye(3), shape_kji=hu.shape), "Stored", hu.astype(np.int32) + 1024)
        self.panel.select_volume(node)
        button = self.fix_button("convert")
        slicer.util.arrayFromVolume(node)[:] = 7
        host.click(button)
        self.assertEqual(
            self.talk.texts("error"), ["The values of 'Stored' are not those of a CT without its intercept; load the CT again."]
        )
        self.assertIs(self.panel.volume_node, node)

    def test_its_button_goes_with_the_volume(self):
        node = add_volume(good_ct(), "Twice")
        node.SetAndObserveTransformNodeID(add_transform(self.scene, np.diag([1.1, 1.1, 1.1, 1])).GetID())
        self.panel.select_volume(node)
        self.fix_button("harden")
        self.scene.RemoveNode(node)
        self.assertEqual(self.lines(), [])
        with self.assertRaises(ValueError):
            self.fix_button("harden")


class ModelTest(InputTestCase):
    def titles(self) -> list[str]:
        return [self.ui.modelComboBox.itemText(index) for index in range(self.ui.modelComboBox.count)]

    def choose(self, words: str):
        (self.ui.modelComboBox.currentIndex,) = (n for n, title in enumerate(self.titles()) if words in title)

    def add(self, path: Path, button: str = "addModelFolderButton"):
        self.talk.answer(str(path))
        host.click(getattr(self.ui, button))

    def bundle(self, name: str, **changes) -> Path:
        write_threshold_bundle(self.folder / name, name=name, **changes)
        return self.folder / name

    def model_reasons(self) -> list[str]:
        return [reason for reason in self.panel.reasons() if "CT to segment" not in reason]

    def test_bundled_model_with_its_card(self):
        card = find_model(DEFAULT_MODEL).card
        self.assertEqual(len(self.titles()), len(list_models()))
        self.assertRegex(self.titles()[0], rf"^{card.title and card.title + ': '}{DEFAULT_MODEL} {card.version} \([\d.]+ MB\)$")
        for words in (card.intended_use, card.licence, "of the lesions found"):
            self.assertIn(words, self.ui.modelCardLabel.text)
        for words in (card.training_data, card.attribution, card.description):
            self.assertIn(words, self.ui.modelDetailsLabel.text)
        self.assertNotIn("seed", self.ui.modelCardLabel.text + self.ui.modelDetailsLabel.text)
        self.assertTrue(self.ui.modelDetailsButton.collapsed)
        self.assertFalse(self.ui.modelCardButton.collapsed)
        self.assertFalse(self.ui.removeModelButton.enabled)

    def test_it_must_be_accepted_once_and_is_folded_then(self):
        (reason,) = self.model_reasons()
        self.assertRegex(reason, f"^Read about the model {DEFAULT_MODEL} and accept its licence, .* research only[.]$")
        before = self.changes
        self.accept()
        self.assertEqual((self.model_reasons(), self.ui.modelCardButton.collapsed), ([], True))
        self.assertGreater(self.changes, before)
        self.assertFalse(self.ui.acceptModelButton.visible)
        self.reopen()
        self.assertEqual((self.model_reasons(), self.ui.modelCardButton.collapsed), ([], True))

    def test_acceptance_is_that_of_the_weights(self):
        self.add(self.bundle("mine"))
        self.accept()
        self.assertEqual(self.model_reasons(), [])
        self.choose(DEFAULT_MODEL)
        self.assertEqual(len(self.model_reasons()), 1)
        # The same name with other weights is another model.
        self.choose("mine")
        self.assertEqual(self.model_reasons(), [])
        card = self.folder / "models" / "mine" / CARD_FILE
        content = json.loads(card.read_text("utf-8"))
        card.write_text(json.dumps({**content, "weights_sha256": "0" * 64}), "utf-8")
        self.reopen()
        self.assertEqual(len(self.model_reasons()), 1)

    def test_added_folder_is_chosen_kept_and_run_by_its_path(self):
        self.add(self.bundle("mine", threshold=0.3, min_volume_mm3=7.0))
        self.assertEqual(self.talk.texts("info"), ["The model mine was added."])
        path = self.folder / "models" / "mine"
        self.assertEqual(self.panel.options().model, str(path))
        self.assertIn("0.3", self.ui.thresholdSpinBox.specialValueText)
        self.assertIn("7 mm³", self.ui.minimumVolumeSpinBox.specialValueText)
        self.assertRegex(self.titles()[self.ui.modelComboBox.currentIndex], r"mine 1 \(0.0 MB, yours\)")
        self.assertEqual(self.reopen().options().model, str(path))

    def test_several_in_a_folder_of_which_one_is_refused(self):
        for name in ("several/a", "several/b", "several/c"):
            self.bundle(name)
        (self.folder / "several" / "b" / WEIGHTS_FILE).write_bytes(b"x")
        self.add(self.folder / "several")
        (message,) = self.talk.texts("error")
        self.assertIn("The model several/a was added.\nThe model several/c was added.\n", message)
        self.assertIn("do not have the hash", message)
        self.assertEqual([title.split()[0] for title in self.titles()[-2:]], ["several/a", "several/c"])

    def test_a_file_and_what_is_refused(self):
        self.add(self.bundle("mine") / CARD_FILE, "addModelFileButton")
        self.add(self.bundle("mine") / CARD_FILE, "addModelFileButton")
        (self.folder / "broken.pth").write_bytes(b"x")
        self.add(self.folder / "broken.pth", "addModelFileButton")
        self.add(self.folder / "nowhere")
        taken, broken, nowhere = self.talk.texts("error")
        self.assertRegex(taken, "^A model with the name 'mine' is installed already")
        self.assertIn("nothing in it was run", broken)
        self.assertIn("nowhere", nowhere)
        self.add("", "addModelFileButton")
        self.assertEqual(len(self.talk.texts("error")), 3, "a dialog that was cancelled is no error")

    def test_a_broken_one_is_listed_with_its_reason_and_can_be_removed(self):
        self.add(self.bundle("mine"))
        (self.folder / "models" / "mine" / CARD_FILE).write_text("{}")
        self.reopen()
        # The default takes its place in the list, the choice stays.
        self.choose("mine (cannot be used)")
        (reason,) = self.model_reasons()
        self.assertIn("is not a valid model card", reason)
        self.assertEqual((self.ui.modelFaultLabel.text, self.ui.modelFaultLabel.visible), (reason, True))
        self.assertFalse(self.ui.modelCardButton.visible or self.ui.acceptModelButton.visible)
        self.talk.answer(False, True)
        host.click(self.ui.removeModelButton)
        self.assertTrue((self.folder / "models" / "mine").exists())
        host.click(self.ui.removeModelButton)
        self.assertFalse((self.folder / "models" / "mine").exists())
        self.assertIn(str(self.folder / "models" / "mine"), self.talk.texts("question")[0])
        self.assertEqual(self.panel.options().model, DEFAULT_MODEL)
        self.assertFalse(self.ui.modelFaultLabel.visible)

    def test_missing_weights(self):
        self.add(self.bundle("mine"))
        self.accept()
        (self.folder / "models" / "mine" / WEIGHTS_FILE).unlink()
        self.reopen()
        self.assertRegex(self.model_reasons()[0], "^The weights .* are missing")

    def test_texts_of_a_card_cannot_format_the_panel(self):
        self.add(self.bundle("mine", licence="<a href='x'>free</a>", metrics={"<b>": "<i>"}))
        text = self.ui.modelCardLabel.text
        self.assertNotIn("<a href", text)
        self.assertIn("&lt;a href=&#x27;x&#x27;&gt;", text)
        self.assertNotIn("<i>", text)


class OptionTest(InputTestCase):
    def test_defaults_are_the_model_s(self):
        self.assertEqual(self.panel.options(), RunOptions())

    def test_choices_are_options_and_are_kept(self):
        host.click(self.ui.advancedButton)
        self.ui.thresholdSpinBox.value = 0.25
        self.ui.minimumVolumeSpinBox.value = 0
        host.click(self.ui.lungsOnlyCheckBox)
        self.ui.deviceComboBox.currentIndex = self.ui.deviceComboBox.findData("cpu")
        expected = RunOptions(device="cpu", threshold=0.25, min_volume_mm3=0.0, lung_field="none")
        self.assertEqual(self.panel.options(), expected)
        self.assertEqual(self.reopen().options(), expected)
        self.ui.thresholdSpinBox.value = self.ui.thresholdSpinBox.minimum
        self.ui.minimumVolumeSpinBox.value = self.ui.minimumVolumeSpinBox.minimum
        options = self.reopen().options()
        self.assertEqual((options.threshold, options.min_volume_mm3), (None, None))

    def test_devices_are_those_that_torch_sees(self):
        import torch

        from NLSTSegLib.inference.devices import choose_device
        from NLSTSegLib.widgets.device_chooser import DeviceChooser

        self.enterContext(mock.patch.object(DeviceChooser, "notes", {}))
        as_urgent_as_the_tests(self)
        self.reopen()
        box = self.ui.deviceComboBox
        self.assertEqual([box.itemText(n) for n in range(box.count)], ["Automatic", "CPU"])
        host.process_events(until=lambda: DeviceChooser.notes)
        choices = [box.itemData(n) for n in range(box.count)]
        there = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        self.assertEqual(choices, [choice for choice, is_there in there.items() if is_there])
        precision = choose_device().note.rsplit(", ", 1)[-1]
        self.assertRegex(box.itemText(0), f"^Automatic: .*{precision}$")

    def test_a_kept_card_that_is_gone_is_automatic(self):
        from NLSTSegLib.widgets.device_chooser import DeviceChooser
        from NLSTSegLib.widgets.settings import save_setting

        save_setting("device", "cuda")
        self.assertEqual(self.reopen().options().device, "auto")
        notes = {"auto": "graphics card X, float16", "cpu": "CPU, 8 threads, float32", "cuda": "graphics card X, float16"}
        with mock.patch.object(DeviceChooser, "notes", notes):
            self.assertEqual(self.reopen().options().device, "cuda")
            self.assertEqual(self.ui.deviceComboBox.currentText, "CUDA: graphics card X, float16")
