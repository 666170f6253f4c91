"""A DICOM series: its slices along their normal, read in HU with the geometry that the headers give."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_headers import MODALITY_TABLE, SCAN_ATTRIBUTES, DicomSlice
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

NO_UID = "no-uid"
"""Stands for the SeriesInstanceUID of slices that have none."""

KERNEL, CONTRAST = SCAN_ATTRIBUTES.index("ConvolutionKernel"), SCAN_ATTRIBUTES.index("ContrastBolusAgent")

DERIVATIONS = {
    *("MIP", "MAXIP", "MINIP", "MAX", "MIN", "PROJECTION", "AVERAGE", "MPR", "CPR", "VRT", "SSD", "REFORMATTED", "RESAMPLED"),
    *("RENDER", "RENDERING", "SUBTRACTION", "SUBTRACTED", "PERFUSION", "IODINE", "VNC", "MONOENERGETIC", "ZEFF", "DISTORTED"),
}
"""Words of ImageType, the enhanced calculation and SeriesDescription that tell of images calculated from others: projections
that let vessels look like nodules, thick or slanting sections, and values that are no plain HU."""

HU_UNITS = {"", "HU", "US", "HU_MOD"}
"""Values of RescaleType; ``US`` is unspecified, as many scanners write it."""

OTHER_UNITS = {"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"}
"""Values of RescaleType that DICOM defines for other things than HU. Texts that it does not define are not shown, here as
below: nobody knows what they say."""

PHOTOMETRIC = {"MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420"}

KERNEL_CODE = re.compile(
    r"[A-Z]{1,3}\d{1,3}[A-Z]?(\\\d)?|[A-Z]{1,2}|STANDARD|STND|SOFT|DETAIL|LUNG|BONE|BONEPLUS|EDGE|ULTRA|CHST", re.I
)
"""How scanners call their kernels: B30f, Br40d, FC51, YA."""


@dataclass(frozen=True)
class DicomSeries:
    """The slices of one scan, sorted along the slice normal: of one SeriesInstanceUID, or of a part of it."""

    slices: tuple[DicomSlice, ...]
    part: str = ""
    """Tells scans of one SeriesInstanceUID apart: the AcquisitionNumber, or a number; empty where there is one alone."""
    doubled: int = 0
    """How many slices were left out because another lies at the same position."""
    unreadable: tuple[Path, ...] = ()
    """Files beside the slices that look like slices by their names and cannot be read."""

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.slices[0].series_uid

    @property
    def key(self) -> str:
        """What :func:`NLSTSegLib.reading.dicom_choice.choose_chest_series` takes to choose exactly this one."""
        return f"{self.uid or NO_UID}/{self.part}" if self.part else self.uid or NO_UID

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
    def derivation(self) -> str:
        """How the images were made from others, in a word of :data:`DERIVATIONS`; empty for a plain reconstruction."""
        first = self.slices[0]
        texts = f"{' '.join(first.image_type)} {first.calculation} {first.description}".upper()
        words = re.split(r"[^A-Z0-9]+", texts)
        return next((word for word in words if word in DERIVATIONS), "")

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
        """Distance from the first to the last slice's centre."""
        return float(np.ptp(self.offsets_mm)) if self.is_placed else 0.0

    @property
    def spacing_ijk_mm(self) -> tuple[float, float, float]:
        """Spacing between columns, between rows, mean between slices (the thickness when there is one slice); NaN if not
        known."""
        first = self.slices[0]
        step = self.coverage_mm / (len(self.slices) - 1) if len(self.slices) > 1 else first.thickness_mm
        return first.spacing_ji_mm[1], first.spacing_ji_mm[0], step

    @property
    def is_axial(self) -> bool:
        """Whether the slice normal is nearer to the patient's long axis than to any other."""
        return self.is_placed and int(np.abs(self.slices[0].normal_lps).argmax()) == 2

    def __str__(self) -> str:
        """One line for a list: modality, description, slices, coverage, kernel, key."""
        kind = f"{self.modality or 'unknown'}{' localizer' if self.is_localizer else ''}"
        name = f" '{self.description}'" if self.description else ""
        kernel = self.slices[0].scan[KERNEL]
        if kernel:
            kernel = f", kernel {kernel}" if KERNEL_CODE.fullmatch(kernel) else ", a kernel of another name"
        return f"{kind}{name} ({len(self.slices)} slices, {self.coverage_mm:.0f} mm{kernel}, {self.key})"


