"""``preview.png``: every lesion in three planes, outlined, with its size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.lesions.coding import segment_color
from NLSTSegLib.lesions.find import Lesion
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.results.cut_out import Cut, draw_scale_bar, font, outlined_panel
from NLSTSegLib.volume.ct import PADDING_HU

if TYPE_CHECKING:
    from PIL import Image

PANEL_PX = 224
"""Side of one cut-out."""

CAPTION_PX = 40
"""Height of the caption under the cut-outs."""

SMALLEST_VIEW_MM = 50.0
"""A cut-out shows at least this; larger lesions get 1.6 times their size."""

MOST_VIEW_VOXELS = 2000
"""Across a view; a header may tell of voxels a thousand times as long as wide."""

MOST_TILES = 60
"""Lesions shown, the largest ones; a network that fits badly may mark thousands, too many for one picture."""

TILE_PX = 3 * PANEL_PX + 8
"""Width of the three cut-outs of a lesion."""

GAP_PX = 8
"""Gap between tiles."""

BACKGROUND = (16, 16, 18)
TEXT = (235, 235, 235)


def write_preview(result: SegmentationResult, path: Path) -> None:
    """Write the picture; without lesions it shows the middle slice and says so."""
    from PIL import Image, ImageDraw

    tiles = [_tile(result, lesion) for lesion in result.lesions[:MOST_TILES]] or [_empty_tile(result)]
    not_shown = len(result.lesions[MOST_TILES:])
    foot = 24 if not_shown else 0
    places = [_tile_place(n, len(tiles)) for n in range(len(tiles))]
    right, bottom = (max(place[axis] for place in places) + (tiles[0].width, tiles[0].height)[axis] for axis in (0, 1))
    page = Image.new("RGB", (right + GAP_PX, bottom + GAP_PX + foot), BACKGROUND)
    for place, tile in zip(places, tiles, strict=True):
        page.paste(tile, place)
    if not_shown:
        ImageDraw.Draw(page).text((GAP_PX, page.height - foot), f"{not_shown} smaller lesions are not shown", TEXT, font())
    page.save(path, format="PNG")


def _tile_place(n: int, tiles: int) -> tuple[int, int]:
    """Left and top of a tile, in pixels."""
    columns = 1 if tiles < 3 else 2 if tiles <= 20 else 4
    return GAP_PX + n % columns * (TILE_PX + GAP_PX), GAP_PX + n // columns * (PANEL_PX + CAPTION_PX + GAP_PX)


def cut_out_box(n: int, lesions: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the first cut-out of lesion ``n`` (from 0) in the preview of a result with so many.

    The middle slice's where there is none, the last one's for a lesion that is not shown.
    """
    tiles = min(max(1, lesions), MOST_TILES)
    left, top = _tile_place(min(n, tiles - 1), tiles)
    return left, top, left + PANEL_PX, top + PANEL_PX


def _tile(result: SegmentationResult, lesion: Lesion) -> Image.Image:
    from PIL import Image, ImageDraw

    ct, row = result.canonical, result.row(lesion)
    spacing_kji = np.array(ct.spacing_ijk_mm[::-1])
    offset = np.array([part.start for part in lesion.box])
    where = np.array(lesion.mask.nonzero()) + offset[:, None]
    view_mm = max(SMALLEST_VIEW_MM, 1.6 * float(((np.ptp(where, axis=1) + 1) * spacing_kji).max()))
    view_mm = min(view_mm, MOST_VIEW_VOXELS * float(spacing_kji.min()))
    middle = (where.min(axis=1) + where.max(axis=1)) // 2
    _, centroid_j, centroid_i = where.mean(axis=1).round().astype(int)
    labels = Cut(lesion.mask.astype(np.uint8), offset, 0)
    voxels = Cut(ct.hu, np.zeros(3, int), PADDING_HU)

    tile = Image.new("RGB", (TILE_PX, PANEL_PX + CAPTION_PX), BACKGROUND)
    color = tuple(round(255 * part) for part in segment_color(lesion.label))
    # Axial as displayed: anterior up, patient's right on the left. Coronal and sagittal: head up.
    for n, (axis, at) in enumerate(((0, lesion.measurements.slice_k), (1, centroid_j), (2, centroid_i))):
        hu, mask = (cut.plane(axis, int(at), middle, view_mm, spacing_kji) for cut in (voxels, labels))
        tile.paste(outlined_panel(hu, mask, color, view_mm / np.delete(spacing_kji, axis), PANEL_PX), (n * (PANEL_PX + 4), 0))
    draw = ImageDraw.Draw(tile)
    size = f"{row['long_axis_mm']} x {row['short_axis_mm']} mm   {row['volume_mm3']} mm3"
    draw.text((4, PANEL_PX + 3), f"{lesion.name}   {size}", TEXT, font())
    note = f"score {float(row['score']):.3f}   mean {row['mean_hu']} HU   axial, coronal, sagittal"
    draw.text((4, PANEL_PX + 20), note, (160, 160, 160), font())
    draw_scale_bar(draw, view_mm, PANEL_PX, (3 * PANEL_PX, PANEL_PX + 26), TEXT)
    return tile


def _empty_tile(result: SegmentationResult) -> Image.Image:
    from PIL import Image, ImageDraw

    ct = result.canonical
    spacing_kji = np.array(ct.spacing_ijk_mm[::-1])
    centre = np.array(ct.hu.shape) // 2
    view_mm = float(max(ct.hu.shape[1] * spacing_kji[1], ct.hu.shape[2] * spacing_kji[2]))
    view_mm = min(view_mm, MOST_VIEW_VOXELS * float(spacing_kji[1:].min()))
    plane = Cut(ct.hu, np.zeros(3, int), PADDING_HU).plane(0, int(centre[0]), centre, view_mm, spacing_kji)
    tile = Image.new("RGB", (TILE_PX, PANEL_PX + CAPTION_PX), BACKGROUND)
    tile.paste(outlined_panel(plane, np.zeros(plane.shape, np.uint8), TEXT, view_mm / spacing_kji[1:], PANEL_PX), (0, 0))
    ImageDraw.Draw(tile).text((4, PANEL_PX + 3), f"no lesion above probability {result.threshold:g}", TEXT, font())
    return tile
