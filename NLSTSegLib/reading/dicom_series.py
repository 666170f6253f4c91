"""DICOM series: found by their headers, sorted by position, read in HU with the geometry the headers give."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_headers import DicomSeries, DicomSlice, read_headers
from NLSTSegLib.reading.dicom_pixels import read_stored
from NLSTSegLib.volume.ct import Acquisition, CtVolume

LARGEST_VOLUME_BYTES = 4 << 30
"""More than this is taken for a damaged header; 3000 slices of 512x512 need 1.5 GiB."""

LARGEST_SIDE = 4096
"""Rows or columns of a slice; more is taken for a damaged header. CT has 512 to 2048."""

LARGEST_RESCALE = 1e6
"""A larger slope or intercept is taken for a damaged header."""

SAME_POSITION_MM = 0.01
"""Slices nearer than this along the normal lie at the same position."""

SAME_GEOMETRY = 1e-3
"""Largest difference of direction cosines and pixel spacings (mm) within one series."""


def list_series(
    folder: Path | str, *, recursive: bool = True, progress: Callable[[float], None] | None = None
) -> list[DicomSeries]:
    """All image series below ``folder``, by series number; only headers are read.

    Files are recognised by their content, not their name; what is not DICOM, or holds no image, is passed over. A file
    that is there twice counts once. ``progress(fraction)`` is called before every file and may raise to stop. Raises
    :class:`InputError` when there is no such folder, it holds no DICOM image, or a DICOM file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    files = sorted(Path(root, name) for root, _, names in os.walk(folder) for name in names if recursive or Path(root) == folder)
    unique: dict[tuple, DicomSlice] = {}
    for n, file in enumerate(files):
        if progress:
            progress(n / len(files))
        for one in read_headers(file):
            # Some anonymisers give all files one SOPInstanceUID, so the position takes part.
            unique.setdefault((one.sop_uid or file, one.series_uid, one.frame, one.position_lps_mm), one)
    if not unique:
        raise InputError(
            f"no DICOM images were found in {folder}; give the folder of the series, unpacked if it is in an archive"
        )
    groups: dict[tuple[str, bool], list[DicomSlice]] = {}
    for one in unique.values():
        groups.setdefault((one.series_uid, "LOCALIZER" in one.image_type), []).append(one)
    series = [part for slices in groups.values() for part in _split_acquisitions(_sorted(slices))]
    return sorted(series, key=lambda s: (s.slices[0].series_number, s.key))


def choose_chest_series(series: Sequence[DicomSeries], uid: str | None = None) -> DicomSeries:
    """The series to segment: the one called ``uid`` (a SeriesInstanceUID or a :attr:`DicomSeries.key`), or the best CT.

    Best: not a localizer; axial before reformatted; covering at least 90 % of what the longest covers; original before
    derived; most slices; lowest series number. Raises :class:`InputError`, naming what is there, when nothing fits.
    """
    there = "; ".join(str(s) for s in series[:8]) + (f"; and {len(series) - 8} more" if len(series) > 8 else "")
    if uid is not None:
        candidates = [s for s in series if uid in (s.uid, s.key)]
        if not candidates:
            raise InputError(f"there is no series {uid}, only: {there}")
    else:
        candidates = [s for s in series if s.modality == "CT" and not s.is_localizer]
        if not candidates:
            where = os.path.commonpath([s.slices[0].path.parent for s in series])
            raise InputError(f"none of the DICOM series in {where} is a CT volume, only: {there}")
    longest = {axial: max((s.coverage_mm for s in candidates if s.is_axial == axial), default=0.0) for axial in (True, False)}
    return max(
        candidates,
        key=lambda s: (
            not s.is_localizer,
            s.is_axial,
            s.coverage_mm >= 0.9 * longest[s.is_axial],
            "ORIGINAL" in s.image_type,
            len(s.slices),
            -s.slices[0].series_number,
        ),
    )


