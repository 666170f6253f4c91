"""A command of the program in a child process: how far it is, what it printed, how it ended."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from NLSTSegLib.errors import STOPPED, as_sentence, printable, says_out_of_memory
from NLSTSegLib.jobs.child_process import ChildProcess, Priority

ERROR_LINE = re.compile(r"^nlstseg: (error: |unexpected )(.*)$", re.MULTILINE)
"""How the command line says on stderr what went wrong, in one sentence."""


class CommandJob:
    """``python -m NLSTSegLib ...`` with a scratch ``folder``, which goes with :meth:`close`; it lets others go first. Nothing
    waits for it: :meth:`update` looks how far it is.

    ``fraction`` (0 to 1) and ``stage`` (``"start"``, then those of the command) are those of the last line of progress,
    ``output`` is what else it has printed. After the end ``exit_code`` is set, and ``error`` holds one sentence, or nothing. Used
    from one thread.
    """

    def __init__(self) -> None:
        """Make the folder. Raises :class:`InputError` when there is none to be had."""
        self.fraction, self.stage, self.output, self.error = 0.0, "start", "", ""
        self.exit_code: int | None = None
        self._start_s = time.monotonic()
        self._process = ChildProcess()

    @property
    def folder(self) -> Path:
        return self._process.folder

    @property
    def details(self) -> str:
        """What the child has written to stderr, also after :meth:`close`."""
        return self._process.log

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job was made."""
        return time.monotonic() - self._start_s

    def start(self, arguments: Sequence[str], python: str) -> None:
        """Raises :class:`InputError` where there is no such Python."""
        self._process.start(arguments, python, Priority.BELOW_NORMAL)

    def update(self) -> bool:
        """Look how far it is; whether it has ended."""
        if self.exit_code is not None:
            return True
        # First whether it has ended, then what it wrote: so nothing is missed.
        exit_code = self._process.exit_code
        for line in self._process.new_lines():
            self._read(line)
        if exit_code is not None:
            self.exit_code = exit_code
            if exit_code != 0:
                self.error = error_sentence(exit_code, self.details)
        return exit_code is not None

    def kill(self) -> None:
        """End it at once, with all that it started. Nothing that it wrote can be used afterwards."""
        if self.exit_code is None:
            self._process.kill()
            self.exit_code = STOPPED
            self.error = "The run was stopped."

    def close(self) -> None:
        """Kill it if it still runs, and remove its files; ``details`` stay. Once more does nothing."""
        self._process.close()

    def _read(self, line: str) -> None:
        try:
            message = json.loads(line)
            fraction, stage = float(message["fraction"]), str(message["stage"])
        except (ValueError, TypeError, KeyError):
            self.output += line + "\n"
            return
        # The last line sums up the command, after the last stage.
        if stage != "end":
            self.fraction, self.stage = min(max(fraction, 0.0), 1.0), stage


def error_sentence(exit_code: int, log: str) -> str:
    """What went wrong, for a reader of CTs, of a child that ended with ``exit_code`` and has written ``log``."""
    found = ERROR_LINE.findall(log)
    last_line = printable((log.strip().splitlines() or [""])[-1].strip())[:200]
    name = _signal_name(exit_code)
    # The system itself ends with SIGKILL what takes the last memory.
    if says_out_of_memory(found[-1][1] if found else last_line) or name == "SIGKILL":
        return (
            "The run was ended because the memory of the computer or of its graphics card ran out, or somebody ended it; "
            "close other programs, or choose the device cpu, and try again."
        )
    if found and found[-1][0] == "error: ":
        return as_sentence(found[-1][1])
    if found:
        return f"The program failed ({found[-1][1].partition(';')[0][:200]}); copy the diagnostics and report them."
    if "ModuleNotFoundError" in last_line or "No module named" in last_line:
        return f"The run could not start ({last_line}); install the program's requirements again."
    if name:
        return f"The program crashed ({name}); copy the diagnostics and report them."
    what = f"exit code {exit_code}" if exit_code < 256 else f"exit code 0x{exit_code:08X}"
    what += f": {last_line}" if last_line else ""
    return f"The program ended unexpectedly ({what}); copy the diagnostics and report them."


def _signal_name(exit_code: int) -> str:
    """The signal that ended the process; a launcher passes that of its child on as 128 and its number."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    numbers = {int(each): each.name for each in signal.Signals}
    return numbers.get(number, "") if exit_code < 0 or 128 < exit_code < 160 else ""
