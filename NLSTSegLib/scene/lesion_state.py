"""The state of a lesion, kept in the tags of its segment: read, written, and shown by what is hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError
from NLSTSegLib.review.state import STATE_TAGS, LesionState, Status, state_of_tags, tags_of_state
from NLSTSegLib.scene.voxels import segment_region
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

HIDDEN_ATTRIBUTE = "NLSTSeg.Hidden"
"""Attribute of the display node: the segments that were hidden because they were rejected, and by nobody's wish."""

SECONDS_ATTRIBUTE = "NLSTSeg.Seconds."
"""Node attribute, with a segment's identifier, of its seconds in focus. Undo brings back a segment's tags, but must not
take back time that was spent."""


def lesion_state(segmentation_node: vtkMRMLSegmentationNode, segment_id: str, region: Region | None = None) -> LesionState:
    """The state of a lesion; ``region``, its voxels, spares reading them again.

    A new or accepted lesion whose voxels have changed since is edited, whoever changed them: so painting counts, and undoing
    it counts too.
    """
    state = tag_state(segmentation_node, segment_id)
    region = region or segment_region(segmentation_node, segment_id)
    changed = state.voxels not in ("", region.fingerprint)
    return replace(
        state,
        status=Status.EDITED if changed and state.status in (Status.NEW, Status.ACCEPTED) else state.status,
        seconds=_seconds(segmentation_node, segment_id, state),
    )


def _seconds(segmentation_node: vtkMRMLSegmentationNode, segment_id: str, state: LesionState) -> float:
    """Seconds in focus until now; ``state`` is what the tags say."""
    return max(state.seconds, float(segmentation_node.GetAttribute(SECONDS_ATTRIBUTE + segment_id) or 0))


def write_state(segmentation_node: vtkMRMLSegmentationNode, segment_id: str, state: LesionState) -> None:
    """Set the tags of a lesion; see :class:`NLSTSegLib.scene.editor.LesionEditor` for changes that can be undone."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    for tag, value in tags_of_state(state).items():
        if value:
            segment.SetTag(tag, value)
        elif segment.HasTag(tag):
            segment.RemoveTag(tag)
    segmentation_node.SetAttribute(SECONDS_ATTRIBUTE + segment_id, f"{state.seconds:.1f}")


def add_seconds_in_focus(segmentation_node: vtkMRMLSegmentationNode, segment_id: str, seconds: float) -> None:
    """Count time that a reader has spent on a lesion; it goes into the segment's tag with the next decision on it."""
    spent = _seconds(segmentation_node, segment_id, tag_state(segmentation_node, segment_id)) + seconds
    segmentation_node.SetAttribute(SECONDS_ATTRIBUTE + segment_id, f"{spent:.1f}")


def show_by_status(segmentation_node: vtkMRMLSegmentationNode) -> None:
    """Hide the rejected lesions in all views and show those that are no longer rejected; leave the others as they are."""
    display = segmentation_node.GetDisplayNode()
    if display is None:
        return
    hidden = set((display.GetAttribute(HIDDEN_ATTRIBUTE) or "").split())
    ids = segmentation_node.GetSegmentation().GetSegmentIDs()
    rejected = [each for each in ids if tag_state(segmentation_node, each).status == Status.REJECTED]
    for segment_id in ids:
        if segment_id in rejected:
            display.SetSegmentVisibility(segment_id, False)
        elif segment_id in hidden:
            display.SetSegmentVisibility(segment_id, True)
    display.SetAttribute(HIDDEN_ATTRIBUTE, " ".join(rejected))


def tag_state(segmentation_node: vtkMRMLSegmentationNode, segment_id: str) -> LesionState:
    import vtk

    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    if segment is None:
        raise InputError(f"the segmentation '{segmentation_node.GetName()}' has no segment '{segment_id}' any more")
    tags = {}
    for tag in STATE_TAGS:
        value = vtk.mutable("")
        if segment.GetTag(tag, value):
            tags[tag] = str(value)
    return state_of_tags(tags, segment.GetName())
