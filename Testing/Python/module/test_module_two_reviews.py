"""The panel with later runs, with saved and loaded scenes, with a scene that is closed, and with two reviews in one scene."""

import numpy as np

from helpers.example_results import oblique_direction
from helpers.review_panel import LATER, NAME, PanelTestCase, host
from helpers.review_scene import FAINT, begin, soft_result, tags_of


class TestLaterRun(PanelTestCase):
    def setUp(self):
        super().setUp()
        self.later_result = soft_result(self.ct, LATER)

    def offer(self):
        later = begin(self.later_result, self.volume_node)
        self.panel.offer_run(later)
        return later

    def listed(self) -> list[str]:
        box = self.ui.laterRunList
        return [box.item(row).text() for row in range(box.count)]

    def choose(self, row: int) -> None:
        box = self.ui.laterRunList
        if host.inside_slicer():
            box.setCurrentRow(row)
            return
        place = box.visualItemRect(box.item(row)).center()
        host.click_at(box.viewport(), place.x(), place.y())

    def content(self, node=None):
        node = node or self.node
        return self.voxels(node), {each: tags_of(node, each) for each in node.GetSegmentation().GetSegmentIDs()}

    def test_it_is_counted_beside_the_review_which_stays_as_it_is(self):
        before = self.content()
        self.assertFalse(self.ui.laterRunBox.visible)
        later = self.offer()
        self.assertEqual(self.ui.laterRunLabel.text, "1 added, 1 changed, 1 gone")
        self.assertEqual(
            self.listed(),
            ["added: 10.5 mm, 522 mm³, score 1.00, 10", "Lesion 02: now 9.5 mm, 404 mm³, score 0.98, 12", "Lesion 03: gone"],
        )
        np.testing.assert_equal(self.content(), before)
        self.assertIs(self.panel.segmentation_node, self.node)
        self.assertFalse(later.GetDisplayNode().GetVisibility())

    def test_it_can_be_shown_over_the_review(self):
        later = self.offer()
        host.click(self.ui.showRunButton)
        self.assertTrue(later.GetDisplayNode().GetVisibility())
        self.assertFalse(later.GetDisplayNode().GetVisibility2DFill())
        self.choose(0)
        self.assert_views_at("Lesion_02", later)
        self.choose(2)
        self.assert_views_at("Lesion_03")
        host.click(self.ui.showRunButton)
        self.assertFalse(later.GetDisplayNode().GetVisibility())

    def test_added_and_changed_lesions_are_taken_over_and_undone(self):
        before, later = self.voxels(), self.offer()
        host.click(self.ui.takeAddedButton)
        self.assertEqual(self.column(), ["Lesion 01", "Lesion 04", "Lesion 02", "Lesion 03"])
        np.testing.assert_array_equal(self.voxels()["Lesion_04"], self.voxels(later)["Lesion_02"])
        self.assertEqual(self.ui.laterRunLabel.text, "0 added, 1 changed, 1 gone")
        self.assertFalse(self.ui.takeAddedButton.enabled or self.ui.takeSelectedButton.enabled)
        self.choose(0)
        host.click(self.ui.takeSelectedButton)
        np.testing.assert_array_equal(self.voxels()["Lesion_02"], self.voxels(later)["Lesion_03"])
        self.assertEqual(self.status("Lesion_02"), "new")
        host.click(self.ui.undoButton)
        host.click(self.ui.undoButton)
        np.testing.assert_equal(self.voxels(), before)
        self.assertEqual(self.ui.laterRunLabel.text, "1 added, 1 changed, 1 gone")

    def test_reviewed_lesion_is_never_touched(self):
        self.click_row("Lesion 02")
        host.click(self.ui.acceptButton)
        before = self.content()
        self.offer()
        self.assertIn("Lesion 02 was reviewed and stays; now 9.5 mm, 404 mm³, score 0.98, 12", self.listed())
        self.choose(1)
        self.assertFalse(self.ui.takeSelectedButton.enabled)
        host.click(self.ui.takeAddedButton)
        found = self.content()
        for part, part_before in zip(found, before, strict=True):
            np.testing.assert_equal({each: part[each] for each in part_before}, part_before)

    def test_decision_after_the_offer_protects_the_lesion_too(self):
        self.offer()
        self.click_row("Lesion 02")
        host.click(self.ui.acceptButton)
        self.assertIn("Lesion 02 was reviewed and stays; now 9.5 mm, 404 mm³, score 0.98, 12", self.listed())

    def test_one_click_or_one_undo_takes_it_away(self):
        nodes, before = self.scene.GetNumberOfNodes(), self.content()
        for button in (self.ui.removeRunButton, self.ui.undoButton):
            self.offer()
            host.click(button)
            self.assertFalse(self.ui.laterRunBox.visible)
            self.assertEqual(self.scene.GetNumberOfNodes(), nodes)
            np.testing.assert_equal(self.content(), before)
        self.assertFalse(self.ui.undoButton.enabled)

    def test_undo_after_an_edit_takes_back_the_edit_and_leaves_the_run(self):
        self.offer()
        self.panel.arrive()
        host.click(self.ui.acceptButton)
        host.click(self.ui.undoButton)
        self.assertEqual(self.statuses(), ["new", "new", "new"])
        self.assertTrue(self.ui.laterRunBox.visible)

    def test_it_can_be_reviewed_instead(self):
        later = self.offer()
        host.click(self.ui.showRunButton)
        self.panel.show(later)
        self.assertFalse(self.ui.laterRunBox.visible)
        self.assertTrue(later.GetDisplayNode().GetVisibility() and later.GetDisplayNode().GetVisibility2DOutline())
        self.assertEqual(later.GetDisplayNode().GetSliceIntersectionThickness(), 1)
        self.assertFalse(self.node.GetDisplayNode().GetVisibility())

    def test_run_of_another_ct_is_refused_in_the_panel(self):
        self.panel.offer_run(begin(self.later_result, self.add_ct("Other")))
        self.assertIn("belongs to another CT", self.ui.statusLabel.text)
        self.assertFalse(self.ui.laterRunBox.visible)

    def test_run_that_somebody_else_removes_closes_the_box(self):
        self.scene.RemoveNode(self.offer())
        self.assertFalse(self.ui.laterRunBox.visible)
        host.click(self.ui.acceptButton)


