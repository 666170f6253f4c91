"""The network of the refinement: a small 3D U-Net on a cut-out around one candidate, with an outline and a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

INPUT_CHANNELS = 2
"""HU, and where there are voxels at all."""

SIDE_MULTIPLE_KJI = (8, 16, 16)
"""Sides of a cut-out: the network halves slices twice and rows and columns three times, and its middle lies between two cells."""


RARE_LOGIT = -4.0
"""Where the outline starts in training."""


@dataclass(frozen=True)
class RefinementConfig:
    """Four widths, from the cut-out's own voxels to an eighth of its rows and columns."""

    channels: tuple[int, int, int, int] = (16, 32, 64, 96)

    def __post_init__(self) -> None:
        if not all(1 <= width <= 1024 for width in self.channels):
            raise ValueError(f"channels must be four widths of 1 to 1024, not {self.channels}")


class RefinementNet(nn.Module):
    """Input float ``[batch, 2, k, j, i]`` with sides of :data:`SIDE_MULTIPLE_KJI`; the candidate is in the middle.

    Output: logits of the lesion's voxels ``[batch, 1, k, j, i]``, given that there is one, and the logit that the candidate is
    one, ``[batch]``. Voxels are taller than wide in most CTs, so slices are halved a level later than rows and columns.
    """

    def __init__(self, config: RefinementConfig | None = None):
        super().__init__()
        self.config = config or RefinementConfig()
        first, second, third, fourth = self.config.channels
        flat, deep = (1, 3, 3), (3, 3, 3)
        self.encoder = nn.ModuleList(
            [
                _block(INPUT_CHANNELS, first, flat),
                _block(first, second, deep, stride=(1, 2, 2)),
                _block(second, third, deep, stride=(2, 2, 2)),
                _block(third, fourth, deep, stride=(2, 2, 2)),
            ]
        )
        self.up = nn.ModuleList([_up(fourth, third, (2, 2, 2)), _up(third, second, (2, 2, 2)), _up(second, first, (1, 2, 2))])
        self.decoder = nn.ModuleList(
            [_block(2 * third, third, deep), _block(2 * second, second, deep), _block(2 * first, first, flat)]
        )
        self.outline = nn.Conv3d(first, 1, 1)
        # Few voxels belong to a lesion.
        nn.init.constant_(cast(nn.Parameter, self.outline.bias), RARE_LOGIT)
        self.context = _block(fourth, fourth, deep)
        self.score = nn.Linear(fourth, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, score = self.encoded(x)
        return self.outlined(features), score

    def encoded(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What the outline is made of, from the cut-out's own voxels down, and the logit that the candidate is a lesion."""
        features = []
        for block in self.encoder:
            x = block(x)
            features.append(x)
        seen = self.context(x)
        k, j, i = (side // 2 for side in seen.shape[2:])
        score = self.score(seen[:, :, k - 1 : k + 1, j - 1 : j + 1, i - 1 : i + 1].mean(dim=(2, 3, 4)))
        return features, score[:, 0]

    def outlined(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the lesion's voxels."""
        *skips, x = features
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat((skips.pop(), up(x)), dim=1))
        return self.outline(x)


def _block(incoming: int, outgoing: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    layers: list[nn.Module] = []
    for width, step in ((incoming, stride), (outgoing, (1, 1, 1))):
        layers += [nn.Conv3d(width, outgoing, kernel, step, padding, bias=False), nn.BatchNorm3d(outgoing), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _up(incoming: int, outgoing: int, step: tuple[int, int, int]) -> nn.Module:
    return nn.ConvTranspose3d(incoming, outgoing, step, step)
