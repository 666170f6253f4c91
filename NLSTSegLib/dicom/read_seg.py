"""A SEG, ours or anyone's, as a label map on the voxels of its CT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.errors import InputError, printable
from NLSTSegLib.reading.dicom_file import check_deflated, is_dicom, read_dataset
from NLSTSegLib.reading.dicom_series import DicomSeries

if TYPE_CHECKING:
    from pydicom import Dataset

SEG_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.4": "SEG", "1.2.840.10008.5.1.4.1.1.66.7": "LABELMAP SEG"}

NEAR_SHARE = 0.1
"""A plane lies on a slice when it is nearer than this share of the slice distance, and of a pixel in the plane."""

SAME_COSINES = 1e-3

MOST_SEGMENTS = 65535


@dataclass(frozen=True)
class ReadSegment:
    """One segment of a SEG; its label is its place in :attr:`ReadSeg.segments`, from 1."""

    number: int
    """SegmentNumber in the file, which may have gaps."""
    name: str
    algorithm_type: str
    algorithm: str
    """Name and version, as far as the SEG tells."""
    parameters: str
    tracking_uid: str
    description: str
    terminology: str
    """Category, type and region as Slicer writes them in a segment's tag; empty where the SEG has no codes."""


@dataclass(frozen=True, eq=False)
class ReadSeg:
    """What a SEG says of a CT."""

    labels: np.ndarray
    """uint16 ``[k, j, i]`` on the voxels of the CT; a voxel of several segments belongs to the first."""
    segments: tuple[ReadSegment, ...]
    notes: tuple[str, ...]
    """What does not stand there as it does in the file; no word on whose it is."""


@dataclass(frozen=True)
class _Plane:
    """Where a frame of the SEG lies."""

    segment: int | None
    """SegmentNumber; ``None`` in a LABELMAP, whose voxels hold it."""
    position_lps_mm: np.ndarray
    axes_lps: np.ndarray
    """``[2, 3]``: directions of i and j."""
    spacing_ij_mm: np.ndarray
    sources: tuple[tuple[str, int | None], ...]
    """SOPInstanceUID and frame, from 0, of the images it was made of."""

    @property
    def normal_lps(self) -> np.ndarray:
        return np.cross(self.axes_lps[0], self.axes_lps[1])


def read_seg(file: Path, series: DicomSeries) -> ReadSeg:
    """The segments of the SEG in ``file`` on the voxels of ``series``.

    Every frame is put on the slice it was made of, else on the slice at its place; where the SEG has another grid it is
    resampled by the nearest voxel, which a note says. A FRACTIONAL one counts from half of its maximum. Raises
    :class:`InputError` with the reason when the file is no SEG, is damaged, or is not of this CT.
    """
    if not file.exists():
        raise InputError(f"there is no file {file}")
    if not is_dicom(file):
        raise InputError(f"{file} is not DICOM; give a DICOM SEG")
    with quiet_dicom():
        try:
            with file.open("rb") as stream:
                check_deflated(file, stream)
                seg = read_dataset(stream, None)
        except Exception as error:  # as in reading.dicom_headers: pydicom lets through whatever a damaged file provokes
            raise InputError(f"{file} is a damaged DICOM file; copy it again") from error
        if str(seg.get("SOPClassUID")) not in SEG_CLASSES:
            kind = printable(str(seg.get("Modality") or "unknown"))
            raise InputError(f"{file} is not a DICOM SEG but of modality '{kind}'; give a segmentation")
        try:
            _check_same_ct(seg, series, file)
            return _read(seg, series)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{file} is a SEG that breaks the standard ({type(error).__name__}: {error})") from error


def _check_same_ct(seg: Dataset, series: DicomSeries, file: Path) -> None:
    """Raise :class:`InputError` when the SEG says that it is of something else."""
    series_uids = {str(item.SeriesInstanceUID) for item in seg.get("ReferencedSeriesSequence") or []}
    if series.uid in series_uids:
        return
    with series.slices[0].path.open("rb") as stream:
        first = read_dataset(stream, ["FrameOfReferenceUID"], stop_before_pixels=True)
    own, other = str(first.get("FrameOfReferenceUID") or ""), str(seg.get("FrameOfReferenceUID") or "")
    if own and other and own != other:
        raise InputError(f"{file} is of another CT: neither its series nor its frame of reference is that of this one")
    if str(seg.get("StudyInstanceUID") or "") != series.slices[0].study_uid:
        raise InputError(f"{file} is of another study and not of this CT")


