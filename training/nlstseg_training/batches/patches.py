"""Training batches: lesions, nodule crops, transplanted and synthetic lesions, plain lung, mined false positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.batches.augmentation import SAFE_MARGIN, Augmenter
from nlstseg_training.batches.composition import composition, has_lesions, is_deep, sources_of
from nlstseg_training.batches.stored import Shelf, StoredCase
from nlstseg_training.batches.synthetic import blend, synthetic_lesion
from nlstseg_training.batches.transplant import transplant, without_lesion
from nlstseg_training.data.cache import CaseEntry
from nlstseg_training.recipe import Augmentation, Recipe, Sampling

Window = tuple[np.ndarray, np.ndarray, np.ndarray]
"""HU ``[slice, j, i]``, target ``[slice or 1, j, i]`` (0..1), and the slice of the case that each of ``hu`` came from."""


@dataclass(frozen=True)
class Mined:
    """A place where the network marked something that is no lesion."""

    case_id: str
    kji: tuple[int, int, int]


class Batches(torch.utils.data.Dataset):
    """Batch number n is always the same for the same seed, cases and mined places, so an interrupted training can go on.

    Item: input float32 ``[batch, slice, j, i]`` (3D: ``[batch, 1, k, j, i]``), target float32 ``[batch, 1, (k,) j, i]``, and
    the ids of the cases in the batch. Patches are read from the disk one by one (:mod:`.stored`), from any case at any time.
    """

    def __init__(
        self,
        cache: Path,
        entries: Sequence[CaseEntry],
        recipe: Recipe,
        sampling: Sampling,
        *,
        seed: int,
        count: int,
        mined: Sequence[Mined] = (),
        augment: bool = True,
    ):
        self.recipe, self.sampling, self.seed, self.count = recipe, sampling, seed, count
        self.cases = Shelf(cache, entries)
        self.crops = [entry.id for entry in entries if entry.kind == "crop"]
        self.chests = [entry.id for entry in entries if entry.kind != "crop"]
        self.with_lesions = [entry.id for entry in entries if has_lesions(entry)]
        self.deep = [entry.id for entry in entries if is_deep(entry)]
        # A patient with many slices gives more, but not in proportion: it is still one patient.
        self.weights = {entry.id: entry.shape_kji[0] ** 0.6 for entry in entries}
        chests = set(self.chests)
        self.mined = [place for place in mined if place.case_id in chests]
        self.counts = composition(sampling, sources_of(entries) | ({"mined"} if self.mined else set()))
        self.half_px = int(np.ceil(sampling.side_px * (1 if sampling.whole_slices else SAFE_MARGIN) / 2))
        self.augmenter = Augmenter(recipe.augmentation if augment else Augmentation(), sampling.side_px)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        rng = np.random.default_rng((self.seed, number))
        makers = {
            "lesions": self._lesion,
            "crops": self._crop,
            "transplants": self._transplant,
            "synthetic": self._synthetic,
            "mined": self._mined,
            "lung": self._lung,
        }
        inputs, targets, ids = [], [], []
        for source, count in self.counts.items():
            for _ in range(count):
                case, window = makers[source](rng)
                hu, target = self.augmenter(*window[:2], rng, window[2])
                inputs.append(torch.from_numpy(self.recipe.input.scale(hu)))
                targets.append(torch.from_numpy(target))
                ids.append(case.entry.id)
        x, y = torch.stack(inputs), torch.stack(targets)
        if self.recipe.architecture.dimensions == 3:
            x, y = x[:, None], y[:, None]
        return x, y, sorted(set(ids))

    def _slices(self, case: StoredCase, k: int) -> np.ndarray:
        """Numbers of the slices that are seen with slice ``k``; beyond the ends the end slice."""
        return np.clip(self._wanted(case, k), 0, case.entry.shape_kji[0] - 1)

    def _wanted(self, case: StoredCase, k: int) -> np.ndarray:
        spec = self.recipe.input
        if spec.patch_kji is not None:
            return k + np.arange(spec.patch_kji[0]) - spec.patch_kji[0] // 2
        return k + spec.slice_offsets(case.spacing_kji_mm[0])

    def _window(self, case: StoredCase, kji: Sequence[int] | np.ndarray) -> tuple[Window, tuple]:
        """The patch around a voxel, and its rows and columns; the border is repeated outwards."""
        if self.sampling.whole_slices:
            kji = (kji[0], case.entry.shape_kji[1] // 2, case.entry.shape_kji[2] // 2)
        half = self.half_px
        slices = self._slices(case, int(kji[0]))
        rows = np.clip(np.arange(kji[1] - half, kji[1] + half), 0, case.entry.shape_kji[1] - 1)
        columns = np.clip(np.arange(kji[2] - half, kji[2] + half), 0, case.entry.shape_kji[2] - 1)
        hu = case.hu_at(slices, rows, columns)
        shown = slices if self.recipe.architecture.dimensions == 3 else slices[len(slices) // 2 : len(slices) // 2 + 1]
        target = case.target_at(shown, rows, columns)
        return (hu, target, slices), (rows, columns)

    def _lung(self, rng: np.random.Generator) -> tuple[StoredCase, Window]:
        case, place = self._lung_place(rng, self.chests)
        return case, self._window(case, place)[0]

    def _lung_place(self, rng: np.random.Generator, ids: Sequence[str]) -> tuple[StoredCase, np.ndarray]:
        weights = np.array([self.weights[case_id] for case_id in ids])
        case = self.cases[ids[rng.choice(len(ids), p=weights / weights.sum())]]
        return case, case.lung_places[rng.integers(len(case.lung_places))].astype(int)

    def _lesion(self, rng: np.random.Generator) -> tuple[StoredCase, Window]:
        case = self.cases[self.with_lesions[rng.integers(len(self.with_lesions))]]
        if not case.lesions:  # all were too small for the cache's spacing
            return self._lung(rng)
        voxels = case.lesions[rng.integers(len(case.lesions))]
        return case, self._window(case, self._near(rng, voxels[rng.integers(len(voxels))].astype(int)))[0]

    def _near(self, rng: np.random.Generator, kji: Sequence[int]) -> np.ndarray:
        """A place in whose patch ``kji`` is seen, anywhere in it: else the network learns that the middle is the lesion."""
        reach = self.sampling.side_px // 4
        return np.asarray(kji) + rng.integers(-reach, reach + 1, 3) * (0, 1, 1)

    def _mined(self, rng: np.random.Generator) -> tuple[StoredCase, Window]:
        place = self.mined[rng.integers(len(self.mined))]
        case = self.cases[place.case_id]
        return case, self._window(case, self._near(rng, place.kji))[0]

    def _crop(self, rng: np.random.Generator) -> tuple[StoredCase, Window]:
        """A nodule crop; beyond its stack the end slice, most often freed of the nodule."""
        case = self._any_crop(rng)
        k = int(rng.integers(case.entry.shape_kji[0]))
        middle = (k, case.entry.shape_kji[1] // 2, case.entry.shape_kji[2] // 2)
        (hu, target, slices), (rows, columns) = self._window(case, middle)
        if rng.random() >= self.sampling.repeated_ends:
            for n, source in enumerate(self._wanted(case, k)):
                if not 0 <= source < case.entry.shape_kji[0]:
                    end = 0 if source < 0 else case.entry.shape_kji[0] - 1
                    hu[n] = without_lesion(case.hu[end], case.target[end], rng)[np.ix_(rows, columns)]
                    if len(target) > 1:
                        target[n] = 0
        return case, (hu, target, slices)

    def _any_crop(self, rng: np.random.Generator) -> StoredCase:
        return self.cases[self.crops[rng.integers(len(self.crops))]]

    def _heights_mm(self, case: StoredCase, place: Sequence[int] | np.ndarray) -> np.ndarray:
        """Heights of the slices around ``place``, over it."""
        return (self._wanted(case, int(place[0])) - place[0]) * case.spacing_kji_mm[0]

    def _put(
        self, case: StoredCase, place: Sequence[int] | np.ndarray, share: np.ndarray, lesion_hu: np.ndarray, soft: np.ndarray
    ) -> Window:
        """The patch at ``place`` with a lesion in it, all of the size of the patch; it grows in lung alone, image and label."""
        (hu, target, slices), (rows, columns) = self._window(case, place)
        air = case.air_at(slices, rows, columns)
        added = soft * air if len(target) > 1 else (soft * air)[len(slices) // 2][None]
        return blend(hu, share * air, lesion_hu), np.maximum(target, added), slices

    def _synthetic(self, rng: np.random.Generator) -> tuple[StoredCase, Window]:
        case, place = self._lung_place(rng, self.deep)
        side = 2 * self.half_px
        pixel_mm = case.spacing_kji_mm[1]
        share, hu = synthetic_lesion(self._heights_mm(case, place), case.spacing_kji_mm[0], pixel_mm, side, rng)
        placed = np.zeros((2, len(share), side, side), np.float32)
        j, i = self._offset(rng, side - share.shape[1])
        placed[:, :, j : j + share.shape[1], i : i + share.shape[2]] = share, hu
        return case, self._put(case, place, placed[0], placed[1], (placed[0] >= 0.5).astype(np.float32))

    def _offset(self, rng: np.random.Generator, free: int) -> np.ndarray:
        """Where a box begins in the patch: about its middle, so that what is cut off later still shows it."""
        return np.clip(free // 2 + rng.integers(-self.sampling.side_px // 4, self.sampling.side_px // 4 + 1, 2), 0, free)

    def _transplant(self, rng: np.random.Generator) -> tuple[StoredCase, Window]:
        """A whole nodule of a crop, scaled, blended into a whole lung: true neighbours above and below."""
        case, place = self._lung_place(rng, self.deep)
        side = 2 * self.half_px
        donor = self._any_crop(rng)
        zooms = self.sampling.mass_zoom if rng.random() < self.sampling.mass_share else self.recipe.augmentation.zoom
        zoom = float(np.exp(rng.uniform(*np.log(zooms))))
        heights_mm = (
            self._heights_mm(case, place) + rng.uniform(-0.5, 0.5) * donor.entry.shape_kji[0] * donor.spacing_kji_mm[0] * zoom
        )
        share, hu, soft = transplant(donor, heights_mm / zoom, case.spacing_kji_mm[1] / zoom, side, rng)
        return case, self._put(case, place, share, hu, soft)
