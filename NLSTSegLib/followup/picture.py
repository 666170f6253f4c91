"""``follow-up.png``: a row a track, every CT in three planes at one scale with its own outline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.followup.compare import FollowUp
from NLSTSegLib.followup.matching import Kind
from NLSTSegLib.followup.table import growth_text
from NLSTSegLib.followup.tracks import Track
from NLSTSegLib.lesions.coding import segment_color
from NLSTSegLib.results.cut_out import Cut, draw_scale_bar, font, outlined_panel
from NLSTSegLib.volume.ct import PADDING_HU
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from PIL import Image

PANEL_PX, GAP_PX, CT_GAP_PX, LINE_PX = 160, 3, 12, 18
"""Side of one plane, between planes, between CTs, and a line of text."""

SMALLEST_VIEW_MM, MOST_VIEW_VOXELS = 50.0, 2000
"""Bounds of a view, as in the preview of one result."""

MOST_TRACKS = 60
"""Rows of a picture."""

BACKGROUND, TEXT, DIM = (16, 16, 18), (235, 235, 235), (160, 160, 160)


def page_of(follow_up: FollowUp) -> Image.Image:
    """All rows under each other; of no lesion at all, a line that says so."""
    from PIL import Image, ImageDraw

    shown = follow_up.tracks[:MOST_TRACKS]
    tiles = [row_of(follow_up, track) for track in shown]
    width = max((tile.width for tile in tiles), default=600)
    foot = 0 if tiles and len(shown) == len(follow_up.tracks) else LINE_PX + 10
    page = Image.new("RGB", (width + 16, sum(tile.height + 10 for tile in tiles) + foot + 6), BACKGROUND)
    y = 6
    for tile in tiles:
        page.paste(tile, (8, y))
        y += tile.height + 10
    if foot:
        more = len(follow_up.tracks) - len(shown)
        text = f"{more} more tracks are in the table" if more else "no lesion in any of the CTs"
        ImageDraw.Draw(page).text((8, y), text, TEXT, font())
    return page


def row_of(follow_up: FollowUp, track: Track) -> Image.Image:
    """One track: its planes in every CT, and under them its sizes, changes and what they say."""
    from PIL import Image, ImageDraw

    view_mm = max(SMALLEST_VIEW_MM, 1.6 * max(_extent_mm(follow_up, track, t) for t in range(len(follow_up.points))))
    view_mm = min(view_mm, MOST_VIEW_VOXELS * min(min(point.ct.spacing_ijk_mm) for point in follow_up.points))
    lines = captions(follow_up, track)
    block = 3 * PANEL_PX + 2 * GAP_PX
    count = len(follow_up.points)
    width = count * block + (count - 1) * CT_GAP_PX
    tile = Image.new("RGB", (width, PANEL_PX + LINE_PX * (2 + len(lines)) + 4), BACKGROUND)
    draw = ImageDraw.Draw(tile)
    for t in range(count):
        left = t * (block + CT_GAP_PX)
        for n, panel in enumerate(_planes(follow_up, track, t, view_mm)):
            tile.paste(panel, (left + n * (PANEL_PX + GAP_PX), LINE_PX))
        draw.text((left, 1), _heading(follow_up, track, t), TEXT, font())
    y = PANEL_PX + LINE_PX + 3
    for line in lines:
        draw.text((0, y), line, TEXT if line is lines[0] else DIM, font())
        y += LINE_PX
    draw_scale_bar(draw, view_mm, PANEL_PX, (width, PANEL_PX + LINE_PX + 10), TEXT)
    return tile


def captions(follow_up: FollowUp, track: Track) -> list[str]:
    """What is said of a track: for every step its kind, and the change with its interval; then the rules that fire."""
    lines = []
    for t, step in enumerate(track.steps, start=1):
        if step is None:
            continue
        text = f"{track.number}: {step.kind}{' (by hand)' if step.by_hand else ''}{' (ambiguous)' if step.ambiguous else ''}"
        change = follow_up.change(track, t, t - 1)
        if change:
            text += f"   volume {growth_text(change.growth)}"
        elif step.kind in (Kind.NOT_FOUND, Kind.NEW) and step.probability is not None:
            where = "the later CT" if step.kind is Kind.NOT_FOUND else "the earlier CT"
            text += f"   the model's probability at its place in {where}: {step.probability:.2f}"
        lines.append(text)
        if change:
            lines += [f"    {rule.name}: {rule.says}" for rule in change.rules]
        if change and change.mass:
            lines.append(f"    mass {growth_text(change.mass)}")
    return lines or [f"{track.number}"]


def _heading(follow_up: FollowUp, track: Track, t: int) -> str:
    lesions = follow_up.lesions(track, t)
    when = "" if follow_up.days is None else f", day {follow_up.days[t]:.0f}"
    if not lesions:
        return f"CT {t + 1}{when}: none"
    sizes = " + ".join(f"{one.name} {one.sizes.volume_mm3:.0f} mm3" for one in lesions)
    scores = [one.score for one in lesions if one.score is not None]
    return f"CT {t + 1}{when}: {sizes}{f', score {max(scores):.2f}' if scores else ''}"


def _extent_mm(follow_up: FollowUp, track: Track, t: int) -> float:
    lesions = follow_up.lesions(track, t)
    if not lesions:
        return 0.0
    region = Region.union(one.region for one in lesions)
    return float((np.array(region.mask.shape) * follow_up.points[t].ct.spacing_ijk_mm[::-1]).max())


def _planes(follow_up: FollowUp, track: Track, t: int, view_mm: float) -> list[Image.Image]:
    """Axial, coronal and sagittal, through the lesion or where it would lie."""
    from PIL import Image

    point, lesions = follow_up.points[t], follow_up.lesions(track, t)
    spacing_kji = np.array(point.ct.spacing_ijk_mm[::-1])
    if lesions:
        region = Region.union(one.region for one in lesions)
        start = np.array([side.start for side in region.box])
        middle = start + np.array(region.mask.shape) // 2
        largest = max(lesions, key=lambda one: one.sizes.volume_mm3)
        at = point.index_mm(np.array(largest.sizes.centroid_lps_mm))[::-1]
        labels = Cut(region.mask.astype(np.uint8), start, 0)
    else:
        place = _place(track, t)
        if place is None or not point.shows(place):
            return [Image.new("RGB", (PANEL_PX, PANEL_PX), (34, 34, 38))] * 3
        at = middle = point.index_mm(place)[::-1]
        labels = Cut(np.zeros((1, 1, 1), np.uint8), np.zeros(3, int), 0)
    voxels = Cut(point.ct.hu, np.zeros(3, int), PADDING_HU)
    red, green, blue = (round(255 * part) for part in segment_color(track.number))
    panels = []
    for axis in range(3):
        hu, mask = (cut.plane(axis, int(at[axis]), middle, view_mm, spacing_kji) for cut in (voxels, labels))
        panels.append(outlined_panel(hu, mask, (red, green, blue), view_mm / np.delete(spacing_kji, axis), PANEL_PX))
    return panels


def _place(track: Track, t: int) -> np.ndarray | None:
    """Where the lesion would lie in CT ``t``, which lacks it: told by the step into it, or out of it."""
    into = track.steps[t - 1] if t else None
    out = track.steps[t] if t < len(track.steps) else None
    for step, other in ((into, t - 1), (out, t + 1)):
        if step is not None and step.place_lps_mm is not None and (step is into or track.members[other]):
            return step.place_lps_mm
    return None
