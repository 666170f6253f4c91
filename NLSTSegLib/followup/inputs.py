"""Lesions that were outlined before, and pairs that a reader made, from files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from NLSTSegLib.errors import InputError, printable
from NLSTSegLib.followup.matching import ByHand
from NLSTSegLib.followup.time_point import TimePoint, of_labels
from NLSTSegLib.reading.read import read_labels
from NLSTSegLib.results.folder import TABLE_FILE
from NLSTSegLib.results.report import voxels_sha256
from NLSTSegLib.results.saved import LABELS_FILE, LABELS_NIFTI, PROBABILITY_FILE, PROBABILITY_NIFTI, REPORT_FILE, read_summary
from NLSTSegLib.review.folder import AUDIT_FILE
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.scan_hash import scan_sha256

PAIR_COLUMNS = ("ct", "earlier", "later")
"""Columns of a file of pairs: the number of the earlier CT (from 1), and names of lesions of it and of the next, several joined
by +."""


def read_point(folder: Path, ct: CtVolume) -> TimePoint:
    """The lesions of a finished result in ``folder``, as ``nlstseg segment`` or the export of a review wrote it.

    Both must be of the voxels of ``ct``, by a hash (reviews that were exported before there was one: by the grid alone).
    Raises :class:`InputError` where they do not belong together, or the folder is no result.
    """
    probability = None
    labels_file = next((folder / name for name in (LABELS_FILE, LABELS_NIFTI) if (folder / name).is_file()), None)
    if labels_file is None:
        raise InputError(f"'{folder}' holds no result (no {LABELS_FILE} or {LABELS_NIFTI}); give the folder of one")
    if (folder / REPORT_FILE).is_file():
        summary = read_summary(folder)
        if summary.voxels_sha256 != voxels_sha256(ct):
            raise InputError(
                f"the result in '{folder}' is of other voxels than the CT that it is given for; name them in one order"
            )
        by = f"{summary.card.name} {summary.card.version}"
        files = (folder / name for name in (PROBABILITY_FILE, PROBABILITY_NIFTI))
        probability = next((read_labels(file, ct) for file in files if file.is_file()), None)
        rows: dict[int, Mapping[str, str | int | float]] = dict(enumerate(summary.rows, start=1))
    else:
        by, rows = "reader", dict(_reviewed_rows(folder / TABLE_FILE))
        hashes = _ct_hashes(folder / AUDIT_FILE)
        if hashes and hashes != {scan_sha256(ct)}:
            raise InputError(
                f"the review in '{folder}' is of other voxels than the CT that it is given for; name them in one order"
            )
    names = {label: str(row["lesion"]) for label, row in rows.items()}
    scores = {label: float(row["score"]) if row["score"] != "" else None for label, row in rows.items()}
    return of_labels(ct, read_labels(labels_file, ct), by, names, scores, probability)


def _reviewed_rows(table: Path) -> dict[int, dict[str, str]]:
    try:
        with open(table, encoding="utf-8", newline="") as file:
            return {int(row["label"]): row for row in csv.DictReader(file) if row["label"]}
    except (OSError, ValueError, KeyError) as error:
        what = f"the folder has neither a report of a run nor a table of a review ({table.name})"
        raise InputError(f"'{table.parent}' cannot be used: {what}; give a result as it was written") from error


def _ct_hashes(audit: Path) -> set[str]:
    """Of the CT that was reviewed: one; none where no lesion or an older program wrote the table."""
    if not audit.is_file():
        return set()
    with open(audit, encoding="utf-8", newline="") as file:
        return {row.get("ct_sha256") or "" for row in csv.DictReader(file)} - {""}


def read_pairs(path: Path, points: Sequence[TimePoint]) -> list[list[ByHand]]:
    """The pairs of a CSV file with the columns ``ct`` (may be left out for two CTs), ``earlier`` and ``later``.

    A row names lesions, as the tables do; with an empty side it says that the lesion has no partner. Raises
    :class:`InputError` for a file that cannot be read, a lesion that is not there, and one that is named twice.
    """
    pairs: list[list[ByHand]] = [[] for _ in points[1:]]
    used: set[tuple[int, int, str]] = set()
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the pairs in '{path}' cannot be read; give a CSV file with the columns ct, earlier, later") from error
    for line, row in enumerate(rows, start=2):
        number = row.get("ct") or "1"
        if row.get("earlier") is None or row.get("later") is None or not number.isdecimal() or not 1 <= int(number) < len(points):
            raise InputError(f"line {line} of '{path}' names no pair: give ct (1 to {len(points) - 1}), earlier and later")
        step = int(number) - 1
        sides = []
        for side, point in enumerate(points[step : step + 2]):
            found = []
            for name in filter(None, (part.strip() for part in row["later" if side else "earlier"].split("+"))):
                at = next((n for n, lesion in enumerate(point.lesions) if lesion.name == name), None)
                if at is None:
                    raise InputError(f"line {line} of '{path}': CT {step + side + 1} has no lesion '{printable(name)}'")
                if (step, side, name) in used:
                    raise InputError(
                        f"line {line} of '{path}': '{printable(name)}' is in two pairs; put all of them into one row"
                    )
                used.add((step, side, name))
                found.append(at)
            sides.append(tuple(found))
        if sides[0] or sides[1]:
            pairs[step].append((sides[0], sides[1]))
    return pairs
