"""Rows of buttons that fit into the narrowest module panel, whatever the size of the font."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PANEL_WIDTH_PX = 300
"""Slicer makes its module panel no wider than this by itself."""

MARGINS_PX, GAP_PX = 48, 6
"""What the frames around a row of buttons take of it, with a scroll bar, and the gaps between two of them."""


def lay_out(grid: Any, widgets: Sequence[Any], most_columns: int) -> None:
    """Put ``widgets`` into ``grid`` (``QGridLayout``), row by row, in as many columns of equal width as fit."""
    widths = [widget.minimumSizeHint.width() for widget in widgets]
    room = PANEL_WIDTH_PX - MARGINS_PX + GAP_PX
    columns = max(1, min(most_columns, room // (max(widths) + GAP_PX)))
    for widget in widgets:
        grid.removeWidget(widget)
    for number, widget in enumerate(widgets):
        grid.addWidget(widget, number // columns, number % columns)
    for column in range(columns):
        grid.setColumnStretch(column, 1)
