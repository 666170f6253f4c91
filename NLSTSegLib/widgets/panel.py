"""What parts of the module's panel have in common: a file of ``Resources/UI`` as widget, and how buttons act."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import slicer

from NLSTSegLib.errors import NLSTSegError, as_sentence
from NLSTSegLib.resources import resources_folder


class Panel:
    """A part of the module's panel: ``widget`` as the file ``<name>.ui`` describes it, its named children in ``ui``."""

    def __init__(self, name: str) -> None:
        self.widget: Any = slicer.util.loadUI(str(resources_folder() / "UI" / f"{name}.ui"))
        self.ui: Any = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)

    def close(self) -> None:
        """Let go of timers, observers and child processes: the widget goes away."""


class ActingPanel(Panel):
    """A panel with buttons whose ``resultLabel`` says what came of the last one."""

    def _say(self, sentence: str) -> None:
        self.ui.resultLabel.text = sentence
        self.ui.resultLabel.visible = bool(sentence)

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        self._say("")
        try:
            yield
        except NLSTSegError as error:
            self._say(as_sentence(str(error)))

    @contextmanager
    def _busy(self) -> Iterator[None]:
        # The wait cursor lets events through, and a second click must not find its button.
        self.widget.enabled = False
        try:
            with slicer.util.WaitCursor():
                yield
        finally:
            self.widget.enabled = True
