"""A lesion that the run missed, from a click: out of its probability map, or out of the CT alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.find import SCORE_PERCENTILE
from NLSTSegLib.lesions.growing import GROWTH_RADIUS_MM, distance_mm, grow_from, nearest, uphill
from NLSTSegLib.review.state import FIRST_RUN, LesionState, Origin, Status
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.review import card_of, probability_of, run_threshold
from NLSTSegLib.scene.threshold import LEAST_PROBABILITY
from NLSTSegLib.scene.voxels import cut_out, other_voxels, segment_regions, volume_of, world_from_ras
from NLSTSegLib.volume.components import touching
from NLSTSegLib.volume.probability import lowest_level
from NLSTSegLib.volume.regions import Box, Region, grown_box

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

CLICK_RADIUS_MM = 3.0
"""A click may miss the voxel it means by this."""


@dataclass(frozen=True, eq=False)
class ClickedLesion:
    """A lesion that could be added where a reader clicked."""

    region: Region
    origin: Origin
    """``PROBABILITY``, or ``MANUAL`` where the model sees nothing: ask before adding that one."""
    score: float | None
    threshold: float | None
    beside: str | None = None
    """The segment of the lesion under review that it touches most; ``None`` where it stands alone."""


def find_lesion_at(segmentation_node: vtkMRMLSegmentationNode, point_ras_mm: Sequence[float]) -> ClickedLesion:
    """The lesion at a point in the world's RAS (of a markup, or under the mouse), with no voxel of another lesion.

    Where the first run's probability is :data:`~NLSTSegLib.scene.threshold.LEAST_PROBABILITY` or more within
    :data:`CLICK_RADIUS_MM`, the way goes from there uphill to a peak, and the lesion is the peak's component above the run's
    threshold, or above half the peak if that is lower. Elsewhere it is grown from the voxel at the point by density, see
    :func:`NLSTSegLib.lesions.growing.grow_from`. Nothing is changed.

    Raises :class:`InputError` for a point outside the CT, on a lesion, in air or lung, or without an outline around it.
    """
    volume_node = volume_of(segmentation_node)
    seed_kji = _voxel_at(volume_node, point_ras_mm)
    _refuse_on_a_lesion(segmentation_node, seed_kji)
    found = _in_probability(segmentation_node, volume_node, seed_kji)
    if found is not None:
        return replace(found, beside=_beside(segmentation_node, found.region))
    box, inner_kji = _box_about(volume_node, seed_kji, GROWTH_RADIUS_MM)
    ct = cut_out(volume_node, box)
    taken = other_voxels(segmentation_node, [], box)
    region = Region.of(grow_from(ct.hu, ct.spacing_ijk_mm, inner_kji, taken), box)
    return ClickedLesion(region, Origin.MANUAL, None, None, _beside(segmentation_node, region))


def _beside(segmentation_node: vtkMRMLSegmentationNode, region: Region) -> str | None:
    import SimpleITK as sitk

    k, j, i = (slice(side.start - 1, side.stop + 1) for side in region.box)
    around = (k, j, i)
    dilated = sitk.BinaryDilate(sitk.GetImageFromArray(region.within(around).astype(np.uint8)), (1, 1, 1), sitk.sitkBox)
    rim = Region(around, sitk.GetArrayFromImage(dilated).astype(bool))
    lesions = segment_regions(segmentation_node)
    touched = {each: lesion.common_voxels(rim) for each, lesion in lesions.items()}
    kept = {
        each: voxels
        for each, voxels in touched.items()
        if voxels and lesion_state(segmentation_node, each, lesions[each]).status != Status.REJECTED
    }
    return max(kept, key=lambda each: kept[each], default=None)


def _in_probability(
    segmentation_node: vtkMRMLSegmentationNode, volume_node: vtkMRMLScalarVolumeNode, seed_kji: tuple[int, int, int]
) -> ClickedLesion | None:
    probability = probability_of(segmentation_node)
    if probability is None:
        return None
    radius_mm = GROWTH_RADIUS_MM
    while True:
        box, inner_kji = _box_about(volume_node, seed_kji, radius_mm)
        level = np.where(other_voxels(segmentation_node, [], box), 0, probability[box])
        away_mm = distance_mm(level.shape, volume_node.GetSpacing(), inner_kji)
        near = (level >= lowest_level(LEAST_PROBABILITY)) & (away_mm <= CLICK_RADIUS_MM)
        if not near.any():
            return None
        peak = np.zeros(level.shape, bool)
        peak[uphill(level, nearest(near, away_mm))] = True
        threshold = min(run_threshold(segmentation_node), float(level[peak][0]) / 2 / 255)
        mask = touching(level >= lowest_level(threshold), peak)
        region = Region.of(mask, box)
        # A lesion that reaches the box may go on outside, unless the CT ends there.
        reaches = any(
            (own.start == side.start and side.start > 0) or (own.stop == side.stop and side.stop < size)
            for own, side, size in zip(region.box, box, probability.shape, strict=True)
        )
        if not reaches:
            score = float(np.percentile(level[mask], SCORE_PERCENTILE)) / 255
            return ClickedLesion(region, Origin.PROBABILITY, score, threshold)
        radius_mm *= 2


def add_lesion(editor: LesionEditor, candidate: ClickedLesion, reader: str = "") -> str:
    """Add a candidate as a new lesion, as one undo step; it counts as edited. Returns its segment's identifier."""
    card = card_of(editor.segmentation_node) if candidate.origin == Origin.PROBABILITY else {}
    state = LesionState(
        status=Status.EDITED,
        origin=candidate.origin,
        reader=reader,
        score=candidate.score,
        threshold=candidate.threshold,
        model=f"{card['name']} {card['version']}" if card else "",
        weights_sha256=card.get("weights_sha256", ""),
        run=FIRST_RUN,
    )
    editor.save_state()
    return editor.add(candidate.region, state)


