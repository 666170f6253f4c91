"""Watches, while the module is shown, which lesion the reader looks at and whether anybody is there."""

from __future__ import annotations

import time
from collections.abc import Callable

import qt
import slicer

from NLSTSegLib.review.focus_clock import FocusClock

LOOK_MS = 1000
"""How often it is looked whether the pointer or a view has moved."""

KEEP_EVERY_S = 10.0
"""How often the seconds are handed on while the reader stays with a lesion."""


class FocusWatch:
    """Counts with :class:`.review.focus_clock.FocusClock`; ``on_seconds`` gets a lesion and the seconds more spent on it."""

    def __init__(self, on_seconds: Callable[[str, float], None]) -> None:
        self._on_seconds, self._clock = on_seconds, FocusClock()
        self._lesion: str | None = None
        self._entered = False
        self._seen: object = None
        self._kept_at_s = time.monotonic()
        self._timer = qt.QTimer()
        self._timer.setInterval(LOOK_MS)
        self._timer.connect("timeout()", self._tick)

    def look_at(self, lesion: str | None) -> None:
        """The reader turns to a lesion, or to none."""
        self._lesion = lesion
        self.keep()

    def enter(self) -> None:
        self._entered = True
        self._timer.start()
        self._look()

    def exit(self) -> None:
        self._entered = False
        self._timer.stop()
        self.keep()

    def keep(self) -> None:
        """Hand on the seconds up to now."""
        self._look()
        for lesion, seconds in self._clock.take().items():
            self._on_seconds(lesion, seconds)
        self._kept_at_s = time.monotonic()

    def _tick(self) -> None:
        if time.monotonic() - self._kept_at_s >= KEEP_EVERY_S:
            self.keep()
        else:
            self._look()

    def _look(self) -> None:
        now_s, position = time.monotonic(), qt.QCursor.pos()
        scene = slicer.mrmlScene
        views = [
            scene.GetNthNodeByClass(n, "vtkMRMLSliceNode").GetMTime()
            for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode"))
        ]
        seen, before = (position.x(), position.y(), views), self._seen
        self._seen = seen
        present = self._entered and qt.QApplication.activeWindow() is not None
        self._clock.tell(now_s, self._lesion if present else None, acted=seen != before)
