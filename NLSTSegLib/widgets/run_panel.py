"""Apply, progress, Cancel, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from NLSTSegLib.errors import InputError, NLSTSegError
from NLSTSegLib.jobs.diagnostics import diagnostics_text, model_facts
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.remaining import duration_text
from NLSTSegLib.results.saved import SavedResult
from NLSTSegLib.scene.run import SceneRun
from NLSTSegLib.widgets.panel import Panel
from NLSTSegLib.widgets.run_times import RunTimes

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

POLL_MS = 100

DIAGNOSTICS_FILE = "NLSTSeg-last-run.txt"
"""File in the application's folder for temporary files: what "Copy diagnostics" copies, of the last run."""


class RunPanel(Panel):
    """Runs what ``request`` gives, a CT and options, after ``prepare``; hands segmentation and CT to ``on_result``.

    What came of a run is said while its CT is the one of ``request``. The result of another one waits: a button says that it
    is ready, and hands the CT to ``on_show``.

    ``reasons`` are whole sentences why no run is possible now. ``prepare`` may ask the user and takes its time; it raises
    :class:`NLSTSegError` where the run cannot begin. All of it runs on the main thread, the work in a child process.
    """

    def __init__(
        self,
        reasons: Callable[[], list[str]],
        request: Callable[[], tuple[vtkMRMLScalarVolumeNode, RunOptions]],
        prepare: Callable[[], None],
        on_result: Callable[[vtkMRMLSegmentationNode, vtkMRMLScalarVolumeNode], None],
        on_show: Callable[[vtkMRMLScalarVolumeNode], None],
    ) -> None:
        super().__init__("RunPanel")
        self._reasons, self._request, self._prepare = reasons, request, prepare
        self._on_result, self._on_show = on_result, on_show
        self._run: SceneRun | None = None
        # Sentence and log of the last run of every CT, by the identifier of its node; "" is what belongs to none.
        self._ends: dict[str, tuple[str, str | None]] = {}
        self._ready_ids: list[str] = []
        self._said: object = None
        self._is_preparing = self._is_closed = False
        self.diagnostics = ""
        self._times = RunTimes(self.refresh)
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._poll)
        self.ui.applyButton.connect("clicked()", self._apply)
        self.ui.cancelButton.connect("clicked()", self._cancel)
        self.ui.copyButton.connect("clicked()", self._copy)
        self.ui.readyButton.connect("clicked()", self._show_ready)
        self._show_end()

    @property
    def is_running(self) -> bool:
        """Whether a child is at work."""
        return self._run is not None

    def refresh(self) -> None:
        """Look again whether a run is possible, and how long it would take."""
        if self._is_closed:
            return
        is_busy = self.is_running or self._is_preparing
        reasons = [_("A run is under way.")] if is_busy else self._reasons()
        self.ui.applyButton.enabled = not reasons
        self.ui.applyButton.toolTip = "\n".join(reasons) or _("Find the lesions in the CT; each becomes a segment")
        self.ui.progressWidget.visible = self.is_running
        estimate = ""
        if not reasons:
            volume_node, options = self._request()
            estimate = self._estimate_text(volume_node, options)
            self._times.measure(options)
        self.ui.estimateLabel.text = estimate
        self.ui.estimateLabel.visible = bool(estimate)
        self._show_end()

    def stop(self, sentence: str) -> None:
        """Kill the run if there is one, and say ``sentence``. The scene stays as it is, nothing of the run is left."""
        if self._run is not None:
            self._leave(self._run, sentence, is_failed=False)

    def forget(self, sentence: str) -> None:
        """The scene is closed: stop the run, if there is one, for the reason ``sentence``, and forget all CTs."""
        if self._run is not None:
            self._leave(self._run, sentence, is_failed=False, volume_id="")
        self._ends = {key: end for key, end in self._ends.items() if not key}
        self._ready_ids = []
        self._show_end()

    def close(self) -> None:
        """The panel goes away, and with it a run that is under way."""
        self.stop(_("The run was stopped, because the module was closed."))
        self._is_closed = True
        self._times.stop()

    def _apply(self) -> None:
        if self.is_running or self._is_preparing:
            return
        self._times.stop()
        self._is_preparing = True
        self._ends.pop("", None)
        self._ends.pop(self._chosen_id, None)
        self.refresh()
        names: list[str] = []
        try:
            self._prepare()
            # While it asked and installed, the scene may have been closed, or the panel.
            reasons = self._reasons()
            if reasons:
                raise InputError(reasons[0])
            if not self._is_closed:
                volume_node, options = self._request()
                names.append(volume_node.GetName())
                self._run = SceneRun(volume_node, options)
        except NLSTSegError as error:
            self._keep_diagnostics(None, str(error), names)
            self._ends[self._chosen_id] = str(error), ""
        else:
            if self._run is not None:
                self._show_progress(self._run)
                self._timer.start(POLL_MS)
        finally:
            self._is_preparing = False
            self.refresh()

    def _poll(self) -> None:
        run = self._run
        if run is None:
            return
        if not run.volume_is_there:
            sentence = _("The run was stopped, because the CT '{name}' is no longer in the scene.")
            self._leave(run, sentence.format(name=run.volume_name), is_failed=False, volume_id="")
        elif run.child.update():
            self._finish(run)
        else:
            self._show_progress(run)

    def _finish(self, run: SceneRun) -> None:
        elapsed_s = run.child.elapsed_s
        try:
            node = run.finish()
        except NLSTSegError as error:
            self._leave(run, str(error), is_failed=True)
            return
        except BaseException:
            self._leave(run, _("The result could not be shown."), is_failed=True)
            raise
        result = run.result
        assert result is not None, "a finished run has a result"
        self._times.learn(run.options, elapsed_s, result.seconds["total"], run.ct_facts.size_ijk)
        if run.volume_node.GetID() != self._chosen_id:
            self._ready_ids.append(run.volume_node.GetID())
        self._leave(run, _end_text(run.volume_name, result, elapsed_s), is_failed=False)
        self._on_result(node, run.volume_node)

    def _leave(self, run: SceneRun, sentence: str, *, is_failed: bool, volume_id: str | None = None) -> None:
        """The run is over, however it ended; ``volume_id`` is that of its CT, "" where it is not in the scene any more."""
        self._timer.stop()
        self._run = None
        run.cancel()
        self._keep_diagnostics(run, sentence, [run.volume_name])
        key = (run.volume_node.GetID() if run.volume_is_there else "") if volume_id is None else volume_id
        self._ends[key] = sentence, run.child.details if is_failed else None
        self.refresh()

    @property
    def _chosen_id(self) -> str:
        """Identifier of the node of the CT that is chosen, "" for none."""
        volume_node, _options = self._request()
        return volume_node.GetID() if volume_node is not None and volume_node.GetScene() is not None else ""

    def _show_ready(self) -> None:
        volume_node = slicer.mrmlScene.GetNodeByID(self._ready_ids[0]) if self._ready_ids else None
        if volume_node is not None:
            self._on_show(volume_node)
        self._show_end()

    def _cancel(self) -> None:
        self.stop(_("The run was cancelled; the scene is as it was."))

    def _copy(self) -> None:
        slicer.app.clipboard().setText(self.diagnostics)
        slicer.util.showStatusMessage(_("The diagnostics are in the clipboard."), 3000)

    def _keep_diagnostics(self, run: SceneRun | None, sentence: str, names: list[str]) -> None:
        slicer_version = f"{slicer.app.applicationVersion} revision {slicer.app.revision}"
        if run is None:
            self.diagnostics = diagnostics_text(slicer_version=slicer_version, sentence=sentence, log="", names=names)
        else:
            facts = model_facts(run.options.model)
            facts |= {"stage": run.child.stage, "seconds": f"{run.child.elapsed_s:.1f}", "exit code": str(run.child.exit_code)}
            if run.result is not None:
                facts |= {"device": run.result.device_note, "weights_sha256": run.result.card.weights_sha256}
                facts |= {f"seconds of {stage}": str(value) for stage, value in run.result.seconds.items()}
            self.diagnostics = diagnostics_text(
                slicer_version=slicer_version,
                sentence=sentence,
                log=run.child.details,
                options=run.options,
                ct=run.ct_facts,
                findings=run.result.findings if run.result else (),
                facts=facts,
                names=names,
            )
        try:
            Path(slicer.app.temporaryPath, DIAGNOSTICS_FILE).write_text(self.diagnostics, encoding="utf-8")
        except OSError as error:
            # The panel still has them; a full disk must not keep it from showing how the run ended.
            logging.getLogger(__name__).warning("the log of the run was not kept: %s", error.strerror)

    def _show_progress(self, run: SceneRun) -> None:
        child = run.child
        text, remaining_s = _stage_text(child.stage), child.remaining_s
        if remaining_s:
            text = _("{stage}, about {time} left").format(stage=text, time=duration_text(remaining_s))
        self.ui.stageLabel.text = text
        # Nothing is known of the start; a bar without an end says so.
        self.ui.progressBar.maximum = 0 if child.stage == "start" else 1000
        self.ui.progressBar.value = round(1000 * child.fraction)

    def _show_end(self) -> None:
        """What came of the last run of the CT that is chosen, and which other CT has a result that waits."""
        chosen_id, scene = self._chosen_id, slicer.mrmlScene
        self._ready_ids = [each for each in self._ready_ids if each != chosen_id and scene.GetNodeByID(each) is not None]
        self.ui.readyButton.visible = bool(self._ready_ids)
        if self._ready_ids:
            name = scene.GetNodeByID(self._ready_ids[0]).GetName()
            self.ui.readyButton.text = _("{name} is ready: show").format(name=name)
        # A log is None where there is nothing to look into.
        sentence, log = self._ends.get(chosen_id) or ("", None)
        if (sentence, log) == self._said:
            return
        self._said = sentence, log
        self.ui.statusLabel.text = sentence
        self.ui.statusLabel.visible = bool(sentence)
        self.ui.reportWidget.visible = log is not None
        self.ui.detailsButton.collapsed = True
        self.ui.logEdit.plainText = log or _("The child process has written nothing.")

    def _estimate_text(self, volume_node: vtkMRMLScalarVolumeNode, options: RunOptions) -> str:
        """Empty where nothing is known."""
        run_time, image = self._times.of(options), volume_node.GetImageData()
        if run_time is None or image is None:
            return ""
        seconds = run_time.estimate_s(image.GetDimensions())
        return _("about {time} on this computer").format(time=duration_text(seconds))


def _end_text(ct_name: str, result: SavedResult, elapsed_s: float) -> str:
    count, time = len(result.lesions), duration_text(elapsed_s)
    number = {0: _("no lesions were found"), 1: _("one lesion was found")}.get(count, _("{count} lesions were found"))
    options = _("threshold {threshold:g}, smallest volume {volume:g} mm³, {time}")
    options = options.format(threshold=result.threshold, volume=result.min_volume_mm3, time=time)
    lines = [f"{ct_name}: {number.format(count=count)} ({options})."]
    lines += [f"• {f.message} {f.fix}".strip() for f in result.findings if f.severity == "warning"]
    return "\n".join(lines)


def _stage_text(stage: str) -> str:
    texts = {
        "start": _("Starting"),
        "read": _("Reading the CT"),
        "check": _("Checking the CT"),
        "lung field": _("Finding the lungs"),
        "network": _("Searching for lesions"),
        "lesions": _("Outlining the lesions"),
        "write": _("Writing the result"),
        "done": _("Showing the result"),
    }
    return texts.get(stage, stage)
