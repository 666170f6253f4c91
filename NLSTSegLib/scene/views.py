"""Showing a lesion: all slice views brought to it, its axes drawn as rulers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.measure import Measurements, Point, round_half_up
from NLSTSegLib.scene.sizes import measure_region
from NLSTSegLib.scene.volumes import LPS_FROM_RAS
from NLSTSegLib.scene.voxels import segment_region, volume_of, world_from_ras

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsLineNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

Axis = Literal["long", "short"]

RULER_ATTRIBUTE = "NLSTSeg.Ruler"
"""Node attribute of a ruler: which axis of which segmentation it is."""

SURFACE = "Closed surface"
"""Slicer's name of the representation of segments as surfaces."""


def jump_to_lesion(
    segmentation_node: vtkMRMLSegmentationNode, segment_id: str, sizes: Measurements | None = None
) -> tuple[float, float, float]:
    """Centre every slice view of the scene on a lesion: on the middle of its long axis, in the slice where that was taken.

    ``sizes``, where they are known, spare measuring it. Returns the point, in the world's RAS. Raises :class:`InputError` for
    a lesion without voxels.
    """
    import slicer

    sizes = sizes or _sizes(segmentation_node, segment_id)
    right, anterior, superior = _world_ras_mm(segmentation_node, np.mean(sizes.long_axis_ends_lps_mm, axis=0))
    scene = segmentation_node.GetScene()
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, right, anterior, superior, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    return right, anterior, superior


def show_on_its_ct(segmentation_node: vtkMRMLSegmentationNode, volume_node: vtkMRMLScalarVolumeNode) -> None:
    """Show the lesions over their CT, which comes into the slice views unless it is in one."""
    import slicer

    scene = segmentation_node.GetScene()
    layers = [
        scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode")
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode"))
    ]
    shown = {each for layer in layers for each in (layer.GetBackgroundVolumeID(), layer.GetForegroundVolumeID())}
    if volume_node.GetID() not in shown:
        slicer.util.setSliceViewerLayers(background=volume_node)
    _set_visible(segmentation_node, True)


def hide_lesions(segmentation_node: vtkMRMLSegmentationNode) -> None:
    """Take the lesions out of all views, where the CT of another patient may come next."""
    _set_visible(segmentation_node, False)


def _set_visible(segmentation_node: vtkMRMLSegmentationNode, on: bool) -> None:
    display = segmentation_node.GetDisplayNode()
    if display is not None:
        display.SetVisibility(on)


def has_surfaces(segmentation_node: vtkMRMLSegmentationNode) -> bool:
    """Whether surfaces of the lesions have been made, which 3D views show."""
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(SURFACE))


def show_surfaces(segmentation_node: vtkMRMLSegmentationNode, on: bool) -> None:
    """Make surfaces of the lesions for the 3D views, which then follow every edit, or take them away."""
    if on:
        segmentation_node.CreateClosedSurfaceRepresentation()
        segmentation_node.GetDisplayNode().SetVisibility3D(True)
    else:
        segmentation_node.RemoveClosedSurfaceRepresentation()


def show_rulers(
    segmentation_node: vtkMRMLSegmentationNode, segment_id: str, sizes: Measurements | None = None
) -> tuple[vtkMRMLMarkupsLineNode, ...]:
    """Draw the long and the short axis of a lesion; rulers of the segmentation that are there already move to it.

    They lie in the world where the lesion lies, are locked, hidden from Slicer's lists and not saved with the scene. Call it
    again after an edit. ``sizes``, where they are known, spare measuring it. Raises :class:`InputError` for a lesion without
    voxels.
    """
    sizes = sizes or _sizes(segmentation_node, segment_id)
    rulers = []
    axis: Axis
    for axis, length_mm, ends_lps_mm in (
        ("long", sizes.long_axis_mm, sizes.long_axis_ends_lps_mm),
        ("short", sizes.short_axis_mm, sizes.short_axis_ends_lps_mm),
    ):
        ruler = _ruler(segmentation_node, axis) or _new_ruler(segmentation_node, axis)
        for n, end_lps_mm in enumerate(ends_lps_mm):
            ruler.SetNthControlPointPositionWorld(n, *_world_ras_mm(segmentation_node, end_lps_mm))
        # At one end each: the middles lie on each other.
        ruler.SetNthControlPointLabel(0, "")
        ruler.SetNthControlPointLabel(1, f"{round_half_up(length_mm, 1)} mm")
        rulers.append(ruler)
    return tuple(rulers)


def hide_rulers(segmentation_node: vtkMRMLSegmentationNode) -> None:
    """Remove the rulers of a segmentation, if there are any."""
    for axis in get_args(Axis):
        ruler = _ruler(segmentation_node, axis)
        if ruler is not None:
            display = ruler.GetDisplayNode()
            segmentation_node.GetScene().RemoveNode(ruler)
            if display is not None and display.GetScene() is not None:
                display.GetScene().RemoveNode(display)


def _sizes(segmentation_node: vtkMRMLSegmentationNode, segment_id: str) -> Measurements:
    sizes = measure_region(segment_region(segmentation_node, segment_id), volume_of(segmentation_node))
    if sizes is None:
        name = segmentation_node.GetSegmentation().GetSegment(segment_id).GetName()
        raise InputError(f"'{name}' has no voxels any more, so there is nothing to show; undo, or delete it")
    return sizes


def _world_ras_mm(segmentation_node: vtkMRMLSegmentationNode, point_lps_mm: Point | np.ndarray) -> tuple[float, float, float]:
    own_ras_mm = LPS_FROM_RAS @ point_lps_mm  # its own inverse
    right, anterior, superior, _ = (world_from_ras(segmentation_node) @ [*own_ras_mm, 1.0]).tolist()
    return right, anterior, superior


def _ruler(segmentation_node: vtkMRMLSegmentationNode, axis: Axis) -> vtkMRMLMarkupsLineNode | None:
    # Found by an attribute: a reference saved with the scene without the ruler could come to name another node.
    scene = segmentation_node.GetScene()
    lines = (
        scene.GetNthNodeByClass(n, "vtkMRMLMarkupsLineNode")
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLMarkupsLineNode"))
    )
    mark = f"{axis} {segmentation_node.GetID()}"
    return next((line for line in lines if line.GetAttribute(RULER_ATTRIBUTE) == mark), None)


def _new_ruler(segmentation_node: vtkMRMLSegmentationNode, axis: Axis) -> vtkMRMLMarkupsLineNode:
    import slicer
    import vtk

    ruler = slicer.vtkMRMLMarkupsLineNode()
    ruler.SetName(f"{axis.capitalize()} axis")
    ruler.SetHideFromEditors(True)
    ruler.SetSaveWithScene(False)
    ruler.SetAttribute(RULER_ATTRIBUTE, f"{axis} {segmentation_node.GetID()}")
    segmentation_node.GetScene().AddNode(ruler)
    ruler.CreateDefaultDisplayNodes()
    display = ruler.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(True)
    for _ in range(2):
        ruler.AddControlPoint(vtk.vtkVector3d(0.0, 0.0, 0.0))
    ruler.SetLocked(True)
    return ruler
