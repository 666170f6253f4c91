"""The part of the panel in which a reader works through the lesions and corrects them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from NLSTSegLib.errors import InputError
from NLSTSegLib.review.lesion_text import report_line
from NLSTSegLib.review.worklist import Row
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_list import LesionList
from NLSTSegLib.scene.lesion_state import add_seconds_in_focus, show_by_status
from NLSTSegLib.scene.views import hide_lesions, show_on_its_ct
from NLSTSegLib.scene.voxels import volume_of
from NLSTSegLib.widgets.adding import AddButton
from NLSTSegLib.widgets.focus_watch import FocusWatch
from NLSTSegLib.widgets.later_run import LaterRunBox
from NLSTSegLib.widgets.lesion_actions import LesionActions
from NLSTSegLib.widgets.lesion_controls import LesionControls
from NLSTSegLib.widgets.lesion_table import LesionTable
from NLSTSegLib.widgets.panel import Panel
from NLSTSegLib.widgets.reading_view import ReadingView
from NLSTSegLib.widgets.segment_editor import EmbeddedSegmentEditor
from NLSTSegLib.widgets.settings import save_setting, setting
from NLSTSegLib.widgets.threshold_slider import ThresholdSlider
from NLSTSegLib.widgets.worklist_filter import WorklistFilter, summary_of

GATHER_MS = 50
"""Changes that follow each other faster are shown at once."""

READER_KEY = "Reader"
"""Key of the setting with the reader's name."""


