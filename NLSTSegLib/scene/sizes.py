"""The lesions as they are now, with their sizes and places: one by one, and the whole case for export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.lesions.measure import Measurements, measure
from NLSTSegLib.progress import Progress, silent
from NLSTSegLib.review.case import LostProposal, ReviewedCase, ReviewedLesion
from NLSTSegLib.review.state import FIRST_RUN
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.review import PROPOSAL_ROLE, lung_extent_of, proposals_of
from NLSTSegLib.scene.volumes import LPS_FROM_RAS, ct_from_volume_node
from NLSTSegLib.scene.voxels import cut_out, segment_regions, volume_of
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


def lesion_now(
    segmentation_node: vtkMRMLSegmentationNode,
    segment_id: str,
    region: Region,
    sizes: Measurements | None,
    volume_node: vtkMRMLScalarVolumeNode,
) -> ReviewedLesion:
    """A lesion with its state and place; ``region`` and ``sizes`` are its own. Its proposal is left out."""
    extent = lung_extent_of(segmentation_node)
    side, third = extent.side_and_third(sizes.centroid_lps_mm) if extent is not None and sizes is not None else ("", "")
    return ReviewedLesion(
        segment_id=segment_id,
        name=segmentation_node.GetSegmentation().GetSegment(segment_id).GetName(),
        state=lesion_state(segmentation_node, segment_id, region),
        region=region,
        sizes=sizes,
        proposal=None,
        slice=None if sizes is None else _slice_of(sizes, volume_node),
        side=side,
        third=third,
    )


def reviewed_lesions(segmentation_node: vtkMRMLSegmentationNode, progress: Progress = silent) -> list[ReviewedLesion]:
    """All lesions as they are now, in the order of the segments; ``progress`` is told after each."""
    volume_node, regions = volume_of(segmentation_node), segment_regions(segmentation_node)
    proposed: dict[str, Mapping[str, Region]] = {}
    lesions = []
    for number, (segment_id, region) in enumerate(regions.items()):
        progress(number / len(regions), "lesions")
        lesion = lesion_now(segmentation_node, segment_id, region, measure_region(region, volume_node), volume_node)
        lesions.append(replace(lesion, proposal=proposals_of(segmentation_node, lesion.state.proposals, proposed)))
    return lesions


def reviewed_case(segmentation_node: vtkMRMLSegmentationNode, progress: Progress = silent) -> ReviewedCase:
    """The CT and its lesions as the reader left them, copied out of the scene; ``progress`` is told after each lesion.

    Raises :class:`InputError` where the CT is not in the scene, or cannot be used (see
    :func:`NLSTSegLib.scene.volumes.ct_from_volume_node`).
    """
    ct = ct_from_volume_node(volume_of(segmentation_node))
    lesions = reviewed_lesions(segmentation_node, progress)
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


def _slice_of(sizes: Measurements, volume_node: vtkMRMLScalarVolumeNode) -> int:
    """See :attr:`NLSTSegLib.review.ReviewedLesion.slice`."""
    import slicer
    import vtk

    ras_from_ijk, ijk_from_ras = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(ras_from_ijk)
    volume_node.GetRASToIJKMatrix(ijk_from_ras)
    steps = slicer.util.arrayFromVTKMatrix(ras_from_ijk)[:3, :3]
    axis = int(np.argmax(np.abs(steps[2]) / np.linalg.norm(steps, axis=0)))
    middle_ras_mm = LPS_FROM_RAS @ np.mean(sizes.long_axis_ends_lps_mm, axis=0)  # its own inverse
    return int(np.rint(slicer.util.arrayFromVTKMatrix(ijk_from_ras) @ [*middle_ras_mm, 1.0])[axis])
