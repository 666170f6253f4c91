"""The published NLSTseg U-Net (Chen et al., Scientific Data 2025, doi 10.1038/s41597-025-05742-x), key for key.

Written from the description of its state dict, so that a ``checkpoint.pth`` of that work loads. The time branch exists
in the checkpoint and is never used for segmentation.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTH = 64
"""Channels of the first level; the second has twice as many."""

TIME_WIDTH = 4 * WIDTH


class PublishedUNet(nn.Module):
    """One slice ``[batch, 1, j, i]`` scaled to -1..1, even sides, to logits of the same shape."""

    side_multiple = 2

    def __init__(self) -> None:
        super().__init__()
        w = WIDTH
        # The parameter-free sinusoid stood at index 0.
        self.time_embedding = nn.Sequential(nn.Identity(), nn.Linear(w, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH))
        self.init_conv = nn.Conv2d(1, w, 3, padding=1)
        self.downblocks = nn.ModuleList(
            [ResidualBlock(w, w), ResidualBlock(w, w), Down(w), ResidualBlock(w, 2 * w), ResidualBlock(2 * w, 2 * w)]
        )
        self.mid = nn.ModuleList([ResidualBlock(2 * w, 2 * w), ResidualBlock(2 * w, 2 * w)])
        self.upblocks = nn.ModuleList(
            [
                ResidualBlock(4 * w, 2 * w),
                ResidualBlock(4 * w, 2 * w),
                ResidualBlock(3 * w, 2 * w),
                Up(2 * w),
                ResidualBlock(3 * w, w),
                ResidualBlock(2 * w, w),
                ResidualBlock(2 * w, w),
            ]
        )
        self.last_layer = nn.Sequential(nn.SiLU(), nn.Conv2d(w, 1, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.init_conv(x)
        skips = [x]
        for block in self.downblocks:
            x = block(x)
            skips.append(x)
        for block in self.mid:
            x = block(x)
        for block in self.upblocks:
            x = block(x) if isinstance(block, Up) else block(torch.cat((x, skips.pop()), dim=1))
        return self.last_layer(x)


class ResidualBlock(nn.Module):
    """SiLU and convolution twice, with a 1x1 shortcut where the width changes."""

    def __init__(self, incoming: int, outgoing: int):
        super().__init__()
        self.layer1 = nn.Sequential(nn.SiLU(), nn.Conv2d(incoming, outgoing, 3, padding=1))
        self.layer2 = nn.Sequential(nn.SiLU(), nn.Dropout(0.4), nn.Conv2d(outgoing, outgoing, 3, padding=1))
        self.time_layer = nn.Sequential(nn.SiLU(), nn.Linear(TIME_WIDTH, outgoing))
        self.shortcut = nn.Identity() if incoming == outgoing else nn.Conv2d(incoming, outgoing, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer2(self.layer1(x)) + self.shortcut(x)


class Down(nn.Module):
    """Halves the sides."""

    def __init__(self, width: int):
        super().__init__()
        self.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(x)


class Up(nn.Module):
    """Doubles the sides."""

    def __init__(self, width: int):
        super().__init__()
        self.upsample = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upsample(x)
