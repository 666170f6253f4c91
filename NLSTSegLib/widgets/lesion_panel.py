"""The part of the panel in which a reader works through the lesions and corrects them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from NLSTSegLib.errors import InputError
from NLSTSegLib.review.state import Status
from NLSTSegLib.review.worklist import Action, neighbour, next_new, possible_actions
from NLSTSegLib.scene.correction import delete_lesion, merge_lesions, split_lesion
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_list import LesionList
from NLSTSegLib.scene.review import add_seconds_in_focus, show_by_status
from NLSTSegLib.scene.views import has_surfaces, hide_rulers, jump_to_lesion, show_on_its_ct, show_rulers, show_surfaces
from NLSTSegLib.scene.voxels import volume_of
from NLSTSegLib.widgets.adding import AddButton
from NLSTSegLib.widgets.focus_watch import FocusWatch
from NLSTSegLib.widgets.later_run import LaterRunBox
from NLSTSegLib.widgets.lesion_table import LesionTable, summary_text
from NLSTSegLib.widgets.panel import Panel
from NLSTSegLib.widgets.segment_editor import EmbeddedSegmentEditor
from NLSTSegLib.widgets.settings import save_setting, setting
from NLSTSegLib.widgets.threshold_slider import ThresholdSlider

GATHER_MS = 50
"""Changes that follow each other faster are shown at once."""

READER_KEY = "Reader"
"""Of the setting with the reader's name."""


