"""Changes to the lesions of one segmentation that can be undone: the ground on which growing, adding and the rest stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from NLSTSegLib.lesions.coding import TERMINOLOGY, TERMINOLOGY_TAG, segment_color
from NLSTSegLib.review.state import FIRST_RUN, LesionState, Status
from NLSTSegLib.scene.lesion_state import lesion_state, show_by_status, write_state
from NLSTSegLib.scene.review import PROPOSAL_ROLE
from NLSTSegLib.scene.voxels import KnownRegions, own_layer, region_image, volume_of
from NLSTSegLib.volume.regions import Region

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode
    from vtk import vtkMatrix4x4

UNDO_STEPS = 10
"""How many steps can be undone; Slicer's module for editing segments keeps as many."""


class UndoWidget(Protocol):
    """What of ``qMRMLSegmentEditorWidget`` keeps the steps to undo, where one is embedded."""

    def saveStateForUndo(self) -> None: ...  # noqa: N802

    def undo(self) -> None: ...

    def redo(self) -> None: ...


class LesionEditor:
    """Changes lesions through ``vtkSlicerSegmentEditorLogic``, and never a voxel of another lesion.

    Without ``widget`` the steps to undo are the logic's own. With the embedded segment editor they go to that widget, so
    that painting and these changes are undone in one order, also by the widget's own buttons; after those, call
    :func:`NLSTSegLib.scene.lesion_state.show_by_status`. Keep one editor for each segmentation under review, and
    :meth:`close` it.
    """

    def __init__(self, segmentation_node: vtkMRMLSegmentationNode, widget: UndoWidget | None = None) -> None:
        import slicer

        self.segmentation_node = segmentation_node
        self.known = KnownRegions(segmentation_node)
        """The voxels of its lesions."""
        self._widget = widget
        # Not the parameters of the embedded editor, whose masks would hold for changes from here too.
        self._parameters = slicer.vtkMRMLSegmentEditorNode()
        self._parameters.SetSaveWithScene(False)
        self._parameters.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        segmentation_node.GetScene().AddNode(self._parameters)
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetMRMLScene(segmentation_node.GetScene())
        self._logic.SetSegmentEditorNode(self._parameters)
        self._logic.SetSegmentationNode(segmentation_node)
        self._logic.SetMaximumNumberOfUndoStates(UNDO_STEPS)

    def close(self) -> None:
        """Forget the steps and leave the scene; also right after the scene was closed."""
        scene = self._parameters.GetScene()
        self._logic.SetSegmentEditorNode(None)
        self._logic.SetMRMLScene(None)
        if scene is not None:
            scene.RemoveNode(self._parameters)

    def save_state(self) -> None:
        """Begin a step to undo; call it before the first change that belongs to the step."""
        if self._widget is not None:
            self._widget.saveStateForUndo()
        else:
            self._logic.SaveStateForUndo()

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo; with a widget its buttons tell."""
        return bool(self._widget or self._logic.CanUndo())

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to do again; with a widget its buttons tell."""
        return bool(self._widget or self._logic.CanRedo())

    def undo(self) -> None:
        """Take back the last step, if there is one: voxels, lesions that came or went, and decisions."""
        if self.can_undo:
            (self._widget.undo if self._widget else self._logic.Undo)()
            show_by_status(self.segmentation_node)

    def redo(self) -> None:
        """Do the step that was taken back last again, if there is one."""
        if self.can_redo:
            (self._widget.redo if self._widget else self._logic.Redo)()
            show_by_status(self.segmentation_node)

    def decide(self, segment_ids: Iterable[str], status: Status, reader: str = "") -> None:
        """Accept, reject or reopen (``NEW``) lesions, as one step; rejected ones are hidden, and shown when reopened.

        ``reader`` is noted with them; without one an earlier reader stays.
        """
        regions = self.known.of(segment_ids)
        states = {each: lesion_state(self.segmentation_node, each, region) for each, region in regions.items()}
        self.save_state()
        for segment_id, state in states.items():
            decided = replace(state, status=status, reader=reader or state.reader)
            self.write(segment_id, decided, regions[segment_id])
        show_by_status(self.segmentation_node)

    # What follows changes the lesions within a step; save_state comes first.

    def write(self, segment_id: str, state: LesionState, region: Region | None = None) -> None:
        """Set the state of a lesion, whose voxels now are what its status holds for; ``region``, if known, are they."""
        region = region or self.known.of([segment_id])[segment_id]
        write_state(self.segmentation_node, segment_id, replace(state, voxels=region.fingerprint))

    def set_region(self, segment_id: str, region: Region) -> None:
        """Make ``region`` (not empty) the voxels of the lesion; all other lesions keep theirs."""
        own_layer(self.segmentation_node, segment_id)
        image = region_image(region, self._ras_from_ijk())
        self._logic.ModifySegmentByLabelmap(
            self.segmentation_node, segment_id, image, self._logic.ModificationModeSet, False, True
        )

    def add(self, region: Region, state: LesionState) -> str:
        """A new lesion with the next free number, coded and coloured as those of a run; returns its segment's identifier."""
        number = self._next_number()
        image = region_image(region, self._ras_from_ijk())
        segment_id = self.segmentation_node.AddSegmentFromBinaryLabelmapRepresentation(
            image, f"Lesion {number:02d}", segment_color(number), f"Lesion_{number:02d}"
        )
        segment = self.segmentation_node.GetSegmentation().GetSegment(segment_id)
        segment.SetNameAutoGenerated(False)
        segment.SetColorAutoGenerated(False)
        segment.SetTag(TERMINOLOGY_TAG, TERMINOLOGY)
        write_state(self.segmentation_node, segment_id, replace(state, voxels=region.fingerprint))
        return segment_id

    def remove(self, segment_id: str) -> None:
        """Take the lesion out of the segmentation."""
        self.segmentation_node.GetSegmentation().RemoveSegment(segment_id)

    def _ras_from_ijk(self) -> vtkMatrix4x4:
        import vtk

        matrix = vtk.vtkMatrix4x4()
        volume_of(self.segmentation_node).GetIJKToRASMatrix(matrix)
        return matrix

    def _next_number(self) -> int:
        """One more than any lesion or proposal of the first run has, so that a deleted proposal keeps its number."""
        nodes = self.segmentation_node, self.segmentation_node.GetNodeReference(PROPOSAL_ROLE + FIRST_RUN)
        ids = [each for node in nodes if node is not None for each in node.GetSegmentation().GetSegmentIDs()]
        return 1 + max((int(found[1]) for each in ids if (found := re.match(r"Lesion_(\d+)", each))), default=0)
