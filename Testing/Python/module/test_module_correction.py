"""Corrections in the panel: growing and shrinking, adding, splitting, merging, painting, and taking all of it back."""

import numpy as np

from helpers.mrml_nodes import add_transform, rigid_motion
from helpers.review_panel import AXES, SCORE, VOLUME, PanelTestCase, host
from helpers.review_scene import FAINT, LARGE, NEIGHBOUR, UNSEEN


class CorrectionTestCase(PanelTestCase):
    def assert_others_untouched(self, before, *changed: str) -> None:
        found = self.voxels()
        for segment_id in before.keys() - set(changed):
            np.testing.assert_array_equal(found[segment_id], before[segment_id], segment_id)

    def count(self, segment_id: str) -> int:
        return int(self.voxels()[segment_id].sum())


class TestThreshold(CorrectionTestCase):
    def test_slider_stands_at_the_threshold_and_grows_to_the_right(self):
        self.assertEqual((self.ui.thresholdSlider.value, self.ui.thresholdLabel.text), (50, "above 0.50"))
        before = self.voxels()
        self.drag(60, 75)
        grown = self.count("Lesion_01")
        self.assertGreater(grown, before["Lesion_01"].sum())
        self.assertEqual(self.ui.thresholdLabel.text, "above 0.25")
        self.drag(30)
        self.assertLess(self.count("Lesion_01"), before["Lesion_01"].sum())
        self.assert_others_untouched(before, "Lesion_01")
        self.assertEqual(self.statuses(), ["edited", "new", "new"])

    def test_lesion_follows_while_the_slider_is_held(self):
        self.ui.thresholdSlider.sliderDown = True
        sizes, shown = [], []
        for value in (55, 65, 80):
            self.ui.thresholdSlider.value = value
            sizes.append(self.count("Lesion_01"))
            self.wait()
            shown.append(self.volume_mm3("Lesion 01"))
        self.assertEqual(len(set(sizes)), 3)
        self.assertEqual(sizes, sorted(sizes))
        voxel_mm3 = self.ct.voxel_volume_mm3
        np.testing.assert_allclose(shown, np.array(sizes) * voxel_mm3, atol=0.5)
        self.ui.thresholdSlider.sliderDown = False

    def test_neighbour_keeps_every_voxel_however_far_the_lesion_grows(self):
        before = self.voxels()
        self.drag(70, 85, 99)
        self.assertGreater(self.count("Lesion_01"), 2 * before["Lesion_01"].sum())
        self.assert_others_untouched(before, "Lesion_01")
        self.assertFalse((self.voxels()["Lesion_01"] & before["Lesion_02"]).any())

    def test_a_drag_is_one_step_to_undo(self):
        before = self.voxels()
        self.drag(55, 60, 65, 70)
        first = self.voxels()
        self.drag(75, 80)
        host.click(self.ui.undoButton)
        np.testing.assert_equal(self.voxels(), first)
        self.assertEqual(self.ui.thresholdSlider.value, 70)
        host.click(self.ui.undoButton)
        np.testing.assert_equal(self.voxels(), before)
        self.assertEqual((self.ui.thresholdSlider.value, self.ui.undoButton.enabled), (50, False))
        self.assertEqual(self.statuses(), ["new", "new", "new"])
        host.click(self.ui.redoButton)
        np.testing.assert_equal(self.voxels(), first)

    def test_keys_in_a_row_are_one_step_too(self):
        before = self.voxels()
        for _ in range(5):
            host.press_key(self.ui.thresholdSlider, "Right")
        self.wait()
        self.assertEqual(self.ui.thresholdSlider.value, 55)
        host.click(self.ui.undoButton)
        np.testing.assert_equal(self.voxels(), before)
        self.assertFalse(self.ui.undoButton.enabled)

    def test_without_a_map_the_slider_is_disabled_and_says_why(self):
        from NLSTSegLib.scene.review import PROBABILITY_ROLE

        hint = self.ui.thresholdSlider.toolTip
        self.scene.RemoveNode(self.node.GetNodeReference(PROBABILITY_ROLE + "run1"))
        self.click_row("Lesion 02")
        self.assertFalse(self.ui.thresholdSlider.enabled)
        self.assertIn("the probability map of 'Lesion 02' is not in the scene", self.ui.thresholdSlider.toolTip)
        self.assertNotIn("probability map of", hint)

    def test_with_several_lesions_selected_none_grows(self):
        self.click_row("Lesion 01")
        self.click_row("Lesion 02", "Ctrl+")
        self.assertFalse(self.ui.thresholdSlider.enabled)
        self.assertEqual(self.ui.thresholdSlider.toolTip, "Select one lesion to grow or shrink it.")


