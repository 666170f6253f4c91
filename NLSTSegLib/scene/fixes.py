"""What can be mended about a volume: always on a copy beside it, never on the volume itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from NLSTSegLib.checks.preflight import check_ct
from NLSTSegLib.errors import InputError
from NLSTSegLib.scene.segmentations import join_study
from NLSTSegLib.scene.volumes import LPS_FROM_RAS, LUNG_WIDTH_LEVEL_HU, check_parent_transform, ct_from_volume_node, grid_lps_mm
from NLSTSegLib.volume.ct import CtVolume

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

INTERCEPT_HU = -1024
"""Rescale intercept of nearly every CT; its stored values are the HU minus this."""

SOFT_TISSUE_HU = (-150, 200)
"""Fat, water, muscle, blood and organs: most of what is not air in any chest CT."""

BODY_ABOVE_HU = -524
"""Denser than lung and air."""

MOSTLY_SOFT = 0.6
"""Share of the body that is soft tissue at least; 0.88 in a real chest."""

SOME_AIR = 0.1
"""Share of the image that is air or lung at least; 0.6 in a real chest."""

IN_PLANE_MM = 0.7
"""Pixels of a resampled copy: the middle of what models are trained on (0.5-1 mm)."""

MOST_PIXELS = 1024
"""A side of a resampled copy; a larger field gets larger pixels."""

SAMPLE_VOXELS = 1_000_000
"""About how many voxels stand for all where shares are looked at."""


@dataclass(frozen=True)
class Fix:
    """A change that would mend a volume: ``apply(node)`` makes a copy with it beside the volume and returns it."""

    kind: Literal["harden", "resample", "convert"]
    apply: Callable[[vtkMRMLScalarVolumeNode], vtkMRMLScalarVolumeNode]


def fix_of_refused(node: vtkMRMLScalarVolumeNode) -> Fix | None:
    """Fix of a volume that :func:`~NLSTSegLib.scene.volumes.ct_from_volume_node` refuses."""
    image = node.GetImageData()
    if image is None or image.GetNumberOfScalarComponents() != 1 or image.GetPointData().GetScalars() is None:
        return None
    try:
        check_parent_transform(node)
    except InputError:
        return Fix("harden", harden_copy)
    return None


def fix_of_finding(code: str, ct: CtVolume) -> Fix | None:
    """Fix of a finding of the pre-flight; ``None`` where the values or the grid do not say for certain what would mend it."""
    if code == "odd_spacing":
        return Fix("resample", resample_copy)
    if code == "not_hu" and is_without_intercept(ct):
        return Fix("convert", convert_copy)
    return None


def harden_copy(node: vtkMRMLScalarVolumeNode) -> vtkMRMLScalarVolumeNode:
    """A copy in which all parent transforms are applied: its grid moved by linear ones, its voxels resampled by others."""
    copy = _copy_beside(node, f"{node.GetName()} hardened")
    copy.HardenTransform()
    return copy


def resample_copy(node: vtkMRMLScalarVolumeNode) -> vtkMRMLScalarVolumeNode:
    """A copy with square axial pixels of :data:`IN_PLANE_MM`, or larger ones where the field is very wide.

    The distance of the slices stays. Finer pixels are averaged first, then interpolated linearly; the outer borders of the
    volume stay where they are.
    """
    import SimpleITK as sitk

    ct = ct_from_volume_node(node)
    size_ijk = np.array(ct.hu.shape[::-1])
    spacing_mm = np.array(ct.spacing_ijk_mm)
    plane = np.arange(3) != np.abs(ct.direction_matrix[2]).argmax()
    pixel_mm = max(IN_PLANE_MM, float((size_ijk * spacing_mm)[plane].max()) / MOST_PIXELS)

    # Counted along its own axes, so it does not matter how they lie in the patient.
    image = sitk.GetImageFromArray(ct.hu)
    image.SetSpacing(spacing_mm.tolist())
    averaged = np.where(plane, np.maximum(pixel_mm // spacing_mm, 1), 1).astype(int)
    image = sitk.BinShrink(image, averaged.tolist())
    size = np.where(plane, np.maximum(np.rint(size_ijk * spacing_mm / pixel_mm), 1), size_ijk).astype(int)
    new_spacing_mm = size_ijk * spacing_mm / size
    first_mm = (new_spacing_mm - spacing_mm) / 2
    # Half a pixel at the border lies outside the outer pixels' centres.
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(size.tolist())
    resampler.SetOutputSpacing(new_spacing_mm.tolist())
    resampler.SetOutputOrigin(first_mm.tolist())
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.UseNearestNeighborExtrapolatorOn()
    hu = sitk.GetArrayFromImage(resampler.Execute(image))

    origin_lps_mm = ct.direction_matrix @ first_mm + ct.origin_lps_mm
    return _with_voxels(node, f"{node.GetName()} resampled", hu, new_spacing_mm, origin_lps_mm)


def convert_copy(node: vtkMRMLScalarVolumeNode) -> vtkMRMLScalarVolumeNode:
    """A copy with the missing rescale intercept added: HU, as int16. Raises :class:`InputError` where none is missing."""
    ct = ct_from_volume_node(node)
    if not is_without_intercept(ct):
        raise InputError(f"the values of '{node.GetName()}' are not those of a CT without its intercept; load the CT again")
    spacing_ijk_mm, origin_lps_mm, _ = grid_lps_mm(node)
    hu = _plus_intercept(ct.hu)
    return _with_voxels(node, f"{node.GetName()} in HU", hu, np.array(spacing_ijk_mm), np.array(origin_lps_mm))


def is_without_intercept(ct: CtVolume) -> bool:
    """Whether the values are certainly the stored ones of a CT, to which :data:`INTERCEPT_HU` was not added.

    They are whole numbers from 0, and with the intercept they pass the pre-flight, have air, and are mostly soft tissue
    where they are no air; MR and PET have no such narrow range.
    """
    step = max(1, round((ct.hu.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = ct.hu[::step, ::step, ::step]
    if ct.hu.min() < 0 or not (sample == np.rint(sample)).all():
        return False
    hu = _plus_intercept(sample)
    body = hu[hu > BODY_ABOVE_HU]
    if not body.size or 1 - body.size / hu.size < SOME_AIR:
        return False
    soft = (body >= SOFT_TISSUE_HU[0]) & (body <= SOFT_TISSUE_HU[1])
    mended = CtVolume(hu, ct.spacing_ijk_mm)
    return bool(soft.mean() >= MOSTLY_SOFT and not any(finding.code == "not_hu" for finding in check_ct(mended)))


def _plus_intercept(stored: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int16)
    return np.clip(stored.astype(np.int32) + INTERCEPT_HU, limits.min, limits.max).astype(np.int16)


def _copy_beside(node: vtkMRMLScalarVolumeNode, name: str) -> vtkMRMLScalarVolumeNode:
    """A whole copy under the same transform, in the same study, with the modality that DICOM import has noted."""
    import slicer

    scene = node.GetScene()
    if scene is None:
        raise InputError(f"the volume '{node.GetName()}' is in no scene; add it to one first")
    copy = slicer.vtkSlicerVolumesLogic.CloneVolume(scene, node, scene.GenerateUniqueName(name))
    join_study(node, copy)
    hierarchy = scene.GetSubjectHierarchyNode()
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    item = hierarchy.GetItemByDataNode(node)
    if item and (modality := hierarchy.GetItemAttribute(item, attribute)):
        hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(copy), attribute, modality)
    return copy


def _with_voxels(
    node: vtkMRMLScalarVolumeNode, name: str, hu: np.ndarray, spacing_ijk_mm: np.ndarray, origin_lps_mm: np.ndarray
) -> vtkMRMLScalarVolumeNode:
    """A copy with other voxels on other steps along the same axes, shown with a window for lungs."""
    import slicer

    copy = _copy_beside(node, name)
    slicer.util.updateVolumeFromArray(copy, hu)
    copy.SetSpacing(spacing_ijk_mm.tolist())
    copy.SetOrigin((LPS_FROM_RAS @ origin_lps_mm).tolist())
    copy.CreateDefaultDisplayNodes()
    copy.GetDisplayNode().SetAutoWindowLevel(False)
    copy.GetDisplayNode().SetWindowLevel(*LUNG_WIDTH_LEVEL_HU)
    return copy
