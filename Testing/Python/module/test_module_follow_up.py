"""Two CTs of one patient in the module: chosen, compared, gone through, paired by hand, left."""

import unittest

import numpy as np

from helpers.example_results import result_for
from helpers.mrml_nodes import add_volume
from helpers.review_scene import LARGE, NEIGHBOUR, SMALL, begin, ct_with_balls, soft_result
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.phantom.second import make_follow_up
from NLSTSegLib.volume.ct import CtVolume
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

UPPER, LOWER = ("Red", "Green", "Yellow"), ("Red+", "Green+", "Yellow+")

THREE_OVER_THREE = 21


class FollowUpTestCase(ModuleTestCase):
    def setUp(self):
        super().setUp()
        from NLSTSegLib.widgets.follow_up_panel import FollowUpPanel

        self.panel = FollowUpPanel()
        self.addCleanup(self.panel.close)
        self.ui = self.panel.ui
        self.show_in_window()

    def show_in_window(self):
        import qt

        self.window = qt.QWidget()
        column = qt.QVBoxLayout(self.window)
        column.addWidget(self.panel.widget)
        self.window.resize(560, 620)
        self.window.show()
        self.addCleanup(self.window.hide)
        host.process_events()

    def choose(self, baseline, followup):
        self.panel.baseline.select(baseline)
        self.panel.followup.select(followup)

    def cells(self, column):
        table = self.ui.trackTable
        return [table.item(row, column).text() for row in range(table.rowCount)]

    def view(self, name):
        import slicer

        return slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()

    def layers(self, name):
        import slicer

        return slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()

    def middle(self, name):
        import slicer

        return slicer.util.arrayFromVTKMatrix(self.view(name).GetSliceToRAS())[:3, 3].copy()

    def click_row(self, row, modifiers=""):
        table = self.ui.trackTable
        place = table.visualItemRect(table.item(row, 0)).center()
        host.click_at(table.viewport(), place.x(), place.y(), modifiers)


