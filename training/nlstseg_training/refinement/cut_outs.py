"""Batches of cut-outs: lesions of crops and chests, transplanted and synthetic ones, and what the first network wrongly marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.batches.pool import CasePool
from nlstseg_training.batches.synthetic import blend, synthetic_lesion
from nlstseg_training.batches.transplant import LoadedCase, transplant
from nlstseg_training.data.cache import CaseEntry
from nlstseg_training.refinement.augmentation import vary
from nlstseg_training.refinement.candidates import Place
from nlstseg_training.refinement.cut_out_voxels import Piece, Size, continued, dense_places, piece_around, soft_target
from nlstseg_training.refinement.recipe import RefinementRecipe
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.candidates import slice_step
from NLSTSegLib.inference.refinement import network_input

WIDER = 1.5
"""A cut-out is made this many times as wide as it will be, so that turned and scaled it still shows real voxels."""

ROOM_SLICES = 8
"""More slices while a lesion is put into a lung, so that it can then be cut out with its middle in the middle."""

LEAST_LEFT = 6
"""Voxels of a lesion that are left where it grew into lung alone; fewer, and another is tried."""

OFF_MIDDLE_SLICES = 1.5


class NoLesions:
    """Places that are no lesion: what the first network wrongly marks, and vessels and walls, as often from every case."""

    def __init__(self, marked: Sequence[Place], vessels: Iterable[list[Place]]) -> None:
        self.marked = marked
        self.vessels = [places for places in vessels if places]

    def __bool__(self) -> bool:
        return bool(self.marked or self.vessels)

    def draw(self, rng: np.random.Generator, share_of_vessels: float) -> Place:
        """One of them; of the one kind alone when there is none of the other."""
        if self.vessels and (not self.marked or rng.random() < share_of_vessels):
            places = self.vessels[rng.integers(len(self.vessels))]
            return places[rng.integers(len(places))]
        return self.marked[rng.integers(len(self.marked))]


class CutOuts(torch.utils.data.Dataset):
    """Batch number n is always the same for the same seed and cases.

    Item: input float32 ``[batch, 2, k, j, i]``, target float32 ``[batch, 1, k, j, i]``, and 1 where the cut-out has a lesion in
    its middle, float32 ``[batch]``.
    """

    def __init__(
        self,
        cache: Path,
        entries: Sequence[CaseEntry],
        places: Sequence[Place],
        recipe: RefinementRecipe,
        *,
        seed: int,
        count: int,
    ):
        self.recipe, self.seed, self.count = recipe, seed, count
        self.pool = CasePool(cache, entries, seed, recipe.block_cases)
        self.places = places
        self._vessels: dict[str, list[Place]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self._load(number // self.recipe.block_batches)
        rng = np.random.default_rng((self.seed, number))
        recipe = self.recipe
        large = number % recipe.large_every == recipe.large_every - 1
        size, count = (recipe.large_kji, recipe.large_batch) if large else (recipe.size_kji, recipe.batch)
        wide = (size[0], round(size[1] * WIDER), round(size[2] * WIDER))
        makers = self._makers()
        ends = np.cumsum([share for share, _, _ in makers])
        drawn = [makers[int(np.searchsorted(ends, (n + rng.random()) / count))] for n in range(count)]
        pieces = [make(rng, wide, large) for _, make, _ in drawn]
        hu, target, there = (torch.from_numpy(np.stack(part).astype(np.float32)) for part in zip(*pieces, strict=True))
        hu, target, there = vary(hu, target, there, size[1], recipe.augmentation, rng, own_pixels=recipe.own_pixels)
        shown = [network_input(h, t > 0, recipe.window_hu) for h, t in zip(hu.numpy(), there.numpy(), strict=True)]
        labels = torch.tensor([label for _, _, label in drawn])
        return torch.from_numpy(np.stack(shown)), (target * there)[:, None], labels

    def _load(self, block: int) -> None:
        """The cases of the block, and what can be drawn from them."""
        if not self.pool.load(block):
            return
        self._crops = [loaded for loaded in self.pool.crops.values() if loaded.lesions]
        self._deep = [loaded for loaded in self.pool.chests.values() if loaded.air is not None]
        here = [place for place in self.places if place.case_id in self.pool.crops or place.case_id in self.pool.chests]
        self._centres = {place.case_id: place.centre_kji for place in here if place.lesion}
        self._lesions = [place for place in here if place.lesion and place.case_id in self.pool.chests]
        wrong = [place for place in here if not place.lesion]
        loaded = self.pool.crops | self.pool.chests
        # They are always the same of a case, and most cases of a block were in the one before.
        self._vessels = {name: self._vessels[name] if name in self._vessels else dense_places(loaded[name]) for name in loaded}
        self._in_crops, self._in_chests = (
            NoLesions([place for place in wrong if place.case_id in cases], [self._vessels[name] for name in cases])
            for cases in (self.pool.crops, self.pool.chests)
        )
        if not (self._in_crops or self._in_chests):
            raise InputError("the cases hold nothing that is no lesion, neither a wrong mark nor a vessel; add whole chests")

    def _makers(self) -> tuple[tuple[float, Callable[..., Piece], float], ...]:
        """Share of the batch, what makes it, and whether it is a lesion; shares of which there is nothing go to the last."""
        shares, crops, deep = self.recipe.shares, bool(self._crops), bool(self._deep)
        # Whole chests alone are data sets of their own, where all lesions have their surroundings.
        in_chests = shares.chests if crops else shares.crops + shares.transplants + shares.chests
        return (
            (shares.crops * crops, self._crop, 1.0),
            (shares.transplants * (crops and deep), self._transplant, 1.0),
            (shares.synthetic * deep, self._synthetic, 1.0),
            (in_chests * bool(self._lesions), self._chest, 1.0),
            (shares.wrong_in_crops * bool(self._in_crops), self._wrong_in_crop, 0.0),
            (1.0, self._wrong_in_chest if self._in_chests else self._wrong_in_crop, 0.0),
        )

    def _crop(self, rng: np.random.Generator, size: Size, large: bool) -> Piece:
        """A nodule of a crop; beyond its stack nothing, or the end slices with lung in the nodule's place."""
        while True:
            loaded = self._any_crop(rng)
            voxels = loaded.lesions[0]
            width_px = int(np.ptp(voxels[:, 1:], axis=0).max())
            if not large or width_px > self.recipe.size_kji[1] // 3 or rng.random() < 0.1:
                break
        middle = voxels.mean(axis=0)
        if loaded.case.id in self._centres and rng.random() < 0.5:
            middle = np.array(self._centres[loaded.case.id], float)
        step = slice_step(loaded.spacing_kji_mm[0])
        hu, target = loaded.hu, loaded.target
        if rng.random() < self.recipe.continued:
            more = size[0] * step // 2
            hu, target = continued(loaded, more, rng)
            middle[0] += more
        return self._around(hu, target, middle, size, step, rng)

    def _transplant(self, rng: np.random.Generator, size: Size, large: bool) -> Piece:
        """A nodule of a crop, scaled, blended into a whole lung."""
        while True:
            loaded, heights_mm, axes = self._site(rng, size)
            zoom = float(np.exp(rng.uniform(*np.log(self.recipe.mass_zoom if large else self.recipe.augmentation.zoom))))
            pixel_mm, side = loaded.spacing_kji_mm[1] / zoom, len(axes[1])
            share, lesion_hu, soft = transplant(self._any_crop(rng), heights_mm / zoom, pixel_mm, side, rng)
            piece = self._grown(loaded, axes, share, lesion_hu, soft_target(soft * 255), size, rng)
            if piece is not None:
                return piece

    def _synthetic(self, rng: np.random.Generator, size: Size, large: bool) -> Piece:
        while True:
            loaded, heights_mm, axes = self._site(rng, size)
            side = len(axes[1])
            box, box_hu = synthetic_lesion(heights_mm, loaded.spacing_kji_mm[0], loaded.spacing_kji_mm[1], side, rng)
            start = (side - box.shape[1]) // 2
            inner = slice(start, start + box.shape[1])
            share, lesion_hu = np.zeros((2, len(heights_mm), side, side), np.float32)
            share[:, inner, inner], lesion_hu[:, inner, inner] = box, box_hu
            piece = self._grown(loaded, axes, share, lesion_hu, (share >= 0.5).astype(np.float32), size, rng)
            if piece is not None:
                return piece

    def _site(self, rng: np.random.Generator, size: Size) -> tuple[LoadedCase, np.ndarray, list[np.ndarray]]:
        """A place in a lung to grow in: the case, heights of the slices over it, and slices, rows and columns around it."""
        loaded = self._deep[rng.integers(len(self._deep))]
        place = loaded.places[rng.integers(len(loaded.places))]
        steps = (slice_step(loaded.spacing_kji_mm[0]), 1, 1)
        sides = (size[0] + ROOM_SLICES, size[1] * 3 // 2, size[2] * 3 // 2)
        offsets = [(np.arange(side) - side // 2) * step for side, step in zip(sides, steps, strict=True)]
        return loaded, offsets[0] * loaded.spacing_kji_mm[0], [n + own for n, own in zip(place, offsets, strict=True)]

    def _grown(
        self,
        loaded: LoadedCase,
        axes: Sequence[np.ndarray],
        share: np.ndarray,
        lesion_hu: np.ndarray,
        soft: np.ndarray,
        size: Size,
        rng: np.random.Generator,
    ) -> Piece | None:
        """The lesion where there is lung, cut out around its middle; None when too little of it is left."""
        shape = loaded.hu.shape
        index = np.ix_(*(np.clip(axis, 0, length - 1) for axis, length in zip(axes, shape, strict=True)))
        k, j, i = ((axis >= 0) & (axis < length) for axis, length in zip(axes, shape, strict=True))
        there = k[:, None, None] & j[:, None] & i
        assert loaded.air is not None
        air = loaded.air[index] & there
        grown = soft * air
        if np.count_nonzero(grown > 0.5) < LEAST_LEFT:
            return None
        hu = blend(loaded.hu[index].astype(np.float32), share * air, lesion_hu)
        hu[~there] = np.nan
        target = np.maximum(grown, soft_target(loaded.target[index]))
        return self._around(hu, target, np.argwhere(grown > 0.5).mean(axis=0), size, 1, rng)

    def _chest(self, rng: np.random.Generator, size: Size, large: bool) -> Piece:
        return self._at(self._lesions[rng.integers(len(self._lesions))], size, rng)

    def _wrong_in_crop(self, rng: np.random.Generator, size: Size, large: bool) -> Piece:
        return self._at(self._in_crops.draw(rng, self.recipe.anywhere), size, rng)

    def _wrong_in_chest(self, rng: np.random.Generator, size: Size, large: bool) -> Piece:
        return self._at(self._in_chests.draw(rng, self.recipe.anywhere), size, rng)

    def _any_crop(self, rng: np.random.Generator) -> LoadedCase:
        return self._crops[rng.integers(len(self._crops))]

    def _at(self, place: Place, size: Size, rng: np.random.Generator) -> Piece:
        loaded = self.pool.crops.get(place.case_id) or self.pool.chests[place.case_id]
        middle, step = np.array(place.centre_kji, float), slice_step(loaded.spacing_kji_mm[0])
        return self._around(loaded.hu, loaded.target, middle, size, step, rng)

    def _around(
        self, hu: np.ndarray, target: np.ndarray, middle: np.ndarray, size: Size, step: int, rng: np.random.Generator
    ) -> Piece:
        """Cut out a little beside ``middle``, as the middles of the first network's candidates are."""
        off = np.array((OFF_MIDDLE_SLICES, self.recipe.off_middle_px, self.recipe.off_middle_px))
        last = np.array(hu.shape) - 1
        beside, itself = (np.clip(np.round(middle + shift).astype(int), 0, last) for shift in (rng.uniform(-off, off), 0))
        centre = beside if np.isfinite(hu[tuple(beside)]) else itself
        return piece_around(hu, target, centre, size, step, short=rng.random() < self.recipe.cut_short, rng=rng)