def grow_lesion(editor: LesionEditor, segment_id: str, candidate: ClickedLesion, reader: str = "") -> str:
    """Take a candidate into a lesion, as one undo step; it counts as edited. Returns the lesion's identifier."""
    region = segment_regions(editor.segmentation_node, [segment_id])[segment_id]
    state = lesion_state(editor.segmentation_node, segment_id, region)
    editor.save_state()
    grown = Region.union([region, candidate.region])
    editor.set_region(segment_id, grown)
    editor.write(segment_id, replace(state, status=Status.EDITED, reader=reader or state.reader), grown)
    return segment_id


def _voxel_at(volume_node: vtkMRMLScalarVolumeNode, point_ras_mm: Sequence[float]) -> tuple[int, int, int]:
    """(k, j, i) of the voxel at a point of the world."""
    import slicer
    import vtk

    ijk_from_ras = vtk.vtkMatrix4x4()
    volume_node.GetRASToIJKMatrix(ijk_from_ras)
    own_mm = np.linalg.inv(world_from_ras(volume_node)) @ [*point_ras_mm, 1.0]
    i, j, k = np.rint(slicer.util.arrayFromVTKMatrix(ijk_from_ras) @ own_mm).astype(int).tolist()[:3]
    size_i, size_j, size_k = volume_node.GetImageData().GetDimensions()
    if not (0 <= i < size_i and 0 <= j < size_j and 0 <= k < size_k):
        raise InputError(f"the point lies outside the CT '{volume_node.GetName()}'; click on a lesion in it")
    return k, j, i


def _refuse_on_a_lesion(segmentation_node: vtkMRMLSegmentationNode, seed_kji: tuple[int, int, int]) -> None:
    k, j, i = seed_kji
    voxel = (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1))
    for segment_id, region in segment_regions(segmentation_node).items():
        if region.within(voxel).any():
            name = segmentation_node.GetSegmentation().GetSegment(segment_id).GetName()
            if lesion_state(segmentation_node, segment_id, region).status == Status.REJECTED:
                raise InputError(f"the point lies on '{name}', which was rejected; reopen it instead")
            raise InputError(f"the point lies on '{name}' already; grow that one instead")


def _box_about(
    volume_node: vtkMRMLScalarVolumeNode, middle_kji: tuple[int, int, int], radius_mm: float
) -> tuple[Box, tuple[int, int, int]]:
    """The box around a voxel, and where the voxel lies in it."""
    k, j, i = middle_kji
    voxel = (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1))
    box = grown_box(voxel, radius_mm, volume_node.GetSpacing(), volume_node.GetImageData().GetDimensions()[::-1])
    return box, (k - box[0].start, j - box[1].start, i - box[2].start)
