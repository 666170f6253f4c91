"""Where in a chest a lesion can grow: the air of the lungs and the vessels inside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from NLSTSegLib.inference.lung_air import AIR_BELOW_HU

VESSEL_MM = 8.0
"""Wider soft tissue in the lung field is hilum, wall or mediastinum."""

DEEP_SLICES = 10
"""Fewer slices are no lung to put a lesion into."""


def aerated(hu: np.ndarray, lungs: np.ndarray, spacing_kji_mm: Sequence[float]) -> np.ndarray:
    """bool ``[k, j, i]``: the air of the lung field, closed in squares of :data:`VESSEL_MM` slice by slice."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    air = ((hu < AIR_BELOW_HU) & lungs).astype(np.uint8)
    reach = 2 * round(VESSEL_MM / 2 / spacing_kji_mm[1]) + 1
    # What lies beyond the border neither opens nor closes anything.
    for axis in (1, 2):
        air = maximum_filter1d(air, reach, axis, mode="constant", cval=0)
    for axis in (1, 2):
        air = minimum_filter1d(air, reach, axis, mode="constant", cval=1)
    return air > 0
