"""Candidates of the first network, and the voxels around them that the second is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NLSTSegLib.volume.components import boxed_components
from NLSTSegLib.volume.probability import above
from NLSTSegLib.volume.regions import Box

SLICE_MM = 1.25
"""Slices are shown about this far apart: of thinner ones every second or third, and thicker ones as they are."""

SMALLEST_CUT_KJI, LARGEST_CUT_KJI = (16, 48, 48), (32, 96, 96)
"""Voxels of a cut-out, some 35 mm wide at least; sides grow with the candidate. Larger ones were not trained on."""

AROUND_KJI = (8, 24, 24)
"""Voxels more than the candidate's own extent."""

CORE_SHARE = 0.8
"""A candidate's middle is that of the voxels with this share of its highest probability: a vessel that hangs on a nodule is
less sure than the nodule."""

LEAST_VOXELS = 3
"""A smaller candidate is no lesion that anybody could outline."""

LEAST_IN_FIELD = 0.1
"""Least share of a candidate that lies in the lung field. Of synthetic masses on wall and mediastinum 0.25 to 1 did, of a bowel
whose upper end lies beside the lung of LIDC-IDRI-0001 0.03."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A component of the first network's probability."""

    box: Box
    mask: np.ndarray
    """bool ``[k, j, i]`` of the box's shape."""
    centre_kji: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class CutOut:
    """Voxels around a place, ``[k, j, i]``, with every ``step``-th slice."""

    values: np.ndarray
    """0 beyond the ends of the volume."""
    inside_volume: np.ndarray
    """bool: False beyond the ends."""
    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Indices of its slices, rows and columns in the volume, which may lie beyond its ends."""


def find_candidates(
    probability: np.ndarray, threshold: float, lung_mask: np.ndarray | None = None, *, least_voxels: int = LEAST_VOXELS
) -> list[Candidate]:
    """Components of ``probability`` (uint8, 255 is 1) above ``threshold``, those with a share in ``lung_mask``."""
    found = []
    for box, mask in boxed_components(above(probability, threshold), least_voxels):
        if lung_mask is not None and lung_mask[box][mask].mean() < LEAST_IN_FIELD:
            continue
        values = np.where(mask, probability[box], 0)
        middle = np.argwhere(values >= CORE_SHARE * values.max()).mean(axis=0).round().astype(int)
        k, j, i = (side.start + int(n) for side, n in zip(box, middle, strict=True))
        found.append(Candidate(box, mask, (k, j, i)))
    return found


def slice_step(spacing_k_mm: float) -> int:
    """How many slices further the next slice of a cut-out is."""
    return max(1, round(SLICE_MM / spacing_k_mm))


def cut_size(box: Box, step: int) -> tuple[int, int, int]:
    """Size of the cut-out for a candidate in ``box``: slices of ``step``, rows, columns; multiples of what the network needs."""
    from NLSTSegLib.networks.refinement import SIDE_MULTIPLE_KJI

    k, j, i = (side.stop - side.start for side in box)
    sides = [
        min(most, max(least, -(-(own + around) // multiple) * multiple))
        for own, around, least, most, multiple in zip(
            (-(-k // step), j, i), AROUND_KJI, SMALLEST_CUT_KJI, LARGEST_CUT_KJI, SIDE_MULTIPLE_KJI, strict=True
        )
    ]
    return sides[0], sides[1], sides[2]


def cut_out(array: np.ndarray, centre_kji: tuple[int, int, int], size_kji: tuple[int, int, int], step: int) -> CutOut:
    """The voxels of ``array`` around ``centre_kji``, which is in the upper half when a side is even."""
    steps = (step, 1, 1)
    axes = [
        centre + (np.arange(side) - side // 2) * stride for centre, side, stride in zip(centre_kji, size_kji, steps, strict=True)
    ]
    inside = [(index >= 0) & (index < length) for index, length in zip(axes, array.shape, strict=True)]
    values = np.zeros(size_kji, array.dtype)
    values[np.ix_(*inside)] = array[np.ix_(*(index[where] for index, where in zip(axes, inside, strict=True)))]
    k, j, i = inside
    return CutOut(values, k[:, None, None] & j[:, None] & i, (axes[0], axes[1], axes[2]))
