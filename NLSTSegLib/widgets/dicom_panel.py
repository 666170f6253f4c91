"""Opens a DICOM SEG as a review of the CT, and writes a review as DICOM SEG and SR."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NLSTSegLib.dicom.read_seg import read_seg
from NLSTSegLib.dicom.review import from_series, on_series
from NLSTSegLib.dicom.source import read_source
from NLSTSegLib.dicom.write import write_dicom
from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.disk.free_name import new_folder
from NLSTSegLib.errors import as_sentence
from NLSTSegLib.jobs.requirements import HIGHDICOM
from NLSTSegLib.reading.dicom_series import DicomSeries
from NLSTSegLib.review.case import ReviewedCase
from NLSTSegLib.scene.seg_review import review_of_seg
from NLSTSegLib.scene.sizes import reviewed_case
from NLSTSegLib.scene.volumes import ct_from_volume_node
from NLSTSegLib.scene.voxels import volume_of
from NLSTSegLib.widgets.dicom_database import add_to_database, series_in, series_of_volume
from NLSTSegLib.widgets.fitting import lay_out
from NLSTSegLib.widgets.lesion_panel import READER_KEY
from NLSTSegLib.widgets.panel import ActingPanel
from NLSTSegLib.widgets.requirements import ensure_package
from NLSTSegLib.widgets.settings import save_setting, setting

FOLDER_SETTING = "DicomFolder"
"""Where the last SEG was opened or written."""


class DicomPanel(ActingPanel):
    """Buttons, and a sentence on what came of the last one. SEG and SR are made of the DICOM files that the CT came from:
    those that Slicer's database knows of the volume, else those of a folder that is asked for."""

    def __init__(self, volume: Callable[[], Any], on_opened: Callable[[Any], None]) -> None:
        """``volume()`` is the CT that is chosen; ``on_opened(segmentation_node)`` is told of a SEG that became a review."""
        super().__init__("DicomPanel")
        self._volume, self._on_opened = volume, on_opened
        self._segmentation_node: Any = None
        self.ui.openButton.connect("clicked()", self._open)
        self.ui.folderButton.connect("clicked()", lambda: self._export(self._into_folder))
        self.ui.databaseButton.connect("clicked()", lambda: self._export(self._into_database))
        lay_out(self.ui.exportLayout, [self.ui.folderButton, self.ui.databaseButton], most_columns=2)
        self._say("")
        self.refresh()

    def show(self, segmentation_node: Any) -> None:
        """Export this segmentation from now on; ``None`` for none."""
        if segmentation_node is not self._segmentation_node:
            self._segmentation_node = segmentation_node
            self._say("")
        self.refresh()

    def refresh(self) -> None:
        """Follow the choice of CT and segmentation."""
        self.ui.openButton.enabled = self._volume() is not None
        self.ui.openButton.toolTip = (
            _("Make a review of the segments in a DICOM SEG file of this CT, of this program or of another")
            if self.ui.openButton.enabled
            else _("First choose the CT.")
        )
        missing = _("First choose a segmentation, or run the model.") if self._segmentation_node is None else ""
        for button, hint in (
            (self.ui.folderButton, _("Make a folder with the lesions as DICOM SEG and their numbers as DICOM SR")),
            (self.ui.databaseButton, _("Put both into Slicer's DICOM database, from where they can be sent to a PACS")),
        ):
            button.enabled, button.toolTip = not missing, missing or hint

    def _open(self) -> None:
        volume_node = self._volume()
        with self._errors_told():
            kinds = _("DICOM (*.dcm);;All files (*)")
            chosen = qt.QFileDialog.getOpenFileName(self.widget, _("Which SEG to open"), setting(FOLDER_SETTING, ""), kinds)
            if not chosen:
                return
            series = self._series(volume_node)
            if series is None:
                return
            with self._busy():
                seg = read_seg(Path(chosen), series)
                labels = from_series(seg.labels, series, ct_from_volume_node(volume_node, copy=False))
                node = review_of_seg(seg, labels, volume_node)
            self._on_opened(node)
            count = node.GetSegmentation().GetNumberOfSegments()
            text = _("The SEG (segments: {count}) is the review '{name}'.").format(count=count, name=node.GetName())
            self._say(" ".join([text, *map(as_sentence, seg.notes)]))

    def prepare(self) -> tuple[ReviewedCase, DicomSeries] | None:
        """The review that is shown, and the series of its CT; ``None`` when the user was asked and does not go on.

        Raises :class:`NLSTSegError` where there are no SEG and SR to be made of it.
        """
        node = self._segmentation_node
        ensure_package(HIGHDICOM, _("Writing DICOM SEG and SR"))
        with self._busy():
            case = reviewed_case(node)
        if case.undecided and not slicer.util.confirmYesNoDisplay(
            _("{number} of {all} lesions are undecided. Write them as they are?").format(
                number=len(case.undecided), all=len(case.lesions)
            )
        ):
            return None
        series = self._series(volume_of(node))
        return None if series is None else (case, series)

    def _export(self, write: Callable[[ReviewedCase, DicomSeries], str]) -> None:
        with self._errors_told():
            prepared = self.prepare()
            if prepared is not None:
                self._say(write(*prepared))

    def _into_folder(self, case: ReviewedCase, series: DicomSeries) -> str:
        parent = qt.QFileDialog.getExistingDirectory(
            self.widget, _("Where to make the folder of SEG and SR"), setting(FOLDER_SETTING, "")
        )
        if not parent:
            return ""
        save_setting(FOLDER_SETTING, parent)
        with self._busy():
            folder = new_folder(Path(parent), f"{case.name} DICOM")
            with held(folder), atomic_folder(folder) as partial:
                notes = write_seg_and_sr(partial, case, series)
        return _("SEG and SR (lesions: {count}) are in {folder}").format(count=len(case.counted), folder=folder) + notes

    def _into_database(self, case: ReviewedCase, series: DicomSeries) -> str:
        with self._busy(), tempfile.TemporaryDirectory(prefix="nlstseg-") as folder:
            notes = write_seg_and_sr(Path(folder), case, series)
            add_to_database(sorted(Path(folder).iterdir()))
        return _("SEG and SR (lesions: {count}) are in Slicer's DICOM database.").format(count=len(case.counted)) + notes

    def _series(self, volume_node: Any) -> DicomSeries | None:
        """The series that the CT was loaded from; ``None`` where the user did not say which folder it is in."""
        with self._busy():
            series = series_of_volume(volume_node)
        if series is not None:
            return series
        title = _("The folder with the DICOM files of '{name}'").format(name=volume_node.GetName())
        folder = qt.QFileDialog.getExistingDirectory(self.widget, title, setting(FOLDER_SETTING, ""))
        if not folder:
            return None
        with self._busy():
            return series_in(Path(folder), volume_node)


def write_seg_and_sr(folder: Path, case: ReviewedCase, series: DicomSeries) -> str:
    """Write both files; what was mended of the CT's headers, as sentences."""
    source = read_source(series)
    write_dicom(folder, source, on_series(case, series), reader=setting(READER_KEY, ""))
    return "".join(_(" In the CT's headers {note}.").format(note=note) for note in source.notes)
