"""What SEG and SR take over from the headers of the CT: an allow list, mended where highdicom or the standard want it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NLSTSegLib.dicom.quiet import check_installed, quiet_dicom
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_file import read_dataset
from NLSTSegLib.reading.dicom_headers import DicomSlice, read_headers
from NLSTSegLib.reading.dicom_series import DicomSeries

if TYPE_CHECKING:
    from pydicom import Dataset

CHARACTER_SET = "ISO_IR 192"
"""UTF-8, whatever the CT has: pydicom has its texts decoded already."""

TEXTS = ("PatientName", "PatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName")
DATES = ("PatientBirthDate", "StudyDate")
REQUIRED = (*TEXTS, *DATES, "PatientSex", "StudyTime")
"""Attributes of type 2: they stand in every object, if need be empty."""

OPTIONAL = (
    *("StudyDescription", "IssuerOfPatientID"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified"),
)
"""Copied where they are there; nothing but these, the codes of the de-identification, UIDs and the geometry is."""

LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
"""Copied of a CT that was compressed with loss."""

_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")

_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "legacy converted enhanced CT",
}

_TAGS = [
    *REQUIRED,
    *OPTIONAL,
    *("DeidentificationMethodCodeSequence", "SpecificCharacterSet", "SOPClassUID", "StudyInstanceUID"),
    *("FrameOfReferenceUID", *LOSSY),
]


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A CT series as highdicom wants to see it: headers of its images without pixels, and nothing that is not needed."""

    images: tuple[Dataset, ...]
    """One for every slice k, or the one multi-frame image."""
    series_uid: str
    step_mm: float
    """Distance of neighbouring slices, for SpacingBetweenSlices."""
    notes: tuple[str, ...]
    """What was mended; names attributes and shows no value."""
    frames: tuple[int, ...] | None = None
    """Which frame of the multi-frame image slice k is."""

    def in_order(self, labels: np.ndarray) -> np.ndarray:
        """``labels`` (``[k, j, i]``) in the order of the images, or of the frames of the multi-frame one."""
        if self.frames is None:
            return labels
        planes = np.zeros((int(self.images[0].NumberOfFrames), *labels.shape[1:]), labels.dtype)
        planes[list(self.frames)] = labels
        return planes


def source_of(series: DicomSeries | None, name: str) -> SourceImages:
    """:func:`read_source` of the CT called ``name``; raises :class:`InputError` too where it has none or a package is missing."""
    check_installed()
    if series is None:
        raise InputError(f"{name} is not DICOM, and SEG and SR belong to DICOM images; give the CT as DICOM, or leave them out")
    return read_source(series)


def read_source(series: DicomSeries) -> SourceImages:
    """The headers of ``series`` as sources of SEG and SR.

    Raises :class:`InputError`, naming the fault, for a series whose slices an object could not refer to or that is of
    several patients.
    """
    paths = list(dict.fromkeys(one.path for one in series.slices))
    with quiet_dicom():
        try:
            headers = [_header(path) for path in paths]
        except Exception as error:  # as in reading.dicom_headers: pydicom lets through whatever a damaged header provokes
            raise InputError(f"the headers in {paths[0].parent} cannot be read again; run it anew") from error
        _check(series, headers, paths)
        common, notes = _common(series, headers[0])
        step_mm = _step_mm(series)
        thickness_mm = series.slices[0].thickness_mm
        if not thickness_mm > 0:
            thickness_mm = step_mm
            notes.append("SliceThickness is missing, the distance of the slices was taken")
        if len(paths) == 1 and series.slices[0].frames > 1:
            image = _multi_frame(common, list(read_headers(paths[0])), thickness_mm)
            return SourceImages((image,), series.uid, step_mm, tuple(notes), tuple(one.frame for one in series.slices))
        images = [_single(common, one, series.slices[0], thickness_mm) for one in series.slices]
    return SourceImages(tuple(images), series.uid, step_mm, tuple(notes))


def _header(path: Path) -> Dataset:
    with path.open("rb") as stream:
        return read_dataset(stream, _TAGS, stop_before_pixels=True)


