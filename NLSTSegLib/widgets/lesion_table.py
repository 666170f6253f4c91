"""The table of lesions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import qt
from slicer.i18n import tr as _

from NLSTSegLib.review.lesion_text import axes_text, density_text, diameter_text, place_text, score_text, volume_text
from NLSTSegLib.review.state import Status
from NLSTSegLib.review.worklist import Column, Row, sorted_rows

COLUMNS: tuple[Column, ...] = get_args(Column)
"""The columns of the table in the ``.ui`` file, in its order."""

FIRST_COLUMN: Column = "volume_mm3"
"""What the table is sorted by at first, the largest on top."""

UPWARDS: tuple[Column, ...] = ("lesion", "status")
"""Columns that a first click sorts upwards: names, and what is left to do; of numbers the largest come first."""

STATUS_COLORS = {Status.ACCEPTED: "#2e8b57", Status.EDITED: "#3a7bd5", Status.NEW: "#c77700"}
"""Green, blue and orange that can be read on light and dark; rejected lesions are grey."""

SIGNS = {Status.NEW: "●", Status.ACCEPTED: "✓", Status.EDITED: "✎", Status.REJECTED: "✗"}
"""A shape for each status, for readers who cannot tell the colours apart."""

Color = tuple[float, float, float]
"""Red, green, blue, 0 to 1."""

Shown = tuple[tuple[str, ...], Color, Status]
"""What a row shows: the texts of its cells, the colour of the lesion, its status."""


class LesionTable:
    """Rows of :func:`NLSTSegLib.review.review_row` in a ``QTableWidget``; the selection stays with the lesions.

    Only the cells that show something else than before are touched: each one that is makes Qt lay the table out again.
    """

    def __init__(self, table: Any, on_chosen: Callable[[str], None], on_selection: Callable[[], None]) -> None:
        """``on_chosen`` gets the lesion whose row the user went to; ``on_selection`` follows every change of the selection."""
        self._table, self._on_chosen, self._on_selection = table, on_chosen, on_selection
        self._unsorted: Sequence[Row] = ()
        self._colors: Mapping[str, Color] = {}
        self._column, self._descending = FIRST_COLUMN, True
        self._shown: list[Shown] = []
        self._has_just_gone = False
        self.rows: list[Row] = []
        header = table.horizontalHeader()
        header.setMinimumSectionSize(1)
        header.setSortIndicatorShown(True)
        header.setSectionsClickable(True)
        header.connect("sectionClicked(int)", self._sort_by)
        table.connect("currentCellChanged(int,int,int,int)", self._went_to)
        table.connect("cellPressed(int,int)", self._pressed)
        table.connect("itemSelectionChanged()", self._on_selection)
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
        rows = {index.row() for index in self._table.selectionModel().selectedRows()}
        return [each for row, each in enumerate(self.ids) if row in rows]

    def show_rows(self, rows: Sequence[Row], colors: Mapping[str, Color]) -> None:
        """Show these lesions, by identifier in ``colors``; one that has gone leaves the selection to the row in its place."""
        if list(rows) != list(self._unsorted) or colors != self._colors:
            self._unsorted, self._colors = list(rows), dict(colors)
            self._fill()

    def select(self, segment_id: str) -> None:
        """Make a lesion the only selected one; nobody is told."""
        if segment_id in self.ids and (self.current, self.selected) != (segment_id, [segment_id]):
            self._table.blockSignals(True)
            self._set_current(self.ids.index(segment_id), [segment_id])
            self._table.blockSignals(False)
            self._table.scrollToItem(self._table.currentItem())

    def _fill(self) -> None:
        place, before, current, selected = self._table.currentRow(), self.ids, self.current, self.selected
        self.rows = sorted_rows(self._unsorted, self._column, descending=self._descending)
        shown = [_shown(row, self._colors[str(row["segment"])]) for row in self.rows]
        self._table.blockSignals(True)
        if len(shown) != len(self._shown):
            self._table.setRowCount(len(shown))
            self._shown = self._shown[: len(shown)]
        for number, row in enumerate(shown):
            self._show_row(number, row, self._shown[number] if number < len(self._shown) else None)
        is_wider = _widths(shown) != _widths(self._shown)
        self._shown = shown
        if is_wider:
            self._table.resizeColumnsToContents()
        if self.rows and self.ids != before:
            at = self.ids.index(current) if current in self.ids else min(max(place, 0), len(self.rows) - 1)
            self._set_current(at, [each for each in selected if each in self.ids] or [self.ids[at]])
        self._table.blockSignals(False)

    def _show_row(self, number: int, row: Shown, before: Shown | None) -> None:
        texts, color, status = row
        for column, text in enumerate(texts):
            item = self._table.item(number, column)
            if item is None:
                item = qt.QTableWidgetItem(text)
                if COLUMNS[column] not in ("lesion", "status", "slice"):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                self._table.setItem(number, column, item)
            elif before is None or before[0][column] != text:
                item.setText(text)
        name, sign = self._table.item(number, 0), self._table.item(number, COLUMNS.index("status"))
        if before is None or before[1] != color:
            red, green, blue = (round(255 * part) for part in color)
            name.setData(qt.Qt.DecorationRole, qt.QColor(red, green, blue))
        if before is None or before[2] != status:
            sign.setToolTip(status_word(status))
            grey, text = (
                self._table.palette.color(group, qt.QPalette.Text) for group in (qt.QPalette.Disabled, qt.QPalette.Active)
            )
            rejected = status == Status.REJECTED
            if rejected or (before is not None and before[2] == Status.REJECTED):
                for column in range(len(COLUMNS)):
                    self._table.item(number, column).setForeground(qt.QBrush(grey if rejected else text))
            if not rejected:
                sign.setForeground(qt.QBrush(qt.QColor(STATUS_COLORS[status])))

    def _set_current(self, at: int, selected: Sequence[str]) -> None:
        # With a command of its own: what a plain call selects depends on the keys that are held.
        take = qt.QItemSelectionModel.ClearAndSelect | qt.QItemSelectionModel.Rows
        add = qt.QItemSelectionModel.Select | qt.QItemSelectionModel.Rows
        rows = [number for number, segment_id in enumerate(self.ids) if segment_id in selected]
        if rows == [at]:
            self._table.setCurrentCell(at, 0, take)
            return
        self._table.setCurrentCell(at, 0, qt.QItemSelectionModel.Clear)
        for number in rows:
            self._table.selectionModel().select(self._table.model().index(number, 0), add)

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
            # A click on another row is told twice.
            self._has_just_gone = True
            qt.QTimer.singleShot(0, self._has_gone)
            self._on_chosen(self.ids[row])

    def _has_gone(self) -> None:
        self._has_just_gone = False

    def _pressed(self, row: int, column: int) -> None:
        if not self._has_just_gone:
            self._went_to(row, column)


def _shown(row: Row, color: Color) -> Shown:
    texts: dict[Column, str] = {
        "lesion": str(row["lesion"]),
        "status": SIGNS[Status(str(row["status"]))],
        "score": score_text(row),
        "mean_diameter_mm": diameter_text(row),
        "volume_mm3": volume_text(row),
        "slice": place_text(row),
        "long_axis_mm": axes_text(row),
        "mean_hu": density_text(row),
    }
    return tuple(texts[column] for column in COLUMNS), color, Status(str(row["status"]))


def _widths(shown: Sequence[Shown]) -> list[int]:
    """The longest text of every column."""
    return [max((len(row[0][column]) for row in shown), default=0) for column in range(len(COLUMNS))]


def status_word(status: Status) -> str:
    """The status for a person."""
    return {
        Status.NEW: _("new"),
        Status.ACCEPTED: _("accepted"),
        Status.EDITED: _("edited"),
        Status.REJECTED: _("rejected"),
    }[status]
