"""A segmentation in a child process: what it is asked for, how far it is, how it ended."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import STOPPED, InputError, as_sentence, printable, says_out_of_memory
from NLSTSegLib.jobs.child_process import ChildProcess, Priority
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.remaining import RemainingTime
from NLSTSegLib.volume.ct import CtVolume

CT_FILE, RESULT_FOLDER = "ct.nrrd", "result"
"""Names in the scratch folder of the run: what goes in and what comes out."""

ERROR_LINE = re.compile(r"^nlstseg: (error: |unexpected )(.*)$", re.MULTILINE)
"""How the command line says on stderr what went wrong, in one sentence."""


class ChildRun:
    """``nlstseg segment`` on a CT, in a child process that lets others go first. :meth:`update` looks how far it is; nothing
    waits for it.

    ``fraction`` (0 to 1), ``stage`` (``"start"``, then the stages of the command line) and ``remaining_s`` (``None`` as long
    as it cannot be told) are those of the last :meth:`update`. After the end ``exit_code`` is set, and ``error`` holds one
    sentence, or nothing when the result is there. Used from one thread.
    """

    def __init__(self, ct: CtVolume, options: RunOptions, python: str) -> None:
        """Write the CT and start. Raises :class:`InputError` when either cannot be done; nothing is left then."""
        self.fraction, self.stage = 0.0, "start"
        self.remaining_s: float | None = None
        self.exit_code: int | None = None
        self.error = ""
        self._start_s = time.monotonic()
        self._remaining = RemainingTime()
        self._process = ChildProcess()
        try:
            file = self._process.folder / CT_FILE
            _write_ct(ct, file)
            arguments = ["segment", str(file), "-o", str(self.result_folder), "--save-probability", "--json-progress"]
            self._process.start([*arguments, *options.arguments()], python, Priority.BELOW_NORMAL)
        except BaseException:
            self.close()
            raise

    @property
    def result_folder(self) -> Path:
        """Where the result lies after a run without error, until :meth:`close`."""
        return self._process.folder / RESULT_FOLDER

    @property
    def details(self) -> str:
        """What the child has written to stderr, also after :meth:`close`."""
        return self._process.log

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run was asked for."""
        return time.monotonic() - self._start_s

    def update(self) -> bool:
        """Look how far the run is; whether it has ended."""
        if self.exit_code is not None:
            return True
        # First whether it has ended, then what it wrote: so nothing is missed.
        exit_code = self._process.exit_code
        for line in self._process.new_lines():
            self._read_progress(line)
        self.remaining_s = self._remaining.at(self.elapsed_s)
        if exit_code is not None:
            self.exit_code = exit_code
            if exit_code != 0:
                self.error = error_sentence(exit_code, self.details)
        return exit_code is not None

    def kill(self) -> None:
        """End it at once, with all that it started. Nothing of its result can be used afterwards."""
        if self.exit_code is None:
            self._process.kill()
            self.exit_code = STOPPED
            self.error = "The run was stopped."

    def close(self) -> None:
        """Kill it if it still runs, and remove its files; ``details`` stay. Once more does nothing."""
        self._process.close()

    def _read_progress(self, line: str) -> None:
        try:
            message = json.loads(line)
            fraction, stage = float(message["fraction"]), str(message["stage"])
        except (ValueError, TypeError, KeyError):
            return  # A library has printed something.
        if stage == "end":
            return  # The last line sums up the command, after the last stage.
        self.fraction, self.stage = min(max(fraction, 0.0), 1.0), stage
        self._remaining.add(self.fraction, self.elapsed_s)


def _write_ct(ct: CtVolume, file: Path) -> None:
    import SimpleITK as sitk

    try:
        # Packing it would take longer than the disk does.
        with point_in_numbers():
            sitk.WriteImage(ct.to_image(), str(file), useCompression=False)
    except RuntimeError as error:
        raise InputError(
            "the CT cannot be written to the disk for temporary files, which may be full; make room there and try again"
        ) from error


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
