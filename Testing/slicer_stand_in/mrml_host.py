"""An MRML scene to test with: the application's inside 3D Slicer, elsewhere one of its own on slicer-core."""

import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

MODULE_LOGICS = {
    "Colors": "vtkMRMLColorLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}
"""The logics that register node classes and conversion rules with a scene, by the name of their Slicer module."""


def add_module_logics(scene: Any, application: Any) -> dict[str, Any]:
    """The logics of :data:`MODULE_LOGICS`, each known to the application logic and working on ``scene``.

    The scene holds no reference to them: they live as long as the dictionary.
    """
    import slicer

    logics = {name: getattr(slicer, class_name)() for name, class_name in MODULE_LOGICS.items()}
    for name, logic in logics.items():
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name, logic)
    return logics


@contextmanager
def mrml_scene() -> Iterator[Any]:
    """The scene of the application, emptied; outside it a fresh ``slicer.mrmlScene`` with its module logics.

    There ``slicer.modules`` and ``slicer.app`` hold what code without Qt uses of them. All three are gone afterwards.
    """
    import slicer

    if hasattr(slicer, "mrmlScene"):
        slicer.mrmlScene.Clear()
        yield slicer.mrmlScene
        return
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    logics = add_module_logics(scene, application)
    with tempfile.TemporaryDirectory() as folder:
        slicer.mrmlScene = scene
        slicer.modules = SimpleNamespace(
            **{name.lower(): SimpleNamespace(logic=lambda it=logic: it) for name, logic in logics.items()}
        )
        slicer.app = SimpleNamespace(
            mrmlScene=lambda: scene,
            applicationLogic=lambda: application,
            layoutManager=lambda: None,
            testingEnabled=lambda: True,
            translate=lambda _context, text: text,
            processEvents=lambda: None,
            pauseRender=lambda: None,
            resumeRender=lambda: None,
            temporaryPath=folder,
        )
        try:
            yield scene
        finally:
            scene.Clear(True)
            del slicer.mrmlScene, slicer.modules, slicer.app


class MrmlTestCase(unittest.TestCase):
    """Every test starts with the empty scene ``self.scene``."""

    def setUp(self) -> None:
        self.scene = self.enterContext(mrml_scene())
