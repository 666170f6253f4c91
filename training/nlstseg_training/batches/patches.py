"""Training batches: lesions, nodule crops, transplanted and synthetic lesions, plain lung, mined false positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.batches.augmentation import SAFE_MARGIN, Augmenter
from nlstseg_training.batches.pool import CasePool
from nlstseg_training.batches.synthetic import blend, synthetic_lesion
from nlstseg_training.batches.transplant import LoadedCase, transplant, without_lesion
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
    the ids of the cases in the batch. Chests are drawn in blocks (:attr:`~nlstseg_training.recipe.Sampling.block_cases`),
    since a data set does not fit the memory; crops are small and always there.
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
        self.cache, self.recipe, self.sampling, self.seed, self.count = cache, recipe, sampling, seed, count
        self.pool = CasePool(cache, entries, seed, sampling.block_cases)
        self.with_lesions = {entry.id for entry in entries if entry.lesions and entry.kind == "chest"}
        self.mined: dict[str, list[Mined]] = {}
        for place in mined:
            self.mined.setdefault(place.case_id, []).append(place)
        self.augmenter = Augmenter(recipe.augmentation if augment else Augmentation(), sampling.side_px)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        self.pool.load(number // self.sampling.block_batches)
        rng = np.random.default_rng((self.seed, number))
        inputs, targets, ids = [], [], []
        for maker in self._makers(rng):
            loaded, window = maker(rng)
            hu, target = self.augmenter(*window[:2], rng, window[2])
            inputs.append(torch.from_numpy(self.recipe.input.scale(hu)))
            targets.append(torch.from_numpy(target))
            ids.append(loaded.case.id)
        x, y = torch.stack(inputs), torch.stack(targets)
        if self.recipe.architecture.dimensions == 3:
            x, y = x[:, None], y[:, None]
        return x, y, sorted(set(ids))

    def _makers(self, rng: np.random.Generator) -> list:
        """What each patch of the batch is made by; shares of which there is nothing become plain lung (or crops)."""
        sampling, chests = self.sampling, self.pool.chests
        lesions = [loaded for loaded in chests.values() if loaded.lesions]
        deep = [loaded for loaded in chests.values() if loaded.air is not None]
        mined = [place for case_id in chests for place in self.mined.get(case_id, ())]
        shares = (
            (sampling.lesions if lesions else 0.0, lambda rng: self._lesion(rng, lesions)),
            (sampling.crops if self.pool.crop_ids else 0.0, self._crop),
            (sampling.transplants if self.pool.crop_ids and deep else 0.0, lambda rng: self._transplant(rng, deep)),
            (sampling.synthetic if deep else 0.0, lambda rng: self._synthetic(rng, deep)),
            (sampling.mined if mined else 0.0, lambda rng: self._mined(rng, mined)),
            (1.0, self._lung if chests else self._crop),
        )
        ends = np.cumsum([share for share, _ in shares])
        return [shares[int(np.searchsorted(ends, (n + 0.5) / sampling.batch))][1] for n in range(sampling.batch)]

    def _slices(self, loaded: LoadedCase, k: int) -> np.ndarray:
        """Numbers of the slices that are seen with slice ``k``; beyond the ends the end slice."""
        return np.clip(self._wanted(loaded, k), 0, len(loaded.hu) - 1)

    def _wanted(self, loaded: LoadedCase, k: int) -> np.ndarray:
        spec = self.recipe.input
        if spec.patch_kji is not None:
            return k + np.arange(spec.patch_kji[0]) - spec.patch_kji[0] // 2
        return k + spec.slice_offsets(loaded.spacing_kji_mm[0])

    def _window(self, loaded: LoadedCase, kji: Sequence[int]) -> tuple[Window, tuple]:
        """The patch around a voxel, and its rows and columns; the border is repeated outwards."""
        if self.sampling.whole_slices:
            kji = (kji[0], loaded.hu.shape[1] // 2, loaded.hu.shape[2] // 2)
        half = int(np.ceil(self.sampling.side_px * (1 if self.sampling.whole_slices else SAFE_MARGIN) / 2))
        slices = self._slices(loaded, int(kji[0]))
        rows = np.clip(np.arange(kji[1] - half, kji[1] + half), 0, loaded.hu.shape[1] - 1)
        columns = np.clip(np.arange(kji[2] - half, kji[2] + half), 0, loaded.hu.shape[2] - 1)
        hu = loaded.hu[np.ix_(slices, rows, columns)].astype(np.float32)
        shown = slices if self.recipe.architecture.dimensions == 3 else slices[len(slices) // 2 : len(slices) // 2 + 1]
        target = loaded.target[np.ix_(shown, rows, columns)].astype(np.float32) / 255
        return (hu, target, slices), (rows, columns)

    def _lung(self, rng: np.random.Generator) -> tuple[LoadedCase, Window]:
        loaded = self._any(rng, list(self.pool.chests.values()))
        return loaded, self._window(loaded, loaded.places[rng.integers(len(loaded.places))])[0]

    def _any(self, rng: np.random.Generator, chests: Sequence[LoadedCase]) -> LoadedCase:
        weights = np.array([self.pool.weights[loaded.case.id] for loaded in chests])
        return chests[rng.choice(len(chests), p=weights / weights.sum())]

    def _lesion(self, rng: np.random.Generator, chests: Sequence[LoadedCase]) -> tuple[LoadedCase, Window]:
        loaded = chests[rng.integers(len(chests))]
        voxels = loaded.lesions[rng.integers(len(loaded.lesions))]
        return loaded, self._window(loaded, self._near(rng, voxels[rng.integers(len(voxels))]))[0]

    def _near(self, rng: np.random.Generator, kji: Sequence[int]) -> np.ndarray:
        """A place in whose patch ``kji`` is seen, anywhere in it: else the network learns that the middle is the lesion."""
        reach = self.sampling.side_px // 4
        return np.asarray(kji) + rng.integers(-reach, reach + 1, 3) * (0, 1, 1)

    def _mined(self, rng: np.random.Generator, places: Sequence[Mined]) -> tuple[LoadedCase, Window]:
        place = places[rng.integers(len(places))]
        loaded = self.pool.chests[place.case_id]
        return loaded, self._window(loaded, self._near(rng, place.kji))[0]

    def _crop(self, rng: np.random.Generator) -> tuple[LoadedCase, Window]:
        """A nodule crop; beyond its stack the end slice, most often freed of the nodule."""
        loaded = self.pool.crops[self.pool.crop_ids[rng.integers(len(self.pool.crop_ids))]]
        k = int(rng.integers(len(loaded.hu)))
        middle = (k, loaded.hu.shape[1] // 2, loaded.hu.shape[2] // 2)
        (hu, target, slices), (rows, columns) = self._window(loaded, middle)
        if rng.random() >= self.sampling.repeated_ends:
            for n, source in enumerate(self._wanted(loaded, k)):
                if not 0 <= source < len(loaded.hu):
                    end = 0 if source < 0 else len(loaded.hu) - 1
                    hu[n] = without_lesion(loaded.hu[end], loaded.target[end], rng)[np.ix_(rows, columns)]
                    if len(target) > 1:
                        target[n] = 0
        return loaded, (hu, target, slices)

    def _heights_mm(self, loaded: LoadedCase, place: Sequence[int]) -> np.ndarray:
        """Heights of the slices around ``place``, over it."""
        return (self._wanted(loaded, int(place[0])) - place[0]) * loaded.spacing_kji_mm[0]

    def _put(
        self, loaded: LoadedCase, place: Sequence[int], share: np.ndarray, lesion_hu: np.ndarray, soft: np.ndarray
    ) -> Window:
        """The patch at ``place`` with a lesion in it, all of the size of the patch; it grows in lung alone, image and label."""
        (hu, target, slices), (rows, columns) = self._window(loaded, place)
        assert loaded.air is not None
        air = loaded.air[np.ix_(slices, rows, columns)]
        added = soft * air if len(target) > 1 else (soft * air)[len(slices) // 2][None]
        return blend(hu, share * air, lesion_hu), np.maximum(target, added), slices

    def _synthetic(self, rng: np.random.Generator, deep: Sequence[LoadedCase]) -> tuple[LoadedCase, Window]:
        loaded = self._any(rng, deep)
        place = loaded.places[rng.integers(len(loaded.places))]
        side = len(self._window(loaded, place)[1][0])
        pixel_mm = loaded.spacing_kji_mm[1]
        share, hu = synthetic_lesion(self._heights_mm(loaded, place), loaded.spacing_kji_mm[0], pixel_mm, side, rng)
        placed = np.zeros((2, len(share), side, side), np.float32)
        j, i = self._offset(rng, side - share.shape[1])
        placed[:, :, j : j + share.shape[1], i : i + share.shape[2]] = share, hu
        return loaded, self._put(loaded, place, placed[0], placed[1], (placed[0] >= 0.5).astype(np.float32))

    def _offset(self, rng: np.random.Generator, free: int) -> np.ndarray:
        """Where a box begins in the patch: about its middle, so that what is cut off later still shows it."""
        return np.clip(free // 2 + rng.integers(-self.sampling.side_px // 4, self.sampling.side_px // 4 + 1, 2), 0, free)

    def _transplant(self, rng: np.random.Generator, deep: Sequence[LoadedCase]) -> tuple[LoadedCase, Window]:
        """A whole nodule of a crop, scaled, blended into a whole lung: true neighbours above and below."""
        loaded = self._any(rng, deep)
        place = loaded.places[rng.integers(len(loaded.places))]
        side = len(self._window(loaded, place)[1][0])
        donor = self.pool.crops[self.pool.crop_ids[rng.integers(len(self.pool.crop_ids))]]
        zooms = self.sampling.mass_zoom if rng.random() < self.sampling.mass_share else self.recipe.augmentation.zoom
        zoom = float(np.exp(rng.uniform(*np.log(zooms))))
        heights_mm = self._heights_mm(loaded, place) + rng.uniform(-0.5, 0.5) * len(donor.hu) * donor.spacing_kji_mm[0] * zoom
        share, hu, soft = transplant(donor, heights_mm / zoom, loaded.spacing_kji_mm[1] / zoom, side, rng)
        return loaded, self._put(loaded, place, share, hu, soft)
