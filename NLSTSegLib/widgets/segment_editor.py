"""Slicer's own segment editor inside the panel, set so that painting one lesion never erases another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qSlicerSegmentationsModuleWidgetsPythonQt
import qt
import slicer
import vtk
from slicer.i18n import tr as _

from NLSTSegLib.scene.editor import UNDO_STEPS
from NLSTSegLib.widgets.fitting import MARGINS_PX, PANEL_WIDTH_PX

SINGLETON_TAG = "NLSTSeg"
"""Tag of the editor's parameters; Slicer's module for editing segments has its own."""

EFFECTS = ("Paint", "Draw", "Erase", "Scissors", "Islands", "Smoothing", "Margin", "Level tracing")
"""What is offered, in this order: what corrects the outline of a lesion."""

SEGMENTS_TABLE = "SegmentsTableResizableFrame"
"""Name of the frame around the widget's list of segments, in Slicer's sources; the panel has a table of its own."""


class EmbeddedSegmentEditor:
    """The widget ``qMRMLSegmentEditorWidget`` on the lesions under review; it also keeps the steps to undo."""

    def __init__(self, section: Any, on_segment: Callable[[str], None]) -> None:
        """Put it into ``section``, a ``ctkCollapsibleButton``; ``on_segment`` gets the segment that was chosen in the editor.

        The editor has keys for that, Q and W.
        """
        self.widget: Any = qSlicerSegmentationsModuleWidgetsPythonQt.qMRMLSegmentEditorWidget()
        self.widget.setMaximumNumberOfUndoStates(UNDO_STEPS)
        self.widget.setMRMLSegmentEditorNode(self._parameters())
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.widget.setEffectNameOrder(list(EFFECTS))
        self.widget.unorderedEffectsVisible = False
        self.widget.setSegmentationNodeSelectorVisible(False)
        self.widget.setSourceVolumeNodeSelectorVisible(False)
        self.widget.setSwitchToSegmentationsButtonVisible(False)
        self.widget.setAddRemoveSegmentButtonsVisible(False)
        self.widget.setShow3DButtonVisible(False)
        self.widget.setSpecifyGeometryButtonVisible(False)
        # The overwrite mode is in there.
        self.widget.setMaskingSectionVisible(False)
        if self.widget.minimumSizeHint.width() > PANEL_WIDTH_PX - MARGINS_PX:
            self.widget.setEffectColumnCount(1)
        self.widget.setReadOnly(True)
        self._undo_button, self._redo_button = self._part("UndoButton"), self._part("RedoButton")
        for part in (self._undo_button, self._redo_button, self._part(SEGMENTS_TABLE)):
            part.hide()
        self._section, self._mask_label = section, qt.QLabel()
        self._mask_label.wordWrap = True
        self._mask_label.hide()
        section.layout().addWidget(self._mask_label)
        section.layout().addWidget(self.widget)
        self._segmentation_node: Any = None
        self._segment_id, self._has_turned_away = "", False
        self._observed = slicer.util.VTKObservationMixin()
        self._on_segment = on_segment
        self.widget.connect("currentSegmentIDChanged(QString)", self._segment_changed)
        self.widget.connect("segmentationNodeChanged(vtkMRMLSegmentationNode*)", self._segmentation_changed)
        slicer.qSlicerSegmentEditorEffectFactory.instance().connect("effectRegistered(QString)", self._effects_changed)

    def show(self, segmentation_node: Any, volume_node: Any) -> None:
        """Edit the segments of a node made on ``volume_node``, or nothing (``None``)."""
        self._segmentation_node = segmentation_node
        self._observed.removeObservers()
        # The widget may turn to another segmentation of the scene by itself: its selector has no entry for none.
        self.widget.setReadOnly(segmentation_node is None)
        if segmentation_node is None:
            self.widget.setActiveEffect(None)
            self.widget.setSegmentationNode(None)
            self.widget.removeViewObservations()
            self._mask_label.hide()
            return
        # Closing a scene sets the parameters back.
        node = self._parameters()
        self.widget.setMRMLSegmentEditorNode(node)
        self.widget.setSegmentationNode(segmentation_node)
        self.widget.setSourceVolumeNode(volume_node)
        node.SetMaskMode(segmentation_node.EditAllowedEverywhere)
        node.SetSourceVolumeIntensityMask(False)
        self._observed.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._say_what_is_masked)
        self._say_what_is_masked()

    def select(self, segment_id: str) -> None:
        """Make a segment the one that is edited."""
        self._segment_id = segment_id
        if self.widget.currentSegmentID() != segment_id:
            self.widget.setCurrentSegmentID(segment_id)

    @property
    def parameters(self) -> Any:
        """The parameters (``vtkMRMLSegmentEditorNode``) in the scene."""
        return self.widget.mrmlSegmentEditorNode()

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo, which the widget tells by its button alone."""
        return self._undo_button.enabled

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to do again."""
        return self._redo_button.enabled

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
        self.widget.disconnect("segmentationNodeChanged(vtkMRMLSegmentationNode*)", self._segmentation_changed)
        # The widget lives on, unseen, after the module was reloaded, and an effect of the next one must not act in both.
        self.widget.setMRMLSegmentEditorNode(None)
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

    def _part(self, name: str) -> Any:
        return slicer.util.findChildren(self.widget, name=name)[0]

    def _say_what_is_masked(self, caller: Any = None, event: str = "") -> None:
        """Where painting changes only some voxels: the section for that is hidden, but the editor's key I does it too."""
        node = self.parameters
        limits = []
        if node.GetSourceVolumeIntensityMask():
            low, high = node.GetSourceVolumeIntensityMaskRange()
            limits.append(_("to voxels of {low:g} to {high:g} HU (key I)").format(low=low, high=high))
        if node.GetMaskMode() != self._segmentation_node.EditAllowedEverywhere:
            limits.append(_("by a mask of segments"))
        self._mask_label.text = _("Painting is limited {how}.").format(how=_(" and ").join(limits))
        self._mask_label.visible = bool(limits)
        if limits:
            self._section.collapsed = False

    def _segmentation_changed(self, segmentation_node: Any) -> None:
        # Its selector was made anew, after an import into the scene, and is at work now.
        if self._segmentation_node is not None and segmentation_node is not self._segmentation_node:
            self._has_turned_away = True
            qt.QTimer.singleShot(0, self._turn_back)

    def _turn_back(self) -> None:
        if self._segmentation_node is not None:
            self.widget.setSegmentationNode(self._segmentation_node)
            self.widget.setCurrentSegmentID(self._segment_id)
        self._has_turned_away = False

    def _segment_changed(self, segment_id: str) -> None:
        if not self._has_turned_away:
            self._on_segment(segment_id)

    def _effects_changed(self, name: str) -> None:
        self.widget.updateEffectList()
