"""The lesions of a segmentation with their sizes, kept up to date while they are edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.lesions.measure import Measurements
from NLSTSegLib.review.case import lesion_row
from NLSTSegLib.review.worklist import Row
from NLSTSegLib.scene.sizes import lesion_now, measure_region
from NLSTSegLib.scene.voxels import segment_regions, volume_of
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


class LesionList:
    """Rows of :func:`.review.case.lesion_row`, in the order of the segments; only what has changed is measured again."""

    def __init__(self, segmentation_node: vtkMRMLSegmentationNode) -> None:
        self._node = segmentation_node
        self._voxels_changed_at = -1
        self.rows: list[Row] = []
        self.regions: dict[str, Region] = {}
        """The voxels of every lesion at the last :meth:`update`."""
        self.sizes: dict[str, Measurements | None] = {}
        """Of every lesion; ``None`` for one without voxels."""
        self.proposals: dict[str, Mapping[str, Region]] = {}
        """Of the runs that were asked for, see :func:`NLSTSegLib.scene.review.proposals_of`; they never change."""

    def update(self) -> set[str]:
        """Look at all lesions anew, whoever changed them; returns the identifiers of those that were measured again.

        Raises :class:`NLSTSegLib.errors.InputError` where the CT is not in the scene or the lesions do not lie on it; then
        there are no rows.
        """
        self.rows = []
        volume_node = volume_of(self._node)
        changed_at = volume_node.GetImageData().GetMTime()
        known = self.regions if changed_at == self._voxels_changed_at else {}
        regions, sizes = segment_regions(self._node), {}
        again: set[str] = set()
        rows: list[Row] = []
        for segment_id, region in regions.items():
            old = known.get(segment_id)
            if old is not None and old.box == region.box and np.array_equal(old.mask, region.mask):
                sizes[segment_id] = self.sizes[segment_id]
            else:
                sizes[segment_id] = measure_region(region, volume_node)
                again.add(segment_id)
            rows.append(lesion_row(lesion_now(self._node, segment_id, region, sizes[segment_id], volume_node)))
        self._voxels_changed_at, self.regions, self.sizes, self.rows = changed_at, regions, sizes, rows
        return again
