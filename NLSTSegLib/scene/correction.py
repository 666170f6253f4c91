"""Splitting, merging and deleting lesions, each as one undo step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.growing import cut_in_two
from NLSTSegLib.review.state import Status
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.voxels import segment_region, segment_regions, volume_of
from NLSTSegLib.volume.components import components_by_size
from NLSTSegLib.volume.regions import Region


def split_lesion(editor: LesionEditor, segment_id: str) -> list[str]:
    """Split a lesion into its 26-connected components, or, where it is one, in two at its deepest waist.

    The largest part keeps the segment; the others become new lesions from the same proposal. All count as edited. Returns
    the identifiers, the largest part first. Raises :class:`InputError` for a lesion in one piece without a waist.
    """
    node = editor.segmentation_node
    region = segment_region(node, segment_id)
    state = replace(lesion_state(node, segment_id, region), status=Status.EDITED)
    masks: Sequence = components_by_size(region.mask) if region.voxels else ()
    if len(masks) < 2:
        masks = (region.voxels and cut_in_two(region.mask, volume_of(node).GetSpacing())) or ()
    if not masks:
        name = node.GetSegmentation().GetSegment(segment_id).GetName()
        raise InputError(f"'{name}' hangs together and has no waist to be cut at; cut it with the scissors")
    parts = [Region.of(mask, region.box) for mask in masks]
    editor.save_state()
    editor.set_region(segment_id, parts[0])
    editor.write(segment_id, state)
    # The time was spent on what was one lesion; it is not counted twice.
    return [segment_id, *(editor.add(part, replace(state, seconds=0.0)) for part in parts[1:])]


def merge_lesions(editor: LesionEditor, segment_ids: Sequence[str]) -> str:
    """Merge two or more lesions into the first, whose name and colour stay; it counts as edited. Returns its identifier.

    The gap between them stays empty. Raises :class:`InputError` for fewer than two lesions.
    """
    ids = list(dict.fromkeys(segment_ids))
    if len(ids) < 2:
        raise InputError("merging takes two or more lesions; select the others too")
    regions = segment_regions(editor.segmentation_node, ids)
    states = [lesion_state(editor.segmentation_node, each, regions[each]) for each in ids]
    merged = replace(
        states[0],
        status=Status.EDITED,
        seconds=sum(state.seconds for state in states),
        score=max((state.score for state in states if state.score is not None), default=None),
        proposals=tuple(dict.fromkeys(proposal for state in states for proposal in state.proposals)),
        replaces=tuple(dict.fromkeys(proposal for state in states for proposal in state.replaces)),
    )
    editor.save_state()
    for segment_id in ids[1:]:
        editor.remove(segment_id)
    editor.set_region(ids[0], Region.union(regions.values()))
    editor.write(ids[0], merged)
    return ids[0]


def delete_lesion(editor: LesionEditor, segment_id: str) -> None:
    """Delete a lesion; what was proposed stays known to the audit. To keep it in the scene, reject it instead."""
    segment_region(editor.segmentation_node, segment_id)  # raises where it is not there
    editor.save_state()
    editor.remove(segment_id)
