"""A later run beside a review: counted, taken over lesion by lesion, and taken away again."""

import unittest

import numpy as np

from helpers.mrml_nodes import add_volume
from helpers.review_scene import (
    FAINT,
    LARGE,
    NEIGHBOUR,
    SMALL,
    Ball,
    ReviewTestCase,
    begin,
    ct_with_balls,
    lesion_of,
    soft_probability,
    soft_result,
    tags_of,
)
from NLSTSegLib.errors import InputError
from NLSTSegLib.review.state import Origin, Status
from NLSTSegLib.scene.adding import add_lesion, find_lesion_at
from NLSTSegLib.scene.correction import delete_lesion
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.rerun import compare_runs, remove_run, take_over
from NLSTSegLib.scene.review import probability_of, proposals_of, reviews_of
from NLSTSegLib.scene.sizes import reviewed_case
from NLSTSegLib.scene.threshold import ThresholdDrag
from NLSTSegLib.volume.regions import Region

LATER = LARGE, NEIGHBOUR._replace(radius_mm=4.6), FAINT._replace(peak=1.0)
"""What the later run sees: the first lesion as before, the second larger, not the third, and one more."""


class RerunTest(ReviewTestCase):
    def setUp(self):
        super().setUp()
        self.later_result = soft_result(self.ct, LATER)
        self.later = begin(self.later_result, self.volume_node)

    def content(self, node=None) -> tuple:
        node = node or self.node
        return self.voxels(node), {each: tags_of(node, each) for each in node.GetSegmentation().GetSegmentIDs()}

    def test_later_run_stands_beside_and_changes_nothing(self):
        self.assertEqual(reviews_of(self.volume_node), [self.node, self.later])
        before = self.content(), self.content(self.later)
        changes = compare_runs(self.node, self.later)
        np.testing.assert_equal((self.content(), self.content(self.later)), before)
        self.assertEqual(list(self.voxels(self.later)), ["Lesion_01", "Lesion_02", "Lesion_03"])
        self.assertEqual(changes.same, {"Lesion_01": "Lesion_01"})
        self.assertEqual((changes.added, changes.gone), (("Lesion_02",), ("Lesion_03",)))
        self.assertEqual((changes.changed, changes.rejected), ({"Lesion_03": "Lesion_02"}, {}))

    def test_rejected_lesions_are_counted_apart(self):
        self.editor.decide(["Lesion_02", "Lesion_03"], Status.REJECTED)
        changes = compare_runs(self.node, self.later)
        self.assertEqual(changes.rejected, {"Lesion_03": "Lesion_02"})
        self.assertEqual((changes.changed, changes.gone), ({}, ()))

    def test_lesion_added_by_hand_that_the_later_run_misses_is_gone_from_it(self):
        delete_lesion(self.editor, "Lesion_03")
        added = add_lesion(self.editor, find_lesion_at(self.node, self.at(SMALL.centre_ijk)))
        self.assertEqual(compare_runs(self.node, self.later).gone, (added,))

    def test_one_call_takes_it_away_again(self):
        nodes = self.scene.GetNumberOfNodes()
        before = self.content()
        third = begin(self.later_result, self.volume_node)
        remove_run(third)
        self.assertEqual(self.scene.GetNumberOfNodes(), nodes)
        np.testing.assert_equal(self.content(), before)
        np.testing.assert_array_equal(probability_of(self.node), self.result.probability)
        np.testing.assert_array_equal(probability_of(self.later), self.later_result.probability)

    def test_chosen_lesions_are_taken_over_and_others_keep_every_voxel(self):
        before, later = self.voxels(), self.voxels(self.later)
        self.assertEqual(take_over(self.editor, self.later, ["Lesion_02", "Lesion_03"]), ["Lesion_04", "Lesion_02"])
        found = self.voxels()
        for segment_id in ("Lesion_01", "Lesion_03"):
            np.testing.assert_array_equal(found[segment_id], before[segment_id])
        np.testing.assert_array_equal(found["Lesion_04"], later["Lesion_02"])
        np.testing.assert_array_equal(found["Lesion_02"], later["Lesion_03"])
        np.testing.assert_equal(self.voxels(self.later), later)
        state = lesion_state(self.node, "Lesion_02")
        self.assertEqual((state.status, state.origin), (Status.NEW, Origin.MODEL))
        self.assertEqual((state.proposals, state.replaces), (("run2/Lesion_03",), ("run1/Lesion_02",)))
        self.editor.undo()
        np.testing.assert_equal(self.voxels(), before)
        self.assertFalse(self.editor.can_undo)

    def test_lesion_that_was_taken_over_goes_on_in_the_map_of_its_run(self):
        take_over(self.editor, self.later, ["Lesion_02"])
        take_over(self.editor, self.later, ["Lesion_03"])
        remove_run(self.later)
        self.assertEqual(reviews_of(self.volume_node), [self.node])
        found = self.voxels()["Lesion_04"]
        np.testing.assert_array_equal(probability_of(self.node, "run2"), self.later_result.probability)
        self.assertIsNone(probability_of(self.node, "run3"))
        self.assertEqual(proposals_of(self.node, ("run2/Lesion_02",)).voxels, found.sum())
        ThresholdDrag(self.editor, "Lesion_04").move(0.3)
        expected = soft_probability(self.ct, (LATER[2],)) / 255 > 0.3
        np.testing.assert_array_equal(self.voxels()["Lesion_04"], expected)
        self.assertEqual(lesion_of(self.node, "Lesion_04").proposal.voxels, found.sum())

    def test_what_a_reader_has_touched_is_never_replaced(self):
        for touch, word in (
            (lambda: self.editor.decide(["Lesion_02"], Status.ACCEPTED), "accepted"),
            (lambda: self.editor.decide(["Lesion_02"], Status.REJECTED), "rejected"),
            (lambda: ThresholdDrag(self.editor, "Lesion_02").move(0.6), "edited"),
        ):
            touch()
            before = self.content()
            with self.assertRaisesRegex(InputError, f"'Lesion 03' of the later run lies on 'Lesion 02', which is {word}"):
                take_over(self.editor, self.later, ["Lesion_02", "Lesion_03"])
            np.testing.assert_equal(self.content(), before)
            self.editor.undo()
            self.assertFalse(self.editor.can_undo)

    def test_taken_lesion_gives_way_to_those_that_are_there(self):
        ThresholdDrag(self.editor, "Lesion_01").move(0.05)
        before = self.voxels()
        take_over(self.editor, self.later, ["Lesion_03"])
        found, wanted = self.voxels(), self.voxels(self.later)["Lesion_03"]
        self.assertTrue((before["Lesion_01"] & wanted).any())
        np.testing.assert_array_equal(found["Lesion_01"], before["Lesion_01"])
        np.testing.assert_array_equal(found["Lesion_02"], wanted & ~before["Lesion_01"])

    def test_lesions_taken_over_in_one_step_share_no_voxel(self):
        from NLSTSegLib.scene.editor import LesionEditor

        # The lesion that is new takes in what the later run gives its neighbour and nobody else has.
        before = self.voxels(self.later)
        shell = before["Lesion_03"] & ~self.voxels()["Lesion_02"]
        whole = Region.of(before["Lesion_02"] | shell, tuple(slice(0, size) for size in shell.shape))
        later_editor = LesionEditor(self.later)
        later_editor.set_region("Lesion_02", whole)
        later_editor.close()
        self.assertTrue((self.voxels(self.later)["Lesion_02"] & self.voxels(self.later)["Lesion_03"]).any())
        take_over(self.editor, self.later, ["Lesion_02", "Lesion_03"])
        found = self.voxels()
        np.testing.assert_array_equal(found["Lesion_04"], before["Lesion_02"] | shell)
        np.testing.assert_array_equal(found["Lesion_02"], before["Lesion_03"] & ~shell)

    def test_decisions_on_the_later_run_come_along(self):
        from NLSTSegLib.scene.editor import LesionEditor

        later_editor = LesionEditor(self.later)
        later_editor.decide(["Lesion_02"], Status.ACCEPTED, "Dr. B")
        later_editor.close()
        (segment_id,) = take_over(self.editor, self.later, ["Lesion_02"])
        state = lesion_state(self.node, segment_id)
        self.assertEqual((state.status, state.reader), (Status.ACCEPTED, "Dr. B"))

    def test_replaced_proposal_is_told_from_a_deleted_one(self):
        take_over(self.editor, self.later, ["Lesion_03"])
        delete_lesion(self.editor, "Lesion_03")
        lost = {each.segment_id: each.replaced for each in reviewed_case(self.node).lost}
        self.assertEqual(lost, {"Lesion_02": True, "Lesion_03": False})

    def test_run_of_another_ct_is_refused(self):
        ct = ct_with_balls((LARGE, Ball((50, 50, 20), 4.0)))
        other = begin(soft_result(ct, (LARGE,)), add_volume(ct, "Other"))
        with self.assertRaisesRegex(InputError, "belongs to another CT"):
            compare_runs(self.node, other)
        with self.assertRaisesRegex(InputError, "belongs to another CT"):
            take_over(self.editor, other, ["Lesion_01"])


if __name__ == "__main__":
    unittest.main()
