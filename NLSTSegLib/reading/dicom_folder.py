"""The DICOM series of a folder: which slices make one scan, what lies there twice, and what cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from NLSTSegLib.disk.files_below import files_below
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_file import is_dicom
from NLSTSegLib.reading.dicom_headers import PART_ATTRIBUTES, DicomSlice, read_headers
from NLSTSegLib.reading.dicom_series import SAME_GEOMETRY, SAME_POSITION_MM, DicomSeries, repeats

FEWEST_ORIENTED, MOST_ORIENTATIONS = 3, 8
"""Slices of another orientation that are a scan of their own; fewer are strays, and more orientations none of a series,
which reading refuses."""

MOST_DOUBLED = 0.05
"""Share of the slices; where acquisitions continue each other, so many may lie where another lies."""

DOUBLED_STEP = 0.1
"""Slices of two acquisitions nearer than this share of the slice distance show the same."""


def list_series(
    folder: Path | str,
    *,
    recursive: bool = True,
    skip_unreadable: bool = False,
    progress: Callable[[float], None] | None = None,
) -> list[DicomSeries]:
    """All image series below ``folder``, by series number; only headers are read.

    Files are recognised by their content, not their name, and links to folders are followed; what is not DICOM, or holds no
    image, is passed over. A file that is there twice counts once. ``progress(fraction)`` is called before every file and may
    raise to stop. Raises :class:`InputError` when there is no such folder, it holds no DICOM image, or, without
    ``skip_unreadable``, a DICOM file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    files = list(files_below(folder, recursive=recursive))
    series = series_of_files(files, skip_unreadable=skip_unreadable, progress=progress)
    if not series:
        empty = sum(1 for file in files if not file.is_file() or file.stat().st_size == 0)
        also = f" ({empty} files there are empty, or links that lead nowhere)" if empty else ""
        fix = "give the folder of the series, unpacked if it is in an archive"
        raise InputError(f"no DICOM images were found in {folder}{also}; {fix}")
    return series


def series_of_files(
    files: Sequence[Path], *, skip_unreadable: bool = False, progress: Callable[[float], None] | None = None
) -> list[DicomSeries]:
    """The same of ``files``, which may lie in several folders; none where no file holds a DICOM image."""
    unique: dict[tuple, DicomSlice] = {}
    others = []
    for n, file in enumerate(files):
        if progress:
            progress(n / len(files))
        if not is_dicom(file):
            others.append(file)
            continue
        try:
            for one in read_headers(file):
                # Some anonymisers give all files one SOPInstanceUID, so the position takes part.
                key = (one.sop_uid or file, one.series_uid, one.scan, one.frame, one.position_lps_mm)
                unique.setdefault(key, one)
        except InputError:
            if not skip_unreadable:
                raise
            others.append(file)
    series = [part for scan in _scans(list(unique.values())) for part in _split_parts(scan)]
    series = [_without_doubles(one) for one in series]
    series = sorted(series, key=lambda s: (s.slices[0].series_number, s.uid, s.slices[0].parts, str(s.slices[0].path)))
    unreadable = _like_slices(others, series)
    return [
        replace(
            one, unreadable=tuple(file for place in {s.path.parent for s in one.slices} for file in unreadable.get(place, ()))
        )
        for one in _named(series)
    ]


def series_of_file(file: Path | str, *, skip_unreadable: bool = False) -> DicomSeries:
    """The series that ``file`` belongs to, from the DICOM files in the same folder.

    Raises :class:`InputError` when ``file`` holds no DICOM image.
    """
    file = Path(file)
    own = next(read_headers(file), None)
    if own is None:
        raise InputError(f"{file} holds no DICOM image")
    for series in list_series(file.parent, recursive=False, skip_unreadable=skip_unreadable):
        if any((s.sop_uid, s.scan, s.position_lps_mm) == (own.sop_uid, own.scan, own.position_lps_mm) for s in series.slices):
            return series
    raise InputError(f"{file} changed while it was read, or lies where another slice of its series lies")


def _scans(slices: list[DicomSlice]) -> list[tuple[DicomSlice, ...]]:
    """Grouped by all that tells scans apart, orientation included, and sorted along the normal."""
    groups: dict[tuple, list[DicomSlice]] = {}
    for one in slices:
        groups.setdefault((one.series_uid, one.scan), []).append(one)
    return [_sorted(scan) for group in groups.values() for scan in _orientations(group)]


def _orientations(slices: list[DicomSlice]) -> list[list[DicomSlice]]:
    """The slices of every orientation; all together where there are strays, or more orientations than any series has."""
    oriented: list[list[DicomSlice]] = []
    for one in slices:
        same = (o for o in oriented if np.allclose(one.cosines_lps, o[0].cosines_lps, atol=SAME_GEOMETRY, equal_nan=True))
        found = next(same, None)
        if found is None:
            oriented.append([one])
        else:
            found.append(one)
        if len(oriented) > MOST_ORIENTATIONS:
            return [slices]
    return oriented if all(len(part) >= FEWEST_ORIENTED for part in oriented) else [slices]


