"""A later run beside a review: what it found anew, taking lesions over from it, and taking it away again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError
from NLSTSegLib.review.state import FIRST_RUN, LesionState, Status
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.review import PROBABILITY_ROLE, PROPOSAL_ROLE, is_touched, reviews_of
from NLSTSegLib.scene.voxels import drop_layers, segment_regions, volume_of
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLDisplayableNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode


@dataclass(frozen=True)
class RunChanges:
    """A later run against the lesions under review, by the identifiers of segments.

    Two lesions with a voxel in common are the same one; of several, the one that shares most.
    """

    added: tuple[str, ...]
    """Lesions of the later run that none under review overlaps."""
    changed: dict[str, str]
    """Lesions of the later run, each with the one under review that it gives another outline."""
    same: dict[str, str]
    """Those with the same outline."""
    rejected: dict[str, str]
    """Lesions of the later run that were rejected in the review."""
    gone: tuple[str, ...]
    """Lesions under review that the later run does not overlap; rejected ones are not counted."""


def review_and_later_run(
    volume_node: vtkMRMLScalarVolumeNode, shown_node: vtkMRMLSegmentationNode | None = None
) -> tuple[vtkMRMLSegmentationNode | None, vtkMRMLSegmentationNode | None]:
    """The review of a CT to go on with, and a later run to be put beside it; ``None`` for what there is not.

    It is the one that is shown, or the newest, of those that a reader has touched; else the newest. The later run is the
    newest review, where nobody has touched it and it is not that one.
    """
    reviews = reviews_of(volume_node)
    touched = [each for each in reviews if is_touched(each)]
    newest = reviews[-1] if reviews else None
    review = next((each for each in touched if each is shown_node), touched[-1] if touched else newest)
    return review, None if newest is review or newest in touched else newest


def compare_runs(reviewed_node: vtkMRMLSegmentationNode, later_node: vtkMRMLSegmentationNode) -> RunChanges:
    """What a later run of the same CT changes; neither segmentation is touched.

    Raises :class:`InputError` when the two belong to different CTs.
    """
    _check_same_ct(reviewed_node, later_node)
    reviewed, later = segment_regions(reviewed_node), segment_regions(later_node)
    added: list[str] = []
    by_kind: dict[str, dict[str, str]] = {"changed": {}, "same": {}, "rejected": {}}
    for segment_id, region in later.items():
        match = _best_match(region, reviewed)
        if match is None:
            added.append(segment_id)
        elif lesion_state(reviewed_node, match, reviewed[match]).status == Status.REJECTED:
            by_kind["rejected"][segment_id] = match
        else:
            by_kind["same" if region.dice(reviewed[match]) == 1 else "changed"][segment_id] = match
    gone = [
        segment_id
        for segment_id, region in reviewed.items()
        if not any(region.common_voxels(other) for other in later.values())
        and lesion_state(reviewed_node, segment_id, region).status != Status.REJECTED
    ]
    return RunChanges(tuple(added), **by_kind, gone=tuple(gone))


def take_over(editor: LesionEditor, later_node: vtkMRMLSegmentationNode, segment_ids: Iterable[str]) -> list[str]:
    """Take lesions of a later run into the review, as one undo step; returns their identifiers there, in the same order.

    One without a match is added as a new lesion; one that matches a lesion nobody has touched replaces it, under its name.
    Voxels of all other lesions stay theirs. The lesions bring their state along, and the later run's map and proposals are
    kept for them even after :func:`remove_run`.

    Raises :class:`InputError`, before anything is changed, for a lesion that matches one that was accepted, edited, rejected
    or added by hand, or that lies wholly inside others.
    """
    reviewed_node = editor.segmentation_node
    _check_same_ct(reviewed_node, later_node)
    reviewed = segment_regions(reviewed_node)
    plan: list[tuple[str | None, Region, LesionState]] = []
    for segment_id, region in segment_regions(later_node, segment_ids).items():
        name = later_node.GetSegmentation().GetSegment(segment_id).GetName()
        match = _best_match(region, reviewed)
        state = lesion_state(later_node, segment_id, region)
        if match is not None:
            old = lesion_state(reviewed_node, match, reviewed[match])
            if old.is_reviewed:
                found = reviewed_node.GetSegmentation().GetSegment(match).GetName()
                raise InputError(
                    f"'{name}' of the later run lies on '{found}', which is {old.status.value} "
                    f"({old.origin.value}); delete that one first, or keep it"
                )
            state = replace(state, seconds=state.seconds + old.seconds, replaces=(*old.replaces, *old.proposals))
        # Also against those that are taken over in the same step.
        others = [other for other_id, other in reviewed.items() if other_id != match]
        free = _without(region, [*others, *(planned for _, planned, _ in plan)])
        if not free.voxels:
            raise InputError(f"'{name}' of the later run lies wholly inside other lesions; there is nothing to take over")
        if match is not None:
            reviewed[match] = free
        plan.append((match, free, state))

    editor.save_state()
    taken = []
    for match, region, state in plan:
        own = _with_runs_of(state, reviewed_node, later_node)
        if match is None:
            taken.append(editor.add(region, own))
        else:
            editor.set_region(match, region)
            editor.write(match, own)
            taken.append(match)
    return taken


def remove_run(later_node: vtkMRMLSegmentationNode) -> None:
    """Take a run away: the segmentation, with its map and proposals unless lesions were taken over from it."""
    scene = later_node.GetScene()
    runs = {later_node.GetNodeReferenceID(role) for role in _run_roles(later_node)}
    _remove(later_node)
    count = scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    others = [scene.GetNthNodeByClass(n, "vtkMRMLSegmentationNode") for n in range(count)]
    used = {node.GetNodeReferenceID(role) for node in others for role in _run_roles(node)}
    for node_id in sorted(runs - used):
        node = scene.GetNodeByID(node_id)
        if node is not None:
            _remove(node)


def _check_same_ct(reviewed_node: vtkMRMLSegmentationNode, later_node: vtkMRMLSegmentationNode) -> None:
    if volume_of(reviewed_node) is not volume_of(later_node):
        raise InputError(
            f"'{later_node.GetName()}' belongs to another CT than '{reviewed_node.GetName()}'; choose a run of the same CT"
        )


def _best_match(region: Region, reviewed: dict[str, Region]) -> str | None:
    """The lesion that shares most voxels with ``region``, the first of equal ones; ``None`` where none shares any."""
    common = {segment_id: region.common_voxels(other) for segment_id, other in reviewed.items()}
    best = max(common, key=lambda segment_id: common[segment_id], default=None)
    return best if best is not None and common[best] else None


def _without(region: Region, others: Iterable[Region]) -> Region:
    mask = region.mask.copy()
    for other in others:
        mask &= ~other.within(region.box)
    return Region.of(mask, region.box)


def _with_runs_of(state: LesionState, reviewed_node: vtkMRMLSegmentationNode, later_node: vtkMRMLSegmentationNode) -> LesionState:
    """``state`` of a lesion of the later segmentation, with the keys that its runs have in the review."""

    def moved(proposal: str) -> str:
        run, _, segment_id = proposal.partition("/")
        return f"{_adopted_run(reviewed_node, later_node, run)}/{segment_id}"

    run = _adopted_run(reviewed_node, later_node, state.run)
    return replace(state, run=run, proposals=tuple(moved(proposal) for proposal in state.proposals))


def _adopted_run(reviewed_node: vtkMRMLSegmentationNode, later_node: vtkMRMLSegmentationNode, run: str) -> str:
    """The key in the review of a run of the later segmentation; its map and proposals are referenced under a new one."""
    roles = PROBABILITY_ROLE, PROPOSAL_ROLE
    nodes = [later_node.GetNodeReferenceID(role + run) for role in roles]
    keys = sorted({role.rpartition("/")[2] for role in _run_roles(reviewed_node)})
    for key in keys:
        if [reviewed_node.GetNodeReferenceID(role + key) for role in roles] == nodes:
            return key
    # Not one that a lesion names whose run is no longer in the scene.
    ids = reviewed_node.GetSegmentation().GetSegmentIDs()
    used = {FIRST_RUN, *keys, *(lesion_state(reviewed_node, each).run for each in ids)}
    key = next(key for n in range(2, len(used) + 3) if (key := f"run{n}") not in used)
    for role, node_id in zip(roles, nodes, strict=True):
        if node_id:
            reviewed_node.SetNodeReferenceID(role + key, node_id)
    return key


def _run_roles(node: vtkMRMLSegmentationNode) -> list[str]:
    roles = [node.GetNthNodeReferenceRole(n) for n in range(node.GetNumberOfNodeReferenceRoles())]
    return [role for role in roles if role.startswith((PROBABILITY_ROLE, PROPOSAL_ROLE)) and node.GetNodeReferenceID(role)]


def _remove(node: vtkMRMLDisplayableNode) -> None:
    """Remove a node with its display and storage nodes."""
    scene = node.GetScene()
    companions = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())] + [node.GetStorageNode()]
    scene.RemoveNode(node)
    if node.IsA("vtkMRMLSegmentationNode"):
        drop_layers(node)
    for companion in companions:
        if companion is not None and companion.GetScene() is not None:
            scene.RemoveNode(companion)