class LesionPanel(Panel):
    """Shows the lesions of one segmentation under review; whoever changes them, the panel follows."""

    def __init__(self) -> None:
        super().__init__("LesionPanel")
        self.segmentation_node: Any = None
        self._editor: LesionEditor | None = None
        self._lesions: LesionList | None = None
        self._observed, self._observed_scene = slicer.util.VTKObservationMixin(), slicer.util.VTKObservationMixin()
        self._gather = qt.QTimer()
        self._gather.setSingleShot(True)
        self._gather.setInterval(GATHER_MS)
        self._gather.connect("timeout()", self._follow)
        self._segment_editor = EmbeddedSegmentEditor(self.ui.segmentEditorButton, self._segment_chosen_in_editor)
        self._table = LesionTable(self.ui.lesionTable, self._bring_views_to, self._selection_changed)
        self._filter = WorklistFilter(self.ui, self._refresh)
        self._view = ReadingView(self.ui, self._act)
        self._slider = ThresholdSlider(self.ui.thresholdSlider, self.ui.thresholdLabel, self._say)
        self._actions = LesionActions(
            self._table,
            rows=self._all_rows,
            reader=lambda: self._reader,
            go_to=self._go_to,
            refresh=self._refresh,
            say=self._say,
        )
        self._adding = AddButton(
            self.ui.addButton,
            target=lambda: (self._editor, self._reader),
            act=self._act,
            say=self._say,
            on_added=self._added,
        )
        self._later_run = LaterRunBox(self.ui, self._act)
        self._focus = FocusWatch(self._keep_seconds)
        self._controls = LesionControls(self.ui, self._actions, self._view, act=self._act, undo=self._undo)
        self.ui.readerLineEdit.text = setting(READER_KEY, "")
        self.ui.readerLineEdit.connect("editingFinished()", lambda: save_setting(READER_KEY, self._reader))
        self._observe_scene()
        self._refresh()

    def _observe_scene(self) -> None:
        scene = slicer.mrmlScene
        self._observed_scene.addObserver(scene, scene.StartCloseEvent, lambda caller, event: self.show(None))
        self._observed_scene.addObserver(scene, scene.StartSaveEvent, lambda caller, event: self._focus.keep())

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def about_to_be_removed(caller: Any, event: str, node: Any) -> None:
            if node is self.segmentation_node:
                self.show(None)
            elif node is self._later_run.node:
                self._later_run.close()
            elif node.IsA("vtkMRMLVolumeNode"):
                self._gather.start()

        self._observed_scene.addObserver(scene, scene.NodeAboutToBeRemovedEvent, about_to_be_removed)

    # What the module tells the panel.

    def show(self, segmentation_node: Any) -> None:
        """Show the lesions of a node that lies on its CT, or none (``None``); those before go from the views too."""
        if segmentation_node is self.segmentation_node:
            return
        if self.segmentation_node is not None:
            hide_lesions(self.segmentation_node)
        self._let_go()
        self.segmentation_node = segmentation_node
        if segmentation_node is not None:
            self._editor = self._actions.editor = LesionEditor(segmentation_node, self._segment_editor.widget)
            self._lesions = LesionList(segmentation_node, self._editor.known)
            try:
                volume_node = volume_of(segmentation_node)
                show_on_its_ct(segmentation_node, volume_node)
                self._segment_editor.show(segmentation_node, volume_node)
            except InputError as error:
                self._say(str(error))
            segmentation = segmentation_node.GetSegmentation()
            for event in (
                segmentation.SegmentAdded,
                segmentation.SegmentRemoved,
                segmentation.SegmentModified,
                segmentation.SourceRepresentationModified,
            ):
                self._observed.addObserver(segmentation, event, self._changed)
        self._view.show(segmentation_node)
        self._refresh()

    def arrive(self) -> None:
        """Bring the views to the first lesion of the list, as after a run."""
        if self._table.ids:
            self._go_to(self._table.ids[0])

    def offer_run(self, later_node: Any) -> None:
        """Show a new run of the same CT beside the review; until something is changed, Undo takes it away again."""

        def offer() -> None:
            if self._editor is not None:
                self._later_run.offer(self._editor, later_node)

        self._act(offer)

    def enter(self) -> None:
        """The module is shown."""
        self._segment_editor.enter()
        self._controls.keys.enter()
        self._focus.enter()

    def exit(self) -> None:
        """Another module is shown."""
        self._adding.stop()
        self._controls.keys.exit()
        self._segment_editor.exit()
        self._focus.exit()

    def close(self) -> None:
        self._controls.keys.exit()
        self._focus.exit()
        self._let_go()
        self._observed_scene.removeObservers()
        self._segment_editor.close()

    def _let_go(self) -> None:
        self._adding.stop()
        self._slider.show(None, None)
        self._focus.look_at(None)
        self._view.show(None)
        self._gather.stop()
        self._observed.removeObservers()
        self._later_run.close()
        self._segment_editor.show(None, None)
        if self._editor is not None:
            self._editor.close()
        self._table.show_rows((), {})
        self.segmentation_node = self._editor = self._lesions = self._actions.editor = None
        self._actions.seen = set()
        self._say("")

    # What the panel shows.

    def _changed(self, caller: Any, event: str) -> None:
        self._later_run.came_last = False
        if not self._gather.active:
            self._gather.start()

    def _follow(self) -> None:
        """Show what somebody else has changed, such as the editor's own keys for undo."""
        before = self._all_rows()
        self._refresh()
        if self._segment_editor.can_redo:
            # There is something to do again: a step was taken back.
            self._actions.tell_changes(before, _("Undo or redo"))

    def _refresh(self) -> None:
        self._gather.stop()
        node, lesions = self.segmentation_node, self._lesions
        if node is not None and lesions is not None:
            try:
                lesions.update()
                # Undo by the editor's own keys brings states back and forth too.
                show_by_status(node)
                self._later_run.refresh()
            except InputError as error:
                self._say(str(error))
        rows = self._filter.listed(self._all_rows())
        ids = [str(row["segment"]) for row in rows]
        self._table.show_rows(rows, {each: node.GetSegmentation().GetSegment(each).GetColor() for each in ids})
        self.ui.summaryLabel.text = summary_of(node, self._all_rows(), len(self._all_rows()) - len(rows))
        self.ui.summaryLabel.visible = bool(self.ui.summaryLabel.text)
        self._selection_changed()

    def _all_rows(self) -> list[Row]:
        return [] if self._lesions is None else self._lesions.rows

    def _selection_changed(self) -> None:
        current, selected = self._table.current, self._table.selected
        if current is not None:
            self._segment_editor.select(current)
        single = selected[0] if len(selected) == 1 else None
        self._slider.show(self._editor, single, self._lesions)
        self._view.look_at(current, self._lesions)
        self._controls.enable(
            [row for row in self._table.rows if row["segment"] in selected],
            under_review=self._editor is not None,
            can_undo=self._segment_editor.can_undo,
            can_redo=self._segment_editor.can_redo,
            run_came_last=self._later_run.came_last,
        )
        row = next((row for row in self._table.rows if row["segment"] == current), None)
        self.ui.detailLabel.text = "" if row is None else report_line(row)

    def _say(self, sentence: str) -> None:
        self.ui.statusLabel.text = sentence
        self.ui.statusLabel.visible = bool(sentence)

    # What the reader does.

    def _act(self, action: Callable[[], None]) -> None:
        self._slider.end()
        self._focus.keep()
        self._say("")
        try:
            action()
        except InputError as error:
            self._say(str(error))
        self._refresh()

    @property
    def _reader(self) -> str:
        return self.ui.readerLineEdit.text.strip()

    def _go_to(self, segment_id: str) -> None:
        """Select a lesion and bring all views to it."""
        self._table.select(segment_id)
        self._bring_views_to(segment_id)

    def _bring_views_to(self, segment_id: str) -> None:
        if self._lesions is None:
            return
        self._actions.seen.add(segment_id)
        self._focus.look_at(segment_id)
        self._say("")
        try:
            self._view.arrive(segment_id, self._lesions)
        except InputError as error:
            self._say(str(error))
        self._selection_changed()

    def _segment_chosen_in_editor(self, segment_id: str) -> None:
        current, segmentation = self._table.current, self.segmentation_node and self.segmentation_node.GetSegmentation()
        there = [each for each in self._table.ids if segmentation is not None and segmentation.GetSegment(each) is not None]
        # Where the current lesion has gone, the editor turns to the first one by itself, and the table to the next.
        if current == segment_id or current not in there or segment_id not in there:
            return
        self._table.select(segment_id)
        self._focus.look_at(segment_id if self._actions.seen else None)
        # In the middle of an undo the segments are not yet what they will be.
        self._gather.start()

    def _undo(self) -> None:
        if self._later_run.came_last:
            self._later_run.remove()
        else:
            self._actions.undo()

    def _added(self, segment_id: str) -> None:
        self._refresh()
        self._go_to(segment_id)

    def _keep_seconds(self, segment_id: str, seconds: float) -> None:
        node = self.segmentation_node
        if node is not None and node.GetSegmentation().GetSegment(segment_id) is not None:
            add_seconds_in_focus(node, segment_id, seconds)
