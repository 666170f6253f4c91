"""The published NLSTseg U-Net (Chen et al., Scientific Data 2025, doi 10.1038/s41597-025-05742-x), key for key.

Written from the description of its state dict, so that a ``checkpoint.pth`` of that work loads. The time branch exists
in the checkpoint and is never used for segmentation.
"""

from __future__ import annotations

import torch
from torch import nn

from NLSTSegLib.networks.network import Network
from NLSTSegLib.networks.published_blocks import TIME_WIDTH, WIDTH, Down, ResidualBlock, Up
from NLSTSegLib.networks.published_sparse import SparsePublishedUNet


class PublishedUNet(Network):
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
        for name, parameter in self.named_parameters():
            # Never used, so without a gradient, for which several processes that train would wait.
            parameter.requires_grad_("time_" not in name)

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

    def sparse(self, dtype: torch.dtype) -> Network:
        return SparsePublishedUNet(self, dtype)
