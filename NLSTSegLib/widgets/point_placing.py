"""One click in a slice view, as a point of the world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer


class PointPlacing:
    """Lets the user place one markups point and takes it away again: only its place is wanted."""

    def __init__(self, on_point: Callable[[tuple[float, float, float]], None], on_end: Callable[[], None]) -> None:
        """``on_point`` gets the point, right, anterior, superior in mm; ``on_end`` is called when placing is over anyhow."""
        self._on_point, self._on_end = on_point, on_end
        self._node: Any = None
        self._before: tuple[str | None, str | None, int] = (None, None, 0)
        self._observed = slicer.util.VTKObservationMixin()

    @property
    def is_on(self) -> bool:
        return self._node is not None

    def start(self) -> None:
        """The next click in a slice view places the point."""
        if self.is_on:
            return
        scene, selection = slicer.mrmlScene, self._selection()
        # Before the node is added: Slicer makes the markups that came last the active ones.
        self._before = (
            selection.GetActivePlaceNodeID(),
            selection.GetActivePlaceNodeClassName(),
            self._interaction().GetPlaceModePersistence(),
        )
        self._node = scene.CreateNodeByClass("vtkMRMLMarkupsFiducialNode")
        self._node.UnRegister(None)
        self._node.SetName("Missed lesion")
        self._node.SetHideFromEditors(True)
        self._node.SetSaveWithScene(False)
        scene.AddNode(self._node)
        self._node.CreateDefaultDisplayNodes()
        self._node.GetDisplayNode().SetSaveWithScene(False)
        self._observed.addObserver(self._node, self._node.PointPositionDefinedEvent, self._changed)
        interaction = self._interaction()
        logic = slicer.modules.markups.logic()
        logic.SetActiveList(self._node)
        logic.StartPlaceMode(False)
        self._observed.addObserver(interaction, interaction.InteractionModeChangedEvent, self._changed)

    def stop(self) -> None:
        """No point is wanted any more."""
        if not self.is_on:
            return
        node, self._node = self._node, None
        self._observed.removeObservers()
        interaction = self._interaction()
        if interaction.GetCurrentInteractionMode() == interaction.Place:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self._give_back_active_list(node)
        display = node.GetDisplayNode()
        for each in (node, display):
            if each is not None and each.GetScene() is not None:
                each.GetScene().RemoveNode(each)
        self._on_end()

    @staticmethod
    def _selection() -> Any:
        return slicer.app.applicationLogic().GetSelectionNode()

    @staticmethod
    def _interaction() -> Any:
        return slicer.app.applicationLogic().GetInteractionNode()

    def _give_back_active_list(self, node: Any) -> None:
        """Points that the reader places next go where they would have gone, unless another list was chosen meanwhile."""
        selection = self._selection()
        if selection.GetActivePlaceNodeID() == node.GetID():
            list_id, class_name, is_persistent = self._before
            # The class first: another one takes the list away.
            selection.SetReferenceActivePlaceNodeClassName(class_name)
            selection.SetReferenceActivePlaceNodeID(list_id)
            self._interaction().SetPlaceModePersistence(is_persistent)

    def _changed(self, caller: Any, event: str) -> None:
        # The view is still at work with the point, and leaves the mode before or after it is placed.
        qt.QTimer.singleShot(0, self._look)

    def _look(self) -> None:
        if not self.is_on:
            return
        interaction = self._interaction()
        if self._node.GetNumberOfDefinedControlPoints() > 0:
            point_ras_mm = tuple(self._node.GetNthControlPointPositionWorld(0))
            self.stop()
            self._on_point(point_ras_mm)
        elif interaction.GetCurrentInteractionMode() != interaction.Place:
            self.stop()
