"""A stand-in for Slicer's DICOM database: a folder of files by their instance."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pydicom


class DicomDatabase:
    """The names of ``ctkDICOMDatabase`` that the module uses; ``files`` are its files by SOPInstanceUID."""

    isOpen = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.takes_files = True
        self.files: dict[str, Path] = {}

    def fileForInstance(self, uid: str) -> str:
        return str(self.files.get(uid, ""))

    def insert(self, path: str, store: bool = True, thumbnail: bool = True) -> None:
        if self.takes_files:
            uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            self.files[uid] = Path(shutil.copy(path, self._folder / f"{uid}.dcm")) if store else Path(path)


@contextmanager
def dicom_database(folder: Path) -> Iterator[DicomDatabase]:
    """``slicer.dicomDatabase`` while in the block; files that it copies go into ``folder``."""
    import slicer

    database = DicomDatabase(folder)
    with mock.patch.object(slicer, "dicomDatabase", database, create=True):
        yield database
