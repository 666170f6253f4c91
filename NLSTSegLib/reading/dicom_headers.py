"""What DICOM headers say about slices (one in a usual CT file, many in an enhanced multi-frame file) and their series."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from NLSTSegLib.disk.deflate import RAW_DEFLATE, inflated_bytes
from NLSTSegLib.errors import InputError, printable

if TYPE_CHECKING:
    import pydicom

_TAGS = [
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"),
    *("SeriesNumber", "SeriesDescription", "Modality", "ImageType"),
    *(
        "AcquisitionNumber",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "PhotometricInterpretation",
        "RescaleSlope",
        "RescaleIntercept",
        "SliceThickness",
    ),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of files that are compressed from the header on."""

LARGEST_INFLATED_BYTES = 1 << 30
"""A deflated file that holds more is taken for damaged."""

LONGEST_TEXT = 128
"""Of a text in a header; DICOM allows 64 characters."""

MOST_FRAMES = 20_000
"""Of a file; more, or another number than the file itself says, is damage. A long chest has 3000 slices."""

LONGEST_META_BYTES = 4096
"""The transfer syntax is told within these."""


@dataclass(frozen=True)
class DicomSlice:
    """What the headers say about one slice: a file, or one frame of a multi-frame file; NaN for numbers they lack."""

    path: Path
    frame: int
    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    series_number: int
    description: str
    modality: str
    image_type: tuple[str, ...]
    transfer_syntax: str
    acquisition: str
    """AcquisitionNumber, as text; empty where there is none."""
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
    thickness_mm: float
    position_lps_mm: tuple[float, ...]
    """Centre of the first voxel."""
    cosines_lps: tuple[float, ...]
    """Directions of i (along a row) and of j (down a column), three numbers each."""
    spacing_ji_mm: tuple[float, ...]
    """Between rows, then between columns: DICOM's PixelSpacing."""

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


@dataclass(frozen=True)
class DicomSeries:
    """The slices of one SeriesInstanceUID (or of one acquisition in it), sorted along the slice normal."""

    slices: tuple[DicomSlice, ...]
    acquisition: str = ""
    """AcquisitionNumber, where the series held several whole acquisitions and was split."""

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.slices[0].series_uid

    @property
    def key(self) -> str:
        """What :func:`choose_chest_series` takes to choose exactly this one: the UID, with ``/acquisition`` after a split."""
        return f"{self.uid}/{self.acquisition}" if self.acquisition else self.uid

    @property
    def description(self) -> str:
        return self.slices[0].description

    @property
    def modality(self) -> str:
        return self.slices[0].modality

    @property
    def image_type(self) -> tuple[str, ...]:
        return self.slices[0].image_type

    @property
    def transfer_syntax(self) -> str:
        """UID of the encoding of the voxels."""
        return self.slices[0].transfer_syntax

    @property
    def is_localizer(self) -> bool:
        """Whether this is the projection image on which the scan was planned."""
        return "LOCALIZER" in self.image_type

    @property
    def is_placed(self) -> bool:
        return all(s.is_placed for s in self.slices)

    @cached_property
    def offsets_mm(self) -> np.ndarray:
        """Position of every slice along the normal, ascending; empty when slices lack a position."""
        if not self.is_placed:
            return np.empty(0)
        return np.array([s.position_lps_mm for s in self.slices]) @ self.slices[0].normal_lps

    @property
    def coverage_mm(self) -> float:
        """From the first to the last slice's centre."""
        return float(np.ptp(self.offsets_mm)) if self.is_placed else 0.0

    @property
    def spacing_ijk_mm(self) -> tuple[float, float, float]:
        """Between columns, between rows, mean between slices (the thickness when there is one slice); NaN if not known."""
        first = self.slices[0]
        step = self.coverage_mm / (len(self.slices) - 1) if len(self.slices) > 1 else first.thickness_mm
        return first.spacing_ji_mm[1], first.spacing_ji_mm[0], step

    @property
    def is_axial(self) -> bool:
        """Whether the slice normal is nearer to the patient's long axis than to any other."""
        return self.is_placed and int(np.abs(self.slices[0].normal_lps).argmax()) == 2

    def __str__(self) -> str:
        """One line for a list: modality, description, slices, coverage, key."""
        kind = f"{self.modality or 'unknown'}{' localizer' if self.is_localizer else ''}"
        name = f" '{self.description}'" if self.description else ""
        return f"{kind}{name} ({len(self.slices)} slices, {self.coverage_mm:.0f} mm, {self.key})"


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """No warnings of pydicom about values that break the standard, on stderr or in the log of a hosting program.

    They show the value, which may say whose CT it is; what matters of them is checked here.
    """
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def read_headers(file: Path) -> Iterator[DicomSlice]:
    """The slices of a DICOM file; none when it is not DICOM or holds no image.

    Raises :class:`InputError` when it is damaged or cannot be opened.
    """
    import pydicom

    if not is_dicom(file):
        return
    damaged = f"{file} is a damaged DICOM file; copy it again or remove it"
    try:
        with quiet_pydicom(), file.open("rb") as stream:
            _check_deflated(file, stream)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
            syntax = dataset.file_meta.get("TransferSyntaxUID")
            ended = stream.tell() >= file.stat().st_size and not (syntax and syntax.is_deflated)
            has_image = bool(dataset.get("Rows") and dataset.get("Columns"))
            slices = _slices(file, dataset) if has_image and not ended else []
            # A wrong length in the header makes pydicom skip to the end: an image must not be passed over for that.
            passed_over = not slices and (has_image or not _is_other_object(dataset))
    except Exception as error:  # pydicom lets through whatever a damaged header provokes
        raise InputError(damaged) from error
    if passed_over:
        raise InputError(damaged)
    yield from slices


