"""What DICOM headers say about slices: one in a usual CT file, many in an enhanced multi-frame file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NLSTSegLib.errors import InputError, printable
from NLSTSegLib.reading.dicom_file import check_deflated, is_dicom, read_dataset
from NLSTSegLib.reading.quiet import quiet_pydicom

if TYPE_CHECKING:
    import pydicom

SCAN_ATTRIBUTES = (
    *("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *("ConvolutionKernel", "KVP", "ContrastBolusAgent", "PatientPosition", "TemporalPositionIdentifier", "TemporalPositionIndex"),
)
"""Slices that differ in one of these are of different scans, whatever their SeriesInstanceUID says: anonymisers remove or unify
it."""

PART_ATTRIBUTES = ("AcquisitionNumber", "SliceThickness", "SeriesTime", "NominalPercentageOfCardiacPhase", "AcquisitionTime")
"""They may differ within a scan, and may tell apart what lies at the same places."""

DATE_ATTRIBUTES = ("AcquisitionDate", "AcquisitionDateTime", "FrameAcquisitionDateTime", "SeriesDate", "StudyDate")
"""When a CT was taken, the nearest first."""

MODALITY_TABLE = "ModalityLUTSequence"
"""Stands in place of a rescale, and leads to other values than HU."""

_TAGS = [
    *SCAN_ATTRIBUTES,
    *PART_ATTRIBUTES,
    *DATE_ATTRIBUTES,
    *("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "ImageType", "BodyPartExamined", "ProtocolName"),
    *("NumberOfFrames", "Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", MODALITY_TABLE),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("VolumetricProperties", "VolumeBasedCalculationTechnique"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


LONGEST_TEXT = 128
"""Longest text that is taken of a header; DICOM allows 64 characters."""

MOST_FRAMES = 20_000
"""Most frames of a file; more, or another number than the file itself says, is damage. A long chest has 3000 slices."""


@dataclass(frozen=True)
class DicomSlice:
    """What the headers say about one slice: a file, or one frame of a multi-frame file; NaN for numbers they lack."""

    path: Path
    frame: int
    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    series_number: float
    description: str
    region: str
    """BodyPartExamined, SeriesDescription and ProtocolName: what is said to be shown."""
    modality: str
    image_type: tuple[str, ...]
    calculation: str
    """Calculation of an enhanced image from others, such as MAX_IP."""
    transfer_syntax: str
    scan: tuple[str, ...]
    """:data:`SCAN_ATTRIBUTES` and ImageType as texts."""
    parts: tuple[str, ...]
    """:data:`PART_ATTRIBUTES` as texts, empty where there are none."""
    date: str = field(repr=False)
    """The first of :data:`DATE_ATTRIBUTES` that is there, as YYYYMMDD; empty without one. It helps to tell whose CT it is."""
    rows: int
    columns: int
    frames: int
    """How many slices the headers of the file describe."""
    frames_stored: int
    """How many slices the file holds, as it says itself."""
    native_bytes: int
    """How many bytes the file's voxels take at the least; 0 where they are compressed."""
    photometric: str
    rescale: tuple[float, ...]
    """Slope and intercept."""
    unit: str
    """RescaleType, or the name of an attribute that stands for other values than HU."""
    thickness_mm: float
    position_lps_mm: tuple[float, ...]
    """Centre of the first voxel."""
    cosines_lps: tuple[float, ...]
    """Directions of i (along a row) and of j (down a column), three numbers each."""
    spacing_ji_mm: tuple[float, ...]
    """Spacing between rows, then between columns: DICOM's PixelSpacing."""

    @property
    def is_placed(self) -> bool:
        """Whether position, orientation and spacing are all there."""
        return bool(np.isfinite([*self.position_lps_mm, *self.cosines_lps, *self.spacing_ji_mm]).all())

    @property
    def normal_lps(self) -> np.ndarray:
        """Unit vector i x j: where k runs."""
        cosines = np.asarray(self.cosines_lps, float)
        normal = np.cross(cosines[:3], cosines[3:])
        return normal / max(float(np.linalg.norm(normal)), 1e-9)


def read_headers(file: Path) -> Iterator[DicomSlice]:
    """The slices of a DICOM file; none when it is not DICOM or holds no image.

    Raises :class:`InputError` when it is damaged or cannot be opened.
    """
    if not is_dicom(file):
        return
    damaged = f"{file} is a damaged DICOM file; copy it again or remove it"
    try:
        with quiet_pydicom(), file.open("rb") as stream:
            check_deflated(file, stream)
            dataset = read_dataset(stream, _TAGS, stop_before_pixels=True)
            syntax = dataset.file_meta.get("TransferSyntaxUID")
            ended = stream.tell() >= file.stat().st_size and not (syntax and syntax.is_deflated)
            has_image = bool(dataset.get("Rows") and dataset.get("Columns"))
            slices = _slices(file, dataset) if has_image and not ended else []
            # A wrong length in the header makes pydicom skip to the end: an image must not be passed over for that.
            passed_over = not slices and (has_image or not _is_other_object(dataset))
    except InputError as error:
        raise error if str(file) in str(error) else InputError(damaged) from error
    except Exception as error:  # pydicom lets through whatever a damaged header provokes
        raise InputError(damaged) from error
    if passed_over:
        raise InputError(damaged)
    yield from slices


