"""CT files in which everything that may say whose CT it is holds a mark, so that any of it is found where it came through."""

import functools
import gzip
import zlib
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from helpers.dicom_files import write_series
from NLSTSegLib.volume.ct import CtVolume

MARK = "QZXQ"
"""Part of every marked text, in capitals as a code string needs them; nothing else holds it."""

UID_ROOT = "1.2.987654321"
"""Begin of every marked UID."""

DATES = [f"1907{month:02d}{day:02d}" for month in range(1, 13) for day in range(1, 29)]
"""Marked dates, one after the other, and again from the start."""

NEEDED = {
    "SpecificCharacterSet",
    "Modality",
    "ImageType",
    "PhotometricInterpretation",
    "SOPClassUID",
    "RescaleType",
}
"""Texts that reading a CT takes its decisions by."""

TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}


def mark_dicom(file: Path) -> int:
    """Mark every text, UID and date of the dictionary in a DICOM file, private ones and nested ones too; returns how many."""
    dataset = pydicom.dcmread(file)
    series = f"{UID_ROOT}.5.{int(dataset.SeriesInstanceUID[-6:].replace('.', ''))}"
    for element in _marked_elements():
        dataset.add(element)
    dataset.SeriesInstanceUID = series
    # One patient and one study in all files; instances differ.
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}.{zlib.crc32(file.name.encode())}"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", MARK]
    dataset.file_meta.ImplementationVersionName = dataset.file_meta.SourceApplicationEntityTitle = MARK
    dataset.preamble = (MARK.encode() * 32)[:128]
    for group in (0x0009, 0x0019, 0x0011):
        block = dataset.private_block(group, f"{MARK} creator", create=True)
        block.add_new(0x01, "LO", f"{MARK} private")
        block.add_new(0x02, "UN", f"{MARK} unknown".encode() + b" " * (len(MARK) % 2))
        block.add_new(0x03, "SQ", [_marked_item()])
    for keyword in ("OtherPatientIDsSequence", "ReferringPhysicianIdentificationSequence", "RequestAttributesSequence"):
        setattr(dataset, keyword, [_marked_item()])
    dataset.add_new(0x60004000, "LT", f"{MARK} overlay")
    dataset.add_new(0xFFFCFFFC, "OB", MARK.encode() * 8)
    dataset.save_as(file)
    return len(_marked_elements()) + 3 * 3 + 3 + 6


def _marked_item() -> Dataset:
    item = Dataset()
    item.PatientID, item.PersonName, item.InstitutionName = (f"{MARK} nested",) * 3
    return item


@functools.cache
def _marked_elements() -> list[DataElement]:
    """Of every text, UID and date in the dictionary; the same for all files, since making them takes long."""
    marked = []
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 in (0x0000, 0x0002, 0x0004) or not keyword or keyword in NEEDED:
            continue
        if vr in TEXTS:
            value = f"{MARK}^{tag:08X}" if vr == "PN" else f"{MARK}{tag:08X}"
        elif vr == "UI":
            value = f"{UID_ROOT}.{tag}"
        elif vr == "DA":
            value = DATES[len(marked) % len(DATES)]
        else:
            continue
        marked.append(DataElement(tag, vr, value))
    return marked


def write_marked_series(folder: Path, ct: CtVolume, **options) -> tuple[list[Path], int]:
    """The axial ``ct`` as a marked series in files with marked names, and how many attributes are marked in each."""
    name = options.pop("name", (MARK + "_{:04d}.dcm").format)
    place = {"spacing_ijk_mm": ct.spacing_ijk_mm, "origin_lps_mm": ct.origin_lps_mm}
    files = write_series(folder, ct.hu, name=name, **place, **options)
    return files, min([mark_dicom(file) for file in files])


def write_marked_image(file: Path, ct: CtVolume) -> None:
    """``ct`` as NIfTI, NRRD or MetaImage, by the ending of ``file``, with a mark in every text of its header."""
    image = ct.to_image()
    if file.name.endswith(".nii.gz"):
        plain = file.with_name("plain.nii")
        sitk.WriteImage(image, str(plain))
        content = bytearray(plain.read_bytes())
        plain.unlink()
        for start, length in ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16)):  # data_type, db_name, descrip, aux, intent
            content[start : start + length] = np.resize(np.frombuffer(MARK.encode(), np.uint8), length).tobytes()
        file.write_bytes(gzip.compress(bytes(content)))
        return
    sitk.WriteImage(image, str(file))
    header = {
        ".nrrd": (b"\n\n", f'\n# {MARK}\ncontent: "{MARK}"\nPatientName:={MARK}\nDICOM_0010_0020:={MARK}\n\n'.encode()),
        ".mha": (b"\nElementDataFile", f"\nComment = {MARK}\nName = {MARK}\nPatientID = {MARK}\nElementDataFile".encode()),
    }
    old, new = header[file.suffix]
    file.write_bytes(file.read_bytes().replace(old, new, 1))


def marks_in(content: bytes) -> list[str]:
    """The marks in ``content``: texts in any case, UIDs, dates."""
    text = content.decode("latin-1").upper()
    return [mark for mark in (MARK, UID_ROOT, *DATES) if mark in text]
