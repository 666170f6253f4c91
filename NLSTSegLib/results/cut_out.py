"""Square pictures of a CT around a lesion, with its outline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.volume.ct import LUNG_WINDOW_HU

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont


class Cut:
    """An array that starts at voxel ``offset`` of the CT, with ``outside`` all around it."""

    def __init__(self, array: np.ndarray, offset: np.ndarray, outside: int):
        self.array, self.offset, self.outside = array, offset, outside

    def plane(self, axis: int, at: int, centre: np.ndarray, view_mm: float, spacing_kji: np.ndarray) -> np.ndarray:
        """Voxels that cover a square of ``view_mm`` around ``centre``, perpendicular to ``axis``; k runs upwards."""
        index = []
        for n in range(3):
            half = 0 if n == axis else round(view_mm / spacing_kji[n] / 2)
            middle = at if n == axis else centre[n]
            index.append(np.arange(middle - half, middle + half + 1) - self.offset[n])
        inside = [(rows >= 0) & (rows < size) for rows, size in zip(index, self.array.shape, strict=True)]
        plane = np.full([len(rows) for rows in index], self.outside, self.array.dtype)
        plane[np.ix_(*inside)] = self.array[np.ix_(*(rows[ok] for rows, ok in zip(index, inside, strict=True)))]
        plane = plane.squeeze(axis)
        return plane if axis == 0 else plane[::-1]


def outlined_panel(
    hu: np.ndarray, mask: np.ndarray, color: tuple[int, ...], view_voxels: np.ndarray, side_px: int
) -> Image.Image:
    """The middle ``view_voxels`` (rows, columns) of a cut, with the outline, as a square.

    Fractions of a voxel count, or a scale bar would lie.
    """
    from PIL import Image, ImageChops, ImageFilter

    low, high = LUNG_WINDOW_HU
    grey = np.clip((hu - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    side = (side_px, side_px)
    top, left = (np.array(hu.shape) - view_voxels) / 2
    view = (left, top, hu.shape[1] - left, hu.shape[0] - top)
    panel = Image.fromarray(grey).resize(side, Image.Resampling.BICUBIC, view).convert("RGB")
    filled = Image.fromarray(mask * np.uint8(255)).resize(side, Image.Resampling.NEAREST, view)
    outline = ImageChops.subtract(filled.filter(ImageFilter.MaxFilter(3)), filled)
    panel.paste(color, mask=outline)
    return panel


def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Font of all writing beside cut-outs."""
    from PIL import ImageFont

    return ImageFont.load_default(13)


def draw_scale_bar(
    draw: ImageDraw.ImageDraw, view_mm: float, panel_px: int, end_px: tuple[int, int], color: tuple[int, int, int]
) -> None:
    """A bar of 10 or 50 mm with its length, for panels of ``panel_px`` that show ``view_mm``; it ends at ``end_px`` (x, y)."""
    bar_mm, (right, y) = 10 if view_mm < 100 else 50, end_px
    left = right - round(bar_mm / view_mm * panel_px)
    draw.line((left, y, right, y), color, 2)
    for end in (left, right - 1):
        draw.line((end, y - 4, end, y + 4), color, 2)
    draw.text((left - 6, y), f"{bar_mm} mm", color, font(), anchor="rm")
