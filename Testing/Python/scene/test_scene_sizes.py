"""Sizes after edits, the lesion table, rulers and jumping, on oblique and leaning CTs and under transforms."""

import itertools
import unittest
from dataclasses import replace

import numpy as np

from helpers.example_results import ct_with_spheres, oblique_direction, result_for
from helpers.mrml_nodes import add_transform, add_volume, rigid_motion, world_centroid_ras_mm, world_from_node
from helpers.review_scene import FAINT, ReviewTestCase, begin, ct_with_balls, lesion_of, soft_result
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.measure import Measurements
from NLSTSegLib.review.case import review_row
from NLSTSegLib.review.state import Status
from NLSTSegLib.review.worklist import sorted_rows
from NLSTSegLib.scene.adding import add_lesion, find_lesion_at
from NLSTSegLib.scene.correction import delete_lesion
from NLSTSegLib.scene.lesion_list import LesionList
from NLSTSegLib.scene.sizes import measure_region, reviewed_lesions
from NLSTSegLib.scene.threshold import ThresholdDrag
from NLSTSegLib.scene.views import hide_rulers, jump_to_lesion, show_rulers
from NLSTSegLib.scene.voxels import segment_region
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regions import Region
from slicer_stand_in.mrml_host import MrmlTestCase

LINES = "vtkMRMLMarkupsLineNode"


def assert_same_sizes(test: unittest.TestCase, found: Measurements, expected: Measurements) -> None:
    """All but ``slice_k``, which counts in another grid; the ends of an axis may come in either order."""
    for name, value in vars(expected).items():
        own = getattr(found, name)
        if name.endswith("ends_lps_mm"):
            test.assertLess(min(np.abs(np.subtract(own, ends)).max() for ends in (value, value[::-1])), 1e-6, name)
        elif name != "slice_k":
            np.testing.assert_allclose(own, value, rtol=1e-9, atol=1e-6, err_msg=name)


class MeasureTest(MrmlTestCase):
    def test_sizes_are_those_of_the_run_for_any_axes(self):
        for axes, signs in itertools.product(itertools.permutations(range(3)), ((1, 1, 1), (-1, 1, -1))):
            ct = ct_with_spheres(direction_lps=oblique_direction(axes, signs))
            result = result_for(ct)
            node = begin(result, add_volume(ct))
            for lesion in result.lesions:
                sizes = lesion_of(node, f"Lesion_{lesion.label:02d}").sizes
                assert_same_sizes(self, sizes, lesion.measurements)
            self.scene.Clear()

    def test_leaning_stack_is_measured_at_right_angles(self):
        upright = np.eye(3)
        leaning = upright.copy()
        leaning[:, 2] = np.array([0.0, 0.3, 1.0]) / np.hypot(0.3, 1)
        hu = np.full((24, 60, 50), -850, np.int16)
        grid = CtVolume(hu, (1.0, 1.0, 1.5 * np.hypot(0.3, 1)), (-20.0, 5.0, 9.0), tuple(leaning.ravel().tolist()))
        places = grid.lps_from_ijk_mm(np.moveaxis(np.indices(hu.shape)[::-1], 0, -1))
        inside = np.linalg.norm(places - grid.lps_from_ijk_mm(np.array([25, 30, 12])), axis=-1) <= 9
        sizes = measure_region(Region.of(inside, (slice(0, 24), slice(0, 60), slice(0, 50))), add_volume(grid))
        self.assertAlmostEqual(sizes.volume_mm3, 4 / 3 * np.pi * 9**3, delta=0.03 * sizes.volume_mm3)
        self.assertAlmostEqual(sizes.long_axis_mm, 18, delta=1.1)
        self.assertAlmostEqual(sizes.short_axis_mm, 18, delta=1.1)
        np.testing.assert_allclose(sizes.centroid_lps_mm, grid.lps_from_ijk_mm(np.array([25, 30, 12])), atol=0.3)

    def test_single_voxel_of_a_leaning_stack_has_a_size(self):
        leaning = np.eye(3)
        leaning[:, 2] = np.array([0.37, 0.0, 1.0]) / np.hypot(0.37, 1)
        hu = np.full((24, 30, 30), -850, np.int16)
        volume_node = add_volume(CtVolume(hu, (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), tuple(leaning.ravel().tolist())))
        for k in range(5, 12):
            one = Region((slice(k, k + 1), slice(9, 10), slice(11, 12)), np.ones((1, 1, 1), bool))
            self.assertGreater(measure_region(one, volume_node).volume_mm3, 0)

    def test_lesion_without_voxels_has_no_sizes(self):
        ct = ct_with_balls()
        node = begin(soft_result(ct), add_volume(ct))
        node.GetSegmentation().AddEmptySegment("Empty", "Empty")
        self.assertEqual(segment_region(node, "Empty").voxels, 0)
        lesion = lesion_of(node, "Empty")
        self.assertIsNone(lesion.sizes)
        row = review_row(lesion)
        self.assertEqual((row["volume_mm3"], row["long_axis_mm"], row["counted"]), (0, "", 0))


