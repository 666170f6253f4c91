"""How a patch varies from one time it is seen to the next: MONAI's transforms, and noise that a scanner would make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from nlstseg_training.recipe import Augmentation

if TYPE_CHECKING:
    from monai.transforms import Compose

SAFE_MARGIN = 1.5
"""A patch is cut out this many times as wide as it will be, so that turned and shifted it still shows real voxels."""


class Augmenter:
    """Varies image and target alike in the plane, and the image as other scanners would show it."""

    def __init__(self, options: Augmentation, side_px: int) -> None:
        self.options, self.side_px = options, side_px
        self.transforms = _transforms(options, side_px)

    def __call__(
        self, hu: np.ndarray, target: np.ndarray, rng: np.random.Generator, source_k: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """float32 HU ``[slice, j, i]`` and target ``[slice or 1, j, i]``, cut to ``side_px``.

        ``source_k`` names the slice that each slice of ``hu`` came from: where one is repeated its noise is the same again.
        """
        options = self.options
        if options.flips and rng.random() < 0.5:
            hu, target, source_k = hu[::-1].copy(), target[::-1].copy(), source_k[::-1]
        self.transforms.set_random_state(seed=int(rng.integers(2**31)))
        varied = self.transforms({"hu": torch.from_numpy(hu), "target": torch.from_numpy(target)})
        image = varied["hu"].as_tensor() if hasattr(varied["hu"], "as_tensor") else varied["hu"]
        image = image * rng.normal(1, options.contrast) + rng.normal(0, options.shift_hu)
        if options.noise_hu and rng.random() < options.noise_share:
            grain = torch.from_numpy(rng.standard_normal(image.shape, np.float32))
            repeated = [int(np.flatnonzero(source_k == k)[0]) for k in source_k]
            # Smoothed over three pixels it looks like the reconstruction's; the factor brings its size back.
            image = image + rng.exponential(options.noise_hu) * 2 * functional.avg_pool2d(grain[repeated][None], 3, 1, 1)[0]
        return image.numpy(), np.clip(np.asarray(varied["target"]), 0, 1)


def _transforms(options: Augmentation, side_px: int) -> Compose:
    from monai.data import set_track_meta
    from monai.transforms import (
        CenterSpatialCropd,
        Compose,
        RandAffined,
        RandFlipd,
        RandGaussianSmoothd,
        RandRotate90d,
        RandZoomd,
    )

    # Nothing here asks where a patch lay, and keeping count takes longer than the transforms.
    set_track_meta(False)
    keys = ("hu", "target")
    steps: list = []
    if options.zoom != (1.0, 1.0):
        zoom: dict[str, Any] = {"prob": 1.0, "min_zoom": options.zoom[0], "max_zoom": options.zoom[1]}
        steps.append(RandZoomd(keys, **zoom, mode="bilinear", padding_mode="edge", align_corners=False))
    if options.rotation_degrees or options.shift_px:
        moves: dict[str, Any] = {"rotate_range": np.radians(options.rotation_degrees), "translate_range": (options.shift_px,) * 2}
        size: dict[str, Any] = {"spatial_size": (side_px, side_px), "padding_mode": "reflection"}
        steps.append(RandAffined(keys, prob=1.0, **moves, **size, mode="bilinear"))
    else:
        steps.append(CenterSpatialCropd(keys, (side_px, side_px)))
    if options.flips:
        steps += [RandFlipd(keys, prob=0.5, spatial_axis=1), RandRotate90d(keys, prob=0.75, max_k=3)]
    if options.blur_share:
        widths_px = (0.3, 0.8)
        steps.append(RandGaussianSmoothd("hu", prob=options.blur_share, sigma_x=widths_px, sigma_y=widths_px))
    return Compose(steps)
