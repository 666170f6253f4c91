"""A case of a cohort in the scene: its CT and the lesions to review, and out again for the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError
from NLSTSegLib.results.saved import PROBABILITY_FILE, read_result
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.review import resume_review, start_review
from NLSTSegLib.scene.segmentations import join_study, segmentation_from_result
from NLSTSegLib.scene.volumes import volume_node_of_ct
from NLSTSegLib.scene.voxels import segment_regions
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regular_grid import slice_stack

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

Decisions = tuple[tuple[str, str, str], ...]
"""Segment, status and fingerprint of the voxels of every lesion."""


def open_case(
    ct: CtVolume, name: str, segmentation: Path | None, scene: vtkMRMLScene
) -> tuple[vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode | None]:
    """A volume node of ``ct`` and the lesions in the file ``segmentation``, or in its folder where that is a whole result.

    With the probability in it, the review has the threshold of each lesion and its proposals. Raises :class:`InputError`, with
    the scene as before, for a CT that a volume node cannot hold and for lesions that do not fit it.
    """
    if slice_stack(ct).is_uneven:
        raise InputError(f"the slices of {name} lie unevenly, which a volume node cannot hold; look at its preview")
    volume = volume_node_of_ct(ct, scene, name)
    # The scene numbers a name that it has had before.
    volume.SetName(name)
    try:
        return volume, None if segmentation is None else _lesions(segmentation, volume, scene)
    except InputError:
        close_case(volume, None)
        raise


def _lesions(file: Path, volume: vtkMRMLScalarVolumeNode, scene: vtkMRMLScene) -> vtkMRMLSegmentationNode:
    import slicer

    if (file.parent / PROBABILITY_FILE).exists():
        result = read_result(file.parent)
        node = segmentation_from_result(result, volume)
        start_review(
            node,
            volume,
            probability=result.probability,
            card=result.card,
            threshold=result.threshold,
            min_volume_mm3=result.min_volume_mm3,
            lungs=result.lungs,
        )
        return node
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{volume.GetName()} lesions"))
    try:
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(file))
        if not file.exists() or not storage.ReadData(node):
            raise InputError(f"'{file}' cannot be read; run the case again")
        node.CreateDefaultDisplayNodes()
        resume_review(node, volume)
        join_study(volume, node)
    except InputError:
        scene.RemoveNode(node)
        raise
    return node


def close_case(volume: vtkMRMLScalarVolumeNode, segmentation: vtkMRMLSegmentationNode | None) -> None:
    """Take both out of the scene with all that belongs to them, so that the memory holds one case."""
    scene = volume.GetScene()
    nodes: list[vtkMRMLNode] = [node for node in (segmentation, volume) if node is not None and node.GetScene() is scene]
    for node in [*nodes]:
        roles: list[str] = []
        node.GetNodeReferenceRoles(roles)
        referenced = [node.GetNodeReference(role) for role in roles if role.startswith("NLSTSeg.")]
        nodes += [each for each in referenced if each is not None]
    for node in [*nodes]:
        nodes += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    for node in nodes:
        if node is not None and node.GetScene() is scene:
            scene.RemoveNode(node)


def decisions(segmentation: vtkMRMLSegmentationNode) -> Decisions:
    """What a reader has decided on and drawn so far: equal as long as nothing has changed."""
    regions = segment_regions(segmentation)
    statuses = {each: lesion_state(segmentation, each, region).status.value for each, region in regions.items()}
    return tuple((each, statuses[each], region.fingerprint) for each, region in regions.items())
