"""Segments as regions of voxels on the grid of their CT, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.scene.volumes import grid_lps_mm
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regions import Box, Region, box_around, covered

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkOrientedImageData, vtkSegment
    from vtk import vtkMatrix4x4

LABELMAP = "Binary labelmap"
"""Slicer's name of the representation of segments as voxels."""

SEGMENT_OFF_GRID_MM = 1e-2
"""A segment is on the grid of the CT when corner voxels are closer; formats with single precision are off by less."""


def volume_of(segmentation_node: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode:
    """The CT whose lesions the segmentation holds: the one that its reference geometry came from.

    Raises :class:`InputError` where there is none, or the segmentation does not lie on its voxels: with another parent
    transform, or segments on another grid.
    """
    name = segmentation_node.GetName()
    if segmentation_node.GetScene() is None:
        raise InputError(f"the segmentation '{name}' is in no scene any more; choose another")
    volume_node = segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())
    if volume_node is None or volume_node.GetImageData() is None:
        raise InputError(f"the CT of the segmentation '{name}' is not in the scene; load it and choose it for this segmentation")
    if segmentation_node.GetParentTransformNode() is not volume_node.GetParentTransformNode():
        raise InputError(
            f"the segmentation '{name}' and its CT '{volume_node.GetName()}' lie under different transforms; "
            "put both under the same"
        )
    check_grid(segmentation_node, volume_node)
    return volume_node


def check_grid(segmentation_node: vtkMRMLSegmentationNode, volume_node: vtkMRMLScalarVolumeNode) -> None:
    """Raise :class:`InputError` unless every segment consists of voxels of the volume."""
    import slicer
    import vtk

    if volume_node.GetImageData() is None:
        raise InputError(f"the volume '{volume_node.GetName()}' holds no voxels; choose the CT that was segmented")
    size_ijk = np.array(volume_node.GetImageData().GetDimensions())
    corners_ijk = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(size_ijk - 1), 1]
    expected, own = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(expected)
    segmentation = segmentation_node.GetSegmentation()
    checked = set()
    for segment_id in segmentation.GetSegmentIDs():
        layer = _layer(segmentation_node, segment_id)
        if layer in checked or layer.GetPointData().GetScalars() is None:
            continue
        checked.add(layer)
        layer.GetImageToWorldMatrix(own)
        off_mm = corners_ijk @ (slicer.util.arrayFromVTKMatrix(own) - slicer.util.arrayFromVTKMatrix(expected)).T
        first, last = np.reshape(layer.GetExtent(), (3, 2)).T
        if np.abs(off_mm).max() > SEGMENT_OFF_GRID_MM or (first < 0).any() or (last >= size_ijk).any():
            raise InputError(
                f"the segment '{segmentation.GetSegment(segment_id).GetName()}' does not lie on the voxels of the CT "
                f"'{volume_node.GetName()}'; choose the CT that it was made on"
            )


def segment_regions(segmentation_node: vtkMRMLSegmentationNode, segment_ids: Iterable[str] | None = None) -> dict[str, Region]:
    """The voxels of these segments, or of all, on the grid of the CT, in the given order.

    Raises :class:`InputError` for a segment that is not there, or is not made of voxels.
    """
    from vtk.util.numpy_support import vtk_to_numpy

    segmentation = segmentation_node.GetSegmentation()
    ids = list(segmentation.GetSegmentIDs() if segment_ids is None else segment_ids)
    found: dict[vtkOrientedImageData, tuple[np.ndarray, np.ndarray]] = {}
    regions = {}
    for segment_id in ids:
        layer = _layer(segmentation_node, segment_id)
        scalars = layer.GetPointData().GetScalars()
        if scalars is None:
            regions[segment_id] = Region.union([])
            continue
        if layer not in found:
            # Lesions may share a layer that spans the chest and is nearly empty: it is looked through once.
            values = vtk_to_numpy(scalars)
            used = np.flatnonzero(values != 0)  # several times faster on bool than on the labels themselves
            found[layer] = used, values[used]
        used, values = found[layer]
        own = used[values == segmentation.GetSegment(segment_id).GetLabelValue()]
        if not len(own):
            regions[segment_id] = Region.union([])
            continue
        at_kji = np.stack(np.unravel_index(own, layer.GetDimensions()[::-1]))
        low = at_kji.min(axis=1)
        mask = np.zeros(at_kji.max(axis=1) - low + 1, bool)
        mask[tuple(at_kji - low[:, None])] = True
        start_kji = (low + layer.GetExtent()[4::-2]).tolist()
        k, j, i = (slice(start, start + size) for start, size in zip(start_kji, mask.shape, strict=True))
        regions[segment_id] = Region((k, j, i), mask)
    return regions


