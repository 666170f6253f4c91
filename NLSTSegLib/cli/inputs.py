"""What the arguments of the command line stand for: one case for every CT, and the name of its result."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError, printable

if TYPE_CHECKING:
    from NLSTSegLib.progress import Fraction
    from NLSTSegLib.reading.dicom_series import DicomSeries
    from NLSTSegLib.volume.ct import CtVolume


@dataclass(frozen=True)
class Case:
    """One CT to segment."""

    path: Path
    """DICOM folder, or a file."""
    name: str
    """Name of the folder of its result, where there are several."""
    series: DicomSeries | None = None
    """The one in ``path`` that is meant, where each is a case of its own."""


def find_cases(inputs: Sequence[Path], *, all_series: bool = False, skip_unreadable: bool = False) -> tuple[list[Case], bool]:
    """The cases that ``inputs`` stand for, and whether each gets a folder of its own.

    A folder that holds image files stands for them; any other for the DICOM series that is chosen in it, or with
    ``all_series`` for every CT series but localizers. Raises :class:`InputError` for an input that is not there, a folder that
    holds DICOM and image files, and two cases of the same name.
    """
    cases = []
    for path in inputs:
        if not os.path.exists(path):
            raise InputError(f"there is no file or folder {path}; name a DICOM folder or an image file")
        images = images_in(path)
        if images:
            cases += [Case(image, stem(image)) for image in images]
        elif all_series and os.path.isdir(path):
            cases += _all_series_in(path, skip_unreadable)
        else:
            cases.append(Case(path, stem(path)))
    several = len(cases) > 1 or cases[0].path != inputs[0] or cases[0].series is not None
    return (_told_apart(cases) if several else cases), several


def images_in(path: Path) -> list[Path]:
    """The image files directly in the folder ``path``; none in a DICOM folder. Raises :class:`InputError` for one with both."""
    from NLSTSegLib.reading.dicom_file import is_dicom
    from NLSTSegLib.reading.image_file import FORMATS

    if not os.path.isdir(path):
        return []
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    images = [file for file in files if file.name.lower().endswith(tuple(FORMATS))]
    if images and any(is_dicom(file) for file in files if file not in images):
        raise InputError(f"the folder '{path}' holds DICOM and image files ({images[0].name}); put either into another folder")
    return images


def _all_series_in(folder: Path, skip_unreadable: bool) -> list[Case]:
    from NLSTSegLib.reading.dicom_folder import list_series

    found = [
        series
        for series in list_series(folder, skip_unreadable=skip_unreadable)
        if series.modality == "CT" and not series.is_localizer
    ]
    if not found:
        raise InputError(f"no DICOM series in '{folder}' is a CT volume")
    cases: list[Case] = []
    for series in found:
        name = _series_name(series)
        same = sum(case.name.startswith(name) for case in cases)
        cases.append(Case(folder, f"{name}-{same + 1}" if same else name, series))
        print(f"{cases[-1].name}: {printable(str(series))}", file=sys.stderr)
    return cases


def _series_name(series: DicomSeries) -> str:
    """Name of a series by its number and middle slice, so that it stays whatever else comes into the folder.

    Neither UID, nor a hash of it, nor description: they lead to the patient.
    """
    import hashlib

    from NLSTSegLib.reading.dicom_pixels import read_stored

    middle = series.slices[len(series.slices) // 2]
    try:
        voxels = read_stored(middle)[middle.frame].tobytes()
    except InputError:
        # Said when it is read as a whole.
        voxels = b""
    number = int(min(max(middle.series_number, 0), 999999))
    return f"series-{number:03d}-{hashlib.sha256(voxels).hexdigest()[:8]}"


def _told_apart(cases: Sequence[Case]) -> list[Case]:
    """Cases of the same name get that of the folder they are in, or that they are, in front."""
    names = [case.name for case in cases]
    for n, case in enumerate(cases):
        if _is_shared(case.name, [other.name for other in cases]):
            folder = case.path.resolve() if case.series else case.path.resolve().parent
            names[n] = f"{folder.name}_{case.name}"
    for name in names:
        if _is_shared(name, names):
            raise InputError(f"two inputs would both be written to a folder '{name}'; run them one by one")
    return [Case(case.path, name, case.series) for case, name in zip(cases, names, strict=True)]


def _is_shared(name: str, names: Sequence[str]) -> bool:
    """Also where a file system takes upper and lower case for the same."""
    return [other.casefold() for other in names].count(name.casefold()) > 1


def stem(path: Path) -> str:
    """The name of a folder, or that of an image file without its ending."""
    from NLSTSegLib.reading.image_file import FORMATS

    # A name that is not in UTF-8 cannot be written to.
    name = path.resolve().name.encode("utf-8", "replace").decode("utf-8").replace("?", "_")
    for ending in (*FORMATS, ".dcm"):
        if name.lower().endswith(ending) and path.is_file():
            return name[: -len(ending)]
    return name


def load_case(
    case: Case,
    series_uid: str | None = None,
    skip_unreadable: bool = False,
    progress: Fraction | None = None,
) -> tuple[CtVolume, DicomSeries | None]:
    """Read the CT of a case, and its headers if it is DICOM; of a DICOM folder, say on stderr which series there are, which is
    taken, and what is left out."""
    from NLSTSegLib.reading.dicom_series import read_series
    from NLSTSegLib.reading.read import read_with_series

    if case.series is not None:
        return read_series(case.series, skip_unreadable=skip_unreadable, progress=progress), case.series

    def tell(series: list[DicomSeries], chosen: DicomSeries) -> None:
        if len(series) > 1:
            for one in series:
                print(printable(f"{'taken' if one is chosen else 'there'}: {one}"), file=sys.stderr)
        if skip_unreadable:
            for file in chosen.unreadable:
                print(f"left out: {printable(file.name)}", file=sys.stderr)

    return read_with_series(case.path, series_uid=series_uid, skip_unreadable=skip_unreadable, progress=progress, tell=tell)
