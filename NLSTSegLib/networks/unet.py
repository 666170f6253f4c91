"""One U-Net for 2D, 2.5D and 3D input with a single logit map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from NLSTSegLib.networks.network import Network

MAXIMUM_LEVELS, MAXIMUM_WIDTH = 8, 4096
"""A deeper or wider network is a mistake in a model card, not a network for images of 512 pixels."""


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a :class:`UNet`.

    ``dimensions`` is 2 or 3. ``input_slices`` is the number of input channels: for 2.5D, the slice to segment stands in
    the middle of its neighbours. ``channels`` gives one width per resolution level; every level halves the sides.
    ``normalization`` is ``"batch"`` (fixed statistics at inference, so a whole slice is seen as the training patches
    were) or ``"none"``.
    """

    dimensions: int = 2
    input_slices: int = 1
    channels: tuple[int, ...] = (16, 32, 64, 128)
    normalization: str = "batch"
    residual: bool = True

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, not {self.dimensions}")
        if self.input_slices < 1 or self.input_slices % 2 == 0:
            raise ValueError(f"input_slices must be odd, not {self.input_slices}")
        if self.dimensions == 3 and self.input_slices != 1:
            raise ValueError("a 3D network takes one input channel: input_slices must be 1")
        if not 1 <= len(self.channels) <= MAXIMUM_LEVELS:
            raise ValueError(f"channels must have 1 to {MAXIMUM_LEVELS} widths, not {len(self.channels)}")
        if not all(1 <= width <= MAXIMUM_WIDTH for width in self.channels):
            raise ValueError(f"channels must be widths of 1 to {MAXIMUM_WIDTH}, not {self.channels}")
        if self.normalization not in ("batch", "none"):
            raise ValueError(f"unknown normalization {self.normalization!r}")


class UNet(Network):
    """Encoder, bottleneck and decoder with skip connections.

    Input: float ``[batch, input_slices, (k,) j, i]`` with sides a multiple of ``side_multiple``; output: logits
    ``[batch, 1, (k,) j, i]``.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        self.side_multiple = 2 ** (len(config.channels) - 1)
        widths = config.channels
        conv = nn.Conv2d if config.dimensions == 2 else nn.Conv3d
        transposed = nn.ConvTranspose2d if config.dimensions == 2 else nn.ConvTranspose3d
        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        incoming = config.input_slices
        for level, width in enumerate(widths):
            if level:
                self.down.append(conv(widths[level - 1], incoming := width, 2, stride=2))
            self.encoder.append(ConvBlock(config, incoming, width))
            incoming = width
        for level in reversed(range(len(widths) - 1)):
            self.up.append(transposed(widths[level + 1], widths[level], 2, stride=2))
            self.decoder.append(ConvBlock(config, 2 * widths[level], widths[level]))
        self.head = conv(widths[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(self.down[level - 1](x) if level else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat((skips.pop(), up(x)), dim=1))
        return self.head(x)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with normalization and ReLU, optionally around a shortcut."""

    def __init__(self, config: UNetConfig, incoming: int, outgoing: int):
        super().__init__()
        conv = nn.Conv2d if config.dimensions == 2 else nn.Conv3d
        bias = config.normalization == "none"
        self.conv1 = conv(incoming, outgoing, 3, padding=1, bias=bias)
        self.norm1 = _normalization(config, outgoing)
        self.conv2 = conv(outgoing, outgoing, 3, padding=1, bias=bias)
        self.norm2 = _normalization(config, outgoing)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if config.residual:
            self.shortcut = nn.Identity() if incoming == outgoing else conv(incoming, outgoing, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.act(y)


def _normalization(config: UNetConfig, width: int) -> nn.Module:
    if config.normalization == "batch":
        return nn.BatchNorm2d(width) if config.dimensions == 2 else nn.BatchNorm3d(width)
    return nn.Identity()
