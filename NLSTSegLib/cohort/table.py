"""``cohort.sqlite``: which cases there are, where they lie, and what became of each. Only one client writes to it.

It holds paths and UIDs, by which the CTs are found again, so it is readable for its owner alone and not meant to be passed on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NLSTSegLib import __version__
from NLSTSegLib.cohort.case import Case, Found, Outcome, Settings, Status
from NLSTSegLib.errors import InputError

TABLE_FILE = "cohort.sqlite"

FORMAT = 1

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cases (
    name TEXT PRIMARY KEY, places TEXT NOT NULL, series TEXT NOT NULL, patient TEXT NOT NULL, study TEXT NOT NULL,
    date TEXT NOT NULL, slices INTEGER NOT NULL, rows INTEGER NOT NULL, columns INTEGER NOT NULL, header_findings TEXT NOT NULL,
    status TEXT NOT NULL, reason TEXT NOT NULL, seconds REAL, peak_mb REAL, worker TEXT NOT NULL DEFAULT '',
    weights_sha256 TEXT NOT NULL DEFAULT '', version TEXT NOT NULL DEFAULT '', fingerprint TEXT NOT NULL DEFAULT '',
    finished TEXT NOT NULL DEFAULT '', findings TEXT NOT NULL DEFAULT '[]', lesions TEXT NOT NULL DEFAULT '[]'
);
CREATE INDEX cases_by_status ON cases (status);
"""

DUPLICATE = "the same series as {name}"


@dataclass(frozen=True)
class Recorded:
    """A row of the table."""

    name: str
    places: tuple[str, ...]
    series: str
    patient: str
    study: str
    date: str
    slices: int
    rows: int
    columns: int
    header_findings: tuple[str, ...]
    status: Status
    reason: str
    seconds: float | None
    peak_mb: float | None
    worker: str
    weights_sha256: str
    version: str
    fingerprint: str
    finished: str
    findings: tuple[str, ...]
    lesions: tuple[dict[str, Any], ...]

    @property
    def case(self) -> Case:
        return Case(self.name, self.places, self.series, self.slices * self.rows * self.columns)


