"""What a worker sees of the cases by their headers: folders and studies of a tree, series of a study, files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.checks.preflight import check_ct_grid, stop_on_errors
from NLSTSegLib.cohort.case import Found
from NLSTSegLib.cohort.places import Listing, fetched, is_folder, list_folder
from NLSTSegLib.cohort.plain_reason import plain_reason
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_file import is_dicom
from NLSTSegLib.reading.dicom_folder import series_of_files
from NLSTSegLib.reading.dicom_headers import read_headers
from NLSTSegLib.reading.dicom_series import DicomSeries, series_grid
from NLSTSegLib.reading.image_file import FORMATS, read_grid

if TYPE_CHECKING:
    from NLSTSegLib.volume.ct import CtVolume


@dataclass(frozen=True)
class Looked:
    """A folder of the tree."""

    place: str
    folders: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    """Files of :data:`NLSTSegLib.reading.image_file.FORMATS`."""
    study: str | None = None
    """Patient and study of its first DICOM image; ``None`` where there is none."""
    identity: str = ""
    refused: str = ""


def look_at(place: str) -> Looked:
    """What lies in a folder, and of which study its first DICOM image is."""
    there = Listing((), (), "")
    try:
        there = list_folder(place)
        images = tuple(file for file in there.files if file.lower().endswith(tuple(FORMATS)) and not _is_hidden(file))
        study = _first_study(set(there.files) - set(images))
    except Exception as error:
        # What nobody thought of must not cost the other folders.
        return Looked(place, there.folders, identity=there.identity, refused=_sentence(error, [place, *there.files]))
    if study is None or not images:
        return Looked(place, there.folders, images, study, there.identity)
    mixed = "the folder holds DICOM and image files, of which the DICOM files are taken; put either into another folder"
    return Looked(place, there.folders, (), study, there.identity, mixed)


def _sentence(error: Exception, files: Sequence[str], names: Iterable[str] = ()) -> str:
    text = str(error) if isinstance(error, InputError) else f"unexpected {type(error).__name__}: {error}"
    return plain_reason(text, files, names)


def _is_hidden(file: str) -> bool:
    return file.replace("\\", "/").rpartition("/")[2].startswith(".")


def _first_study(files: Iterable[str]) -> str | None:
    study = None
    for file in sorted(files):
        with fetched([file]) as (path,):
            try:
                first = next(read_headers(path), None)
            except InputError:
                # A folder with nothing but damaged files is one of DICOM too, and is told of.
                study = study or file
                continue
        if first is not None:
            return f"{first.patient_id}/{first.study_uid}" if first.study_uid else file
    return study


def cases_of_folders(folders: tuple[str, ...]) -> list[Found]:
    """The cases in folders that belong together: of every study in them the series that the library's rule takes."""
    files: list[str] = []
    try:
        files += [file for folder in folders for file in list_folder(folder).files]
        with fetched(files) as paths:
            series = series_of_files(paths, skip_unreadable=True)
            if not series:
                raise InputError("no DICOM image there can be read; copy it again")
            there = dict(zip(paths, files, strict=True))
            studies: dict[tuple[str, str], list[DicomSeries]] = {}
            for one in series:
                studies.setdefault((one.slices[0].patient_id, one.slices[0].study_uid), []).append(one)
            return [_case_of_study(study, there) for study in studies.values()]
    except Exception as error:
        return [Found(folders, refused=_sentence(error, [*files, *folders]))]


def _case_of_study(series: Sequence[DicomSeries], there: dict[Path, str], uid: str | None = None) -> Found:
    """``there``: places of the paths."""
    files = [*there.values(), *map(str, there)]
    names = {text for one in series for text in (one.description, one.slices[0].patient_id, one.slices[0].region) if text}
    first = series[0].slices[0]
    found = Found(tuple(sorted({_folder(there[s.path]) for one in series for s in one.slices})), "", first.patient_id)
    found = replace(found, study=first.study_uid)
    try:
        chosen = choose_chest_series(series, uid)
        same = [s for one in series if one.uid == chosen.uid for s in one.slices]
        found = replace(found, places=tuple(sorted({_folder(there[s.path]) for s in same})), series=chosen.key)
        return _looked_through(found, series_grid(chosen))
    except Exception as error:
        return replace(found, refused=_sentence(error, files, names))


def _folder(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[0] or "/"


def case_of_file(file: str) -> Found:
    """An image file as a case."""
    found = Found((file,))
    try:
        with fetched([file]) as (path,):
            return _looked_through(found, read_grid(path))
    except Exception as error:
        return replace(found, refused=_sentence(error, [file]))


def _looked_through(found: Found, grid: CtVolume) -> Found:
    slices, rows, columns = grid.hu.shape
    findings = check_ct_grid(grid)
    found = replace(found, slices=slices, rows=rows, columns=columns, findings=tuple(finding.code for finding in findings))
    stop_on_errors(findings)
    return found


@dataclass(frozen=True)
class ListRow:
    """A row of the user's own list of cases."""

    id: str
    path: str
    patient: str = ""
    date: str = ""
    series: str = ""


def case_of_row(row: ListRow) -> Found:
    """The CT at ``row.path``: a file, or of the folder and those in it the series asked for or chosen."""
    files: list[str] = []
    try:
        if is_folder(row.path):
            waiting = [row.path]
            while waiting:
                there = list_folder(waiting.pop())
                files += there.files
                waiting += there.folders
        elif row.path.lower().endswith(tuple(FORMATS)):
            return replace(case_of_file(row.path), name=row.id, patient=row.patient, date=row.date)
        else:
            files = list(list_folder(_folder(row.path)).files)
        with fetched(files) as paths:
            series = series_of_files([path for path in paths if is_dicom(path)], skip_unreadable=True)
            if not series:
                raise InputError("no DICOM image was found there; give its folder, or an image file")
            found = _case_of_study(series, dict(zip(paths, files, strict=True)), row.series or None)
    except Exception as error:
        found = Found((row.path,), refused=_sentence(error, [row.path, *files]))
    return replace(found, name=row.id, patient=row.patient or found.patient, date=row.date)
