"""What the headers of a DICOM file say about its slices: one in a usual CT file, many in an enhanced multi-frame file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import pydicom

_TAGS = [
    *("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType", "AcquisitionNumber"),
    *("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True)
class DicomSlice:
    """What the headers say about one slice: a file, or one frame of a multi-frame file; NaN for numbers they lack."""

    path: Path
    frame: int
    sop_uid: str
    series_uid: str
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


def read_headers(file: Path) -> Iterator[DicomSlice]:
    """The slices of a DICOM file; none when it is not DICOM or holds no image.

    Raises :class:`InputError` when it is damaged or cannot be opened.
    """
    import pydicom

    if not is_dicom(file):
        return
    try:
        # pydicom warns on stderr about values that break the standard; what matters of them is checked here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
            slices = _slices(file, dataset) if dataset.get("Rows") and dataset.get("Columns") else []
    except Exception as error:  # pydicom lets through whatever a damaged header provokes
        raise InputError(f"{file} is a damaged DICOM file; copy it again or remove it") from error
    yield from slices


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
    return [_slice(file, dataset, frame, len(frames), groups) for frame, groups in enumerate(frames)]


def _frame_groups(dataset: pydicom.Dataset) -> list[list[Any]]:
    """For every frame the datasets that describe it, nearest first: its own groups, the shared ones, the file's."""
    shared = [item for group in dataset.get("SharedFunctionalGroupsSequence") or [] for item in _items(group)]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    return [[*_items(frame), *shared, dataset] for frame in frames] or [[dataset]]


def _items(group: Any) -> list[Any]:
    return [element.value[0] for element in group if element.VR == "SQ" and element.value]


def _slice(file: Path, dataset: pydicom.Dataset, frame: int, frames: int, groups: list[Any]) -> DicomSlice:
    def find(*names: str) -> Any:
        values = (group.get(name) for name in names for group in groups)
        return next((value for value in values if value not in (None, "")), None)

    def numbers(name: str, count: int) -> tuple[float, ...]:
        value = find(name)
        found = () if value is None else tuple(float(v) for v in (value if count > 1 else [value]))
        # One NaN object for all, so that tuples of them are equal.
        return found if len(found) == count else (math.nan,) * count

    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    stored = syntax and not (syntax.is_compressed or syntax.is_deflated)
    image_type = dataset.get("ImageType") or ()
    acquisition = find("FrameAcquisitionNumber", "AcquisitionNumber")
    return DicomSlice(
        path=file,
        frame=frame,
        sop_uid=str(dataset.get("SOPInstanceUID", "")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        series_number=int(dataset.get("SeriesNumber") or 0),
        description=str(dataset.get("SeriesDescription") or "").strip(),
        modality=str(dataset.get("Modality") or ""),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(image_type),
        transfer_syntax=str(syntax),
        acquisition="" if acquisition is None else str(acquisition),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=frames,
        native_bytes=frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("BitsAllocated") or 8) // 8
        if stored
        else 0,
        photometric=str(dataset.get("PhotometricInterpretation") or ""),
        rescale=numbers("RescaleSlope", 1) + numbers("RescaleIntercept", 1),
        thickness_mm=numbers("SliceThickness", 1)[0],
        position_lps_mm=numbers("ImagePositionPatient", 3),
        cosines_lps=numbers("ImageOrientationPatient", 6),
        spacing_ji_mm=numbers("PixelSpacing", 2),
    )
