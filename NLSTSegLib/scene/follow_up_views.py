"""Two CTs of one patient in three views over three, and everything as it was when they are left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    from slicer import vtkMRMLLinearTransformNode, vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

UPPER_VIEWS = ("Red", "Green", "Yellow")
"""Views of the baseline; those of the follow-up have a + behind the name."""

SHIFT_NAME = "Follow-up shift"

UPPER_GROUP, LOWER_GROUP = 0, 1
"""View groups of rows that are not linked. A scene keeps whether the number is 0 and no more, so there are no others."""


class FollowUpViews:
    """The baseline in the upper row, the follow-up under it, moved as a whole so that one lesion lies at the same place.

    The follow-up's CT and segmentation get a transform as parent that shifts them, so that slices stay the scanner's and sizes
    stay true. :meth:`leave` gives back the layout, the links and groups of the views, what they showed, and the parent.
    """

    def __init__(
        self,
        baseline: tuple[vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode],
        followup: tuple[vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode],
        layout_manager: Any,
        *,
        linked: bool,
    ) -> None:
        """Show them at once; ``linked``: both rows follow each other.

        Raises :class:`InputError` where the follow-up lies under a transform already.
        """
        import slicer

        for node in followup:
            if node.GetParentTransformNode() is not None and node.GetParentTransformNode().GetName() != SHIFT_NAME:
                raise InputError(f"'{node.GetName()}' lies under a transform; harden it or take it away before a follow-up")
        self._baseline, self._followup, self._layouts = baseline, followup, layout_manager
        self._scene: vtkMRMLScene = baseline[0].GetScene()
        self._layout = layout_manager.layout
        # Before the layout: the lower row is made by it, and what was shown must come back.
        self._shown = {view.GetName(): _state(view) for view in self._views()}
        self._restricted = {
            node.GetID(): (list(node.GetDisplayNode().GetViewNodeIDs()), node.GetDisplayNode().GetVisibility())
            for _, node in (baseline, followup)
            if node.GetDisplayNode()
        }
        layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView)
        self._shown |= {view.GetName(): _state(view) for view in self._views() if view.GetName() not in self._shown}
        self._shift = _shift_node(self._scene)
        for node in followup:
            node.SetAndObserveTransformNodeID(self._shift.GetID())
        for row, (volume, segmentation) in enumerate((baseline, followup)):
            views = self._row(row)
            for view in views:
                _layers(view).SetBackgroundVolumeID(volume.GetID())
            display = segmentation.GetDisplayNode()
            if display is not None:
                display.RemoveAllViewNodeIDs()
                for view in [*views, *_nodes(self._scene, "vtkMRMLViewNode")]:
                    display.AddViewNodeID(view.GetID())
                display.SetVisibility(True)
        self.link(linked)
        for view in self._views():
            _logic_fit(layout_manager, view)

    @property
    def shift(self) -> np.ndarray:
        """Vector by which the follow-up is moved, RAS in mm."""
        import slicer
        import vtk

        matrix = vtk.vtkMatrix4x4()
        self._shift.GetMatrixTransformToParent(matrix)
        return slicer.util.arrayFromVTKMatrix(matrix)[:3, 3]

    def link(self, on: bool) -> None:
        """Let both rows follow each other, or only the views within each row."""
        for row in (0, 1):
            for view in self._row(row):
                view.SetViewGroup(UPPER_GROUP if on or row == 0 else LOWER_GROUP)
                layers = _layers(view)
                layers.SetLinkedControl(True)
                layers.SetHotLinkedControl(True)

    def move(self, shift_ras_mm: np.ndarray) -> None:
        """Move the follow-up by so much from where its headers put it."""
        import vtk

        matrix = vtk.vtkMatrix4x4()
        for axis, value in enumerate(shift_ras_mm):
            matrix.SetElement(axis, 3, float(value))
        self._shift.SetMatrixTransformToParent(matrix)

    def jump(self, upper_ras_mm: np.ndarray | None, lower_ras_mm: np.ndarray | None, *, align: bool) -> None:
        """Centre the rows on these places, each in its CT's own RAS; ``None`` leaves a row where it is.

        With ``align`` the follow-up is first moved so that both places are one.
        """
        if align and upper_ras_mm is not None and lower_ras_mm is not None:
            self.move(np.asarray(upper_ras_mm) - lower_ras_mm)
        if upper_ras_mm is not None:
            _centre(self._row(0), np.asarray(upper_ras_mm, float))
        if lower_ras_mm is not None:
            _centre(self._row(1), np.asarray(lower_ras_mm, float) + self.shift)

    def align_here(self) -> None:
        """Take the middles of the two axial views for the same place: the follow-up is moved, and the rows are linked."""
        upper, lower = (_middle(self._row(row)[0]) for row in (0, 1))
        own = lower - self.shift
        self.link(True)
        self.jump(upper, own, align=True)

    def leave(self) -> None:
        """Give everything back."""
        for node in self._followup:
            if node.GetScene() is not None:
                node.SetAndObserveTransformNodeID(None)
        for _, node in (self._baseline, self._followup):
            display = node.GetDisplayNode() if node.GetScene() is not None else None
            if display is not None:
                view_ids, is_visible = self._restricted.get(node.GetID(), ([], True))
                display.RemoveAllViewNodeIDs()
                for view_id in view_ids:
                    display.AddViewNodeID(view_id)
                display.SetVisibility(is_visible)
        for view in self._views():
            if view.GetName() in self._shown:
                _give_back(view, self._shown[view.GetName()])
        if self._shift.GetScene() is not None:
            self._scene.RemoveNode(self._shift)
        self._layouts.setLayout(self._layout)

    def _views(self) -> Iterator[Any]:
        return _nodes(self._scene, "vtkMRMLSliceNode")

    def _row(self, row: int) -> list[Any]:
        """The views of the upper (0) or the lower row, the axial one first."""
        names = [name + ("+" if row else "") for name in UPPER_VIEWS]
        found = {view.GetLayoutName(): view for view in self._views()}
        return [found[name] for name in names if name in found]


def _nodes(scene: Any, kind: str) -> Iterator[Any]:
    return (scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind)))


def _shift_node(scene: Any) -> vtkMRMLLinearTransformNode:
    found = scene.GetFirstNodeByName(SHIFT_NAME)
    if found is None:
        found = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", SHIFT_NAME)
    found.SetHideFromEditors(True)
    # Where the follow-up lies comes from its headers, also in a scene that was saved meanwhile.
    found.SetSaveWithScene(False)
    return found


def _layers(view: Any) -> Any:
    """The composite node of a slice view."""
    scene = view.GetScene()
    return next(one for one in _nodes(scene, "vtkMRMLSliceCompositeNode") if one.GetLayoutName() == view.GetLayoutName())


def _state(view: Any) -> dict[str, Any]:
    layers = _layers(view)
    return {
        "group": view.GetViewGroup(),
        "field": tuple(view.GetFieldOfView()),
        "place": _copy(view.GetSliceToRAS()),
        "background": layers.GetBackgroundVolumeID(),
        "foreground": layers.GetForegroundVolumeID(),
        "label": layers.GetLabelVolumeID(),
        "linked": layers.GetLinkedControl(),
        "hot": layers.GetHotLinkedControl(),
    }


def _give_back(view: Any, state: dict[str, Any]) -> None:
    layers = _layers(view)
    # First the links: else what one view gets the others of its group get too.
    layers.SetLinkedControl(False)
    layers.SetHotLinkedControl(False)
    view.SetViewGroup(state["group"])
    layers.SetBackgroundVolumeID(state["background"])
    layers.SetForegroundVolumeID(state["foreground"])
    layers.SetLabelVolumeID(state["label"])
    view.GetSliceToRAS().DeepCopy(state["place"])
    view.UpdateMatrices()
    view.SetFieldOfView(*state["field"])
    layers.SetLinkedControl(state["linked"])
    layers.SetHotLinkedControl(state["hot"])


def _copy(matrix: Any) -> Any:
    import vtk

    copy = vtk.vtkMatrix4x4()
    copy.DeepCopy(matrix)
    return copy


def _centre(views: list[Any], ras_mm: np.ndarray) -> None:
    for view in views:
        view.JumpSliceByCentering(*ras_mm.tolist())


def _middle(view: Any) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3].copy()


def _logic_fit(layout_manager: Any, view: Any) -> None:
    widget = layout_manager.sliceWidget(view.GetLayoutName())
    if widget is not None:
        widget.fitSliceToBackground()
