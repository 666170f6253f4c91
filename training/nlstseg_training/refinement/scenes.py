"""Chests that candidates are cut out of: as they are, at half their resolution, with thicker slices, with contrast."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nlstseg_training.data.cache import Case
from nlstseg_training.refinement.candidates import LabelledCandidate
from nlstseg_training.refinement.pool import LoadedCase
from nlstseg_training.refinement.variants import between_lungs, thicker, with_contrast

CONTRAST_HU = (60.0, 300.0)
"""HU by which contrast makes blood brighter."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A chest, or one at half its resolution, with ``slices`` of the case's own averaged in each of its slices."""

    loaded: LoadedCase
    slices: int

    def centre_of(self, place: LabelledCandidate) -> np.ndarray:
        """Centre of a place in the case, here."""
        k, j, i = place.centre_kji
        return np.array((min(k // self.slices, len(self.loaded.hu) - 1), j, i), float)


def scene_of(case: Case, rng: np.random.Generator, *, thickest_mm: float, thicker_share: float, contrast_share: float) -> Scene:
    """The case, a share of them with thicker slices, a share with contrast in the blood."""
    slices = 1
    most = min(int(thickest_mm / case.ct.spacing_ijk_mm[2]), len(case.ct.hu) // 4)
    if most > 1 and rng.random() < thicker_share:
        slices = int(rng.integers(2, most + 1))
        case = thicker(case, slices)
    if case.lungs is not None and rng.random() < contrast_share:
        hu = with_contrast(case.ct.hu, between_lungs(case.lungs) & (case.target == 0), rng.uniform(*CONTRAST_HU))
        case = replace(case, ct=replace(case.ct, hu=np.round(hu).astype(np.int16)))
    return Scene(LoadedCase(case), slices)
