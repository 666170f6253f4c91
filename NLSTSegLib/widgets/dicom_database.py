"""Slicer's DICOM database: which files a volume was loaded from, and new files into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from NLSTSegLib.dicom.write import instance_uid
from NLSTSegLib.errors import InputError
from NLSTSegLib.progress import Fraction
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_folder import list_series, series_of_file
from NLSTSegLib.reading.dicom_series import DicomSeries

INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"
"""Node attribute of a volume from the database: the SOPInstanceUIDs of its files, separated by blanks."""


def database() -> Any:
    """Slicer's DICOM database; ``None`` where there is none or it is not open."""
    found = getattr(slicer, "dicomDatabase", None)
    return found if found is not None and found.isOpen else None


def series_of_volume(volume_node: Any) -> DicomSeries | None:
    """The series that the volume was loaded from; ``None`` where the database does not know."""
    uids = (volume_node.GetAttribute(INSTANCES_ATTRIBUTE) or "").split()
    file = database().fileForInstance(uids[0]) if uids and database() is not None else ""
    return series_of_file(Path(file)) if file and Path(file).is_file() else None


def series_in(folder: Path, volume_node: Any) -> DicomSeries:
    """The series in ``folder`` that the volume was loaded from, by its UID, else the chest CT there.

    Raises :class:`InputError` when there is none.
    """
    series = list_series(folder)
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    uid = hierarchy.GetItemUID(
        hierarchy.GetItemByDataNode(volume_node), slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    )
    return choose_chest_series(series, uid if uid in {one.uid for one in series} else None)


def add_to_database(paths: Sequence[Path], progress: Fraction = lambda fraction: None) -> None:
    """Copy these DICOM files into the database. Raises :class:`InputError` when it does not take them."""
    there = database()
    if there is None:
        raise InputError(_("Slicer's DICOM database is not open; open it in the module DICOM"))
    for number, path in enumerate(paths):
        progress(number / len(paths))
        there.insert(str(path), True, False)  # a copy, no thumbnail
        if not there.fileForInstance(instance_uid(path)):
            raise InputError(_("Slicer's DICOM database did not take {name}; put it into a folder").format(name=path.name))