class LesionPanel(Panel):
    """Shows the lesions of one segmentation under review; whoever changes them, the panel follows."""

    def __init__(self) -> None:
        super().__init__("LesionPanel")
        self.segmentation_node: Any = None
        self._editor: LesionEditor | None = None
        self._lesions: LesionList | None = None
        # Whether the views have been brought to a lesion, and whether the run in the box came after the last change.
        self._jumped = self._run_came_last = False
        self._shown_id = ""
        self._undo_hint = self.ui.undoButton.toolTip
        self._observed, self._observed_scene = slicer.util.VTKObservationMixin(), slicer.util.VTKObservationMixin()
        self._gather = qt.QTimer()
        self._gather.setSingleShot(True)
        self._gather.setInterval(GATHER_MS)
        self._gather.connect("timeout()", self._refresh)
        self._segment_editor = EmbeddedSegmentEditor(self.ui.segmentEditorButton, self._segment_chosen_in_editor)
        self._table = LesionTable(self.ui.lesionTable, self._bring_views_to, self._selection_changed)
        self._slider = ThresholdSlider(self.ui.thresholdSlider, self.ui.thresholdLabel, self._say)
        self._adding = AddButton(
            self.ui.addButton,
            target=lambda: (self._editor, self._reader),
            act=self._act,
            say=self._say,
            on_added=self._added,
        )
        self._later_run = LaterRunBox(self.ui, self._act)
        self._focus = FocusWatch(self._keep_seconds)
        self._connect()
        self._observe_scene()
        self._refresh()

    def _connect(self) -> None:
        ui = self.ui
        actions = (
            (ui.acceptButton, lambda: self._decide(Status.ACCEPTED)),
            (ui.rejectButton, lambda: self._decide(Status.REJECTED)),
            (ui.reopenButton, lambda: self._decide(Status.NEW)),
            (ui.splitButton, self._split),
            (ui.mergeButton, self._merge),
            (ui.deleteButton, self._delete),
            (ui.undoButton, self._undo),
            (ui.redoButton, self._redo),
        )
        for button, action in actions:
            button.connect("clicked()", lambda action=action: self._act_by_button(action))
        ui.rulersCheckBox.connect("toggled(bool)", lambda on: self._act(self._update_rulers))
        ui.surfaceCheckBox.connect("toggled(bool)", lambda on: self._act(lambda: self._show_surfaces(on)))
        ui.readerLineEdit.text = setting(READER_KEY, "")
        ui.readerLineEdit.connect("editingFinished()", lambda: save_setting(READER_KEY, self._reader))
        keys = (
            ("N", lambda: self._step(1)),
            ("P", lambda: self._step(-1)),
            ("A", lambda: ui.acceptButton.click()),
            ("R", lambda: ui.rejectButton.click()),
            ("O", lambda: ui.reopenButton.click()),
        )
        self._shortcuts = []
        for key, action in keys:
            shortcut = qt.QShortcut(qt.QKeySequence(key), self.widget)
            shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
            shortcut.connect("activated()", action)
            self._shortcuts.append(shortcut)

    def _observe_scene(self) -> None:
        scene = slicer.mrmlScene
        self._observed_scene.addObserver(scene, scene.StartCloseEvent, lambda caller, event: self._scene_closes())
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
        """Show the lesions of a node that lies on its CT, or none (``None``)."""
        if segmentation_node is self.segmentation_node:
            return
        self._let_go()
        self.segmentation_node = segmentation_node
        if segmentation_node is not None:
            before = slicer.mrmlScene.GetNodeByID(self._shown_id) if self._shown_id else None
            self._shown_id = segmentation_node.GetID()
            self._editor = LesionEditor(segmentation_node, self._segment_editor.widget)
            self._lesions = LesionList(segmentation_node)
            try:
                volume_node = volume_of(segmentation_node)
                show_on_its_ct(segmentation_node, volume_node, before if before is not segmentation_node else None)
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
            self.ui.surfaceCheckBox.blockSignals(True)
            self.ui.surfaceCheckBox.checked = has_surfaces(segmentation_node)
            self.ui.surfaceCheckBox.blockSignals(False)
        self._refresh()

    def offer_run(self, later_node: Any) -> None:
        """Show a new run of the same CT beside the review; until something is changed, Undo takes it away again."""

        def offer() -> None:
            if self._editor is not None:
                self._later_run.offer(self._editor, later_node)
                self._run_came_last = True

        self._act(offer)

    def enter(self) -> None:
        """The module is shown."""
        self._segment_editor.enter()
        self._focus.enter()

    def exit(self) -> None:
        """Another module is shown."""
        self._adding.stop()
        self._segment_editor.exit()
        self._focus.exit()

    def close(self) -> None:
        self._focus.exit()
        self._let_go()
        self._observed_scene.removeObservers()
        self._segment_editor.close()

    def _scene_closes(self) -> None:
        self.show(None)
        # Another node will get this identifier.
        self._shown_id = ""

    def _let_go(self) -> None:
        self._adding.stop()
        self._slider.show(None, None)
        self._focus.look_at(None)
        self._gather.stop()
        self._observed.removeObservers()
        self._later_run.close()
        self._segment_editor.show(None, None)
        if self.segmentation_node is not None and self.segmentation_node.GetScene() is not None:
            hide_rulers(self.segmentation_node)
        if self._editor is not None:
            self._editor.close()
        self._table.show_rows((), {})
        self.segmentation_node = self._editor = self._lesions = None
        self._jumped = self._run_came_last = False
        self._say("")

    # What the panel shows.

    def _changed(self, caller: Any, event: str) -> None:
        self._run_came_last = False
        if not self._gather.active:
            self._gather.start()

    def _refresh(self) -> None:
        self._gather.stop()
        rows: Sequence = ()
        if self.segmentation_node is not None and self._lesions is not None:
            try:
                # Undo by the editor's own keys brings states back and forth too.
                show_by_status(self.segmentation_node)
                self._lesions.update()
                rows = self._lesions.rows
                self._later_run.refresh()
            except InputError as error:
                self._say(str(error))
        segmentation = self.segmentation_node.GetSegmentation() if rows else None
        self._table.show_rows(
            rows, {row["segment"]: segmentation.GetSegment(row["segment"]).GetColor() for row in rows} if segmentation else {}
        )
        self.ui.summaryLabel.text = summary_text(self._table.rows)
        self._selection_changed()

    def _selection_changed(self) -> None:
        current, selected = self._table.current, self._table.selected
        if current is not None:
            self._segment_editor.select(current)
        single = selected[0] if len(selected) == 1 else None
        self._slider.show(self._editor, single)
        self._update_rulers_quietly()
        self._enable_buttons(selected)

    def _enable_buttons(self, selected: list[str]) -> None:
        ui, under_review = self.ui, self._editor is not None
        possible = possible_actions([row for row in self._table.rows if row["segment"] in selected])
        for action in get_args(Action):
            getattr(ui, f"{action}Button").enabled = action in possible
        ui.undoButton.enabled = under_review and (self._run_came_last or self._segment_editor.can_undo)
        ui.undoButton.toolTip = _("Remove the new run") if self._run_came_last else self._undo_hint
        ui.redoButton.enabled = under_review and self._segment_editor.can_redo
        for widget in (ui.addButton, ui.rulersCheckBox, ui.surfaceCheckBox):
            widget.enabled = under_review

    def _say(self, sentence: str) -> None:
        self.ui.statusLabel.text = sentence
        self.ui.statusLabel.visible = bool(sentence)

    # What the reader does.

    def _act(self, action: Callable[[], None]) -> None:
        self._slider.end()
        self._say("")
        try:
            action()
        except InputError as error:
            self._say(str(error))
        self._refresh()

    def _act_by_button(self, action: Callable[[], None]) -> None:
        self._act(action)
        # Keys of the panel go on working where the button was disabled, or takes no focus, as on macOS.
        self.ui.lesionTable.setFocus()

    @property
    def _reader(self) -> str:
        return self.ui.readerLineEdit.text.strip()

    def _go_to(self, segment_id: str) -> None:
        """Select a lesion and bring all views to it."""
        self._table.select(segment_id)
        self._bring_views_to(segment_id)

    def _bring_views_to(self, segment_id: str) -> None:
        self._segment_editor.select(segment_id)
        self._jumped = True
        self._focus.look_at(segment_id)
        self._say("")
        try:
            jump_to_lesion(self.segmentation_node, segment_id)
        except InputError as error:
            self._say(str(error))
        self._selection_changed()

    def _step(self, step: Literal[1, -1]) -> None:
        current = self._table.current
        # At first a lesion is selected that nobody has seen yet.
        goal = neighbour(self._table.ids, current, step) if self._jumped else current
        if goal is not None:
            self._go_to(goal)

    def _segment_chosen_in_editor(self, segment_id: str) -> None:
        current = self._table.current
        # Where the current lesion has gone, the editor turns to the first one by itself, and the table to the next.
        if current in (None, segment_id) or not self._is_there(current) or not self._is_there(segment_id):
            return
        self._table.select(segment_id)
        self._focus.look_at(segment_id if self._jumped else None)
        # In the middle of an undo the segments are not yet what they will be.
        self._gather.start()

    def _is_there(self, segment_id: str) -> bool:
        node = self.segmentation_node
        return node is not None and segment_id in self._table.ids and node.GetSegmentation().GetSegment(segment_id) is not None

    def _decide(self, status: Status) -> None:
        if self._editor is None:
            return
        self._focus.keep()
        chosen, current = self._table.selected, self._table.current
        others = [{**row, "status": status} if row["segment"] in chosen else row for row in self._table.rows]
        self._editor.decide(chosen, status, self._reader)
        following = next_new(others, current)
        if status != Status.NEW:
            if following is not None:
                self._go_to(following)
            else:
                self._say(_("No lesion is new any more."))

    def _split(self) -> None:
        if self._editor is not None:
            split_lesion(self._editor, self._table.selected[0])

    def _merge(self) -> None:
        if self._editor is not None:
            kept = merge_lesions(self._editor, self._table.selected)
            self._refresh()
            self._go_to(kept)

    def _delete(self) -> None:
        if self._editor is not None:
            delete_lesion(self._editor, self._table.selected[0])

    def _undo(self) -> None:
        if self._run_came_last:
            self._run_came_last = False
            self._later_run.remove()
        elif self._editor is not None:
            self._editor.undo()

    def _redo(self) -> None:
        if self._editor is not None:
            self._editor.redo()

    def _added(self, segment_id: str) -> None:
        self._refresh()
        self._go_to(segment_id)

    def _update_rulers(self) -> None:
        if self.segmentation_node is None:
            return
        current = self._table.current
        if self.ui.rulersCheckBox.checked and current is not None:
            show_rulers(self.segmentation_node, current)
        else:
            hide_rulers(self.segmentation_node)

    def _update_rulers_quietly(self) -> None:
        try:
            self._update_rulers()
        except InputError:
            # A lesion without voxels, which its row shows.
            hide_rulers(self.segmentation_node)

    def _show_surfaces(self, on: bool) -> None:
        if self.segmentation_node is not None:
            show_surfaces(self.segmentation_node, on)

    def _keep_seconds(self, segment_id: str, seconds: float) -> None:
        node = self.segmentation_node
        if node is not None and node.GetSegmentation().GetSegment(segment_id) is not None:
            add_seconds_in_focus(node, segment_id, seconds)
