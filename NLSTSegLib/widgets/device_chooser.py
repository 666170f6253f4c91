"""Where the network shall run: what there is, asked of a child process, so that torch is not loaded into Slicer for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar, get_args

import qt
from slicer.i18n import tr as _

from NLSTSegLib.errors import NLSTSegError
from NLSTSegLib.inference.devices import DeviceChoice
from NLSTSegLib.jobs.child_process import ChildProcess, Priority
from NLSTSegLib.scene.run import program_python
from NLSTSegLib.widgets.requirements import missing_requirements
from NLSTSegLib.widgets.settings import save_setting, setting

WAIT_MS = 2000
"""Before the child is started, so that it does not slow down the start of the module."""

POLL_MS = 200


class DeviceChooser:
    """``combo_box`` offers "automatic", the CPU, and the graphics cards once they are known."""

    notes: ClassVar[dict[str, str]] = {}
    """What each choice means here; asked once for each start of Slicer."""

    def __init__(self, combo_box: Any, on_change: Callable[[], None]) -> None:
        self._combo_box, self._on_change = combo_box, on_change
        self._child: ChildProcess | None = None
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._poll)
        self._show()
        combo_box.connect("currentIndexChanged(int)", self._chosen)
        if not self.notes:
            self._timer.start(WAIT_MS)

    @property
    def choice(self) -> DeviceChoice:
        """What the next run shall use."""
        chosen = str(self._combo_box.currentData)
        return next(choice for choice in get_args(DeviceChoice) if choice == chosen)

    def stop(self) -> None:
        """Ask no more."""
        self._timer.stop()
        if self._child is not None:
            self._child.close()
            self._child = None

    def _show(self) -> None:
        """List what there is, with the choice kept in the settings; that of a card that is gone is "automatic"."""
        names = {"auto": _("Automatic"), "cpu": _("CPU"), "cuda": _("CUDA"), "mps": _("Apple")}
        self._combo_box.blockSignals(True)
        self._combo_box.clear()
        for choice in self.notes or ("auto", "cpu"):
            name, note = names[choice], self.notes.get(choice, "")
            text = _("{name}: {note}").format(name=name, note=note) if note and choice != "cpu" else note or name
            self._combo_box.addItem(text, choice)
        kept = self._combo_box.findData(setting("device", "auto"))
        self._combo_box.currentIndex = max(kept, 0)
        self._combo_box.blockSignals(False)

    def _chosen(self, index: int) -> None:
        save_setting("device", self.choice)
        self._on_change()

    def _poll(self) -> None:
        if self._child is None:
            self._start()
        elif self._child.exit_code is not None:
            lines, exit_code = self._child.new_lines(), self._child.exit_code
            self.stop()
            if lines and exit_code == 0:
                type(self).notes = json.loads(lines[-1])
                self._show()
                self._on_change()

    def _start(self) -> None:
        if missing_requirements():
            # Without torch there is nobody to ask; a run installs it.
            self.stop()
            return
        try:
            self._child = ChildProcess()
            self._child.start(["devices", "--json"], program_python(), Priority.IDLE)
        except NLSTSegError:
            # The run itself will say so.
            self.stop()
        else:
            self._timer.start(POLL_MS)
