"""The module NLSTSeg of 3D Slicer: segments lung lesions in a chest CT and lets a reader correct them."""

import importlib.util
import sys
import unittest
from pathlib import Path

import ctk
import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

VOLUME_ROLE, SEGMENTATION_ROLE = "InputVolume", "Segmentation"
"""Node references of the parameter node: the CT, and the lesions under review."""


class NLSTSeg(ScriptedLoadableModule):
    """What the module says about itself."""

    def __init__(self, parent):
        super().__init__(parent)
        source = Path(__file__).resolve().parents[1]
        found = importlib.util.find_spec("NLSTSegLib")
        if (found is None or found.origin is None) and (source / "NLSTSegLib" / "__init__.py").is_file():
            # A source folder that was added by hand; after installation the library lies beside this file. Without an
            # origin it is a bare folder of that name.
            sys.path.append(str(source))
        from NLSTSegLib.resources import resources_folder

        parent.title = _("NLSTSeg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "Volumes", "Markups"]
        parent.contributors = ["NLSTSeg contributors"]
        parent.helpText = _(
            "Finds and segments lung lesions in a chest CT with a U-Net, one segment for each, and lets a reader accept, "
            "reject and correct them. Research only; not for clinical use."
        )
        parent.acknowledgementText = _("The cards of the models name the data that they were trained on.")
        parent.icon = qt.QIcon(str(resources_folder() / "Icons" / "NLSTSeg.png"))


class NLSTSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Joins the panels: which CT and which lesions they are about."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self):
        super().setup()
        from NLSTSegLib.widgets.cohort_panel import CohortPanel
        from NLSTSegLib.widgets.dicom_panel import DicomPanel
        from NLSTSegLib.widgets.export_panel import ExportPanel
        from NLSTSegLib.widgets.follow_up_panel import FollowUpPanel
        from NLSTSegLib.widgets.input_panel import InputPanel
        from NLSTSegLib.widgets.lesion_panel import LesionPanel
        from NLSTSegLib.widgets.node_selector import NodeSelector, node_combo_box
        from NLSTSegLib.widgets.pacs_panel import PacsPanel
        from NLSTSegLib.widgets.requirements import ensure_requirements
        from NLSTSegLib.widgets.run_panel import RunPanel

        self.logic = NLSTSegLogic()
        self.input = InputPanel(self.onInputChanged)
        self.run = RunPanel(self.input.reasons, self.request, ensure_requirements, self.onResult, self.onShow)
        self.run.ui.modelsOwnButton.connect("clicked()", self.input.take_models_own)
        self.lesions = LesionPanel()
        self.export = ExportPanel()
        self.followUp = FollowUpPanel(self.input.options, ensure_requirements, self.reviewOf, self.onFollowUpResult)
        self.dicom = DicomPanel(lambda: self.input.volume_node, self.onOpened)
        self.cohort = CohortPanel(self.onCase)
        self.pacs = PacsPanel(self.dicom.prepare, self.onLoaded)
        self.segmentations = NodeSelector(
            node_combo_box("vtkMRMLSegmentationNode", _("No segmentation")), self.onSegmentationChanged
        )
        self.segmentations.widget.toolTip = _("The segmentation whose lesions are reviewed")
        asides = (self.export, self.followUp, self.dicom, self.pacs, self.cohort)
        self.panels = (self.input, self.run, self.lesions, *asides, self.segmentations)
        self.inputSection = self.addSection(_("CT and model"), self.input.widget)
        self.layout.addWidget(self.run.widget)
        # The table takes what is free.
        self.layout.setStretchFactor(self.addSection(_("Lesions"), self.segmentations.widget, self.lesions.widget), 1)
        self.addSection(_("Export"), self.export.widget)
        self.addSection(_("Follow-up"), self.followUp.widget).collapsed = True
        self.addSection(_("DICOM SEG and SR"), self.dicom.widget).collapsed = True
        self.addSection(_("PACS"), self.pacs.widget).collapsed = True
        self.addSection(_("Cohort"), self.cohort.widget).collapsed = True
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self.onSceneChanged)
        self.onSceneChanged()

    def addSection(self, title, *widgets):
        section = ctk.ctkCollapsibleButton()
        section.text = title
        column = qt.QVBoxLayout(section)
        for widget in widgets:
            column.addWidget(widget)
        self.layout.addWidget(section)
        return section

    def enter(self):
        if self.input.volume_node is None:
            # The CT that was loaded last, as in Slicer's other modules.
            active = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
            self.input.select_volume(slicer.mrmlScene.GetNodeByID(active or ""))
        self.lesions.enter()
        self.pacs.enter()

    def exit(self):
        self.lesions.exit()

    def cleanup(self):
        self.removeObservers()
        for panel in self.panels:
            panel.close()

    def onReload(self):
        self.cleanup()
        # Slicer calls it again, when the library is no longer there.
        self.cleanup = lambda: None
        for name in [name for name in sys.modules if name.partition(".")[0] == "NLSTSegLib"]:
            del sys.modules[name]
        super().onReload()

    def request(self):
        """The CT and the options of the next run."""
        return self.input.volume_node, self.input.options()

    def onInputChanged(self):
        volume = self.input.volume_node
        node = self.logic.getParameterNode()
        if volume is not node.GetNodeReference(VOLUME_ROLE):
            node.SetNodeReferenceID(VOLUME_ROLE, volume.GetID() if volume else None)
            # Lesions of another CT are not reviewed on this one.
            self.openReview(volume)
        own = self.input.own_options()
        self.run.ui.ownOptionsLabel.text = _("Not the model's own: {options}").format(options=own)
        self.run.ui.ownOptionsLabel.visible = self.run.ui.modelsOwnButton.visible = bool(own)
        self.run.refresh()
        self.dicom.refresh()

    def openReview(self, volume):
        """Show the review of a CT, and beside it a later run that nobody has touched; returns that review, or None."""
        from NLSTSegLib.scene.rerun import review_and_later_run

        review, later_run = review_and_later_run(volume, self.lesions.segmentation_node) if volume else (None, None)
        self.segmentations.select(review)
        if later_run is not None:
            self.lesions.offer_run(later_run)
        return review

    def reviewOf(self, volume):
        """The review of a CT that a comparison takes, or None."""
        from NLSTSegLib.scene.rerun import review_and_later_run

        return review_and_later_run(volume, self.lesions.segmentation_node)[0]

    def onSegmentationChanged(self, segmentation):
        from NLSTSegLib.errors import NLSTSegError

        shown = None
        try:
            if segmentation is not None:
                self.logic.bringToReview(segmentation, self.input.volume_node)
                volume = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
                # First noted, so that its CT opens no other review.
                self.logic.getParameterNode().SetNodeReferenceID(VOLUME_ROLE, volume.GetID())
                self.input.select_volume(volume)
                shown = segmentation
        except NLSTSegError as error:
            slicer.util.errorDisplay(str(error))
            self.segmentations.select(None)
        self.logic.getParameterNode().SetNodeReferenceID(SEGMENTATION_ROLE, shown.GetID() if shown else None)
        for panel in (self.lesions, self.export, self.dicom, self.pacs):
            panel.show(shown)

    def onResult(self, segmentation, volume):
        from NLSTSegLib.scene.views import hide_lesions

        self.followUp.refresh()
        self.cohort.take(volume, segmentation)
        if volume is not self.input.volume_node:
            # Another CT is read just now: its views stay as they are.
            hide_lesions(segmentation)
            return
        self.inputSection.collapsed = True
        slicer.util.setSliceViewerLayers(background=volume)
        if self.openReview(volume) is segmentation:
            self.lesions.arrive()

    def onFollowUpResult(self, segmentation, volume):
        from NLSTSegLib.scene.views import hide_lesions

        if volume is self.input.volume_node:
            self.openReview(volume)
        else:
            hide_lesions(segmentation)

    def onOpened(self, segmentation):
        self.segmentations.select(segmentation)
        self.lesions.arrive()

    def onCase(self, volume, segmentation):
        self.input.select_volume(volume)
        self.segmentations.select(segmentation)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self.lesions.arrive()

    def onLoaded(self, volume):
        self.input.select_volume(volume)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)

    def onShow(self, volume):
        self.input.select_volume(volume)
        self.lesions.arrive()

    def onSceneStartClose(self, caller=None, event=None):
        self.run.forget(_("The scene was closed, so the run was stopped."))
        self.segmentations.select(None)

    def onSceneChanged(self, caller=None, event=None):
        node = self.logic.getParameterNode()
        volume, segmentation = node.GetNodeReference(VOLUME_ROLE), node.GetNodeReference(SEGMENTATION_ROLE)
        self.input.select_volume(volume)
        self.segmentations.select(segmentation)
        self.onInputChanged()


