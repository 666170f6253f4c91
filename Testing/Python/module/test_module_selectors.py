"""The CT and the segmentation that the module shows: those that a person chose, and none once they have gone."""

import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from helpers.forked_command import forked_jobs
from helpers.mrml_nodes import add_transform, add_volume
from helpers.review_scene import begin, ct_with_balls, soft_result
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

ROOT = Path(__file__).resolve().parents[3]


class SelectorTestCase(ModuleTestCase):
    """Three CTs with a review each, in ``self.cts`` and ``self.reviews``; the second is shown."""

    names = ("one", "two", "three")

    def setUp(self):
        super().setUp()
        self.enterContext(forked_jobs())
        self.widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
        ct = ct_with_balls()
        result = soft_result(ct)
        self.cts, self.reviews = [], []
        for name in self.names:
            self.cts.append(add_volume(ct, name))
            self.cts[-1].CreateDefaultDisplayNodes()
            self.reviews.append(begin(result, self.cts[-1]))
        self.choose_ct(self.cts[1])

    def choose_ct(self, node):
        host.choose(self.widget.input.ui.volumeSelector, node)

    def choose_segmentation(self, node):
        host.choose(self.widget.segmentations.widget, node)

    def shown(self):
        """The CT that would be run and checked, the segmentation that is reviewed, and that which would be exported."""
        widget = self.widget
        return widget.request()[0], widget.lesions.segmentation_node, widget.export._segmentation_node

    def places(self):
        """What a review changes of a segmentation that it takes up."""
        role = self.reviews[0].GetReferenceImageGeometryReferenceRole()
        return [(node.GetTransformNodeID(), node.GetNodeReferenceID(role)) for node in self.reviews if node.GetScene()]


class GoneTest(SelectorTestCase):
    def test_a_chosen_ct_comes_with_its_review(self):
        self.assertEqual(self.shown(), (self.cts[1], self.reviews[1], self.reviews[1]))

    def test_of_two_reviews_the_newest_comes_with_its_ct(self):
        newest = begin(soft_result(ct_with_balls()), self.cts[0])
        self.choose_ct(self.cts[0])
        self.assertEqual(self.shown(), (self.cts[0], newest, newest))

    def test_nothing_is_shown_once_the_ct_was_unloaded_or_hidden(self):
        for node, go in ((self.cts[1], self.scene.RemoveNode), (self.cts[0], lambda node: node.SetHideFromEditors(True))):
            self.choose_ct(node)
            go(node)
            host.process_events()
            self.assertEqual(self.shown(), (None, None, None))
            self.assertIn("Choose the CT to segment.", self.widget.input.reasons())

    def test_no_review_is_shown_and_none_changed_once_the_segmentation_was_removed(self):
        motion = add_transform(self.scene, np.diag([1.0, 1, 1, 1]))
        for stranger in (self.reviews[0], self.reviews[2]):
            stranger.SetAndObserveTransformNodeID(motion.GetID())
        before = self.places()
        self.scene.RemoveNode(self.reviews[1])
        host.process_events()
        self.assertEqual(self.shown(), (self.cts[1], None, None))
        self.assertEqual(self.places(), [before[0], before[2]])

    def test_closing_the_scene_shows_nothing(self):
        self.scene.Clear()
        host.process_events()
        self.assertEqual(self.shown(), (None, None, None))

    def test_what_is_loaded_into_the_scene_leaves_the_review_on(self):
        self.widget.lesions.ui.lesionTable.setCurrentCell(1, 0)
        self.scene.StartState(self.scene.ImportState)
        self.scene.EndState(self.scene.ImportState)
        host.process_events()
        self.assertEqual(self.shown(), (self.cts[1], self.reviews[1], self.reviews[1]))
        self.assertEqual(self.widget.lesions.ui.lesionTable.currentRow(), 1)
        self.assertIs(self.widget.input.ui.volumeSelector.currentNode(), self.cts[1])


class EqualNamesTest(SelectorTestCase):
    names = ("CT", "CT", "CT")

    def setUp(self):
        super().setUp()
        for node in self.reviews:
            node.SetName("CT lesions")

    def test_what_is_checked_and_run_is_the_ct_that_is_shown(self):
        import slicer

        slicer.util.arrayFromVolume(self.cts[2])[:] = 0
        self.choose_ct(self.cts[2])
        self.assertIn("All voxels have the value 0", " ".join(self.widget.input.reasons()))
        self.assertEqual(self.shown()[:2], (self.cts[2], self.reviews[2]))

    def test_a_ct_that_a_script_selects_is_checked_before_a_run(self):
        import slicer

        slicer.util.arrayFromVolume(self.cts[2])[:] = 0
        self.widget.input.ui.volumeSelector.setCurrentNode(self.cts[2])
        self.assertIn("All voxels have the value 0", " ".join(self.widget.input.reasons()))

    def test_the_lesions_are_those_of_the_segmentation_that_was_chosen(self):
        self.choose_segmentation(self.reviews[0])
        self.assertEqual(self.shown(), (self.cts[0], self.reviews[0], self.reviews[0]))

    def test_the_one_of_equal_name_does_not_follow_the_one_that_was_removed(self):
        self.scene.RemoveNode(self.cts[1])
        host.process_events()
        self.assertEqual(self.shown(), (None, None, None))


class ReloadTest(SelectorTestCase):
    def test_the_panel_before_lets_go_once_and_hears_nothing_any_more(self):
        import slicer

        # The library is imported anew; the other tests go on with the one that they have.
        self.enterContext(mock.patch.dict(sys.modules))
        before = self.widget
        with mock.patch.object(before.input, "close", wraps=before.input.close) as close:
            before.onReload()
        self.assertEqual(close.call_count, 1)
        again = slicer.util.getModuleWidget("NLSTSeg")
        self.assertIs(again.input.volume_node, self.cts[1])
        editor = again.lesions._segment_editor.widget
        editor.setActiveEffectByName("Paint")
        self.assertIsNone(before.lesions._segment_editor.widget.activeEffect(), "it would paint twice")
        told = []
        before.input._on_change = lambda: told.append("CT")
        host.choose(before.input.ui.volumeSelector, self.cts[0])
        self.scene.RemoveNode(self.cts[0])
        self.assertEqual((told, again.input.volume_node), ([], self.cts[1]))


if __name__ == "__main__":
    unittest.main()
