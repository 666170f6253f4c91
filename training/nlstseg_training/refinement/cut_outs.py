"""Batches of cut-outs: lesions of crops and chests, transplanted and synthetic ones, and what the first network wrongly marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.batches.synthetic import blend, synthetic_lesion
from nlstseg_training.batches.transplant import transplant
from nlstseg_training.data.cache import Case, CaseEntry
from nlstseg_training.refinement.augmentation import vary
from nlstseg_training.refinement.candidates import LabelledCandidate
from nlstseg_training.refinement.cut_out_voxels import CutOutArrays, Size, arrays_around, continued, dense_places, soft_target
from nlstseg_training.refinement.pool import CasePool, LoadedCase
from nlstseg_training.refinement.recipe import RefinementRecipe
from nlstseg_training.refinement.scenes import CONTRAST_HU, Scene, scene_of
from nlstseg_training.refinement.variants import downsampled_case, with_contrast
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.candidates import slice_step
from NLSTSegLib.inference.low_resolution import FACTOR
from NLSTSegLib.inference.refinement import network_input

WIDER = 1.5
"""A cut-out is made this many times as wide as it will be, so that turned and scaled it still shows real voxels."""

ROOM_SLICES = 8
"""More slices while a lesion is put into a lung, so that it can then be cut out with its middle in the middle."""

LEAST_LEFT, LEAST_SHARE_LEFT = 6, 0.3
"""Voxels, and share, of a lesion that are left where it grew into lung alone; of less another is tried: a sliver beside the wall
is no mass."""

OFF_MIDDLE_SLICES = 1.5

EASY = 0.1
"""A wrong mark that the network knows for one is drawn so often, where one that it takes for a lesion is drawn once."""


class NoLesions:
    """Candidates that are no lesion: what the first network wrongly marks, and vessels and walls, as often from every case."""

    def __init__(self, marked: Sequence[LabelledCandidate], vessels: Iterable[list[LabelledCandidate]]) -> None:
        self.marked = marked
        # What the network takes for a lesion, in cut-outs of this size, is what it has to learn.
        logits = np.array([place.logits for place in marked]).reshape(-1, 2)
        self.ends = np.cumsum(EASY + 1 / (1 + np.exp(-logits)), axis=0)
        self.vessels = [places for places in vessels if places]

    def __bool__(self) -> bool:
        return bool(self.marked or self.vessels)

    def draw(self, rng: np.random.Generator, share_of_vessels: float, large: bool) -> LabelledCandidate:
        """One of them; of the one kind alone when there is none of the other."""
        if self.vessels and (not self.marked or rng.random() < share_of_vessels):
            places = self.vessels[rng.integers(len(self.vessels))]
            return places[rng.integers(len(places))]
        ends = self.ends[:, int(large)]
        return self.marked[int(np.searchsorted(ends, rng.random() * ends[-1]))]


class Ground:
    """What batches of one resolution are drawn from, of the chests of a block."""

    def __init__(
        self, scenes: dict[str, Scene], places: Iterable[LabelledCandidate], vessels: dict[str, list[LabelledCandidate]]
    ) -> None:
        self.scenes = scenes
        self.deep = [scene.loaded for scene in scenes.values() if scene.loaded.air is not None]
        here = [place for place in places if place.case_id in scenes]
        self.lesions = [place for place in here if place.lesion]
        self.none = NoLesions([place for place in here if not place.lesion], [vessels[name] for name in scenes])


class CutOuts(torch.utils.data.Dataset):
    """Batch number n is always the same for the same seed and cases.

    Item: input float32 ``[batch, 2, k, j, i]``, target float32 ``[batch, 1, k, j, i]``, and 1 where the cut-out has a lesion in
    its middle, float32 ``[batch]``.
    """

    def __init__(
        self,
        cache: Path,
        entries: Sequence[CaseEntry],
        places: Sequence[LabelledCandidate],
        recipe: RefinementRecipe,
        *,
        seed: int,
        count: int,
    ):
        self.recipe, self.seed, self.count = recipe, seed, count
        self.pool = CasePool(cache, entries, seed, recipe.block_cases)
        self.places = [place for place in places if not place.downsampled]
        self.downsampled_places = [place for place in places if place.downsampled]
        self._vessels: dict[tuple[str, bool], list[LabelledCandidate]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self._load(number // self.recipe.block_batches)
        rng = np.random.default_rng((self.seed, number))
        recipe = self.recipe
        batch = recipe.batches[number % len(recipe.batches)]
        size, count, large = batch.size_kji, batch.count, batch.size_kji > recipe.batches[0].size_kji
        wide = (size[0], round(size[1] * WIDER), round(size[2] * WIDER))
        makers = self._downsampled_makers() if batch.downsampled and self._downsampled.none else self._makers()
        ends = np.cumsum([share for share, _, _ in makers])
        drawn = [makers[int(np.searchsorted(ends, (n + rng.random()) / count))] for n in range(count)]
        pieces = [make(rng, wide, large) for _, make, _ in drawn]
        hu, target, inside_volume = (torch.from_numpy(np.stack(part).astype(np.float32)) for part in zip(*pieces, strict=True))
        hu, target, inside_volume = vary(
            hu, target, inside_volume, size[1], recipe.augmentation, rng, own_pixels=recipe.own_pixels
        )
        shown = [network_input(h, t > 0, recipe.window_hu) for h, t in zip(hu.numpy(), inside_volume.numpy(), strict=True)]
        labels = torch.tensor([label for _, _, label in drawn])
        return torch.from_numpy(np.stack(shown)), (target * inside_volume)[:, None], labels

    def _load(self, block: int) -> None:
        """The cases of the block, and what can be drawn from them."""
        if not self.pool.load(block):
            return
        chests, crops = self.pool.chests, self.pool.crops
        self._crops = [loaded for loaded in crops.values() if loaded.lesions]
        self._centres = {place.case_id: place.centre_kji for place in self.places if place.lesion}
        small = {name: LoadedCase(downsampled_case(loaded.case)) for name, loaded in chests.items() if loaded.is_deep}
        loaded_of = {(name, False): loaded for name, loaded in (chests | crops).items()}
        loaded_of |= {(name, True): loaded for name, loaded in small.items()}
        # They are always the same of a case, and most cases of a block were in the one before.
        self._vessels = {
            key: self._vessels[key] if key in self._vessels else dense_places(loaded, beside_lung=not key[1])
            for key, loaded in loaded_of.items()
        }

        def ground(cases: dict[str, LoadedCase], downsampled: bool) -> Ground:
            rng = np.random.default_rng((self.seed, block, 2 + downsampled))
            vessels = {name: self._vessels[name, downsampled] for name in cases}
            scenes = {name: self._scene(loaded.case, rng, downsampled) for name, loaded in cases.items()}
            return Ground(scenes, self.downsampled_places if downsampled else self.places, vessels)

        self._whole, self._downsampled = ground(chests, False), ground(small, True)
        as_they_are = {name: Scene(loaded, 1) for name, loaded in crops.items()}
        self._in_crops = Ground(as_they_are, self.places, {name: self._vessels[name, False] for name in crops})
        if not (self._in_crops.none or self._whole.none):
            raise InputError("the cases hold nothing that is no lesion, neither a wrong mark nor a vessel; add whole chests")

    def _scene(self, case: Case, rng: np.random.Generator, downsampled: bool) -> Scene:
        recipe = self.recipe
        thickest_mm = recipe.thickest_mm / (FACTOR if downsampled else 1)
        return scene_of(case, rng, thickest_mm=thickest_mm, thicker_share=recipe.thicker, contrast_share=recipe.contrast)

    def _makers(self) -> tuple[tuple[float, Callable[..., CutOutArrays], float], ...]:
        """Share of the batch, what makes it, and whether it is a lesion; shares of which there is nothing go to the last."""
        shares, crops, deep = self.recipe.shares, bool(self._crops), bool(self._whole.deep)
        # Whole chests alone are data sets of their own, where all lesions have their surroundings.
        in_chests = shares.chests if crops else shares.crops + shares.transplants + shares.chests
        return (
            (shares.crops * crops, self._crop, 1.0),
            (shares.transplants * (crops and deep), self._transplant, 1.0),
            (shares.synthetic * deep, self._synthetic, 1.0),
            (in_chests * bool(self._whole.lesions), self._chest, 1.0),
            (shares.wrong_in_crops * bool(self._in_crops.none), self._wrong_in_crop, 0.0),
            (1.0, self._wrong_in_chest if self._whole.none else self._wrong_in_crop, 0.0),
        )

    def _downsampled_makers(self) -> tuple[tuple[float, Callable[..., CutOutArrays], float], ...]:
        return (
            (self.recipe.low_resolution_masses * bool(self._downsampled.deep), self._mass, 1.0),
            (1.0, self._organ, 0.0),
        )

    def _crop(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        """A nodule of a crop; beyond its stack nothing, or the end slices with lung in the nodule's place."""
        while True:
            loaded = self._any_crop(rng)
            voxels = loaded.lesions[0]
            width_px = int(np.ptp(voxels[:, 1:], axis=0).max())
            if not large or width_px > self.recipe.batches[0].size_kji[1] // 3 or rng.random() < 0.1:
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
        if rng.random() < self.recipe.contrast:
            hu = with_contrast(hu, target == 0, rng.uniform(*CONTRAST_HU))
        return self._around(hu, target, middle, size, step, rng)

    def _transplant(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        """A nodule of a crop, scaled, blended into a whole lung."""
        while True:
            loaded, heights_mm, axes = self._site(self._whole, rng, size)
            zoom = float(np.exp(rng.uniform(*np.log(self.recipe.mass_zoom if large else self.recipe.augmentation.zoom))))
            pixel_mm, side = loaded.spacing_kji_mm[1] / zoom, len(axes[1])
            share, lesion_hu, soft = transplant(self._any_crop(rng), heights_mm / zoom, pixel_mm, side, rng)
            piece = self._grown(loaded, axes, share, lesion_hu, soft_target(soft * 255), size, rng)
            if piece is not None:
                return piece

    def _synthetic(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        return self._synthetic_in(self._whole, None, rng, size)

    def _mass(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        low_mm, high_mm = (diameter / FACTOR for diameter in self.recipe.low_resolution_mass_mm)
        return self._synthetic_in(self._downsampled, (low_mm, high_mm if large else (low_mm * high_mm) ** 0.5), rng, size)

    def _synthetic_in(
        self, ground: Ground, diameters_mm: tuple[float, float] | None, rng: np.random.Generator, size: Size
    ) -> CutOutArrays:
        while True:
            loaded, heights_mm, axes = self._site(ground, rng, size)
            k_mm, j_mm, _ = loaded.spacing_kji_mm
            side = len(axes[1])
            box, box_hu = synthetic_lesion(heights_mm, k_mm, j_mm, side, rng, diameters_mm)
            start = (side - box.shape[1]) // 2
            inner = slice(start, start + box.shape[1])
            share, lesion_hu = np.zeros((2, len(heights_mm), side, side), np.float32)
            share[:, inner, inner], lesion_hu[:, inner, inner] = box, box_hu
            piece = self._grown(loaded, axes, share, lesion_hu, (share >= 0.5).astype(np.float32), size, rng)
            if piece is not None:
                return piece

    def _site(self, ground: Ground, rng: np.random.Generator, size: Size) -> tuple[LoadedCase, np.ndarray, list[np.ndarray]]:
        """A place in a lung to grow in: the case, heights of the slices over it, and slices, rows and columns around it."""
        loaded = ground.deep[rng.integers(len(ground.deep))]
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
    ) -> CutOutArrays | None:
        """The lesion where there is lung, cut out around its middle; None when too little of it is left."""
        shape = loaded.hu.shape
        index = np.ix_(*(np.clip(axis, 0, length - 1) for axis, length in zip(axes, shape, strict=True)))
        k, j, i = ((axis >= 0) & (axis < length) for axis, length in zip(axes, shape, strict=True))
        inside_volume = k[:, None, None] & j[:, None] & i
        assert loaded.air is not None
        air = loaded.air[index] & inside_volume
        grown = soft * air
        if np.count_nonzero(grown > 0.5) < max(LEAST_LEFT, LEAST_SHARE_LEFT * np.count_nonzero(soft > 0.5)):
            return None
        hu = blend(loaded.hu[index].astype(np.float32), share * air, lesion_hu)
        hu[~inside_volume] = np.nan
        target = np.maximum(grown, soft_target(loaded.target[index]))
        return self._around(hu, target, np.argwhere(grown > 0.5).mean(axis=0), size, 1, rng)

    def _chest(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        return self._at(self._whole, self._whole.lesions[rng.integers(len(self._whole.lesions))], size, rng)

    def _wrong_in_crop(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        return self._at(self._in_crops, self._in_crops.none.draw(rng, self.recipe.anywhere, large), size, rng)

    def _wrong_in_chest(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        return self._at(self._whole, self._whole.none.draw(rng, self.recipe.anywhere, large), size, rng)

    def _organ(self, rng: np.random.Generator, size: Size, large: bool) -> CutOutArrays:
        return self._at(self._downsampled, self._downsampled.none.draw(rng, self.recipe.anywhere_in_organs, large), size, rng)

    def _any_crop(self, rng: np.random.Generator) -> LoadedCase:
        return self._crops[rng.integers(len(self._crops))]

    def _at(self, ground: Ground, place: LabelledCandidate, size: Size, rng: np.random.Generator) -> CutOutArrays:
        scene = ground.scenes[place.case_id]
        step = slice_step(scene.loaded.spacing_kji_mm[0])
        return self._around(scene.loaded.hu, scene.loaded.target, scene.centre_of(place), size, step, rng)

    def _around(
        self, hu: np.ndarray, target: np.ndarray, middle: np.ndarray, size: Size, step: int, rng: np.random.Generator
    ) -> CutOutArrays:
        """Cut out a little beside ``middle``, as the middles of the first network's candidates are."""
        off = np.array((OFF_MIDDLE_SLICES, self.recipe.off_middle_px, self.recipe.off_middle_px))
        last = np.array(hu.shape) - 1
        beside, itself = (np.clip(np.round(middle + shift).astype(int), 0, last) for shift in (rng.uniform(-off, off), 0))
        centre = beside if np.isfinite(hu[tuple(beside)]) else itself
        return arrays_around(hu, target, centre, size, step, short=rng.random() < self.recipe.cut_short, rng=rng)
