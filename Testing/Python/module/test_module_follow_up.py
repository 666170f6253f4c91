"""Two CTs of one patient in the module: chosen, compared, gone through, paired by hand, left."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.example_results import result_for
from helpers.forked_command import forked_jobs
from helpers.mrml_nodes import add_volume
from helpers.placed_chest import LESIONS, chest_ct
from helpers.review_scene import LARGE, NEIGHBOUR, SMALL, begin, ct_with_balls, soft_result
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.phantom.second import make_follow_up
from NLSTSegLib.volume.ct import CtVolume
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

UPPER, LOWER = ("Red", "Green", "Yellow"), ("Red+", "Green+", "Yellow+")

THREE_OVER_THREE = 21


def moved_by(*shift_lps_mm: float, refusal: str = "") -> Registration:
    """What the child process hands over, known beforehand."""
    return Registration(sitk.TranslationTransform(3, shift_lps_mm), 0.9, 1.0, 0.0, 1.0, (3000.0, 3000.0), refusal)


REFUSED = moved_by(0, 0, 0, refusal="no lungs were found in the baseline")


class FollowUpTestCase(ModuleTestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(forked_jobs())
        from NLSTSegLib.scene.rerun import review_and_later_run
        from NLSTSegLib.widgets.follow_up_panel import FollowUpPanel

        self.options, self.results = RunOptions(), []
        self.panel = FollowUpPanel(
            lambda: self.options,
            lambda: None,
            lambda volume: review_and_later_run(volume)[0],
            lambda node, volume: self.results.append((node, volume)),
        )
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
        self.panel.start.choose(baseline, followup)

    def wait(self):
        """Until nothing runs any more."""
        host.process_events(until=lambda: not self.ui.cancelButton.visible)

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


class BallsTestCase(FollowUpTestCase):
    """Two CTs under review that show balls and no lungs, so they cannot be registered."""

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
        self.choose(*self.volumes)


class TestRun(BallsTestCase):
    """Compare is clicked, and child processes do the work."""

    def test_compare_waits_for_two_cts(self):
        self.choose(self.volumes[0], None)
        self.assertFalse(self.ui.compareButton.enabled)
        self.choose(self.volumes[0], self.volumes[0])
        host.click(self.ui.compareButton)
        self.assertIn("same CT", self.ui.messageLabel.text)
        self.assertFalse(self.ui.cancelButton.visible)

    def test_a_refused_registration_is_said_and_the_rows_are_not_linked(self):
        self.assertFalse(self.ui.cancelButton.visible)
        host.click(self.ui.compareButton)
        self.assertTrue(self.ui.cancelButton.visible)
        self.assertFalse(self.ui.compareButton.enabled)
        self.assertIn("Registering", self.ui.stageLabel.text)
        self.wait()
        self.assertTrue(self.ui.refusalLabel.visible)
        self.assertIn("could not be registered", self.ui.refusalLabel.text)
        self.assertEqual(self.cells(1), ["not compared"] * 5)
        self.assertEqual([self.view(name).GetViewGroup() for name in UPPER + LOWER], [0, 0, 0, 1, 1, 1])

    def test_cancelled_it_leaves_everything_as_it_was(self):
        import slicer

        layout = slicer.app.layoutManager().layout
        host.click(self.ui.compareButton)
        host.click(self.ui.cancelButton)
        self.assertIn("cancelled", self.ui.messageLabel.text)
        self.assertTrue(self.ui.compareButton.enabled)
        self.assertEqual((slicer.app.layoutManager().layout, self.ui.trackTable.rowCount), (layout, 0))

    def test_other_cts_end_a_run(self):
        host.click(self.ui.compareButton)
        self.choose(self.volumes[0], None)
        self.assertIn("stopped", self.ui.messageLabel.text)
        self.assertFalse(self.ui.cancelButton.visible)


class TestRunOfTheModel(FollowUpTestCase):
    def test_a_ct_without_a_review_is_segmented_first_and_the_other_keeps_its_review(self):
        from NLSTSegLib.scene.review import reviews_of

        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_threshold_bundle(folder / "model")
        self.options = RunOptions(model=str(folder / "model"), device="cpu", threads=1)
        cts = [chest_ct(np.eye(3), scale=scale) for scale in (1.0, 1.05)]
        volumes = [add_volume(ct, name) for ct, name in zip(cts, ("Old", "New"), strict=True)]
        review = begin(result_for(cts[1]), volumes[1])
        self.choose(*volumes)
        self.assertEqual(self.ui.stageLabel.text, "No review yet of 'Old': Compare runs the model there first.")
        stages = []
        host.click(self.ui.compareButton)
        host.process_events(until=lambda: stages.append(self.ui.stageLabel.text) or not self.ui.cancelButton.visible)
        self.assertEqual(list(dict.fromkeys(stages)), ["Searching for lesions in 'Old'", "Registering the two CTs", ""])
        self.assertEqual(self.ui.messageLabel.text, "")
        ((node, volume),) = self.results
        self.assertIs(volume, volumes[0])
        self.assertEqual([reviews_of(each) for each in volumes], [[node], [review]])
        self.assertEqual(" ".join(self.cells(2)).count("Lesion"), len(LESIONS))
        self.assertEqual(" ".join(self.cells(3)).count("Lesion"), review.GetSegmentation().GetNumberOfSegments())


class TestWithoutRegistration(BallsTestCase):
    def compare(self):
        self.panel.take(tuple(self.nodes), REFUSED)

    def test_each_row_of_views_shows_its_ct_and_its_outlines(self):
        self.compare()
        for names, volume, node in zip((UPPER, LOWER), self.volumes, self.nodes, strict=True):
            for name in names:
                self.assertEqual(self.layers(name).GetBackgroundVolumeID(), volume.GetID())
                self.assertTrue(node.GetDisplayNode().IsViewNodeIDPresent(self.view(name).GetID()), name)
        self.assertFalse(self.nodes[0].GetDisplayNode().IsViewNodeIDPresent(self.view("Red+").GetID()))

    def test_rows_are_paired_by_hand_stay_so_and_are_parted_again(self):
        self.compare()
        self.click_row(0)
        self.assertFalse(self.ui.pairButton.enabled)
        self.click_row(3, "Ctrl+")
        host.click(self.ui.pairButton)
        self.assertEqual(self.cells(1)[0], "same (by hand)")
        self.assertIn("grown", self.cells(4)[0])
        self.compare()
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
        self.nodes[1].GetDisplayNode().SetVisibility(False)
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
        displays = [node.GetDisplayNode() for node in self.nodes]
        return found + [(tuple(display.GetViewNodeIDs()), display.GetVisibility()) for display in displays]

    def test_a_scene_that_is_saved_and_loaded_shows_the_comparison_again(self):
        import slicer

        self.compare()
        self.click_row(0)
        self.click_row(3, "Ctrl+")
        host.click(self.ui.pairButton)
        self.ui.daysSpinBox.value = 90
        told = self.cells(1), self.cells(4)
        self.assertIn("doubling in", told[1][0])
        for name, node in zip(("Old", "New"), self.nodes, strict=True):
            node.SetName(f"{name}: lesions")
        file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "scene.mrb"
        self.assertTrue(slicer.util.saveScene(str(file)))
        self.scene.Clear()
        self.assertEqual(self.ui.trackTable.rowCount, 0)
        slicer.util.loadScene(str(file))
        self.assertEqual((self.cells(1), self.cells(4)), told)
        self.assertEqual(told[0][0], "same (by hand)")
        self.assertEqual(self.ui.daysSpinBox.value, 90)
        self.assertEqual([node.GetName() for node in self.panel.start.volumes], ["Old", "New"])
        self.assertIn("no lungs", self.ui.refusalLabel.text)
        self.assertEqual([self.view(name).GetViewGroup() for name in UPPER + LOWER], [0, 0, 0, 1, 1, 1])
        host.click(self.ui.leaveButton)
        for volume in self.panel.start.volumes:
            # What lay under the shift when it was saved lies where its headers put it.
            self.assertIsNone(volume.GetParentTransformNode())

    def test_closing_the_scene_leaves(self):
        self.compare()
        self.scene.Clear()
        self.assertEqual(self.ui.trackTable.rowCount, 0)
        self.assertFalse(self.ui.compareButton.enabled)


class TestPhantom(FollowUpTestCase):
    def test_lesions_are_found_again_and_both_rows_show_them_and_scroll_together(self):
        import slicer

        volumes = []
        for name, phantom in (
            ("Old", make_phantom(0, spacing_ijk_mm=(2.0, 2.0, 3.0))),
            ("New", make_follow_up(0, spacing_ijk_mm=(2.0, 2.0, 2.5))),
        ):
            # What result_for takes for tissue are the lesions alone.
            hu = np.where(phantom.labels > 0, 40, -800).astype(np.int16)
            result = result_for(CtVolume(hu, phantom.ct.spacing_ijk_mm, phantom.ct.origin_lps_mm))
            volume = add_volume(phantom.ct, name)
            volume.CreateDefaultDisplayNodes()
            begin(result, volume)
            volumes.append(volume)
        self.choose(*volumes)
        self.ui.daysSpinBox.value = 180
        host.click(self.ui.compareButton)
        self.wait()
        self.assertFalse(self.ui.refusalLabel.visible, self.ui.refusalLabel.text)
        kinds = self.cells(1)
        self.assertEqual(sorted(kinds), ["new", "not found"] + ["same"] * 5)
        self.assertEqual(sum("grown" in told for told in self.cells(4)), 1)
        for kind in ("new", "not found"):
            self.assertRegex(self.cells(4)[kinds.index(kind)], r"^score \d\.\d\d; probability at its place 0\.\d\d$")
        self.assertEqual({self.view(name).GetViewGroup() for name in UPPER + LOWER}, {0})
        for row in range(len(kinds)):
            self.click_row(row)
            for upper, lower in zip(UPPER, LOWER, strict=True):
                np.testing.assert_allclose(self.middle(upper), self.middle(lower), atol=0.01)
        # The reader scrolls the upper axial view by 11 mm: the lower one follows, so the shift at the lesion holds there too.
        logic, shift = slicer.app.layoutManager().sliceWidget("Red").sliceLogic(), self.panel._views.shift
        before = self.middle("Red")
        logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.SliceToRASFlag)
        logic.SetSliceOffset(logic.GetSliceOffset() + 11)
        logic.EndSliceNodeInteraction()
        host.process_events()
        self.assertAlmostEqual(np.linalg.norm(self.middle("Red") - before), 11, places=3)
        np.testing.assert_allclose(self.middle("Red+"), self.middle("Red"), atol=0.01)
        np.testing.assert_allclose(self.panel._views.shift, shift)


if __name__ == "__main__":
    unittest.main()
