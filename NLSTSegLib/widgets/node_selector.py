"""A selector of nodes that shows nothing once its node has gone, and tells every change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk

SIGNALS = ("currentNodeChanged(vtkMRMLNode*)", "nodeActivated(vtkMRMLNode*)")
"""Signals of the widget; the second one comes also where the entry that is chosen has the name of the one before."""


def node_combo_box(node_class: str, nothing: str) -> Any:
    """A ``qMRMLNodeComboBox`` of nodes of a class, whose entry for no node reads ``nothing``."""
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = [node_class]
    box.noneEnabled, box.addEnabled, box.removeEnabled = True, False, False
    box.noneDisplay = nothing
    # A long name must not widen the panel.
    box.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
    box.setMRMLScene(slicer.mrmlScene)
    return box


class NodeSelector:
    """``widget`` is a ``qMRMLNodeComboBox`` with an entry for no node; ``on_change`` gets the node that it now shows, or None.

    The widget by itself goes to the neighbouring entry when its node is removed or hidden, to none after each import into the
    scene, and says nothing when the entry that is chosen has the name of the one before.
    """

    def __init__(self, widget: Any, on_change: Callable[[Any], None]) -> None:
        self.widget, self._on_change = widget, on_change
        self._node, self._is_importing = widget.currentNode(), False
        for signal in SIGNALS:
            widget.connect(signal, self._look)
        self._observed = slicer.util.VTKObservationMixin()
        scene = slicer.mrmlScene

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def about_to_be_removed(caller: Any, event: str, node: Any) -> None:
            if node is self._node:
                self.select(None)

        # The widget removes the entry after this, and makes all entries anew before _imported.
        self._observed.addObserver(scene, scene.NodeAboutToBeRemovedEvent, about_to_be_removed)
        self._observed.addObserver(scene, scene.StartImportEvent, self._import_begins)
        self._observed.addObserver(scene, scene.EndImportEvent, self._imported, priority=-1.0)

    @property
    def node(self) -> Any:
        """The node that is shown, or None."""
        self._look()
        return self._node

    def select(self, node: Any) -> None:
        """Show a node, or None."""
        self.widget.setCurrentNode(node)
        self._change(self.widget.currentNode())

    def close(self) -> None:
        """Tell nothing more: the widget lives on, unseen, after the module was reloaded."""
        self._observed.removeObservers()
        for signal in SIGNALS:
            self.widget.disconnect(signal, self._look)

    def _look(self, _node: Any = None) -> None:
        # Meanwhile its entries are made anew.
        if self._is_importing:
            return
        before, node = self._node, self.widget.currentNode()
        if node is not None and node is not before and before is not None and before.GetHideFromEditors():
            # The entry has gone, so nobody has chosen this one.
            self.select(None)
            return
        self._change(node)

    def _change(self, node: Any) -> None:
        if node is not self._node:
            self._node = node
            self._on_change(node)

    def _import_begins(self, caller: Any, event: str) -> None:
        self._is_importing = True

    def _imported(self, caller: Any, event: str) -> None:
        self._is_importing = False
        self.select(self._node)
