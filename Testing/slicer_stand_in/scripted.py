"""``slicer.ScriptedLoadableModule`` and ``slicer.i18n``: the base classes of a scripted module, as Slicer documents them."""

import logging
import os
import sys
import unittest
from types import ModuleType
from typing import Any

import slicer
from PySide6 import QtWidgets


class ScriptedLoadableModule:
    """What a module says about itself; ``parent`` is the module object of the application."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return f"<p>Documentation of {docPage or self.moduleName}</p>"


class ScriptedLoadableModuleWidget:
    """The panel of a module, made in ``setup()``; without a parent it makes one and sets itself up, as Slicer's does."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(QtWidgets.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self) -> None:
        """Make the panel."""

    def cleanup(self) -> None:
        """Let go of everything; the panel goes away."""

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """Gives a parameter node of the scene: by default one in the whole scene, kept when the scene is closed."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        node = next(iter(self.getAllParameterNodes()), None) or slicer.mrmlScene.AddNode(self.createParameterNode())
        # Closing the scene takes the attributes of singletons.
        node.SetAttribute("ModuleName", self.moduleName)
        return node

    def getAllParameterNodes(self) -> list[Any]:
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            return [node] if node else []
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The test class of a module's own file; ``runTest`` runs all its tests, as the button Reload and Test does."""

    def runTest(self, **_arguments: Any) -> None:
        for name in (name for name in dir(self) if name.startswith("test")):
            self.setUp()
            getattr(self, name)()
            self.tearDown()

    def delayDisplay(self, message: str, *_arguments: Any, **_named: Any) -> None:
        logging.info(message)


def install() -> None:
    """Make both importable from ``slicer``."""
    base_classes, i18n = ModuleType("slicer.ScriptedLoadableModule"), ModuleType("slicer.i18n")
    for name in [name for name in globals() if name.startswith("ScriptedLoadableModule")]:
        setattr(base_classes, name, globals()[name])
    # Modules get these by "from slicer.ScriptedLoadableModule import *" too.
    base_classes.slicer, base_classes.os, base_classes.unittest, base_classes.logging = slicer, os, unittest, logging
    i18n.tr, i18n.translate = (lambda text: text), (lambda context, text: text)
    for module in (base_classes, i18n):
        sys.modules[module.__name__] = module
        setattr(slicer, module.__name__.partition(".")[2], module)
