"""Growing, adding, splitting, merging and deleting lesions: what they become, that others stay, and that undo brings back."""

import unittest

import numpy as np

from helpers.mrml_nodes import add_transform, add_volume, rigid_motion
from helpers.review_scene import (
    FAINT,
    LARGE,
    NEIGHBOUR,
    SMALL,
    UNSEEN,
    Ball,
    ReviewTestCase,
    begin,
    ct_with_balls,
    distance_mm,
    soft_probability,
    soft_result,
    world_ras_mm,
)
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.coding import TERMINOLOGY, segment_color
from NLSTSegLib.lesions.find import BOX_MARGIN_MM
from NLSTSegLib.review.state import Origin, Status
from NLSTSegLib.scene.adding import add_lesion, find_lesion_at
from NLSTSegLib.scene.correction import delete_lesion, merge_lesions, split_lesion
from NLSTSegLib.scene.lesion_state import add_seconds_in_focus, lesion_state
from NLSTSegLib.scene.review import probability_of
from NLSTSegLib.scene.threshold import LEAST_PROBABILITY, ThresholdDrag
from NLSTSegLib.scene.voxels import own_layer, segment_regions, share_layers
from NLSTSegLib.volume.components import components_by_size
from NLSTSegLib.volume.probability import lowest_level
from NLSTSegLib.volume.regions import Region


def whole(mask: np.ndarray) -> tuple[slice, slice, slice]:
    return tuple(slice(0, size) for size in mask.shape)


class ThresholdTest(ReviewTestCase):
    def test_lesion_becomes_what_is_above_its_threshold_and_hangs_together_with_it(self):
        before = self.voxels()
        drag = ThresholdDrag(self.editor, "Lesion_01")
        self.assertEqual(drag.threshold, 0.5)
        probability = soft_probability(self.ct, (LARGE,))
        for threshold in (0.62, 0.9, 0.35, 0.5):
            region = drag.move(threshold)
            above = probability / 255 > threshold
            found = self.voxels()
            np.testing.assert_array_equal(found["Lesion_01"], above)
            np.testing.assert_array_equal(region.within(whole(above)), above)
            self.assertEqual(lesion_state(self.node, "Lesion_01").threshold, threshold)
            for other in ("Lesion_02", "Lesion_03"):
                np.testing.assert_array_equal(found[other], before[other])

    def test_neighbours_keep_every_voxel_also_hidden_ones(self):
        self.editor.decide(["Lesion_02"], Status.REJECTED)
        before = self.voxels()
        ThresholdDrag(self.editor, "Lesion_01").move(0.01)
        found = self.voxels()
        self.assertGreater(found["Lesion_01"].sum(), 3 * before["Lesion_01"].sum())
        # It has flowed round the neighbour.
        self.assertTrue(found["Lesion_01"][:, :, NEIGHBOUR.centre_ijk[0] :].any())
        self.assertFalse((found["Lesion_01"] & before["Lesion_02"]).any())
        for other in ("Lesion_02", "Lesion_03"):
            np.testing.assert_array_equal(found[other], before[other])

    def test_lesion_ends_at_its_neighbourhood(self):
        before = self.voxels()
        # A vessel, as the model sees it, along j.
        probability_of(self.node)[30, 10:62, 24] = 100
        box = ThresholdDrag(self.editor, "Lesion_03").move(0.3).box
        _, j, _ = before["Lesion_03"].nonzero()
        margin = int(np.ceil(BOX_MARGIN_MM / self.ct.spacing_ijk_mm[1]))
        self.assertEqual(box[1].start, j.min() - margin)
        self.assertGreater(box[1].start, 10)

    def test_drag_is_one_step_whatever_it_does(self):
        before = self.voxels()
        drag = ThresholdDrag(self.editor, "Lesion_01")
        self.assertFalse(self.editor.can_undo)
        for threshold in (0.4, 0.8, 0.2):
            drag.move(threshold)
        after = self.voxels()
        self.editor.undo()
        np.testing.assert_equal(self.voxels(), before)
        self.assertEqual((self.status("Lesion_01"), lesion_state(self.node, "Lesion_01").threshold), ("new", 0.5))
        self.assertFalse(self.editor.can_undo)
        self.editor.redo()
        np.testing.assert_equal(self.voxels(), after)
        self.assertEqual((self.status("Lesion_01"), lesion_state(self.node, "Lesion_01").threshold), ("edited", 0.2))

    def test_result_depends_on_the_threshold_alone(self):
        first = ThresholdDrag(self.editor, "Lesion_02").move(0.3)
        drag = ThresholdDrag(self.editor, "Lesion_02")
        for threshold in (1.0, 0.05, 0.8):
            drag.move(threshold)
        again = ThresholdDrag(self.editor, "Lesion_02").move(0.3)
        self.assertEqual((again.box, again.fingerprint), (first.box, first.fingerprint))

    def test_highest_threshold_leaves_the_peak(self):
        drag = ThresholdDrag(self.editor, "Lesion_02")
        peak = soft_probability(self.ct)[self.voxels()["Lesion_02"]].max()
        self.assertEqual(drag.highest, (peak - 1) / 255)
        top = drag.move(1.0)
        self.assertGreater(top.voxels, 0)
        self.assertEqual(drag.threshold, drag.highest)
        self.assertEqual(drag.move(drag.highest).fingerprint, top.fingerprint)

    def test_painting_gives_way_and_undo_brings_it_back(self):
        before = self.voxels()["Lesion_03"]
        self.paint("Lesion_03", (slice(28, 33), slice(60, 66), slice(22, 26)))
        painted = self.voxels()["Lesion_03"]
        ThresholdDrag(self.editor, "Lesion_03").move(0.5)
        np.testing.assert_array_equal(self.voxels()["Lesion_03"], before)
        self.assertEqual(self.status("Lesion_03"), "new")
        self.editor.undo()
        np.testing.assert_array_equal(self.voxels()["Lesion_03"], painted)
        self.assertEqual(self.status("Lesion_03"), "edited")

    def test_surface_in_3d_follows(self):
        self.node.CreateClosedSurfaceRepresentation()
        segmentation = self.node.GetSegmentation()

        def points(segment_id):
            return segmentation.GetSegment(segment_id).GetRepresentation("Closed surface").GetNumberOfPoints()

        before = [points("Lesion_01"), points("Lesion_02")]
        drag = ThresholdDrag(self.editor, "Lesion_01")
        drag.move(0.2)
        self.assertGreater(points("Lesion_01"), 1.2 * before[0])
        self.assertEqual(points("Lesion_02"), before[1])

    def test_lesion_of_which_the_model_sees_nothing_is_refused(self):
        segment_id = add_lesion(self.editor, find_lesion_at(self.node, self.at(UNSEEN.centre_ijk)))
        with self.assertRaisesRegex(InputError, "sees nothing at 'Lesion 04'"):
            ThresholdDrag(self.editor, segment_id)

    def test_threshold_that_is_no_probability_is_refused(self):
        drag = ThresholdDrag(self.editor, "Lesion_01")
        for threshold in (-0.1, 1.1, float("nan")):
            with self.assertRaisesRegex(InputError, "not a probability"):
                drag.move(threshold)
        self.assertFalse(self.editor.can_undo)

    def test_segment_that_is_gone_is_named(self):
        delete_lesion(self.editor, "Lesion_02")
        with self.assertRaisesRegex(InputError, "no segment 'Lesion_02' any more"):
            ThresholdDrag(self.editor, "Lesion_02")


