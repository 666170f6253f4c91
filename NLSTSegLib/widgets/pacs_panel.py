"""Searches a PACS, loads a CT from it into the scene, and sends a review back; the network is a child process's business."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NLSTSegLib.errors import as_sentence
from NLSTSegLib.jobs.command_job import CommandJob
from NLSTSegLib.jobs.requirements import DICOMWEB_CLIENT, PYNETDICOM, read_requirements
from NLSTSegLib.pacs.server import read_server, server_names, servers_file
from NLSTSegLib.progress import part_of
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_folder import list_series
from NLSTSegLib.reading.dicom_series import DicomSeries, read_series
from NLSTSegLib.review.case import ReviewedCase
from NLSTSegLib.scene.run import program_python
from NLSTSegLib.scene.volumes import mark_as_series, volume_node_of_ct
from NLSTSegLib.widgets.dicom_database import INSTANCES_ATTRIBUTE, add_to_database
from NLSTSegLib.widgets.dicom_panel import write_seg_and_sr
from NLSTSegLib.widgets.fitting import lay_out
from NLSTSegLib.widgets.panel import ActingPanel
from NLSTSegLib.widgets.requirements import ensure_package
from NLSTSegLib.widgets.settings import save_setting, setting

POLL_MS = 100

SERVER_SETTING = "PacsServer"
"""The server that was chosen last."""

COLUMNS = ("date", "patient_name", "patient_id", "description")
"""Columns of the table in the ``.ui`` file, in its order: keys of a study that ``nlstseg pacs find --json`` prints."""

CT_FOLDER, SEND_FOLDER = "ct", "send"
"""Folders in the scratch folder of a job."""


class _StoppedError(Exception):
    """*Stop* was clicked while a CT was read."""


class PacsPanel(ActingPanel):
    """One thing at a time: a search, a CT that is fetched, or a review that is sent; a sentence says what came of it."""

    def __init__(self, prepare: Callable[[], tuple[ReviewedCase, DicomSeries] | None], on_loaded: Callable[[Any], None]) -> None:
        """``prepare()`` gives the review that is sent, and the DICOM series of its CT; ``None`` when the user does not want it.

        ``on_loaded(volume_node)`` is told of a CT that came.
        """
        super().__init__("PacsPanel")
        self._prepare, self._on_loaded = prepare, on_loaded
        self._has_review = False
        self._studies: list[dict[str, str]] = []
        self._job: CommandJob | None = None
        self._then: Callable[[CommandJob], str] = lambda job: ""
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._poll)
        self._edits = {
            "--patient-id": self.ui.patientIdEdit,
            "--patient-name": self.ui.patientNameEdit,
            "--date": self.ui.dateEdit,
        }
        for edit in self._edits.values():
            edit.connect("textChanged(QString)", self.refresh)
            edit.connect("returnPressed()", self._search)
        for button, act in (
            (self.ui.searchButton, self._search),
            (self.ui.loadButton, self._load),
            (self.ui.sendButton, self._send),
            (self.ui.stopButton, self._stop),
        ):
            button.connect("clicked()", act)
        self.ui.studyTable.connect("itemSelectionChanged()", self.refresh)
        self.ui.serverComboBox.connect("currentIndexChanged(int)", self._server_chosen)
        lay_out(self.ui.buttonLayout, [self.ui.loadButton, self.ui.sendButton], most_columns=2)
        self._say("")
        self.enter()

    def enter(self) -> None:
        """Read the file of servers again."""
        box = self.ui.serverComboBox
        box.blockSignals(True)
        box.clear()
        with self._errors_told():
            for name in server_names():
                box.addItem(name, name)
        box.currentIndex = max(0, box.findData(setting(SERVER_SETTING, "")))
        box.blockSignals(False)
        self.refresh()

    def show(self, segmentation_node: Any) -> None:
        """Send this review from now on; ``None`` for none."""
        self._has_review = segmentation_node is not None
        self.refresh()

    def refresh(self, _text: str = "") -> None:
        """Follow what is chosen and under way."""
        is_busy, server = self._job is not None, self._server
        missing = "" if server else _("First name a server in {file}.").format(file=servers_file())
        reasons = {
            self.ui.searchButton: missing or ("" if self._asked() else _("First say whom or when: PACS hold many studies.")),
            self.ui.loadButton: missing or ("" if self._study else _("First search, and choose a study.")),
            self.ui.sendButton: missing or ("" if self._has_review else _("First choose a segmentation, or run the model.")),
        }
        hints = {
            self.ui.searchButton: _("List the studies with CT"),
            self.ui.loadButton: _("Fetch its CTs into Slicer's DICOM database, and show the one of the chest"),
            self.ui.sendButton: _("Store the lesions as DICOM SEG and SR in the PACS, and ask whether both are there"),
        }
        for button, reason in reasons.items():
            button.enabled = not (reason or is_busy)
            button.toolTip = (_("Something is under way.") if is_busy else reason) or hints[button]
        self.ui.stopButton.visible = self.ui.progressBar.visible = is_busy
        self.ui.serverComboBox.enabled = not is_busy

    def close(self) -> None:
        """What is under way ends."""
        self._end()

    @property
    def _server(self) -> str:
        return str(self.ui.serverComboBox.currentText)

    @property
    def _study(self) -> dict[str, str] | None:
        rows = self.ui.studyTable.selectionModel().selectedRows()
        return self._studies[rows[0].row()] if rows else None

    def _server_chosen(self, index: int) -> None:
        save_setting(SERVER_SETTING, self._server)
        self._show_studies([])
        self.refresh()

    def _asked(self) -> list[str]:
        return [part for option, edit in self._edits.items() if edit.text.strip() for part in (option, edit.text.strip())]

    def _search(self) -> None:
        if self.ui.searchButton.enabled:
            self._show_studies([])
            self._start(["find", "--json", *self._asked()], self._found)

    def _found(self, job: CommandJob) -> str:
        self._show_studies(json.loads(job.output))
        return "" if self._studies else _("No study with CT was found.")

    def _show_studies(self, studies: list[dict[str, str]]) -> None:
        table = self.ui.studyTable
        table.clearSelection()
        self._studies = studies
        table.setRowCount(len(studies))
        for row, study in enumerate(studies):
            for column, key in enumerate(COLUMNS):
                table.setItem(row, column, qt.QTableWidgetItem(study[key]))

    def _load(self) -> None:
        study = self._study
        if study is not None:
            self._start(["pull", "--json-progress", "--study", study["uid"]], self._loaded, output=CT_FOLDER)

    def _loaded(self, job: CommandJob) -> str:
        self._say(_("The CT has come and is read."))
        with slicer.util.WaitCursor():
            series = choose_chest_series(list_series(job.folder / CT_FOLDER))
            ct = read_series(series, progress=part_of(self._show_progress, 0, 0.5))
            # Half a series in the database would help nobody.
            self.ui.stopButton.enabled = False
            try:
                files = sorted((job.folder / CT_FOLDER).rglob("*.dcm"))
                add_to_database(files, part_of(self._show_progress, 0.5, 1))
            finally:
                self.ui.stopButton.enabled = True
            node = volume_node_of_ct(ct, slicer.mrmlScene, series.description or _("CT"))
            mark_as_series(node, series.uid, series.modality)
            node.SetAttribute(INSTANCES_ATTRIBUTE, " ".join(one.sop_uid for one in series.slices))
        self._on_loaded(node)
        return _("The CT '{name}' (slices: {count}) was loaded.").format(name=node.GetName(), count=len(ct.hu))

    def _show_progress(self, fraction: float) -> None:
        """Also lets Slicer draw and *Stop* be clicked, after which it raises :class:`_StoppedError`."""
        self.ui.progressBar.value = round(100 * fraction)
        slicer.app.processEvents()
        if self._job is None:
            raise _StoppedError

    def _send(self) -> None:
        with self._errors_told():
            prepared = self._prepare()
            if prepared is None:
                return
            job = CommandJob()
            try:
                with slicer.util.WaitCursor():
                    (job.folder / SEND_FOLDER).mkdir()
                    notes = write_seg_and_sr(job.folder / SEND_FOLDER, *prepared)
            except BaseException:
                job.close()
                raise
            text = _("SEG and SR (lesions: {count}) are in the PACS '{server}'.")
            done = text.format(count=len(prepared[0].counted), server=self._server) + notes
            self._start(["push", "--json-progress", str(job.folder / SEND_FOLDER)], lambda _job: done, job=job)

    def _start(
        self, arguments: list[str], then: Callable[[CommandJob], str], *, job: CommandJob | None = None, output: str = ""
    ) -> None:
        """Run ``nlstseg pacs``; ``then(job)`` gives the sentence on its end. ``output`` names a folder in that of the job."""
        with self._errors_told():
            try:
                server = read_server(self._server)
                for package in (*read_requirements(), DICOMWEB_CLIENT if server.url else PYNETDICOM):
                    ensure_package(package, _("Speaking to a PACS"))
                job = job or CommandJob()
                more = ["-o", str(job.folder / output)] if output else []
                job.start(["pacs", arguments[0], "--server", self._server, *arguments[1:], *more], program_python())
            except BaseException:
                if job is not None:
                    job.close()
                raise
            self._job, self._then = job, then
            self.ui.progressBar.value = 0
            self._timer.start(POLL_MS)
        self.refresh()

    def _poll(self) -> None:
        job = self._job
        if job is None:
            return
        if not job.update():
            self.ui.progressBar.value = round(100 * job.fraction)
            return
        self._timer.stop()
        try:
            with self._errors_told():
                self._say(as_sentence(job.error) if job.error else self._then(job))
        except _StoppedError:
            # What was said of it stays.
            return
        finally:
            self._end()

    def _stop(self) -> None:
        self._end()
        self._say(_("It was stopped."))

    def _end(self) -> None:
        self._timer.stop()
        if self._job is not None:
            self._job.close()
            self._job = None
        self.refresh()