def _sorted(slices: list[DicomSlice]) -> tuple[DicomSlice, ...]:
    """Along the normal; by file and frame where slices are not placed."""
    normal = slices[0].normal_lps if all(s.is_placed for s in slices) else np.zeros(3)
    return tuple(sorted(slices, key=lambda s: (float(normal @ np.nan_to_num(s.position_lps_mm)), s.path, s.frame)))


def _split_parts(slices: tuple[DicomSlice, ...]) -> list[DicomSeries]:
    """One series, or one per value of the first of :data:`PART_ATTRIBUTES`, or per folder, that tells whole scans apart.

    They are told apart where they lie between one another or, by folders too, at the same positions. Stations one after the
    other are one volume. Acquisitions that overlap without one of them being whole stay together; reading then refuses the
    repeated positions, or the uneven distances are found before the run.
    """
    whole = DicomSeries(slices)
    if not whole.is_placed:
        return [whole]
    # Once: it takes a look at every slice.
    enough_mm = 0.9 * whole.coverage_mm
    doubled = repeats(whole) and not _continues(whole)
    tellings = [[one.parts[n] for one in slices] for n in range(len(PART_ATTRIBUTES))]
    # An export may lay the slices of one scan into folders in any order.
    tellings += [[str(one.path.parent) for one in slices]] if doubled else []
    for values in tellings:
        changes = sum(a != b for a, b in pairwise(values))
        by_value: dict[str, list[DicomSlice]] = {}
        for one, value in zip(slices, values, strict=True):
            by_value.setdefault(value, []).append(one)
        if len(by_value) == 1 or (changes < len(by_value) and not doubled):
            continue
        parts = [DicomSeries(tuple(by_value[value])) for value in sorted(by_value, key=lambda value: (len(value), value))]
        if any(part.coverage_mm >= enough_mm and not repeats(part) for part in parts):
            return parts
    return [whole]


def _continues(series: DicomSeries) -> bool:
    """Whether so few slices lie where another lies that they are the joint of acquisitions one after the other."""
    return 0 < _doubles(series).sum() <= max(1, MOST_DOUBLED * len(series.slices))


def _doubles(series: DicomSeries) -> np.ndarray:
    """Boolean, for every slice: whether it lies where the one before lies."""
    gaps_mm = np.diff(series.offsets_mm)
    if not len(gaps_mm):
        return np.zeros(len(series.slices), bool)
    acquisitions = np.array([one.parts[0] for one in series.slices])
    near_mm = np.where(acquisitions[1:] != acquisitions[:-1], DOUBLED_STEP * np.median(gaps_mm), 0)
    return np.concatenate([[False], gaps_mm < np.maximum(near_mm, SAME_POSITION_MM)])


def _without_doubles(series: DicomSeries) -> DicomSeries:
    """Each slice once where acquisitions continue each other."""
    if not series.is_placed or not _continues(series):
        return series
    doubles = _doubles(series)
    kept = tuple(one for one, double in zip(series.slices, doubles, strict=True) if not double)
    return replace(series, slices=kept, doubled=int(doubles.sum()))


def _named(series: list[DicomSeries]) -> list[DicomSeries]:
    """Series with a part's name where several have one SeriesInstanceUID: the AcquisitionNumber where it tells them apart."""
    by_uid: dict[str, list[int]] = {}
    for n, one in enumerate(series):
        by_uid.setdefault(one.uid, []).append(n)
    for same in by_uid.values():
        numbers = [series[n].slices[0].parts[0] for n in same]
        if len(set(numbers)) < len(same) or not all(number.isdecimal() for number in numbers):
            numbers = [str(count) for count in range(1, len(same) + 1)]
        for n, number in zip(same, numbers, strict=True):
            series[n] = replace(series[n], part=number if len(same) > 1 else "")
    return series


def _like_slices(others: list[Path], series: list[DicomSeries]) -> dict[Path, list[Path]]:
    """Those of ``others``, by folder, that are named like the slices there: copied in part, or links that lead nowhere."""
    names: dict[Path, set[str]] = {}
    for one in series:
        for each in one.slices:
            names.setdefault(each.path.parent, set()).update(_kinds_of_name(each.path))
    found: dict[Path, list[Path]] = {}
    for file in others:
        if not file.name.startswith(".") and names.get(file.parent, set()) & _kinds_of_name(file):
            found.setdefault(file.parent, []).append(file)
    return found


def _kinds_of_name(file: Path) -> set[str]:
    """Its ending, unless that is a number, and its name with one sign for every number, hexadecimal ones too."""
    ending = file.suffix.lower()
    name = re.sub(r"(?=[a-f-]*\d)[\da-f-]{8,}|\d+", "#", file.name.lower())
    return {re.sub("#+", "#", name), *([ending] if re.search("[a-z]", ending) else [])}