class TestAdding(CorrectionTestCase):
    def click_at_voxel(self, ijk) -> None:
        import slicer

        point = tuple(self.at(ijk))
        slicer.modules.markups.logic().JumpSlicesToLocation(*point, True)
        host.click(self.ui.addButton)
        self.assertTrue(self.ui.addButton.checked)
        host.click_slice("Red", point)
        host.process_events(until=lambda: not self.ui.addButton.checked)

    def points(self):
        import slicer

        return slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")

    def test_missed_lesion_is_taken_from_the_map_by_a_click_in_a_slice_view(self):
        before = self.voxels()
        self.click_at_voxel(FAINT.centre_ijk)
        self.assertEqual(self.statuses(), ["new", "new", "new", "edited"])
        self.assertEqual(self.selected(), ["Lesion 04"])
        self.assertTrue(self.voxels()["Lesion_04"][FAINT.centre_ijk[::-1]])
        self.assertAlmostEqual(float(self.cell(self.row_of("Lesion 04"), SCORE)), 0.4, delta=0.02)
        self.assert_others_untouched(before)
        self.assertEqual((self.points(), self.talk.messages), ([], []), "the point is used up, nothing was asked")
        host.click(self.ui.undoButton)
        self.assertEqual(len(self.column()), 3)

    def test_lesion_beside_another_takes_no_voxel_of_it(self):
        self.click_row("Lesion 02")
        host.click(self.ui.deleteButton)
        before = self.voxels()
        self.click_at_voxel(NEIGHBOUR.centre_ijk)
        self.assertEqual(self.selected(), ["Lesion 04"])
        self.assert_others_untouched(before)
        self.assertFalse((self.voxels()["Lesion_04"] & before["Lesion_01"]).any())

    def test_click_at_the_rim_of_a_lesion_offers_to_grow_that_one(self):
        before, rim = self.voxels(), (LARGE.centre_ijk[0], LARGE.centre_ijk[1] + 12, LARGE.centre_ijk[2])
        self.talk.answer(True)
        self.click_at_voxel(rim)
        self.assertEqual((self.statuses(), self.selected()), (["edited", "new", "new"], ["Lesion 01"]))
        self.assertTrue(self.voxels()["Lesion_01"][rim[::-1]])
        self.assertTrue((self.voxels()["Lesion_01"] >= before["Lesion_01"]).all())
        self.assert_others_untouched(before, "Lesion_01")
        self.assertRegex(self.talk.texts("question")[0], "touches Lesion 01. Grow Lesion 01 to take it in")
        host.click(self.ui.undoButton)
        np.testing.assert_equal(self.voxels(), before)
        self.talk.answer(False)
        self.click_at_voxel(rim)
        self.assertEqual(self.statuses(), ["new", "new", "new", "edited"])
        self.assert_others_untouched(before)

    def test_where_the_model_sees_nothing_it_asks_and_marks_the_lesion_as_manual(self):
        from NLSTSegLib.scene.lesion_state import lesion_state

        self.talk.answer(False, True)
        self.click_at_voxel(UNSEEN.centre_ijk)
        self.assertEqual(len(self.column()), 3, "declined")
        self.assertFalse(self.ui.undoButton.enabled)
        self.click_at_voxel(UNSEEN.centre_ijk)
        self.assertEqual(self.selected(), ["Lesion 04"])
        self.assertEqual(lesion_state(self.node, "Lesion_04").origin, "manual")
        self.assertEqual(self.cell(self.row_of("Lesion 04"), SCORE), "-")
        self.assertRegex(self.talk.texts("question")[0], "sees no lesion there.*marked as manual")

    def test_click_on_a_lesion_or_in_lung_says_why_not_in_the_panel(self):
        self.click_at_voxel(LARGE.centre_ijk)
        self.assertIn("lies on 'Lesion 01' already", self.ui.statusLabel.text)
        self.click_at_voxel((55, 35, 20))
        self.assertIn("air or healthy lung", self.ui.statusLabel.text)
        self.assertEqual((len(self.column()), self.talk.messages, self.points()), (3, [], []))

    def test_placing_is_left_by_the_button_or_the_mouse_mode(self):
        import slicer

        interaction = slicer.app.applicationLogic().GetInteractionNode()
        host.click(self.ui.addButton)
        self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.Place)
        host.click(self.ui.addButton)
        self.assertEqual((interaction.GetCurrentInteractionMode(), self.points()), (interaction.ViewTransform, []))
        host.click(self.ui.addButton)
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        host.process_events(until=lambda: not self.ui.addButton.checked)
        self.assertEqual((self.points(), len(self.column())), ([], 3))

    def test_the_reader_s_own_list_of_points_is_the_active_one_again(self):
        selection = self.app.applicationLogic().GetSelectionNode()
        own = self.scene.AddNewNodeByClass("vtkMRMLMarkupsCurveNode", "own")
        for before in (own, None):
            # As after it was chosen in the list of Slicer's module Markups.
            selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsCurveNode")
            selection.SetReferenceActivePlaceNodeID(before and before.GetID())
            host.click(self.ui.addButton)
            self.assertEqual(selection.GetActivePlaceNodeClassName(), "vtkMRMLMarkupsFiducialNode")
            host.click(self.ui.addButton)
            self.assertIs(self.scene.GetNodeByID(selection.GetActivePlaceNodeID() or ""), before)
            self.assertEqual(selection.GetActivePlaceNodeClassName(), "vtkMRMLMarkupsCurveNode")

    def test_a_list_that_is_chosen_while_a_point_is_waited_for_stays_active(self):
        import slicer

        selection = self.app.applicationLogic().GetSelectionNode()
        host.click(self.ui.addButton)
        chosen = self.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "chosen")
        slicer.modules.markups.logic().SetActiveList(chosen)
        host.click(self.ui.addButton)
        self.assertEqual(selection.GetActivePlaceNodeID(), chosen.GetID())

    def test_the_point_leaves_nothing_in_the_scene(self):
        import slicer

        def nodes():
            return {self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes())}

        # Slicer's module Data would sweep up what is left, where it is loaded.
        data = slicer.modules.data.logic()
        data.SetMRMLScene(None)
        self.addCleanup(data.SetMRMLScene, self.scene)
        host.click(self.ui.addButton)
        host.click(self.ui.addButton)
        before = nodes()
        host.click(self.ui.addButton)
        self.assertGreater(nodes(), before)
        host.click(self.ui.addButton)
        self.assertEqual(nodes(), before)

    def test_under_a_transform_the_lesion_is_found_where_it_is_shown(self):
        motion = add_transform(self.scene, rigid_motion())
        for node in (self.volume_node, self.node):
            node.SetAndObserveTransformNodeID(motion.GetID())
        self.click_at_voxel(FAINT.centre_ijk)
        self.assertTrue(self.voxels()["Lesion_04"][FAINT.centre_ijk[::-1]])


