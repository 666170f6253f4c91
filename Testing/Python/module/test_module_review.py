"""The panel in which a reader works through the lesions: table, order, decisions, keys, what is shown in the views."""

from unittest import mock

from helpers.review_panel import AXES, DENSITY, DIAMETER, NAME, PLACE, SCORE, STATUS, VOLUME, PanelTestCase, host
from helpers.review_scene import lesion_of


class TestTable(PanelTestCase):
    def test_it_shows_every_lesion_with_its_sizes_the_largest_first(self):
        from NLSTSegLib.review.case import review_row

        self.assertEqual(self.column(), ["Lesion 01", "Lesion 02", "Lesion 03"])
        self.assertEqual(self.ui.summaryLabel.text, "CT: 3 lesions: 3 new (threshold 0.5, smallest volume 0 mm³)")
        row = review_row(lesion_of(self.node, "Lesion_02"))
        shown = [self.cell(1, column) for column in (STATUS, SCORE, DIAMETER, VOLUME, PLACE, AXES, DENSITY)]
        axes = f"{row['long_axis_mm']:.1f} x {row['short_axis_mm']:.1f}"
        numbers = [f"{row['score']:.2f}", f"{row['mean_diameter_mm']:.1f}", f"{row['volume_mm3']} mm³", str(row["slice"])]
        self.assertEqual(shown, ["●", *numbers, axes, str(row["mean_hu"])])
        self.assertGreater(row["volume_mm3"], 100)

    def test_swatch_has_the_colour_of_the_segment(self):
        import qt

        color = self.ui.lesionTable.item(0, NAME).data(qt.Qt.DecorationRole)
        expected = self.node.GetSegmentation().GetSegment("Lesion_01").GetColor()
        for part, shown in zip(expected, (color.redF(), color.greenF(), color.blueF()), strict=True):
            self.assertAlmostEqual(part, shown, delta=0.01)
        self.node.GetSegmentation().GetSegment("Lesion_01").SetColor(1.0, 0.0, 0.0)
        self.wait()
        self.assertEqual(self.ui.lesionTable.item(0, NAME).data(qt.Qt.DecorationRole).name(), "#ff0000")

    def test_clicks_on_the_header_sort_and_turn_round(self):
        def numbers(column):
            return [float(text.split()[0]) * (1000 if text.endswith("ml") else 1) for text in self.column(column)]

        self.click_row("Lesion 02")
        self.click_header(VOLUME)
        self.assertEqual(numbers(VOLUME), sorted(numbers(VOLUME)))
        self.click_header(SCORE)
        self.assertEqual(numbers(SCORE), sorted(numbers(SCORE), reverse=True))
        self.click_header(NAME)
        self.assertEqual(self.column(), ["Lesion 01", "Lesion 02", "Lesion 03"])
        self.click_header(NAME)
        self.assertEqual(self.column(), ["Lesion 03", "Lesion 02", "Lesion 01"])
        self.assertEqual(self.selected(), ["Lesion 02"], "the selection stays with the lesion")

    def test_row_brings_all_views_to_the_lesion_and_selects_its_segment(self):
        for name, segment_id in (("Lesion 03", "Lesion_03"), ("Lesion 01", "Lesion_01")):
            self.click_row(name)
            self.assert_views_at(segment_id)
            self.assertEqual(self.segment_editor.currentSegmentID(), segment_id)

    def test_click_on_the_current_row_brings_the_views_back(self):
        import slicer

        self.click_row("Lesion 02")
        slicer.modules.markups.logic().JumpSlicesToLocation(0, 0, 0, True)
        self.click_row("Lesion 02")
        self.assert_views_at("Lesion_02")

    def test_segment_chosen_in_the_editor_is_selected_in_the_table(self):
        self.segment_editor.setCurrentSegmentID("Lesion_03")
        self.assertEqual(self.selected(), ["Lesion 03"])

    def test_nothing_is_shown_without_a_segmentation(self):
        self.panel.show(None)
        self.assertEqual((self.column(), self.ui.summaryLabel.text, self.ui.detailLabel.text), ([], "", ""))
        for button in (
            self.ui.acceptButton,
            self.ui.deleteButton,
            self.ui.addButton,
            self.ui.undoButton,
            self.ui.thresholdSlider,
        ):
            self.assertFalse(button.enabled)
        self.assertIsNone(self.segment_editor.segmentationNode())


