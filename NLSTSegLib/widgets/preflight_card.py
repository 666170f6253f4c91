"""The pre-flight card: a sign, a sentence and, where something would mend it, a button for every line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from NLSTSegLib.scene.fixes import Fix
from NLSTSegLib.scene.volume_check import CheckedLine

SIGNS = {"error": ("✕", "#c62828"), "warning": ("▲", "#b26a00"), "info": ("•", "#607d8b"), "good": ("✓", "#2e7d32")}
"""Sign of every level: a shape, for readers who cannot tell the colours apart, and the colour."""


class PreflightCard:
    """Shows lines in ``frame``, which has a grid layout; ``on_fix`` gets the fix whose button was clicked."""

    def __init__(self, frame: Any, on_fix: Callable[[Fix], None]) -> None:
        self._frame, self._on_fix = frame, on_fix
        self._grid = frame.layout()
        self._grid.setColumnStretch(1, 1)
        self._lines: list[CheckedLine] = []
        self._widgets: list[Any] = []
        frame.visible = False

    def show(self, lines: Sequence[CheckedLine]) -> None:
        """Show these lines instead of the earlier ones."""
        if lines == self._lines:
            return
        self._lines = list(lines)
        self._clear()
        for row, line in enumerate(lines):
            sign, color = SIGNS[line.level]
            sign_label = qt.QLabel(f"<span style='color:{color}; font-weight:bold'>{sign}</span>")
            self._add(sign_label, 2 * row, 0)
            self._add(self._sentence_label(line), 2 * row, 1)
            if line.fix is not None:
                # Below: beside it the sentence would have no room in a narrow panel.
                self._add(self._fix_button(line.fix), 2 * row + 1, 1)
        self._frame.visible = bool(lines)

    def _add(self, widget: Any, row: int, column: int) -> None:
        self._grid.addWidget(widget, row, column)
        self._widgets.append(widget)

    def _clear(self) -> None:
        for widget in self._widgets:
            self._grid.removeWidget(widget)
            widget.hide()
            # It may be the button whose click brought us here.
            widget.deleteLater()
        self._widgets = []

    def _sentence_label(self, line: CheckedLine) -> Any:
        label = qt.QLabel()
        # The name of a volume may hold anything.
        label.textFormat = qt.Qt.PlainText
        label.wordWrap = True
        label.text = line.sentence
        label.toolTip = line.advice
        return label

    def _fix_button(self, fix: Fix) -> Any:
        texts = {
            "harden": (_("Hardened copy"), _("Copies the volume, applies its transform to the copy and chooses the copy")),
            "resample": (_("Resampled copy"), _("Copies the volume with the pixels the models know and chooses the copy")),
            "convert": (_("Converted copy"), _("Copies the volume, adds the missing -1024 HU to the copy and chooses the copy")),
        }
        button = qt.QPushButton()
        button.name = f"{fix.kind}Button"
        button.text, button.toolTip = texts[fix.kind]
        button.connect("clicked()", lambda: self._on_fix(fix))
        return button