def _read(seg: Dataset, series: DicomSeries) -> ReadSeg:
    segments = [item for item in seg.SegmentSequence if int(item.get("SegmentNumber", 0)) > 0]
    if not segments:
        raise ValueError("it has no segments")
    numbers = [int(item.SegmentNumber) for item in segments]
    if len(set(numbers)) < len(numbers) or len(numbers) > MOST_SEGMENTS:
        raise ValueError("its segment numbers are not unique")
    label_of = {number: label for label, number in enumerate(numbers, start=1)}
    planes = _planes(seg)
    if any(plane.segment is not None and plane.segment not in label_of for plane in planes):
        raise ValueError("a frame is of a segment that is not described")
    notes = []
    places = [_slice_of(plane, seg, series) for plane in planes]
    if all(place is not None for place in places):
        labels, overlap = _on_slices(seg, planes, [place for place in places if place is not None], label_of, series)
    else:
        labels, overlap = _resampled(seg, planes, label_of, series)
        notes.append("the SEG has another grid than the CT; it was resampled by the nearest voxel")
    if overlap:
        notes.append(f"{overlap} voxels belong to several segments; they were given to the first of them")
    if seg.get("SegmentationType") == "FRACTIONAL":
        notes.append("the SEG is FRACTIONAL; what has half of the maximum or more counts")
    there = set(np.unique(labels).tolist())
    if empty := [number for number, label in label_of.items() if label not in there]:
        notes.append(f"no voxel of the CT is of segment {', '.join(map(str, empty))}")
    return ReadSeg(labels, tuple(_segment(item) for item in segments), tuple(notes))


def _segment(item: Dataset) -> ReadSegment:
    def text(keyword: str) -> str:
        return printable(str(item.get(keyword) or "")).strip()

    number = int(item.SegmentNumber)
    algorithm = (item.get("SegmentationAlgorithmIdentificationSequence") or [{}])[0]
    version, parameters = (printable(str(algorithm.get(name) or "")) for name in ("AlgorithmVersion", "AlgorithmParameters"))
    return ReadSegment(
        number=number,
        name=text("SegmentLabel") or f"Segment {number}",
        algorithm_type=text("SegmentAlgorithmType"),
        algorithm=f"{text('SegmentAlgorithmName')} {version}".strip(),
        parameters=parameters,
        tracking_uid=text("TrackingUID"),
        description=text("SegmentDescription"),
        terminology=_terminology(item),
    )


