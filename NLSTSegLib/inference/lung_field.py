"""Where to look: the lung field, found classically, with lesions on the pleura and in the hilum kept inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.inference.lung_air import AIR_BELOW_HU, lung_and_gut_air
from NLSTSegLib.lesions.place import LungExtent
from NLSTSegLib.volume.ct import CtVolume

if TYPE_CHECKING:
    import SimpleITK as sitk


AIRWAY_BELOW_HU = -850
"""The air in the trachea is below; most voxels of a lung that is not emphysematous are above."""

CLOSING_MM = 20.0
"""Radius of the closing, so that masses on the pleura and in the hilum stay inside the field: whole up to some 25 mm;
larger ones reach into it."""

MARGIN_MM = 6.0
"""The field is grown by this, so the pleura and what touches it are inside, also with the search's coarse pixels."""


TRACHEA_AREA_MM2 = (40.0, 800.0)
"""Cross-section of the trachea and of the two main bronchi together."""

TRACHEA_LENGTH_MM = 30.0
"""A tube followed for less than this is not taken for the trachea."""

MIDLINE_MM = 35.0
"""The trachea's centre lies within this of the middle between the lungs' sides."""

GRID_MM = 2.5
"""In-plane sampling of the search; the field is smooth, and a whole chest takes a second or two."""

UPRIGHT = 0.05
"""The axes of a CT in which sides and heights are told deviate no more than this from the patient's (3 degrees)."""

LUNG_AREA_MM2 = 100.0
"""A lung ends in the last slice with so much of its air."""

SEEN_SHARE, SPREAD_MM = 0.1, 15.0
"""Where the skin is seen on both sides in fewer of the rows with lung, or the middles of the half of them in the middle
lie farther apart (gas in the bowel, a turned body), the middle of the body is not told."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """The lungs of a CT."""

    mask: np.ndarray
    """Boolean ``[k, j, i]`` on the CT's voxels: where lesions are looked for."""
    extent: LungExtent | None
    """``None`` where the CT is not upright, or the body's sides are not in it."""


def lung_field(ct: CtVolume) -> np.ndarray | None:
    """:attr:`Lungs.mask` alone."""
    lungs = find_lungs(ct)
    return None if lungs is None else lungs.mask


