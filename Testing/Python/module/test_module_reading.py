"""The panel in a reader's day: arriving at a lesion, looking under the mark, few keys, a list of what is worth reading."""

from unittest import mock

import numpy as np

from helpers.review_panel import PLACE, SCORE, STATUS, PanelTestCase, host
from helpers.review_scene import Ball, begin, ct_with_balls, soft_result

VIEWS = ("Red", "Yellow", "Green")

TEN = tuple(Ball((12 + 20 * (n % 2), 12 + 14 * (n // 2), 8 + 14 * (n % 3)), 3.0 + 0.2 * n) for n in range(10))
"""Lesions that do not touch, each of another size."""


class ReadingTestCase(PanelTestCase):
    def press(self, *keys: str) -> None:
        for key in keys:
            host.press_key(self.ui.lesionTable, key)

    def view(self, name: str):
        import slicer

        return slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()

    def share_of_view(self, name: str, segment_id: str) -> float:
        """How much of the view's width or height the lesion fills, whichever is more."""
        import slicer

        ijk = np.argwhere(self.voxels()[segment_id])[:, ::-1]
        corners = np.array([self.at(at) for at in (*ijk[::7], ijk[0], ijk[-1])])
        axes = slicer.util.arrayFromVTKMatrix(self.view(name).GetSliceToRAS())[:3, :2]
        extent_mm = np.ptp(corners @ axes, axis=0)
        return float(max(extent_mm / self.view(name).GetFieldOfView()[:2]))

    def window(self) -> tuple[float, float]:
        display = self.volume_node.GetDisplayNode()
        return display.GetWindow(), display.GetLevel()

    def drawn(self) -> tuple[bool, bool]:
        """Whether outlines and fillings are drawn."""
        display = self.node.GetDisplayNode()
        return bool(display.GetVisibility2DOutline()), bool(display.GetVisibility2DFill())


class TestArrival(ReadingTestCase):
    def test_after_a_run_and_with_a_key_the_lesion_fills_about_a_third_of_the_views_in_lung_window(self):
        self.panel.arrive()
        for segment_id in ("Lesion_01", "Lesion_02", "Lesion_03"):
            self.assert_views_at(segment_id)
            for name in VIEWS:
                self.assertGreater(self.share_of_view(name, segment_id), 0.2, (segment_id, name))
                self.assertLess(self.share_of_view(name, segment_id), 0.4, (segment_id, name))
            self.assertEqual(self.window(), (1500.0, -600.0))
            self.press("N")

    def test_one_key_shows_soft_tissue_and_lung_again(self):
        self.press("N", "M")
        self.assertEqual((self.window(), self.ui.windowComboBox.currentIndex), ((400.0, 40.0), 1))
        self.press("M")
        self.assertEqual(self.window(), (1500.0, -600.0))
        self.press("M", "N")
        self.assertEqual((self.window(), self.ui.windowComboBox.currentIndex), ((1500.0, -600.0), 0))

    def test_reader_may_keep_the_own_zoom_and_window(self):
        host.click(self.ui.settingsButton)
        host.click(self.ui.keepZoomCheckBox)
        self.view("Red").SetFieldOfView(123.0, 123.0, 1.0)
        self.volume_node.GetDisplayNode().SetAutoWindowLevel(False)
        self.volume_node.GetDisplayNode().SetWindowLevel(350, 50)
        self.press("N", "N")
        self.assert_views_at("Lesion_02")
        self.assertEqual(self.view("Red").GetFieldOfView()[0], 123.0)
        self.assertEqual(self.window(), (350.0, 50.0))

    def test_click_on_another_row_brings_the_views_there_once(self):
        arrive = self.panel._view.arrive
        with mock.patch.object(self.panel._view, "arrive", side_effect=arrive) as called:
            self.click_row("Lesion 02")
            self.click_row("Lesion 02")
        self.assertEqual(called.call_count, 2, "once for each click")


class TestPeek(ReadingTestCase):
    def test_marks_are_outlines_and_a_key_goes_to_filled_and_off(self):
        self.assertEqual(self.drawn(), (True, False))
        seen = []
        for _ in range(3):
            self.press("C")
            seen.append(self.drawn())
        self.assertEqual(seen, [(True, True), (False, False), (True, False)])

    def test_marks_are_gone_while_a_key_is_held(self):
        self.press("C")
        with host.held_key(self.ui.lesionTable, "H"):
            self.assertEqual(self.drawn(), (False, False))
        self.assertEqual(self.drawn(), (True, True))

    def test_choice_is_kept(self):
        from NLSTSegLib.widgets.lesion_panel import LesionPanel

        self.press("C", "C")
        other = LesionPanel()
        self.addCleanup(other.close)
        self.assertEqual(other.ui.marksComboBox.currentIndex, 2)


class TestRows(ReadingTestCase):
    def test_row_and_line_for_the_report_say_where_and_how_large(self):
        from NLSTSegLib.lesions.place import LungExtent
        from NLSTSegLib.scene.review import LUNGS_ATTRIBUTE

        left, _, superior = (self.at((20, 24, 12)) * (-1, -1, 1)).tolist()
        extent = LungExtent(left - 50, None, (superior - 20, superior + 200))
        self.node.SetAttribute(LUNGS_ATTRIBUTE, extent.as_text())
        self.panel.show(None)
        self.panel.show(self.node)
        row = self.panel._table.rows[0]
        self.assertEqual(self.cell(0, PLACE), f"{row['slice']} L lower")
        self.assertIn(f"Lesion 01, left lower third, slice {row['slice']}", self.ui.detailLabel.text)
        self.assertIn(f"(mean {row['mean_diameter_mm']:.1f} mm), {row['volume_mm3'] / 1000:.1f} ml", self.ui.detailLabel.text)

    def test_slice_is_that_of_the_ct_in_which_the_long_axis_lies(self):
        for row in self.panel._table.rows:
            inside = np.argwhere(self.voxels()[row["segment"]].any(axis=(1, 2)))
            self.assertTrue(inside.min() <= row["slice"] <= inside.max())

    def test_text_for_the_report_is_a_line_for_each_lesion(self):
        import slicer

        host.click(self.ui.copyTextButton)
        lines = slicer.app.clipboard().text().splitlines()
        self.assertEqual([line.split(",")[0] for line in lines], ["Lesion 01", "Lesion 02", "Lesion 03"])
        self.click_row("Lesion 01")
        self.click_row("Lesion 02", "Ctrl+")
        host.click(self.ui.copyTextButton)
        self.assertEqual(len(slicer.app.clipboard().text().splitlines()), 2)


class TestList(ReadingTestCase):
    def test_marks_of_a_low_score_are_folded_away_and_counted_until_they_are_decided_on(self):
        lowest = min(float(text) for text in self.column(SCORE))
        self.ui.lowestScoreSpinBox.value = lowest + 0.015
        self.assertEqual(len(self.column()), 2)
        self.assertIn("3 lesions: 3 new; 1 not listed", self.ui.summaryLabel.text)
        self.panel.arrive()
        host.click(self.ui.acceptButton)
        host.click(self.ui.acceptButton)
        self.assertEqual(self.ui.statusLabel.text, "No lesion in the list is new any more.")
        self.ui.lowestScoreSpinBox.value = 0.0
        self.assertEqual((len(self.column()), self.statuses().count("new")), (3, 1))

    def test_decided_lesions_can_be_hidden(self):
        self.panel.arrive()
        host.click(self.ui.hideDecidedCheckBox)
        self.press("A")
        self.assertEqual((self.column(), self.selected()), (["Lesion 02", "Lesion 03"], ["Lesion 02"]))
        self.assert_views_at("Lesion_02")
        host.click(self.ui.undoButton)
        self.assertEqual(self.selected(), ["Lesion 01"])
        host.click(self.ui.hideDecidedCheckBox)
        self.assertEqual(len(self.column()), 3)


class TestUndoSays(ReadingTestCase):
    def test_undo_and_redo_say_what_they_change_and_go_there(self):
        self.click_row("Lesion 03")
        host.click(self.ui.rejectButton)
        self.click_row("Lesion 01")
        host.click(self.ui.undoButton)
        self.assertEqual(self.ui.statusLabel.text, "Undone: Lesion 03 is new again.")
        self.assert_views_at("Lesion_03")
        self.click_row("Lesion 01")
        host.click(self.ui.redoButton)
        self.assertEqual(self.ui.statusLabel.text, "Done again: Lesion 03 is rejected again.")
        self.assertEqual(self.selected(), ["Lesion 03"])

    def test_deleted_lesion_is_said_to_be_back(self):
        self.click_row("Lesion 02")
        host.click(self.ui.deleteButton)
        self.click_row("Lesion 01")
        host.click(self.ui.undoButton)
        self.assertEqual(self.ui.statusLabel.text, "Undone: Lesion 02 is back, new.")
        self.assert_views_at("Lesion_02")

    def test_key_of_the_editor_is_said_too(self):
        self.click_row("Lesion 02")
        host.click(self.ui.rejectButton)
        self.click_row("Lesion 01")
        self.segment_editor.undo()
        self.wait()
        self.assertEqual(self.ui.statusLabel.text, "Undo or redo: Lesion 02 is new again.")
        self.assert_views_at("Lesion_02")


class TestTenLesions(ReadingTestCase):
    def setUp(self):
        super().setUp()
        self.ct = ct_with_balls(TEN, shape_kji=(48, 90, 50))
        self.volume_node = self.add_ct("Ten")
        self.node = begin(soft_result(self.ct, TEN), self.volume_node)
        self.panel.show(self.node)
        self.panel.arrive()

    def test_ten_lesions_are_reviewed_with_twelve_keys(self):
        self.assertEqual(len(self.column()), 10)
        keys = 0
        while "new" in self.statuses():
            self.press("A" if keys % 3 else "R")
            keys += 1
        self.assertLessEqual(keys, 12)
        self.assertEqual({self.status(each) for each in self.voxels()}, {"accepted", "rejected"})

    def test_decision_touches_only_the_cells_that_change(self):
        changed = []
        model = self.ui.lesionTable.model()
        model.connect("dataChanged(QModelIndex,QModelIndex)", lambda first, last: changed.append((first.row(), first.column())))
        self.press("A")
        self.assertEqual({row for row, _column in changed}, {0})
        self.assertEqual({column for _row, column in changed}, {STATUS})

    def test_decision_looks_through_the_voxels_a_few_times_and_not_once_for_each_lesion(self):
        from NLSTSegLib.scene import voxels

        flatnonzero = np.flatnonzero
        with mock.patch.object(voxels.np, "flatnonzero", side_effect=flatnonzero) as looked:
            self.press("A")
        self.assertLess(looked.call_count, 6)