def segment_region(segmentation_node: vtkMRMLSegmentationNode, segment_id: str) -> Region:
    """The voxels of one segment, see :func:`segment_regions`."""
    return segment_regions(segmentation_node, [segment_id])[segment_id]


def other_voxels(segmentation_node: vtkMRMLSegmentationNode, segment_ids: Iterable[str], box: Box) -> np.ndarray:
    """bool ``[k, j, i]`` of the shape of ``box``: what belongs to segments other than these."""
    own = set(segment_ids)
    others = [other for other in segmentation_node.GetSegmentation().GetSegmentIDs() if other not in own]
    return covered(segment_regions(segmentation_node, others).values(), box)


def region_image(region: Region, ras_from_ijk: vtkMatrix4x4) -> vtkOrientedImageData:
    """A labelmap of ``region`` whose extent says where on the grid it lies."""
    image, labels = _labelmap(region.box, ras_from_ijk, np.uint8)
    labels[:] = region.mask
    return image


def share_layers(segments: Sequence[tuple[vtkSegment, Region]], ras_from_ijk: vtkMatrix4x4) -> None:
    """Give each segment its voxels, in one labelmap for all; those that overlap go into further ones.

    It is what ``vtkSegmentation.CollapseBinaryLabelmaps`` makes of a labelmap for each, in a tenth of the time. Where no region
    has a voxel, nothing is changed.
    """
    boxes = [region.box for _segment, region in segments if region.voxels]
    if not boxes:
        return
    box = box_around(boxes)
    dtype = np.uint8 if len(segments) <= np.iinfo(np.uint8).max else np.uint16
    layers: list[tuple[vtkOrientedImageData, np.ndarray]] = []
    for label, (segment, region) in enumerate(segments, start=1):
        k, j, i = (
            slice(o.start - w.start, o.stop - w.start) if region.voxels else slice(0, 0)
            for o, w in zip(region.box, box, strict=True)
        )
        layer = next((each for each in layers if not each[1][k, j, i][region.mask].any()), None)
        if layer is None:
            layer = _labelmap(box, ras_from_ijk, dtype)
            layers.append(layer)
        image, labels = layer
        labels[k, j, i][region.mask] = label
        segment.SetLabelValue(label)
        segment.AddRepresentation(LABELMAP, image)


def drop_layers(segmentation_node: vtkMRMLSegmentationNode) -> None:
    """Take the voxels from a segmentation that goes away.

    With them, every segment would first be copied out of the labelmap that it shares, which takes seconds for many.
    """
    segmentation = segmentation_node.GetSegmentation()
    for segment_id in segmentation.GetSegmentIDs():
        segmentation.GetSegment(segment_id).RemoveAllRepresentations()


def _labelmap(box: Box, ras_from_ijk: vtkMatrix4x4, dtype: type[np.integer]) -> tuple[vtkOrientedImageData, np.ndarray]:
    """An empty labelmap whose extent says where on the grid ``box`` lies, and its values ``[k, j, i]``, not a copy."""
    import slicer
    from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    image.SetExtent([bound for side in reversed(box) for bound in (side.start, side.stop - 1)])
    image.SetImageToWorldMatrix(ras_from_ijk)
    image.AllocateScalars(get_vtk_array_type(dtype), 1)
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape([side.stop - side.start for side in box])
    labels[:] = 0
    return image, labels


