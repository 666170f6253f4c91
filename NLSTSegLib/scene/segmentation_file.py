"""A segmentation node as ``.seg.nrrd``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError
from NLSTSegLib.scene.review import lesion_state, write_state
from NLSTSegLib.scene.voxels import segment_regions

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def write_segmentation_node(segmentation_node: vtkMRMLSegmentationNode, path: Path) -> None:
    """Write all segments with their state, rejected ones too; the node itself, its file and its undo steps stay untouched.

    Raises :class:`InputError` when the file cannot be written.
    """
    import slicer

    copy = slicer.vtkMRMLSegmentationNode()
    copy.GetSegmentation().DeepCopy(segmentation_node.GetSegmentation())
    for segment_id, region in segment_regions(segmentation_node).items():
        # The tags do not know yet of paint strokes and of time in focus since the last decision.
        write_state(copy, segment_id, lesion_state(segmentation_node, segment_id, region))
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    # Writing the empty chest around the lesions takes seven times as long.
    storage.SetCropToMinimumExtent(True)
    if not storage.WriteData(copy):
        raise InputError(f"'{path}' could not be written; choose another place")
