"""The lesions of a segmentation with their sizes, kept up to date while they are edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.lesions.measure import Measurements
from NLSTSegLib.review.case import ReviewedLesion, lesion_row
from NLSTSegLib.review.worklist import Row
from NLSTSegLib.scene.review import lesion_state
from NLSTSegLib.scene.sizes import measure_region
from NLSTSegLib.scene.voxels import segment_regions, volume_of
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


class LesionList:
    """Rows of :func:`.review.case.lesion_row`, in the order of the segments; only what has changed is measured again."""

    def __init__(self, segmentation_node: vtkMRMLSegmentationNode) -> None:
        self._node = segmentation_node
        self._voxels_changed_at = -1
        self._measured: dict[str, tuple[Region, Measurements | None]] = {}
        self.rows: list[Row] = []

    def update(self) -> set[str]:
        """Look at all lesions anew, whoever changed them; returns the identifiers of those that were measured again.

        Raises :class:`NLSTSegLib.errors.InputError` where the CT is not in the scene or the lesions do not lie on it.
        """
        volume_node = volume_of(self._node)
        changed_at = volume_node.GetImageData().GetMTime()
        old = self._measured if changed_at == self._voxels_changed_at else {}
        measured: dict[str, tuple[Region, Measurements | None]] = {}
        again: set[str] = set()
        rows: list[Row] = []
        for segment_id, region in segment_regions(self._node).items():
            known = old.get(segment_id)
            if known is not None and known[0].box == region.box and np.array_equal(known[0].mask, region.mask):
                measured[segment_id] = known
            else:
                measured[segment_id] = region, measure_region(region, volume_node)
                again.add(segment_id)
            name = self._node.GetSegmentation().GetSegment(segment_id).GetName()
            state = lesion_state(self._node, segment_id, region)
            # What was proposed does not show in a row.
            rows.append(lesion_row(ReviewedLesion(segment_id, name, state, region, measured[segment_id][1], None)))
        self._voxels_changed_at, self._measured, self.rows = changed_at, measured, rows
        return again
