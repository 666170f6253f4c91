"""The button that adds a lesion by a click in a slice view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from NLSTSegLib.review.state import Origin
from NLSTSegLib.scene.adding import add_lesion, find_lesion_at, grow_lesion
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.widgets.point_placing import PointPlacing


class AddButton:
    """While ``button`` is down, the next click in a slice view adds the lesion there; it asks before it adds one by density, and
    whether one that it touches shall grow instead."""

    def __init__(
        self,
        button: Any,
        *,
        target: Callable[[], tuple[LesionEditor | None, str]],
        act: Callable[[Callable[[], None]], None],
        say: Callable[[str], None],
        on_added: Callable[[str], None],
    ) -> None:
        """``target`` gives the lesions to add to and the reader's name; ``on_added`` gets the new lesion within the action."""
        self._button, self._target, self._act, self._say, self._on_added = button, target, act, say, on_added
        self._placing = PointPlacing(lambda point_ras_mm: self._act(lambda: self._add(point_ras_mm)), self._ended)
        button.connect("toggled(bool)", self._toggled)

    def stop(self) -> None:
        """No click is waited for any more."""
        self._placing.stop()

    def _toggled(self, on: bool) -> None:
        if on:
            self._say(_("Click on the missed lesion in a slice view."))
            self._placing.start()
        else:
            self._placing.stop()

    def _ended(self) -> None:
        self._button.checked = False
        self._say("")

    def _add(self, point_ras_mm: tuple[float, float, float]) -> None:
        editor, reader = self._target()
        if editor is None:
            return
        candidate = find_lesion_at(editor.segmentation_node, point_ras_mm)
        if candidate.beside is not None:
            name = editor.segmentation_node.GetSegmentation().GetSegment(candidate.beside).GetName()
            grow = _("The place touches {name}. Grow {name} to take it in? With No it becomes a lesion of its own.")
            if slicer.util.confirmYesNoDisplay(grow.format(name=name)):
                self._on_added(grow_lesion(editor, candidate.beside, candidate, reader))
                return
        question = _("The model sees no lesion there. Add the tissue around the point, marked as manual?")
        if candidate.origin != Origin.MANUAL or slicer.util.confirmYesNoDisplay(question):
            self._on_added(add_lesion(editor, candidate, reader))
