"""The command line in processes of their own that need not import torch: they are forked from a server that has imported it.

Where many runs are killed, stopped or starved, importing is most of what they would do. What depends on how Python starts
(``PYTHONPATH``, ``LD_PRELOAD``, limits before the first line) needs :class:`subprocess.Popen`.
"""

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import spawn
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from unittest import mock

PRELOADED = (
    *("torch", "SimpleITK", "pydicom", "PIL.Image", "pydantic", "rich.progress", "safetensors.torch"),
    *("NLSTSegLib.cli.app", "NLSTSegLib.cli.batch", "NLSTSegLib.cli.run", "NLSTSegLib.pipeline", "NLSTSegLib.results.folder"),
)


class ForkedCommand:
    """``nlstseg`` with some arguments, started now: as much of :class:`subprocess.Popen` with pipes for text as tests use.

    ``before`` is called in the process first; it must be a function that can be pickled.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        before: Callable[[], None] | None = None,
        files: tuple[int, int] | None = None,
    ) -> None:
        """With ``files``, stdout and stderr go there, and there is nothing to be read here."""
        context = multiprocessing.get_context("forkserver")
        if files is None:
            (stdout, out), (stderr, err) = context.Pipe(duplex=False), context.Pipe(duplex=False)
            self.stdout, self.stderr = (os.fdopen(os.dup(pipe.fileno()), encoding="utf-8") for pipe in (stdout, stderr))
        else:
            # Of files too: a connection is a file's number that travels to another process.
            out, err = (Connection(os.dup(file), readable=False) for file in files)
        self._process = context.Process(target=_run, args=(list(arguments), str(cwd), dict(environment), before, out, err))
        with (
            mock.patch("multiprocessing.forkserver.connect_to_new_process", _server().connect_to_new_process),
            # What runs the tests is not to be run there too.
            mock.patch("multiprocessing.spawn.get_preparation_data", _preparation_without_main),
        ):
            self._process.start()
        self.pid = self._process.pid
        # What waits for the end of a pipe must be its only owner.
        for pipe in (out, err):
            pipe.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("nlstseg", timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What is still to be read of stdout and stderr, after the end."""
        told = tuple("" if pipe.closed else pipe.read() for pipe in (self.stdout, self.stderr))
        self.__exit__()
        return told

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "ForkedCommand":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()
        self.wait()


def _preparation_without_main(name: str) -> dict[str, object]:
    whole = _PREPARATION(name)
    return {key: value for key, value in whole.items() if not key.startswith("init_main")}


_PREPARATION = spawn.get_preparation_data


@contextlib.contextmanager
def forked_jobs() -> Iterator[None]:
    """In this block the children of :mod:`NLSTSegLib.jobs` are forked: for tests of what they give, not of how they start.

    Not on Windows, which cannot fork, not inside Slicer, whose Python is a launcher, and not in a process that may make no
    socket (:mod:`helpers.no_network`), which a server takes.
    """
    is_launcher = not Path(sys.executable).name.startswith("python")
    if sys.platform == "win32" or is_launcher or "NLSTSEG_TEST_TRIED" in os.environ:
        yield
        return
    with mock.patch("NLSTSegLib.jobs.child_process._start", _start_job):
        yield


def _start_job(command: Sequence[str], environment: Mapping[str, str], output: int, log: int, priority: int) -> ForkedCommand:
    arguments = command[command.index("NLSTSegLib") + 1 :]
    child = ForkedCommand(arguments, Path.cwd(), environment, os.setsid, (output, log))
    # Who kills it kills its group, which is there when a process is started as usual.
    with contextlib.suppress(ProcessLookupError):
        while os.getpgid(child.pid) != child.pid:
            time.sleep(0.001)
    return child


@functools.cache
def _server() -> ForkServer:
    """Not that of :mod:`multiprocessing` itself, which the loading of training data uses."""
    server = ForkServer()
    server.set_forkserver_preload(list(PRELOADED))
    # Its socket outlives the folder that the test of now may have for its temporary files.
    with mock.patch.object(tempfile, "tempdir", None):
        server.ensure_running()
    return server


def _run(
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    before: Callable[[], None] | None,
    stdout: Connection,
    stderr: Connection,
) -> None:
    """In the forked process, which ends as one of Python's own would."""
    for number, pipe in ((1, stdout), (2, stderr)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, encoding="utf-8")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None
    if before:
        before()
    from NLSTSegLib.cli.app import main

    sys.argv = ["nlstseg", *arguments]
    code = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
