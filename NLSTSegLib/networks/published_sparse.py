"""The published network, computed only where its answer is wanted: the same numbers with a fifth of the work.

Every layer is computed where a later one looks at it and nowhere else. A 3x3 convolution looks one pixel around, so each
layer's region follows, going backwards, from the wanted pixels, and is covered with rectangles that do not overlap.
Between the layers the values stand in arrays of the whole slice. What stands there beside a layer's region is left from
another slice, and never reaches a wanted pixel.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from NLSTSegLib.networks.network import Network
from NLSTSegLib.networks.published_blocks import Down, ResidualBlock, Up
from NLSTSegLib.networks.rectangles import Rectangle, grown, halved, rectangles

if TYPE_CHECKING:
    from NLSTSegLib.networks.published import PublishedUNet

REACH = 2
"""Pixels that a residual block looks around; so wide is the border of every array, the zeros of the layers' padding."""


Weights = tuple[torch.Tensor, torch.Tensor]
"""Kernel and biases of a convolution."""


class SparsePublishedUNet(Network):
    """The published network on a CPU, for one slice and the pixels of it that are wanted; several threads may share it.

    The convolutions run in ``dtype``, but for the first and the last: these take next to no time, and would bring the
    rounding of bfloat16 straight into the image and the answer.
    """

    side_multiple = 2
    takes_crops = False

    def __init__(self, network: PublishedUNet, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype
        self._first = _weights(network.init_conv, torch.float32)
        self._last = _weights(network.last_layer[1], torch.float32)
        self._steps = [_step(block, dtype) for block in (*network.downblocks, *network.mid, *network.upblocks)]
        self._skips = 1 + len(network.downblocks)
        self._of_thread = threading.local()

    def answer(self, x: torch.Tensor, lung_mask: np.ndarray) -> torch.Tensor:
        return self(x, lung_mask[0]).where(torch.from_numpy(lung_mask), -torch.inf)

    def forward(self, x: torch.Tensor, wanted: np.ndarray) -> torch.Tensor:
        """Logits (float32 ``[1, 1, j, i]``) of the slice ``x`` (the same, even sides) where ``wanted`` (bool ``[j, i]``).

        What it holds elsewhere means nothing, and the next call in the same thread overwrites it.
        """
        arrays = self._arrays(x.shape[2], x.shape[3])
        regions = [grown(wanted, 1)]
        for step in reversed(self._steps):
            regions.insert(0, step.looks_at(regions[0]))

        arrays.image[:, :, 1:-1, 1:-1] = x
        for j, j_end, i, i_end in rectangles(regions[0]):
            seen = arrays.image[:, :, j : j_end + 2, i : i_end + 2]
            _inside(arrays.targets[0], (j, j_end, i, i_end)).copy_(F.conv2d(seen, *self._first))
        for step, source, target, region in zip(self._steps, arrays.sources, arrays.targets[1:], regions[1:], strict=True):
            for rectangle in rectangles(step.grid(region)):
                step.compute(source, target, rectangle)
        for rectangle in rectangles(wanted):
            seen = F.silu(_inside(arrays.targets[-1], rectangle, around=1))
            j, j_end, i, i_end = rectangle
            arrays.logits[:, :, j:j_end, i:i_end] = F.conv2d(seen, *self._last)
        return arrays.logits

    def _arrays(self, height: int, width: int) -> _Arrays:
        arrays: _Arrays | None = getattr(self._of_thread, "arrays", None)
        if arrays is None or arrays.logits.shape[2:] != (height, width):
            arrays = self._of_thread.arrays = self._new_arrays(height, width)
        return arrays

    def _new_arrays(self, height: int, width: int) -> _Arrays:
        widths, strides = [self._first[0].shape[0]], [1]
        for step in self._steps:
            widths.append(step.outgoing)
            strides.append(strides[-1] * step.stride[0] // step.stride[1])

        def new(channels: int, stride: int, dtype: torch.dtype = self._dtype) -> torch.Tensor:
            # Channels last. The zeros of numpy take memory only where something is written, those of torch everywhere.
            shape = (1, height // stride + 2 * REACH, width // stride + 2 * REACH, channels * dtype.itemsize)
            return torch.from_numpy(np.zeros(shape, np.uint8)).view(dtype).permute(0, 3, 1, 2)

        # Step n reads what stands at n and writes to n + 1. Where a skip joins, both writers write into one array.
        targets: list[torch.Tensor | None] = [None] * len(widths)
        sources: list[torch.Tensor | None] = [None] * len(self._steps)
        targets[-1] = new(widths[-1], strides[-1], torch.float32)
        skips = list(range(self._skips))
        for n, step in enumerate(self._steps):
            if step.incoming != widths[n]:
                joined = sources[n] = new(step.incoming, strides[n])
                targets[n], targets[skips.pop()] = joined[:, : widths[n]], joined[:, widths[n] :]
        written = [new(w, s) if target is None else target for target, w, s in zip(targets, widths, strides, strict=True)]
        read = [target if source is None else source for source, target in zip(sources, written[:-1], strict=True)]
        return _Arrays(torch.zeros(1, 1, height + 2, width + 2), read, written, torch.zeros(1, 1, height, width))


@dataclass(frozen=True)
class _Arrays:
    image: torch.Tensor
    """The slice, with the padding of the first layer around."""
    sources: list[torch.Tensor]
    """What each step reads."""
    targets: list[torch.Tensor]
    """What the first layer and each step write: the same arrays, or channels of them."""
    logits: torch.Tensor


class _Step(Protocol):
    incoming: int
    outgoing: int
    stride: tuple[int, int]
    """Sides are divided by the first and multiplied by the second."""

    def looks_at(self, region: np.ndarray) -> np.ndarray:
        """Where the source must be right so that the target is in ``region``; both bool ``[j, i]``."""

    def grid(self, region: np.ndarray) -> np.ndarray:
        """``region`` of the target on the pixels that ``compute`` counts."""

    def compute(self, source: torch.Tensor, target: torch.Tensor, rectangle: Rectangle) -> None:
        """Fill ``rectangle`` of the target."""


def _step(block: nn.Module, dtype: torch.dtype) -> _Step:
    if isinstance(block, Down):
        return _Down(block, dtype)
    if isinstance(block, Up):
        return _Up(block, dtype)
    assert isinstance(block, ResidualBlock)
    return _Block(block, dtype)


class _Block:
    stride = (1, 1)

    def __init__(self, block: ResidualBlock, dtype: torch.dtype):
        self.first, self.second = _weights(block.layer1[1], dtype), _weights(block.layer2[2], dtype)
        self.shortcut = _weights(block.shortcut, dtype) if isinstance(block.shortcut, nn.Conv2d) else None
        self.outgoing, self.incoming = self.first[0].shape[:2]

    def looks_at(self, region: np.ndarray) -> np.ndarray:
        return grown(region, 2)

    def grid(self, region: np.ndarray) -> np.ndarray:
        return region

    def compute(self, source: torch.Tensor, target: torch.Tensor, rectangle: Rectangle) -> None:
        y = F.silu(F.conv2d(F.silu(_inside(source, rectangle, around=2)), *self.first), inplace=True)
        # The second convolution sees zeros beyond the image, not what the first would give there.
        j, j_end, i, i_end = rectangle
        y[:, :, : int(j == 0)] = 0
        y[:, :, y.shape[2] - int(j_end == source.shape[2] - 2 * REACH) :] = 0
        y[:, :, :, : int(i == 0)] = 0
        y[:, :, :, y.shape[3] - int(i_end == source.shape[3] - 2 * REACH) :] = 0
        x = _inside(source, rectangle)
        shortcut = x if self.shortcut is None else F.conv2d(x, *self.shortcut)
        # Not rounded on the way where the target is float32.
        torch.add(F.conv2d(y, *self.second).to(target.dtype), shortcut, out=_inside(target, rectangle))


class _Down:
    stride = (2, 1)

    def __init__(self, block: Down, dtype: torch.dtype):
        self.weights = _weights(block.downsample, dtype)
        self.outgoing, self.incoming = self.weights[0].shape[:2]

    def looks_at(self, region: np.ndarray) -> np.ndarray:
        return grown(region.repeat(2, 0).repeat(2, 1), 1)

    def grid(self, region: np.ndarray) -> np.ndarray:
        return region

    def compute(self, source: torch.Tensor, target: torch.Tensor, rectangle: Rectangle) -> None:
        j, j_end, i, i_end = (2 * n for n in rectangle)
        x = source[:, :, j + REACH - 1 : j_end + REACH, i + REACH - 1 : i_end + REACH]
        _inside(target, rectangle).copy_(F.conv2d(x, *self.weights, stride=2))


class _Up:
    """A 3x3 convolution of doubled pixels sees only 2x2 different ones: four small kernels, one for each place in the
    doubled pixel, take 4/9 of the work."""

    stride = (1, 2)

    def __init__(self, block: Up, dtype: torch.dtype):
        convolution = block.upsample[1]
        assert isinstance(convolution, nn.Conv2d)
        w = convolution.weight.detach()
        self.weights: dict[tuple[int, int], Weights] = {}
        for row in (0, 1):
            rows = torch.stack((w[:, :, : row + 1].sum(2), w[:, :, row + 1 :].sum(2)), 2)
            for column in (0, 1):
                kernel = torch.stack((rows[..., : column + 1].sum(3), rows[..., column + 1 :].sum(3)), 3)
                self.weights[row, column] = _cast(kernel, convolution.bias, dtype)
        self.outgoing, self.incoming = w.shape[:2]

    def looks_at(self, region: np.ndarray) -> np.ndarray:
        return grown(self.grid(region), 1)

    def grid(self, region: np.ndarray) -> np.ndarray:
        return halved(region)

    def compute(self, source: torch.Tensor, target: torch.Tensor, rectangle: Rectangle) -> None:
        x = _inside(source, rectangle, around=1)
        doubled = _inside(target, tuple(2 * n for n in rectangle))  # type: ignore[arg-type]
        for (row, column), weights in self.weights.items():
            y = F.conv2d(x[:, :, row : x.shape[2] - 1 + row, column : x.shape[3] - 1 + column], *weights)
            doubled[:, :, row::2, column::2] = y


def _weights(convolution: nn.Module, dtype: torch.dtype) -> Weights:
    assert isinstance(convolution, nn.Conv2d)
    return _cast(convolution.weight.detach(), convolution.bias, dtype)


def _cast(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> Weights:
    """Rounded so that the error of each tap is made good at the next: what a channel shows is smooth, so they cancel."""
    assert bias is not None
    taps = weight.flatten(2).clone()
    for n in range(taps.shape[2] - 1):
        taps[:, :, n + 1] += taps[:, :, n] - taps[:, :, n].to(dtype)
    return taps.to(dtype).view_as(weight).contiguous(memory_format=torch.channels_last), bias.detach().to(dtype)


def _inside(array: torch.Tensor, rectangle: Rectangle, around: int = 0) -> torch.Tensor:
    j, j_end, i, i_end = rectangle
    low, high = REACH - around, REACH + around
    return array[:, :, j + low : j_end + high, i + low : i_end + high]
