"""``slicer.app`` and the modules that it loads, over a real MRML scene and real logics."""

import importlib.util
import os
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from slicer_stand_in.file_io import qSlicerCoreIOManager
from slicer_stand_in.mrml_host import add_module_logics
from slicer_stand_in.mrml_widgets import qMRMLWidget
from slicer_stand_in.slice_views import qSlicerLayoutManager


class Module(QtCore.QObject):
    """A module of C++: its logic; the panels of Slicer's own modules are not here."""

    representation: Any = None
    window: Any = None

    def __init__(self, name: str, logic: Any = None) -> None:
        super().__init__()
        self.setObjectName(name)
        self._logic = logic

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> Any:
        if self.representation is None and isinstance(self, qSlicerScriptedLoadableModule):
            self.representation = qSlicerScriptedLoadableModuleWidget(self.objectName)
        return self.representation


class qSlicerScriptedLoadableModule(Module):
    """A scripted module: what its file and its first class say. Its logic is a class of its file, as in Slicer."""

    title = helpText = acknowledgementText = ""
    categories = dependencies = contributors = associatedNodeTypes = ()
    icon, hidden, index = None, False, -1
    path = property(lambda self: self._path)

    def __init__(self, path: str) -> None:
        super().__init__(os.path.splitext(os.path.basename(path))[0])
        self._path = path


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The part of the module panel that holds the panel of one scripted module."""

    def __init__(self, module_name: str) -> None:
        super().__init__()
        self._module_name, self._entered = module_name, False
        self.setLayout(QtWidgets.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)
        self.reload()

    moduleName = Property(str, lambda self: self._module_name)
    isEntered = Property(bool, lambda self: self._entered)

    def self(self) -> Any:
        return self._widget

    def reload(self) -> None:
        cls = getattr(sys.modules[self._module_name], self._module_name + "Widget")
        self._widget = cls(self)
        setattr(slicer.modules, self._module_name + "Widget", self._widget)
        self._widget.setup()

    def enter(self) -> None:
        self._entered = True
        self._call("enter")

    def exit(self) -> None:
        self._entered = False
        self._call("exit")

    def _call(self, method: str) -> None:
        if hasattr(self._widget, method):
            getattr(self._widget, method)()


class qSlicerModuleManager(QtCore.QObject):
    """Finds modules by name."""

    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self) -> list[str]:
        return [module.name for module in vars(slicer.modules).values() if isinstance(module, Module)]


class TestingApplication(QtWidgets.QApplication):
    """What the bench and Slicer's application have beyond the names in Slicer's headers."""

    modules: Any = None

    def testingEnabled(self) -> bool:
        return True


class qSlicerApplication(TestingApplication):
    """The application without a main window, as with ``--no-main-window --testing``, but with slice views."""

    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)

    def __init__(self) -> None:
        super().__init__(["slicer_stand_in"])
        self.setOrganizationName("slicer_stand_in")
        self.setApplicationName("slicer_stand_in")
        self.setApplicationVersion("5.13.0")
        self._temporary_folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._module_manager, self._io_manager = qSlicerModuleManager(), qSlicerCoreIOManager()
        self._scene, self._logic = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
        self._logic.SetMRMLScene(self._scene)
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())
        self._logics = add_module_logics(self._scene, self._logic)
        self._logics["Colors"].AddDefaultColorNodes()
        self._remote_files = _read_bundles(self._scene, self._logic, self._temporary_folder.name)
        self.modules = SimpleNamespace(**{name.lower(): Module(name, it) for name, it in self._logics.items()})
        _keep_subject_hierarchy(self._scene)
        self._layout_manager = qSlicerLayoutManager(self._scene, self._logic)

    temporaryPath = Property(str, lambda self: self._temporary_folder.name)
    majorVersion = Property(int, lambda self: 5)
    minorVersion = Property(int, lambda self: 13)
    revision = Property(str, lambda self: "slicer_stand_in")
    slicerHome = Property(str, lambda self: sys.prefix)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def moduleManager(self) -> Any:
        return self._module_manager

    def moduleLogic(self, name: str) -> Any:
        return self._logics.get(name)

    def layoutManager(self) -> Any:
        return self._layout_manager

    def coreIOManager(self) -> Any:
        return self._io_manager

    def ioManager(self) -> Any:
        return self._io_manager

    def userSettings(self) -> Any:
        return QtCore.QSettings()

    def revisionUserSettings(self) -> Any:
        return QtCore.QSettings()

    def settings(self) -> Any:
        return QtCore.QSettings()

    def commandOptions(self) -> Any:
        return SimpleNamespace(noMainWindow=True, testingEnabled=True)

    def extensionsManagerModel(self) -> None:
        """None, as in a Slicer built without the Extensions Manager."""

    def startupEnvironment(self) -> Any:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def pauseRender(self) -> None:
        """Nothing: the views draw in the event loop."""

    def resumeRender(self) -> None:
        """Nothing, as above."""


def load_module(path: str) -> qSlicerScriptedLoadableModule:
    """What Slicer does with a scripted module at start-up: run its file and make its first class."""
    name = os.path.splitext(os.path.basename(path))[0]
    if hasattr(slicer.modules, name.lower()):
        return getattr(slicer.modules, name.lower())
    # Slicer puts the folder there before it runs the file.
    if os.path.dirname(path) not in sys.path:
        sys.path.append(os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(name, path)
    python_module = importlib.util.module_from_spec(spec)
    sys.modules[name] = python_module
    spec.loader.exec_module(python_module)
    module = qSlicerScriptedLoadableModule(path)
    setattr(slicer.modules, name + "Instance", getattr(python_module, name)(module))
    setattr(slicer.modules, name.lower(), module)
    slicer.app.moduleManager().moduleLoaded.emit(name)
    return module


def _read_bundles(scene: Any, application_logic: Any, cache_folder: str) -> tuple[Any, Any]:
    """Let ``scene`` read .mrb files, which goes through the cache of remote files. The logics live as long as they are held."""
    remote, data = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    for logic in (remote, data):
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
    remote.GetCacheManager().SetRemoteCacheDirectory(cache_folder)
    remote.AddDataIOToScene()
    data.SetAndObserveDataIOManager(remote.GetDataIOManager())
    return remote, data


def _keep_subject_hierarchy(scene: Any) -> None:
    """Give every node that a user sees an item in the subject hierarchy, as the application does."""

    def hierarchy() -> Any:
        # Not kept: closing the scene makes another one.
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(caller: Any, event: str, node: Any) -> None:
        kinds = ("vtkMRMLDisplayableNode", "vtkMRMLTableNode", "vtkMRMLTextNode")
        if any(map(node.IsA, kinds)) and not node.GetHideFromEditors() and not hierarchy().GetItemByDataNode(node):
            hierarchy().CreateItem(hierarchy().GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def about_to_be_removed(caller: Any, event: str, node: Any) -> None:
        if not scene.IsClosing() and not node.IsA("vtkMRMLSubjectHierarchyNode"):
            item = hierarchy().GetItemByDataNode(node)
            if item:
                hierarchy().RemoveItem(item, False, False)

    scene.AddObserver(scene.NodeAddedEvent, added)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, about_to_be_removed)
