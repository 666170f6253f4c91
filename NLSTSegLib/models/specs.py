"""How a network wants to see a CT, and what a card says of its refinement network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PUBLISHED_WINDOW_HU = (-1200.0, 200.0)
"""The window of the published procedure (Chen et al. 2025): centre -500, width 1400."""

MAXIMUM_INPUT_SLICES = 63
"""More input slices than any chest needs are a broken card, and would fill the memory."""


MAXIMUM_HU, MAXIMUM_STEP_MM, MAXIMUM_MARGIN_PX = 100_000.0, 100.0, 4096
"""Nor does any chest need a wider window, farther neighbours or a broader margin."""


MAXIMUM_PATCH, MAXIMUM_PATCH_VOXELS, LEAST_SPACING_MM = 512, 2**24, 0.2
"""A larger patch or a finer grid would fill the memory."""


@dataclass(frozen=True)
class InputSpec:
    """How a network wants to see a CT.

    ``window_hu`` is clipped and scaled to -1..1, through whole numbers 0..255 first (truncated) when ``as_uint8``.
    ``slices`` is the number of input slices of a 2.5D network; neighbours lie ``slice_step_mm`` apart, rounded to whole
    slices, so thin and thick slices show the same stretch of the body (0: directly neighbouring slices).
    """

    window_hu: tuple[float, float]
    as_uint8: bool = False
    slices: int = 1
    slice_step_mm: float = 0.0
    margin_px: int = 48
    """How far beyond the lung field the crop reaches, so that what is inside is seen with its surroundings."""
    patch_kji: tuple[int, int, int] | None = None
    """Size of the patches of a 3D network, in voxels; only for one."""
    spacing_kji_mm: tuple[float, float, float] | None = None
    """Voxel spacing that the CT is resampled to for a 3D network; as it is without."""

    def __post_init__(self) -> None:
        if not -MAXIMUM_HU <= self.window_hu[0] < self.window_hu[1] <= MAXIMUM_HU:
            raise ValueError(f"window_hu must rise and lie within {MAXIMUM_HU:g} HU of 0, not {self.window_hu}")
        if self.slices not in range(1, MAXIMUM_INPUT_SLICES + 1, 2):
            raise ValueError(f"slices must be odd, 1 to {MAXIMUM_INPUT_SLICES}, not {self.slices}")
        if not 0 <= self.slice_step_mm <= MAXIMUM_STEP_MM or not 0 <= self.margin_px <= MAXIMUM_MARGIN_PX:
            most = f"slice_step_mm and margin_px must be 0 to {MAXIMUM_STEP_MM:g} and {MAXIMUM_MARGIN_PX}"
            raise ValueError(f"{most}, not {self.slice_step_mm} and {self.margin_px}")
        if self.patch_kji is not None:
            sides_fit = all(1 <= side <= MAXIMUM_PATCH for side in self.patch_kji)
            if not sides_fit or np.prod(self.patch_kji) > MAXIMUM_PATCH_VOXELS:
                most = f"three sides of 1 to {MAXIMUM_PATCH}, at most {MAXIMUM_PATCH_VOXELS} voxels"
                raise ValueError(f"patch_kji must be {most}, not {self.patch_kji}")
        if self.spacing_kji_mm is not None and not all(LEAST_SPACING_MM <= s <= MAXIMUM_STEP_MM for s in self.spacing_kji_mm):
            raise ValueError(
                f"spacing_kji_mm must be three steps of {LEAST_SPACING_MM:g} to {MAXIMUM_STEP_MM:g} mm, not {self.spacing_kji_mm}"
            )

    def scale(self, hu: np.ndarray) -> np.ndarray:
        """Network input values, float32, of ``hu`` (any shape)."""
        low, high = self.window_hu
        unit = (np.clip(hu, low, high).astype(np.float32) - np.float32(low)) / np.float32(high - low)
        if self.as_uint8:
            unit = np.floor(unit * np.float32(255)) / np.float32(255)
        return unit * 2 - 1

    def slice_offsets(self, spacing_k_mm: float) -> np.ndarray:
        """Index offsets of the input slices around the slice to segment."""
        step = max(1, round(self.slice_step_mm / spacing_k_mm))
        return (np.arange(self.slices) - self.slices // 2) * step


@dataclass(frozen=True)
class RefinementSpec:
    """What a model card says of its second network; its weights are in the file of the first, their names after ``second.``."""

    channels: tuple[int, int, int, int]
    window_hu: tuple[float, float]
    candidate_threshold: float
    """Probability of the first network from which a component is looked at again."""
    outline_threshold: float
    """Threshold of the second network's voxels, given that there is a lesion; the card's ``threshold`` stands for it."""
    score_slope: float
    score_shift: float
    """A candidate is a lesion with the probability ``sigmoid(score_slope * logit + score_shift)`` (Platt's scaling)."""

    def __post_init__(self) -> None:
        if not self.window_hu[0] < self.window_hu[1]:
            raise ValueError(f"window_hu must rise, not {self.window_hu}")
        for name in ("candidate_threshold", "outline_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        if not self.score_slope > 0:
            raise ValueError(f"score_slope must be above 0, not {self.score_slope}")
