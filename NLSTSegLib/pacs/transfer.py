"""Series out of a PACS into a folder, and DICOM files into it, checked that they are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.disk.atomic_folder import atomic_folder, held, prepare_place
from NLSTSegLib.disk.files_below import files_below
from NLSTSegLib.errors import InputError, PacsError
from NLSTSegLib.pacs.archive import Archive, Series, StoredObject
from NLSTSegLib.reading.dicom_file import is_dicom

SEG_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}

REFERRING = {"SR", "PR", "KO"}
"""Modalities of objects that refer to others, segmentations too."""


def pull_series(archive: Archive, series: Sequence[Series], folder: Path, progress: Callable[[int], None]) -> None:
    """Fetch all of ``series`` into ``folder``, new or empty, whole or not at all: ``series-001/00001.dcm``, and so on.

    ``progress(instances)`` after each. Raises :class:`InputError` for the folder and :class:`PacsError` for the PACS.
    """
    with held(folder):
        if names := prepare_place(folder):
            raise InputError(f"the folder '{folder}' holds '{min(names)}' already; choose a new folder")
        with atomic_folder(folder) as partial:
            before = 0
            for n, one in enumerate(series, start=1):
                place = partial / f"series-{n:03d}"
                place.mkdir()
                classes = archive.instances(one.study_uid, one.uid)
                if not classes:
                    raise PacsError(f"the PACS at {archive.place} has no images of a series; look with find --series")
                came = archive.fetch(one, classes, place, lambda done, before=before: progress(before + done))  # type: ignore[misc]
                if came < len(classes):
                    what = f"sent {came} of {len(classes)} images of a series"
                    raise PacsError(f"the PACS at {archive.place} {what}; look there, and try again")
                before += came


def objects_in(paths: Sequence[Path]) -> list[StoredObject]:
    """The DICOM objects among files, and in folders, in the order in which they are sent: images, segmentations, then what
    refers to them. Raises :class:`InputError` for a file that is none, and a folder without any."""
    files = []
    for path in paths:
        inside = [file for file in files_below(path) if is_dicom(file)] if path.is_dir() else [path]
        if not inside:
            raise InputError(f"there is no DICOM file in the folder '{path}'; name another, or files")
        files += inside
    return sorted(map(_object, files), key=lambda one: (one.modality in REFERRING, one.sop_class_uid in SEG_CLASSES))


def push_objects(archive: Archive, objects: Sequence[StoredObject], progress: Callable[[int], None]) -> None:
    """Store objects in this order, of which none is sent after one that was refused, and ask whether all are there.

    It may be repeated: a PACS keeps an object that it has. Raises :class:`PacsError` where one was not taken.
    """
    archive.store(objects, progress)
    for series in dict.fromkeys((one.study_uid, one.series_uid) for one in objects):
        there = archive.instances(*series)
        for one in objects:
            if (one.study_uid, one.series_uid) == series and one.sop_uid not in there:
                raise PacsError(f"the PACS at {archive.place} took '{one.path}', but does not have it; look there, push again")


def _object(path: Path) -> StoredObject:
    import pydicom

    try:
        with quiet_dicom():
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        return StoredObject(
            path=path,
            sop_class_uid=str(dataset.SOPClassUID),
            sop_uid=str(dataset.SOPInstanceUID),
            syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
            study_uid=str(dataset.StudyInstanceUID),
            series_uid=str(dataset.SeriesInstanceUID),
            modality=str(dataset.get("Modality", "")),
        )
    except Exception as error:  # as in reading.dicom_headers: pydicom lets through whatever a damaged file provokes
        raise InputError(f"'{path}' is no DICOM object that can be stored; give SEG, SR or image files") from error
