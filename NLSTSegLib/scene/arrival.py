"""How a lesion is shown when the reader comes to it: size and grey values of the views, and how the marks are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from NLSTSegLib.scene.volumes import LUNG_WIDTH_LEVEL_HU
from NLSTSegLib.scene.voxels import volume_of, world_from_ras
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

Window = Literal["lung", "soft tissue"]

WINDOWS_HU: dict[Window, tuple[float, float]] = {"lung": LUNG_WIDTH_LEVEL_HU, "soft tissue": (400.0, 40.0)}
"""Width and centre of the grey values, as usual for the chest."""

Marks = Literal["outline", "fill", "off"]
"""How the lesions are drawn over the CT."""

SHARE = 1 / 3
"""Share of a slice view, across or up, that the lesion fills."""

LEAST_FIELD_MM = 24.0
"""A view shows no less than this, for the surroundings of a small lesion."""


def zoom_to(segmentation_node: vtkMRMLSegmentationNode, region: Region) -> None:
    """Make every slice view of the scene so large that a lesion of voxels ``region`` fills :data:`SHARE` of it."""
    import slicer
    import vtk

    ras_from_ijk = vtk.vtkMatrix4x4()
    volume_of(segmentation_node).GetIJKToRASMatrix(ras_from_ijk)
    world_mm = world_from_ras(segmentation_node) @ slicer.util.arrayFromVTKMatrix(ras_from_ijk) @ _ends_of_rows(region)
    scene = segmentation_node.GetScene()
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        view = scene.GetNthNodeByClass(number, "vtkMRMLSliceNode")
        axes = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, :2]
        across_mm, up_mm = np.ptp(axes.T @ world_mm[:3], axis=1)
        width_px, height_px, _depth_px = view.GetDimensions()
        aspect = height_px / width_px
        field_mm = max(across_mm / SHARE, up_mm / SHARE / aspect, LEAST_FIELD_MM / min(1.0, aspect))
        view.SetFieldOfView(field_mm, field_mm * aspect, view.GetFieldOfView()[2])


def _ends_of_rows(region: Region) -> np.ndarray:
    """``(4, n)``: i, j, k and 1 of the outer ends of the first and the last voxel of each row of the lesion."""
    k, j = np.nonzero(region.mask.any(axis=2))
    first = region.mask.argmax(axis=2)[k, j] - 0.5
    last = region.mask.shape[2] - 0.5 - region.mask[:, :, ::-1].argmax(axis=2)[k, j]
    start_k, start_j, start_i = (side.start for side in region.box)
    i, ones = np.concatenate([first, last]) + start_i, np.ones(2 * len(k))
    return np.stack([i, np.tile(j + start_j, 2), np.tile(k + start_k, 2), ones])


def set_window(volume_node: vtkMRMLScalarVolumeNode, window: Window) -> None:
    """Show the CT with these grey values."""
    if volume_node.GetDisplayNode() is None:
        volume_node.CreateDefaultDisplayNodes()
    display = volume_node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(*WINDOWS_HU[window])


def draw_marks(segmentation_node: vtkMRMLSegmentationNode, marks: Marks) -> None:
    """Draw the lesions as outlines, filled with an outline, or not at all, in the slice views."""
    display = segmentation_node.GetDisplayNode()
    if display is not None:
        display.SetVisibility2DOutline(marks != "off")
        display.SetVisibility2DFill(marks == "fill")
