"""The lesions as a list to work through: its order, what comes next, how far the review is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from NLSTSegLib.review.state import Status

Row = Mapping[str, str | int | float]
"""A lesion as in :func:`NLSTSegLib.review.case.review_row`."""

Column = Literal["lesion", "status", "score", "mean_diameter_mm", "volume_mm3", "slice", "long_axis_mm", "mean_hu"]
"""What the list can be sorted by: keys of a row."""

Action = Literal["accept", "reject", "reopen", "split", "merge", "delete"]
"""What a reader can do with selected lesions."""

STATUS_ORDER = (Status.NEW, Status.EDITED, Status.ACCEPTED, Status.REJECTED)
"""Order from what is left to do to what is done."""


def sorted_rows(rows: Sequence[Row], column: Column, *, descending: bool) -> list[Row]:
    """The rows by one column; those without a value come last in either direction, equal ones keep their order."""

    def rank(row: Row) -> str | int | float:
        return STATUS_ORDER.index(Status(str(row[column]))) if column == "status" else row[column]

    known = [row for row in rows if row[column] != ""]
    known.sort(key=rank, reverse=descending)
    return known + [row for row in rows if row[column] == ""]


def is_decided(row: Row) -> bool:
    """Whether a reader has accepted, edited or rejected the lesion."""
    return row["status"] != Status.NEW


def is_folded(row: Row, lowest_score: float) -> bool:
    """Whether a lesion that nobody has decided on is scored below ``lowest_score``; one without a score never is."""
    return not is_decided(row) and row["score"] != "" and float(row["score"]) < lowest_score


def neighbour(ids: Sequence[str], current: str | None, step: Literal[1, -1]) -> str | None:
    """The identifier after (1) or before (-1) ``current``, round the end; the first or last one where that is not there."""
    if not ids:
        return None
    if current not in ids:
        return ids[0 if step > 0 else -1]
    return ids[(ids.index(current) + step) % len(ids)]


def next_new(rows: Sequence[Row], current: str | None) -> str | None:
    """The next lesion after ``current``, round the end, that nobody has decided on; ``None`` where none is left."""
    ids = [str(row["segment"]) for row in rows]
    start = ids.index(current) + 1 if current in ids else 0
    turned = [*rows[start:], *rows[:start]]
    return next((str(row["segment"]) for row in turned if row["status"] == Status.NEW), None)


def counts(rows: Sequence[Row]) -> dict[Status, int]:
    """How many lesions have each status; those that none has are left out."""
    found = {status: sum(row["status"] == status for row in rows) for status in Status}
    return {status: number for status, number in found.items() if number}


def possible_actions(selected: Sequence[Row]) -> set[Action]:
    """What can be done with the selected lesions.

    An edited lesion is not reopened: as a new one it would give way to a later run.
    """
    states = {Status(str(row["status"])) for row in selected}
    possible: dict[Action, bool] = {
        "accept": bool(states - {Status.ACCEPTED}),
        "reject": bool(states - {Status.REJECTED}),
        "reopen": bool(states) and states <= {Status.ACCEPTED, Status.REJECTED},
        "split": len(selected) == 1,
        "merge": len(selected) > 1,
        "delete": len(selected) == 1,
    }
    return {action for action, is_possible in possible.items() if is_possible}
