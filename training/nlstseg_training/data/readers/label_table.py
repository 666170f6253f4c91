"""``1_Table/Label.xlsx`` of NLSTseg: which label is a tumour and which a nodule, and how large it is."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.data.cache import LesionKind, Refusal
from nlstseg_training.data.readers.zip_files import extract, members
from NLSTSegLib.disk.files_below import files_below
from NLSTSegLib.errors import InputError
from NLSTSegLib.volume.ct import CtVolume

TABLE_NAME = "Label.xlsx"

COLUMNS = ("ID", "Mark_labels", "labels_type")
"""Without these a table tells nothing; headings as shipped, but upper and lower case count the same."""

LARGEST_TABLE_BYTES, MOST_ROWS = 50_000_000, 100_000
"""Size of the workbook, packed and unpacked; the shipped one has some hundred rows."""

VOLUME_TOLERANCE_CM3 = 0.005
"""The table's volumes are voxel sums to within this (measured on the published data)."""

SPACING_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, order=True)
class LabelRow:
    """One lesion; what the table does not tell is NaN or empty."""

    kind: LesionKind
    volume_cm3: float
    spacing_ij_mm: tuple[float, float]
    """The table's are negative; these are not."""


def find_table(root: Path) -> tuple[dict[str, dict[int, LabelRow]], list[Refusal]]:
    """Rows by id and label value from the ``Label.xlsx`` in ``root``, extracted or in a zip; empty without one.

    A table that cannot be read is listed; an archive that cannot be opened is for :func:`.nlstseg.find_nlstseg` to list.
    """
    table: dict[str, dict[int, LabelRow]] = {}
    refused = []
    for path, archive in _places(root):
        where = f"{archive}/{path}" if archive else path
        try:
            found = read_table(_content(path, archive))
        except (ValueError, OSError, InputError) as error:
            refused.append(Refusal(TABLE_NAME, "nlstseg", f"'{where}' cannot be used ({error}), so no lesion has a type from it"))
            continue
        for case_id, rows in found.items():
            table.setdefault(case_id, {}).update(rows)
    return table, refused


def _places(root: Path) -> Iterator[tuple[str, Path | None]]:
    """Path of each table on the disk, or else inside an archive, and that archive."""
    files = sorted(files_below(root)) if root.is_dir() else [root]
    on_disk = [path for path in files if path.name == TABLE_NAME]
    yield from ((str(path), None) for path in on_disk)
    if on_disk:
        return
    for archive in [path for path in files if path.suffix == ".zip"] if root.is_dir() else [root]:
        with contextlib.suppress(InputError):
            for member in members(archive):
                if member.filename.rpartition("/")[2] == TABLE_NAME:
                    yield member.filename, archive


def _content(path: str, archive: Path | None) -> bytes:
    content = io.BytesIO()
    if archive:
        extract(archive, path, content, LARGEST_TABLE_BYTES)
    elif os.path.getsize(path) > LARGEST_TABLE_BYTES:
        raise ValueError("it is too large")
    else:
        content.write(Path(path).read_bytes())
    return content.getvalue()


def read_table(content: bytes) -> dict[str, dict[int, LabelRow]]:
    """Rows by id and label value; raises :class:`ValueError` for what is no such table. Rows without a label are left out."""
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if sum(member.file_size for member in packed.infolist()) > LARGEST_TABLE_BYTES:
                raise ValueError("it is too large")
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        cells = list(itertools.islice(workbook.worksheets[0].iter_rows(values_only=True), MOST_ROWS))
    except Exception as error:  # openpyxl lets through whatever damaged or hostile XML provokes
        raise ValueError("it is no whole Excel workbook") from error
    headings = [str(cell).strip().casefold() for cell in cells[0]] if cells else []
    for column in COLUMNS:
        if column.casefold() not in headings:
            raise ValueError(f"it has no column {column}")
    table: dict[str, dict[int, LabelRow]] = {}
    for values in cells[1:]:
        row = dict(zip(headings, values, strict=False))
        label = _number(row["mark_labels"])
        if row["id"] is None or not label.is_integer():
            continue
        spacing = (abs(_number(row.get("pixelspcingx"))), abs(_number(row.get("pixelspacingy"))))
        kind = _kind(str(row["labels_type"]))
        table.setdefault(_id(row["id"]), {})[int(label)] = LabelRow(kind, _number(row.get("tumor_v(cm3)")), spacing)
    return table


def compare(table: Mapping[int, LabelRow], labels: np.ndarray, ct: CtVolume) -> tuple[str, ...]:
    """Sentences on where the rows of a case and its mask contradict each other."""
    volumes_cm3 = np.bincount(labels[labels > 0]) * ct.voxel_volume_mm3 / 1000
    there = set(volumes_cm3.nonzero()[0].tolist())
    notes = [f"label {label} of its mask is not in the table" for label in sorted(there - set(table))]
    notes += [f"label {label} of the table is not in its mask" for label in sorted(set(table) - there)]
    for label in sorted(there & set(table)):
        row = table[label]
        if abs(row.volume_cm3 - volumes_cm3[label]) > VOLUME_TOLERANCE_CM3:
            notes.append(f"label {label} has {volumes_cm3[label]:.3f} cm3, {row.volume_cm3:.3f} in the table")
        if any(abs(a - b) > SPACING_TOLERANCE_MM for a, b in zip(row.spacing_ij_mm, ct.spacing_ijk_mm[:2], strict=True)):
            notes.append(f"its pixels are {ct.spacing_ijk_mm[:2]} mm, {row.spacing_ij_mm} in the table")
        if not row.kind:
            notes.append(f"the table does not say whether label {label} is a tumour or a nodule")
    return tuple(dict.fromkeys(notes))


def _kind(text: str) -> LesionKind:
    if "nodule" in text.casefold():
        return "nodule"
    return "tumour" if "tumor" in text.casefold() or "tumour" in text.casefold() else ""


def _number(cell: object) -> float:
    try:
        return float(str(cell))
    except ValueError:
        return float("nan")


def _id(cell: object) -> str:
    number = _number(cell)
    return str(int(number)) if number.is_integer() else str(cell).strip()