def _terminology(item: Dataset) -> str:
    def code(names: str, source: Any) -> tuple[str, Any]:
        found = (source.get(names) or [{}])[0]
        parts = [str(found.get(name) or "") for name in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")]
        return "^".join(re.sub(r"[~^|:]", " ", printable(part)) for part in parts), found

    category, _ = code("SegmentedPropertyCategoryCodeSequence", item)
    kind, kinds = code("SegmentedPropertyTypeCodeSequence", item)
    modifier, _ = code("SegmentedPropertyTypeModifierCodeSequence", kinds)
    region, regions = code("AnatomicRegionSequence", item)
    side, _ = code("AnatomicRegionModifierSequence", regions)
    if "^^" in (category, kind):
        return ""
    segmentation, anatomy = "Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list"
    return "~".join((segmentation, category, kind, modifier, anatomy, region, side))


def _planes(seg: Dataset) -> list[_Plane]:
    shared = (seg.get("SharedFunctionalGroupsSequence") or [{}])[0]
    frames = seg.PerFrameFunctionalGroupsSequence
    if len(frames) != int(seg.NumberOfFrames):
        raise ValueError(f"it describes {len(frames)} of {seg.NumberOfFrames} frames")

    def group(frame: Dataset, name: str) -> Any:
        return (frame.get(name) or shared.get(name))[0]

    planes = []
    for frame in frames:
        segment = None
        if seg.get("SegmentationType") != "LABELMAP":
            segment = int(group(frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        spacing_ji_mm = [float(value) for value in group(frame, "PixelMeasuresSequence").PixelSpacing]
        sources = [
            (str(image.get("ReferencedSOPInstanceUID")), one - 1 if one else None)
            for derivation in frame.get("DerivationImageSequence") or []
            for image in derivation.get("SourceImageSequence") or []
            for one in _frame_numbers(image)
        ]
        planes.append(
            _Plane(
                segment,
                np.array(group(frame, "PlanePositionSequence").ImagePositionPatient, float),
                np.array(group(frame, "PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3),
                np.array(spacing_ji_mm[::-1]),
                tuple(sources),
            )
        )
    return planes


def _frame_numbers(image: Dataset) -> list[int]:
    """Numbers, from 1, of the frames that are referenced; 0 for the image as a whole."""
    value = image.get("ReferencedFrameNumber")
    if value is None:
        return [0]
    return [int(one) for one in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])]


def _slice_of(plane: _Plane, seg: Dataset, series: DicomSeries) -> int | None:
    """The slice whose pixels are those of the plane: the one it was made of, else the one at its place."""
    first = series.slices[0]
    if (int(seg.Rows), int(seg.Columns)) != (first.rows, first.columns):
        return None
    if np.abs(plane.axes_lps.ravel() - first.cosines_lps).max() > SAME_COSINES:
        return None
    if not np.allclose(plane.spacing_ij_mm, first.spacing_ji_mm[::-1], rtol=1e-3):
        return None
    places = np.array([one.position_lps_mm for one in series.slices]) - plane.position_lps_mm
    aside = np.abs(places @ plane.axes_lps.T) / plane.spacing_ij_mm
    off = np.abs(places @ plane.normal_lps) / max(series.spacing_ijk_mm[2], 1e-6)
    near = np.flatnonzero((off < NEAR_SHARE) & (aside < NEAR_SHARE).all(axis=1))
    of_sources = [
        k
        for k, one in enumerate(series.slices)
        if (one.sop_uid, one.frame) in plane.sources or (one.frames == 1 and (one.sop_uid, None) in plane.sources)
    ]
    if len(of_sources) == 1 and off[of_sources[0]] < 0.5:
        return of_sources[0]
    return int(near[0]) if len(near) == 1 else None


def _masks(seg: Dataset, planes: Sequence[_Plane], label_of: dict[int, int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Number of the plane, label, and mask ``[j, i]``, frame by frame and segment by segment."""
    from pydicom.pixels import iter_pixels

    half = int(seg.get("MaximumFractionalValue") or 255) / 2 if seg.get("SegmentationType") == "FRACTIONAL" else 0.5
    for n, pixels in enumerate(iter_pixels(seg)):
        segment = planes[n].segment
        if segment is not None:
            yield n, label_of[segment], pixels >= half
            continue
        for number in np.unique(pixels).tolist():
            if number in label_of:
                yield n, label_of[number], pixels == number
            elif number:
                raise ValueError(f"it holds the number {number}, of which no segment is described")


def _add(labels: np.ndarray, mask: np.ndarray, label: int) -> int:
    """Mark ``mask`` in ``labels``; how many of its voxels another label has or had. The lower label stays."""
    taken = mask & (labels > 0) & (labels != label)
    labels[mask & ((labels == 0) | (labels > label))] = label
    return int(np.count_nonzero(taken))


def _on_slices(
    seg: Dataset, planes: Sequence[_Plane], places: Sequence[int], label_of: dict[int, int], series: DicomSeries
) -> tuple[np.ndarray, int]:
    first = series.slices[0]
    labels = np.zeros((len(series.slices), first.rows, first.columns), np.uint16)
    overlap = sum(_add(labels[places[n]], mask, label) for n, label, mask in _masks(seg, planes, label_of))
    return labels, overlap


def _resampled(seg: Dataset, planes: Sequence[_Plane], label_of: dict[int, int], series: DicomSeries) -> tuple[np.ndarray, int]:
    """The labels at the CT's voxels by the nearest voxel of the SEG, at most half its slice distance away."""
    reference = planes[0]
    if any(np.abs(plane.axes_lps - reference.axes_lps).max() > SAME_COSINES for plane in planes):
        raise ValueError("its frames are not parallel")
    normal = reference.normal_lps
    heights_mm = np.round([plane.position_lps_mm @ normal for plane in planes], 3)
    layers_mm, layer_of = np.unique(heights_mm, return_inverse=True)
    stack = np.zeros((len(layers_mm), int(seg.Rows), int(seg.Columns)), np.uint16)
    overlap = sum(_add(stack[layer_of[n]], mask, label) for n, label, mask in _masks(seg, planes, label_of))
    origin_of = {int(layer): planes[n].position_lps_mm for n, layer in enumerate(layer_of)}
    reach_mm = _slice_distance_mm(seg, layers_mm) / 2 * (1 + 1e-6)

    first = series.slices[0]
    steps = np.reshape(first.cosines_lps, (2, 3)) * np.array(first.spacing_ji_mm[::-1])[:, None]
    j, i = np.indices((first.rows, first.columns))
    in_plane_mm = i[..., None] * steps[0] + j[..., None] * steps[1]
    labels = np.zeros((len(series.slices), first.rows, first.columns), np.uint16)
    for k, one in enumerate(series.slices):
        places_mm = in_plane_mm + one.position_lps_mm
        at_mm = places_mm @ normal
        above = (
            np.clip(np.searchsorted(layers_mm, at_mm), 1, max(1, len(layers_mm) - 1)) if len(layers_mm) > 1 else np.zeros_like(j)
        )
        below = np.maximum(above - 1, 0)
        nearer = np.where(np.abs(layers_mm[below] - at_mm) <= np.abs(layers_mm[above] - at_mm), below, above)
        for layer in np.unique(nearer[np.abs(layers_mm[nearer] - at_mm) <= reach_mm]).tolist():
            chosen = (nearer == layer) & (np.abs(layers_mm[layer] - at_mm) <= reach_mm)
            index = np.rint((places_mm[chosen] - origin_of[layer]) @ reference.axes_lps.T / reference.spacing_ij_mm).astype(int)
            inside = ((index >= 0) & (index < stack.shape[:0:-1])).all(axis=1)
            values = np.zeros(len(index), np.uint16)
            values[inside] = stack[layer, index[inside, 1], index[inside, 0]]
            labels[k][chosen] = values
    return labels, overlap


def _slice_distance_mm(seg: Dataset, layers_mm: np.ndarray) -> float:
    measures = ((seg.get("SharedFunctionalGroupsSequence") or [{}])[0].get("PixelMeasuresSequence") or [{}])[0]
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if measures.get(keyword):
            return abs(float(measures.get(keyword)))
    if len(layers_mm) < 2:
        raise ValueError("it has one plane and no slice distance")
    return float(np.median(np.diff(layers_mm)))
