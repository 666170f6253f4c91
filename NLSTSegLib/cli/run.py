"""How every command ends: errors in one line, exit codes, stopping."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator

import typer

from NLSTSegLib.cli.terminal import UnfailingStream
from NLSTSegLib.errors import STOPPED, UNEXPECTED, InputError, NLSTSegError, is_out_of_memory, printable


@contextlib.contextmanager
def exit_on_errors(debug: bool, program: str = "nlstseg") -> Iterator[None]:
    """Turn errors into one line of ``program`` on stderr and an exit code, and Ctrl-C or SIGTERM into exit code 130 at once."""

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    decoders = contextlib.nullcontext() if debug else quiet_decoders()
    try:
        with decoders:
            yield
    except NLSTSegError as error:
        print_error(error, debug, program)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        print(f"{program}: stopped; nothing half written was left", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # The network's thread may be inside a long call, and Python would wait for it.
        os._exit(STOPPED)
    except typer.Exit:
        raise
    except ModuleNotFoundError as error:
        if debug:
            traceback.print_exception(error)
        print(f"{program}: error: {missing_package(error)}", file=sys.stderr)
        raise typer.Exit(InputError.exit_code) from error
    except Exception as error:
        if is_out_of_memory(error):
            print_error(
                InputError("there is too little memory; close other programs, or take a computer with more"), debug, program
            )
            raise typer.Exit(InputError.exit_code) from error
        if debug:
            traceback.print_exception(error)
        what = printable(" ".join(f"{type(error).__name__}: {error}".split()))
        print(f"{program}: unexpected {what}; run it with --debug and report what that shows", file=sys.stderr)
        raise typer.Exit(UNEXPECTED) from error


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """What the C libraries that decode images print on stderr goes nowhere; what Python prints there still appears.

    They complain of a damaged file in many lines, for which there is one of ours.
    """
    shown = sys.stderr
    if sys.__stderr__ is None:
        yield
        return
    kept = os.dup(2)
    try:
        if shown is sys.__stderr__:
            sys.stderr = UnfailingStream(
                os.fdopen(os.dup(kept), "wb"), encoding=shown.encoding, errors=shown.errors, line_buffering=True
            )
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if sys.stderr is not shown:
            sys.stderr.close()
            sys.stderr = shown


def print_error(error: Exception, debug: bool, program: str = "nlstseg") -> None:
    """One line; the traceback too with ``debug``."""
    if debug:
        traceback.print_exception(error)
    print(f"{program}: error: {error}", file=sys.stderr)


def missing_package(error: ModuleNotFoundError) -> str:
    """Which package is missing, and how it is installed: by the extra of this project that names it, if one does."""
    module = (error.name or "").partition(".")[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("nlstseg") or ():
            named = re.match(r"([\w.-]+).*;.*extra == ['\"](\w+)['\"]", line)
            if named and named[1].lower().replace("-", "_") == module.lower():
                return f"this needs the package '{module}', which is not installed; pip install 'nlstseg[{named[2]}]'"
    return f"the package '{module}' that the program needs is not installed; install the program's requirements again"
