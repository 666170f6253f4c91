"""``lesions.csv``: the lesion table of a result, or of several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from NLSTSegLib.disk.csv_table import write_table
from NLSTSegLib.lesions.rows import COLUMNS, Row

CASE_COLUMN = "case"
"""First column where a table is of one CT among several."""


def write_csv(rows: Iterable[Row], path: Path, case: str | None = None) -> None:
    """Write ``lesions.csv``; with ``case`` that is the first column of every row."""
    if case is None:
        write_table(path, COLUMNS, rows)
    else:
        write_table(path, (CASE_COLUMN, *COLUMNS), ({CASE_COLUMN: case, **row} for row in rows))