class CohortTable:
    """The table of one cohort folder, opened by :func:`open_table`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def source(self) -> str | None:
        """Whence the cases are; ``None`` until :meth:`add_cases`."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = 'source'").fetchone()
        return None if row is None else str(row[0])

    @property
    def identifier(self) -> str:
        """By which an address of results knows this table."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO facts VALUES ('identifier', ?)", (secrets.token_hex(8),))
        return str(self._connection.execute("SELECT value FROM facts WHERE name = 'identifier'").fetchone()[0])

    @property
    def results(self) -> str | None:
        """Folder or address of the results of the last run; ``None`` before the first."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = 'results'").fetchone()
        return None if row is None else str(row[0])

    def note_results(self, results: str) -> None:
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES ('results', ?)", (results,))

    def add_cases(self, source: str, found: Iterable[Found]) -> None:
        """Name the cases, those without a name by their number in the order of their places, and write them all at once."""
        ordered = sorted(found, key=lambda one: (one.places, one.series))
        digits = max(6, len(str(len(ordered))))
        known: dict[tuple[str, ...], str] = {}
        with self._connection:
            for number, one in enumerate(ordered, start=1):
                name = one.name or f"case-{number:0{digits}}"
                # A series without a UID is the same only where it lies at the same place.
                key = ("", *one.places) if not one.series or one.series.startswith("no-uid") else (one.series,)
                status, reason = ("refused", one.refused) if one.refused else ("open", "")
                if status == "open" and known.setdefault(key, name) != name:
                    status, reason = "duplicate", DUPLICATE.format(name=known[key])
                values: list[Any] = [name, json.dumps(one.places), one.series, one.patient, one.study, one.date]
                values += [one.slices, one.rows, one.columns, json.dumps(one.findings), status, reason]
                self._connection.execute(
                    "INSERT INTO cases (name, places, series, patient, study, date, slices, rows, columns, header_findings,"
                    f" status, reason) VALUES ({', '.join('?' * len(values))})",
                    values,
                )
            self._connection.execute("INSERT INTO facts VALUES ('source', ?)", (source,))

    def rows(self, where: str = "1", parameters: tuple[Any, ...] = ()) -> Iterator[Recorded]:
        """Rows in the order of their names."""
        names = list(Recorded.__dataclass_fields__)
        for row in self._connection.execute(f"SELECT {', '.join(names)} FROM cases WHERE {where} ORDER BY name", parameters):
            values = dict(zip(names, row, strict=True))
            for name in ("places", "header_findings", "findings", "lesions"):
                values[name] = tuple(json.loads(values[name]))
            yield Recorded(**values)

    def counts(self) -> dict[str, int]:
        """Cases by status."""
        return dict(self._connection.execute("SELECT status, COUNT(*) FROM cases GROUP BY status").fetchall())

    def outdated(self, settings: Settings) -> int:
        """Cases that were done with another model, version or options."""
        query = "SELECT COUNT(*) FROM cases WHERE status = 'done' AND fingerprint != ?"
        return int(self._connection.execute(query, (settings.fingerprint,)).fetchone()[0])

    def open_again(self, settings: Settings, which: str) -> None:
        """Make cases open: those that ``failed``, or with ``all`` those too that :meth:`outdated` counts."""
        query = "UPDATE cases SET status = 'open', reason = '' WHERE status = 'failed'"
        parameters: tuple[str, ...] = ()
        if which == "all":
            query += " OR (status = 'done' AND fingerprint != ?)"
            parameters = (settings.fingerprint,)
        with self._connection:
            self._connection.execute(query, parameters)

    def write(self, outcome: Outcome, settings: Settings) -> None:
        """The outcome of a case, on the disk when this returns."""
        values: list[Any] = [
            outcome.status,
            outcome.reason,
            outcome.seconds,
            outcome.peak_mb,
            outcome.worker,
            settings.weights_sha256,
        ]
        values += [__version__, settings.fingerprint]
        values += [json.dumps(outcome.findings), json.dumps(outcome.rows), outcome.name]
        try:
            with self._connection:
                self._connection.execute(
                    "UPDATE cases SET status = ?, reason = ?, seconds = ?, peak_mb = ?, worker = ?, weights_sha256 = ?,"
                    " version = ?, fingerprint = ?, findings = ?, lesions = ?,"
                    # For people alone: nothing goes by it.
                    " finished = strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now') WHERE name = ?",
                    values,
                )
        except sqlite3.OperationalError as error:
            raise InputError(f"the table of the cohort cannot be written ({error}); make room and start again") from error


@contextlib.contextmanager
def open_table(folder: Path, *, reading: bool = False) -> Iterator[CohortTable]:
    """The table of the cohort in ``folder``; made where there is none, or with ``reading`` neither made nor changed.

    Raises :class:`InputError` for one of another version of the program, or that is damaged or missing.
    """
    file = folder / TABLE_FILE
    if reading and not file.exists():
        raise InputError(f"'{folder}' is no folder of a cohort: it has no {TABLE_FILE}; choose the --output of 'nlstseg cohort'")
    try:
        connection = _connected(file, "ro" if reading else "rw")
    except (sqlite3.DatabaseError, OSError) as error:
        raise InputError(f"the table '{file}' cannot be used ({error}); take it away to begin anew, results are kept") from error
    with contextlib.closing(connection):
        yield CohortTable(connection)


def _connected(file: Path, mode: str) -> sqlite3.Connection:
    is_new = not file.exists()
    if is_new:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=30)
    try:
        if is_new or not file.stat().st_size:
            connection.executescript(f"BEGIN; {SCHEMA} INSERT INTO facts VALUES ('format', '{FORMAT}'); COMMIT;")
        found = connection.execute("SELECT value FROM facts WHERE name = 'format'").fetchone()
        if found is None or found[0] != str(FORMAT):
            raise InputError(f"'{file}' is of another version of the program; take that version, or another folder")
    except BaseException:
        connection.close()
        raise
    return connection