class TestDecisions(PanelTestCase):
    def visible(self, segment_id: str) -> bool:
        return bool(self.node.GetDisplayNode().GetSegmentVisibility(segment_id))

    def test_lesion_that_was_not_shown_is_shown_before_it_is_accepted(self):
        host.click(self.ui.acceptButton)
        self.assertEqual((self.statuses(), self.selected()), (["new", "new", "new"], ["Lesion 01"]))
        self.assert_views_at("Lesion_01")
        self.assertEqual(self.ui.statusLabel.text, "Lesion 01 was not shown before: look at it, then accept it.")
        host.click(self.ui.acceptButton)
        self.assertEqual(self.statuses(), ["accepted", "new", "new"])
        self.click_row("Lesion 03")
        self.panel.show(None)
        self.panel.show(self.node)
        self.click_row("Lesion 02", "Shift+")
        host.click(self.ui.acceptButton)
        self.assertEqual(self.statuses(), ["accepted", "new", "new"], "shown before the panel went to another review")

    def test_accepting_goes_on_to_the_next_new_lesion(self):
        self.panel.arrive()
        host.click(self.ui.acceptButton)
        self.assertEqual((self.statuses(), self.selected()), (["accepted", "new", "new"], ["Lesion 02"]))
        self.assert_views_at("Lesion_02")
        self.click_row("Lesion 03")
        host.click(self.ui.acceptButton)
        self.assertEqual(self.selected(), ["Lesion 02"], "round the end")
        host.click(self.ui.acceptButton)
        self.assertIn("3 lesions: 3 accepted", self.ui.summaryLabel.text)
        self.assertEqual(self.ui.statusLabel.text, "No lesion in the list is new any more.")
        self.assertFalse(self.ui.acceptButton.enabled)

    def test_rejected_lesion_is_hidden_and_grey_and_comes_back_when_reopened(self):
        self.click_row("Lesion 02")
        host.click(self.ui.rejectButton)
        self.assertEqual(self.statuses(), ["new", "rejected", "new"])
        self.assertFalse(self.visible("Lesion_02"))
        row = self.row_of("Lesion 02")
        grey = self.ui.lesionTable.item(row, NAME).foreground().color()
        self.assertNotEqual(grey.name(), self.ui.lesionTable.palette.text().color().name())
        self.click_row("Lesion 02")
        host.click(self.ui.reopenButton)
        self.assertEqual(self.statuses(), ["new", "new", "new"])
        self.assertTrue(self.visible("Lesion_02"))
        self.assertEqual(self.selected(), ["Lesion 02"])

    def test_several_lesions_are_decided_on_as_one_step(self):
        self.click_row("Lesion 01")
        self.click_row("Lesion 03", "Ctrl+")
        host.click(self.ui.rejectButton)
        self.assertEqual((self.statuses(), self.selected()), (["rejected", "new", "rejected"], ["Lesion 02"]))
        host.click(self.ui.undoButton)
        self.assertEqual(self.statuses(), ["new", "new", "new"])
        self.assertTrue(self.visible("Lesion_01") and self.visible("Lesion_03"))
        host.click(self.ui.redoButton)
        self.assertEqual(self.statuses(), ["rejected", "new", "rejected"])
        self.assertFalse(self.visible("Lesion_01"))

    def test_selection_of_several_lesions_outlasts_changes(self):
        self.click_row("Lesion 01")
        self.click_row("Lesion 03", "Ctrl+")
        self.click_row("Lesion 03", "Ctrl+")
        self.click_row("Lesion 02", "Ctrl+")
        self.assertEqual(self.selected(), ["Lesion 01", "Lesion 02"])
        self.paint("Lesion_03", (slice(29, 31), slice(52, 54), slice(22, 26)), value=False)
        self.assertEqual(self.statuses(), ["new", "new", "edited"])
        self.assertEqual(self.selected(), ["Lesion 01", "Lesion 02"])

    def test_tag_that_cannot_be_read_is_named(self):
        self.node.GetSegmentation().GetSegment("Lesion_02").SetTag("NLSTSeg.Status", "perhaps")
        self.wait()
        self.assertIn("'Lesion 02' has a tag of NLSTSeg that cannot be read", self.ui.statusLabel.text)
        self.assertEqual(self.column(), [])

    def test_undo_by_the_editor_itself_is_followed(self):
        host.click(self.ui.rejectButton)
        self.assertTrue(self.ui.undoButton.enabled)
        self.segment_editor.undo()
        self.wait()
        self.assertEqual(self.statuses(), ["new", "new", "new"])
        self.assertTrue(self.visible("Lesion_01"))
        self.assertEqual((self.ui.undoButton.enabled, self.ui.redoButton.enabled), (False, True))

    def test_edited_lesion_is_accepted_but_not_reopened(self):
        self.paint("Lesion_01", (slice(11, 13), slice(22, 24), slice(8, 11)))
        self.assertEqual(self.statuses(), ["edited", "new", "new"])
        self.assertFalse(self.ui.reopenButton.enabled)
        self.panel.arrive()
        host.click(self.ui.acceptButton)
        self.assertEqual(self.statuses(), ["accepted", "new", "new"])

    def test_reader_is_noted_and_kept_in_the_settings(self):
        from NLSTSegLib.scene.lesion_state import lesion_state
        from NLSTSegLib.widgets.lesion_panel import LesionPanel

        host.click(self.ui.settingsButton)
        self.ui.readerLineEdit.text = " Dr. Müller "
        host.press_key(self.ui.readerLineEdit, "Return")
        self.panel.arrive()
        host.click(self.ui.acceptButton)
        self.assertEqual(lesion_state(self.node, "Lesion_01").reader, "Dr. Müller")
        other = LesionPanel()
        self.addCleanup(other.close)
        self.assertEqual(other.ui.readerLineEdit.text, "Dr. Müller")


