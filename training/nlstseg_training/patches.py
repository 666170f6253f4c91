"""Training patches: nodule crops, nodules transplanted into whole lungs, plain lung and mined false positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from nlstseg_training.sources import Stack
from NLSTSegLib.inference import InputSpec
from NLSTSegLib.lungs import AIR_BELOW_HU

TARGET_OF_VOTES = np.array([0.0, 0.3, 0.7, 0.9, 1.0], np.float32)
"""Soft target by number of readers: above one half where two or more agree, as the reference mask is defined."""

VESSEL_MM = 8.0
"""Wider soft tissue in the lung field is hilum, wall or mediastinum."""


@dataclass(frozen=True)
class PatchRecipe:
    """What a training batch is made of; shares are of the batch, the rest are random places in the lungs."""

    side_px: int = 96
    batch: int = 48
    crops: float = 0.4
    transplants: float = 0.25
    mined: float = 0.2
    repeated_ends: float = 0.0
    """Share of the crops whose end slices stand in for what is missing beyond, as inference does, instead of being freed
    of the nodule: at the ends of a stack the network must not take the repetition for a vessel."""
    zoom: tuple[float, float] = (0.75, 1.45)
    mass_share: float = 0.2
    mass_zoom: tuple[float, float] = (1.5, 5.0)
    rotation_degrees: float = 20.0
    shift_hu: float = 25.0
    contrast: float = 0.08
    noise_hu: float = 30.0
    blur_share: float = 0.25


@dataclass(frozen=True)
class Mined:
    """A place where the network marked something that is no lesion."""

    stack: int
    kji: tuple[int, int, int]


class PatchBatches(torch.utils.data.Dataset):
    """Batch number n is always the same for the same seed and mined places, so an interrupted run can go on.

    Item: ``(input float32 [batch, slice, j, i], target float32 [batch, 1, j, i])``.
    """

    def __init__(
        self,
        nodules: Sequence[Stack],
        lungs: Sequence[Stack],
        spec: InputSpec,
        recipe: PatchRecipe,
        *,
        seed: int,
        first: int,
        count: int,
        mined: Sequence[Mined] = (),
    ):
        self.nodules, self.lungs, self.spec, self.recipe = nodules, lungs, spec, recipe
        self.seed, self.first, self.count, self.mined = seed, first, count, list(mined)
        # Thick or thin, a patient with many slices gives more, but not in proportion: it is still one patient.
        sizes = np.array([stack.lungs.any(axis=(1, 2)).sum() for stack in lungs], float) ** 0.6
        self.lung_weights = sizes / sizes.sum()
        self.aerated = [aerated(stack) for stack in lungs]
        self.deep = [n for n, stack in enumerate(lungs) if len(stack.hu) >= 10]
        self.deep_weights = self.lung_weights[self.deep] / self.lung_weights[self.deep].sum()
        self.places = [np.argwhere(stack.lungs[:, ::4, ::4]) * (1, 4, 4) for stack in lungs]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.first + index))
        recipe = self.recipe
        kinds = np.cumsum((recipe.crops, recipe.transplants, recipe.mined if self.mined else 0.0))
        samples = []
        for n in range(recipe.batch):
            kind = np.searchsorted(kinds, (n + 0.5) / recipe.batch)
            maker = (self._crop, self._transplant, self._mined, self._lung)[min(kind, 3)]
            samples.append(self._augment(rng, *maker(rng)))
        return torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])

    def _context(self, stack: Stack, k: int) -> np.ndarray:
        return np.clip(k + self.spec.slice_offsets(stack.spacing_kji_mm[0]), 0, len(stack.hu) - 1)

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A slice of a nodule crop with its neighbours; beyond the stack the end slice, most often without the nodule."""
        stack = self.nodules[rng.integers(len(self.nodules))]
        k = int(rng.integers(len(stack.hu)))
        wanted = k + self.spec.slice_offsets(stack.spacing_kji_mm[0])
        hu = stack.hu[np.clip(wanted, 0, len(stack.hu) - 1)].astype(np.float32)
        if self.recipe.repeated_ends and rng.random() < self.recipe.repeated_ends:
            return hu, TARGET_OF_VOTES[stack.votes[k]]
        for n, source in enumerate(wanted):
            if not 0 <= source < len(stack.hu):
                end = 0 if source < 0 else len(stack.hu) - 1
                hu[n] = without_lesion(stack.hu[end], stack.votes[end], rng)
        return hu, TARGET_OF_VOTES[stack.votes[k]]

    def _window(self, stack: Stack, kji: Sequence[int], half: int) -> tuple[np.ndarray, np.ndarray, tuple]:
        """HU ``[slice, j, i]`` and target ``[j, i]`` around a voxel, and where it is cut out; the border is repeated outwards."""
        k, j, i = kji
        rows = np.clip(np.arange(j - half, j + half), 0, stack.hu.shape[1] - 1)
        columns = np.clip(np.arange(i - half, i + half), 0, stack.hu.shape[2] - 1)
        hu = stack.hu[np.ix_(self._context(stack, k), rows, columns)].astype(np.float32)
        crop = np.ix_(rows, columns)
        return hu, TARGET_OF_VOTES[stack.votes[k][crop]], crop

    def _lung(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        n = rng.choice(len(self.lungs), p=self.lung_weights)
        place = self.places[n][rng.integers(len(self.places[n]))]
        return self._window(self.lungs[n], place, self.recipe.side_px * 3 // 4)[:2]

    def _mined(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        found = self.mined[rng.integers(len(self.mined))]
        shift = rng.integers(-24, 25, 3) * (0, 1, 1)
        return self._window(self.lungs[found.stack], np.add(found.kji, shift), self.recipe.side_px * 3 // 4)[:2]

    def _transplant(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A whole nodule, scaled, blended into a whole lung: true neighbours above and below."""
        n = self.deep[rng.choice(len(self.deep), p=self.deep_weights)]
        stack = self.lungs[n]
        half = self.recipe.side_px * 3 // 4
        place = self.places[n][rng.integers(len(self.places[n]))]
        hu, target, crop = self._window(stack, place, half)
        donor = self.nodules[rng.integers(len(self.nodules))]
        low, high = self.recipe.mass_zoom if rng.random() < self.recipe.mass_share else self.recipe.zoom
        zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        height_mm = len(donor.hu) * donor.spacing_kji_mm[0] * zoom
        z_mm = self.spec.slice_offsets(stack.spacing_kji_mm[0]) * stack.spacing_kji_mm[0] + rng.uniform(-0.5, 0.5) * height_mm
        lesion_hu, votes = _scaled(donor, z_mm / zoom, stack.spacing_kji_mm[1] / zoom, 2 * half, rng)
        # A nodule grows in lung: what would lie in the mediastinum or the wall is left out, image and label alike.
        votes *= self.aerated[n][place[0]][crop]
        alpha = functional.avg_pool2d(torch.from_numpy((votes > 0.5).astype(np.float32))[:, None], 3, 1, 1)[:, 0].numpy()
        # A nodule never makes tissue darker than the vessel or wall it sits on.
        hu = hu * (1 - alpha) + alpha * np.maximum(lesion_hu, np.where(hu > -500, hu, lesion_hu))
        middle = len(z_mm) // 2
        return hu, np.maximum(target, np.interp(votes[middle], np.arange(5), TARGET_OF_VOTES).astype(np.float32))

    def _augment(self, rng: np.random.Generator, hu: np.ndarray, target: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Random place, zoom, rotation and flips, then the scanner: level, contrast, blur and noise."""
        recipe, side = self.recipe, self.recipe.side_px
        size = hu.shape[1]
        zoom = float(np.exp(rng.uniform(*np.log(recipe.zoom))))
        angle = np.radians(rng.uniform(-recipe.rotation_degrees, recipe.rotation_degrees) + 90 * rng.integers(4))
        reach = side / zoom / size
        free = max(0.0, 1 - reach)
        shift = rng.uniform(-free, free, 2)
        flip = rng.choice((-1.0, 1.0))
        theta = torch.tensor(
            [
                [flip * reach * np.cos(angle), -reach * np.sin(angle), shift[0]],
                [flip * reach * np.sin(angle), reach * np.cos(angle), shift[1]],
            ],
            dtype=torch.float32,
        )
        if rng.random() < 0.5:
            hu = hu[::-1].copy()
        both = torch.from_numpy(np.concatenate((hu, target[None])))[None]
        grid = functional.affine_grid(theta[None], [1, 1, side, side], align_corners=False)
        both = functional.grid_sample(both, grid, padding_mode="reflection", align_corners=False)[0]
        image, target_patch = both[:-1], both[-1:]
        if rng.random() < recipe.blur_share:
            image = functional.avg_pool2d(image[None], 3, 1, 1, count_include_pad=False)[0]
        image = image * rng.normal(1, recipe.contrast) + rng.normal(0, recipe.shift_hu)
        noise = rng.exponential(recipe.noise_hu / 2) * (rng.random() < 0.5)
        if noise > 0:
            grain = torch.from_numpy(rng.standard_normal(image.shape, np.float32))
            # A slice that is repeated has the same noise again.
            repeated = [next(m for m in range(n + 1) if np.array_equal(hu[m], hu[n])) for n in range(len(hu))]
            image = image + noise * 2 * functional.avg_pool2d(grain[repeated][None], 3, 1, 1)[0]
        return torch.from_numpy(self.spec.scale(image.numpy())), target_patch


def aerated(stack: Stack) -> np.ndarray:
    """Where there is lung to grow in, ``[k, j, i]``: the air of the lung field and the vessels inside it."""
    air = torch.from_numpy(((stack.hu < AIR_BELOW_HU) & stack.lungs).astype(np.float32))[:, None]
    reach = 2 * round(VESSEL_MM / 2 / stack.spacing_kji_mm[1]) + 1
    closed = -functional.max_pool2d(-functional.max_pool2d(air, reach, 1, reach // 2), reach, 1, reach // 2)
    return closed[:, 0].numpy() > 0


def without_lesion(hu: np.ndarray, votes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice ``[j, i]`` whose marked voxels are replaced by the darker half of what lies around them."""
    marked = functional.max_pool2d(torch.from_numpy((votes > 0).astype(np.float32))[None], 5, 1, 2)[0].numpy() > 0
    ring = (functional.max_pool2d(torch.from_numpy(marked.astype(np.float32))[None], 9, 1, 4)[0].numpy() > 0) & ~marked
    around = np.sort(hu[ring])[: max(1, ring.sum() // 2)] if ring.any() else np.array([-850], np.int16)
    result = hu.astype(np.float32)
    result[marked] = rng.choice(around, int(marked.sum()))
    return result


def _scaled(
    donor: Stack, z_mm: np.ndarray, pixel_mm: float, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """HU and votes of a donor nodule at heights ``z_mm`` from its middle, on ``side`` x ``side`` pixels of ``pixel_mm``."""
    height = len(donor.hu)
    k = z_mm / donor.spacing_kji_mm[0] + (height - 1) / 2
    low = np.floor(k).astype(int)
    part = (k - low).astype(np.float32)[:, None, None]
    padded_votes = np.concatenate((donor.votes, np.zeros_like(donor.votes[:1])))
    inside = [np.where((n >= 0) & (n < height), n, height) for n in (low, low + 1)]
    votes = padded_votes[inside[0]] * (1 - part) + padded_votes[inside[1]] * part
    hu = donor.hu[np.clip(low, 0, height - 1)] * (1 - part) + donor.hu[np.clip(low + 1, 0, height - 1)] * part
    marked = np.argwhere(donor.votes.max(axis=0) > 0)
    centre = marked.mean(axis=0) + rng.uniform(-3, 3, 2)
    reach = side * pixel_mm / donor.spacing_kji_mm[1] / 2
    # Where in the window the nodule's middle falls is random; a mass may be cut by the window's edge.
    offset = rng.uniform(-0.3, 0.3, 2) * reach
    size = np.array(donor.hu.shape[1:])
    row, column = (2 * (centre - offset) + 1) / size - 1
    theta = torch.tensor([[2 * reach / size[1], 0, column], [0, 2 * reach / size[0], row]], dtype=torch.float32)
    grid = functional.affine_grid(theta[None], [1, 1, side, side], align_corners=False)
    both = torch.from_numpy(np.concatenate((hu, votes)).astype(np.float32))[None]
    both = functional.grid_sample(both, grid, padding_mode="border", align_corners=False)[0].numpy()
    return both[: len(k)], both[len(k) :]