class TestShape(CorrectionTestCase):
    PLATE = (slice(12, 13), slice(23, 25), slice(18, 40))
    """Reaches from the first lesion over the gap into its neighbour."""

    def test_merge_and_split(self):
        before = self.voxels()
        self.click_row("Lesion 01")
        self.assertFalse(self.ui.mergeButton.enabled)
        self.click_row("Lesion 02", "Ctrl+")
        self.assertFalse(self.ui.splitButton.enabled)
        host.click(self.ui.mergeButton)
        self.assertEqual((self.column(), self.selected()), (["Lesion 01", "Lesion 03"], ["Lesion 01"]))
        np.testing.assert_array_equal(self.voxels()["Lesion_01"], before["Lesion_01"] | before["Lesion_02"])
        host.click(self.ui.splitButton)
        self.assertEqual(self.statuses(), ["edited", "new", "edited"])
        np.testing.assert_array_equal(self.voxels()["Lesion_04"], before["Lesion_02"])
        host.click(self.ui.undoButton)
        host.click(self.ui.undoButton)
        np.testing.assert_equal(self.voxels(), before)
        self.assertEqual(self.statuses(), ["new", "new", "new"])

    def test_lesion_without_a_waist_is_not_split_and_the_panel_says_why(self):
        before = self.voxels()
        host.click(self.ui.splitButton)
        self.assertIn("has no waist", self.ui.statusLabel.text)
        np.testing.assert_equal(self.voxels(), before)
        self.assertFalse(self.ui.undoButton.enabled)
        self.click_row("Lesion 02")
        self.assertFalse(self.ui.statusLabel.visible)

    def test_delete_leaves_the_selection_to_the_next_row(self):
        self.click_row("Lesion 02")
        host.click(self.ui.deleteButton)
        self.assertEqual((self.column(), self.selected()), (["Lesion 01", "Lesion 03"], ["Lesion 03"]))
        host.click(self.ui.undoButton)
        self.assertEqual(self.column(), ["Lesion 01", "Lesion 02", "Lesion 03"])

    def test_painting_never_erases_another_lesion(self):
        before = self.voxels()
        self.paint("Lesion_01", self.PLATE)
        self.assertGreater(self.count("Lesion_01"), before["Lesion_01"].sum())
        self.assert_others_untouched(before, "Lesion_01")
        editor_node = self.segment_editor.mrmlSegmentEditorNode()
        self.assertEqual(editor_node.GetOverwriteMode(), editor_node.OverwriteNone)
        self.assertEqual(editor_node.GetSingletonTag(), "NLSTSeg")

    def test_table_follows_edits_by_anyone_and_only_the_changed_row(self):
        before = self.column(VOLUME), self.column(AXES)
        self.paint("Lesion_03", (slice(29, 31), slice(52, 54), slice(22, 26)), value=False)
        self.assertEqual((self.column(VOLUME)[:2], self.column(AXES)[:2]), (before[0][:2], before[1][:2]))
        voxel_mm3 = self.ct.voxel_volume_mm3
        self.assertEqual(self.cell(2, VOLUME), f"{self.count('Lesion_03') * voxel_mm3:.0f} mm³")
        self.node.GetSegmentation().GetSegment("Lesion_03").SetName("Apex")
        self.node.GetSegmentation().AddEmptySegment("extra", "Extra")
        self.wait()
        self.assertEqual(self.column(), ["Lesion 01", "Lesion 02", "Apex", "Extra"])
        self.assertEqual(self.cell(3, AXES), "-")
        self.click_row("Extra")
        self.assertIn("'Extra' has no voxels", self.ui.statusLabel.text)
        self.assertIn("no voxels to grow from", self.ui.thresholdSlider.toolTip)
        self.node.GetSegmentation().RemoveSegment("extra")
        self.wait()
        self.assertEqual(self.selected(), ["Apex"])

    def test_a_burst_of_changes_is_shown_once(self):
        shown = []
        update = self.panel._lesions.update
        self.panel._lesions.update = lambda: shown.append(update())
        segmentation = self.node.GetSegmentation()
        for number in range(20):
            segmentation.GetSegment("Lesion_02").SetName(f"Name {number}")
        self.wait()
        self.assertEqual(shown, [set()], "once, and nothing is measured again")
        self.assertIn("Name 19", self.column())

    def test_steps_of_all_kinds_are_undone_and_redone_in_their_order(self):
        states = [(self.voxels(), self.statuses())]

        def done():
            self.wait()
            states.append((self.voxels(), self.statuses()))

        self.panel.arrive()
        host.click(self.ui.acceptButton)
        done()
        self.paint("Lesion_02", (slice(11, 14), slice(29, 31), slice(36, 40)))
        done()
        self.drag(60, 66)
        done()
        self.click_row("Lesion 03")
        host.click(self.ui.deleteButton)
        done()
        for expected in states[-2::-1]:
            host.click(self.ui.undoButton)
            np.testing.assert_equal((self.voxels(), self.statuses()), expected)
        self.assertFalse(self.ui.undoButton.enabled)
        for expected in states[1:]:
            host.click(self.ui.redoButton)
            np.testing.assert_equal((self.voxels(), self.statuses()), expected)
        self.assertFalse(self.ui.redoButton.enabled)

    def test_only_tools_that_correct_an_outline_are_offered_and_none_stays_on(self):
        import slicer

        host.click(self.ui.segmentEditorButton)
        buttons = {each.text: each for each in slicer.util.findChildren(self.segment_editor, className="QToolButton")}
        self.assertLessEqual({"Paint", "Erase", "Scissors", "Draw", "Islands", "Smoothing"}, buttons.keys())
        self.assertNotIn("Threshold", buttons)
        host.click(buttons["Paint"])
        self.assertEqual(self.segment_editor.activeEffect().name, "Paint")
        self.assertIs(self.segment_editor.sourceVolumeNode(), self.volume_node)
        self.panel.exit()
        self.assertIsNone(self.segment_editor.activeEffect())