class TableTest(ReviewTestCase):
    def rows(self) -> list:
        lesions = LesionList(self.node)
        lesions.update()
        return lesions.rows

    def test_rows_are_sorted_by_size_or_score(self):
        faint = add_lesion(self.editor, find_lesion_at(self.node, self.at(FAINT.centre_ijk)))
        self.node.GetSegmentation().AddEmptySegment("Mine", "Mine")
        by_size = [row["segment"] for row in sorted_rows(self.rows(), "volume_mm3", descending=True)]
        self.assertEqual(by_size, ["Lesion_01", faint, "Lesion_02", "Lesion_03", "Mine"])
        by_score = [row["segment"] for row in sorted_rows(self.rows(), "score", descending=True)]
        self.assertEqual(by_score, ["Lesion_01", "Lesion_02", "Lesion_03", faint, "Mine"])

    def test_row_follows_every_edit(self):
        before = {row["segment"]: row for row in self.rows()}
        drag = ThresholdDrag(self.editor, "Lesion_01")
        for threshold in (0.2, 0.8):
            region = drag.move(threshold)
            row = review_row(lesion_of(self.node, "Lesion_01"))
            self.assertEqual(row["volume_mm3"], round(region.voxels * self.ct.voxel_volume_mm3))
            self.assertEqual(row["status"], "edited")
        self.assertLess(row["long_axis_mm"], before["Lesion_01"]["long_axis_mm"])
        self.editor.undo()
        self.assertEqual({row["segment"]: row for row in self.rows()}, before)

    def test_rejected_lesion_is_not_counted(self):
        self.editor.decide(["Lesion_02"], Status.REJECTED)
        self.assertEqual([lesion.is_counted for lesion in reviewed_lesions(self.node)], [True, False, True])

    def test_rigid_transform_changes_no_size(self):
        before = self.rows()
        transform = add_transform(self.scene, rigid_motion())
        for node in (self.volume_node, self.node):
            node.SetAndObserveTransformNodeID(transform.GetID())
        self.assertEqual(self.rows(), before)


