"""Which of several DICOM series is the chest: by what the slices show, and by what their headers say."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_pixels import read_stored
from NLSTSegLib.reading.dicom_series import DicomSeries, rescaled

LOOKED_AT = 12
"""Slices of a series whose voxels are looked at."""

LUNG_HU, LUNG_BLOCK_MM = (-950, -600), 4.0
"""Lung has such means in blocks of this side; the room and gas lie below, tissue above."""

LEAST_LUNG_ML = 100.0
"""Where no series shows more, they are told apart by their length."""

NEARLY = 0.9
"""A series that shows this share of the most lung, or covers this share of the longest, shows or covers as much."""

THIN_MM = 3.0
"""Slice distance up to which no small lesion is lost."""

CHEST, OTHER = re.compile(r"CHEST|THORA|LUNG|PULMO|T[OÓ]RAX|HRCT", re.I), re.compile(r"ABD|PELV|HEAD|NECK|BRAIN|SPINE", re.I)
"""What headers say of series that show the chest, and of those that show something else, alone or too."""


def choose_chest_series(series: Sequence[DicomSeries], uid: str | None = None) -> DicomSeries:
    """The series to segment: the one called ``uid`` (a SeriesInstanceUID or a :attr:`DicomSeries.key`), or the best CT.

    Best: not a localizer; axial before reformatted; showing at least 90 % of the lung that any shows, or covering 90 % of the
    longest where none shows lung; not calculated from others, then original; thin; said to show the chest alone; most slices;
    lowest series number. Raises :class:`InputError`, naming what is there, when nothing fits or several patients do.
    """
    there = "; ".join(str(s) for s in series[:8]) + (f"; and {len(series) - 8} more" if len(series) > 8 else "")
    if uid is not None:
        candidates = [s for s in series if uid == s.key] or [s for s in series if uid == s.uid]
        if not candidates:
            raise InputError(f"there is no series {uid}, only: {there}")
    else:
        candidates = [s for s in series if s.modality == "CT" and not s.is_localizer]
        if not candidates:
            raise InputError(f"none of the DICOM series in {_common_folder(series)} is a CT volume, only: {there}")
    if len({s.slices[0].patient_id for s in candidates} - {""}) > 1:
        choice = "choose one with --series (in Python series_uid), or all with --all-series"
        raise InputError(f"{_common_folder(series)} holds CTs of several patients; {choice}: {there}")
    if len(candidates) == 1:
        return candidates[0]
    shown_ml = {s.key: _lung_ml(s) for s in candidates}
    most_ml = {axial: max((shown_ml[s.key] for s in candidates if s.is_axial == axial), default=0.0) for axial in (True, False)}
    longest = {axial: max((s.coverage_mm for s in candidates if s.is_axial == axial), default=0.0) for axial in (True, False)}

    def shows_chest(one: DicomSeries) -> bool:
        if most_ml[one.is_axial] >= LEAST_LUNG_ML:
            return shown_ml[one.key] >= NEARLY * most_ml[one.is_axial]
        return one.coverage_mm >= NEARLY * longest[one.is_axial]

    return max(
        candidates,
        key=lambda s: (
            not s.is_localizer,
            s.is_axial,
            shows_chest(s),
            not s.derivation,
            "ORIGINAL" in s.image_type,
            s.spacing_ijk_mm[2] <= THIN_MM,
            bool(CHEST.search(s.slices[0].region)) and not OTHER.search(s.slices[0].region),
            len(s.slices),
            -s.slices[0].series_number,
        ),
    )


def _common_folder(series: Sequence[DicomSeries]) -> str:
    return os.path.commonpath([s.slices[0].path.parent for s in series])


def _lung_ml(series: DicomSeries) -> float:
    """Roughly how much lung a series shows, by a few of its slices; 0 where they cannot be read."""
    if not series.is_placed or not min(series.slices[0].spacing_ji_mm) > 0:
        return 0.0
    looked_at = np.unique(np.linspace(0, len(series.slices) - 1, LOOKED_AT + 2).astype(int)[1:-1])
    share, stored, path = 0.0, np.empty(0), None
    for k in looked_at:
        one = series.slices[k]
        try:
            stored = stored if one.path == path else read_stored(one)
        except InputError:
            # Said when it is chosen all the same.
            return 0.0
        path, hu = one.path, rescaled(stored, one)
        rows, columns = (max(1, round(LUNG_BLOCK_MM / step)) for step in one.spacing_ji_mm)
        hu = hu[: len(hu) // rows * rows, : hu.shape[1] // columns * columns]
        means = hu.reshape(len(hu) // rows, rows, -1, columns).mean(axis=(1, 3))
        share += np.mean((means > LUNG_HU[0]) & (means < LUNG_HU[1])) / len(looked_at)
    slice_mm2 = one.rows * one.columns * float(np.prod(one.spacing_ji_mm))
    return float(share * slice_mm2 * series.coverage_mm / 1000)
