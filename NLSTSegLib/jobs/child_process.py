"""The command line in a process of its own, polled and killed with everything that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path

from NLSTSegLib.disk.scratch import lock_of, scratch_folder
from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.parent_watch import OWNER_VARIABLE

OUTPUT_FILE, LOG_FILE = "stdout.txt", "stderr.txt"
"""Where the child writes: files never fill up and block it, and are read without waiting."""

LONGEST_LOG_BYTES = 100_000
"""Longest log that is kept whole; of a longer one it is the end."""

DEATH_S = 0.9
"""Seconds that a killed process may take to be gone."""


class Priority(IntEnum):
    """Priority of a child, beside this process: by how much it is nicer, where the system counts so."""

    BELOW_NORMAL = 5
    """It has all cores as long as nobody else wants them; windows and mouse go first."""
    IDLE = 19
    """It has what nobody else wants."""


class ChildProcess:
    """``python -m NLSTSegLib ...``, with a scratch ``folder`` that goes with :meth:`close`.

    In Slicer ``python`` is a launcher, whose own child does the work; so the whole tree is started, and killed, as one. The
    child ends by itself when this process dies (:mod:`NLSTSegLib.jobs.parent_watch`). Used from one thread.
    """

    def __init__(self) -> None:
        """Make the folder. Raises :class:`InputError` when the disk for temporary files cannot be used."""
        self._closing = ExitStack()
        try:
            self.folder: Path = self._closing.enter_context(scratch_folder())
        except OSError as error:
            raise InputError(
                f"no temporary folder can be made ({error.strerror}); make room on the disk for temporary files"
            ) from error
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._read_bytes = 0
        self._log = ""

    def start(self, arguments: Sequence[str], python: str, priority: Priority) -> None:
        """Start the command. Raises :class:`InputError` when there is no such Python or it cannot be run."""
        library = str(Path(__file__).resolve().parents[2])
        paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            # By its place the child knows the lock again.
            "TMPDIR": tempfile.gettempdir(),
            OWNER_VARIABLE: str(lock_of(self.folder)),
        }
        # Without -P the current folder would come before PYTHONPATH; what is written is UTF-8 on every system.
        command = [python, "-P", "-X", "utf8", "-m", "NLSTSegLib", *arguments]
        with open(self.folder / OUTPUT_FILE, "wb") as output, open(self.folder / LOG_FILE, "wb") as log:
            try:
                self._process = _start(command, environment, output.fileno(), log.fileno(), priority)
            except OSError as error:
                raise InputError(
                    f"the program's Python '{python}' cannot be started ({error.strerror}); install the program again"
                ) from error

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs; negative for the number of a signal that ended it."""
        if self._exit_code is None and self._process is not None:
            self._exit_code = self._process.poll()
            if self._exit_code:
                # A launcher that was killed leaves its child behind.
                _kill_tree(self._process.pid)
        return self._exit_code

    def new_lines(self) -> list[str]:
        """The whole lines that the child has written to stdout since the last call."""
        with open(self.folder / OUTPUT_FILE, "rb") as file:
            file.seek(self._read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        return whole.decode(errors="replace").splitlines()

    @property
    def log(self) -> str:
        """What the child has written to stderr; to be read after :meth:`close` too."""
        if (self.folder / LOG_FILE).exists():
            with open(self.folder / LOG_FILE, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LOG_BYTES))
                self._log = file.read().decode(errors="replace")
        return self._log

    def kill(self) -> None:
        """End the process and all that it started, at once; after its end this does nothing."""
        if self._process is None or self.exit_code is not None:
            return
        _kill_tree(self._process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._exit_code = self._process.wait(DEATH_S)

    def close(self) -> None:
        """Kill it if it still runs and remove the folder; once more does nothing."""
        self.kill()
        _ = self.log
        self._closing.close()


def _start(
    command: Sequence[str], environment: dict[str, str], output: int, log: int, priority: Priority
) -> subprocess.Popen[bytes]:
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        flags |= {
            Priority.BELOW_NORMAL: subprocess.BELOW_NORMAL_PRIORITY_CLASS,
            Priority.IDLE: subprocess.IDLE_PRIORITY_CLASS,
        }[priority]
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=log,
        start_new_session=True,
        creationflags=flags,
    )
    if sys.platform != "win32":
        _be_nice(process.pid, priority)
    return process


def _be_nice(leader: int, by: int) -> None:
    """To this process, for the group of ``leader`` and what it starts from now on."""
    if sys.platform != "win32":
        # The process may be over already.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PGRP, leader, min(19, os.getpriority(os.PRIO_PROCESS, 0) + by))
        # Linux may weigh a session as a whole, by a number of its own; where it does not, there is no such file.
        with contextlib.suppress(OSError):
            Path(f"/proc/{leader}/autogroup").write_text(str(by), encoding="ascii")


def _kill_tree(leader: int) -> None:
    if sys.platform == "win32":
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(leader)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=subprocess.CREATE_NO_WINDOW,
            check=False,
        )
    else:
        # Nobody is left in the group, or (macOS) only processes that are dead already.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
