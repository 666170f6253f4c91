"""The table of lesions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import qt
from slicer.i18n import tr as _

from NLSTSegLib.review.state import Status
from NLSTSegLib.review.worklist import Column, Row, counts, sorted_rows

COLUMNS: tuple[Column, ...] = get_args(Column)
"""The columns of the table in the ``.ui`` file, in its order."""

FIRST_COLUMN: Column = "volume_mm3"
"""What the table is sorted by at first, the largest on top."""

UPWARDS: tuple[Column, ...] = ("lesion", "status")
"""Columns that a first click sorts upwards: names, and what is left to do; of numbers the largest come first."""

STATUS_COLORS = {Status.ACCEPTED: "#2e8b57", Status.EDITED: "#3a7bd5", Status.NEW: "#c77700"}
"""Green, blue and orange that can be read on light and dark; rejected lesions are grey."""

Color = tuple[float, float, float]
"""Red, green, blue, 0 to 1."""


class LesionTable:
    """Rows of :func:`NLSTSegLib.review.case.lesion_row` in a ``QTableWidget``; the selection stays with the lesions."""

    def __init__(self, table: Any, on_chosen: Callable[[str], None], on_selection: Callable[[], None]) -> None:
        """``on_chosen`` gets the lesion whose row the user went to; ``on_selection`` follows every change of the selection."""
        self._table, self._on_chosen, self._on_selection = table, on_chosen, on_selection
        self._unsorted: Sequence[Row] = ()
        self._colors: Mapping[str, Color] = {}
        self._column, self._descending = FIRST_COLUMN, True
        self.rows: list[Row] = []
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSortIndicatorShown(True)
        header.setSectionsClickable(True)
        header.connect("sectionClicked(int)", self._sort_by)
        table.connect("currentCellChanged(int,int,int,int)", self._went_to)
        table.connect("cellClicked(int,int)", self._went_to)
        table.connect("itemSelectionChanged()", self._selection_changed)
        self._mark_sorted()

    @property
    def ids(self) -> list[str]:
        """All lesions, in the order that is shown."""
        return [str(row["segment"]) for row in self.rows]

    @property
    def current(self) -> str | None:
        """The lesion that the reader is at."""
        row = self._table.currentRow()
        return self.ids[row] if 0 <= row < len(self.rows) else None

    @property
    def selected(self) -> list[str]:
        """The selected lesions, in the order that is shown."""
        rows = {item.row() for item in self._table.selectedItems()}
        return [each for row, each in enumerate(self.ids) if row in rows]

    def show_rows(self, rows: Sequence[Row], colors: Mapping[str, Color]) -> None:
        """Show these lesions, by identifier in ``colors``; one that has gone leaves the selection to the row in its place."""
        if list(rows) == list(self._unsorted) and colors == self._colors:
            return
        self._unsorted, self._colors = list(rows), dict(colors)
        self._fill()

    def select(self, segment_id: str) -> None:
        """Make a lesion the only selected one; nobody is told."""
        if segment_id in self.ids:
            self._table.blockSignals(True)
            self._set_current(self.ids.index(segment_id), [segment_id])
            self._table.blockSignals(False)
            self._table.scrollToItem(self._table.currentItem())

    def _fill(self) -> None:
        place, current, selected = self._table.currentRow(), self.current, self.selected
        self.rows = sorted_rows(self._unsorted, self._column, descending=self._descending)
        self._table.blockSignals(True)
        self._table.setRowCount(len(self.rows))
        for number, row in enumerate(self.rows):
            for column, item in enumerate(self._items(row)):
                self._table.setItem(number, column, item)
        if self.rows:
            at = self.ids.index(current) if current in self.ids else min(max(place, 0), len(self.rows) - 1)
            self._set_current(at, [each for each in selected if each in self.ids] or [self.ids[at]])
        self._table.blockSignals(False)

    def _set_current(self, at: int, selected: Sequence[str]) -> None:
        self._table.setCurrentCell(at, 0)
        # What that selects depends on the keys that are held.
        for number, segment_id in enumerate(self.ids):
            for column in range(len(COLUMNS)):
                self._table.item(number, column).setSelected(segment_id in selected)

    def _items(self, row: Row) -> list[Any]:
        status = Status(str(row["status"]))
        axes = "-" if row["long_axis_mm"] == "" else f"{row['long_axis_mm']:.1f} x {row['short_axis_mm']:.1f}"
        score = "-" if row["score"] == "" else f"{row['score']:.2f}"
        density = "-" if row["mean_hu"] == "" else str(row["mean_hu"])
        texts = (str(row["lesion"]), status_text(status), score, str(row["volume_mm3"]), axes, density)
        items = [qt.QTableWidgetItem(text) for text in texts]
        for item in items[2:]:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        red, green, blue = (round(255 * part) for part in self._colors[str(row["segment"])])
        items[0].setData(qt.Qt.DecorationRole, qt.QColor(red, green, blue))
        if status == Status.REJECTED:
            grey = qt.QBrush(self._table.palette.color(qt.QPalette.Disabled, qt.QPalette.Text))
            for item in items:
                item.setForeground(grey)
        else:
            items[1].setForeground(qt.QBrush(qt.QColor(STATUS_COLORS[status])))
        return items

    def _sort_by(self, section: int) -> None:
        column = COLUMNS[section]
        self._descending = not self._descending if column == self._column else column not in UPWARDS
        self._column = column
        self._mark_sorted()
        self._fill()

    def _mark_sorted(self) -> None:
        order = qt.Qt.DescendingOrder if self._descending else qt.Qt.AscendingOrder
        self._table.horizontalHeader().setSortIndicator(COLUMNS.index(self._column), order)

    def _went_to(self, row: int, column: int) -> None:
        if 0 <= row < len(self.rows):
            self._on_chosen(self.ids[row])

    def _selection_changed(self) -> None:
        self._on_selection()


def status_text(status: Status) -> str:
    """A sign and a word."""
    return {
        Status.NEW: _("● new"),
        Status.ACCEPTED: _("✓ accepted"),
        Status.EDITED: _("✎ edited"),
        Status.REJECTED: _("✗ rejected"),
    }[status]


def summary_text(rows: Sequence[Row]) -> str:
    """How far the review is, in one line."""
    if not rows:
        return _("No lesions.")
    words = {Status.ACCEPTED: _("accepted"), Status.EDITED: _("edited"), Status.REJECTED: _("rejected"), Status.NEW: _("new")}
    found = counts(rows)
    parts = ", ".join(f"{found[status]} {word}" for status, word in words.items() if status in found)
    return (
        _("1 lesion: {parts}").format(parts=parts)
        if len(rows) == 1
        else _("{number} lesions: {parts}").format(number=len(rows), parts=parts)
    )