class TestWithoutRegistration(FollowUpTestCase):
    """The CTs show balls and no lungs, so they cannot be registered."""

    def setUp(self):
        super().setUp()
        balls = LARGE, NEIGHBOUR, SMALL
        self.volumes, self.nodes = [], []
        for name, shown in (("Old", balls), ("New", (LARGE._replace(radius_mm=8.8), SMALL))):
            ct = ct_with_balls(shown, UPRIGHT)
            volume = add_volume(ct, name)
            volume.CreateDefaultDisplayNodes()
            self.volumes.append(volume)
            self.nodes.append(begin(soft_result(ct, shown), volume))
        self.choose(*self.nodes)

    def compare(self):
        host.click(self.ui.compareButton)

    def test_compare_waits_for_both_segmentations(self):
        self.choose(self.nodes[0], None)
        self.assertFalse(self.ui.compareButton.enabled)
        self.choose(self.nodes[0], self.nodes[0])
        self.compare()
        self.assertIn("same CT", self.ui.messageLabel.text)

    def test_a_refused_registration_is_said_and_the_rows_are_not_linked(self):
        self.compare()
        self.assertTrue(self.ui.refusalLabel.visible)
        self.assertIn("could not be registered", self.ui.refusalLabel.text)
        self.assertEqual(self.cells(1), ["not compared"] * 5)
        self.assertEqual([self.view(name).GetViewGroup() for name in UPPER + LOWER], [0, 0, 0, 1, 1, 1])

    def test_each_row_of_views_shows_its_ct_and_its_outlines(self):
        self.compare()
        for names, volume, node in zip((UPPER, LOWER), self.volumes, self.nodes, strict=True):
            for name in names:
                self.assertEqual(self.layers(name).GetBackgroundVolumeID(), volume.GetID())
                self.assertTrue(node.GetDisplayNode().IsViewNodeIDPresent(self.view(name).GetID()), name)
        self.assertFalse(self.nodes[0].GetDisplayNode().IsViewNodeIDPresent(self.view("Red+").GetID()))

    def test_rows_are_paired_by_hand_and_parted_again(self):
        self.compare()
        self.click_row(0)
        self.assertFalse(self.ui.pairButton.enabled)
        self.click_row(3, "Ctrl+")
        host.click(self.ui.pairButton)
        self.assertEqual(self.cells(1)[0], "same (by hand)")
        self.assertIn("grown", self.cells(4)[0])
        self.compare()  # pairs that were made by hand stay
        self.assertEqual(self.cells(1).count("same (by hand)"), 1)
        self.click_row(0)
        host.click(self.ui.unpairButton)
        self.assertEqual(len(self.cells(1)), 5)

    def test_growth_follows_while_an_outline_is_edited(self):
        self.compare()
        self.click_row(0)
        self.click_row(3, "Ctrl+")
        host.click(self.ui.pairButton)
        before = self.cells(4)[0]
        import slicer
        import vtk

        from NLSTSegLib.scene.voxels import region_image, segment_region
        from NLSTSegLib.volume.regions import Region

        segment_id = self.nodes[1].GetSegmentation().GetNthSegmentID(0)
        region = segment_region(self.nodes[1], segment_id)
        half = np.arange(region.mask.shape[0]) < region.mask.shape[0] // 2
        smaller = Region.of(region.mask & half[:, None, None], region.box)
        matrix = vtk.vtkMatrix4x4()
        self.volumes[1].GetIJKToRASMatrix(matrix)
        slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(
            region_image(smaller, matrix), self.nodes[1], segment_id, slicer.vtkSlicerSegmentationsModuleLogic.MODE_REPLACE
        )
        host.process_events(until=lambda: self.cells(4)[0] != before)
        self.assertNotEqual(self.cells(4)[0], before)

    def test_both_halves_of_a_track_have_one_colour_until_it_is_left(self):
        segments = [node.GetSegmentation().GetNthSegment(0) for node in self.nodes]
        own = [tuple(segment.GetColor()) for segment in segments]
        self.compare()
        self.click_row(0)
        self.click_row(3, "Ctrl+")
        host.click(self.ui.pairButton)
        self.assertEqual(*(tuple(segment.GetColor()) for segment in segments))
        host.click(self.ui.leaveButton)
        np.testing.assert_allclose([segment.GetColor() for segment in segments], own)

    def test_align_here_takes_the_middles_of_both_rows_for_one_place(self):
        self.compare()
        for name, place in (("Red", (10.0, -20.0, -80.0)), ("Red+", (4.0, -26.0, -60.0))):
            self.view(name).JumpSliceByCentering(*place)
        host.click(self.ui.alignButton)
        np.testing.assert_allclose(self.panel._views.shift, (6, 6, -20), atol=1e-6)
        self.assertEqual({self.view(name).GetViewGroup() for name in UPPER + LOWER}, {0})
        for upper, lower in zip(UPPER, LOWER, strict=True):
            np.testing.assert_allclose(self.middle(upper), self.middle(lower), atol=1e-6)

    def test_n_and_p_go_through_the_tracks(self):
        self.compare()
        places = []
        for key in ("N", "N", "P"):
            host.press_key(self.ui.trackTable, key)
            places.append((self.ui.trackTable.currentRow(), *self.middle("Red").round(3)))
        self.assertEqual([place[0] for place in places], [1, 2, 1])
        self.assertEqual(places[0], places[2])
        self.assertNotEqual(places[0][1:], places[1][1:])

    def test_leaving_gives_everything_back(self):
        import slicer

        layouts = slicer.app.layoutManager()
        slicer.util.setSliceViewerLayers(background=self.volumes[1])
        self.layers("Red").SetLinkedControl(True)
        layout = layouts.layout
        before = self.state()
        self.compare()
        self.assertEqual(layouts.layout, THREE_OVER_THREE)
        self.assertNotEqual(self.state(), before)
        host.click(self.ui.leaveButton)
        self.assertEqual(layouts.layout, layout)
        self.assertEqual(self.state(), before)
        for node in (*self.volumes, *self.nodes):
            self.assertIsNone(node.GetParentTransformNode())
        self.assertIsNone(self.scene.GetFirstNodeByName("Follow-up shift"))
        self.assertEqual(self.ui.trackTable.rowCount, 0)

    def state(self):
        found = []
        for name in UPPER:
            layers = self.layers(name)
            view = self.view(name).GetViewGroup(), layers.GetBackgroundVolumeID()
            found.append((*view, layers.GetLinkedControl(), layers.GetHotLinkedControl()))
        return found + [tuple(node.GetDisplayNode().GetViewNodeIDs()) for node in self.nodes]

    def test_the_comparison_is_kept_in_the_scene(self):
        from NLSTSegLib.scene.follow_up import SceneFollowUp

        self.compare()
        self.click_row(0)
        self.click_row(3, "Ctrl+")
        host.click(self.ui.pairButton)
        self.ui.daysSpinBox.value = 90
        told = self.cells(4)[0]
        self.assertIn("doubling in", told)
        host.click(self.ui.leaveButton)
        again = SceneFollowUp(*self.nodes)
        self.assertEqual(again.rows()[0].told, told)
        self.assertEqual(again.days, 90)

    def test_closing_the_scene_leaves(self):
        self.compare()
        self.scene.Clear()
        self.assertEqual(self.ui.trackTable.rowCount, 0)
        self.assertFalse(self.ui.compareButton.enabled)


class TestPhantom(FollowUpTestCase):
    def test_lesions_are_found_again_and_both_rows_show_them(self):
        from NLSTSegLib.scene.segmentations import segmentation_from_result

        nodes = []
        for name, phantom in (
            ("Old", make_phantom(0, spacing_ijk_mm=(2.0, 2.0, 3.0))),
            ("New", make_follow_up(0, spacing_ijk_mm=(2.0, 2.0, 2.5))),
        ):
            # What result_for takes for tissue are the lesions alone.
            hu = np.where(phantom.labels > 0, 40, -800).astype(np.int16)
            result = result_for(CtVolume(hu, phantom.ct.spacing_ijk_mm, phantom.ct.origin_lps_mm))
            volume = add_volume(phantom.ct, name)
            volume.CreateDefaultDisplayNodes()
            node = segmentation_from_result(result, volume)
            nodes.append(node)
        self.choose(*nodes)
        self.ui.daysSpinBox.value = 180
        host.click(self.ui.compareButton)
        self.assertFalse(self.ui.refusalLabel.visible, self.ui.refusalLabel.text)
        kinds = self.cells(1)
        self.assertEqual(sorted(kinds), ["new", "not found"] + ["same"] * 5)
        self.assertEqual(sum("grown" in told for told in self.cells(4)), 1)
        self.assertEqual({self.view(name).GetViewGroup() for name in UPPER + LOWER}, {0})
        for row in range(len(kinds)):
            self.click_row(row)
            for upper, lower in zip(UPPER, LOWER, strict=True):
                np.testing.assert_allclose(self.middle(upper), self.middle(lower), atol=0.01)


if __name__ == "__main__":
    unittest.main()