def _is_other_object(dataset: pydicom.Dataset) -> bool:
    """Whether the file says that it is no image, but a report, a directory, something of the vendor's."""
    import pydicom

    kind = pydicom.uid.UID(str(dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID") or ""))
    return bool(kind) and (kind.is_private or (kind.name != kind and "Image Storage" not in kind.name))


def _slices(file: Path, dataset: pydicom.Dataset) -> list[DicomSlice]:
    frames = _frame_groups(dataset)
    if len(frames) > 1 and not len(frames) == int(dataset.get("NumberOfFrames") or 1) <= MOST_FRAMES:
        raise ValueError(f"{len(frames)} frames are described")
    return [_slice(file, dataset, frame, len(frames), groups) for frame, groups in enumerate(frames)]


def _frame_groups(dataset: pydicom.Dataset) -> list[list[Any]]:
    """Datasets that describe every frame, nearest first: its own groups, the shared ones, the file's."""
    shared = [item for group in dataset.get("SharedFunctionalGroupsSequence") or [] for item in _items(group)]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    return [[*_items(frame), *shared, dataset] for frame in frames] or [[dataset]]


def _items(group: Any) -> list[Any]:
    return [element.value[0] for element in group if element.VR == "SQ" and element.value]


def _text(value: Any) -> str:
    return printable(str(value))[:LONGEST_TEXT].strip()


def _slice(file: Path, dataset: pydicom.Dataset, frame: int, frames: int, groups: list[Any]) -> DicomSlice:
    def find(name: str) -> Any:
        values = (group.get(name) for group in groups)
        return next((value for value in values if value not in (None, "")), None)

    def numbers(name: str, count: int) -> tuple[float, ...]:
        try:
            value = find(name)
            found = () if value is None else tuple(float(v) for v in (value if count > 1 else [value]))
        except (ValueError, TypeError, ArithmeticError) as error:
            raise InputError(f"{file} is damaged: its {name} is no number; copy it again, or export it anew") from error
        # One NaN object for all, so that tuples of them are equal.
        return found if len(found) == count else (math.nan,) * count

    def text(name: str) -> str:
        return _lenient_text(dataset, name)

    def frame_text(name: str) -> str:
        return next((found for group in groups if (found := _lenient_text(group, name))), "")

    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    stored = syntax and not (syntax.is_compressed or syntax.is_deflated)
    image_type = tuple(text("ImageType").split("\\"))
    rescale = numbers("RescaleSlope", 1) + numbers("RescaleIntercept", 1)
    has_table = MODALITY_TABLE in dataset and not math.isfinite(rescale[0])
    parts = {name: frame_text(name) for name in PART_ATTRIBUTES}
    parts["AcquisitionNumber"] = frame_text("FrameAcquisitionNumber") or parts["AcquisitionNumber"]
    return DicomSlice(
        path=file,
        frame=frame,
        patient_id=text("PatientID"),
        study_uid=text("StudyInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        sop_uid=text("SOPInstanceUID"),
        series_number=_lenient_number(text("SeriesNumber"), 0),
        description=text("SeriesDescription"),
        region=" ".join(text(name) for name in ("BodyPartExamined", "SeriesDescription", "ProtocolName")),
        modality=text("Modality"),
        image_type=image_type,
        calculation=f"{frame_text('VolumetricProperties')} {frame_text('VolumeBasedCalculationTechnique')}".strip(),
        transfer_syntax=str(syntax),
        scan=(*(frame_text(name) for name in SCAN_ATTRIBUTES), *image_type),
        parts=tuple(parts.values()),
        date=next((found[:8] for name in DATE_ATTRIBUTES if re.match(r"\d{8}", found := frame_text(name))), ""),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=frames,
        frames_stored=int(dataset.get("NumberOfFrames") or 1),
        native_bytes=frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("BitsAllocated") or 8) // 8
        if stored
        else 0,
        photometric=text("PhotometricInterpretation"),
        rescale=rescale,
        unit=MODALITY_TABLE if has_table else frame_text("RescaleType"),
        thickness_mm=_lenient_number(parts["SliceThickness"], math.nan),
        position_lps_mm=numbers("ImagePositionPatient", 3),
        cosines_lps=numbers("ImageOrientationPatient", 6),
        spacing_ji_mm=numbers("PixelSpacing", 2),
    )


def _lenient_text(dataset: Any, name: str) -> str:
    """The attribute as text, also where it is not written as DICOM wants it; values are parted by a backslash."""
    try:
        value = dataset.get(name)
    except Exception:  # of a number that is none, pydicom raises what its kind provokes
        value = dataset.get_item(name).value
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip("\0 ")
    if isinstance(value, list) or hasattr(value, "insert"):
        value = "\\".join(str(part) for part in value)
    return _text("" if value is None else value)


def _lenient_number(text: str, otherwise: float) -> float:
    """Value of an attribute that the work does not need."""
    try:
        number = float(text)
    except ValueError:
        return otherwise
    return number if math.isfinite(number) else otherwise