def own_layer(segmentation_node: vtkMRMLSegmentationNode, segment_id: str, region: Region | None = None) -> None:
    """Give the segment a labelmap of its own, around its voxels, unless it has one: changing it is fast then.

    ``region``, its voxels, spares reading them again. It belongs into a step to undo, after the state was saved: the undo
    history takes it for a change. Saving a scene puts segments that do not overlap back into one labelmap.
    """
    import slicer

    segmentation = segmentation_node.GetSegmentation()
    layer = _layer(segmentation_node, segment_id)
    # Not vtkSegmentation.IsSharedBinaryLabelmap, which says the opposite (Slicer 5.13).
    if sum(_layer(segmentation_node, other) is layer for other in segmentation.GetSegmentIDs()) == 1:
        return
    region = region or segment_region(segmentation_node, segment_id)
    segmentation.SeparateSegmentLabelmap(segment_id)
    if not region.voxels:
        return
    segment = segmentation.GetSegment(segment_id)
    whole = segment.GetRepresentation(LABELMAP)
    # A copy is cut: cutting the labelmap itself would throw the surfaces of all segments away.
    small = slicer.vtkOrientedImageData()
    small.ShallowCopy(whole)
    small.CopyDirections(whole)
    small.Crop([bound for side in reversed(region.box) for bound in (side.start, side.stop - 1)])
    segment.AddRepresentation(LABELMAP, small)


def cut_out(volume_node: vtkMRMLScalarVolumeNode, box: Box) -> CtVolume:
    """The part of a CT in ``box``, copied, as a CT of its own in the same place (without the parent transform)."""
    import SimpleITK as sitk
    import slicer

    voxels = np.ascontiguousarray(slicer.util.arrayFromVolume(volume_node)[box])
    spacing_ijk_mm, origin_lps_mm, direction_lps = grid_lps_mm(volume_node)
    steps_mm = np.reshape(direction_lps, (3, 3)) * spacing_ijk_mm
    left, posterior, superior = (steps_mm @ [side.start for side in reversed(box)] + origin_lps_mm).tolist()
    return replace(
        CtVolume.from_image(sitk.GetImageFromArray(voxels)),
        spacing_ijk_mm=spacing_ijk_mm,
        origin_lps_mm=(left, posterior, superior),
        direction_lps=direction_lps,
    )


def world_from_ras(node: vtkMRMLSegmentationNode | vtkMRMLScalarVolumeNode) -> np.ndarray:
    """4x4, from the node's own RAS to the world's, through its parent transforms."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, matrix):
        raise InputError(f"'{node.GetName()}' lies under a non-linear transform; harden it on a copy and review the copy")
    return slicer.util.arrayFromVTKMatrix(matrix)


def voxels_stamp(segmentation_node: vtkMRMLSegmentationNode, segment_id: str) -> tuple[int, int]:
    """Another one whenever the voxels of the segment may have changed; VTK never gives a time twice."""
    label = segmentation_node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
    return _layer(segmentation_node, segment_id).GetMTime(), label


class KnownRegions:
    """The voxels of the segments of a node; only those that may have changed are read again."""

    def __init__(self, segmentation_node: vtkMRMLSegmentationNode) -> None:
        self._node = segmentation_node
        self._known: dict[str, tuple[tuple[int, int], Region]] = {}

    def of(self, segment_ids: Iterable[str]) -> dict[str, Region]:
        """As :func:`segment_regions`."""
        stamps = {each: voxels_stamp(self._node, each) for each in segment_ids}
        changed = [each for each, stamp in stamps.items() if each not in self._known or self._known[each][0] != stamp]
        for segment_id, region in segment_regions(self._node, changed).items():
            self._known[segment_id] = stamps[segment_id], region
        return {each: self._known[each][1] for each in stamps}


def _layer(segmentation_node: vtkMRMLSegmentationNode, segment_id: str) -> vtkOrientedImageData:
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    if segment is None:
        raise InputError(f"the segmentation '{segmentation_node.GetName()}' has no segment '{segment_id}' any more")
    layer = segment.GetRepresentation(LABELMAP)
    if layer is None:
        raise InputError(f"the segment '{segment.GetName()}' is not made of voxels; create its binary labelmap first")
    return layer
