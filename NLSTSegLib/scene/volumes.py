"""From a volume node to a CT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.volume import Acquisition, CtVolume

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
"""Left and posterior are minus right and minus anterior; superior is the same."""

RIGID_TOLERANCE = 1e-3
"""How far the axes of a parent transform may be from unit length and right angles; a lesion of 100 mm gains 0.1 mm."""


def ct_from_volume_node(node: vtkMRMLScalarVolumeNode) -> CtVolume:
    """Copy a scalar volume node holding HU.

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
    _check_parent_transform(node)

    spacing_ijk_mm, origin_lps_mm, direction_lps = grid_lps_mm(node)
    voxels = CtVolume.from_image(sitk.GetImageFromArray(slicer.util.arrayFromVolume(node)), _acquisition(node))
    return replace(voxels, spacing_ijk_mm=spacing_ijk_mm, origin_lps_mm=origin_lps_mm, direction_lps=direction_lps)


def grid_lps_mm(
    node: vtkMRMLScalarVolumeNode,
) -> tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, ...]]:
    """Spacing of i, j, k, origin and directions (as in :class:`CtVolume`) of a volume node, in LPS mm, without parents."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(matrix)
    # + 0.0 turns the -0.0 of a negated zero into 0.0.
    direction = LPS_FROM_RAS @ slicer.util.arrayFromVTKMatrix(matrix)[:3, :3] + 0.0
    left, posterior, superior = (LPS_FROM_RAS @ node.GetOrigin() + 0.0).tolist()
    return node.GetSpacing(), (left, posterior, superior), tuple(direction.ravel().tolist())


def _check_parent_transform(node: vtkMRMLScalarVolumeNode) -> None:
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
