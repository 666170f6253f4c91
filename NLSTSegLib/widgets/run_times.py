"""How long runs take on this computer, kept in the settings; measured in the background where nothing is known yet."""

from __future__ import annotations

from collections.abc import Callable

import qt

from NLSTSegLib.errors import NLSTSegError
from NLSTSegLib.jobs.child_process import ChildProcess, Priority
from NLSTSegLib.jobs.learned_duration import RunTime, refined, run_time_of_text, time_key
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.scene.run import program_python
from NLSTSegLib.widgets.settings import save_setting, setting

WAIT_MS = 3000
"""Before something is measured, so that it does not slow down a user who is still choosing, or starts the run at once."""

POLL_MS = 500


class RunTimes:
    """``on_change`` is called when something was measured."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._tried: set[str] = set()
        self._wanted: RunOptions | None = None
        self._child: ChildProcess | None = None
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._poll)

    def of(self, options: RunOptions) -> RunTime | None:
        """What is known of runs with this model on this device."""
        return run_time_of_text(setting(time_key(options), ""))

    def measure(self, options: RunOptions) -> None:
        """Measure in a while, with low priority, unless something is known or it was tried before."""
        self.stop()
        if self.of(options) is None and time_key(options) not in self._tried:
            self._wanted = options
            self._timer.start(WAIT_MS)

    def learn(self, options: RunOptions, elapsed_s: float, stages_s: float, size_ijk: tuple[int, ...]) -> None:
        """Take a real run into account, see :func:`NLSTSegLib.jobs.learned_duration.refined`."""
        run_time = refined(self.of(options), elapsed_s, stages_s, size_ijk)
        if run_time is not None:
            save_setting(time_key(options), run_time.as_text())

    def stop(self) -> None:
        """Measure nothing now: a run begins, or the panel goes away."""
        self._timer.stop()
        self._wanted = None
        if self._child is not None:
            self._child.close()
            self._child = None

    def _poll(self) -> None:
        options = self._wanted
        if options is None:
            return
        if self._child is None:
            self._tried.add(time_key(options))
            self._start(options)
        elif self._child.exit_code is not None:
            lines = self._child.new_lines()
            measured = run_time_of_text(lines[-1]) if lines and self._child.exit_code == 0 else None
            self.stop()
            if measured is not None:
                save_setting(time_key(options), measured.as_text())
                self._on_change()

    def _start(self, options: RunOptions) -> None:
        what = ["--model", options.model, "--device", options.device]
        what += [] if options.threads is None else ["--threads", str(options.threads)]
        what += ["--everywhere"] if options.lung_field == "none" else []
        try:
            self._child = ChildProcess()
            self._child.start(["time", *what], program_python(), Priority.IDLE)
        except NLSTSegError:
            # The run itself will say so; without a time the panel says nothing.
            self.stop()
        else:
            self._timer.start(POLL_MS)
