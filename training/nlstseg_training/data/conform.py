"""From a case as it was read to the volumes of the cache: checked, on canonical axes, int16 HU, with a lung field."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nlstseg_training.data.cache import CaseEntry, LesionEntry
from nlstseg_training.data.readers.source import RawCase, Source
from NLSTSegLib.checks.preflight import check_ct, stop_on_errors
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.lung_field import MARGIN_MM, lung_field
from NLSTSegLib.lesions.measure import sphere_diameter_mm
from NLSTSegLib.results.report import voxels_sha256
from NLSTSegLib.volume.ct import CtVolume, to_canonical
from NLSTSegLib.volume.regions import bounding_box, grown_box
from NLSTSegLib.volume.regular_grid import slice_stack, to_regular
from NLSTSegLib.volume.scan_hash import scan_sha256

LOWEST_HU, HIGHEST_HU = -1200, 3071
"""Padding (-2048, or what int32 holds) ends here before anything is interpolated: the lowest value that a window of the
recipes tells from the ones below, so clipping changes no network's input."""

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as it is written; arrays are ``[k, j, i]`` on the canonical axes of ``ct``."""

    entry: CaseEntry
    ct: CtVolume
    labels: np.ndarray
    """uint8 or uint16: lesions 1..k."""
    target: np.ndarray | None
    """uint8; None where it is 255 in the lesions and 0 elsewhere."""
    lungs: np.ndarray | None


def conform(source: Source, raw: RawCase, state: str, spacing_kji_mm: Spacing | None) -> Prepared:
    """Check and convert; with ``spacing_kji_mm`` resample. Raises :class:`InputError` for what cannot be used.

    The CT is interpolated linearly, the target too, labels by the label with the largest linear weight. Lesions are
    measured before.
    """
    notes = list(raw.notes)
    if raw.labels.shape != raw.ct.hu.shape:
        raise InputError(
            f"its mask has {raw.labels.shape} voxels [k, j, i], its CT {raw.ct.hu.shape}; give a mask on the CT's voxels"
        )
    if raw.kind == "chest":
        findings = check_ct(raw.ct)
        stop_on_errors(findings)
        notes += [finding.message for finding in findings if finding.severity == "warning"]
    labels, lesions = _renumbered(raw, notes)
    sure = np.where(labels > 0, np.uint8(255), np.uint8(0))
    target = None if raw.target is None or np.array_equal(raw.target, sure) else raw.target

    ct, masks = _canonical(raw.ct, [labels, *([] if target is None else [target])])
    labels = masks[0].astype(np.uint8 if len(lesions) <= 255 else np.uint16)
    target = None if target is None else masks[1].astype(np.uint8)
    hu = np.rint(ct.hu) if ct.hu.dtype.kind == "f" else ct.hu
    ct = replace(ct, hu=np.clip(hu, LOWEST_HU, HIGHEST_HU).astype(np.int16))
    lungs = _lungs(raw, ct, labels, notes)

    if spacing_kji_mm is not None:
        resampled = _Resampling(ct, spacing_kji_mm)
        labels = resampled.labels(labels)
        target = None if target is None else resampled.linear(target)
        lungs = None if lungs is None else resampled.labels(lungs.astype(np.uint8)) > 0
        ct = resampled.ct()
        lost = {lesion.label for lesion in lesions} - set(np.unique(labels[labels > 0]).tolist())
        notes += [f"lesion {label} is too small to be left at this spacing" for label in sorted(lost)]

    k_mm, j_mm, i_mm = ct.spacing_ijk_mm[::-1]
    series_uid = raw.ct.acquisition.series_uid
    entry = CaseEntry(
        id=source.id,
        patient=source.patient,
        reader=source.reader,
        kind=raw.kind,
        complete=raw.complete,
        shape_kji=ct.hu.shape,
        spacing_kji_mm=(k_mm, j_mm, i_mm),
        lesions=lesions,
        voxels_sha256=voxels_sha256(raw.ct),
        scan_sha256=scan_sha256(raw.ct),
        series_uid_sha256=hashlib.sha256(series_uid.encode()).hexdigest() if series_uid else "",
        source_state=state,
        given_part=source.given_part,
        notes=tuple(notes),
    )
    return Prepared(entry, ct, labels, target, lungs)


def _renumbered(raw: RawCase, notes: list[str]) -> tuple[np.ndarray, tuple[LesionEntry, ...]]:
    """Labels 1..k in the order of their values in the source, and their sizes: one lesion for a value, however many parts."""
    if raw.labels.min() < 0:
        raise InputError(f"its mask holds the value {raw.labels.min()}; labels are whole numbers from 0")
    values, counts = np.unique(raw.labels[raw.labels > 0], return_counts=True)
    lesions: list[LesionEntry] = []
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        volume_mm3 = count * raw.ct.voxel_volume_mm3
        diameter_mm = sphere_diameter_mm(volume_mm3)
        kind = raw.lesion_kinds.get(value, "")
        lesions.append(LesionEntry(len(lesions) + 1, round(volume_mm3, 3), round(diameter_mm, 3), kind))
    own = values.tolist()
    if own == list(range(1, len(own) + 1)):
        return raw.labels, tuple(lesions)
    notes.append(f"the labels {', '.join(map(str, own))} of its mask are now 1 to {len(own)}")
    return np.searchsorted(np.array([0, *own]), raw.labels), tuple(lesions)


def _canonical(ct: CtVolume, masks: Sequence[np.ndarray]) -> tuple[CtVolume, list[np.ndarray]]:
    """The CT, and masks on its voxels (int16 holds their values), on canonical axes; leaning or uneven slices as
    :func:`NLSTSegLib.pipeline.segment` takes them, on a regular grid."""
    stack = slice_stack(ct)
    volumes = [replace(ct, hu=mask.astype(np.int16)) for mask in masks]
    if not stack.is_regular:
        volumes = [_nearest_values(volume) for volume in volumes]
    return to_canonical(to_regular(ct, stack)), [to_canonical(volume).hu for volume in volumes]


def _nearest_values(volume: CtVolume) -> CtVolume:
    """A mask on the regular grid: every value takes the voxels of which it has the larger part."""
    stack, scale = slice_stack(volume), 10_000
    best: CtVolume | None = None
    share = np.zeros(0)
    for value in np.unique(volume.hu).tolist():
        own = to_regular(replace(volume, hu=np.where(volume.hu == value, np.int16(scale), np.int16(0))), stack)
        if best is None:
            best, share = replace(own, hu=np.full_like(own.hu, value)), own.hu
        else:
            more = own.hu > share
            best.hu[more] = value
            share = np.maximum(share, own.hu)
    assert best is not None
    return best


def _lungs(raw: RawCase, ct: CtVolume, labels: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """The lung field, closed and grown as the library does, and grown again around every lesion that it would cut."""
    if raw.kind == "crop":
        return None
    lung_mask = lung_field(ct) if raw.lungs is None else _canonical(raw.ct, [raw.lungs])[1][0] > 0
    if lung_mask is None:
        notes.append("no lungs were found in it, so all of it counts")
        return None
    for label in np.unique(labels[(labels > 0) & ~lung_mask]).tolist():
        _add_surroundings(lung_mask, labels == label, ct)
    return lung_mask


def _add_surroundings(lung_mask: np.ndarray, lesion: np.ndarray, ct: CtVolume) -> None:
    import SimpleITK as sitk

    box = grown_box(bounding_box(lesion), MARGIN_MM, ct.spacing_ijk_mm, lesion.shape)
    image = sitk.GetImageFromArray(lesion[box].astype(np.uint8))
    image.SetSpacing(ct.spacing_ijk_mm)
    distance_mm = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    lung_mask[box] |= sitk.GetArrayViewFromImage(distance_mm) <= MARGIN_MM


class _Resampling:
    """Resampling from the grid of ``ct`` to one of another spacing that covers the same box."""

    def __init__(self, ct: CtVolume, spacing_kji_mm: Spacing):
        import SimpleITK as sitk

        self.source = ct
        old, new = np.array(ct.spacing_ijk_mm), np.array(spacing_kji_mm[::-1])
        size = np.maximum(1, np.rint(ct.hu.shape[::-1] * old / new)).astype(int)
        origin = ct.lps_from_ijk_mm((new / old - 1) / 2)
        self.filter = sitk.ResampleImageFilter()
        self.filter.SetSize(size.tolist())
        self.filter.SetOutputSpacing(new.tolist())
        self.filter.SetOutputOrigin(origin.tolist())
        self.filter.SetOutputDirection(ct.direction_lps)
        # Beyond the last voxel's middle its value goes on; rounding of the size may reach a little further.
        self.filter.UseNearestNeighborExtrapolatorOn()

    def ct(self) -> CtVolume:
        hu = self.linear(self.source.hu)
        resampled = self.filter
        return CtVolume(
            hu, resampled.GetOutputSpacing(), resampled.GetOutputOrigin(), self.source.direction_lps, self.source.acquisition
        )

    def linear(self, array: np.ndarray) -> np.ndarray:
        import SimpleITK as sitk

        # Into whole numbers the filter would cut off, and so make everything below 0 HU brighter.
        return np.rint(self._run(array, sitk.sitkLinear, sitk.sitkFloat32)).astype(array.dtype)

    def labels(self, array: np.ndarray) -> np.ndarray:
        import SimpleITK as sitk

        return self._run(array, sitk.sitkLabelLinear, sitk.sitkUnknown)

    def _run(self, array: np.ndarray, interpolator: int, pixel_type: int) -> np.ndarray:
        import SimpleITK as sitk

        self.filter.SetInterpolator(interpolator)
        self.filter.SetOutputPixelType(pixel_type)
        return sitk.GetArrayFromImage(self.filter.Execute(self.source.image_like(array)))
