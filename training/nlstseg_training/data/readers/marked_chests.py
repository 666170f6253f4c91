"""Chests without reader masks in which a model's marks were told apart by eye: ``chests/<name>/ct.nrrd``, ``chests/marks.csv``.

They hold no lesion to learn from. What looks like one, or may be one, is neither lesion nor none; all else is none.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.data.cache import Refusal
from nlstseg_training.data.readers.source import Found, RawCase, Source, file_states
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume

NO_LESION = "anatomy"
"""Label of the marks that are certainly none; others are left open."""

DOUBTFUL = np.uint8(1)
"""Value of the soft target (255 is surely lesion): a minority's mark, so neither lesion nor none."""

MARGIN_MM = 4.0
"""Around the sphere of a doubtful mark's volume."""

MANY = 5
"""A chest with more marks that look like lesions surely has others that nobody marked."""


@dataclass(frozen=True)
class Mark:
    """A mark of a model, and what it is by eye."""

    centroid_lps_mm: tuple[float, float, float]
    volume_mm3: float
    label: str


@dataclass(frozen=True, kw_only=True)
class MarkedChestSource(Source):
    """A chest and its marks."""

    place: Path
    marks: tuple[Mark, ...]

    def state(self) -> str:
        return f"{file_states([self.place])} {self.marks}"

    def read(self) -> RawCase:
        ct = read_ct(self.place)
        complete = sum(mark.label == "lesion-like" for mark in self.marks) <= MANY
        target = doubtful_places(ct, [mark for mark in self.marks if mark.label != NO_LESION])
        return RawCase(ct, np.zeros(ct.hu.shape, np.uint8), "chest", complete=complete, target=target)


def find_marked_chests(root: Path) -> Found:
    """All chests of ``root``; raises :class:`InputError` when there is none or the table is no such table."""
    table = root / "chests" / "marks.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = [(row["chest"], _mark(row)) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{table}' cannot be read ({error!r}); name the folder that holds chests/marks.csv") from error
    sources, refused = [], []
    names = {path.parent.name for path in (root / "chests").glob("*/ct.nrrd")}
    for name in sorted(names | {chest for chest, _ in rows}):
        marks = tuple(mark for chest, mark in rows if chest == name)
        if name in names:
            place = root / "chests" / name / "ct.nrrd"
            sources.append(MarkedChestSource(id=name, patient=patient_of(name), reader="marked-chests", place=place, marks=marks))
        else:
            refused.append(Refusal(name, "marked-chests", f"marks.csv names it, but '{name}/ct.nrrd' is missing; get it again"))
    return Found(tuple(sources), tuple(refused))


def patient_of(name: str) -> str:
    """A letter after the number tells CTs of one patient apart."""
    return re.sub(r"(?<=\d)[a-z]$", "", name)


def doubtful_places(ct: CtVolume, marks: Sequence[Mark]) -> np.ndarray:
    """uint8 ``[k, j, i]``: :data:`DOUBTFUL` in the balls around ``marks``, 0 elsewhere."""
    target = np.zeros(ct.hu.shape, np.uint8)
    axes_kji = np.array(ct.direction_lps, float).reshape(3, 3).T[::-1] * np.array(ct.spacing_ijk_mm[::-1])[:, None]
    for mark in marks:
        radius_mm = np.cbrt(mark.volume_mm3 * 3 / (4 * np.pi)) + MARGIN_MM
        middle = np.linalg.solve(axes_kji.T, np.subtract(mark.centroid_lps_mm, ct.origin_lps_mm))
        reach = radius_mm / np.linalg.norm(axes_kji, axis=1)
        box = tuple(
            slice(max(0, int(np.ceil(at - by))), max(0, int(np.floor(at + by)) + 1)) for at, by in zip(middle, reach, strict=True)
        )
        axes = [np.arange(target.shape[n])[box[n]] - middle[n] for n in range(3)]
        offsets = np.meshgrid(*axes, indexing="ij")
        away_mm = np.linalg.norm(np.stack(offsets, axis=-1) @ axes_kji, axis=-1)
        target[box][away_mm <= radius_mm] = DOUBTFUL
    return target


def _mark(row: dict[str, str]) -> Mark:
    left, posterior, superior = (float(row[f"centroid_{axis}_mm"]) for axis in "lps")
    return Mark((left, posterior, superior), float(row["volume_mm3"]), row["label"])