def series_of_file(file: Path | str) -> DicomSeries:
    """The series that ``file`` belongs to, from the DICOM files in the same folder.

    Raises :class:`InputError` when ``file`` holds no DICOM image.
    """
    file = Path(file)
    own = next(read_headers(file), None)
    if own is None:
        raise InputError(f"{file} holds no DICOM image")
    for series in list_series(file.parent, recursive=False):
        if any((s.sop_uid, s.position_lps_mm) == (own.sop_uid, own.position_lps_mm) for s in series.slices):
            return series
    raise InputError(f"{file} changed while it was read")


def read_series(series: DicomSeries, *, progress: Callable[[float], None] | None = None) -> CtVolume:
    """The voxels of ``series`` in HU with k along the slice normal, every slice by the rescale of its own header.

    int16, or float32 where the rescale is not whole. ``progress(fraction)`` is called before every file and may raise to
    stop. The grid has k along the slice normal and the mean slice distance; where the slices really lie (gantry tilt,
    uneven distances) is recorded in the acquisition. Raises :class:`InputError` for what could not be placed or scaled
    rightly.
    """
    first = series.slices[0]
    _check_placed(series)
    _check_rescale(series)
    rescale = [value for s in series.slices for value in s.rescale if math.isfinite(value)]
    whole = all(value.is_integer() for value in rescale)
    hu = np.empty((len(series.slices), first.rows, first.columns), np.int16 if whole else np.float32)
    files: dict[Path, list[tuple[int, DicomSlice]]] = {}
    for k, one in enumerate(series.slices):
        files.setdefault(one.path, []).append((k, one))
    for n, slices in enumerate(files.values()):
        if progress:
            progress(n / len(files))
        stored = read_stored(slices[0][1])
        for k, one in slices:
            slope, intercept = one.rescale if rescale else (1.0, 0.0)
            values = stored[one.frame] * slope + intercept
            hu[k] = np.clip(values, -32768, 32767) if whole else values
    if progress:
        progress(1.0)
    x, y, z = first.position_lps_mm
    i, j = np.asarray(first.cosines_lps).reshape(2, 3)
    return CtVolume(
        hu,
        series.spacing_ijk_mm,
        (x, y, z),
        tuple(np.stack([i, j, first.normal_lps], axis=1).ravel().tolist()),
        Acquisition(
            format="DICOM",
            modality=series.modality,
            patient_id=series.slices[0].patient_id,
            study_uid=series.slices[0].study_uid,
            series_uid=series.uid,
            series_description=series.description,
            slice_origins_lps_mm=tuple((x, y, z) for x, y, z in (s.position_lps_mm for s in series.slices)),
            rescale_missing=not rescale,
        ),
    )


def _sorted(slices: list[DicomSlice]) -> tuple[DicomSlice, ...]:
    """Along the normal; by file and frame where slices are not placed."""
    normal = slices[0].normal_lps if all(s.is_placed for s in slices) else np.zeros(3)
    return tuple(sorted(slices, key=lambda s: (float(normal @ np.nan_to_num(s.position_lps_mm)), s.path, s.frame)))


def _split_acquisitions(slices: tuple[DicomSlice, ...]) -> list[DicomSeries]:
    """One series, or one per AcquisitionNumber where whole acquisitions lie between one another.

    Stations one after the other are one volume. Acquisitions that overlap without one of them being whole stay together;
    reading then refuses the repeated positions, or the uneven distances are found before the run.
    """
    whole = DicomSeries(slices)
    numbers = sorted({s.acquisition for s in slices}, key=lambda n: (len(n), n))
    changes = sum(a.acquisition != b.acquisition for a, b in pairwise(slices))
    if len(numbers) == 1 or not whole.is_placed or (changes < len(numbers) and not _repeats(whole)):
        return [whole]
    parts = [DicomSeries(tuple(s for s in slices if s.acquisition == number), number) for number in numbers]
    if any(part.coverage_mm >= 0.9 * whole.coverage_mm and not _repeats(part) for part in parts):
        return parts
    return [whole]


def _repeats(series: DicomSeries) -> bool:
    return bool((np.diff(series.offsets_mm) < SAME_POSITION_MM).any())


