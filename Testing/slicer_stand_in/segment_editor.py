"""A stand-in for the Segment Editor widget: real nodes, segment list and undo; effects are buttons that do nothing.

Edits are made in tests with ``vtkSlicerSegmentEditorLogic``, which is real.
"""

from collections.abc import Callable
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from slicer_stand_in.ctk_widgets import stored
from slicer_stand_in.mrml_widgets import observations_of, qMRMLNodeComboBox, qMRMLWidget

EFFECTS = (
    "Threshold",
    "Paint",
    "Draw",
    "Erase",
    "Level tracing",
    "Grow from seeds",
    "Fill between slices",
    "Margin",
    "Hollow",
    "Smoothing",
    "Scissors",
    "Islands",
    "Logical operators",
    "Mask volume",
)
"""The effects of Slicer's own Segment Editor."""


def setter(name: str) -> Callable[[Any, Any], None]:
    """A slot that sets the property ``name``."""
    return lambda self, value: setattr(self, name, value)


class qSlicerSegmentEditorEffectFactory(QtCore.QObject):
    """Says when an effect is registered, which never happens here."""

    effectRegistered = Signal(str)
    _instance: Any = None

    @staticmethod
    def instance() -> Any:
        cls = qSlicerSegmentEditorEffectFactory
        cls._instance = cls._instance or cls()
        return cls._instance


