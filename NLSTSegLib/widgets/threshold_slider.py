"""The slider that grows and shrinks one lesion by a probability threshold of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from NLSTSegLib.errors import InputError
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_list import LesionList
from NLSTSegLib.scene.threshold import ThresholdDrag

STEPS = 100
"""Steps of the slider from probability 0 to 1; it goes from the second to the last but one."""

PAUSE_MS = 500
"""Turns of the wheel and strokes of keys that follow each other faster are one step to undo, as a drag is."""


class ThresholdSlider:
    """``slider`` (``QSlider``) to the right grows the lesion; ``label`` (``QLabel``) says the threshold."""

    def __init__(self, slider: Any, label: Any, on_error: Callable[[str], None]) -> None:
        """``on_error`` gets a sentence that says why the lesion does not grow."""
        self._slider, self._label, self._on_error = slider, label, on_error
        self._hint = slider.toolTip
        self._editor: LesionEditor | None = None
        self._segment_id: str | None = None
        self._drag: ThresholdDrag | None = None
        self._pause = qt.QTimer()
        self._pause.setSingleShot(True)
        self._pause.setInterval(PAUSE_MS)
        self._pause.connect("timeout()", self.end)
        slider.minimum, slider.maximum = 1, STEPS - 1
        slider.connect("valueChanged(int)", self._moved)
        slider.connect("sliderReleased()", self.end)

    def show(self, editor: LesionEditor | None, segment_id: str | None, lesions: LesionList | None = None) -> None:
        """Stand at the threshold of a lesion; for none, or one that cannot grow, be disabled and say why in the tooltip."""
        if self._drag is not None and (editor, segment_id) == (self._editor, self._segment_id):
            return
        self.end()
        self._editor, self._segment_id = editor, segment_id
        threshold, reason = None, _("Select one lesion to grow or shrink it.")
        if editor is not None and segment_id is not None:
            try:
                regions, proposals = (lesions.regions, lesions.proposals) if lesions else (None, None)
                threshold = ThresholdDrag(editor, segment_id, regions, proposals).threshold
            except InputError as error:
                reason = str(error)
        self._slider.enabled = threshold is not None
        self._slider.toolTip = self._hint if threshold is not None else reason
        self._say(threshold)
        if threshold is not None:
            self._slider.blockSignals(True)
            self._slider.value = STEPS - round(STEPS * threshold)
            self._slider.blockSignals(False)

    def end(self) -> None:
        """What comes next is another step to undo."""
        self._pause.stop()
        self._drag = None

    def _moved(self, value: int) -> None:
        if self._editor is None or self._segment_id is None:
            return
        try:
            self._drag = self._drag or ThresholdDrag(self._editor, self._segment_id)
            self._drag.move((STEPS - value) / STEPS)
        except InputError as error:
            self.end()
            self._on_error(str(error))
            return
        self._say(self._drag.threshold)
        if not self._slider.sliderDown:
            self._pause.start()

    def _say(self, threshold: float | None) -> None:
        self._label.text = "" if threshold is None else _("above {threshold}").format(threshold=f"{threshold:.2f}")