def _check_deflated(file: Path, stream: BinaryIO) -> None:
    """Raise :class:`ValueError` where a deflated file would fill the memory: pydicom unpacks it as a whole."""
    start = stream.read(LONGEST_META_BYTES)
    stream.seek(0)
    if DEFLATED.encode() in start:
        (meta_bytes,) = struct.unpack_from("<I", start, 140)
        if inflated_bytes(file, 144 + meta_bytes, LARGEST_INFLATED_BYTES, wbits=RAW_DEFLATE) > LARGEST_INFLATED_BYTES:
            raise ValueError("the deflated file is too large")


def _is_other_object(dataset: pydicom.Dataset) -> bool:
    """Whether the file says that it is no image, but a report, a directory, something of the vendor's."""
    import pydicom

    kind = pydicom.uid.UID(str(dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID") or ""))
    return bool(kind) and (kind.is_private or (kind.name != kind and "Image Storage" not in kind.name))


def is_dicom(file: Path) -> bool:
    """Whether ``file`` starts like DICOM: ``DICM`` after 128 bytes. Raises :class:`InputError` when it cannot be opened."""
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as error:
        raise InputError(f"{file} cannot be opened ({error.strerror})") from error


def _slices(file: Path, dataset: pydicom.Dataset) -> list[DicomSlice]:
    frames = _frame_groups(dataset)
    if len(frames) > 1 and not len(frames) == int(dataset.get("NumberOfFrames") or 1) <= MOST_FRAMES:
        raise ValueError(f"{len(frames)} frames are described")
    return [_slice(file, dataset, frame, len(frames), groups) for frame, groups in enumerate(frames)]


def _frame_groups(dataset: pydicom.Dataset) -> list[list[Any]]:
    """For every frame the datasets that describe it, nearest first: its own groups, the shared ones, the file's."""
    shared = [item for group in dataset.get("SharedFunctionalGroupsSequence") or [] for item in _items(group)]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    return [[*_items(frame), *shared, dataset] for frame in frames] or [[dataset]]


def _items(group: Any) -> list[Any]:
    return [element.value[0] for element in group if element.VR == "SQ" and element.value]


def _text(value: Any) -> str:
    return printable(str(value))[:LONGEST_TEXT].strip()


def _slice(file: Path, dataset: pydicom.Dataset, frame: int, frames: int, groups: list[Any]) -> DicomSlice:
    def find(*names: str) -> Any:
        values = (group.get(name) for name in names for group in groups)
        return next((value for value in values if value not in (None, "")), None)

    def numbers(name: str, count: int) -> tuple[float, ...]:
        value = find(name)
        found = () if value is None else tuple(float(v) for v in (value if count > 1 else [value]))
        # One NaN object for all, so that tuples of them are equal.
        return found if len(found) == count else (math.nan,) * count

    def text(name: str) -> str:
        return _text(dataset.get(name) or "")

    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    stored = syntax and not (syntax.is_compressed or syntax.is_deflated)
    image_type = dataset.get("ImageType") or ()
    acquisition = find("FrameAcquisitionNumber", "AcquisitionNumber")
    return DicomSlice(
        path=file,
        frame=frame,
        patient_id=text("PatientID"),
        study_uid=text("StudyInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        sop_uid=text("SOPInstanceUID"),
        series_number=int(dataset.get("SeriesNumber") or 0),
        description=text("SeriesDescription"),
        modality=text("Modality"),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(image_type),
        transfer_syntax=str(syntax),
        acquisition="" if acquisition is None else _text(acquisition),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=frames,
        frames_stored=int(dataset.get("NumberOfFrames") or 1),
        native_bytes=frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("BitsAllocated") or 8) // 8
        if stored
        else 0,
        photometric=text("PhotometricInterpretation"),
        rescale=numbers("RescaleSlope", 1) + numbers("RescaleIntercept", 1),
        thickness_mm=numbers("SliceThickness", 1)[0],
        position_lps_mm=numbers("ImagePositionPatient", 3),
        cosines_lps=numbers("ImageOrientationPatient", 6),
        spacing_ji_mm=numbers("PixelSpacing", 2),
    )
