"""Folders for files that a reader needs on the disk for a moment; those of killed runs go with the next run."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from NLSTSegLib.disk.lock import give_lock_back, take_lock
from NLSTSegLib.errors import InputError

PREFIX = "nlstseg-scratch-"
"""Begin of the names in the system's folder for temporary files: of a folder, and of the file with its lock beside it."""

LOCK_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{16}}\.lock")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new empty folder that nobody else can look into, which goes at the end of the block."""
    remove_dead_folders()
    folder = temporary_folder() / f"{PREFIX}{secrets.token_hex(8)}"
    lock = lock_of(folder)
    descriptor = take_lock(lock)
    if descriptor is None:
        raise OSError(f"the new file '{lock}' is locked")
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        remove_own_folder(folder)
        give_lock_back(lock, descriptor)


def temporary_folder() -> Path:
    """The system's folder for temporary files; raises :class:`InputError` when there is none that can be written to."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        fix = "make room on its disk, or name another folder with the environment variable TMPDIR"
        raise InputError(f"there is no folder for temporary files that can be written to; {fix}") from error


def lock_of(folder: Path) -> Path:
    """The file whose lock the maker of a folder of :func:`scratch_folder` holds."""
    return folder.with_suffix(".lock")


def is_scratch_lock(lock: Path) -> bool:
    """Whether ``lock`` has the name and the place of one that :func:`scratch_folder` makes."""
    place = os.path.realpath(temporary_folder())
    return LOCK_NAME.fullmatch(lock.name) is not None and os.path.realpath(lock.parent) == place


@functools.cache
def remove_dead_folders() -> None:
    """Remove the folders of :func:`scratch_folder` that killed processes have left; once in a process is enough."""
    # Those of other users stay, and where a disk has no locks nobody knows whose they are.
    with contextlib.suppress(InputError):
        for lock in temporary_folder().glob(f"{PREFIX}*.lock"):
            with contextlib.suppress(OSError, InputError):
                remove_dead_folder(lock)


def remove_dead_folder(lock: Path) -> bool:
    """Remove the folder of this lock, and the lock, if its maker has died; whether he has.

    What no :func:`scratch_folder` made, or another user's, stays. Raises what :func:`NLSTSegLib.disk.lock.take_lock` does.
    """
    if not is_scratch_lock(lock):
        return False
    descriptor = take_lock(lock)
    if descriptor is None:
        return False
    remove_own_folder(lock.with_suffix(""))
    give_lock_back(lock, descriptor)
    return True


def remove_own_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done, unless it is a link or another user's."""
    with contextlib.suppress(OSError):
        facts = folder.lstat()
        if stat.S_ISDIR(facts.st_mode) and (sys.platform == "win32" or facts.st_uid == os.geteuid()):
            shutil.rmtree(folder, ignore_errors=True)