class OwnLayerTest(ReviewTestCase):
    def test_lesion_leaves_the_shared_labelmap_with_nothing_changed(self):
        segmentation = self.node.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfLayers(), 1)
        before = self.voxels()
        own_layer(self.node, "Lesion_02")
        self.assertEqual(segmentation.GetNumberOfLayers(), 2)
        np.testing.assert_equal(self.voxels(), before)
        k, j, i = before["Lesion_02"].nonzero()
        extent = segmentation.GetSegment("Lesion_02").GetRepresentation("Binary labelmap").GetExtent()
        self.assertEqual(extent, (i.min(), i.max(), j.min(), j.max(), k.min(), k.max()))

    def test_editing_goes_on_after_saving_has_put_the_labelmaps_together(self):
        ThresholdDrag(self.editor, "Lesion_01").move(0.4)
        self.node.GetSegmentation().CollapseBinaryLabelmaps(False)
        before = self.voxels()
        ThresholdDrag(self.editor, "Lesion_02").move(0.3)
        found = self.voxels()
        for other in ("Lesion_01", "Lesion_03"):
            np.testing.assert_array_equal(found[other], before[other])
        self.assertGreater(found["Lesion_02"].sum(), before["Lesion_02"].sum())
        self.editor.undo()
        np.testing.assert_equal(self.voxels(), before)


