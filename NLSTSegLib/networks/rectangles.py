"""Regions of a slice, and rectangles that cover them at the least cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK_PX = 4
"""Rectangles start and end at multiples of this: a region halved twice."""

RECTANGLE_PX = 1000
"""Another rectangle costs about as much as so many more pixels."""

Rectangle = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""


def grown(region: np.ndarray, pixels: int) -> np.ndarray:
    """The region, larger by so many pixels on every side, corners too."""
    for axis in (0, 1):
        for _ in range(pixels):
            narrow = np.moveaxis(region, axis, 0)
            region = region.copy()
            wide = np.moveaxis(region, axis, 0)
            wide[1:] |= narrow[:-1]
            wide[:-1] |= narrow[1:]
    return region


def halved(region: np.ndarray) -> np.ndarray:
    """Where any of 2x2 pixels is in ``region``; a side that is odd is as if it went on by one."""
    region = np.pad(region, [(0, side % 2) for side in region.shape])
    rows = region[::2] | region[1::2]
    return rows[:, ::2] | rows[:, 1::2]


def rectangles(region: np.ndarray) -> Iterator[Rectangle]:
    """Rectangles that cover ``region`` (bool ``[j, i]``) and do not overlap."""
    for rectangle in _cut(halved(halved(region)), 0, 0)[1]:
        j, j_end, i, i_end = (n * BLOCK_PX for n in rectangle)
        yield j, min(j_end, region.shape[0]), i, min(i_end, region.shape[1])


def _cut(blocks: np.ndarray, row: int, column: int) -> tuple[float, list[Rectangle]]:
    """The box around the blocks, or that of both sides of its best cut where these cost less, and so on."""
    rows, columns = np.flatnonzero(blocks.any(1)), np.flatnonzero(blocks.any(0))
    if not len(rows):
        return 0.0, []
    blocks = blocks[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    row, column = row + int(rows[0]), column + int(columns[0])
    height, width = blocks.shape
    whole = float(_cost(height, width)), [(row, row + height, column, column + width)]
    if blocks.all():
        return whole
    cost_j, at_j = _best_cut(blocks)
    cost_i, at_i = _best_cut(blocks.T)
    if min(cost_j, cost_i) >= whole[0]:
        return whole
    if cost_j <= cost_i:
        parts = _cut(blocks[:at_j], row, column), _cut(blocks[at_j:], row + at_j, column)
    else:
        parts = _cut(blocks[:, :at_i], row, column), _cut(blocks[:, at_i:], row, column + at_i)
    return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]


def _best_cut(blocks: np.ndarray) -> tuple[float, int]:
    """The cheapest place to part the rows, and the cost of the boxes of both parts."""
    height, width = blocks.shape
    if height < 2:
        return np.inf, 0
    some = blocks.any(1)
    first = np.where(some, blocks.argmax(1), width)
    end = np.where(some, width - blocks[:, ::-1].argmax(1), 0)
    n = np.arange(height)
    above_height = np.maximum.accumulate(np.where(some, n + 1, 0))[:-1]
    above_width = (np.maximum.accumulate(end) - np.minimum.accumulate(first))[:-1]
    below_height = height - np.minimum.accumulate(np.where(some, n, height)[::-1])[::-1][1:]
    below_width = (np.maximum.accumulate(end[::-1]) - np.minimum.accumulate(first[::-1]))[::-1][1:]
    costs = _cost(above_height, above_width) + _cost(below_height, below_width)
    at = int(costs.argmin())
    return float(costs[at]), at + 1


def _cost(height: np.ndarray | int, width: np.ndarray | int) -> np.ndarray:
    """Pixels to compute, half of them with one around, and what a rectangle costs by itself."""
    return np.asarray((height * BLOCK_PX + 1) * (width * BLOCK_PX + 1) + RECTANGLE_PX)
