"""Slicer's own segment editor inside the panel, set so that painting one lesion never erases another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qSlicerSegmentationsModuleWidgetsPythonQt
import slicer

from NLSTSegLib.scene.editor import UNDO_STEPS

SINGLETON_TAG = "NLSTSeg"
"""Of the editor's parameters; Slicer's module for editing segments has its own."""

EFFECTS = ("Paint", "Draw", "Erase", "Scissors", "Islands", "Smoothing", "Margin", "Level tracing")
"""What is offered, in this order: what corrects the outline of a lesion."""

OWN_PARTS = ("SegmentsTableView", "UndoButton", "RedoButton")
"""Parts of the widget, by their names in Slicer's sources, that the panel has in a form of its own."""


class EmbeddedSegmentEditor:
    """The widget ``qMRMLSegmentEditorWidget`` on the lesions under review; it also keeps the steps to undo."""

    def __init__(self, on_segment: Callable[[str], None]) -> None:
        """``on_segment`` gets the segment that was chosen in the editor, as with its keys Q and W."""
        self.widget: Any = qSlicerSegmentationsModuleWidgetsPythonQt.qMRMLSegmentEditorWidget()
        self.widget.setMaximumNumberOfUndoStates(UNDO_STEPS)
        self.widget.setMRMLSegmentEditorNode(self._parameters())
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.widget.setEffectNameOrder(list(EFFECTS))
        self.widget.unorderedEffectsVisible = False
        self.widget.setEffectColumnCount(4)
        self.widget.setSegmentationNodeSelectorVisible(False)
        self.widget.setSourceVolumeNodeSelectorVisible(False)
        self.widget.setSwitchToSegmentationsButtonVisible(False)
        self.widget.setAddRemoveSegmentButtonsVisible(False)
        self.widget.setShow3DButtonVisible(False)
        self.widget.setSpecifyGeometryButtonVisible(False)
        # The overwrite mode is in there.
        self.widget.setMaskingSectionVisible(False)
        for name in OWN_PARTS:
            for part in slicer.util.findChildren(self.widget, name=name):
                part.hide()
        self._on_segment = on_segment
        self.widget.connect("currentSegmentIDChanged(QString)", self._segment_changed)
        slicer.qSlicerSegmentEditorEffectFactory.instance().connect("effectRegistered(QString)", self._effects_changed)

    def show(self, segmentation_node: Any, volume_node: Any) -> None:
        """Edit the segments of a node made on ``volume_node``, or nothing (``None``)."""
        if segmentation_node is None:
            self.widget.setActiveEffect(None)
            self.widget.setSegmentationNode(None)
            self.widget.removeViewObservations()
            return
        # Closing a scene sets the parameters back.
        self.widget.setMRMLSegmentEditorNode(self._parameters())
        self.widget.setSegmentationNode(segmentation_node)
        self.widget.setSourceVolumeNode(volume_node)

    def select(self, segment_id: str) -> None:
        """Make a segment the one that is edited."""
        if self.widget.currentSegmentID() != segment_id:
            self.widget.setCurrentSegmentID(segment_id)

    @property
    def parameters(self) -> Any:
        """The parameters (``vtkMRMLSegmentEditorNode``) in the scene."""
        return self.widget.mrmlSegmentEditorNode()

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo, which the widget tells by its button alone."""
        return self._enabled("UndoButton")

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to do again."""
        return self._enabled("RedoButton")

    def enter(self) -> None:
        """The module is shown: keys of the editor are alive."""
        # They live in the main window.
        if slicer.util.mainWindow() is not None:
            self.widget.installKeyboardShortcuts()
        self.widget.updateWidgetFromMRML()

    def exit(self) -> None:
        """Another module is shown: no effect works on, no key is taken."""
        self.widget.setActiveEffect(None)
        self.widget.uninstallKeyboardShortcuts()
        self.widget.removeViewObservations()

    def close(self) -> None:
        """The panel goes away."""
        self.exit()
        self.show(None, None)
        self.widget.disconnect("currentSegmentIDChanged(QString)", self._segment_changed)
        slicer.qSlicerSegmentEditorEffectFactory.instance().disconnect("effectRegistered(QString)", self._effects_changed)

    def _parameters(self) -> Any:
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(SINGLETON_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(SINGLETON_TAG)
            node = scene.AddNode(node)
        node.SetSaveWithScene(False)
        node.SetOverwriteMode(node.OverwriteNone)
        return node

    def _enabled(self, name: str) -> bool:
        return any(button.enabled for button in slicer.util.findChildren(self.widget, name=name))

    def _segment_changed(self, segment_id: str) -> None:
        self._on_segment(segment_id)

    def _effects_changed(self, name: str) -> None:
        self.widget.updateEffectList()
