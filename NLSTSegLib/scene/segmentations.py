"""From a result to a segmentation node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.coding import NamedLesion, segment_color, segment_id, segment_tags
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.results.saved import SavedResult
from NLSTSegLib.scene.volumes import grid_lps_mm
from NLSTSegLib.scene.voxels import share_layers
from NLSTSegLib.volume.ct import Grid
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLDisplayableNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

RESULT_OFF_GRID_MM = 1e-3
"""Grids count as the same when their corner voxels are closer; file formats round to less."""


def segmentation_from_result(
    result: SegmentationResult | SavedResult,
    volume_node: vtkMRMLScalarVolumeNode,
    name: str | None = None,
    segmentation_node: vtkMRMLSegmentationNode | None = None,
) -> vtkMRMLSegmentationNode:
    """A segmentation node with one segment per lesion, beside ``volume_node``, the CT that was segmented.

    It is ``segmentation_node``, which must have no segments and keeps its name, or a new one. It has the volume's grid as
    its reference geometry, hangs under the same parent transform and in the same study of the subject hierarchy, and has a
    display node; no 3D surface is made. Names, colours, terminology and tags of the segments are those of
    :mod:`NLSTSegLib.lesions.coding`. ``name`` of a new node is by default that of the volume and "lesions", made
    unique in the scene.

    Raises :class:`InputError` when the volume is in no scene, its grid is not that of ``result``, or the segmentation is in
    another scene or not empty. After any error the scene is as before.
    """
    scene = volume_node.GetScene()
    if scene is None:
        raise InputError(f"the volume '{volume_node.GetName()}' is in no scene; add it to one first")
    _check_grid(result, volume_node)
    if segmentation_node is not None:
        check_empty(segmentation_node, volume_node)

    with ExitStack() as undo:
        if segmentation_node is None:
            name = name or scene.GenerateUniqueName(f"{volume_node.GetName()} lesions")
            node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            undo.callback(scene.RemoveNode, node)
        else:
            node = segmentation_node
            undo.callback(node.GetSegmentation().RemoveAllSegments)
        # The transform comes first: the reference geometry is taken into the frame that the node has by then.
        node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        _add_segments(result, volume_node, node)
        undo.pop_all()
    # Only now, so that an undone node leaves no display node behind.
    node.CreateDefaultDisplayNodes()
    join_study(volume_node, node)
    return node


def check_empty(segmentation_node: vtkMRMLSegmentationNode, volume_node: vtkMRMLScalarVolumeNode) -> None:
    """Raise :class:`InputError` unless a result of the volume can go into the segmentation."""
    name, count = segmentation_node.GetName(), segmentation_node.GetSegmentation().GetNumberOfSegments()
    if segmentation_node.GetScene() is not volume_node.GetScene():
        raise InputError(f"the segmentation '{name}' is not in the scene of the CT; choose another, or none for a new one")
    if count:
        raise InputError(f"the segmentation '{name}' has {count} segment(s) already; choose an empty one, or none for a new one")


def _check_grid(result: SegmentationResult | SavedResult, volume_node: vtkMRMLScalarVolumeNode) -> None:
    image = volume_node.GetImageData()
    same = image is not None and image.GetDimensions() == result.labels.shape[::-1]
    if same:
        corners_ijk = np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.GetDimensions()) - 1)
        here, there = (_places_lps_mm(grid, corners_ijk) for grid in (grid_lps_mm(volume_node), result.grid))
        same = np.allclose(here, there, rtol=0, atol=RESULT_OFF_GRID_MM)
    if not same:
        raise InputError(
            f"the voxel grid of the volume '{volume_node.GetName()}' is not that of the CT that was segmented; "
            "choose the volume that the lesions were found in, or segment this one"
        )


def _places_lps_mm(grid: Grid, ijk: np.ndarray) -> np.ndarray:
    spacing_ijk_mm, origin_lps_mm, direction_lps = grid
    return ijk @ (np.reshape(direction_lps, (3, 3)) * spacing_ijk_mm).T + origin_lps_mm


def _add_segments(
    result: SegmentationResult | SavedResult, volume_node: vtkMRMLScalarVolumeNode, node: vtkMRMLSegmentationNode
) -> None:
    import slicer
    import vtk

    ras_from_ijk = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(ras_from_ijk)
    model = f"{result.card.name} {result.card.version}"
    segments = [(lesion, slicer.vtkSegment(), region) for lesion, region in _regions(result)]
    # Lesions do not overlap: one layer holds them all, for fast drawing and small files.
    share_layers([(segment, region) for _lesion, segment, region in segments], ras_from_ijk)
    for lesion, segment, _region in segments:
        segment.SetName(lesion.name)
        segment.SetNameAutoGenerated(False)
        segment.SetColor(segment_color(lesion.label))
        segment.SetColorAutoGenerated(False)
        for key, value in segment_tags(lesion, model).items():
            segment.SetTag(key, value)
        node.GetSegmentation().AddSegment(segment, segment_id(lesion))


def _regions(result: SegmentationResult | SavedResult) -> Iterator[tuple[NamedLesion, Region]]:
    """Each lesion with its voxels on the grid of the source."""
    import SimpleITK as sitk

    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOff()
    shapes.Execute(sitk.GetImageFromArray(result.labels))
    for lesion in result.lesions:
        i, j, k, size_i, size_j, size_k = shapes.GetBoundingBox(lesion.label)
        box = (slice(k, k + size_k), slice(j, j + size_j), slice(i, i + size_i))
        yield lesion, Region(box, result.labels[box] == lesion.label)


def join_study(volume_node: vtkMRMLScalarVolumeNode, node: vtkMRMLDisplayableNode) -> None:
    """Put ``node`` beside ``volume_node`` in the subject hierarchy."""
    hierarchy = volume_node.GetScene().GetSubjectHierarchyNode()
    volume_item = hierarchy.GetItemByDataNode(volume_node)
    study = hierarchy.GetItemParent(volume_item) if volume_item else hierarchy.GetSceneItemID()
    # The application has made an item when the node was added; slicer-core has not.
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(study, node)
    hierarchy.SetItemParent(item, study)
