"""The box with a later run of the same CT, beside the review that is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from NLSTSegLib.review.lesion_text import diameter_text, place_text, score_text, volume_text
from NLSTSegLib.review.worklist import Row
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_list import LesionList
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.rerun import RunChanges, compare_runs, remove_run, take_over
from NLSTSegLib.scene.views import jump_to_lesion
from NLSTSegLib.widgets.fitting import lay_out

WIDTH_PX, LATER_RUN_WIDTH_PX = 1, 3
"""Width of the outlines of the lesions under review, and of a later run beside them."""


class LaterRunBox:
    """Says what a later run found anew, shows it, and lets the reader take lesions over; reviewed ones are never touched."""

    def __init__(self, ui: Any, act: Callable[[Callable[[], None]], None]) -> None:
        """``act`` calls what changes the lesions, says its errors, and brings the panel up to date."""
        self._ui, self._act = ui, act
        self._editor: LesionEditor | None = None
        self._changes: RunChanges | None = None
        self._lesions: LesionList | None = None
        # Whether it is of the later run, its segment, what there is to say, and whether it can be taken over.
        self._rows: list[tuple[bool, str, str, bool]] = []
        self.node: Any = None
        self.came_last = False
        """Whether the run came after the last change, so that Undo takes it away."""
        ui.laterRunBox.visible = False
        lay_out(
            ui.laterRunButtons, [ui.showRunButton, ui.takeAddedButton, ui.takeSelectedButton, ui.removeRunButton], most_columns=2
        )
        ui.showRunButton.connect("toggled(bool)", self._show)
        ui.takeAddedButton.connect("clicked()", lambda: self._act(self._take_added))
        ui.takeSelectedButton.connect("clicked()", lambda: self._act(self._take_selected))
        ui.removeRunButton.connect("clicked()", lambda: self._act(self.remove))
        ui.laterRunList.connect("itemSelectionChanged()", self._update_buttons)
        ui.laterRunList.connect("currentRowChanged(int)", lambda row: self._act(lambda: self._jump(row)))

    def offer(self, editor: LesionEditor, later_node: Any) -> None:
        """Put a run of the same CT beside the lesions of ``editor``, hidden at first.

        Raises :class:`NLSTSegLib.errors.InputError` when it belongs to another CT.
        """
        changes = compare_runs(editor.segmentation_node, later_node)
        self.close()
        self._editor, self.node, self._lesions = editor, later_node, LesionList(later_node)
        self.came_last = True
        self._ui.laterRunBox.visible = True
        self._show(False)
        self._list(changes)

    def refresh(self) -> None:
        """Compare again, after lesions have changed."""
        if self._editor is not None:
            self._list(compare_runs(self._editor.segmentation_node, self.node))

    def close(self) -> None:
        """Hide the box, and the run, which stays in the scene."""
        self._ui.showRunButton.checked = False
        self._editor = self.node = self._changes = self._lesions = None
        self._rows, self.came_last = [], False
        self._ui.laterRunBox.visible = False

    def remove(self) -> None:
        """Take the run away."""
        node = self.node
        self.close()
        if node is not None:
            remove_run(node)

    def _list(self, changes: RunChanges) -> None:
        if self._editor is None or self._lesions is None:
            return
        self._changes = changes
        self._lesions.update()
        later = {str(row["segment"]): row for row in self._lesions.rows}
        self._ui.laterRunLabel.text = _("{added} added, {changed} changed, {gone} gone").format(
            added=len(changes.added), changed=len(changes.changed), gone=len(changes.gone)
        )
        rows = [(True, each, _("added: {found}").format(found=_found(later[each])), True) for each in changes.added]
        for each, reviewed in changes.changed.items():
            is_free = not lesion_state(self._editor.segmentation_node, reviewed).is_reviewed
            text = _("{name}: now {found}") if is_free else _("{name} was reviewed and stays; now {found}")
            rows.append((True, each, text.format(name=self._name(reviewed), found=_found(later[each])), is_free))
        rows += [(False, each, _("{name}: gone").format(name=self._name(each)), False) for each in changes.gone]
        if rows != self._rows:
            box = self._ui.laterRunList
            box.blockSignals(True)
            box.clear()
            for _is_later, _segment_id, text, takeable in rows:
                item = qt.QListWidgetItem(text)
                if not takeable:
                    item.setFlags(qt.Qt.ItemIsEnabled)
                box.addItem(item)
            box.blockSignals(False)
            self._rows = rows
        self._update_buttons()

    def _name(self, segment_id: str) -> str:
        """Name as in the table; the later run counts its lesions anew."""
        assert self._editor is not None, "lesions are compared while a run is offered"
        return str(self._editor.segmentation_node.GetSegmentation().GetSegment(segment_id).GetName())

    def _selected(self) -> list[str]:
        box = self._ui.laterRunList
        return [self._rows[box.row(item)][1] for item in box.selectedItems()]

    def _update_buttons(self) -> None:
        self._ui.takeAddedButton.enabled = self._changes is not None and bool(self._changes.added)
        self._ui.takeSelectedButton.enabled = bool(self._selected())

    def _show(self, on: bool) -> None:
        display = self.node.GetDisplayNode() if self.node is not None else None
        if display is not None:
            # Thick outlines, so that both can be told apart.
            display.SetVisibility2DFill(False)
            display.SetVisibility2DOutline(True)
            display.SetSliceIntersectionThickness(LATER_RUN_WIDTH_PX if on else WIDTH_PX)
            display.SetVisibility(on)

    def _jump(self, row: int) -> None:
        if self._editor is not None and 0 <= row < len(self._rows):
            is_later, segment_id, _text, _takeable = self._rows[row]
            jump_to_lesion(self.node if is_later else self._editor.segmentation_node, segment_id)

    def _take_added(self) -> None:
        if self._editor is not None and self._changes is not None:
            take_over(self._editor, self.node, self._changes.added)

    def _take_selected(self) -> None:
        if self._editor is not None:
            take_over(self._editor, self.node, self._selected())


def _found(row: Row) -> str:
    return _("{diameter} mm, {volume}, score {score}, {place}").format(
        diameter=diameter_text(row), volume=volume_text(row), score=score_text(row), place=place_text(row)
    )
