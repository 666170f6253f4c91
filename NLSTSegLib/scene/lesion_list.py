"""The lesions of a segmentation with their sizes, kept up to date while they are edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from NLSTSegLib.lesions.measure import Measurements
from NLSTSegLib.review.case import ReviewedLesion, review_row
from NLSTSegLib.review.worklist import Row
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.sizes import lesion_now, measure_region
from NLSTSegLib.scene.voxels import KnownRegions, volume_of
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


class LesionList:
    """Rows of :func:`.review.case.review_row`, in the order of the segments; only what has changed is read and measured again."""

    def __init__(self, segmentation_node: vtkMRMLSegmentationNode, known: KnownRegions | None = None) -> None:
        """``known`` are those of its :class:`NLSTSegLib.scene.editor.LesionEditor`, where it has one."""
        self._node, self._known = segmentation_node, known or KnownRegions(segmentation_node)
        self._ct_changed_at = -1
        self._lesions: dict[str, ReviewedLesion] = {}
        self.rows: list[Row] = []
        self.regions: dict[str, Region] = {}
        """The voxels of every lesion at the last :meth:`update`."""
        self.proposals: dict[str, Mapping[str, Region]] = {}
        """Proposals of the runs that were asked for, see :func:`NLSTSegLib.scene.review.proposals_of`; they never change."""

    def sizes(self, segment_id: str) -> Measurements | None:
        """Sizes of a lesion at the last :meth:`update`; ``None`` for one without voxels, or that is not there."""
        lesion = self._lesions.get(segment_id)
        return None if lesion is None else lesion.sizes

    def update(self) -> set[str]:
        """Look at all lesions anew, whoever changed them; returns the identifiers of those that were measured again.

        Raises :class:`NLSTSegLib.errors.InputError` where the CT is not in the scene or the lesions do not lie on it; then
        there are no rows.
        """
        self.rows = []
        volume_node, segmentation = volume_of(self._node), self._node.GetSegmentation()
        changed_at = volume_node.GetImageData().GetMTime()
        before = self._lesions if changed_at == self._ct_changed_at else {}
        again: set[str] = set()
        lesions: dict[str, ReviewedLesion] = {}
        for segment_id, region in self._known.of(segmentation.GetSegmentIDs()).items():
            old = before.get(segment_id)
            if old is not None and (old.region.box, old.region.fingerprint) == (region.box, region.fingerprint):
                name, state = segmentation.GetSegment(segment_id).GetName(), lesion_state(self._node, segment_id, region)
                lesions[segment_id] = replace(old, name=name, state=state)
            else:
                lesions[segment_id] = lesion_now(self._node, segment_id, region, measure_region(region, volume_node), volume_node)
                again.add(segment_id)
        self._ct_changed_at, self._lesions = changed_at, lesions
        self.regions = {each: lesion.region for each, lesion in lesions.items()}
        self.rows = [review_row(lesion) for lesion in lesions.values()]
        return again