class ShareLayersTest(ReviewTestCase):
    def test_more_lesions_than_a_byte_counts_share_a_labelmap_and_those_that_overlap_get_another(self):
        import slicer

        columns = [
            Region((slice(4, 7), slice(n // 20, n // 20 + 1), slice(n % 20, n % 20 + 1)), np.ones((3, 1, 1), bool))
            for n in range(300)
        ]
        across = Region((slice(5, 6), slice(0, 1), slice(0, 20)), np.ones((1, 1, 20), bool))
        regions = [*columns, Region.union([]), across]
        segments = [slicer.vtkSegment() for _ in regions]
        share_layers(list(zip(segments, regions, strict=True)), self.editor._ras_from_ijk())
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        for number, segment in enumerate(segments):
            node.GetSegmentation().AddSegment(segment, str(number))
        self.assertEqual(node.GetSegmentation().GetNumberOfLayers(), 2)
        for found, region in zip(segment_regions(node).values(), regions, strict=True):
            self.assertEqual(found.box, region.box)
            np.testing.assert_array_equal(found.mask, region.mask)

    def test_lesions_without_voxels_stay_as_they_are(self):
        import slicer

        segment = slicer.vtkSegment()
        share_layers([(segment, Region.union([]))], self.editor._ras_from_ijk())
        self.assertIsNone(segment.GetRepresentation("Binary labelmap"))


class AddTest(ReviewTestCase):
    def test_missed_lesion_is_taken_from_the_map_above_half_its_peak(self):
        before = self.voxels()
        # The click is off by two voxels.
        candidate = find_lesion_at(self.node, self.at(np.add(FAINT.centre_ijk, (2, -1, 1))))
        self.assertEqual((candidate.origin, candidate.threshold), (Origin.PROBABILITY, 102 / 2 / 255))
        np.testing.assert_equal(self.voxels(), before)
        segment_id = add_lesion(self.editor, candidate, "Dr. A")
        self.assertEqual(segment_id, "Lesion_04")
        expected = (soft_probability(self.ct) > 51) & (distance_mm(self.ct, FAINT.centre_ijk) < 9)
        found = self.voxels()
        np.testing.assert_array_equal(found.pop(segment_id), expected)
        np.testing.assert_equal(found, before)

    def test_added_lesion_says_where_it_comes_from_and_looks_like_the_others(self):
        segment_id = add_lesion(self.editor, find_lesion_at(self.node, self.at(FAINT.centre_ijk)), "Dr. A")
        state = lesion_state(self.node, segment_id)
        self.assertEqual((state.status, state.origin, state.reader), (Status.EDITED, Origin.PROBABILITY, "Dr. A"))
        self.assertEqual((state.model, state.weights_sha256, state.proposals), ("x published", "ab" * 32, ()))
        self.assertAlmostEqual(state.score, 0.4, delta=0.01)
        segment = self.node.GetSegmentation().GetSegment(segment_id)
        self.assertEqual((segment.GetName(), segment.GetTerminology()), ("Lesion 04", TERMINOLOGY))
        np.testing.assert_allclose(segment.GetColor(), segment_color(4))

    def test_where_the_model_sees_nothing_it_grows_in_hu_and_is_marked_manual(self):
        candidate = find_lesion_at(self.node, self.at(UNSEEN.centre_ijk))
        self.assertEqual((candidate.origin, candidate.score, candidate.threshold), (Origin.MANUAL, None, None))
        segment_id = add_lesion(self.editor, candidate)
        expected = distance_mm(self.ct, UNSEEN.centre_ijk) <= UNSEEN.radius_mm
        np.testing.assert_array_equal(self.voxels()[segment_id], expected)
        state = lesion_state(self.node, segment_id)
        self.assertEqual((state.origin, state.model, state.weights_sha256), (Origin.MANUAL, "", ""))

    def test_without_a_map_it_grows_in_hu(self):
        delete_lesion(self.editor, "Lesion_01")
        self.scene.RemoveNode(self.node.GetNodeReference("NLSTSeg.Probability/run1"))
        candidate = find_lesion_at(self.node, self.at(LARGE.centre_ijk))
        self.assertEqual(candidate.origin, Origin.MANUAL)
        truth = Region.of(distance_mm(self.ct, LARGE.centre_ijk) <= LARGE.radius_mm, whole(self.ct.hu))
        self.assertGreater(candidate.region.dice(truth), 0.98)

    def test_deleted_lesion_comes_back_with_a_new_number(self):
        before = self.voxels()
        delete_lesion(self.editor, "Lesion_03")
        segment_id = add_lesion(self.editor, find_lesion_at(self.node, self.at(SMALL.centre_ijk)))
        self.assertEqual(segment_id, "Lesion_04")
        self.assertGreaterEqual(self.voxels()[segment_id].sum(), before["Lesion_03"].sum())

    def test_lesion_larger_than_the_first_look_is_found_whole(self):
        giant = Ball((45, 50, 30), 34.0, 0.4)
        ct = ct_with_balls((giant,), shape_kji=(60, 105, 92))
        volume_node = add_volume(ct)
        node = begin(soft_result(ct, (giant,)), volume_node)
        candidate = find_lesion_at(node, world_ras_mm(volume_node, ct, (45, 50, 30)))
        np.testing.assert_array_equal(candidate.region.within(whole(ct.hu)), soft_probability(ct, (giant,)) > 51)

    def test_point_is_one_of_the_world_under_transforms(self):
        outer, inner = add_transform(self.scene, rigid_motion()), add_transform(self.scene, np.diag([-1.0, -1.0, 1.0, 1.0]))
        inner.SetAndObserveTransformNodeID(outer.GetID())
        for node in (self.volume_node, self.node):
            node.SetAndObserveTransformNodeID(inner.GetID())
        candidate = find_lesion_at(self.node, self.at(FAINT.centre_ijk))
        expected = (soft_probability(self.ct) > 51) & (distance_mm(self.ct, FAINT.centre_ijk) < 9)
        np.testing.assert_array_equal(candidate.region.within(whole(expected)), expected)

    def test_nothing_sensible_is_said_in_a_sentence(self):
        self.editor.decide(["Lesion_02"], Status.REJECTED)
        for ijk, sentence in (
            ((-3, 20, 10), "lies outside the CT 'CT'"),
            ((20, 24, 80), "lies outside the CT 'CT'"),
            ((5, 60, 38), "air or healthy lung"),
            (LARGE.centre_ijk, "lies on 'Lesion 01' already"),
            (NEIGHBOUR.centre_ijk, "lies on 'Lesion 02', which was rejected"),
        ):
            with self.subTest(sentence=sentence), self.assertRaisesRegex(InputError, sentence):
                find_lesion_at(self.node, self.at(ijk))

    def test_a_click_may_miss_what_the_model_sees_by_three_mm_and_no_more(self):
        seen = soft_probability(self.ct, (FAINT,)) >= lowest_level(LEAST_PROBABILITY)
        # Away from the lesion, along the rows.
        k, j, i = FAINT.centre_ijk[::-1]
        last = int(np.flatnonzero(seen[k, :, i])[-1])
        self.assertTrue(seen[k, j, i])
        for step in range(1, seen.shape[1] - last):
            away_mm = step * self.ct.spacing_ijk_mm[1]
            with self.subTest(away_mm=away_mm):
                if away_mm <= 3.0:
                    self.assertEqual(find_lesion_at(self.node, self.at((i, last + step, k))).origin, Origin.PROBABILITY)
                else:
                    with self.assertRaisesRegex(InputError, "air or healthy lung"):
                        find_lesion_at(self.node, self.at((i, last + step, k)))

    def test_adding_is_undone_and_done_again(self):
        before = self.voxels()
        add_lesion(self.editor, find_lesion_at(self.node, self.at(FAINT.centre_ijk)))
        after = self.voxels()
        self.editor.undo()
        np.testing.assert_equal(self.voxels(), before)
        self.editor.redo()
        np.testing.assert_equal(self.voxels(), after)
        self.assertEqual(self.status("Lesion_04"), "edited")


class SplitTest(ReviewTestCase):
    def test_lesion_in_pieces_is_split_into_them(self):
        before = self.voxels()
        self.paint("Lesion_03", (slice(2, 5), slice(2, 5), slice(2, 5)))
        self.paint("Lesion_03", (slice(38, 40), slice(2, 4), slice(60, 62)))
        ids = split_lesion(self.editor, "Lesion_03")
        self.assertEqual(ids, ["Lesion_03", "Lesion_04", "Lesion_05"])
        found = self.voxels()
        for segment_id in ("Lesion_01", "Lesion_02", "Lesion_03"):
            np.testing.assert_array_equal(found[segment_id], before[segment_id])
        self.assertEqual([found[each].sum() for each in ids[1:]], [27, 8])
        self.assertEqual({lesion_state(self.node, each).proposals for each in ids}, {("run1/Lesion_03",)})
        self.assertEqual([self.status(each) for each in ids], ["edited"] * 3)
        self.editor.undo()
        self.assertEqual(list(self.voxels()), ["Lesion_01", "Lesion_02", "Lesion_03"])
        self.assertEqual(self.voxels()["Lesion_03"].sum(), before["Lesion_03"].sum() + 35)

    def test_lesion_with_a_waist_is_cut_there(self):
        merged = merge_lesions(self.editor, ["Lesion_01", "Lesion_02"])
        before = self.voxels()
        # A bridge closes the gap.
        self.paint(merged, (slice(11, 14), slice(22, 27), slice(20, 38)))
        ids = split_lesion(self.editor, merged)
        self.assertEqual(ids, ["Lesion_01", "Lesion_04"])
        found = self.voxels()
        self.assertTrue(found["Lesion_01"][12, 24, 20] and found["Lesion_04"][12, 24, 37])
        self.assertFalse((found["Lesion_01"] & found["Lesion_04"]).any())
        self.assertTrue((found["Lesion_01"] | found["Lesion_04"])[before["Lesion_01"]].all())
        np.testing.assert_array_equal(found["Lesion_03"], before["Lesion_03"])

    def test_parts_of_a_split_lesion_grow_without_touching_each_other(self):
        self.paint("Lesion_01", (slice(0, 42), slice(0, 70), slice(20, 21)), value=False)
        ids = split_lesion(self.editor, "Lesion_01")
        before = self.voxels()
        ThresholdDrag(self.editor, ids[1]).move(0.2)
        found = self.voxels()
        np.testing.assert_array_equal(found[ids[0]], before[ids[0]])
        self.assertFalse((found[ids[0]] & found[ids[1]]).any())
        self.assertGreater(found[ids[1]].sum(), before[ids[1]].sum())

    def test_lesion_without_a_waist_is_refused_and_no_step_made(self):
        with self.assertRaisesRegex(InputError, "'Lesion 01' hangs together and has no waist"):
            split_lesion(self.editor, "Lesion_01")
        self.assertFalse(self.editor.can_undo)


class MergeAndDeleteTest(ReviewTestCase):
    def test_merged_lesion_holds_the_voxels_and_the_story_of_all(self):
        before = self.voxels()
        self.editor.decide(["Lesion_03"], Status.ACCEPTED, "Dr. A")
        self.assertEqual(merge_lesions(self.editor, ["Lesion_03", "Lesion_01", "Lesion_03"]), "Lesion_03")
        found = self.voxels()
        self.assertEqual(list(found), ["Lesion_02", "Lesion_03"])
        np.testing.assert_array_equal(found["Lesion_03"], before["Lesion_01"] | before["Lesion_03"])
        np.testing.assert_array_equal(found["Lesion_02"], before["Lesion_02"])
        state = lesion_state(self.node, "Lesion_03")
        self.assertEqual((state.status, state.score, state.reader), (Status.EDITED, 1.0, "Dr. A"))
        self.assertEqual(state.proposals, ("run1/Lesion_03", "run1/Lesion_01"))
        self.editor.undo()
        np.testing.assert_equal(self.voxels(), before)
        self.assertEqual([self.status(f"Lesion_0{n}") for n in (1, 2, 3)], ["new", "new", "accepted"])

    def test_time_spent_on_merged_lesions_is_added_up(self):
        add_seconds_in_focus(self.node, "Lesion_01", 12.5)
        add_seconds_in_focus(self.node, "Lesion_02", 4.0)
        merge_lesions(self.editor, ["Lesion_02", "Lesion_01"])
        self.assertEqual(lesion_state(self.node, "Lesion_02").seconds, 16.5)

    def test_merged_lesion_grows_from_both(self):
        merge_lesions(self.editor, ["Lesion_01", "Lesion_02"])
        ThresholdDrag(self.editor, "Lesion_01").move(0.8)
        found = self.voxels()["Lesion_01"]
        self.assertTrue(found[12, 24, 20] and found[12, 24, 37])
        self.assertEqual(len(components_by_size(found)), 2)

    def test_one_lesion_cannot_be_merged(self):
        with self.assertRaisesRegex(InputError, "two or more"):
            merge_lesions(self.editor, ["Lesion_01", "Lesion_01"])
        self.assertFalse(self.editor.can_undo)

    def test_deleted_lesion_is_gone_and_undo_brings_it_back_in_its_place(self):
        before = self.voxels()
        self.editor.decide(["Lesion_02"], Status.REJECTED)
        delete_lesion(self.editor, "Lesion_02")
        found = self.voxels()
        self.assertEqual(list(found), ["Lesion_01", "Lesion_03"])
        for segment_id, voxels in found.items():
            np.testing.assert_array_equal(voxels, before[segment_id])
        self.editor.undo()
        np.testing.assert_equal(self.voxels(), before)
        self.assertEqual(list(self.voxels()), list(before))
        self.assertEqual(self.status("Lesion_02"), "rejected")
        self.assertFalse(self.node.GetDisplayNode().GetSegmentVisibility("Lesion_02"))


if __name__ == "__main__":
    unittest.main()