def find_lungs(ct: CtVolume) -> Lungs | None:
    """The lungs of ``ct`` (canonical axes expected); ``None`` when there are none.

    The large components of air that are not the room are the lungs, also where the field of view cuts them. For the mask
    they are closed by :data:`CLOSING_MM` and grown by :data:`MARGIN_MM`, and the trachea, and what is nearer to gas of the gut
    than to a lung, are taken out.
    """
    steps = [max(1, int(GRID_MM / s)) for s in ct.spacing_ijk_mm[::-1]]
    # The middle voxel of every block, so that the field is not shifted by half a block.
    middles = tuple(slice(min(step // 2, n - 1), None, step) for n, step in zip(ct.hu.shape, steps, strict=True))
    # float32 voxels may hold any value: clip before the cast so they cannot wrap around.
    coarse = np.clip(ct.hu[middles], -2000, 2000).astype(np.int16)
    spacing_kji = np.array(ct.spacing_ijk_mm[::-1]) * steps
    air = lung_and_gut_air(coarse, spacing_kji)
    if air is None:
        return None
    lungs, gut = air
    trachea = _trachea(lungs & (coarse < AIRWAY_BELOW_HU), spacing_kji)
    lung_mask = _close_and_grow(lungs & ~trachea, gut, spacing_kji) & ~trachea
    k, j, i = (np.minimum(np.arange(n) // step, m - 1) for n, step, m in zip(ct.hu.shape, steps, lung_mask.shape, strict=True))
    at_lps_mm = tuple(
        origin_mm + np.arange(n)[taken] * step_mm
        for origin_mm, step_mm, n, taken in zip(
            ct.origin_lps_mm, ct.spacing_ijk_mm, ct.hu.shape[::-1], middles[::-1], strict=True
        )
    )
    is_upright = np.abs(ct.direction_matrix - np.eye(3)).max() < UPRIGHT
    extent = _extent(lungs & ~trachea, coarse, at_lps_mm) if is_upright else None
    return Lungs(lung_mask[np.ix_(k, j, i)], extent)


def _trachea(air: np.ndarray, spacing_kji: np.ndarray) -> np.ndarray:
    """The airway followed from the highest slice down until it opens into the lungs; empty where none is seen."""
    import SimpleITK as sitk

    pixel_mm2 = spacing_kji[1] * spacing_kji[2]
    trachea = np.zeros_like(air)
    if not air.any():
        return trachea
    middle_i = np.flatnonzero(air.any(axis=(0, 1))).mean()
    previous = None
    for k in reversed(range(len(air))):
        labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(air[k].astype(np.uint8))))
        areas_mm2 = np.bincount(labels.ravel())[1:] * pixel_mm2
        if previous is None:
            # The start: a tube near the midline; the lungs' apices lie further out.
            tubes = [n + 1 for n, area in enumerate(areas_mm2) if TRACHEA_AREA_MM2[0] <= area <= TRACHEA_AREA_MM2[1]]
            tubes = [n for n in tubes if abs((labels == n).nonzero()[1].mean() - middle_i) * spacing_kji[2] < MIDLINE_MM][:1]
        else:
            tubes = [n for n in np.unique(labels[previous]) if n]
            if sum(areas_mm2[n - 1] for n in tubes) > TRACHEA_AREA_MM2[1]:
                break
        if tubes:
            trachea[k] = previous = np.isin(labels, tubes)
        elif previous is not None:
            break
    # A short tube is the tip of a lung, which must stay in the field.
    long_enough = trachea.any(axis=(1, 2)).sum() * spacing_kji[0] >= TRACHEA_LENGTH_MM
    return trachea if long_enough else np.zeros_like(air)


def _extent(lungs: np.ndarray, coarse: np.ndarray, at_lps_mm: tuple[np.ndarray, ...]) -> LungExtent | None:
    """``at_lps_mm`` are the places of the voxels of ``lungs`` (bool ``[k, j, i]``) along i, j and k."""
    left_mm, posterior_mm, superior_mm = at_lps_mm
    middle_left_mm = _middle_left_mm(lungs, (coarse < AIR_BELOW_HU) & ~lungs, left_mm)
    if middle_left_mm is None:
        return None
    pixel_mm2 = abs(float((left_mm[1] - left_mm[0]) * (posterior_mm[1] - posterior_mm[0])))
    ends: list[tuple[float, float] | None] = []
    for side in (left_mm < middle_left_mm, left_mm > middle_left_mm):
        slices = np.flatnonzero(lungs[:, :, side].sum(axis=(1, 2)) * pixel_mm2 >= LUNG_AREA_MM2)
        is_whole = len(slices) > 1 and slices[0] > 0 and slices[-1] < len(lungs) - 1
        ends.append((float(superior_mm[slices[0]]), float(superior_mm[slices[-1]])) if is_whole else None)
    return LungExtent(middle_left_mm, *ends)


def _middle_left_mm(lungs: np.ndarray, other_air: np.ndarray, left_mm: np.ndarray) -> float | None:
    """Halfway from skin to skin: in every row with lung, the nearest air of the room to either side. Median of all rows."""
    rows = lungs.any(axis=2)
    lungs, other_air = lungs[rows], other_air[rows]
    columns = np.arange(lungs.shape[1])
    first, last = lungs.argmax(axis=1), lungs.shape[1] - 1 - lungs[:, ::-1].argmax(axis=1)
    right_skin = np.where(other_air & (columns < first[:, None]), columns, -1).max(axis=1)
    left_skin = np.where(other_air & (columns > last[:, None]), columns, lungs.shape[1]).min(axis=1)
    # Where the field of view cuts the body there is no room to a side.
    seen = (right_skin >= 0) & (left_skin < lungs.shape[1])
    if seen.mean() < SEEN_SHARE:
        return None
    middles_mm = (left_mm[right_skin[seen]] + left_mm[left_skin[seen]]) / 2
    quarter_mm, middle_mm, three_quarters_mm = np.percentile(middles_mm, (25, 50, 75)).tolist()
    return middle_mm if three_quarters_mm - quarter_mm <= SPREAD_MM else None


def _close_and_grow(lungs: np.ndarray, gut: np.ndarray, spacing_kji: np.ndarray) -> np.ndarray:
    import SimpleITK as sitk

    pad = int(np.ceil((CLOSING_MM + MARGIN_MM) / spacing_kji.min())) + 1

    def padded(mask: np.ndarray) -> sitk.Image:
        image = sitk.GetImageFromArray(np.pad(mask, ((0, 0), (pad, pad), (pad, pad))).astype(np.uint8))
        image.SetSpacing(spacing_kji[::-1].tolist())
        return image

    def distance(mask: sitk.Image) -> sitk.Image:
        return sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)

    # Closing by distance maps: exact balls in millimetres, whatever the spacing, at the cost of two passes.
    from_lungs = distance(padded(lungs))
    closed = distance(from_lungs <= CLOSING_MM) <= MARGIN_MM - CLOSING_MM
    if gut.any():
        closed &= from_lungs <= distance(padded(gut))
    lung_mask = sitk.GetArrayFromImage(closed).astype(bool)[:, pad:-pad, pad:-pad]
    return lung_mask | lungs
