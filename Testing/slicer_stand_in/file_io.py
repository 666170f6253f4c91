"""Reading and writing of nodes and scenes, for ``slicer.util.loadVolume``, ``saveNode``, ``saveScene`` and their like."""

import os
from typing import Any

import slicer
from PySide6 import QtCore

FILE_TYPES = {
    "SegmentationFile": (".seg.nrrd", ".seg.vtm"),
    "MarkupsFile": (".mrk.json", ".fcsv"),
    "VolumeFile": (".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha", ".mhd"),
    "TableFile": (".csv", ".tsv"),
    "SceneFile": (".mrb", ".mrml"),
}
"""Endings by Slicer's name for what is in the file; the first that fits counts."""

VOLUME_FORMATS = [f"Volume ({ending})" for ending in FILE_TYPES["VolumeFile"]]
"""In place of the formats that slicer-core's storage node does not list."""


class qSlicerCoreIOManager(QtCore.QObject):
    """Does with storage nodes and module logics what Slicer's readers and writers do for :data:`FILE_TYPES`."""

    def fileType(self, path: str) -> str:
        return next((kind for kind, endings in FILE_TYPES.items() if path.lower().endswith(endings)), "NoFile")

    def fileWriterFileType(self, node: Any, path: str = "") -> str:
        return self.fileType(path) if path else "NoFile"

    def fileWriterExtensions(self, node: Any) -> list[str]:
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)
        formats = storage.GetSupportedWriteFileTypes()
        listed = [formats.GetValue(index) for index in range(formats.GetNumberOfValues())]
        return listed or (VOLUME_FORMATS if node.IsA("vtkMRMLVolumeNode") else [])

    def extractKnownExtension(self, path: str, node: Any) -> str:
        find = slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString
        return max((e for e in map(find, self.fileWriterExtensions(node)) if path.lower().endswith(e)), key=len, default="")

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: Any, messages: Any) -> bool:
        path = os.fspath(properties["fileName"])
        if not os.path.isfile(path):
            return False
        if kind == "SceneFile":
            return self.loadScene(path, properties.get("clear", False))
        name = properties.get("name") or os.path.basename(path).partition(".")[0]
        if kind == "VolumeFile":
            options = int(properties.get("labelmap", False))
            node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)
        elif kind == "SegmentationFile":
            node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(path, True, name)
        else:
            raise ValueError(f"the bench does not load {path}: it has no reader for {kind}")
        if node is None:
            return False
        loaded.AddItem(node)
        return True

    def loadScene(self, path: str, clear: bool = True) -> bool:
        scene = slicer.mrmlScene
        if path.lower().endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any) -> bool:
        path = os.fspath(properties["fileName"])
        if kind == "SceneFile":
            return self.saveScene(path)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        storage.SetUseCompression(int(properties.get("useCompression", storage.GetUseCompression())))
        return bool(storage.WriteData(node))

    def saveScene(self, path: str) -> bool:
        scene = slicer.mrmlScene
        scene.SetURL(path)
        scene.SetRootDirectory(os.path.dirname(path))
        return bool(scene.WriteToMRB(path) if path.lower().endswith(".mrb") else scene.Commit())

    def exportNodes(self, ids: list[str], paths: list[str], properties: dict[str, Any], harden: bool, messages: Any) -> bool:
        scene, written = slicer.mrmlScene, True
        for node_id, path in zip(ids, paths, strict=True):
            node = scene.GetNodeByID(node_id)
            if harden and node.GetParentTransformNode():
                raise ValueError(f"the bench does not harden transforms on export; export {path} with world=False")
            # A storage node of its own: the node keeps where it was saved.
            storage = node.CreateDefaultStorageNode()
            storage.UnRegister(None)
            scene.AddNode(storage)
            storage.SetFileName(os.fspath(path))
            storage.SetUseCompression(int(properties.get("useCompression", storage.GetUseCompression())))
            written = bool(storage.WriteData(node)) and written
            scene.RemoveNode(storage)
        return written
