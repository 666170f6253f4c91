"""The row of a lesion table: a lesion's numbers as they are shown and written."""

from __future__ import annotations

import numpy as np

from NLSTSegLib.lesions.find import Lesion
from NLSTSegLib.lesions.measure import round_half_up, shown_sizes
from NLSTSegLib.lesions.place import LungExtent
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regular_grid import nearest_voxel, slice_stack

Row = dict[str, str | int | float]
"""Values by the names in :data:`COLUMNS`."""

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
    "side",
    "third",
)
"""Columns of ``lesions.csv``; the header is there with zero lesions too."""


def lesion_row(lesion: Lesion, ct: CtVolume, regular: CtVolume, lungs: LungExtent | None = None) -> Row:
    """The lesion's numbers, one for each of :data:`COLUMNS`; ``ct`` is the source, ``regular`` the same on a regular grid.

    Sizes as :func:`NLSTSegLib.lesions.measure.shown_sizes` rounds them, the centroid in mm (LPS) to one decimal, the score with
    three decimals. ``slice`` counts from 0 along that axis of the source voxels which runs nearest to the body's long axis.
    ``side`` and ``third`` of the lung are told by ``lungs``, "" without them.
    """
    sizes = lesion.measurements
    left, posterior, superior = sizes.centroid_lps_mm
    axis = next(n for n, letter in enumerate(regular.orientation) if letter in "SI")
    middle_lps_mm = np.mean(sizes.long_axis_ends_lps_mm, axis=0)
    side, third = lungs.side_and_third(sizes.centroid_lps_mm) if lungs is not None else ("", "")
    return {
        "lesion": lesion.name,
        "score": round_half_up(lesion.score, 3),
        **shown_sizes(sizes),
        "centroid_l_mm": round_half_up(left, 1),
        "centroid_p_mm": round_half_up(posterior, 1),
        "centroid_s_mm": round_half_up(superior, 1),
        "slice": nearest_voxel(middle_lps_mm, ct, slice_stack(ct))[axis],
        "side": side,
        "third": third,
    }
