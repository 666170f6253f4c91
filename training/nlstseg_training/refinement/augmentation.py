"""How cut-outs vary, a whole batch at a time: turned and scaled in the plane, and as other scanners would show them."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from nlstseg_training.recipe import Augmentation


def vary(
    hu: torch.Tensor,
    target: torch.Tensor,
    inside_volume: torch.Tensor,
    side_px: int,
    options: Augmentation,
    rng: np.random.Generator,
    *,
    own_pixels: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """float32 ``[batch, k, j, i]`` each (HU, target 0..1, 1 where there are voxels), cut to ``side_px`` about the middle.

    A share ``own_pixels`` is turned by quarters and not scaled: what lies between pixels is smoother than any CT.
    """
    count, depth, wide, _ = hu.shape
    theta = torch.zeros(count, 2, 3)
    for n in range(count):
        if rng.random() < own_pixels:
            angle, zoom = np.pi / 2 * rng.integers(4), 1.0
        else:
            angle = np.radians(rng.uniform(-options.rotation_degrees, options.rotation_degrees))
            zoom = np.exp(rng.uniform(*np.log(options.zoom)))
        scale = side_px / wide / zoom
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
        if options.flips and rng.random() < 0.5:
            turn[:, 0] *= -1
        theta[n, :, :2] = torch.from_numpy(turn.astype(np.float32))
        if options.flips and rng.random() < 0.5:
            for tensor in (hu, target, inside_volume):
                tensor[n] = tensor[n].flip(0)
    grid = functional.affine_grid(theta, [count, 1, side_px, side_px], align_corners=False)
    both = functional.grid_sample(torch.cat((hu, target, inside_volume), 1), grid, padding_mode="zeros", align_corners=False)
    hu, target, inside_volume = both.split(depth, dim=1)
    for n in range(count):
        hu[n] = hu[n] * rng.normal(1, options.contrast) + rng.normal(0, options.shift_hu)
        if rng.random() < options.blur_share:
            share = rng.uniform(0.2, 1)
            hu[n] = (1 - share) * hu[n] + share * functional.avg_pool2d(hu[n][None], 3, 1, 1, count_include_pad=False)[0]
        if options.noise_hu and rng.random() < options.noise_share:
            grain = torch.from_numpy(rng.standard_normal(hu[n].shape, np.float32))
            # Smoothed over three pixels it looks like the reconstruction's; the factor brings its size back.
            hu[n] += rng.exponential(options.noise_hu) * 2 * functional.avg_pool2d(grain[None], 3, 1, 1)[0]
    return hu, target, (inside_volume > 0.5).float()