def read_series(
    series: DicomSeries, *, skip_unreadable: bool = False, progress: Callable[[float], None] | None = None
) -> CtVolume:
    """The voxels of ``series`` in HU with k along the slice normal, every slice by the rescale of its own header.

    int16, or float32 where the rescale is not whole. ``progress(fraction)`` is called before every file and may raise to
    stop. The grid has k along the slice normal and the mean slice distance; where the slices really lie (gantry tilt,
    uneven distances) is recorded in the acquisition. Raises :class:`InputError` for what could not be placed or scaled
    rightly, and, without ``skip_unreadable``, where files beside the slices cannot be read.
    """
    _check(series, skip_unreadable)
    hu = np.empty(_shape(series), _dtype(series))
    files: dict[Path, list[tuple[int, DicomSlice]]] = {}
    for k, one in enumerate(series.slices):
        files.setdefault(one.path, []).append((k, one))
    for n, slices in enumerate(files.values()):
        if progress:
            progress(n / len(files))
        stored = read_stored(slices[0][1])
        for k, one in slices:
            values = rescaled(stored, one)
            hu[k] = np.clip(values, -32768, 32767) if hu.dtype == np.int16 else values
    if progress:
        progress(1.0)
    return _volume(series, hu)


def series_grid(series: DicomSeries) -> CtVolume:
    """What :func:`read_series` reads, from the headers alone: all voxels are 0 HU and take no memory; raises as it does."""
    _check(series, skip_unreadable=False)
    return _volume(series, np.broadcast_to(np.zeros((), _dtype(series)), _shape(series)))


def _check(series: DicomSeries, skip_unreadable: bool) -> None:
    if series.unreadable and not skip_unreadable:
        what = f"{len(series.unreadable)} files beside its slices cannot be read (the first is {series.unreadable[0].name})"
        fix = "copy the folder again, or go on without them with --skip-unreadable (in Python skip_unreadable=True)"
        raise InputError(f"a part of the series in {series.slices[0].path.parent} may be missing: {what}; {fix}")
    _check_placed(series)
    _check_rescale(series)


def _shape(series: DicomSeries) -> tuple[int, int, int]:
    return len(series.slices), series.slices[0].rows, series.slices[0].columns


def _rescale(series: DicomSeries) -> list[float]:
    """All slopes and intercepts that the headers have."""
    return [value for s in series.slices for value in s.rescale if math.isfinite(value)]


def _dtype(series: DicomSeries) -> type[np.int16] | type[np.float32]:
    return np.int16 if all(value.is_integer() for value in _rescale(series)) else np.float32


def _volume(series: DicomSeries, hu: np.ndarray) -> CtVolume:
    first = series.slices[0]
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
            rescale_missing=not _rescale(series),
            slice_thickness_mm=first.thickness_mm if math.isfinite(first.thickness_mm) else 0.0,
            derivation=series.derivation,
            kernel=first.scan[KERNEL],
            contrast=first.scan[CONTRAST],
            date=first.date,
            doubled_slices=series.doubled,
            unreadable_files=len(series.unreadable),
        ),
    )


def rescaled(stored: np.ndarray, one: DicomSlice) -> np.ndarray:
    """HU of the slice ``one`` out of the frames of its file; the stored values where it has no rescale."""
    slope, intercept = one.rescale
    return stored[one.frame] * slope + intercept if math.isfinite(slope) else stored[one.frame] * 1.0


def repeats(series: DicomSeries) -> bool:
    """Whether two slices lie at the same position."""
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
    if repeats(series):
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
        if one.unit.upper() not in HU_UNITS and not one.unit.upper().startswith("HOUNSF"):
            name = f"RescaleType {one.unit}" if one.unit in OTHER_UNITS else "RescaleType"
            name = one.unit if one.unit == MODALITY_TABLE else name
            raise InputError(f"{one.path} has values that are no HU by its {name}; give a CT series in HU")
        if one.photometric != "MONOCHROME2":
            # Who wrote MONOCHROME1 may or may not have meant the values to be inverted.
            kind = one.photometric if one.photometric in PHOTOMETRIC else "an image of unknown kind"
            raise InputError(f"{one.path} is stored as {kind}, so its HU are in doubt; export the series anew as MONOCHROME2")
        if len({math.isnan(value) for value in (slope, intercept, series.slices[0].rescale[0])}) > 1:
            raise InputError(f"{one.path} lacks a rescale slope or intercept that its series needs for HU; export it anew")
        if slope == 0 or max(abs(slope), abs(intercept)) > LARGEST_RESCALE:
            what = f"a rescale that cannot be applied (slope {slope}, intercept {intercept})"
            raise InputError(f"{one.path} has {what}; export the series anew")