class NLSTSegLogic(ScriptedLoadableModuleLogic):
    """What the module does, without a panel."""

    def process(self, volumeNode, segmentationNode=None, options=None, progress=None):
        """Segment the lesions of a CT and begin their review; returns the segmentation node.

        ``segmentationNode`` must be empty; without one a new node is made beside the CT. ``options`` are
        :class:`NLSTSegLib.jobs.options.RunOptions`. ``progress(fraction, stage)`` is called about ten times a second and stops
        the run by raising. Raises :class:`NLSTSegLib.errors.NLSTSegError` with one sentence.
        """
        from NLSTSegLib.scene.run import run_and_wait

        return run_and_wait(volumeNode, segmentationNode, options, progress)

    def bringToReview(self, segmentationNode, volumeNode=None):
        """Make a segmentation that lies on no CT yet, such as one loaded from a file, one of ``volumeNode``."""
        from NLSTSegLib.errors import InputError
        from NLSTSegLib.scene.review import resume_review

        role = segmentationNode.GetReferenceImageGeometryReferenceRole()
        volumeNode = segmentationNode.GetNodeReference(role) or volumeNode
        if volumeNode is None:
            raise InputError(f"choose the CT of '{segmentationNode.GetName()}' first")
        resume_review(segmentationNode, volumeNode)


class NLSTSegTest(ScriptedLoadableModuleTest):
    """The self-test behind "Reload and Test"; the module's other tests lie in Testing/Python."""

    def test_phantom(self):
        from NLSTSegLib.phantom.make import make_phantom
        from NLSTSegLib.scene.volumes import volume_node_of_ct
        from NLSTSegLib.widgets.requirements import missing_requirements

        if missing_requirements():
            raise unittest.SkipTest("torch is not installed")
        slicer.mrmlScene.Clear()
        # Coarser than the sample, and done in a third of the time.
        phantom = make_phantom(0, spacing_ijk_mm=(0.98, 0.98, 4.0))
        segmentation = NLSTSegLogic().process(volume_node_of_ct(phantom.ct, slicer.mrmlScene, "Phantom"))
        self.assertGreaterEqual(segmentation.GetSegmentation().GetNumberOfSegments(), len(phantom.lesions))
        self.delayDisplay(_("The lesions of the phantom were found."))
