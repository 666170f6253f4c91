"""One table of the lesions of all results in a folder."""

from __future__ import annotations

from pathlib import Path

from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.disk.csv_table import write_table
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.rows import COLUMNS
from NLSTSegLib.results.folder import TABLE_FILE
from NLSTSegLib.results.saved import REPORT_FILE, read_summary
from NLSTSegLib.results.tables import CASE_COLUMN


def check_overview(folder: Path) -> None:
    """Raise :class:`InputError` where ``folder`` is itself a result, or has a ``lesions.csv`` that is none of several results."""
    if (folder / REPORT_FILE).exists():
        raise InputError(f"the output folder '{folder}' holds the result of a single CT; choose another folder for several")
    table = folder / TABLE_FILE
    if table.exists():
        with open(table, encoding="utf-8", errors="replace") as file:
            if file.readline().strip() != ",".join((CASE_COLUMN, *COLUMNS)):
                raise InputError(f"'{table}' is not a table of results; choose another folder")


def write_overview(folder: Path) -> None:
    """Write the lesions of every result folder in ``folder`` to its ``lesions.csv``: of this run, and of earlier ones.

    Raises :class:`InputError` when it cannot be written.
    """
    if not folder.is_dir():
        return
    with held(folder):
        results = [report.parent for report in sorted(folder.glob(f"[!.]*/{REPORT_FILE}"))]
        rows = ({CASE_COLUMN: result.name, **row} for result in results for row in read_summary(result).to_rows())
        with atomic_file(folder / TABLE_FILE) as partial:
            write_table(partial, (CASE_COLUMN, *COLUMNS), rows)
