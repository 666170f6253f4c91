"""Nodes to test with: volumes and transforms made from numbers, and what a segmentation node holds as numbers."""

import numpy as np

from helpers.example_results import oblique_direction
from NLSTSegLib.volume.ct import CtVolume


def ras_from_ijk(ct: CtVolume) -> np.ndarray:
    """4x4, from the CT's definition."""
    matrix = np.eye(4)
    matrix[:3, :3] = ct.direction_matrix @ np.diag(ct.spacing_ijk_mm)
    matrix[:3, 3] = ct.origin_lps_mm
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def add_volume(ct: CtVolume, name: str = "CT", voxels: np.ndarray | None = None):
    import slicer

    return slicer.util.addVolumeFromArray(ct.hu if voxels is None else voxels, ras_from_ijk(ct), name)


def add_transform(scene, matrix: np.ndarray, name: str = "Transform"):
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def rigid_motion() -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = np.reshape(oblique_direction((2, 0, 1)), (3, 3))
    motion[:3, 3] = (11.0, -45.0, 130.0)
    return motion


def world_from_node(node) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def exported_labels(segmentation_node) -> np.ndarray:
    """All segments as ``[k, j, i]`` on the segmentation's reference geometry."""
    import slicer

    scene = segmentation_node.GetScene()
    label_node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "export")
    label_node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
    slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(
        segmentation_node, label_node, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    labels = slicer.util.arrayFromVolume(label_node).copy()
    scene.RemoveNode(label_node)
    return labels


def world_centroid_ras_mm(segmentation_node, segment_id: str) -> np.ndarray:
    """Mean place of the segment's voxels, by its own labelmap and transform."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    segmentation_node.GetBinaryLabelmapRepresentation(segment_id, image)
    i0, _, j0, _, k0, _ = image.GetExtent()
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    k, j, i = (axis.mean() for axis in voxels.nonzero())
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ras_mm = slicer.util.arrayFromVTKMatrix(matrix) @ (i + i0, j + j0, k + k0, 1)
    return (world_from_node(segmentation_node) @ ras_mm)[:3]


def add_grid_transform(scene, ct: CtVolume):
    """A grid transform that moves every slice of the upright volume of ``ct`` to where its header says it lies."""
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    ras = np.array([-1.0, -1.0, 1.0])
    k = np.arange(len(ct.hu))
    upright = ct.lps_from_ijk_mm(np.column_stack([0 * k, 0 * k, k]))
    moved = np.repeat((np.array(ct.acquisition.slice_origins_lps_mm) - upright) * ras, 4, axis=0)
    # One vector at each corner of each slice.
    columns, rows = np.array(ct.hu.shape[:0:-1]) - 1
    vectors = vtk.vtkImageData()
    vectors.SetDimensions(2, 2, len(k))
    vectors.SetSpacing(*np.array([columns, rows, 1]) * ct.spacing_ijk_mm)
    vectors.SetOrigin(*np.array(ct.origin_lps_mm) * ras)
    vectors.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(moved), deep=True))
    direction = np.eye(4)
    direction[:3, :3] = ct.direction_matrix * ras[:, None]
    grid = slicer.vtkOrientedGridTransform()
    grid.SetGridDirectionMatrix(slicer.util.vtkMatrixFromArray(direction))
    grid.SetInterpolationModeToLinear()
    grid.SetDisplacementGridData(vectors)
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Acquisition transform")
    node.SetAndObserveTransformToParent(grid)
    return node