def _check_placed(series: DicomSeries) -> None:
    """Raise :class:`InputError` unless the slices are one regular stack of a believable size."""
    first = series.slices[0]
    for one in series.slices:
        if not one.is_placed:
            what = "no position, orientation or pixel spacing in its header, so it cannot be placed"
            raise InputError(f"{one.path} has {what}; export the series anew as CT images")
        if (one.rows, one.columns) != (first.rows, first.columns):
            sizes = f"{one.rows}x{one.columns} voxels where its series has {first.rows}x{first.columns}"
            raise InputError(f"{one.path} has {sizes}; take the file out")
        own, shared = (np.array([*s.cosines_lps, *s.spacing_ji_mm]) for s in (one, first))
        if np.abs(own - shared).max() > SAME_GEOMETRY:
            raise InputError(f"{one.path} has another orientation or pixel spacing than its series; take the file out")
    if not min(first.spacing_ji_mm) > 0:
        raise InputError(f"{first.path} has a PixelSpacing that is not positive ({first.spacing_ji_mm}); export the series anew")
    if not series.spacing_ijk_mm[2] > 0:
        raise InputError(
            f"{first.path} is a single slice without SliceThickness, so its third spacing is not known; give more slices"
        )
    i, j = np.asarray(first.cosines_lps).reshape(2, 3)
    if not np.allclose([i @ i, j @ j, i @ j], [1, 1, 0], atol=SAME_GEOMETRY):
        what = f"an ImageOrientationPatient whose axes are not at right angles ({first.cosines_lps})"
        raise InputError(f"{first.path} has {what}; export the series anew")
    if _repeats(series):
        at = int((np.diff(series.offsets_mm) < SAME_POSITION_MM).argmax())
        both = f"{series.slices[at].path} and {series.slices[at + 1].path}"
        raise InputError(f"{both} lie at the same position; keep one acquisition of the series in the folder")
    if (size := len(series.slices) * first.rows * first.columns * 2) > LARGEST_VOLUME_BYTES:
        raise InputError(f"{first.path.parent} holds {size / 2**30:.0f} GiB of voxels by its headers, too much for a chest CT")
    if max(first.rows, first.columns) > LARGEST_SIDE:
        raise InputError(f"{first.path} has {first.rows}x{first.columns} voxels by its header, more than any CT; copy it again")
    # A stack whose slices jump sideways is neither straight nor tilted.
    start, end = (np.array(s.position_lps_mm) for s in (series.slices[0], series.slices[-1]))
    share = (series.offsets_mm - series.offsets_mm[0]) / (series.coverage_mm or 1)
    aside_mm = np.array([s.position_lps_mm for s in series.slices]) - start - share[:, None] * (end - start)
    aside_mm -= np.outer(aside_mm @ first.normal_lps, first.normal_lps)
    worst = int(np.linalg.norm(aside_mm, axis=1).argmax())
    if np.linalg.norm(aside_mm[worst]) > min(first.spacing_ji_mm) / 2:
        raise InputError(f"{series.slices[worst].path} lies aside of the other slices of its series; take the file out")


def _check_rescale(series: DicomSeries) -> None:
    """Raise :class:`InputError` unless the headers lead to HU (or to the stored values, where no slice has a rescale)."""
    for one in series.slices:
        slope, intercept = one.rescale
        if one.photometric != "MONOCHROME2":
            # Who wrote MONOCHROME1 may or may not have meant the values to be inverted.
            kind = one.photometric or "an image of unknown kind"
            raise InputError(f"{one.path} is stored as {kind}, so its HU are in doubt; export the series anew as MONOCHROME2")
        if len({math.isnan(value) for value in (slope, intercept, series.slices[0].rescale[0])}) > 1:
            raise InputError(f"{one.path} lacks a rescale slope or intercept that its series needs for HU; export it anew")
        if slope == 0 or max(abs(slope), abs(intercept)) > LARGEST_RESCALE:
            what = f"a rescale that cannot be applied (slope {slope}, intercept {intercept})"
            raise InputError(f"{one.path} has {what}; export the series anew")