class TestSaved(PanelTestCase):
    # Slicer turns a CT with left-handed axes round when it loads it.
    direction_lps = oblique_direction((1, 0, 2), (1, -1, 1))

    def review(self) -> dict:
        """What was decided, drawn and told."""
        self.click_row("Lesion 01")
        host.click(self.ui.acceptButton)
        host.click(self.ui.rejectButton)
        self.drag(65)
        return {each: tags_of(self.node, each) for each in self.node.GetSegmentation().GetSegmentIDs()}

    def test_scene_that_is_saved_and_loaded_brings_the_review_back(self):
        import slicer

        self.review()
        host.click(self.ui.rulersCheckBox)
        shown = [self.column(column) for column in range(8)]
        voxels, path = self.voxels(), self.temporary_folder() / "review.mrb"
        self.assertTrue(slicer.util.saveScene(str(path)))
        self.scene.Clear()
        self.assertEqual((self.column(), self.ui.summaryLabel.text), ([], ""))
        slicer.util.loadScene(str(path))
        self.node, self.volume_node = slicer.util.getNode("CT lesions"), slicer.util.getNode("CT")
        self.panel.show(self.node)
        self.assertEqual([self.column(column) for column in range(8)], shown)
        self.assertFalse(self.node.GetDisplayNode().GetSegmentVisibility("Lesion_02"))
        np.testing.assert_equal(self.voxels(), voxels)
        self.click_row("Lesion 03")
        self.assertEqual((self.ui.thresholdSlider.enabled, self.ui.thresholdSlider.value), (True, 65))
        self.drag(50)
        np.testing.assert_array_equal(self.voxels()["Lesion_03"], self.voxels(self.proposals())["Lesion_03"])
        host.click(self.ui.undoButton)
        np.testing.assert_equal(self.voxels(), voxels)

    def proposals(self):
        from NLSTSegLib.scene.review import PROPOSAL_ROLE

        return self.node.GetNodeReference(PROPOSAL_ROLE + "run1")

    def test_seg_nrrd_on_its_ct_brings_the_decisions_back(self):
        import slicer

        from NLSTSegLib.scene.review import resume_review
        from NLSTSegLib.scene.segmentation_file import write_segmentation_node

        tags, path = self.review(), self.temporary_folder() / "lesions.seg.nrrd"
        shown = [self.column(column) for column in range(8)]
        write_segmentation_node(self.node, path)
        self.panel.show(None)
        self.node = slicer.util.loadSegmentation(str(path), {})
        resume_review(self.node, self.volume_node)
        self.panel.show(self.node)
        self.assertEqual([self.column(column) for column in range(8)], shown)
        self.assertEqual(tags_of(self.node, "Lesion_01")["NLSTSeg.Status"], tags["Lesion_01"]["NLSTSeg.Status"])
        self.assertFalse(self.node.GetDisplayNode().GetSegmentVisibility("Lesion_02"))
        self.assertIn("not in the scene", self.ui.thresholdSlider.toolTip)
        self.click_row("Lesion 03")
        host.click(self.ui.acceptButton)
        self.assertEqual(self.statuses(), ["accepted", "rejected", "accepted"])

    def test_segmentation_that_lies_on_no_ct_says_so(self):
        import slicer

        from NLSTSegLib.scene.segmentation_file import write_segmentation_node

        path = self.temporary_folder() / "lesions.seg.nrrd"
        write_segmentation_node(self.node, path)
        self.panel.show(slicer.util.loadSegmentation(str(path), {"name": "Loaded"}))
        self.assertIn("the CT of the segmentation 'Loaded' is not in the scene", self.ui.statusLabel.text)
        self.assertEqual(self.column(), [])
        self.panel.show(self.node)
        self.assertEqual((len(self.column()), self.ui.statusLabel.text), (3, ""))