class TestSegmentEditor(CorrectionTestCase):
    def setUp(self):
        super().setUp()
        host.click(self.ui.segmentEditorButton)

    def part(self, name: str):
        import slicer

        (found,) = slicer.util.findChildren(self.segment_editor, name=name)
        return found

    def test_its_own_list_of_segments_and_its_buttons_for_undo_are_not_shown(self):
        self.assertTrue(self.segment_editor.isVisible())
        for name in ("SegmentsTableResizableFrame", "UndoButton", "RedoButton"):
            self.assertFalse(self.part(name).isVisible(), name)

    def test_painting_is_limited_by_nothing_when_a_review_is_shown(self):
        node = self.segment_editor.mrmlSegmentEditorNode()
        node.SetSourceVolumeIntensityMask(True)
        node.SetMaskMode(node.GetMaskMode() + 1)
        self.panel.show(None)
        self.panel.show(self.node)
        self.assertEqual((node.GetSourceVolumeIntensityMask(), node.GetMaskMode()), (False, self.node.EditAllowedEverywhere))
        self.assertEqual(self.limits(), "")

    def test_a_limit_to_painting_is_said_though_the_section_was_closed(self):
        host.click(self.ui.segmentEditorButton)
        node = self.segment_editor.mrmlSegmentEditorNode()
        node.SetSourceVolumeIntensityMaskRange(-600, 200)
        # What the editor's key I does.
        self.segment_editor.toggleSourceVolumeIntensityMaskEnabled()
        self.assertEqual(self.limits(), "Painting is limited to voxels of -600 to 200 HU (key I).")
        self.assertFalse(self.ui.segmentEditorButton.collapsed)
        self.segment_editor.toggleSourceVolumeIntensityMaskEnabled()
        self.assertEqual(self.limits(), "")

    def limits(self) -> str:
        """What the panel says."""
        import slicer

        labels = slicer.util.findChildren(self.ui.segmentEditorButton, className="QLabel")
        return "".join(label.text for label in labels if label.isVisible())

    def test_no_tool_works_while_no_review_is_shown(self):
        import slicer

        self.panel.show(None)
        self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "stranger")
        self.scene.StartState(self.scene.ImportState)
        self.scene.EndState(self.scene.ImportState)
        buttons = {each.text: each for each in slicer.util.findChildren(self.segment_editor, className="QToolButton")}
        self.assertFalse(buttons["Paint"].enabled)
        self.panel.show(self.node)
        self.assertTrue(buttons["Paint"].enabled)

    def test_the_review_is_what_is_edited_also_after_an_import_into_the_scene(self):
        import slicer

        first = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "imported")
        self.segment_editor.setSegmentationNode(first)
        host.process_events()
        self.assertIs(self.segment_editor.segmentationNode(), self.node)
        buttons = {each.text: each for each in slicer.util.findChildren(self.segment_editor, className="QToolButton")}
        host.click(buttons["Paint"])
        self.scene.StartState(self.scene.ImportState)
        self.scene.EndState(self.scene.ImportState)
        host.process_events()
        self.assertIs(self.segment_editor.segmentationNode(), self.node)
        self.assertIs(self.segment_editor.sourceVolumeNode(), self.volume_node)
