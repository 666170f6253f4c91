"""The cases of a cohort for a reader: what failed and what is least sure first, and where each reader's review lies.

Needs neither Dask nor the network's packages, so that 3D Slicer opens a cohort without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.cohort.case import Case
from NLSTSegLib.cohort.places import is_address, list_folder
from NLSTSegLib.cohort.table import open_table
from NLSTSegLib.disk.free_name import new_folder, plain_name
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_folder import series_of_files
from NLSTSegLib.reading.dicom_series import DicomSeries, read_series
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.review.folder import SEGMENTATION_FILE

if TYPE_CHECKING:
    from NLSTSegLib.volume.ct import CtVolume

REVIEWS = "reviews"
"""Folder in that of the cohort: in it one for every case, and there one for every review, named after its reader."""

NOBODY = "reader"
"""Stands for a reader without a name."""


@dataclass(frozen=True)
class ListedCase:
    """A case to read."""

    name: str
    places: tuple[str, ...]
    series: str
    result: Path | None
    """Folder of the result; ``None`` for a case that failed."""
    reason: str
    lesions: int
    least_score: float | None


def reading_list(folder: Path) -> list[ListedCase]:
    """What failed, then what has lesions by the score of the least sure, then what has none; by name where that is equal.

    Raises :class:`InputError` where ``folder`` is no cohort's, or its results lie at an address.
    """
    listed = []
    with open_table(folder, reading=True) as table:
        results = table.results or str(folder)
        if is_address(results):
            raise InputError(f"the results of the cohort in '{folder}' lie at an address; copy them to a folder to read them")
        # A cohort may be moved, and mounted elsewhere by another reader: then its results are still beside the table.
        place = Path(results) if Path(results).is_dir() else folder
        for row in table.rows("status IN ('done', 'failed')"):
            scores = [float(lesion["score"]) for lesion in row.lesions]
            result = place / row.name if row.status == "done" else None
            least = min(scores, default=None)
            listed.append(ListedCase(row.name, row.places, row.series, result, row.reason, len(scores), least))
    # Scores end at 1.
    return sorted(listed, key=lambda case: (case.result is not None, case.least_score or 2.0, case.name))


def readers_of(folder: Path, case: ListedCase) -> tuple[str, ...]:
    """Who has reviewed the case, as their folders are named; a reader's second review is ``NAME 2``."""
    place = folder / REVIEWS / case.name
    return tuple(sorted(each.name for each in place.iterdir() if not each.name.startswith("."))) if place.is_dir() else ()


def is_reviewed_by(folder: Path, case: ListedCase, reader: str) -> bool:
    return (folder / REVIEWS / case.name / plain_name(reader or NOBODY)).is_dir()


def new_review_folder(folder: Path, case: ListedCase, reader: str) -> Path:
    """Where the next review of this reader goes: each has a folder of its own, and none is written twice."""
    return new_folder(folder / REVIEWS / case.name, reader or NOBODY)


def segmentation_to_read(folder: Path, case: ListedCase, reader: str) -> Path | None:
    """The reader's own last review, or else the model's result; ``None`` where there is neither."""
    own = plain_name(reader or NOBODY)
    reviews = [name for name in readers_of(folder, case) if name == own or name.removeprefix(f"{own} ").isdecimal()]
    if reviews:
        last = max(reviews, key=lambda name: int(name.removeprefix(own).strip() or 1))
        return folder / REVIEWS / case.name / last / SEGMENTATION_FILE
    return None if case.result is None else case.result / SEGMENTATION_FILE


def read_listed_ct(case: ListedCase) -> CtVolume:
    """The CT of a case that lies on this computer or a share; raises :class:`InputError`."""
    if any(is_address(place) for place in case.places):
        raise InputError(f"the CT of {case.name} lies at an address; fetch it to read it")
    return read_case_files([Path(file) for file in files_of(case)], case.series)[0]


def files_of(case: Case | ListedCase) -> tuple[str, ...]:
    """Where the files of a case lie: the one file, or all in the folders of its slices. Raises :class:`InputError`."""
    return case.places if not case.series else tuple(file for place in case.places for file in list_folder(place).files)


def read_case_files(files: list[Path], series: str) -> tuple[CtVolume, DicomSeries | None]:
    """The CT in ``files``, and its DICOM series, which is found by its key among several; "" is for one image file."""
    if not series:
        return read_ct(files[0]), None
    chosen = choose_chest_series(series_of_files(files, skip_unreadable=True), series)
    return read_series(chosen), chosen