class qSlicerSegmentEditorAbstractEffect(QtCore.QObject):
    """An effect that can be chosen and has parameters, kept in the parameter set node as Slicer keeps them."""

    perSegment = stored(bool, "perSegment", True)

    def __init__(self, name: str, editor: Any) -> None:
        super().__init__(editor)
        self.setObjectName(name)
        self._editor = editor

    def active(self) -> bool:
        return self._editor.activeEffect() is self

    def parameterSetNode(self) -> Any:
        return self._editor.mrmlSegmentEditorNode()

    def setParameter(self, name: str, value: Any) -> None:
        self.parameterSetNode().SetAttribute(f"{self.objectName}.{name}", str(value))

    def parameter(self, name: str) -> str:
        return self.parameterSetNode().GetAttribute(f"{self.objectName}.{name}") or ""

    def saveStateForUndo(self) -> None:
        self._editor.saveStateForUndo()


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """Shows the segments and effects of its parameter set node (``vtkMRMLSegmentEditorNode``)."""

    currentSegmentIDChanged = Signal(str)
    segmentationNodeChanged = Signal(object)
    sourceVolumeNodeChanged = Signal(object)

    unorderedEffectsVisible = stored(bool, "unorderedEffectsVisible", True, "updateEffectList")
    undoEnabled = stored(bool, "undoEnabled", True)
    readOnly = stored(bool, "readOnly", False, "_lock")
    maximumNumberOfUndoStates = stored(int, "maximumNumberOfUndoStates", 10)
    segmentationNodeSelectorVisible = stored(bool, "segmentationNodeSelectorVisible", True)
    sourceVolumeNodeSelectorVisible = stored(bool, "sourceVolumeNodeSelectorVisible", True)
    switchToSegmentationsButtonVisible = stored(bool, "switchToSegmentationsButtonVisible", True)
    addRemoveSegmentButtonsVisible = stored(bool, "addRemoveSegmentButtonsVisible", True)
    show3DButtonVisible = stored(bool, "show3DButtonVisible", True)
    specifyGeometryButtonVisible = stored(bool, "specifyGeometryButtonVisible", True)
    maskingSectionVisible = stored(bool, "maskingSectionVisible", True)
    autoShowSourceVolumeNode = stored(bool, "autoShowSourceVolumeNode", True)
    jumpToSelectedSegmentEnabled = stored(bool, "jumpToSelectedSegmentEnabled", False)
    effectColumnCount = stored(int, "effectColumnCount", 2, "updateEffectList")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._shown: tuple[Any, Any, str] = (None, None, "")
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._observed, self._observed_scene = observations_of(self), observations_of(self)
        self._effects = [qSlicerSegmentEditorAbstractEffect(name, self) for name in EFFECTS]
        self._effect_order: list[str] = []
        self._keys: list[QtGui.QShortcut] = []
        self._selector = qMRMLNodeComboBox(self)
        self._selector.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._selector.currentNodeChanged.connect(self._selector_changed)
        self._selector.hide()
        self._segments, self._effect_box = QtWidgets.QListWidget(), QtWidgets.QWidget()
        self._segments.setObjectName("SegmentsTableView")
        self._table_frame = QtWidgets.QFrame()
        self._table_frame.setObjectName("SegmentsTableResizableFrame")
        QtWidgets.QVBoxLayout(self._table_frame).addWidget(self._segments)
        self._undo_button, self._redo_button = QtWidgets.QToolButton(), QtWidgets.QToolButton()
        steps = QtWidgets.QHBoxLayout()
        for button, text, slot in ((self._undo_button, "Undo", self.undo), (self._redo_button, "Redo", self.redo)):
            button.setObjectName(f"{text}Button")
            button.setText(text)
            button.clicked.connect(slot)
            steps.addWidget(button)
        steps.addStretch(1)
        self._observed_history = observations_of(self)
        history_changed = self._logic.SegmentationHistoryChangedEvent
        self._observed_history.addObserver(self._logic, history_changed, self._update_undo_buttons)
        self._update_undo_buttons(None, "")
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._table_frame)
        column.addWidget(self._effect_box)
        column.addLayout(steps)
        self._segments.currentItemChanged.connect(self._segment_chosen)
        QtWidgets.QGridLayout(self._effect_box)
        self.updateEffectList()

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self.mrmlScene():
            return
        self._logic.SetMRMLScene(scene)
        super().setMRMLScene(scene)
        blocker = QtCore.QSignalBlocker(self._selector)
        self._selector.setMRMLScene(scene)
        blocker.unblock()
        self.updateWidgetFromMRML()
        self._observed_scene.addObserver(scene, scene.EndBatchProcessEvent, self._batch_ended)

    def _batch_ended(self, caller: Any, event: str) -> None:
        # The selector has no entry for no segmentation, and has chosen one where the entries were made anew.
        if self._node and self._node.GetSegmentationNode() is not self._selector.currentNode():
            self.setSegmentationNode(self._selector.currentNode())
        self.updateWidgetFromMRML()

    def _selector_changed(self, node: Any) -> None:
        if not self.mrmlScene().IsBatchProcessing():
            self.setSegmentationNode(node)

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node
        self._logic.SetSegmentEditorNode(node)
        self.updateWidgetFromMRML()

    def segmentationNode(self) -> Any:
        return self._node.GetSegmentationNode() if self._node else None

    def setSegmentationNode(self, node: Any) -> None:
        if self._node and self._node.GetSegmentationNode() is not node:
            self._node.SetAndObserveSegmentationNode(node)
            self.setActiveEffect(None)
            # Slicer chooses the volume that the segmentation was made on.
            volume = node and node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
            if volume:
                self._node.SetAndObserveSourceVolumeNode(volume)
            self._node.SetSelectedSegmentID("")
            self.updateWidgetFromMRML()

    def segmentationNodeID(self) -> str:
        return self.segmentationNode().GetID() if self.segmentationNode() else ""

    def sourceVolumeNode(self) -> Any:
        return self._node.GetSourceVolumeNode() if self._node else None

    def setSourceVolumeNode(self, node: Any) -> None:
        if self._node:
            self._node.SetAndObserveSourceVolumeNode(node)
            self.updateWidgetFromMRML()

    def sourceVolumeNodeID(self) -> str:
        return self.sourceVolumeNode().GetID() if self.sourceVolumeNode() else ""

    def currentSegmentID(self) -> str:
        return self._node.GetSelectedSegmentID() or "" if self._node else ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        if self._node:
            self._node.SetSelectedSegmentID(segment_id)
            self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self) -> None:
        scene = self.mrmlScene()
        if scene is None or scene.IsClosing() or scene.IsBatchProcessing():
            return
        node, segmentation = self.segmentationNode(), self._segmentation()
        blocker = QtCore.QSignalBlocker(self._selector)
        self._selector.setCurrentNode(node)
        blocker.unblock()
        self._observed.removeObservers()
        if self._node:
            self._observed.addObserver(self._node, "ModifiedEvent", self._mrml_changed)
        ids = segmentation.GetSegmentIDs() if segmentation else []
        if segmentation:
            for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
                self._observed.addObserver(segmentation, event, self._mrml_changed)
            if self.currentSegmentID() not in ids:
                self._node.SetSelectedSegmentID(ids[0] if ids else "")
        blocker = QtCore.QSignalBlocker(self._segments)
        self._segments.clear()
        for segment_id in ids:
            item = QtWidgets.QListWidgetItem(segmentation.GetSegment(segment_id).GetName() or "", self._segments)
            item.setData(QtCore.Qt.UserRole, segment_id)
            if segment_id == self.currentSegmentID():
                self._segments.setCurrentItem(item)
        blocker.unblock()
        shown, self._shown = self._shown, (node, self.sourceVolumeNode(), self.currentSegmentID())
        if node is not shown[0]:
            self.segmentationNodeChanged.emit(node)
        if self._shown[1] is not shown[1]:
            self.sourceVolumeNodeChanged.emit(self._shown[1])
        if self._shown[2] != shown[2]:
            self.currentSegmentIDChanged.emit(self._shown[2])

    def _segmentation(self) -> Any:
        return self.segmentationNode().GetSegmentation() if self.segmentationNode() else None

    def _mrml_changed(self, caller: Any, event: str) -> None:
        self.updateWidgetFromMRML()

    def _segment_chosen(self, item: Any, previous: Any) -> None:
        if item is not None:
            self.setCurrentSegmentID(item.data(QtCore.Qt.UserRole))

    def setEffectNameOrder(self, names: list[str]) -> None:
        self._effect_order = list(names)
        self.updateEffectList()

    def effectNameOrder(self) -> list[str]:
        return self._effect_order

    def availableEffectNames(self) -> list[str]:
        return [effect.objectName for effect in self._effects]

    def updateEffectList(self) -> None:
        names = [name for name in self._effect_order if name in EFFECTS]
        if self.unorderedEffectsVisible:
            names += [name for name in EFFECTS if name not in names]
        grid = self._effect_box.layout()
        for button in self._effect_box.findChildren(QtWidgets.QToolButton):
            button.setParent(None)
        for index, name in enumerate(names):
            button = QtWidgets.QToolButton()
            button.setText(name)
            button.setCheckable(True)
            button.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
            button.clicked.connect(lambda on, name=name: self.setActiveEffectByName(name if on else ""))
            grid.addWidget(button, *divmod(index, self.effectColumnCount))
        self._check_buttons()

    def _check_buttons(self) -> None:
        for button in self._effect_box.findChildren(QtWidgets.QToolButton):
            button.setChecked(self.activeEffect() is not None and button.text == self.activeEffect().objectName)

    def effectByName(self, name: str) -> Any:
        return next((effect for effect in self._effects if effect.objectName == name), None)

    def activeEffect(self) -> Any:
        return self.effectByName(self._node.GetActiveEffectName() or "") if self._node else None

    def setActiveEffect(self, effect: Any) -> None:
        self.setActiveEffectByName(effect.objectName if effect else "")

    def setActiveEffectByName(self, name: str) -> None:
        if self._node:
            self._node.SetActiveEffectName(name)
        self._check_buttons()

    def _lock(self) -> None:
        if self.readOnly:
            self.setActiveEffect(None)
        self._effect_box.setEnabled(not self.readOnly)
        self._update_undo_buttons(None, "")

    def _update_undo_buttons(self, caller: Any, event: str) -> None:
        self._undo_button.setEnabled(not self.readOnly and bool(self._logic.CanUndo()))
        self._redo_button.setEnabled(not self.readOnly and bool(self._logic.CanRedo()))

    def saveStateForUndo(self) -> None:
        self._logic.SaveStateForUndo()

    def undo(self) -> None:
        self._logic.Undo()

    def redo(self) -> None:
        self._logic.Redo()

    setMaximumNumberOfUndoStates = setter("maximumNumberOfUndoStates")
    setUndoEnabled = setter("undoEnabled")
    setReadOnly = setter("readOnly")
    setSegmentationNodeSelectorVisible = setter("segmentationNodeSelectorVisible")
    setSourceVolumeNodeSelectorVisible = setter("sourceVolumeNodeSelectorVisible")
    setSwitchToSegmentationsButtonVisible = setter("switchToSegmentationsButtonVisible")
    setAddRemoveSegmentButtonsVisible = setter("addRemoveSegmentButtonsVisible")
    setShow3DButtonVisible = setter("show3DButtonVisible")
    setSpecifyGeometryButtonVisible = setter("specifyGeometryButtonVisible")
    setMaskingSectionVisible = setter("maskingSectionVisible")
    setEffectColumnCount = setter("effectColumnCount")
    setAutoShowSourceVolumeNode = setter("autoShowSourceVolumeNode")
    setJumpToSelectedSegmentEnabled = setter("jumpToSelectedSegmentEnabled")

    def toggleSourceVolumeIntensityMaskEnabled(self) -> None:
        self._logic.ToggleSourceVolumeIntensityMask()

    def selectSegmentAtOffset(self, offset: int) -> None:
        row = self._segments.currentRow + offset
        if 0 <= row < self._segments.count:
            self._segments.setCurrentRow(row)

    def _toggle_effect(self, index: int) -> None:
        button = self._effect_box.layout().itemAt(index)
        if button is not None and not self.readOnly:
            name = button.widget().text
            self.setActiveEffectByName("" if self.activeEffect() and self.activeEffect().objectName == name else name)

    def installKeyboardShortcuts(self, parent: Any = None) -> None:
        """In ``parent``, or in the main window."""
        self.uninstallKeyboardShortcuts()
        parent = parent or slicer.util.mainWindow()
        actions: dict[str, Callable[[], None]] = {
            "Escape": lambda: None if self.readOnly else self.setActiveEffect(None),
            "Z": self.undo,
            "Ctrl+Z": self.undo,
            "Y": self.redo,
            "Ctrl+Y": self.redo,
            "Q": lambda: self.selectSegmentAtOffset(-1),
            "W": lambda: self.selectSegmentAtOffset(1),
            "I": self.toggleSourceVolumeIntensityMaskEnabled,
        }
        actions |= {str((number + 1) % 10): lambda number=number: self._toggle_effect(number) for number in range(10)}
        for key, action in actions.items():
            shortcut = QtGui.QShortcut(QtGui.QKeySequence(key), parent)
            shortcut.activated.connect(action)
            self._keys.append(shortcut)

    def uninstallKeyboardShortcuts(self) -> None:
        for shortcut in self._keys:
            shortcut.setParent(None)
        self._keys = []

    def setupViewObservations(self) -> None:
        """Nothing: no effect looks at the views."""

    def removeViewObservations(self) -> None:
        """Nothing, as above."""
