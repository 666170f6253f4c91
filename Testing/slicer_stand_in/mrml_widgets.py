"""Stand-ins for qMRML widgets, with the public names of Slicer's headers and no others; private ones have an underscore."""

from typing import Any

import slicer
import vtk
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
    """The nodes of the scene that fit ``nodeTypes``, in the scene's order; no entries that make or delete nodes.

    Which entry is chosen once the chosen one has gone, and which changes are told, Qt's combo box decides, as in Slicer with
    Qt 6: a neighbour, and only where the text is another one.
    """

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
        self._observed, self._observed_nodes = observations_of(self), observations_of(self)
        self._combo = QtWidgets.QComboBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._combo)
        self._combo.setEnabled(False)
        self._combo.currentTextChanged.connect(self._tell)
        self._combo.activated.connect(lambda index: self.nodeActivated.emit(self._node(self._combo.itemData(index))))

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._observed.removeObservers()
        self._scene = scene
        if scene is not None:

            @vtk.calldata_type(vtk.VTK_OBJECT)
            def about_to_be_removed(caller: Any, event: str, node: Any) -> None:
                if not scene.IsClosing() and self._ids().count(node.GetID()):
                    self.nodeAboutToBeRemoved.emit(node)
                    self._combo.removeItem(self._combo.findData(node.GetID()))

            # Slicer's come as late and as early.
            self._observed.addObserver(scene, scene.NodeAboutToBeRemovedEvent, about_to_be_removed, priority=-10.0)
            self._observed.addObserver(scene, scene.NodeAddedEvent, self._node_added, priority=10.0)
            for event in (scene.EndCloseEvent, scene.EndImportEvent):
                self._observed.addObserver(scene, event, self._begin_anew)
        self._combo.setEnabled(scene is not None)
        current_id, blocker = self.currentNodeID, QtCore.QSignalBlocker(self._combo)
        self._refresh()
        blocker.unblock()
        self.setCurrentNodeID(current_id)

    def _node(self, node_id: str) -> Any:
        return self._scene.GetNodeByID(node_id) if self._scene and node_id else None

    def _ids(self) -> list[str]:
        return [self._combo.itemData(row) for row in range(self.noneEnabled, self._combo.count)]

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

    def _node_added(self, caller: Any, event: str) -> None:
        # During an import nodes have no lasting identifiers yet.
        if not self._scene.IsImporting():
            self._refresh()

    def _begin_anew(self, caller: Any, event: str) -> None:
        self._combo.model().removeRows(self.noneEnabled, self.nodeCount())
        self._refresh()

    def _refresh(self, caller: Any = None, event: str = "") -> None:
        """Bring the entries to what the scene has, one by one."""
        combo, scene = self._combo, self._scene
        has_none = combo.count > 0 and combo.itemData(0) == ""
        if self.noneEnabled and not has_none:
            combo.insertItem(0, self.noneDisplay, "")
        elif self.noneEnabled:
            combo.setItemText(0, self.noneDisplay)
        elif has_none:
            combo.removeItem(0)
        nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())] if scene else []
        nodes = [node for node in nodes if any(node.IsA(kind) for kind in self.nodeTypes)]
        self._observed_nodes.removeObservers()
        for node in nodes:
            self._observed_nodes.addObserver(node, "ModifiedEvent", self._refresh)
        nodes = [node for node in nodes if self._fits(node)]
        wanted = {node.GetID() for node in nodes}
        for node_id in set(self._ids()) - wanted:
            combo.removeItem(combo.findData(node_id))
        for row, node in enumerate(nodes, self.noneEnabled):
            if combo.findData(node.GetID()) < 0:
                combo.insertItem(row, node.GetName(), node.GetID())
                self.nodeAdded.emit(node)
            else:
                combo.setItemText(row, node.GetName())

    def _tell(self, _text: str) -> None:
        node = self.currentNode()
        self.currentNodeChanged.emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(self.currentNodeID)

    def currentNode(self) -> Any:
        return self._node(self._combo.currentData)

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        row = self._combo.findData(node_id)
        self._combo.setCurrentIndex(row if row >= 0 else self._combo.findData(""))

    def setCurrentNodeIndex(self, index: int) -> None:
        self._combo.setCurrentIndex(index + self.noneEnabled)

    currentNodeID = Property(str, lambda self: self._combo.currentData or "", setCurrentNodeID)

    def nodeCount(self) -> int:
        return len(self._ids())

    def nodeFromIndex(self, index: int) -> Any:
        return self._node(self._ids()[index]) if 0 <= index < self.nodeCount() else None

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
        self._scene.RemoveNode(self.currentNode())
