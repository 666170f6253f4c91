"""Which air of a CT is the lungs', and which the gut's: not the room's, by size, place and darkness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

AIR_BELOW_HU = -400
"""Lung parenchyma and air are below, soft tissue above."""

ROOM_BELOW_HU = -950
"""Mean of the air around the body is below, that of a lung above; tells one from the other at the sides of the slices."""

PADDING_STEP_HU = 2
"""Padding around the field of view differs by this at the most from the corner of its slice; no tissue or air is so even."""

TABLE_PX = 1
"""Radius, in the search's coarse pixels, of the opening that takes the table's shell and blankets off the body."""

BODY_FROM = 0.1
"""Share of all that is no air; with less beside it what looks like padding is the body."""

INSIDE_SHARE, INSIDE_SHARE_AT_EDGE = 0.5, 0.2
"""Share of a lung that has the body on three of its four sides at the least; less where the field of view cuts the lung."""

CONTACT_SHARE = 0.1
"""Air with this share of its voxels beside padding is a seam around the body; a lung that is cut there has below 0.05."""

PART_SHARE, PART_ML = 0.1, 20.0
"""A part of a lung, as fluid or collapse leave it, has this share of the largest part, or this volume at the least."""

MINIMUM_LUNG_ML, MINIMUM_LUNG_SHARE = 150.0, 0.025
"""Less air than this inside the body is no lung; in a stack of a few slices, this share of the image is enough."""

BODY_SHARE = 0.005
"""A slice with less tissue than this share of its pixels shows no body."""

MINIMUM_SLICE_AREA_MM2 = 400.0
"""The body's air counts as lung where a component is at least this large in some slice; the trachea is smaller."""

GUT_DARKER_HU, GUT_BELOW_HU, GUT_LOWER_MM = 100, -850, 20.0
"""Air whose median is so much darker than a lung's, and below this, and which ends so far below its top is gas of stomach or
bowel."""

SMALL_GUT_DARKER_HU = 30
"""Enough where there is less of it than :data:`PART_SHARE` of that lung: sharp kernels make lungs darker, thick slices gas less
dark (C3N-00247, B70f: lungs -864, colon -936; in slices of 9 mm -853 and -893)."""


END_MM = 15.0
"""Where an image ends aslant, as one that was turned or moved does, air of lungs that are cut there meets that of the room within
this of the first or last slice."""