class TestKeys(PanelTestCase):
    def press(self, key: str) -> None:
        host.press_key(self.ui.lesionTable, key)

    def test_n_and_p_go_through_the_lesions_and_round(self):
        gone_to = []
        for key in "NNNNP":
            self.press(key)
            gone_to += self.selected()
        self.assertEqual(gone_to, ["Lesion 01", "Lesion 02", "Lesion 03", "Lesion 01", "Lesion 03"])
        self.assert_views_at("Lesion_03")
        self.assertEqual(self.segment_editor.currentSegmentID(), "Lesion_03")

    def test_decisions_by_key(self):
        for key in "NAR":
            self.press(key)
        self.assertEqual(self.statuses(), ["accepted", "rejected", "new"])
        self.press("P")
        self.press("O")
        self.assertEqual(self.statuses(), ["accepted", "new", "new"])

    def test_keys_go_on_working_after_a_click_on_a_button(self):
        import qt

        self.panel.arrive()
        for _ in range(3):
            host.click(self.ui.acceptButton)
        self.assertFalse(self.ui.acceptButton.enabled)
        host.press_key(qt.QApplication.focusWidget(), "N")
        self.assertEqual(self.selected(), ["Lesion 01"])

    def test_keys_work_from_a_slice_view_after_the_grey_values_were_dragged_there(self):
        import slicer

        view = slicer.app.layoutManager().sliceWidget("Red")
        self.windows[0].layout().addWidget(view)
        self.addCleanup(view.setParent, None)
        view.show()
        self.press("N")
        slicer.util.clickAndDrag(view, start=(20, 20), end=(60, 60), steps=3)
        for key, wanted in (("A", ["accepted", "new", "new"]), ("R", ["accepted", "rejected", "new"])):
            host.press_key(view.sliceView(), key)
            self.assertEqual(self.statuses(), wanted)
        host.press_key(view.sliceView(), "P")
        self.assertEqual(self.selected(), ["Lesion 02"])
        self.assert_views_at("Lesion_02")

    def test_keys_are_those_of_the_main_window_and_not_of_its_text_fields_or_of_other_windows(self):
        import qt

        elsewhere = qt.QPushButton("elsewhere")
        self.show_in_window(elsewhere)
        for key in "NNA":
            host.press_key(elsewhere, key)
        host.click(self.ui.settingsButton)
        for key in "NAR":
            host.press_key(self.ui.readerLineEdit, key)
        self.assertEqual(self.ui.readerLineEdit.text.upper(), "NAR")
        self.assertEqual((self.selected(), self.statuses()), (["Lesion 01"], ["new", "new", "new"]))

    def test_keys_are_gone_when_another_module_is_shown(self):
        self.press("N")
        self.panel.exit()
        self.press("N")
        self.assertEqual(self.selected(), ["Lesion 01"])
        self.panel.enter()
        self.press("N")
        self.assertEqual(self.selected(), ["Lesion 02"])

    def test_another_shortcut_of_the_main_window_rests_meanwhile(self):
        import qt

        pressed = []
        other = qt.QShortcut(qt.QKeySequence("N"), self.windows[0])
        other.connect("activated()", lambda: pressed.append("other"))
        self.panel.exit()
        self.press("N")
        self.panel.enter()
        self.press("N")
        self.assertEqual((pressed, self.selected()), (["other"], ["Lesion 01"]))
        self.assert_views_at("Lesion_01")
        self.panel.exit()
        self.press("N")
        self.assertEqual(pressed, ["other", "other"])


