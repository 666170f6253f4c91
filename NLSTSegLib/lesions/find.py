"""From a probability volume to lesions: components, each with its score, cut-outs and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.measure import Measurements, measure
from NLSTSegLib.volume.components import boxed_components
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.probability import above
from NLSTSegLib.volume.regions import Box

BOX_MARGIN_MM = 10.0
"""A lesion's box is its bounding box grown by this: surroundings for a picture, and room to correct the outline."""

SCORE_PERCENTILE = 95
"""A lesion's score is this percentile of its probabilities: near the peak, but not the doing of one voxel."""

MOST_LESIONS = 65_535
"""Labels that a label map of two bytes a voxel holds."""

Outline = tuple[Box, np.ndarray]
"""Box and mask of a :class:`Lesion`."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion on the canonical grid.

    ``box`` and ``measurements.slice_k`` count voxels of the canonical CT, which is the source CT with its axes permuted
    and flipped; all points in LPS millimetres, and all sizes, hold for both. To have the lesions on the voxels of the
    source, make the :func:`label_map` and bring it back with :func:`NLSTSegLib.volume.ct.from_canonical`.
    """

    label: int
    """1, 2, ... by descending volume; its value in the label map."""
    score: float
    """0 to 1, see :data:`SCORE_PERCENTILE`."""
    box: Box
    """The bounding box grown by :data:`BOX_MARGIN_MM` and clipped to the grid."""
    mask: np.ndarray
    """bool ``[k, j, i]`` of the box's shape: this lesion alone."""
    probability: np.ndarray
    """uint8 ``[k, j, i]`` of the box's shape, 255 = 1.0; a copy of its own."""
    measurements: Measurements

    @property
    def name(self) -> str:
        """Name, for example ``"Lesion 01"``."""
        return f"Lesion {self.label:02d}"


def find_lesions(
    probability: np.ndarray,
    ct: CtVolume,
    *,
    threshold: float,
    min_volume_mm3: float,
    lung_mask: np.ndarray | None = None,
) -> list[Lesion]:
    """:func:`outline_lesions` and :func:`measure_lesions` in one; raises what the first does."""
    outlines = outline_lesions(probability, ct, threshold=threshold, min_volume_mm3=min_volume_mm3, lung_mask=lung_mask)
    return measure_lesions(outlines, probability, ct)


def outline_lesions(
    probability: np.ndarray,
    ct: CtVolume,
    *,
    threshold: float,
    min_volume_mm3: float,
    lung_mask: np.ndarray | None = None,
) -> list[Outline]:
    """The outlines of the lesions in ``probability`` (uint8 ``[k, j, i]``, 255 = 1.0, on the grid of the canonical ``ct``).

    A lesion is a 26-connected component of the voxels with ``probability / 255 > threshold`` (0 to 1) that has at least
    ``min_volume_mm3``. With ``lung_mask`` (bool ``[k, j, i]``, the same grid) it is kept, whole, when any voxel of it lies in
    the field. The list is in label order: descending volume, and the first voxel in ``[k, j, i]`` order decides a tie.

    Raises :class:`InputError` for a threshold or volume out of range, a field of another shape, or more lesions than
    :data:`MOST_LESIONS`, ``ValueError`` for a probability of another type or shape.
    """
    if probability.dtype != np.uint8 or probability.shape != ct.hu.shape:
        raise ValueError(f"the probability must be uint8 of shape {ct.hu.shape}, not {probability.dtype} {probability.shape}")
    if not 0 <= threshold <= 1:
        raise InputError(f"the threshold {threshold} is not a probability: give a number from 0 to 1")
    if not min_volume_mm3 >= 0:
        raise InputError(f"the minimum volume {min_volume_mm3} mm3 cannot be used: give 0 or more")
    if lung_mask is not None and lung_mask.shape != ct.hu.shape:
        raise InputError(
            f"the lung field of shape {lung_mask.shape} does not fit the CT's {ct.hu.shape}: give one on the CT's grid"
        )

    kept = []
    # A component of exactly the minimum stays, also when the product misses it in the last bit.
    for box, mask in boxed_components(above(probability, threshold), min_volume_mm3 / ct.voxel_volume_mm3 * (1 - 1e-9)):
        if lung_mask is None or lung_mask[box][mask].any():
            first_kji = tuple(int(s.start + n[0]) for s, n in zip(box, mask.nonzero(), strict=True))
            kept.append((-np.count_nonzero(mask), first_kji, box, mask))
    kept.sort(key=lambda component: component[:2])
    if len(kept) > MOST_LESIONS:
        # Larger than the first that is one too many.
        enough_mm3 = (1 - kept[MOST_LESIONS][0]) * ct.voxel_volume_mm3
        what = f"{len(kept)} lesions are above the threshold {threshold:g}, more than the {MOST_LESIONS} that can be labelled"
        raise InputError(f"{what}; set the minimum volume to {float(np.ceil(enough_mm3 * 10)) / 10:g} mm3 or more (--min-volume)")
    return [_grown(box, mask, ct) for _, _, box, mask in kept]


def measure_lesions(outlines: Sequence[Outline], probability: np.ndarray, ct: CtVolume) -> list[Lesion]:
    """The lesions with these outlines, in label order, scored by ``probability`` (uint8, 255 = 1.0) and measured in ``ct``."""
    lesions = []
    for label, (box, mask) in enumerate(outlines, start=1):
        patch = probability[box].copy()
        score = float(np.percentile(patch[mask], SCORE_PERCENTILE)) / 255
        offset_kji = (box[0].start, box[1].start, box[2].start)
        lesions.append(Lesion(label, score, box, mask, patch, measure(mask, ct, offset_kji)))
    return lesions


def label_map(lesions: Sequence[Lesion], shape_kji: tuple[int, int, int]) -> np.ndarray:
    """``[k, j, i]`` of ``shape_kji``, 0 outside, the label inside each lesion: uint8 up to 255 lesions, else uint16."""
    labels = np.zeros(shape_kji, np.uint8 if len(lesions) <= 255 else np.uint16)
    for lesion in lesions:
        labels[lesion.box][lesion.mask] = lesion.label
    return labels


def _grown(tight: Box, inner_mask: np.ndarray, ct: CtVolume) -> Outline:
    """The box grown by :data:`BOX_MARGIN_MM` and clipped, and the mask in it."""
    box, inner = _grow(tight, ct)
    mask = np.zeros([s.stop - s.start for s in box], bool)
    mask[inner] = inner_mask
    return box, mask


def _grow(tight: Box, ct: CtVolume) -> tuple[Box, Box]:
    """The box, on ``ct``'s grid, around ``tight``, and where ``tight`` lies in that box."""
    grown, inner = [], []
    for own, spacing_mm, size in zip(tight, ct.spacing_ijk_mm[::-1], ct.hu.shape, strict=True):
        margin = int(np.ceil(BOX_MARGIN_MM / spacing_mm))
        low = max(0, own.start - margin)
        grown.append(slice(low, min(size, own.stop + margin)))
        inner.append(slice(own.start - low, own.stop - low))
    return (grown[0], grown[1], grown[2]), (inner[0], inner[1], inner[2])
