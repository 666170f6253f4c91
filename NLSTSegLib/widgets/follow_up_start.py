"""Which two CTs are compared, and the work that this takes: begun, watched, cancelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from NLSTSegLib.errors import InputError, NLSTSegError
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.requirements import read_requirements
from NLSTSegLib.scene.follow_up_run import FollowUpRun
from NLSTSegLib.widgets.node_selector import NodeSelector, node_combo_box
from NLSTSegLib.widgets.requirements import ensure_package

POLL_MS = 100


class FollowUpStart:
    """The upper part of the panel ``ui``: two CTs, Compare, Cancel and progress.

    A CT without a review is segmented first: ``options`` are those of the run, ``prepare`` comes before it and may ask the user,
    ``on_result`` gets its segmentation and CT. ``review_of`` gives the review of a CT, or None. ``say`` gets sentences for the
    user, ``on_chosen`` is called when other CTs are chosen, and ``on_found`` gets both reviews and the registration.
    """

    def __init__(
        self,
        ui: Any,
        options: Callable[[], RunOptions],
        prepare: Callable[[], None],
        review_of: Callable[[Any], Any],
        on_result: Callable[[Any, Any], None],
        *,
        say: Callable[[str], None],
        on_chosen: Callable[[], None],
        on_found: Callable[[tuple[Any, Any], Registration], None],
    ) -> None:
        self.ui = ui
        self._options, self._prepare, self._review_of, self._on_result = options, prepare, review_of, on_result
        self._say, self._on_chosen, self._on_found = say, on_chosen, on_found
        self._run: FollowUpRun | None = None
        self.baseline = NodeSelector(node_combo_box("vtkMRMLScalarVolumeNode", _("No baseline")), lambda node: self._chosen())
        self.followup = NodeSelector(node_combo_box("vtkMRMLScalarVolumeNode", _("No follow-up")), lambda node: self._chosen())
        ui.baselineLayout.addWidget(self.baseline.widget)
        ui.followupLayout.addWidget(self.followup.widget)
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._poll)
        ui.compareButton.connect("clicked()", self._compare)
        ui.cancelButton.connect("clicked()", self._cancel)
        self.refresh()

    @property
    def volumes(self) -> tuple[Any, Any]:
        """The CTs that are chosen, each a node or None."""
        return self.baseline.node, self.followup.node

    def choose(self, baseline: Any, followup: Any) -> None:
        """Choose two CTs, or None."""
        self.baseline.select(baseline)
        self.followup.select(followup)

    def stop(self) -> None:
        """End what runs; nothing of it is shown."""
        self._timer.stop()
        if self._run is not None:
            self._run.close()
            self._run = None
        self.refresh()

    def close(self) -> None:
        """Let go of everything."""
        self.stop()
        self.baseline.close()
        self.followup.close()

    def refresh(self) -> None:
        """Say what can be done now, and what is under way."""
        running, both = self._run is not None, None not in self.volumes
        self.ui.compareButton.enabled = both and not running
        self.ui.compareButton.toolTip = (
            _("Register the two CTs and find the lesions of one in the other") if both else _("First choose both CTs.")
        )
        self.ui.cancelButton.visible = self.ui.progressBar.visible = running
        self.ui.progressBar.value = round(100 * self._run.fraction) if self._run is not None else 0
        self.ui.stageLabel.text = self._stage_text()
        self.ui.stageLabel.visible = bool(self.ui.stageLabel.text)

    def _stage_text(self) -> str:
        """What is done now, or would be done first."""
        if self._run is not None and self._run.volume_node is not None:
            return _("Searching for lesions in {name}").format(name=_names([self._run.volume_node]))
        if self._run is not None:
            return _("Registering the two CTs")
        if self._to_segment:
            return _("No review yet of {names}: Compare runs the model there first.").format(names=_names(self._to_segment))
        return ""

    @property
    def _to_segment(self) -> list[Any]:
        return [volume for volume in self.volumes if volume is not None and self._review_of(volume) is None]

    def _chosen(self) -> None:
        if self._run is not None and self._run.volume_nodes != self.volumes:
            self.stop()
            self._say(_("The comparison was stopped, because other CTs are chosen."))
        self._on_chosen()

    def _compare(self) -> None:
        self._say("")
        try:
            if self.baseline.node is self.followup.node:
                raise InputError(_("the baseline and the follow-up are the same CT; choose two CTs"))
            if self._to_segment:
                self._prepare()
            for package in read_requirements():
                ensure_package(package, _("Comparing two CTs"))
            self._run = FollowUpRun(self.volumes, self._to_segment, self._options(), self._on_result)
            self._timer.start(POLL_MS)
        except NLSTSegError as error:
            self._say(str(error))
        self.refresh()

    def _poll(self) -> None:
        run = self._run
        if run is None:
            return
        try:
            if run.update():
                self.stop()
                self._finish(run)
        except NLSTSegError as error:
            self.stop()
            self._say(str(error))
        self.refresh()

    def _finish(self, run: FollowUpRun) -> None:
        assert run.registration is not None, "it has ended"
        baseline, followup = (self._review_of(volume) for volume in run.volume_nodes)
        if baseline is None or followup is None:
            raise InputError(_("the review of a CT was deleted meanwhile; compare again"))
        self._on_found((baseline, followup), run.registration)

    def _cancel(self) -> None:
        self.stop()
        self._say(_("It was cancelled; what was compared before stays."))


def _names(volumes: Sequence[Any]) -> str:
    return ", ".join(f"'{volume.GetName()}'" for volume in volumes)
