"""From a volume node to a CT, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.volume.ct import LUNG_WINDOW_HU, Acquisition, CtVolume, Grid, as_int16

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
"""Left and posterior are minus right and minus anterior; superior is the same."""

LUNG_WIDTH_LEVEL_HU = (LUNG_WINDOW_HU[1] - LUNG_WINDOW_HU[0], (LUNG_WINDOW_HU[0] + LUNG_WINDOW_HU[1]) / 2)
"""The lung window as MRML takes it."""

RIGID_TOLERANCE = 1e-3
"""How far the axes of a parent transform may be from unit length and right angles; a lesion of 100 mm gains 0.1 mm."""


def ct_from_volume_node(node: vtkMRMLScalarVolumeNode, *, copy: bool = True) -> CtVolume:
    """Copy a scalar volume node holding HU; without ``copy``, to look at it only, the voxels are the node's own if they can.

    Voxel types are brought to int16 or float32 as by :meth:`CtVolume.from_image`. The geometry is the node's own
    (``IJKToRAS``, in LPS, no rounding): a rigid parent transform moves the patient as a whole and is left out, so
    nothing is resampled; :func:`NLSTSegLib.scene.segmentations.segmentation_from_result` puts its node under the same
    transform. Modality and series UID come from the node's item in the subject hierarchy, where Slicer's DICOM import
    writes them; they are empty where it did not.

    Raises :class:`InputError` for a node without scalar voxels and for a parent transform that is not rigid, under which
    sizes in mm would not hold.
    """
    import SimpleITK as sitk
    import slicer

    name, image_data = node.GetName(), node.GetImageData()
    if image_data is None or image_data.GetPointData().GetScalars() is None:
        raise InputError(f"the volume '{name}' holds no voxels; load a CT into it or choose another volume")
    if image_data.GetNumberOfScalarComponents() != 1:
        count = image_data.GetNumberOfScalarComponents()
        raise InputError(f"the volume '{name}' has {count} values in each voxel, which a CT has not; choose a CT")
    check_parent_transform(node)

    spacing_ijk_mm, origin_lps_mm, direction_lps = grid_lps_mm(node)
    hu, acquisition = slicer.util.arrayFromVolume(node), _acquisition(node)
    if not copy:
        hu = _as_hu_type(hu)
        if hu.dtype == np.int16 or np.isfinite(hu).all():
            return CtVolume(hu, spacing_ijk_mm, origin_lps_mm, direction_lps, acquisition)
    voxels = CtVolume.from_image(sitk.GetImageFromArray(hu), acquisition)
    return replace(voxels, spacing_ijk_mm=spacing_ijk_mm, origin_lps_mm=origin_lps_mm, direction_lps=direction_lps)


def volume_node_of_ct(ct: CtVolume, scene: vtkMRMLScene, name: str) -> vtkMRMLScalarVolumeNode:
    """A new volume node with a copy of the voxels and the geometry of ``ct``, shown with a window for lungs."""
    import slicer
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    slicer.util.updateVolumeFromArray(node, ct.hu)
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = LPS_FROM_RAS @ ct.direction_matrix * ct.spacing_ijk_mm
    ras_from_ijk[:3, 3] = LPS_FROM_RAS @ ct.origin_lps_mm
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(ras_from_ijk.ravel())
    node.SetIJKToRASMatrix(matrix)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(*LUNG_WIDTH_LEVEL_HU)
    return node


def mark_as_series(node: vtkMRMLScalarVolumeNode, series_uid: str, modality: str) -> None:
    """Note of a volume of which DICOM series it is, as Slicer's import does: see :func:`ct_from_volume_node`."""
    import slicer

    hierarchy, names = node.GetScene().GetSubjectHierarchyNode(), slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.GetItemByDataNode(node)
    hierarchy.SetItemUID(item, names.GetDICOMUIDName(), series_uid)
    hierarchy.SetItemAttribute(item, names.GetDICOMSeriesModalityAttributeName(), modality)


def grid_lps_mm(node: vtkMRMLScalarVolumeNode) -> Grid:
    """Spacing of i, j, k, origin and directions (as in :class:`CtVolume`) of a volume node, in LPS mm, without parents.

    A node may have negative spacings; those of the grid are positive, and its directions turned instead.
    """
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(matrix)
    signs = np.where(np.array(node.GetSpacing()) < 0, -1.0, 1.0)
    # + 0.0 turns the -0.0 of a negated zero into 0.0.
    direction = LPS_FROM_RAS @ slicer.util.arrayFromVTKMatrix(matrix)[:3, :3] * signs + 0.0
    left, posterior, superior = (LPS_FROM_RAS @ node.GetOrigin() + 0.0).tolist()
    i, j, k = map(abs, node.GetSpacing())
    return (i, j, k), (left, posterior, superior), tuple(direction.ravel().tolist())


def _as_hu_type(voxels: np.ndarray) -> np.ndarray:
    """``voxels`` itself, or their copy, as int16 or float32, as :meth:`CtVolume.from_image` makes them."""
    if voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return voxels.astype(np.float32, copy=False)
    return voxels if voxels.dtype == np.int16 else as_int16(voxels)


def check_parent_transform(node: vtkMRMLScalarVolumeNode) -> None:
    """Raise :class:`InputError` when the node lies under a transform that is not rigid."""
    import slicer
    import vtk

    transform = node.GetParentTransformNode()
    if transform is None:
        return
    advice = "harden the transform on a copy of the volume and segment the copy"
    if not transform.IsTransformToWorldLinear():
        raise InputError(
            f"the volume '{node.GetName()}' lies under a non-linear transform, such as a correction of gantry tilt; {advice}"
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    axes = slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
    if not np.allclose(axes.T @ axes, np.eye(3), atol=RIGID_TOLERANCE):
        raise InputError(f"the volume '{node.GetName()}' lies under a transform that scales or shears; {advice}")


def _acquisition(node: vtkMRMLScalarVolumeNode) -> Acquisition:
    import slicer

    hierarchy = node.GetScene() and node.GetScene().GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
    if not item:
        return Acquisition(format="MRML")
    names = slicer.vtkMRMLSubjectHierarchyConstants
    return Acquisition(
        format="MRML",
        modality=hierarchy.GetItemAttribute(item, names.GetDICOMSeriesModalityAttributeName()),
        series_uid=hierarchy.GetItemUID(item, names.GetDICOMUIDName()),
    )
