"""The blocks of the published U-Net, key for key as in its state dict."""

from __future__ import annotations

import torch
from torch import nn

WIDTH = 64
"""Channels of the first level; the second has twice as many."""

TIME_WIDTH = 4 * WIDTH


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
