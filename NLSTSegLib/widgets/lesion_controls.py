"""The buttons and the keys of the lesion panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from slicer.i18n import tr as _

from NLSTSegLib.review.worklist import Action, Row, possible_actions
from NLSTSegLib.widgets.fitting import lay_out
from NLSTSegLib.widgets.lesion_actions import LesionActions
from NLSTSegLib.widgets.reading_view import ReadingView
from NLSTSegLib.widgets.shortcuts import Shortcuts


class LesionControls:
    """Joins what ``ui`` has to press with what it does; ``keys`` are alive between their ``enter`` and ``exit``."""

    def __init__(
        self,
        ui: Any,
        actions: LesionActions,
        view: ReadingView,
        *,
        act: Callable[[Callable[[], None]], None],
        undo: Callable[[], None],
    ) -> None:
        """``act`` calls what changes the lesions, says its errors, and brings the panel up to date."""
        self._ui, self._act = ui, act
        self._undo_hint = ui.undoButton.toolTip
        buttons = (
            (ui.acceptButton, actions.accept),
            (ui.rejectButton, actions.reject),
            (ui.reopenButton, actions.reopen),
            (ui.splitButton, actions.split),
            (ui.mergeButton, actions.merge),
            (ui.deleteButton, actions.delete),
            (ui.undoButton, undo),
            (ui.redoButton, actions.redo),
            (ui.copyTextButton, actions.copy_as_text),
        )
        for button, action in buttons:
            button.connect("clicked()", lambda action=action: self._press(action))
        in_order = [*(button for button, _action in buttons), ui.addButton]
        lay_out(ui.buttonsLayout, in_order, most_columns=3)
        lay_out(ui.listLayout, [ui.hideDecidedCheckBox, ui.lowestScoreSpinBox], most_columns=2)
        lay_out(ui.viewLayout, [ui.marksComboBox, ui.windowComboBox, ui.rulersCheckBox, ui.surfaceCheckBox], most_columns=2)
        self.keys = Shortcuts(
            {
                "N": lambda: actions.step(1),
                "P": lambda: actions.step(-1),
                "A": lambda: self._press_by_key(ui.acceptButton, actions.accept),
                "R": lambda: self._press_by_key(ui.rejectButton, actions.reject),
                "O": lambda: self._press_by_key(ui.reopenButton, actions.reopen),
                "C": view.next_marks,
                "H": view.hide_while_held,
                "M": view.next_window,
            }
        )

    def enable(self, selected: Sequence[Row], *, under_review: bool, can_undo: bool, can_redo: bool, run_came_last: bool) -> None:
        """What can be done with the selected lesions; a run that came last is what Undo takes away."""
        ui, possible = self._ui, possible_actions(selected)
        for action in get_args(Action):
            getattr(ui, f"{action}Button").enabled = action in possible
        ui.undoButton.enabled = under_review and (run_came_last or can_undo)
        ui.undoButton.toolTip = _("Remove the new run") if run_came_last else self._undo_hint
        ui.redoButton.enabled = under_review and can_redo
        ui.copyTextButton.enabled = bool(selected)
        for widget in (ui.addButton, ui.rulersCheckBox, ui.surfaceCheckBox):
            widget.enabled = under_review

    def _press(self, action: Callable[[], None]) -> None:
        self._act(action)
        # Not to the next field for text, where the button was disabled: keys of the reader would go into it.
        self._ui.lesionTable.setFocus()

    def _press_by_key(self, button: Any, action: Callable[[], None]) -> None:
        """Where the button could be clicked; the focus stays where it is."""
        if button.enabled:
            self._act(action)
