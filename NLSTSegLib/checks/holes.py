"""Holes in the lungs: slices missing over so much of them that a lesion may lie there unseen."""

from __future__ import annotations

import numpy as np

from NLSTSegLib.checks.preflight import CUT_AREA_MM2, LUNG_BELOW_HU, THICK_SLICE_MM, Finding
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regular_grid import SliceStack

HOLE_STEPS = 1.5
"""Slices this many usual distances apart have a place for another between them; less is drift."""


def check_holes(stack: SliceStack, regular: CtVolume, lung_mask: np.ndarray, *, accepted: bool) -> list[Finding]:
    """An error, or with ``accepted`` a warning, where slices lie further apart within the lungs than small lesions are long.

    ``lung_mask`` is boolean ``[k, j, i]`` on ``regular``, the grid of :func:`.regular_grid.to_regular` made of ``stack``.
    """
    gaps_mm = np.diff(stack.height_mm)
    if stack.is_regular or not len(gaps_mm):
        return []
    planes_mm = np.arange(len(lung_mask)) * stack.step_mm
    pixel_mm2 = regular.spacing_ijk_mm[0] * regular.spacing_ijk_mm[1]
    holes = []
    for at in np.flatnonzero((gaps_mm > THICK_SLICE_MM + 1e-3) & (gaps_mm > HOLE_STEPS * stack.step_mm)):
        inside = (planes_mm > stack.height_mm[at]) & (planes_mm < stack.height_mm[at + 1])
        lung = lung_mask[inside] & (regular.hu[inside] < LUNG_BELOW_HU)
        if lung.sum(axis=(1, 2)).max(initial=0) * pixel_mm2 > CUT_AREA_MM2:
            holes.append(int(at))
    if not holes:
        return []
    widest = max(holes, key=lambda at: gaps_mm[at])
    missing = sum(max(1, round(gaps_mm[at] / stack.step_mm) - 1) for at in holes)
    place = f"{gaps_mm[widest]:.1f} mm between slices {widest + 1} and {widest + 2}"
    message = f"Slices are missing within the lungs ({missing}; {place}), and lesions there are not seen."
    if accepted:
        return [Finding("warning", "hole", message, "Look there yourself, in another series.")]
    fix = "Copy the series again, or go on all the same with --skip-unreadable (in Python accept_holes=True)."
    return [Finding("error", "hole", message, fix)]