class TestClosedScene(PanelTestCase):
    def assert_empty(self):
        host.process_events()
        self.assertIsNone(self.panel.segmentation_node)
        self.assertEqual((self.column(), self.ui.summaryLabel.text), ([], ""))
        self.assertFalse(self.ui.laterRunBox.visible or self.ui.addButton.checked or self.ui.undoButton.enabled)
        self.assertIsNone(self.segment_editor.segmentationNode())

    def test_at_every_stage_it_leaves_an_empty_panel_that_works_again(self):
        import slicer

        def hold_the_slider():
            self.ui.thresholdSlider.sliderDown = True
            self.ui.thresholdSlider.value = 60

        def paint():
            self.segment_editor.setActiveEffectByName("Paint")
            self.segment_editor.saveStateForUndo()

        stages = {
            "shown": lambda: None,
            "decided": lambda: host.click(self.ui.rejectButton),
            "placing a point": lambda: host.click(self.ui.addButton),
            "slider held": hold_the_slider,
            "painting": paint,
            "rulers and surface": lambda: (host.click(self.ui.rulersCheckBox), host.click(self.ui.surfaceCheckBox)),
            "run offered": lambda: self.panel.offer_run(begin(soft_result(self.ct, LATER), self.volume_node)),
            "change not shown yet": lambda: self.node.GetSegmentation().GetSegment("Lesion_01").SetName("x"),
        }
        for stage, act in stages.items():
            with self.subTest(stage=stage):
                act()
                slicer.mrmlScene.Clear()
                self.ui.thresholdSlider.sliderDown = False
                self.assert_empty()
                self.volume_node = self.add_ct("CT")
                self.node = begin(self.result, self.volume_node)
                self.panel.show(self.node)
                self.assertEqual((self.statuses(), self.ui.undoButton.enabled), (["new", "new", "new"], False))
                editor_node = self.segment_editor.mrmlSegmentEditorNode()
                self.assertEqual(editor_node.GetOverwriteMode(), editor_node.OverwriteNone)
                self.assertIsNone(self.segment_editor.activeEffect())

    def test_removed_segmentation_and_removed_ct(self):
        self.scene.RemoveNode(self.volume_node)
        self.wait()
        self.assertEqual(self.column(), [])
        self.assertIn("is not in the scene", self.ui.statusLabel.text)
        self.scene.RemoveNode(self.node)
        self.assert_empty()

    def test_nothing_of_the_panel_is_left_in_the_scene(self):
        nodes = self.scene.GetNumberOfNodes()
        host.click(self.ui.rulersCheckBox)
        host.click(self.ui.addButton)
        self.panel.show(None)
        self.assertEqual(self.scene.GetNumberOfNodes(), nodes - 1, "the parameters for changing the lesions are gone too")


