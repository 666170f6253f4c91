"""One CT of several of a patient, with its lesions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.matching import Mark
from NLSTSegLib.lesions.measure import Measurements, measure
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.volume.ct import CtVolume, to_canonical
from NLSTSegLib.volume.regions import Region, bounding_box
from NLSTSegLib.volume.regular_grid import slice_stack, to_regular

AROUND_MM = 5.0
"""Distance around a predicted place within which its probability is looked for: places are a few mm off."""


@dataclass(frozen=True, eq=False)
class FoundLesion:
    """One lesion on the canonical grid of its CT."""

    label: int
    name: str
    score: float | None
    """0 to 1; ``None`` where no model scored it."""
    region: Region
    sizes: Measurements


@dataclass(frozen=True, eq=False)
class TimePoint:
    """A CT on canonical axes with its lesions."""

    ct: CtVolume
    lesions: tuple[FoundLesion, ...]
    probability: np.ndarray | None
    """uint8 ``[k, j, i]`` on ``ct``, 255 is 1; ``None`` where none is known."""
    by: str
    """Who outlined the lesions: a model's name and version, or a reader."""

    @property
    def slice_mm(self) -> float:
        """Distance of the slices, or their thickness if that is more."""
        return max(self.ct.spacing_ijk_mm[2], self.ct.acquisition.slice_thickness_mm)

    def index_mm(self, place_lps_mm: np.ndarray) -> np.ndarray:
        """Nearest voxel ``(i, j, k)`` of a place, which may lie outside the CT."""
        steps = np.linalg.inv(self.ct.direction_matrix) @ (np.asarray(place_lps_mm) - self.ct.origin_lps_mm)
        return np.rint(steps / self.ct.spacing_ijk_mm).astype(int)

    def shows(self, place_lps_mm: np.ndarray) -> bool:
        """Whether the CT has a voxel at the place."""
        index = self.index_mm(place_lps_mm)
        return bool((index >= 0).all() and (index < self.ct.hu.shape[::-1]).all())

    def probability_at(self, place_lps_mm: np.ndarray) -> float | None:
        """Largest probability (0 to 1) within :data:`AROUND_MM` of the place; ``None`` where it is not known."""
        if self.probability is None or not self.shows(place_lps_mm):
            return None
        reach = np.ceil(AROUND_MM / np.array(self.ct.spacing_ijk_mm)).astype(int)
        index = self.index_mm(place_lps_mm)
        low, high = np.maximum(index - reach, 0), index + reach + 1
        i, j, k = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        return float(self.probability[k, j, i].max()) / 255

    def mark(self, lesion: FoundLesion) -> Mark:
        """The lesion as it is matched."""

        def holds(place_lps_mm: np.ndarray) -> bool:
            i, j, k = self.index_mm(place_lps_mm).tolist()
            inside = [side.start <= n < side.stop for side, n in zip(lesion.region.box, (k, j, i), strict=True)]
            start = [side.start for side in lesion.region.box]
            return all(inside) and bool(lesion.region.mask[k - start[0], j - start[1], i - start[2]])

        return Mark(np.array(lesion.sizes.centroid_lps_mm), lesion.sizes.volume_mm3, lesion.sizes.mean_hu, holds)


def of_result(result: SegmentationResult) -> TimePoint:
    """The time point of a run of a model."""
    lesions = tuple(
        FoundLesion(one.label, one.name, one.score, Region.of(one.mask, one.box), one.measurements) for one in result.lesions
    )
    by = f"{result.card.name} {result.card.version}"
    return TimePoint(result.canonical, lesions, result.canonical_probability, by)


def of_labels(
    ct: CtVolume,
    labels: np.ndarray,
    by: str,
    names: Mapping[int, str],
    scores: Mapping[int, float | None],
    probability: np.ndarray | None = None,
) -> TimePoint:
    """The time point of a label map (``[k, j, i]`` on the voxels of ``ct``, n in lesion n), measured anew.

    ``names`` and ``scores`` are by label; ``probability`` (uint8) lies on the same voxels. Raises :class:`InputError` for arrays
    of another shape.
    """
    for array in (labels, *([] if probability is None else [probability])):
        if array.shape != ct.hu.shape:
            raise InputError(f"the lesions of shape {array.shape} do not lie on the voxels of the CT, {ct.hu.shape}")
    stack = slice_stack(ct)
    canonical = to_canonical(to_regular(ct, stack))
    lesions = []
    for label in np.unique(labels[labels > 0]).tolist():
        source = labels == label
        if stack.is_regular:
            mask = to_canonical(replace(ct, hu=source.astype(np.int16))).hu > 0
        else:
            # On the regular grid that is interpolated between slices, half of a lesion's value is its edge.
            mask = to_canonical(to_regular(replace(ct, hu=source.astype(np.int16) * 1000), stack)).hu >= 500
        if mask.any():
            k, j, i = box = bounding_box(mask)
            sizes = measure(mask[box], canonical, (k.start, j.start, i.start))
            name = names.get(label, f"Lesion {label:02d}")
            lesions.append(FoundLesion(label, name, scores.get(label), Region(box, mask[box].copy()), sizes))
    if probability is not None:
        on_grid = to_canonical(to_regular(replace(ct, hu=probability.astype(np.int16)), stack)).hu
        probability = np.clip(on_grid, 0, 255).astype(np.uint8)
    return TimePoint(canonical, tuple(lesions), probability, by)
