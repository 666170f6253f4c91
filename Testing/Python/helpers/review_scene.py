"""A CT under review: lesions with soft edges in the probability map, one that the model misses, one it does not see."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from helpers.example_results import oblique_direction, result_for
from helpers.mrml_nodes import add_volume, ras_from_ijk, world_from_node
from NLSTSegLib.lesions.find import find_lesions
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.review.case import ReviewedLesion
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.review import start_review
from NLSTSegLib.scene.segmentations import segmentation_from_result
from NLSTSegLib.scene.sizes import reviewed_lesions
from NLSTSegLib.volume.ct import CtVolume, to_canonical
from slicer_stand_in.mrml_host import MrmlTestCase

FLIPPED = oblique_direction((1, 0, 2), (1, -1, -1))
"""Oblique, with i and j exchanged and j and k flipped."""


class Ball(NamedTuple):
    """A lesion of soft tissue; the model's probability falls from ``peak`` over :data:`EDGE_MM`, half of it at the surface."""

    centre_ijk: tuple[float, float, float]
    radius_mm: float
    peak: float = 1.0


EDGE_MM = 6.0

LARGE, NEIGHBOUR, SMALL = Ball((20, 24, 12), 7.0), Ball((37, 24, 12), 4.0), Ball((24, 52, 30), 3.5)
"""The lesions that the run finds, the largest first; between the first two there are 2.6 mm of lung."""

FAINT, UNSEEN = Ball((48, 54, 10), 5.0, 0.4), Ball((48, 20, 31), 5.0, 0.0)
"""Below the threshold of the run, and where the model sees nothing."""

BALLS = LARGE, NEIGHBOUR, SMALL, FAINT, UNSEEN


def ct_with_balls(
    balls: tuple[Ball, ...] = BALLS, direction_lps: tuple[float, ...] = FLIPPED, shape_kji: tuple[int, int, int] = (42, 70, 64)
) -> CtVolume:
    hu = np.full(shape_kji, -850, np.int16)
    ct = CtVolume(hu, (0.8, 0.7, 1.5), (-31.7, 12.3, -105.9), direction_lps)
    for ball in balls:
        hu[distance_mm(ct, ball.centre_ijk) <= ball.radius_mm] = 40
    return ct


def distance_mm(ct: CtVolume, centre_ijk: tuple[float, float, float]) -> np.ndarray:
    """``[k, j, i]``: of every voxel from a place on the grid."""
    steps = zip(np.indices(ct.hu.shape)[::-1], centre_ijk, ct.spacing_ijk_mm, strict=True)
    return np.sqrt(sum(((index - at) * step) ** 2 for index, at, step in steps))


def soft_probability(ct: CtVolume, balls: tuple[Ball, ...] = BALLS) -> np.ndarray:
    """uint8 ``[k, j, i]``, 255 is 1."""
    sure = [ball.peak * np.clip(0.5 + (ball.radius_mm - distance_mm(ct, ball.centre_ijk)) / EDGE_MM, 0, 1) for ball in balls]
    return np.rint(255 * np.max(sure, axis=0)).astype(np.uint8)


def soft_result(ct: CtVolume, balls: tuple[Ball, ...] = BALLS) -> SegmentationResult:
    probability = to_canonical(replace(ct, hu=soft_probability(ct, balls).astype(np.int16))).hu.astype(np.uint8)
    result = result_for(ct)
    lesions = find_lesions(probability, result.canonical, threshold=0.5, min_volume_mm3=0)
    card = replace(result.card, weights_sha256="ab" * 32)
    return replace(result, canonical_probability=probability, lesions=tuple(lesions), card=card)


def begin(result: SegmentationResult, volume_node):
    """A segmentation node under review."""
    node = segmentation_from_result(result, volume_node)
    start_review(node, volume_node, probability=result.probability, card=result.card, threshold=result.threshold)
    return node


def voxels_of(segmentation_node, shape_kji: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Every segment as bool ``[k, j, i]`` on a grid of this shape, as Slicer hands it out."""
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    found = {}
    for segment_id in segmentation_node.GetSegmentation().GetSegmentIDs():
        whole = np.zeros(shape_kji, bool)
        image = slicer.vtkOrientedImageData()
        segmentation_node.GetBinaryLabelmapRepresentation(segment_id, image)
        if image.GetPointData().GetScalars() is not None:
            i0, i1, j0, j1, k0, k1 = image.GetExtent()
            part = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
            whole[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = part > 0
        found[segment_id] = whole
    return found


def lesion_of(segmentation_node, segment_id: str) -> ReviewedLesion:
    """One of the lesions as they are now."""
    return next(each for each in reviewed_lesions(segmentation_node) if each.segment_id == segment_id)


def tags_of(segmentation_node, segment_id: str) -> dict[str, str]:
    import vtk

    from NLSTSegLib.review.state import STATE_TAGS

    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    found = {}
    for tag in STATE_TAGS:
        value = vtk.mutable("")
        if segment.GetTag(tag, value):
            found[tag] = str(value)
    return found


def world_ras_mm(volume_node, ct: CtVolume, ijk: tuple[float, float, float]) -> np.ndarray:
    """Where a voxel lies in the world."""
    return (world_from_node(volume_node) @ ras_from_ijk(ct) @ [*ijk, 1])[:3]


class ReviewTestCase(MrmlTestCase):
    """``self.node``, with its ``self.editor``, is under review on ``self.volume_node``, an oblique CT with three lesions."""

    def setUp(self) -> None:
        super().setUp()
        self.ct = ct_with_balls()
        self.volume_node = add_volume(self.ct)
        self.result = soft_result(self.ct)
        self.node = begin(self.result, self.volume_node)
        self.editor = LesionEditor(self.node)
        self.addCleanup(self.editor.close)

    def voxels(self, node=None) -> dict[str, np.ndarray]:
        return voxels_of(node or self.node, self.ct.hu.shape)

    def at(self, ijk: tuple[float, float, float]) -> np.ndarray:
        return world_ras_mm(self.volume_node, self.ct, ijk)

    def status(self, segment_id: str) -> str:
        from NLSTSegLib.scene.lesion_state import lesion_state

        return str(lesion_state(self.node, segment_id).status)

    def paint(self, segment_id: str, box: tuple[slice, slice, slice], value: bool = True) -> None:
        """As a reader would: through an editor of its own that never erases others."""
        import slicer

        from NLSTSegLib.scene.voxels import region_image
        from NLSTSegLib.volume.regions import Region

        logic, mode = self.editor._logic, slicer.vtkSlicerSegmentEditorLogic
        region = Region(box, np.ones([side.stop - side.start for side in box], bool))
        image = region_image(region, self.editor._ras_from_ijk())
        logic.SaveStateForUndo()
        which = mode.ModificationModeAdd if value else mode.ModificationModeRemove
        logic.ModifySegmentByLabelmap(self.node, segment_id, image, which, False, False)
