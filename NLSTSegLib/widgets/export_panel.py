"""Writes the review, or a training case, into a new folder; nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from NLSTSegLib.disk.free_name import new_folder
from NLSTSegLib.progress import Progress
from NLSTSegLib.review.folder import write_review
from NLSTSegLib.review.training_case import check_training_case, write_training_case
from NLSTSegLib.scene.segmentation_file import write_segmentation_node
from NLSTSegLib.scene.sizes import reviewed_case
from NLSTSegLib.widgets.fitting import lay_out
from NLSTSegLib.widgets.panel import ActingPanel
from NLSTSegLib.widgets.settings import save_setting, setting

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

FOLDER_SETTING = "ExportFolder"
"""Where the last review or training case was put."""


class ExportPanel(ActingPanel):
    """Buttons for the segmentation that is shown, and a sentence on what came of the last one."""

    def __init__(self) -> None:
        super().__init__("ExportPanel")
        self._segmentation_node: vtkMRMLSegmentationNode | None = None
        self.ui.reviewButton.connect("clicked()", self._export_review)
        self.ui.trainingCaseButton.connect("clicked()", self._export_training_case)
        self.ui.caseIdEdit.connect("textChanged(QString)", self._refresh)
        self.ui.progressBar.visible = False
        lay_out(self.ui.trainingCaseLayout, [self.ui.caseIdEdit, self.ui.trainingCaseButton], most_columns=2)
        self._say("")
        self._refresh()

    def show(self, segmentation_node: vtkMRMLSegmentationNode | None) -> None:
        """Export this segmentation from now on; ``None`` for none. The name of another one's training case goes."""
        if segmentation_node is not self._segmentation_node:
            self._segmentation_node = segmentation_node
            self.ui.caseIdEdit.text = ""
            self._say("")
        self._refresh()

    def _refresh(self, _text: str = "") -> None:
        missing = _("First choose a segmentation, or run the model.") if self._segmentation_node is None else ""
        self.ui.reviewButton.enabled = not missing
        self.ui.reviewButton.toolTip = missing or _(
            "Make a folder with the lesion table and the audit (CSV), the label map and the segmentation (.seg.nrrd)"
        )
        if not missing and not self.ui.caseIdEdit.text:
            missing = _("First name the case.")
        self.ui.trainingCaseButton.enabled = not missing
        self.ui.trainingCaseButton.toolTip = missing or _(
            "Make a folder with the CT and the mask of the accepted and edited lesions (NIfTI) for the training package"
        )

    def _export_review(self) -> None:
        node = self._segmentation_node
        with self._errors_told():
            with self._busy():
                case = reviewed_case(node, self._progress(0.0))
            undecided = len(case.undecided)
            if undecided and not slicer.util.confirmYesNoDisplay(
                _("{number} of {all} lesions are undecided. Export them as they are? Every file says so.").format(
                    number=undecided, all=len(case.lesions)
                )
            ):
                return
            parent = self._ask_for_folder(_("Where to make the folder of the review"))
            if parent is None:
                return
            with self._busy():
                folder = new_folder(parent, case.name)
                write_review(case, folder, partial(write_segmentation_node, node), self._progress(0.5))
            numbers = {"counted": len(case.counted), "undecided": undecided, "others": len(case.lesions) - len(case.counted)}
            text = _("The review (lesions: {counted}, undecided: {undecided}, rejected or empty: {others}) is in {folder}")
            self._say(text.format(**numbers, folder=folder))

    def _export_training_case(self) -> None:
        node, case_id = self._segmentation_node, self.ui.caseIdEdit.text
        with self._errors_told():
            with self._busy():
                case = reviewed_case(node, self._progress(0.0))
                check_training_case(case, case_id)
            parent = self._ask_for_folder(_("Where to make the folder of the training case"))
            if parent is None:
                return
            with self._busy():
                folder = write_training_case(case, parent, case_id)
            self._say(_("The training case (lesions: {count}) is in {folder}").format(count=len(case.counted), folder=folder))

    def _ask_for_folder(self, title: str) -> Path | None:
        """The folder that the user chose, kept for the next time; ``None`` when cancelled."""
        chosen = qt.QFileDialog.getExistingDirectory(self.widget, title, setting(FOLDER_SETTING, ""))
        if not chosen:
            return None
        save_setting(FOLDER_SETTING, chosen)
        return Path(chosen)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self.ui.progressBar.visible = True
        try:
            with super()._busy():
                yield
        finally:
            self.ui.progressBar.visible = False

    def _progress(self, start: float) -> Progress:
        """Moves the bar from ``start`` on by a half."""

        def tell(fraction: float, stage: str) -> None:
            self.ui.progressBar.value = round(100 * (start + fraction / 2))
            # At once, and without letting anything else happen meanwhile.
            self.ui.progressBar.repaint()

        return tell
