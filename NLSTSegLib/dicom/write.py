"""``lesions.seg.dcm`` and ``measurements.sr.dcm`` beside the other files of a result or a review."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from NLSTSegLib.dicom.codes import SegType
from NLSTSegLib.dicom.lesions import FoundLesions, read_lesions
from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.dicom.seg import make_seg
from NLSTSegLib.dicom.source import SourceImages
from NLSTSegLib.dicom.sr import make_sr
from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.errors import InputError
from NLSTSegLib.results.folder import SEG_FILE, SR_FILE
from NLSTSegLib.volume.ct import CtVolume

IDENTITY_NOTICE = f"{SEG_FILE} and {SR_FILE} carry the patient's name, ID and UIDs, as objects for a PACS must"


def write_dicom(
    folder: Path,
    source: SourceImages,
    found: FoundLesions,
    seg_type: SegType = SegType.BINARY,
    reader: str = "",
    *,
    force: bool = False,
) -> list[Path]:
    """Write SEG and SR of ``found`` into ``folder``; where there is no lesion the SR alone. The paths that were written.

    Raises :class:`InputError` when one of them is there and not ``force``, or cannot be written.
    """
    seg_path, sr_path = folder / SEG_FILE, folder / SR_FILE
    for path in (seg_path, sr_path):
        if path.exists() and not force:
            raise InputError(f"'{path}' is there already; add --force to replace it")
    seg = make_seg(source, found, seg_type) if found.lesions else None
    report = make_sr(source, found, seg, reader)
    with quiet_dicom():
        if seg is None:
            seg_path.unlink(missing_ok=True)
            with atomic_file(sr_path) as partial:
                report.save_as(partial, enforce_file_format=True)
            return [sr_path]
        with atomic_file(sr_path) as sr_partial, atomic_file(seg_path) as seg_partial:
            seg.save_as(seg_partial, enforce_file_format=True)
            report.save_as(sr_partial, enforce_file_format=True)
    return [seg_path, sr_path]


def dicom_writer(ct: CtVolume, source: SourceImages, seg_type: SegType = SegType.BINARY) -> Callable[[Path], object]:
    """What adds SEG and SR to the files of a result of ``ct``: ``write_more`` of ``write_result``."""
    return lambda folder: write_dicom(folder, source, read_lesions(folder, ct), seg_type)


def instance_uid(path: Path) -> str:
    """SOPInstanceUID of a DICOM file that was written here."""
    import pydicom

    return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
