"""Any other command of the program in a child process: how far it is, what it printed, how it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from NLSTSegLib.jobs.child_process import ChildProcess, Priority
from NLSTSegLib.jobs.segment_job import error_sentence


class CommandJob:
    """``python -m NLSTSegLib ...`` with a scratch ``folder``, which goes with :meth:`close`. :meth:`update` looks how far it is.

    ``fraction`` (0 to 1) is that of the last progress line, ``output`` what else it has printed; after the end ``error`` holds
    one sentence, or nothing. Used from one thread.
    """

    def __init__(self) -> None:
        """Make the folder. Raises :class:`InputError` when there is none to be had."""
        self.fraction, self.output, self.error = 0.0, "", ""
        self._process = ChildProcess()

    @property
    def folder(self) -> Path:
        return self._process.folder

    def start(self, arguments: Sequence[str], python: str) -> None:
        """Raises :class:`InputError` where there is no such Python."""
        self._process.start(arguments, python, Priority.BELOW_NORMAL)

    def update(self) -> bool:
        """Whether it has ended."""
        # First whether it has ended, then what it wrote: so nothing is missed.
        exit_code = self._process.exit_code
        for line in self._process.new_lines():
            self._read(line)
        if exit_code:
            self.error = error_sentence(exit_code, self._process.log)
        return exit_code is not None

    def close(self) -> None:
        """End it if it still runs, and remove its files; once more does nothing."""
        self._process.close()

    def _read(self, line: str) -> None:
        if line.startswith('{"stage": '):
            self.fraction = float(json.loads(line)["fraction"])
        else:
            self.output += line + "\n"