class TestShown(PanelTestCase):
    def rulers(self):
        import slicer

        return slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")

    def test_rulers_follow_the_selection_and_every_edit(self):
        self.click_row("Lesion 02")
        host.click(self.ui.rulersCheckBox)
        short = max(self.rulers(), key=lambda line: line.GetLineLengthWorld()).GetLineLengthWorld()
        self.assertEqual(f"{short:.1f}", self.cell(1, AXES).split()[0])
        self.click_row("Lesion 01")
        long = max(self.rulers(), key=lambda line: line.GetLineLengthWorld()).GetLineLengthWorld()
        self.assertGreater(long, short + 2)
        self.paint("Lesion_01", (slice(12, 13), slice(20, 22), slice(2, 20)))
        longer = max(self.rulers(), key=lambda line: line.GetLineLengthWorld()).GetLineLengthWorld()
        self.assertGreater(longer, long + 2)
        self.assertEqual(f"{longer:.1f}", self.cell(0, AXES).split()[0])
        host.click(self.ui.rulersCheckBox)
        self.assertEqual(self.rulers(), [])

    def test_surface_is_made_only_when_asked_for(self):
        segmentation = self.node.GetSegmentation()
        self.assertFalse(segmentation.ContainsRepresentation("Closed surface"))
        host.click(self.ui.surfaceCheckBox)
        self.assertTrue(segmentation.ContainsRepresentation("Closed surface"))
        self.assertTrue(self.node.GetDisplayNode().GetVisibility3D())
        host.click(self.ui.surfaceCheckBox)
        self.assertFalse(segmentation.ContainsRepresentation("Closed surface"))

    def test_seconds_in_focus_count_for_the_lesion_while_the_panel_is_used(self):
        from NLSTSegLib.scene.lesion_state import lesion_state

        def seconds(segment_id: str) -> float:
            return lesion_state(self.node, segment_id).seconds

        clock = self.enterContext(mock.patch("NLSTSegLib.widgets.focus_watch.time"))
        clock.monotonic.return_value = 1000.0
        host.press_key(self.ui.lesionTable, "N")
        clock.monotonic.return_value = 1004.0
        host.press_key(self.ui.lesionTable, "N")
        self.assertEqual(seconds("Lesion_01"), 4.0)
        clock.monotonic.return_value = 1012.0
        self.panel.exit()
        self.assertEqual(seconds("Lesion_02"), 8.0)
        clock.monotonic.return_value = 1028.0
        self.panel.enter()
        self.click_row("Lesion 03")
        self.assertEqual(seconds("Lesion_02"), 8.0, "another module was shown")
        self.assertEqual((seconds("Lesion_01"), seconds("Lesion_03")), (4.0, 0.0))

    def test_key_pressed_before_any_jump_shows_the_selected_lesion(self):
        host.press_key(self.ui.lesionTable, "N")
        self.assertEqual(self.selected(), ["Lesion 01"])
        self.assert_views_at("Lesion_01")
