"""A probability volume (uint8, 255 is 1) against a threshold: one rule for all who compare."""

from __future__ import annotations

import numpy as np


def lowest_level(threshold: float) -> int:
    """The smallest v of 0..255 with ``v / 255 > threshold``; ``threshold * 255`` could be off by one step through rounding."""
    return int(np.searchsorted(np.arange(256) / 255, threshold, side="right"))


def above(probability: np.ndarray, threshold: float) -> np.ndarray:
    """bool, of the shape of ``probability`` (uint8): ``probability / 255 > threshold``."""
    return probability >= lowest_level(threshold)
