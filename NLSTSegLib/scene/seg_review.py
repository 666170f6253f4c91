"""A DICOM SEG as a review of the CT in the scene."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.dicom.read_seg import ReadSeg, ReadSegment
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.coding import TERMINOLOGY_TAG, segment_id
from NLSTSegLib.models.card import ModelIdentity
from NLSTSegLib.results.saved import SavedLesion, SavedResult
from NLSTSegLib.review.state import FIRST_RUN, LesionState, Origin, Status
from NLSTSegLib.scene.lesion_state import write_state
from NLSTSegLib.scene.review import keep_proposals, resume_review
from NLSTSegLib.scene.segmentations import segmentation_from_result
from NLSTSegLib.scene.volumes import grid_lps_mm
from NLSTSegLib.scene.voxels import segment_region

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

NO_CARD = ModelIdentity("", "", "", "", "", "", "", "")
"""A SEG says of every lesion what proposed it."""

HOW_MADE = {
    "AUTOMATIC": (Status.NEW, Origin.MODEL),
    "SEMIAUTOMATIC": (Status.EDITED, Origin.MODEL),
}
"""Status and origin by the algorithm type of a segment; any other is somebody's own work."""


def review_of_seg(seg: ReadSeg, labels: np.ndarray, volume_node: vtkMRMLScalarVolumeNode) -> vtkMRMLSegmentationNode:
    """A new segmentation under review with the segments of ``seg``; ``labels`` are its own, in the order of the volume's voxels.

    Name, codes, score and origin are those of the SEG. It is kept as what the review began with, and its tracking UIDs go
    into every later export. There is no probability map, so no slider for the threshold. Segments without a voxel are left out.
    Raises :class:`InputError` where there is none with one.
    """
    there = set(np.unique(labels).tolist())
    segments = {label: segment for label, segment in enumerate(seg.segments, start=1) if label in there}
    if not segments:
        raise InputError("no voxel of the CT is in a segment of the SEG")
    lesions = tuple(SavedLesion(label, segment.name, _score(segment) or 0.0) for label, segment in segments.items())
    result = SavedResult(
        grid=grid_lps_mm(volume_node),
        labels=labels,
        probability=np.zeros_like(labels),
        lesions=lesions,
        card=NO_CARD,
        threshold=0.0,
        min_volume_mm3=0.0,
        lungs=None,
        findings=(),
        device_note="",
        seconds={},
    )
    name = volume_node.GetScene().GenerateUniqueName(f"{volume_node.GetName()} SEG")
    node = segmentation_from_result(result, volume_node, name)
    resume_review(node, volume_node)
    names: dict[str, str] = {}
    for lesion, segment in zip(lesions, segments.values(), strict=True):
        own_id = segment_id(lesion)
        # By it the lesion is known again, see dicom.lesions.
        is_known = segment.tracking_uid and segment.tracking_uid not in names.values()
        names[own_id] = segment.tracking_uid if is_known else own_id
        _write_tags(node, own_id, segment, names[own_id])
    keep_proposals(node, volume_node, names)
    return node


def _write_tags(node: vtkMRMLSegmentationNode, own_id: str, segment: ReadSegment, proposal: str) -> None:
    status, origin = HOW_MADE.get(segment.algorithm_type, (Status.EDITED, Origin.MANUAL))
    threshold = re.search(r"threshold ([0-9.]+)", segment.parameters)
    weights = re.search(r"weights sha256 ([0-9a-f]{64})", segment.parameters)
    state = LesionState(
        status=status,
        origin=origin,
        voxels=segment_region(node, own_id).fingerprint,
        score=_score(segment),
        threshold=float(threshold[1]) if threshold else None,
        model="" if origin == Origin.MANUAL else segment.algorithm or "unknown",
        weights_sha256=weights[1] if weights else "",
        proposals=(f"{FIRST_RUN}/{proposal}",),
    )
    write_state(node, own_id, state)
    shown = node.GetSegmentation().GetSegment(own_id)
    if segment.terminology:
        shown.SetTag(TERMINOLOGY_TAG, segment.terminology)
    else:
        shown.RemoveTag(TERMINOLOGY_TAG)


def _score(segment: ReadSegment) -> float | None:
    """Score as this program writes it into the description."""
    found = re.fullmatch(r"score ([01]\.[0-9]{3})", segment.description)
    return float(found[1]) if found else None