def lung_and_gut_air(coarse: np.ndarray, spacing_kji: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The lungs and the gas of the gut (bool); ``None`` when there is no lung."""
    import SimpleITK as sitk

    air = sitk.GetArrayFromImage(sitk.Median(sitk.GetImageFromArray(coarse), (1, 1, 0))) < AIR_BELOW_HU
    padding = _padding(coarse)
    if (~air & ~padding).sum() < BODY_FROM * (~air).sum():
        # A made image, whose body is as even as padding.
        padding[:] = False
    air &= ~padding
    # An empty slice at the end of a series would join lungs that are cut there with the room.
    air[(~air).mean(axis=(1, 2)) < BODY_SHARE] = False
    inside, edge = _inside_body(~air & ~padding), _edge(padding)
    found = _parted(air, coarse, spacing_kji, inside, edge)
    end = int(np.ceil(END_MM / spacing_kji[0]))
    if found is None and len(air) > 4 * end:
        between = air.copy()
        between[:end] = between[-end:] = False
        found = _parted(between, coarse, spacing_kji, inside, edge)
        if found is not None:
            _go_on_to_the_ends(found[0], air, end)
    return found


def _parted(
    air: np.ndarray, coarse: np.ndarray, spacing_kji: np.ndarray, inside: np.ndarray | None, edge: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Lungs and gas of the gut among the components of ``air``; ``None`` when there is no lung."""
    import SimpleITK as sitk

    components = sitk.ConnectedComponent(sitk.GetImageFromArray(air.astype(np.uint8)))
    labels = sitk.GetArrayFromImage(sitk.RelabelComponent(components, sortByObjectSize=True))
    voxel_ml = float(np.prod(spacing_kji)) / 1000
    areas_mm2 = spacing_kji[1] * spacing_kji[2]
    sizes = np.bincount(labels.ravel())
    kept = []
    largest = 0
    for label in range(1, min(len(sizes), 20)):
        mask = labels == label
        if _is_room(mask, coarse, inside, edge):
            continue
        if sizes[label] < PART_SHARE * largest and sizes[label] * voxel_ml < PART_ML:
            continue
        largest = largest or sizes[label]
        if mask.sum(axis=(1, 2)).max() * areas_mm2 >= MINIMUM_SLICE_AREA_MM2:
            kept.append(mask)
    lungs, gut = np.zeros((2, *labels.shape), bool)
    for mask, is_gut in zip(kept, _are_gut(kept, coarse, spacing_kji[0]), strict=True):
        (gut if is_gut else lungs)[mask] = True
    if lungs.sum() * voxel_ml < min(MINIMUM_LUNG_ML, MINIMUM_LUNG_SHARE * labels.size * voxel_ml):
        return None
    return lungs, gut


def _go_on_to_the_ends(lungs: np.ndarray, air: np.ndarray, end: int) -> None:
    """Write into the ``end`` slices at either end of ``lungs`` the air that lies on the lungs of the slice before."""
    for k in range(end):
        lungs[end - 1 - k] = air[end - 1 - k] & lungs[end - k]
        lungs[k - end] = air[k - end] & lungs[k - end - 1]


def _are_gut(masks: Sequence[np.ndarray], coarse: np.ndarray, slice_mm: float) -> list[bool]:
    """Which components of air are gas of the gut: below the lungs, and darker, since lungs are full of vessels."""
    facts: list[tuple[float, float, int]] = [
        (float(np.median(coarse[mask])), float(np.flatnonzero(mask.any(axis=(1, 2)))[-1]) * slice_mm, int(np.count_nonzero(mask)))
        for mask in masks
    ]

    def is_gut(median_hu: float, top_mm: float, voxels: int) -> bool:
        return median_hu < GUT_BELOW_HU and any(
            median_hu < lung_hu - (SMALL_GUT_DARKER_HU if voxels < PART_SHARE * lung_voxels else GUT_DARKER_HU)
            and top_mm < lung_top_mm - GUT_LOWER_MM
            for lung_hu, lung_top_mm, lung_voxels in facts
        )

    return [is_gut(*fact) for fact in facts]


def _padding(coarse: np.ndarray) -> np.ndarray:
    """What has the value of a corner of its slice, without any noise, and is connected with it: no image, whatever the value."""
    import SimpleITK as sitk

    padding = np.zeros(coarse.shape, bool)
    for k, plane in enumerate(coarse):
        image = sitk.GetImageFromArray(plane)
        for j, i in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            around = plane[(slice(3) if j == 0 else slice(-3, None)), (slice(3) if i == 0 else slice(-3, None))]
            if not padding[k, j, i] and np.ptp(around) <= PADDING_STEP_HU:
                seed = (i % plane.shape[1], j % plane.shape[0])
                low, high = int(plane[j, i]) - PADDING_STEP_HU, int(plane[j, i]) + PADDING_STEP_HU
                padding[k] |= sitk.GetArrayFromImage(sitk.ConnectedThreshold(image, [seed], low, high)) > 0
    return padding


def _edge(padding: np.ndarray) -> np.ndarray:
    """The sides of the slices and the pixels beside padding: where the field of view ends."""
    edge = np.zeros(padding.shape, bool)
    edge[:, [0, -1]] = edge[:, :, [0, -1]] = True
    for axis in (1, 2):
        for step in (1, -1):
            edge |= np.roll(padding, step, axis)
    return edge


def _inside_body(tissue: np.ndarray) -> np.ndarray | None:
    """What has the body, the largest piece of tissue, on three of its four sides in the slice; ``None`` without a body."""
    import SimpleITK as sitk

    opened = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray(tissue.astype(np.uint8)), (TABLE_PX, TABLE_PX, 0))
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(opened), sortByObjectSize=True)
    body = sitk.GetArrayFromImage(pieces) == 1
    if not body.any():
        return None
    sides = np.zeros(body.shape, np.uint8)
    for axis in (1, 2):
        sides += np.maximum.accumulate(body, axis)
        sides += np.flip(np.maximum.accumulate(np.flip(body, axis), axis), axis)
    return sides >= 3


def _is_room(mask: np.ndarray, coarse: np.ndarray, inside: np.ndarray | None, edge: np.ndarray) -> bool:
    """Whether this air is around the body; a lung may reach the end of the field of view, but not the slices' corners."""
    if mask[:, [0, 0, -1, -1], [0, -1, 0, -1]].any():
        return True
    at_edge = edge[mask].mean()
    if at_edge > CONTACT_SHARE or (at_edge and coarse[mask].mean() < ROOM_BELOW_HU):
        return True
    return inside is not None and bool(inside[mask].mean() < (INSIDE_SHARE_AT_EDGE if at_edge else INSIDE_SHARE))
