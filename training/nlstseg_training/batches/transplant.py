"""Lesions from one place to another: taken out of a slice, or scaled into another lung."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

MARKED = 0.15
"""Target from which a voxel is marked: about half of what the mark of one reader of four counts."""


class Donor(Protocol):
    """A crop of one nodule, in memory."""

    @property
    def hu(self) -> np.ndarray: ...

    @property
    def target(self) -> np.ndarray: ...

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]: ...


def without_lesion(hu: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice ``[j, i]`` whose marked voxels are replaced by the darker half of what lies around them."""
    marked = functional.max_pool2d(torch.from_numpy((target > 0).astype(np.float32))[None], 5, 1, 2)[0].numpy() > 0
    ring = (functional.max_pool2d(torch.from_numpy(marked.astype(np.float32))[None], 9, 1, 4)[0].numpy() > 0) & ~marked
    around = np.sort(hu[ring])[: max(1, ring.sum() // 2)] if ring.any() else np.array([-850], np.int16)
    result = hu.astype(np.float32)
    result[marked] = rng.choice(around, int(marked.sum()))
    return result


def transplant(
    donor: Donor, heights_mm: np.ndarray, pixel_mm: float, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A donor nodule at heights from its middle, on ``side`` x ``side`` pixels of ``pixel_mm``.

    Returns how much of each voxel it takes (0..1, with the surroundings that one reader marked), its HU and its target.
    """
    height = len(donor.hu)
    k = heights_mm / donor.spacing_kji_mm[0] + (height - 1) / 2
    low = np.floor(k).astype(int)
    part = (k - low).astype(np.float32)[:, None, None]
    padded = np.concatenate((donor.target, np.zeros_like(donor.target[:1]))).astype(np.float32) / 255
    inside = [np.where((n >= 0) & (n < height), n, height) for n in (low, low + 1)]
    target = padded[inside[0]] * (1 - part) + padded[inside[1]] * part
    hu = donor.hu[np.clip(low, 0, height - 1)] * (1 - part) + donor.hu[np.clip(low + 1, 0, height - 1)] * part
    marked = np.argwhere(donor.target.max(axis=0) > 0)
    centre = marked.mean(axis=0) + rng.uniform(-3, 3, 2)
    reach = side * pixel_mm / donor.spacing_kji_mm[1] / 2
    # Where in the window the nodule's middle falls is random; a mass may be cut by the window's edge.
    offset = rng.uniform(-0.3, 0.3, 2) * reach
    size = np.array(donor.hu.shape[1:])
    row, column = (2 * (centre + offset) + 1) / size - 1
    theta = torch.tensor([[2 * reach / size[1], 0, column], [0, 2 * reach / size[0], row]], dtype=torch.float32)
    grid = functional.affine_grid(theta[None], [1, 1, side, side], align_corners=False)
    stacked = torch.from_numpy(np.concatenate((hu, target)).astype(np.float32))[None]
    both = functional.grid_sample(stacked, grid, padding_mode="border", align_corners=False)[0].numpy()
    hu, target = both[: len(k)], both[len(k) :]
    share = functional.avg_pool2d(torch.from_numpy((target > MARKED).astype(np.float32))[:, None], 3, 1, 1)[:, 0].numpy()
    return share, hu, target
