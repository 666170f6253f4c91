"""What every part of the module's panel has: a file of ``Resources/UI`` as its widget."""

from __future__ import annotations

from typing import Any

import slicer

from NLSTSegLib.resources import resources_folder


class Panel:
    """A part of the module's panel: ``widget`` as the file ``<name>.ui`` describes it, its named children in ``ui``."""

    def __init__(self, name: str) -> None:
        self.widget: Any = slicer.util.loadUI(str(resources_folder() / "UI" / f"{name}.ui"))
        self.ui: Any = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)

    def close(self) -> None:
        """Let go of timers, observers and child processes: the widget goes away."""
