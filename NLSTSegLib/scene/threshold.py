"""Growing and shrinking one lesion by a probability threshold of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.find import BOX_MARGIN_MM
from NLSTSegLib.review.state import THRESHOLD_TAG, threshold_text
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.review import probability_of, proposals_of, run_threshold
from NLSTSegLib.scene.voxels import own_layer, segment_region, segment_regions, volume_of
from NLSTSegLib.volume.components import touching
from NLSTSegLib.volume.probability import lowest_level
from NLSTSegLib.volume.regions import Region, covered, grown_box

LEAST_PROBABILITY = 0.1
"""Where the model is nowhere surer than this, its map tells nothing about a lesion."""


class ThresholdDrag:
    """One drag of the slider: make it when the slider is pressed, and call :meth:`move` as it moves. It is one undo step.

    The lesion becomes what is above the threshold in the run's probability map, inside the box of the lesion and its
    proposal grown by :data:`NLSTSegLib.lesions.find.BOX_MARGIN_MM`, hangs together with what was proposed (with what the lesion
    is now, if it was added), and belongs to no other lesion, hidden ones included. Earlier painting on the lesion gives way;
    undo brings it back. At the run's threshold the proposal comes back.

    Raises :class:`InputError` where the map is not in the scene, or the model sees nothing there.
    """

    def __init__(
        self,
        editor: LesionEditor,
        segment_id: str,
        regions: Mapping[str, Region] | None = None,
        proposals: dict[str, Mapping[str, Region]] | None = None,
    ) -> None:
        """``regions``, the voxels of all lesions now, and ``proposals`` (see :func:`NLSTSegLib.scene.review.proposals_of`)
        spare reading them again."""
        self._editor, self.segment_id = editor, segment_id
        node = editor.segmentation_node
        volume_node = volume_of(node)
        regions = segment_regions(node) if regions is None else regions
        region = regions[segment_id] if segment_id in regions else segment_region(node, segment_id)  # raises
        state = lesion_state(node, segment_id, region)
        self._threshold = run_threshold(node) if state.threshold is None else state.threshold
        name = node.GetSegmentation().GetSegment(segment_id).GetName()
        probability = probability_of(node, state.run)
        if probability is None:
            raise InputError(f"the probability map of '{name}' is not in the scene, so it cannot grow or shrink; use paint")
        proposal = proposals_of(node, state.proposals, proposals)
        around = Region.union([region, proposal] if proposal else [region])
        if not around.voxels:
            raise InputError(f"'{name}' has no voxels to grow from; delete it, or use paint")
        self._box = grown_box(around.box, BOX_MARGIN_MM, volume_node.GetSpacing(), probability.shape)
        self._free = ~covered((other for each, other in regions.items() if each != segment_id), self._box)
        self._level = np.where(self._free, probability[self._box], 0)
        self._seed = (proposal or region).within(self._box) & self._free
        if not self._seed.any():
            self._seed = region.within(self._box) & self._free
        self._highest_level = int(self._level[self._seed].max(initial=0))
        if self._highest_level < lowest_level(LEAST_PROBABILITY):
            raise InputError(f"the model sees nothing at '{name}' (probability below {LEAST_PROBABILITY:.0%}); use paint")
        self._region, self._saved = region, False

    @property
    def threshold(self) -> float:
        """Where the slider stands: the lesion's own threshold, that of the run where it has none."""
        return self._threshold

    @property
    def highest(self) -> float:
        """Just below the lesion's peak: higher thresholds count as this one, so that a voxel is left."""
        return (self._highest_level - 1) / 255

    def move(self, threshold: float) -> Region:
        """Set the lesion's own threshold, 0 to 1; returns its voxels. Raises :class:`InputError` for a number beyond."""
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold {threshold} is not a probability: give a number from 0 to 1")
        if not self._saved:
            self._editor.save_state()
            own_layer(self._editor.segmentation_node, self.segment_id, self._region)
            self._saved = True
        above = self._level >= min(lowest_level(threshold), self._highest_level)
        region = Region.of(touching(above, self._seed), self._box)
        self._editor.set_region(self.segment_id, region)
        self._threshold = min(threshold, self.highest)
        segment = self._editor.segmentation_node.GetSegmentation().GetSegment(self.segment_id)
        segment.SetTag(THRESHOLD_TAG, threshold_text(self._threshold))
        return region
