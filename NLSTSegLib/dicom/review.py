"""A review in memory and the DICOM series that its CT came from: the same voxels, whichever way their axes run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from NLSTSegLib.dicom.lesions import FoundLesions, lesions_of_case
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_series import DicomSeries, read_series
from NLSTSegLib.reading.read import values_on_voxels
from NLSTSegLib.review.case import ReviewedCase
from NLSTSegLib.volume.ct import CtVolume

SAME_HU, SAME_SHARE = 1, 0.99
"""Readers round HU and fill what is not scanned in their own ways; so many voxels of the same CT agree so far."""


def on_series(case: ReviewedCase, series: DicomSeries) -> FoundLesions:
    """The lesions of the review on the voxels of ``series``, as SEG and SR need them.

    Raises :class:`InputError` when that is not the CT of the review, or is one that was resampled.
    """
    ct = read_series(series)
    check_same_ct(case.ct, ct)
    found = lesions_of_case(case)
    return replace(found, labels=_labels(found.labels, case.ct, ct, "the review"))


def from_series(labels: np.ndarray, series: DicomSeries, ct: CtVolume) -> np.ndarray:
    """``labels`` (``[k, j, i]`` on the voxels of ``series``) in the order of the voxels of ``ct``.

    Raises :class:`InputError` when ``ct`` is not that series, or one that was resampled.
    """
    own = read_series(series)
    check_same_ct(ct, own)
    return _labels(labels, own, ct, "the SEG")


def _labels(labels: np.ndarray, grid: CtVolume, ct: CtVolume, name: str) -> np.ndarray:
    # float32 holds every uint16.
    return values_on_voxels(replace(grid, hu=labels.astype(np.float32)), ct, name).astype(np.uint16)


def check_same_ct(ct: CtVolume, of_series: CtVolume) -> None:
    """Raise :class:`InputError` unless both have the same voxels at the same places."""
    hu = values_on_voxels(ct, of_series, "the CT in the scene")
    differing = np.abs(hu.astype(np.float32) - of_series.hu) > SAME_HU
    if differing.mean() > 1 - SAME_SHARE:
        raise InputError(
            f"the CT in the scene is not that of the DICOM files ({differing.mean():.0%} of the voxels have other HU); "
            "choose the files that it was loaded from"
        )
