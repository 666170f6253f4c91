"""The review of a segmentation, kept in the scene: where it begins, the run's facts, map and proposals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.place import LungExtent
from NLSTSegLib.models.card import ModelCard, ModelIdentity
from NLSTSegLib.review.state import FIRST_RUN, LesionState, Origin, Status
from NLSTSegLib.scene.lesion_state import lesion_state, show_by_status, tag_state, write_state
from NLSTSegLib.scene.voxels import check_grid, segment_regions, share_layers
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
    from vtk import vtkMatrix4x4

PROBABILITY_ROLE = "NLSTSeg.Probability/"
"""Role, with the key of a run, of the node reference to its probability map, a hidden volume of uint8, 255 is 1."""

PROPOSAL_ROLE = "NLSTSeg.Proposal/"
"""Role, with the key of a run, of the node reference to its untouched lesions, a hidden segmentation."""

CARD_ATTRIBUTE = "NLSTSeg.Card."
"""Node attributes, with the name of a field of the model's card, that say what proposed the lesions."""

CARD_FIELDS = tuple(field.name for field in fields(ModelIdentity))
"""The fields of the card that are kept."""

RUN_THRESHOLD_ATTRIBUTE = "NLSTSeg.Threshold"
"""Node attribute with the threshold of the run."""

RUN_MIN_VOLUME_ATTRIBUTE = "NLSTSeg.MinVolume"
"""Node attribute with the smallest volume of the run's lesions, in mm3."""

LUNGS_ATTRIBUTE = "NLSTSeg.Lungs"
"""Node attribute with the :class:`NLSTSegLib.place.LungExtent` of the CT."""


def start_review(
    segmentation_node: vtkMRMLSegmentationNode,
    volume_node: vtkMRMLScalarVolumeNode,
    *,
    probability: np.ndarray,
    card: ModelCard | ModelIdentity,
    threshold: float,
    min_volume_mm3: float = 0.0,
    lungs: LungExtent | None = None,
) -> None:
    """Begin the review of a run's result: all its lesions are new, and its map and proposals are kept in the scene.

    ``segmentation_node`` holds the lesions, on the grid of ``volume_node``; ``probability`` is uint8 ``[k, j, i]`` on the
    same voxels, 255 is 1 (:attr:`NLSTSegLib.pipeline.SegmentationResult.probability`, or the run's ``probability.nrrd``).
    Both are saved with the scene, and hidden from Slicer's selectors and tree (``HideFromEditors``): with a scene file
    Slicer writes such nodes into a folder beside it.

    Raises :class:`InputError` when the segmentation or the map do not fit the volume, or a review has begun already.
    """
    check_grid(segmentation_node, volume_node)
    dimensions = volume_node.GetImageData().GetDimensions()
    if probability.dtype != np.uint8 or probability.shape != dimensions[::-1]:
        raise InputError(
            f"the probability map ({probability.dtype} {probability.shape}) does not fit the CT '{volume_node.GetName()}' "
            f"(uint8 {dimensions[::-1]}); choose the CT that was segmented"
        )
    if segmentation_node.GetNodeReference(PROPOSAL_ROLE + FIRST_RUN) is not None:
        raise InputError(f"the review of '{segmentation_node.GetName()}' has begun already; put a new run beside it")
    resume_review(segmentation_node, volume_node)
    for field in CARD_FIELDS:
        segmentation_node.SetAttribute(CARD_ATTRIBUTE + field, str(getattr(card, field)))
    segmentation_node.SetAttribute(RUN_THRESHOLD_ATTRIBUTE, repr(float(threshold)))
    segmentation_node.SetAttribute(RUN_MIN_VOLUME_ATTRIBUTE, repr(float(min_volume_mm3)))
    segmentation_node.SetAttribute(LUNGS_ATTRIBUTE, lungs.as_text() if lungs is not None else None)
    for segment_id, region in segment_regions(segmentation_node).items():
        state = LesionState(
            status=Status.NEW,
            origin=Origin.MODEL,
            voxels=region.fingerprint,
            score=tag_state(segmentation_node, segment_id).score,
            threshold=threshold,
            model=f"{card.name} {card.version}",
            weights_sha256=card.weights_sha256,
            proposals=(f"{FIRST_RUN}/{segment_id}",),
        )
        write_state(segmentation_node, segment_id, state)
    keep_proposals(segmentation_node, volume_node)
    map_node = _probability_node(probability, volume_node)
    segmentation_node.SetNodeReferenceID(PROBABILITY_ROLE + FIRST_RUN, map_node.GetID())


def resume_review(segmentation_node: vtkMRMLSegmentationNode, volume_node: vtkMRMLScalarVolumeNode) -> None:
    """Make ``volume_node`` the CT of a segmentation, for example of one loaded from ``.seg.nrrd``; rejected lesions hide.

    What the segments' tags say holds again. The run's map and proposals are there only where the scene was loaded. A CT with
    left-handed axes cannot be resumed: Slicer turns such a volume round when it loads it, and leaves the segments.
    Raises :class:`InputError` when the segments do not lie on the voxels of the volume.
    """
    check_grid(segmentation_node, volume_node)
    segmentation_node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    show_by_status(segmentation_node)


def reviews_of(volume_node: vtkMRMLScalarVolumeNode) -> list[vtkMRMLSegmentationNode]:
    """The segmentations in the scene whose review on this CT has begun, in the order of the scene."""
    scene = volume_node.GetScene()
    nodes = [
        scene.GetNthNodeByClass(n, "vtkMRMLSegmentationNode")
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"))
    ]
    return [
        node
        for node in nodes
        if node.GetNodeReference(PROPOSAL_ROLE + FIRST_RUN) is not None
        and node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume_node
    ]