class RulerTest(ReviewTestCase):
    def ends(self, ruler) -> np.ndarray:
        return np.array([ruler.GetNthControlPointPositionWorld(n) for n in range(ruler.GetNumberOfControlPoints())])

    def expected(self, ends_lps_mm) -> np.ndarray:
        local = np.array(ends_lps_mm) * (-1, -1, 1)
        return (world_from_node(self.volume_node) @ np.c_[local, np.ones(2)].T).T[:, :3]

    def assert_on_axes(self, rulers, sizes):
        for ruler, ends_lps_mm, length_mm in zip(
            rulers,
            (sizes.long_axis_ends_lps_mm, sizes.short_axis_ends_lps_mm),
            (sizes.long_axis_mm, sizes.short_axis_mm),
            strict=True,
        ):
            np.testing.assert_allclose(self.ends(ruler), self.expected(ends_lps_mm), atol=1e-6)
            self.assertAlmostEqual(ruler.GetLineLengthWorld(), length_mm, places=6)

    def test_rulers_lie_on_the_axes_in_the_world(self):
        transform = add_transform(self.scene, rigid_motion())
        for node in (self.volume_node, self.node):
            node.SetAndObserveTransformNodeID(transform.GetID())
        rulers = show_rulers(self.node, "Lesion_01")
        self.assert_on_axes(rulers, self.result.lesions[0].measurements)
        self.assertTrue(all(ruler.GetLocked() and not ruler.GetSaveWithScene() for ruler in rulers))

    def test_each_ruler_says_its_own_length(self):
        # A bar, so that the axes differ.
        self.paint("Lesion_03", (slice(29, 32), slice(48, 66), slice(23, 26)))
        long, short = show_rulers(self.node, "Lesion_03")
        self.assertGreater(long.GetLineLengthWorld(), short.GetLineLengthWorld() + 1.0)
        for ruler, name in ((long, "Long axis"), (short, "Short axis")):
            self.assertEqual(ruler.GetName(), name)
            number, unit = ruler.GetNthControlPointLabel(1).split()
            self.assertAlmostEqual(float(number), ruler.GetLineLengthWorld(), delta=0.051)
            self.assertEqual(unit, "mm")

    def test_the_same_rulers_follow_edits_and_other_lesions(self):
        rulers = show_rulers(self.node, "Lesion_01")
        ThresholdDrag(self.editor, "Lesion_01").move(0.2)
        for segment_id in ("Lesion_01", "Lesion_03"):
            self.assertEqual(show_rulers(self.node, segment_id), rulers)
            self.assert_on_axes(rulers, lesion_of(self.node, segment_id).sizes)
        self.assertEqual(self.scene.GetNumberOfNodesByClass(LINES), 2)

    def test_hidden_rulers_leave_nothing_and_other_lines_stay(self):
        other = self.scene.AddNewNodeByClass(LINES, "My own")
        before = self.scene.GetNumberOfNodes()
        show_rulers(self.node, "Lesion_01")
        hide_rulers(self.node)
        hide_rulers(self.node)
        self.assertEqual(self.scene.GetNumberOfNodes(), before)
        self.assertIs(self.scene.GetFirstNodeByName("My own"), other)

    def test_rulers_of_two_segmentations_are_their_own(self):
        second = begin(replace(self.result), self.volume_node)
        first_rulers, second_rulers = show_rulers(self.node, "Lesion_01"), show_rulers(second, "Lesion_02")
        self.assertEqual(self.scene.GetNumberOfNodesByClass(LINES), 4)
        hide_rulers(second)
        self.assertTrue(all(ruler.GetScene() for ruler in first_rulers))
        self.assertFalse(any(ruler.GetScene() for ruler in second_rulers))


class JumpTest(ReviewTestCase):
    def setUp(self):
        super().setUp()
        transform = add_transform(self.scene, rigid_motion())
        for node in (self.volume_node, self.node):
            node.SetAndObserveTransformNodeID(transform.GetID())
        self.views = []
        for name in ("Red", "Yellow", "Green"):
            view = self.scene.AddNewNodeByClass("vtkMRMLSliceNode", name)
            view.SetLayoutName(name)
            view.SetOrientation({"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}[name])
            self.views.append(view)

    def test_every_slice_view_is_centred_on_the_lesion(self):
        import slicer

        for lesion in self.result.lesions:
            segment_id = f"Lesion_{lesion.label:02d}"
            point = jump_to_lesion(self.node, segment_id)
            for view in self.views:
                centre = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
                np.testing.assert_allclose(centre, point, atol=1e-6)
            self.assertLess(
                np.linalg.norm(point - world_centroid_ras_mm(self.node, segment_id)), lesion.measurements.long_axis_mm / 2
            )

    def test_rulers_lie_in_the_slice_that_is_jumped_to(self):
        point = np.array(jump_to_lesion(self.node, "Lesion_01"))
        for ruler in show_rulers(self.node, "Lesion_01"):
            axis = world_from_node(self.volume_node)[:3, :3] @ (self.result.canonical.direction_matrix[:, 2] * (-1, -1, 1))
            for n in range(2):
                self.assertAlmostEqual(float((np.array(ruler.GetNthControlPointPositionWorld(n)) - point) @ axis), 0, places=6)

    def test_lesion_that_is_gone_or_empty_is_named(self):
        self.node.GetSegmentation().AddEmptySegment("Empty", "Erased")
        with self.assertRaisesRegex(InputError, "'Erased' has no voxels any more"):
            jump_to_lesion(self.node, "Empty")
        delete_lesion(self.editor, "Lesion_02")
        with self.assertRaisesRegex(InputError, "no segment 'Lesion_02'"):
            show_rulers(self.node, "Lesion_02")


if __name__ == "__main__":
    unittest.main()
