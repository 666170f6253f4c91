"""A segmentation node as ``.seg.nrrd``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError
from NLSTSegLib.scene.lesion_state import lesion_state, write_state
from NLSTSegLib.scene.voxels import drop_layers, segment_regions, share_layers, volume_of

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def write_segmentation_node(segmentation_node: vtkMRMLSegmentationNode, path: Path) -> None:
    """Write all segments with their state, rejected ones too; the node itself, its file and its undo steps stay untouched.

    Raises :class:`InputError` when the file cannot be written.
    """
    import slicer
    import vtk

    ras_from_ijk = vtk.vtkMatrix4x4()
    volume_of(segmentation_node).GetIJKToRASMatrix(ras_from_ijk)
    regions = segment_regions(segmentation_node)
    copy = slicer.vtkMRMLSegmentationNode()
    segmentation = copy.GetSegmentation()
    segmentation.DeepCopy(segmentation_node.GetSegmentation())
    # Lesions that were edited have labelmaps of their own, which the writer brings together in ten times the time.
    share_layers([(segmentation.GetSegment(each), region) for each, region in regions.items()], ras_from_ijk)
    for segment_id, region in regions.items():
        # The tags do not know yet of paint strokes and of time in focus since the last decision.
        write_state(copy, segment_id, lesion_state(segmentation_node, segment_id, region))
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    # Writing the empty chest around the lesions takes seven times as long.
    storage.SetCropToMinimumExtent(True)
    written = storage.WriteData(copy)
    drop_layers(copy)
    if not written:
        raise InputError(f"'{path}' could not be written; choose another place")
