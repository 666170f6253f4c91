"""Runs in child processes to test with: where their files go, which processes there are, a launcher as Slicer has one."""

import ctypes
import os
import shlex
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from helpers.placed_chest import chest_ct
from NLSTSegLib.volume.ct import CtVolume

WAIT_S = 1200
"""Against tests that hang, not a measure of anything: a busy computer may need minutes for what takes a second."""


def wait_until(done: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > end_s:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(0.02)


def long_ct() -> CtVolume:
    """Many chests beside and above each other: a run takes long enough to be stopped."""
    ct = chest_ct(np.eye(3))
    return replace(ct, hu=np.tile(ct.hu, (4, 4, 4)))


def living_processes(group: int) -> list[int]:
    """Numbers of the processes of a group that are no zombies. Raises :class:`unittest.SkipTest` where nobody can tell."""
    return [number for number, _, group_of_it in _processes() if group_of_it == group]


def children_with(command: str) -> list[int]:
    """Numbers of the processes that this one has started for ``nlstseg COMMAND``; each leads a group of the same number."""
    return [
        number
        for number, parent, group in _processes()
        if parent == os.getpid()
        and number == group
        and command.encode() in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    ]


def child_with(command: str) -> int:
    """The only one of :func:`children_with`, once it is there: while a process begins, the system shows no command of it."""
    wait_until(lambda: children_with(command), f"'nlstseg {command}' has begun")
    (child,) = children_with(command)
    return child


def _processes() -> list[tuple[int, int, int]]:
    """Number, parent and group of all that live."""
    if not Path("/proc/self/stat").exists():
        raise unittest.SkipTest("this system does not list its processes in /proc")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in brackets, may hold anything.
            state, parent, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # It ended just now.
        if state not in "ZX":
            found.append((int(entry.name), int(parent), int(group)))
    return found


def write_launcher(folder: Path) -> str:
    """A program that starts Python as its own child, and waits for it, as PythonSlicer does."""
    if os.name == "nt":
        raise unittest.SkipTest("the launcher is a shell script")
    launcher = folder / "launcher"
    launcher.write_text(f'#!/bin/sh\n{shlex.quote(sys.executable)} "$@"\nexit $?\n')
    launcher.chmod(0o755)
    return str(launcher)


def own_temporary_folder(case: unittest.TestCase) -> Path:
    """A folder for all temporary files until the end of the test, so that it can look whether any is left."""
    folder = Path(case.enterContext(tempfile.TemporaryDirectory()))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    case.addCleanup(setattr, tempfile, "tempdir", before)
    return folder


def without_overriding_rights() -> None:
    """Root may do what the rights of a file forbid; this process, and a program that it becomes, may not any more."""
    if os.geteuid() == 0:
        libc, drop_from_bounding_set, override_rights, override_reading = ctypes.CDLL(None), 24, 1, 2
        for capability in (override_rights, override_reading):
            libc.prctl(drop_from_bounding_set, capability, 0, 0, 0)
        # Version 3 of the call, for this process; first come those in effect, then those that it may have.
        header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.capget(header, sets)
        for number in (0, 1):
            sets[number] &= ~(1 << override_rights | 1 << override_reading)
        libc.capset(header, sets)


def can_be_without_rights() -> bool:
    return os.geteuid() != 0 or sys.platform == "linux"


def as_urgent_as_the_tests(case: unittest.TestCase) -> None:
    """Until the end of the test, children have the priority of the tests: behind others on a busy computer, some would starve."""
    case.enterContext(mock.patch("NLSTSegLib.jobs.child_process._be_nice"))
