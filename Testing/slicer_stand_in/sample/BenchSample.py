"""A scripted module that does a little of everything the bench must carry. It does not know the bench."""

import json
import sys

import numpy as np
import qSlicerSegmentationsModuleWidgetsPythonQt
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

CHILD = "import json, sys; print(json.dumps({'arguments': sys.argv[1:]})); sys.stderr.write('warned'); sys.exit(int(sys.argv[1]))"
"""What the child process runs; its exit code is its first argument."""


class BenchSample(ScriptedLoadableModule):
    """Metadata."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("Bench sample")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Testing")]
        parent.dependencies = ["Segmentations"]


class BenchSampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.process = None
        self.received = []

    def setup(self):
        super().setup()
        ui_widget = slicer.util.loadUI(self.resourcePath("UI/BenchSample.ui"))
        self.layout.addWidget(ui_widget)
        self.ui = slicer.util.childWidgetVariables(ui_widget)
        ui_widget.setMRMLScene(slicer.mrmlScene)
        self.logic = BenchSampleLogic()

        self.editor = qSlicerSegmentationsModuleWidgetsPythonQt.qMRMLSegmentEditorWidget()
        self.editor.setMRMLSegmentEditorNode(self.logic.editorNode())
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.editor.setEffectNameOrder(["Paint", "Erase", "Scissors"])
        self.editor.unorderedEffectsVisible = False
        self.ui.editorFrame.layout().addWidget(self.editor)

        self.ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onVolumeChanged)
        self.ui.thresholdSlider.connect("valueChanged(double)", self.onThreshold)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.runButton.clicked.connect(self.onRun)
        self.ui.brokenButton.clicked.connect(self.onBroken)
        self.ui.askButton.clicked.connect(self.onAsk)
        self.ui.saveButton.clicked.connect(self.onSave)
        self.shortcut = qt.QShortcut(qt.QKeySequence("N"), ui_widget)
        self.shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
        self.shortcut.connect("activated()", self.onNext)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.thresholdSlider.value = slicer.util.settingsValue("BenchSample/Threshold", -400.0, converter=float)
        self.onVolumeChanged()

    def cleanup(self):
        if self.process:
            self.process.kill()
            self.process.waitForFinished(1000)
        self.removeObservers()

    def enter(self):
        self.received.append("enter")

    def exit(self):
        self.received.append("exit")

    def onSceneEndClose(self, caller, event):
        self.received.append("closed")

    def onVolumeChanged(self, node=None):
        self.ui.applyButton.enabled = self.ui.volumeSelector.currentNode() is not None
        self.ui.applyButton.toolTip = "" if self.ui.applyButton.enabled else _("Choose a volume first")

    def onThreshold(self):
        qt.QSettings().setValue("BenchSample/Threshold", self.ui.thresholdSlider.value)

    def onApply(self):
        volume = self.ui.volumeSelector.currentNode()
        segmentation = self.logic.process(volume, self.ui.thresholdSlider.value)
        self.editor.setSegmentationNode(segmentation)
        self.editor.setSourceVolumeNode(self.ui.volumeSelector.currentNode())
        self.ui.statusLabel.text = _("{count} voxels").format(count=self.logic.count(segmentation, volume))
        slicer.util.setSliceViewerLayers(background=volume, fit=True)

    def onNext(self):
        slicer.modules.markups.logic().JumpSlicesToLocation(10, 20, 30, True)
        self.ui.statusLabel.text = "next"

    def onRun(self):
        self.process = qt.QProcess()
        self.process.connect("finished(int,QProcess::ExitStatus)", self.onFinished)
        self.process.start(sys.executable, ["-c", CHILD, str(self.ui.exitCodeSpinBox.value)])
        self.ui.runButton.enabled = False

    def onFinished(self, exit_code):
        output = bytes(self.process.readAllStandardOutput().data()).decode()
        errors = bytes(self.process.readAllStandardError().data()).decode()
        self.received.append((exit_code, json.loads(output), errors))
        self.ui.runButton.enabled = True

    def onBroken(self):
        raise ValueError("broken on purpose")

    def onAsk(self):
        if slicer.util.confirmOkCancelDisplay(_("Install torch?"), detailedText="two gigabytes"):
            slicer.util.infoDisplay(_("Installed"))
        else:
            slicer.util.errorDisplay(_("Not installed"), detailedText="declined")

    def onSave(self):
        self.received.append(qt.QFileDialog.getSaveFileName(self.parent, _("Save the table"), "", "*.csv"))


class BenchSampleLogic(ScriptedLoadableModuleLogic):
    """The work, without widgets."""

    def editorNode(self):
        node = slicer.mrmlScene.GetSingletonNode("BenchSample", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag("BenchSample")
            node = slicer.mrmlScene.AddNode(node)
        return node

    def process(self, volume, threshold):
        """A segmentation of what is above the threshold."""
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", volume.GetName() + " segments")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        image = slicer.vtkOrientedImageData()
        image.DeepCopy(volume.GetImageData())
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        image.SetImageToWorldMatrix(matrix)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        mask = slicer.util.arrayFromVolume(volume) > threshold
        vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel()
        segmentation.AddSegmentFromBinaryLabelmapRepresentation(image, "above", (1.0, 0.0, 0.0), "above")
        return segmentation

    def count(self, segmentation, volume):
        return int(np.count_nonzero(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "above", volume)))