def derived_uid(*parts: str) -> str:
    """A UID that is always the same for the same ``parts``."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(parts)).int}"


def _check(series: DicomSeries, headers: Sequence[Dataset], paths: Sequence[Path]) -> None:
    """Raise :class:`InputError` for what cannot be mended."""
    place, first = paths[0].parent, headers[0]
    if not first.get("StudyInstanceUID") or not series.uid:
        which = "SeriesInstanceUID" if first.get("StudyInstanceUID") else "StudyInstanceUID"
        raise InputError(f"the CT in {place} has no {which}, so no DICOM object can belong to it; export it anew")
    kind = str(first.get("SOPClassUID") or first.file_meta.get("MediaStorageSOPClassUID") or "")
    if kind not in _CT_CLASSES:
        raise InputError(f"the series in {place} is of class '{kind}' and not CT images, so no SEG or SR is made of it")
    if len(paths) > 1 and series.slices[0].frames > 1:
        raise InputError(f"the CT in {place} is spread over {len(paths)} multi-frame files; SEG and SR need it in one")
    instances = {one.sop_uid for one in series.slices}
    if len(instances) != len(paths) or "" in instances:
        what = "has slices without a SOPInstanceUID of their own"
        raise InputError(f"the CT in {place} {what}, so a SEG could not tell them apart; export it anew")
    # Slices of several IDs or studies are no longer in one series, see reading.dicom_headers.SCAN_ATTRIBUTES.
    differing = next((n for n, one in enumerate(headers) if one.get("PatientName") != first.get("PatientName")), None)
    if differing is not None:
        raise InputError(f"{paths[differing]} has another PatientName than the rest of its series; take the file out")


def _common(series: DicomSeries, first: Dataset) -> tuple[Dataset, list[str]]:
    """What all images share, and what was mended of it."""
    from pydicom import Dataset

    common, notes = Dataset(), []
    common.SpecificCharacterSet = CHARACTER_SET
    for keyword in REQUIRED:
        value, note = _mended(first, keyword)
        setattr(common, keyword, value)
        if note:
            notes.append(f"{keyword} {note}")
    for keyword in OPTIONAL:
        value = _text(first.get(keyword))
        if value and "\ufffd" not in value:
            setattr(common, keyword, value)
    if methods := first.get("DeidentificationMethodCodeSequence"):
        common.DeidentificationMethodCodeSequence = [_code(item) for item in methods]
    if str(first.get("LossyImageCompression")) == "01":
        for keyword in LOSSY:
            if first.get(keyword):
                setattr(common, keyword, first.get(keyword))
    common.StudyInstanceUID, common.SeriesInstanceUID = str(first.StudyInstanceUID), series.uid
    common.SOPClassUID = str(first.get("SOPClassUID") or first.file_meta.MediaStorageSOPClassUID)
    common.Modality = "CT"
    common.Rows, common.Columns = series.slices[0].rows, series.slices[0].columns
    common.FrameOfReferenceUID = str(first.get("FrameOfReferenceUID") or "")
    if not common.FrameOfReferenceUID:
        common.FrameOfReferenceUID = derived_uid(series.uid, "frame of reference")
        notes.append("FrameOfReferenceUID is missing, one was made from the series")
    return common, notes


def _text(value: Any) -> str:
    from pydicom.multival import MultiValue

    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value if value is not None else "")


def _mended(header: Dataset, keyword: str) -> tuple[str, str]:
    """A value that may be written, and what was done to it (empty for nothing)."""
    from pydicom.valuerep import DA, TM

    if header.get(keyword) is None:
        return "", "is missing, written empty"
    value = _text(header.get(keyword))
    if "\ufffd" in value:
        return "", "is not in the character set that the header names, left empty"
    if keyword in DATES or keyword == "StudyTime":
        try:
            (TM if keyword == "StudyTime" else DA)(value)
        except ValueError:
            return "", "is not valid, left empty"
    if keyword == "PatientSex" and value not in ("", "M", "F", "O"):
        first = value.strip().upper()[:1]
        return (first, "was shortened to its first letter") if first in tuple("MFO") else ("", "is not valid, left empty")
    return value, ""


def _code(item: Dataset) -> Dataset:
    from pydicom import Dataset

    code = Dataset()
    for keyword in _CODE:
        if item.get(keyword):
            setattr(code, keyword, _text(item.get(keyword)))
    return code


def _step_mm(series: DicomSeries) -> float:
    """Mean of the distances near the median: positions may be rounded, slices missing, and a stack may have two distances."""
    if len(series.slices) == 1:
        return series.slices[0].thickness_mm
    steps_mm = np.diff(series.offsets_mm)
    median_mm = np.median(steps_mm)
    return float(steps_mm[np.abs(steps_mm - median_mm) < 0.25 * median_mm].mean())


def _decimal(values: Sequence[float]) -> list[str]:
    """Numbers as DICOM's decimal strings, at most 16 characters each."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(value)) for value in values]


def _single(common: Dataset, one: DicomSlice, first: DicomSlice, thickness_mm: float) -> Dataset:
    from pydicom import Dataset

    image = Dataset()
    image.update(common)
    image.SOPInstanceUID = one.sop_uid
    image.ImagePositionPatient = _decimal(one.position_lps_mm)
    # Reading allows directions that differ a little between slices; highdicom wants them equal.
    image.ImageOrientationPatient = _decimal(first.cosines_lps)
    image.PixelSpacing = _decimal(first.spacing_ji_mm)
    image.SliceThickness = _decimal([thickness_mm])[0]
    return image


def _multi_frame(common: Dataset, frames: Sequence[DicomSlice], thickness_mm: float) -> Dataset:
    from pydicom import Dataset

    image, shared, measures, orientation = Dataset(), Dataset(), Dataset(), Dataset()
    image.update(common)
    image.SOPInstanceUID, image.NumberOfFrames = frames[0].sop_uid, len(frames)
    measures.PixelSpacing, measures.SliceThickness = _decimal(frames[0].spacing_ji_mm), _decimal([thickness_mm])[0]
    orientation.ImageOrientationPatient = _decimal(frames[0].cosines_lps)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = []
    for one in frames:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = _decimal(one.position_lps_mm)
        frame.PlanePositionSequence = [position]
        image.PerFrameFunctionalGroupsSequence.append(frame)
    return image
