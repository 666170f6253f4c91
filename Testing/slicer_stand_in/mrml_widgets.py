"""Stand-ins for qMRML widgets, with the public names of Slicer's headers and no others; private ones have an underscore."""

from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from slicer_stand_in.ctk_widgets import stored


def observations_of(widget: QtWidgets.QWidget) -> Any:
    """Observers of VTK objects that go away with ``widget``."""
    observations = slicer.util.VTKObservationMixin()
    widget.destroyed.connect(lambda: observations.removeObservers())
    return observations


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that tells its children the scene."""

    mrmlSceneChanged = Signal(object)

    def mrmlScene(self) -> Any:
        return getattr(self, "_scene", None)

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self.mrmlScene():
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """The nodes of the scene that fit ``nodeTypes``, in the scene's order; no entries that make or delete nodes."""

    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAboutToBeRemoved = Signal(object)

    nodeTypes = stored("QStringList", "nodeTypes", [], "_refresh")
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [], "_refresh")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, "_refresh")
    showHidden = stored(bool, "showHidden", False, "_refresh")
    noneEnabled = stored(bool, "noneEnabled", False, "_refresh")
    noneDisplay = stored(str, "noneDisplay", "None", "_refresh")
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    renameEnabled = stored(bool, "renameEnabled", False)
    editEnabled = stored(bool, "editEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._attributes: dict[tuple[str, str], str | None] = {}
        self._current_id = ""
        self._listed_ids: list[str] = []
        self._observed, self._observed_nodes = observations_of(self), observations_of(self)
        self._combo = QtWidgets.QComboBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._combo)
        self._combo.setEnabled(False)
        self._combo.activated.connect(self._activated)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._observed.removeObservers()
        self._scene = scene
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
                self._observed.addObserver(scene, event, self._scene_changed)
        self._combo.setEnabled(scene is not None)
        self._refresh()

    def _scene_changed(self, caller: Any, event: str) -> None:
        self._refresh()

    def _fits(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if any(node.IsA(kind) for kind in self.hideChildNodeTypes):
            return False
        kinds = [k for k in self.nodeTypes if node.GetClassName() == k or (self.showChildNodeTypes and node.IsA(k))]
        wanted = {name: value for (kind, name), value in self._attributes.items() if kind in kinds}
        return bool(kinds) and all(
            node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name)) for name, value in wanted.items()
        )

    def _refresh(self) -> None:
        scene = self._scene
        # In a batch, such as closing the scene, nodes come and go; its end is an event of its own.
        if scene is None or scene.IsBatchProcessing():
            return
        nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        before, nodes = self._listed_ids, [node for node in nodes if self._fits(node)]
        self._listed_ids = [node.GetID() for node in nodes]
        self._observed_nodes.removeObservers()
        for node in nodes:
            self._observed_nodes.addObserver(node, "ModifiedEvent", self._node_modified)
        self._show_list()
        for node in nodes:
            if node.GetID() not in before:
                self.nodeAdded.emit(node)
        current = self._current_id if self._current_id in self._listed_ids else ""
        if not current and not self.noneEnabled and self._listed_ids:
            current = self._listed_ids[0]
        self._select(current)

    def _node_modified(self, node: Any, event: str) -> None:
        if not self._fits(node):
            self._refresh()
        elif self._combo.itemText(self._combo.findData(node.GetID())) != node.GetName():
            self._show_list()

    def _show_list(self) -> None:
        blocker = QtCore.QSignalBlocker(self._combo)
        self._combo.clear()
        if self.noneEnabled:
            self._combo.addItem(self.noneDisplay, "")
        for node_id in self._listed_ids:
            self._combo.addItem(self._scene.GetNodeByID(node_id).GetName(), node_id)
        self._combo.setCurrentIndex(self._combo.findData(self._current_id))
        blocker.unblock()

    def _select(self, node_id: str) -> None:
        changed, self._current_id = node_id != self._current_id, node_id
        blocker = QtCore.QSignalBlocker(self._combo)
        self._combo.setCurrentIndex(self._combo.findData(node_id))
        blocker.unblock()
        if changed:
            node = self.currentNode()
            self.currentNodeChanged.emit(node)
            self.currentNodeChanged[bool].emit(node is not None)
            self.currentNodeIDChanged.emit(node_id)

    def _activated(self, index: int) -> None:
        self._select(self._combo.itemData(index))
        self.nodeActivated.emit(self.currentNode())

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current_id) if self._scene and self._current_id else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        self._select(node_id if node_id in self._listed_ids else "")

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self._listed_ids[index])

    currentNodeID = Property(str, lambda self: self._current_id, setCurrentNodeID)

    def nodeCount(self) -> int:
        return len(self._listed_ids)

    def nodeFromIndex(self, index: int) -> Any:
        return self._scene.GetNodeByID(self._listed_ids[index]) if 0 <= index < len(self._listed_ids) else None

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        self._attributes[kind, name] = None if value is None else str(value)
        self._refresh()

    def removeAttribute(self, kind: str, name: str) -> None:
        self._attributes.pop((kind, name), None)
        self._refresh()

    def addNode(self, kind: str = "") -> Any:
        kind = kind or self.nodeTypes[0]
        base = self.baseName or self._scene.GetTagByClassName(kind)
        node = self._scene.AddNewNodeByClass(kind, self._scene.GenerateUniqueName(base))
        for (of_kind, name), value in self._attributes.items():
            if of_kind == kind:
                node.SetAttribute(name, value or "")
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        return node

    def removeCurrentNode(self) -> None:
        if self.currentNode():
            self.nodeAboutToBeRemoved.emit(self.currentNode())
            self._scene.RemoveNode(self.currentNode())
