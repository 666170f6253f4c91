"""Synthetic lesions, blended into real CT: the labels are exact, since the shape is a formula.

Radius: a mean radius times 1 + a sum of smooth waves over the sphere (lobulation), at random axes (elongation up to about 1.5,
as most nodules have); some with spicules, thin cones that fade outwards. Density: solid (about -50 to 80 HU), part-solid (a
solid core in ground glass) and ground glass (about -700 to -450 HU), after the ranges given by the Fleischner Society
(Hansell et al., Radiology 2008) and the densities of LIDC-IDRI nodules; texture: noise of about 2 mm grain. Partial volume: the
shape is sampled finer than the voxels and blurred over about a voxel, as the scanner's point spread does.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

SHARE_OF_KINDS = {"solid": 0.6, "part-solid": 0.2, "ground glass": 0.2}
"""Roughly as in screening."""

DIAMETER_MM = (4.0, 30.0)
"""Log-uniform; masses up to :data:`MASS_MM`."""

MASS_MM, MASS_SHARE = 90.0, 0.1

SPICULATED_SHARE = 0.3

REACH = 1.8
"""Lobes and spicules reach this many times the mean radius at most."""

GRAIN_MM = 2.0
"""Size of the grains of the texture."""

OVERSAMPLING = 2
"""Samples per voxel and direction, for partial volume."""

Kind = Literal["solid", "part-solid", "ground glass"]


def synthetic_lesion(
    heights_mm: np.ndarray,
    thickness_mm: float,
    pixel_mm: float,
    most_px: int,
    rng: np.random.Generator,
    diameters_mm: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A lesion that slices at ``heights_mm`` cut, the one at 0 among them; of ``diameters_mm`` instead of the usual sizes.

    Returns the share of each voxel that it fills (float32 ``[slice, j, i]``, 0..1) and its HU (float32). The box is as wide as
    the lesion, at most ``most_px``; a wider lesion is cut. The label is ``share >= 0.5``.
    """
    if diameters_mm is None:
        diameters_mm = (DIAMETER_MM[1], MASS_MM) if rng.random() < MASS_SHARE else DIAMETER_MM
    diameter_mm = float(np.exp(rng.uniform(*np.log(diameters_mm))))
    kind: Kind = rng.choice(list(SHARE_OF_KINDS), p=list(SHARE_OF_KINDS.values()))
    side_px = min(most_px, int(np.ceil(REACH * diameter_mm / pixel_mm)) + 4)
    heights_mm = heights_mm + rng.uniform(-0.4, 0.4) * diameter_mm
    near = np.abs(heights_mm) <= REACH * diameter_mm / 2
    depth_mm = _depth_mm(_samples_mm(heights_mm[near], thickness_mm, pixel_mm, side_px), diameter_mm / 2, rng)
    glass_hu, solid_hu = rng.uniform(-700, -450), rng.uniform(-50, 80)
    share, hu = np.zeros((2, len(heights_mm), side_px, side_px), np.float32)
    share[near] = _averaged(np.clip(depth_mm / pixel_mm + 0.5, 0, 1))
    hu[:] = glass_hu if kind == "ground glass" else solid_hu
    if kind == "part-solid":
        core = _averaged(np.clip((depth_mm - diameter_mm * rng.uniform(0.15, 0.3)) / 2 + 0.5, 0, 1))
        hu[near] = glass_hu + core * (solid_hu - glass_hu)
    return share, hu + _texture(share.shape, pixel_mm, rng)


def blend(hu: np.ndarray, share: np.ndarray, lesion_hu: np.ndarray) -> np.ndarray:
    """The CT with the lesion in it: each voxel the mixture of both; a lesion never makes tissue darker than it was."""
    return hu * (1 - share) + share * np.maximum(lesion_hu, hu)


def _samples_mm(heights_mm: np.ndarray, thickness_mm: float, pixel_mm: float, side_px: int) -> np.ndarray:
    """Places (k, j, i) in mm of the samples of every voxel, ``[k, j, i, 3]``."""
    parts = (np.arange(OVERSAMPLING) + 0.5) / OVERSAMPLING - 0.5
    k = (heights_mm[:, None] + thickness_mm * parts).ravel()
    across = ((np.arange(side_px) - (side_px - 1) / 2)[:, None] + parts).ravel() * pixel_mm
    return np.stack(np.meshgrid(k, across, across, indexing="ij"), axis=-1).astype(np.float32)


def _depth_mm(points_mm: np.ndarray, radius_mm: float, rng: np.random.Generator) -> np.ndarray:
    """How far inside the outline (outside: negative) each point lies along the ray from the middle, in mm."""
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    stretch = np.exp(rng.normal(0, 0.15, 3))
    points = points_mm @ (turn / stretch * np.cbrt(stretch.prod())).astype(np.float32)
    away_mm = np.linalg.norm(points, axis=-1)
    direction = points / np.maximum(away_mm, 1e-3)[..., None]
    bumps = np.ones(away_mm.shape, np.float32)
    for _ in range(4):
        wave = rng.standard_normal(3).astype(np.float32) * rng.uniform(1, 4)
        bumps += rng.normal(0, 0.06) * np.sin(direction @ wave + rng.uniform(0, 2 * np.pi))
    depth_mm = radius_mm * bumps - away_mm
    if rng.random() < SPICULATED_SHARE:
        for _ in range(rng.integers(3, 9)):
            spike = rng.standard_normal(3)
            along_mm = points @ (spike / np.linalg.norm(spike)).astype(np.float32)
            across_mm = np.sqrt(np.maximum(away_mm**2 - along_mm**2, 0))
            length_mm = radius_mm * rng.uniform(1.2, 1.7)
            thickness_mm = np.where(along_mm > 0, 0.9 * (1 - along_mm / length_mm), -1)
            depth_mm = np.maximum(depth_mm, thickness_mm - across_mm)
    return depth_mm


def _averaged(fine: np.ndarray) -> np.ndarray:
    k, j, i = (size // OVERSAMPLING for size in fine.shape)
    return fine.reshape(k, OVERSAMPLING, j, OVERSAMPLING, i, OVERSAMPLING).mean(axis=(1, 3, 5))


def _texture(shape_kji: tuple[int, ...], pixel_mm: float, rng: np.random.Generator) -> np.ndarray:
    import torch
    from torch.nn import functional

    size = [max(2, round(n * pixel_mm / GRAIN_MM)) for n in shape_kji[1:]]
    grain = torch.from_numpy(rng.standard_normal((1, shape_kji[0], *size), np.float32))
    smooth = functional.interpolate(grain, size=shape_kji[1:], mode="bilinear", align_corners=False)[0].numpy()
    return smooth * np.float32(rng.uniform(10, 40))
