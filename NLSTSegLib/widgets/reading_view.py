"""What the slice views show while a reader goes through the lesions: place, size, grey values, and how the marks are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import qt

from NLSTSegLib.errors import InputError
from NLSTSegLib.scene.arrival import Marks, Window, draw_marks, set_window, zoom_to
from NLSTSegLib.scene.lesion_list import LesionList
from NLSTSegLib.scene.views import has_surfaces, hide_rulers, jump_to_lesion, show_rulers, show_surfaces
from NLSTSegLib.scene.voxels import volume_of
from NLSTSegLib.widgets.settings import save_setting, setting
from NLSTSegLib.widgets.shortcuts import WhileHeld

MARKS: tuple[Marks, ...] = get_args(Marks)
"""Marks in the order of the box, which the key goes through."""

WINDOWS: tuple[Window, ...] = get_args(Window)

MARKS_KEY, KEEP_ZOOM_KEY = "Marks", "KeepZoom"
"""Keys of the settings."""


class ReadingView:
    """Works with ``marksComboBox``, ``windowComboBox``, ``rulersCheckBox``, ``surfaceCheckBox`` and ``keepZoomCheckBox`` of
    ``ui``."""

    def __init__(self, ui: Any, act: Callable[[Callable[[], None]], None]) -> None:
        """``act`` calls what changes the views, says its errors, and brings the panel up to date."""
        self._ui = ui
        self._node: Any = None
        ui.rulersCheckBox.connect("toggled(bool)", lambda on: act(lambda: None))
        ui.surfaceCheckBox.connect("toggled(bool)", lambda on: act(lambda: self._show_surfaces(on)))
        kept = setting(MARKS_KEY, MARKS[0])
        ui.marksComboBox.currentIndex = MARKS.index(kept) if kept in MARKS else 0
        ui.marksComboBox.connect("currentIndexChanged(int)", self._marks_chosen)
        ui.windowComboBox.connect("currentIndexChanged(int)", self._window_chosen)
        ui.keepZoomCheckBox.checked = setting(KEEP_ZOOM_KEY, False)
        ui.keepZoomCheckBox.connect("toggled(bool)", lambda on: save_setting(KEEP_ZOOM_KEY, on))
        self._held = WhileHeld(qt.Qt.Key_H, self._draw)

    def show(self, segmentation_node: Any) -> None:
        """Draw the marks of this segmentation from now on; ``None`` for none. Those of the one before are as chosen."""
        self._held.end()
        if self._node is not None and self._node.GetScene() is not None:
            hide_rulers(self._node)
        self._node = segmentation_node
        self._draw()
        if segmentation_node is not None:
            self._ui.surfaceCheckBox.blockSignals(True)
            self._ui.surfaceCheckBox.checked = has_surfaces(segmentation_node)
            self._ui.surfaceCheckBox.blockSignals(False)

    def arrive(self, segment_id: str, lesions: LesionList) -> None:
        """Bring the views to a lesion, unless the reader keeps the zoom in its size and for lung.

        Raises :class:`InputError` for a lesion without voxels.
        """
        region = lesions.regions.get(segment_id)
        if region is not None and region.voxels and not self._ui.keepZoomCheckBox.checked:
            zoom_to(self._node, region)
            self._set_window("lung")
        jump_to_lesion(self._node, segment_id, lesions.sizes(segment_id))

    def look_at(self, segment_id: str | None, lesions: LesionList | None) -> None:
        """Draw the rulers, if they are wanted, on this lesion as it is now."""
        if self._node is None or lesions is None:
            return
        sizes = lesions.sizes(segment_id or "")
        if segment_id is not None and sizes is not None and self._ui.rulersCheckBox.checked:
            show_rulers(self._node, segment_id, sizes)
        else:
            # Also of a lesion without voxels, which its row shows.
            hide_rulers(self._node)

    def next_marks(self) -> None:
        """Outline, fill, off, and round."""
        self._ui.marksComboBox.currentIndex = (self._ui.marksComboBox.currentIndex + 1) % len(MARKS)

    def next_window(self) -> None:
        """Change the window from lung to soft tissue and back."""
        self._ui.windowComboBox.currentIndex = (self._ui.windowComboBox.currentIndex + 1) % len(WINDOWS)

    def hide_while_held(self) -> None:
        """The marks are gone as long as the key H is down."""
        if self._node is not None:
            draw_marks(self._node, "off")
            self._held.begin()

    def _draw(self) -> None:
        if self._node is not None and self._node.GetScene() is not None:
            draw_marks(self._node, MARKS[self._ui.marksComboBox.currentIndex])

    def _show_surfaces(self, on: bool) -> None:
        if self._node is not None:
            show_surfaces(self._node, on)

    def _marks_chosen(self, index: int) -> None:
        save_setting(MARKS_KEY, MARKS[index])
        self._draw()

    def _window_chosen(self, index: int) -> None:
        self._set_window(WINDOWS[index])

    def _set_window(self, window: Window) -> None:
        combo_box = self._ui.windowComboBox
        combo_box.blockSignals(True)
        combo_box.currentIndex = WINDOWS.index(window)
        combo_box.blockSignals(False)
        if self._node is None:
            return
        try:
            set_window(volume_of(self._node), window)
        except InputError:
            # The CT is not in the scene, which the panel says.
            return
