"""Slice views: the real slice logic and displayable managers draw offscreen, a Qt widget shows the picture."""

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

from slicer_stand_in.mrml_widgets import qMRMLWidget

VIEWS = {
    "Red": ("Axial", (0.95, 0.29, 0.20)),
    "Yellow": ("Sagittal", (0.93, 0.84, 0.30)),
    "Green": ("Coronal", (0.43, 0.69, 0.29)),
}
"""The slice views of Slicer's default layout, their orientations and colours (RGB, 0..1)."""

LOWER_ROW = "+"
"""Behind the names of the views in the lower row of three over three."""

DISPLAYABLE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
)
"""What draws in a slice view besides the volumes; the views of a module need no more."""

FIRST_SIZE = (320, 320)
"""Width and height of a view that no window shows yet."""


class RenderedView(QtWidgets.QWidget):
    """What a view has of ctkVTKAbstractView: a render window, drawn offscreen into this widget when it is painted."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._renderer, self._window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._window.SetOffScreenRendering(1)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        # The view's own style listens to the events; VTK's default one would turn the camera.
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._interactor.Enable()
        self.setMinimumSize(160, 160)
        self.resize(*FIRST_SIZE)

    def renderWindow(self) -> Any:
        return self._window

    def interactor(self) -> Any:
        return self._interactor

    def scheduleRender(self) -> None:
        self.update()

    def forceRender(self) -> None:
        width, height = max(1, self.width), max(1, self.height)
        self._before_render()
        self._window.SetSize(width, height)
        self._interactor.SetSize(width, height)
        self._window.Render()

    def _before_render(self) -> None:
        """What a kind of view does first."""

    def paintEvent(self, event: Any) -> None:
        self.forceRender()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.ReadFrontBufferOff()
        grab.Update()
        width, height, _ = grab.GetOutput().GetDimensions()
        # VTK counts rows from below.
        rgb = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()
        picture = QtGui.QImage(rgb.data, width, height, 3 * width, QtGui.QImage.Format_RGB888)
        QtGui.QPainter(self).drawImage(0, 0, picture)


class qMRMLSliceView(RenderedView):
    """Draws what the displayable managers make of its slice node."""

    def __init__(self, logic: Any, application_logic: Any, parent: Any = None) -> None:
        super().__init__(parent)
        self._logic = logic
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application_logic)
        for name in DISPLAYABLE_MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        self._managers.Initialize(factory, self._renderer)
        self._managers.SetMRMLDisplayableNode(logic.GetSliceNode())
        self._volumes = vtk.vtkImageMapper()
        self._volumes.SetColorWindow(255)
        self._volumes.SetColorLevel(127.5)
        volumes = vtk.vtkActor2D()
        volumes.SetMapper(self._volumes)
        volumes.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(volumes)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(logic)
        self._style.SetDisplayableManagers(self._managers)
        self._style.SetInteractor(self._interactor)
        self._managers.AddObserver(vtk.vtkCommand.UpdateEvent, self._schedule)
        logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._schedule)
        self._fit_to_widget()

    def _schedule(self, caller: Any, event: str) -> None:
        self.update()

    def _fit_to_widget(self) -> None:
        self._logic.ResizeSliceNode(max(1, self.width), max(1, self.height))

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def sliceViewInteractorStyle(self) -> Any:
        return self._style

    def _before_render(self) -> None:
        self._fit_to_widget()
        if self._logic.GetImageDataConnection():
            self._volumes.SetInputConnection(self._logic.GetImageDataConnection())


class qMRMLSliceWidget(qMRMLWidget):
    """A slice view under a bar with its name, colour and offset."""

    def __init__(self, name: str, scene: Any, application_logic: Any) -> None:
        super().__init__()
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        application_logic.GetSliceLogics().AddItem(self._logic)
        self._logic.SetMRMLScene(scene)
        self._logic.AddSliceNode(name)
        orientation, color = VIEWS[name.rstrip(LOWER_ROW)]
        self.mrmlSliceNode().SetOrientation(orientation)
        self.mrmlSliceNode().SetLayoutLabel(name[0] + name[len(name.rstrip(LOWER_ROW)) :])
        if name.endswith(LOWER_ROW):
            self.mrmlSliceNode().SetViewGroup(1)
        self.mrmlSliceNode().SetLayoutColor(*color)
        self._view = qMRMLSliceView(self._logic, application_logic, self)
        self._bar = QtWidgets.QLabel()
        background = "#" + "".join(f"{round(255 * part):02x}" for part in color)
        self._bar.setStyleSheet(f"background: {background}; color: black; padding: 1px 6px;")
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._bar)
        column.addWidget(self._view, 1)
        self.mrmlSliceNode().AddObserver(vtk.vtkCommand.ModifiedEvent, self._label)
        self._label(None, "")
        self.resize(*FIRST_SIZE)
        self.setMRMLScene(scene)

    sliceViewName = QtCore.Property(str, lambda self: self.mrmlSliceNode().GetLayoutName())

    def _label(self, caller: Any, event: str) -> None:
        node = self.mrmlSliceNode()
        self._bar.setText(f"{node.GetLayoutLabel()}   {node.GetOrientation()}   {self._logic.GetSliceOffset():.1f} mm")

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceView(self) -> Any:
        return self._view

    def interactorStyle(self) -> Any:
        return self._view.sliceViewInteractorStyle()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()


class qSlicerLayoutManager(QtCore.QObject):
    """The three slice views, and three more from the first time that three over three is set; there is no 3D view."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene: Any, application_logic: Any) -> None:
        super().__init__()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        self._layout, self._scene, self._application_logic = 3, scene, application_logic
        self._slice_widgets = {name: qMRMLSliceWidget(name, scene, application_logic) for name in VIEWS}

    def setLayout(self, layout: int) -> None:
        self._layout = layout
        lower = [name + LOWER_ROW for name in VIEWS]
        if layout == slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView and lower[0] not in self._slice_widgets:
            self._slice_widgets |= {name: qMRMLSliceWidget(name, self._scene, self._application_logic) for name in lower}
        self.layoutChanged.emit(layout)

    layout = QtCore.Property(int, lambda self: self._layout, setLayout)
    threeDViewCount = QtCore.Property(int, lambda self: 0)

    def sliceViewNames(self) -> list[str]:
        return list(self._slice_widgets)

    def sliceWidget(self, name: str) -> Any:
        return self._slice_widgets.get(name)

    def threeDWidget(self, index: int) -> None:
        """None: there is no 3D view."""

    def mrmlSliceLogics(self) -> Any:
        return next(iter(self._slice_widgets.values())).sliceLogic().GetMRMLApplicationLogic().GetSliceLogics()

    def resetSliceViews(self) -> None:
        for widget in self._slice_widgets.values():
            widget.fitSliceToBackground()
