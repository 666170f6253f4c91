"""The lesion table: one row a lesion."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from NLSTSegLib.lesions.find import Lesion
from NLSTSegLib.lesions.measure import Measurements, round_half_up, shown_sizes
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.volume.regular_grid import nearest_voxel, slice_stack


def lesion_row(lesion: Lesion, result: SegmentationResult) -> dict[str, str | int | float]:
    """The lesion's numbers as they are shown and written.

    Sizes as :func:`NLSTSegLib.lesions.measure.shown_sizes` rounds them, the centroid in mm to one decimal, the score with three
    decimals. ``slice`` counts from 0 along that axis of the source voxels which runs nearest to the body's long axis.
    """
    sizes = lesion.measurements
    left, posterior, superior = sizes.centroid_lps_mm
    return {
        "lesion": lesion.name,
        "score": round_half_up(lesion.score, 3),
        **shown_sizes(sizes),
        "centroid_l_mm": round_half_up(left, 1),
        "centroid_p_mm": round_half_up(posterior, 1),
        "centroid_s_mm": round_half_up(superior, 1),
        "slice": source_slice(sizes, result),
    }


def source_slice(sizes: Measurements, result: SegmentationResult) -> int:
    """Index of the long axis' middle along the source axis that runs from head to foot or back."""
    axis = next(n for n, letter in enumerate(result.regular.orientation) if letter in "SI")
    middle_lps_mm = np.mean(sizes.long_axis_ends_lps_mm, axis=0)
    return nearest_voxel(middle_lps_mm, result.ct, slice_stack(result.ct))[axis]


def lesion_rows(result: SegmentationResult) -> list[dict[str, str | int | float]]:
    """One row a lesion, by descending volume."""
    return [lesion_row(lesion, result) for lesion in result.lesions]


COLUMNS = (
    "lesion",
    "score",
    "volume_mm3",
    "equivalent_diameter_mm",
    "long_axis_mm",
    "short_axis_mm",
    "mean_diameter_mm",
    "mean_hu",
    "solid_volume_mm3",
    "centroid_l_mm",
    "centroid_p_mm",
    "centroid_s_mm",
    "slice",
)
"""Columns of ``lesions.csv``; the header is there with zero lesions too."""


def write_csv(result: SegmentationResult, path: Path) -> None:
    """Write ``lesions.csv`` (UTF-8, comma, point as decimal sign)."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(lesion_rows(result))