class TestTwoReviews(PanelTestCase):
    def setUp(self):
        super().setUp()
        self.other_volume = self.add_ct("Other")
        self.other = begin(soft_result(self.ct, LATER), self.other_volume)

    def background(self):
        import slicer

        return slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()

    def test_each_keeps_its_own_lesions_decisions_and_ct(self):
        host.click(self.ui.rejectButton)
        before = self.voxels(self.node)
        self.panel.show(self.other)
        self.assertEqual(self.statuses(), ["new", "new", "new"])
        self.assertFalse(self.ui.undoButton.enabled, "steps of the other review are not undone in this one")
        self.assertEqual(self.background(), self.other_volume.GetID())
        self.assertIs(self.segment_editor.sourceVolumeNode(), self.other_volume)
        self.click_row("Lesion 03")
        self.drag(80)
        self.assertEqual([self.status(f"Lesion_0{n}", self.other) for n in (1, 2, 3)], ["new", "new", "edited"])
        np.testing.assert_equal(self.voxels(self.node), before)
        self.assertEqual([self.status(f"Lesion_0{n}") for n in (1, 2, 3)], ["rejected", "new", "new"])
        self.panel.show(self.node)
        self.assertEqual(self.statuses(), ["rejected", "new", "new"])
        self.assertEqual(self.background(), self.volume_node.GetID())
        self.assertIs(self.segment_editor.sourceVolumeNode(), self.volume_node)

    def test_lesions_of_the_other_ct_are_not_drawn_over_this_one(self):
        self.panel.show(self.other)
        self.assertFalse(self.node.GetDisplayNode().GetVisibility())
        self.panel.show(self.node)
        self.assertTrue(self.node.GetDisplayNode().GetVisibility())
        self.assertFalse(self.other.GetDisplayNode().GetVisibility())

    def test_changes_of_the_one_that_is_not_shown_change_nothing_in_the_panel(self):
        self.other.GetSegmentation().RemoveSegment("Lesion_01")
        self.wait()
        self.assertEqual(self.column(NAME), ["Lesion 01", "Lesion 02", "Lesion 03"])

    def test_rulers_and_a_point_to_place_belong_to_the_review_that_is_shown(self):
        import slicer

        host.click(self.ui.rulersCheckBox)
        host.click(self.ui.addButton)
        self.panel.show(self.other)
        self.assertFalse(self.ui.addButton.checked)
        lines = slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")
        self.assertEqual({line.GetAttribute("NLSTSeg.Ruler").split()[1] for line in lines}, {self.other.GetID()})
        self.assertEqual(len(lines), 2)

    def test_lesion_is_added_to_the_review_that_is_shown(self):
        import slicer

        self.panel.show(self.other)
        self.click_row("Lesion 02")
        host.click(self.ui.deleteButton)
        point = tuple(self.at(FAINT.centre_ijk))
        slicer.modules.markups.logic().JumpSlicesToLocation(*point, True)
        host.click(self.ui.addButton)
        host.click_slice("Red", point)
        host.process_events(until=lambda: not self.ui.addButton.checked)
        self.assertEqual(self.other.GetSegmentation().GetNumberOfSegments(), 3)
        self.assertEqual(self.node.GetSegmentation().GetNumberOfSegments(), 3)
        self.assertIn("Lesion 04", self.column())
