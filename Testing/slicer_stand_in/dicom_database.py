"""A stand-in for Slicer's DICOM database: a folder of files by their instance, and what puts them there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
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

    def insert(self, file: Path, copy: bool) -> None:
        uid = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        self.files[uid] = Path(shutil.copy(file, self._folder / f"{uid}.dcm")) if copy else file


class ctkDICOMIndexer:
    """Takes files into a database."""

    def addFile(self, database: DicomDatabase, path: str, copy: bool = False) -> None:
        if database.takes_files:
            database.insert(Path(path), copy)

    def waitForImportFinished(self) -> None:
        """Nothing: it is done at once here."""


@contextmanager
def dicom_database(folder: Path) -> Iterator[DicomDatabase]:
    """``slicer.dicomDatabase`` and ``ctk.ctkDICOMIndexer`` while in the block; files that it copies go into ``folder``."""
    import slicer

    from NLSTSegLib.widgets import dicom_database as used

    database = DicomDatabase(folder)
    with (
        mock.patch.object(slicer, "dicomDatabase", database, create=True),
        mock.patch.object(used, "ctk", SimpleNamespace(ctkDICOMIndexer=ctkDICOMIndexer)),
    ):
        yield database
