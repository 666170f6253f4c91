"""Keys of the main window that work while the module is shown, wherever in it the focus is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer


class Shortcuts:
    """``actions`` by their keys. Text fields keep what is typed into them.

    A shortcut of the main window comes before what a view does with the key: R, with which Slicer's views reset their field
    of view, is the module's while it is shown. Other shortcuts of the main window on these keys rest meanwhile, as of two for
    one key Qt takes neither.
    """

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        self._actions = dict(actions)
        self._own: list[Any] = []
        self._resting: list[Any] = []

    def enter(self) -> None:
        """The module is shown; without a main window there are no keys."""
        self.exit()
        window = slicer.util.mainWindow()
        if window is None:
            return
        for other in window.findChildren(qt.QShortcut):
            if other.enabled and other.key.toString() in self._actions:
                other.enabled = False
                self._resting.append(other)
        for key, action in self._actions.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            # A key that is held must not decide on one lesion after the other.
            shortcut.autoRepeat = False
            shortcut.connect("activated()", action)
            self._own.append(shortcut)

    def exit(self) -> None:
        """Another module is shown."""
        for shortcut in self._own:
            shortcut.enabled = False
            shortcut.deleteLater()
        for other in self._resting:
            other.enabled = True
        self._own, self._resting = [], []


class WhileHeld(qt.QObject):
    """Waits for the end of a key that is held: :meth:`begin` from the key's shortcut, ``on_end`` when it is let go."""

    def __init__(self, key: int, on_end: Callable[[], None]) -> None:
        super().__init__()
        self._key, self._on_end = key, on_end
        self._is_waiting = False

    def begin(self) -> None:
        """The key is down."""
        if not self._is_waiting:
            self._is_waiting = True
            slicer.app.installEventFilter(self)

    def end(self) -> None:
        """The key is up, or what becomes of it is not seen any more."""
        if self._is_waiting:
            self._is_waiting = False
            slicer.app.removeEventFilter(self)
            self._on_end()

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802
        """Called by Qt for every event while the key is down."""
        if event.type() == qt.QEvent.KeyRelease:
            if event.key() == self._key and not event.isAutoRepeat():
                self.end()
        elif event.type() == qt.QEvent.ApplicationDeactivate:
            self.end()
        return False
