"""The lesions as they are now, with their sizes: one by one, and the whole case for export."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.lesions.measure import Measurements, measure
from NLSTSegLib.review.case import LostProposal, ReviewedCase, ReviewedLesion
from NLSTSegLib.review.state import FIRST_RUN
from NLSTSegLib.scene.review import PROPOSAL_ROLE, lesion_state, proposals_of
from NLSTSegLib.scene.volumes import ct_from_volume_node
from NLSTSegLib.scene.voxels import cut_out, segment_region, segment_regions, volume_of
from NLSTSegLib.volume.ct import to_canonical
from NLSTSegLib.volume.regions import Region, grown_box
from NLSTSegLib.volume.regular_grid import slice_stack, to_regular

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode


def measure_region(region: Region, volume_node: vtkMRMLScalarVolumeNode) -> Measurements | None:
    """Measure a lesion of the CT; only its surroundings are read. ``None`` for one without voxels.

    On a grid with right angles the sizes are those of :func:`NLSTSegLib.pipeline.segment`; a leaning stack is brought to
    right angles around the lesion alone. ``slice_k`` counts from the surroundings' first slice and means nothing elsewhere.
    """
    if not region.voxels:
        return None
    shape_kji = volume_node.GetImageData().GetDimensions()[::-1]
    box = grown_box(region.box, 2 * max(volume_node.GetSpacing()), volume_node.GetSpacing(), shape_kji)
    ct = cut_out(volume_node, box)
    stack = slice_stack(ct)
    share = to_canonical(to_regular(replace(ct, hu=region.within(box).astype(np.float32)), stack)).hu
    # Between the slices of a leaning stack a lesion of one voxel may fill no voxel by half.
    return measure(share >= min(0.5, float(share.max())), to_canonical(to_regular(ct, stack)), (0, 0, 0))


def reviewed_lesion(segmentation_node: vtkMRMLSegmentationNode, segment_id: str) -> ReviewedLesion:
    """A lesion as it is now, with its state, sizes and proposal."""
    return _reviewed(segmentation_node, segment_id, segment_region(segmentation_node, segment_id))


def reviewed_lesions(segmentation_node: vtkMRMLSegmentationNode) -> list[ReviewedLesion]:
    """All lesions as they are now, in the order of the segments."""
    regions = segment_regions(segmentation_node)
    return [_reviewed(segmentation_node, segment_id, region) for segment_id, region in regions.items()]


def reviewed_case(segmentation_node: vtkMRMLSegmentationNode) -> ReviewedCase:
    """The CT and its lesions as the reader left them, copied out of the scene.

    Raises :class:`InputError` where the CT is not in the scene, or cannot be used (see
    :func:`NLSTSegLib.scene.volumes.ct_from_volume_node`).
    """
    ct = ct_from_volume_node(volume_of(segmentation_node))
    lesions = reviewed_lesions(segmentation_node)
    proposal_node = segmentation_node.GetNodeReference(PROPOSAL_ROLE + FIRST_RUN)
    kept = {proposal for lesion in lesions for proposal in lesion.state.proposals}
    replaced = {proposal for lesion in lesions for proposal in lesion.state.replaces}
    lost = []
    for segment_id, region in segment_regions(proposal_node).items() if proposal_node is not None else ():
        proposal = f"{FIRST_RUN}/{segment_id}"
        if proposal not in kept:
            name = proposal_node.GetSegmentation().GetSegment(segment_id).GetName()
            state = lesion_state(proposal_node, segment_id, region)
            lost.append(LostProposal(segment_id, name, state, region, proposal in replaced))
    return ReviewedCase(segmentation_node.GetName(), ct, tuple(lesions), tuple(lost))


def _reviewed(segmentation_node: vtkMRMLSegmentationNode, segment_id: str, region: Region) -> ReviewedLesion:
    state = lesion_state(segmentation_node, segment_id, region)
    return ReviewedLesion(
        segment_id=segment_id,
        name=segmentation_node.GetSegmentation().GetSegment(segment_id).GetName(),
        state=state,
        region=region,
        sizes=measure_region(region, volume_of(segmentation_node)),
        proposal=proposals_of(segmentation_node, state.proposals),
    )
