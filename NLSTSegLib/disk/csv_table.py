"""CSV files that are tables in every spreadsheet, and run nothing in it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with, for some spreadsheet or other."""


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str | int | float]]) -> None:
    """Write a CSV file (UTF-8, comma, point as decimal sign) with these columns; other keys of the rows are left out.

    Texts are written as :func:`harmless` makes them.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows({column: harmless(value) for column, value in row.items()} for row in rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a file that :func:`write_table` has written, with the texts as they were before they were made harmless."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{column: _as_it_was(value) for column, value in row.items()} for row in csv.DictReader(file)]


def _as_it_was(value: str) -> str:
    return value[1:] if value.startswith("'") and harmless(value[1:]) == value else value


def harmless(value: str | int | float) -> str | int | float:
    """A text that a spreadsheet would take for a formula, with an apostrophe before it; any other value as it is.

    Names of lesions and readers come from whoever wrote the scene, and a formula may call programs or send what the table holds.
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA_STARTS) else value
