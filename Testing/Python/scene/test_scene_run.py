"""A run on a volume node: the CT goes out exactly, the result comes back under review, and nothing happens half."""

import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers.child_processes import own_temporary_folder, wait_until
from helpers.example_results import ct_with_spheres, result_for
from helpers.forked_command import forked_jobs
from helpers.mrml_nodes import add_transform, add_volume, rigid_motion
from helpers.placed_chest import AXES, chest_ct, leaning, rotation
from helpers.review_scene import voxels_of
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.models.bundle import find_model, load_model
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.scene.review import card_of, probability_of, proposals_of, reviews_of, run_threshold
from NLSTSegLib.scene.run import SceneRun, run_and_wait
from NLSTSegLib.scene.segmentations import segmentation_from_result
from slicer_stand_in.mrml_host import MrmlTestCase

GRIDS = {
    "left-handed and oblique": rotation((0.1, -0.2, 0.3)) @ next(axes for axes in AXES if np.linalg.det(axes) < 0),
    "sheared": leaning(0.2, 0.1),
}


class SceneRunTestCase(MrmlTestCase):
    @classmethod
    def setUpClass(cls):
        cls.bundle = Path(cls.enterClassContext(tempfile.TemporaryDirectory())) / "model"
        cls.card = write_threshold_bundle(cls.bundle, min_volume_mm3=30.0)

    def setUp(self):
        super().setUp()
        self.enterContext(forked_jobs())
        self.temporary = own_temporary_folder(self)
        self.options = RunOptions(model=str(self.bundle), device="cpu", threads=1)

    def nodes(self) -> list[str]:
        return sorted(self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes()))

    def assert_untouched(self, nodes_before: list[str]):
        self.assertEqual(self.nodes(), nodes_before)
        self.assertEqual(os.listdir(self.temporary), [])


class TestResult(SceneRunTestCase):
    def test_lesions_lie_where_the_library_finds_them_and_are_under_review(self):
        model = load_model(find_model(str(self.bundle)))
        for name, direction in GRIDS.items():
            with self.subTest(name):
                ct = chest_ct(direction)
                volume_node = add_volume(ct)
                volume_node.SetAndObserveTransformNodeID(add_transform(self.scene, rigid_motion()).GetID())
                node = run_and_wait(volume_node, None, self.options)

                own = segment(ct, model, SegmentOptions(device="cpu", threads=1))
                found = voxels_of(node, ct.hu.shape)
                self.assertEqual(list(found), ["Lesion_01", "Lesion_02", "Lesion_03"])
                for label, mask in enumerate(found.values(), start=1):
                    np.testing.assert_array_equal(mask, own.labels == label)
                np.testing.assert_array_equal(probability_of(node), own.probability)
                self.assertEqual(node.GetTransformNodeID(), volume_node.GetTransformNodeID())
                self.assertEqual(reviews_of(volume_node), [node])
                self.assertEqual(card_of(node)["weights_sha256"], self.card.weights_sha256)
                self.assertEqual(card_of(node)["intended_use"], "Tests")
                self.assertEqual(run_threshold(node), 0.5)
                self.assertEqual(proposals_of(node, ["run1/Lesion_02"]).voxels, np.count_nonzero(own.labels == 2))
                self.assertEqual(os.listdir(self.temporary), [])

    def test_an_empty_segmentation_is_filled_and_keeps_its_name(self):
        volume_node = add_volume(chest_ct(np.eye(3)))
        mine = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        told = []
        node = run_and_wait(volume_node, mine, self.options, lambda fraction, stage: told.append((fraction, stage)))
        self.assertIs(node, mine)
        self.assertEqual((node.GetName(), node.GetSegmentation().GetNumberOfSegments()), ("Mine", 3))
        self.assertEqual(reviews_of(volume_node), [node])
        self.assertEqual((told[0], told[-1]), ((0.0, "start"), (1.0, "done")))


class TestRefusal(SceneRunTestCase):
    def test_a_segmentation_with_segments_is_refused_before_anything_runs(self):
        volume_node = add_volume(chest_ct(np.eye(3)))
        mine = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        mine.GetSegmentation().AddEmptySegment("a")
        before = self.nodes()
        with self.assertRaisesRegex(InputError, r"'Mine' has 1 segment\(s\) already; choose an empty one"):
            run_and_wait(volume_node, mine, self.options, self.fail)
        self.assert_untouched(before)

    def test_progress_that_raises_stops_the_run(self):
        class StoppedError(Exception):
            pass

        def stop(fraction: float, stage: str) -> None:
            raise StoppedError

        volume_node = add_volume(chest_ct(np.eye(3)))
        before = self.nodes()
        with self.assertRaises(StoppedError):
            run_and_wait(volume_node, None, self.options, stop)
        self.assert_untouched(before)

    def test_error_of_the_child_is_raised(self):
        volume_node = add_volume(chest_ct(np.eye(3)))
        before = self.nodes()
        with self.assertRaisesRegex(InputError, "There is no model 'none'"):
            run_and_wait(volume_node, None, RunOptions(model="none"))
        self.assert_untouched(before)

    def test_a_volume_without_voxels_is_refused(self):
        volume_node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
        before = self.nodes()
        with self.assertRaisesRegex(InputError, "'Empty' holds no voxels"):
            run_and_wait(volume_node, None, self.options)
        self.assert_untouched(before)

    def test_result_of_a_volume_that_was_moved_or_removed_since_is_refused(self):
        for change, sentence in (
            (lambda node: node.SetOrigin(1, 2, 3), "voxel grid .* is not that of the CT"),
            (self.scene.RemoveNode, "'CT' is no longer in the scene"),
            (lambda node: self.scene.Clear(), "'CT' is no longer in the scene"),
        ):
            with self.subTest(sentence):
                volume_node = add_volume(chest_ct(np.eye(3)))
                run = SceneRun(volume_node, self.options)
                self.addCleanup(run.cancel)
                self.assertTrue(run.volume_is_there)
                change(volume_node)
                before = self.nodes()
                wait_until(run.child.update, "the run ends")
                with self.assertRaisesRegex(InputError, sentence):
                    run.finish()
                self.assert_untouched(before)
                self.scene.Clear()

    def test_failure_while_an_empty_segmentation_is_filled_leaves_it_empty(self):
        result = result_for(ct_with_spheres())
        first, second, _ = result.lesions
        # Two lesions in the same place: the later takes all voxels of the earlier, which cannot become a segment.
        broken = replace(result, lesions=(first, second, replace(second, label=3)))
        mine = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        volume_node = add_volume(result.ct)
        with self.assertRaises(RuntimeError):
            segmentation_from_result(broken, volume_node, segmentation_node=mine)
        self.assertEqual(mine.GetSegmentation().GetNumberOfSegments(), 0)


if __name__ == "__main__":
    unittest.main()