def is_touched(segmentation_node: vtkMRMLSegmentationNode) -> bool:
    """Whether a reader has decided on, changed or added any lesion, so that a new run goes beside the segmentation."""
    regions = segment_regions(segmentation_node)
    return any(lesion_state(segmentation_node, segment_id, region).is_reviewed for segment_id, region in regions.items())


def card_of(segmentation_node: vtkMRMLSegmentationNode) -> dict[str, str]:
    """What the card of the model said, by field; empty before a review has begun."""
    values = {field: segmentation_node.GetAttribute(CARD_ATTRIBUTE + field) for field in CARD_FIELDS}
    return {field: value for field, value in values.items() if value is not None}


def run_threshold(segmentation_node: vtkMRMLSegmentationNode) -> float:
    """The probability threshold of the run, 0.5 before a review has begun."""
    return float(segmentation_node.GetAttribute(RUN_THRESHOLD_ATTRIBUTE) or 0.5)


def run_options_text(segmentation_node: vtkMRMLSegmentationNode) -> str:
    """Threshold and smallest volume of the run, as they are said; "" before a review has begun."""
    threshold, volume = (segmentation_node.GetAttribute(a) for a in (RUN_THRESHOLD_ATTRIBUTE, RUN_MIN_VOLUME_ATTRIBUTE))
    parts = [f"threshold {float(threshold):g}"] if threshold else []
    parts += [f"smallest volume {float(volume):g} mm³"] if volume else []
    return ", ".join(parts)


def lung_extent_of(segmentation_node: vtkMRMLSegmentationNode) -> LungExtent | None:
    """Where the lungs of its CT lie; ``None`` where the run did not tell."""
    return LungExtent.of_text(segmentation_node.GetAttribute(LUNGS_ATTRIBUTE))


def probability_of(segmentation_node: vtkMRMLSegmentationNode, run: str = FIRST_RUN) -> np.ndarray | None:
    """The probability map of a run, uint8 ``[k, j, i]`` on the voxels of the CT, not a copy; ``None`` if not in the scene."""
    import slicer

    node = segmentation_node.GetNodeReference(PROBABILITY_ROLE + run)
    return None if node is None or node.GetImageData() is None else slicer.util.arrayFromVolume(node)


def proposals_of(
    segmentation_node: vtkMRMLSegmentationNode,
    proposals: Iterable[str],
    known: dict[str, Mapping[str, Region]] | None = None,
) -> Region | None:
    """All voxels of these proposals (``run/segment``); ``None`` for none, or where one is not in the scene.

    ``known`` keeps the proposals of whole runs from one call to the next, which all lie in one labelmap.
    """
    known = {} if known is None else known
    regions = []
    for proposal in proposals:
        run, _, segment_id = proposal.partition("/")
        node = segmentation_node.GetNodeReference(PROPOSAL_ROLE + run)
        if node is None or node.GetSegmentation().GetSegment(segment_id) is None:
            return None
        if run not in known:
            known[run] = segment_regions(node)
        regions.append(known[run][segment_id])
    return Region.union(regions) if regions else None


def _add_hidden(node: vtkMRMLNode, name: str, volume_node: vtkMRMLScalarVolumeNode) -> vtkMatrix4x4:
    """Add ``node`` to the scene, unseen, in the place of the volume; returns the volume's RAS from IJK."""
    import vtk

    scene = volume_node.GetScene()
    # Hidden before it is added, so that the subject hierarchy makes no item for it. Slicer 5.10 names the files of hidden
    # nodes by their names alone, so these must be unique.
    node.SetHideFromEditors(True)
    node.SetName(scene.GenerateUniqueName(name))
    scene.AddNode(node)
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return matrix


def keep_proposals(
    segmentation_node: vtkMRMLSegmentationNode,
    volume_node: vtkMRMLScalarVolumeNode,
    names: Mapping[str, str] | None = None,
) -> None:
    """Keep the lesions as they are now, hidden, as those that the review begins with.

    A proposal has the identifier of its segment, or what ``names`` has for that.
    """
    import slicer

    node = slicer.vtkMRMLSegmentationNode()
    matrix = _add_hidden(node, f"{segmentation_node.GetName()} as proposed", volume_node)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    regions = {each: region for each, region in segment_regions(segmentation_node).items() if region.voxels}
    segments = {each: slicer.vtkSegment() for each in regions}
    share_layers([(segments[each], region) for each, region in regions.items()], matrix)
    for segment_id, segment in segments.items():
        lesion = segmentation_node.GetSegmentation().GetSegment(segment_id)
        segment.SetName(lesion.GetName())
        segment.SetColor(lesion.GetColor())
        name = (names or {}).get(segment_id, segment_id)
        node.GetSegmentation().AddSegment(segment, name)
        write_state(node, name, tag_state(segmentation_node, segment_id))
    segmentation_node.SetNodeReferenceID(PROPOSAL_ROLE + FIRST_RUN, node.GetID())


def _probability_node(probability: np.ndarray, volume_node: vtkMRMLScalarVolumeNode) -> vtkMRMLScalarVolumeNode:
    import slicer

    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetIJKToRASMatrix(_add_hidden(node, f"{volume_node.GetName()} lesion probability", volume_node))
    slicer.util.updateVolumeFromArray(node, probability)
    return node
