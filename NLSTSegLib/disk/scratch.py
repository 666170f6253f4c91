"""Folders for files that a reader needs on the disk for a moment; those of killed runs go with the next run."""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from NLSTSegLib.disk.lock import give_lock_back, take_lock
from NLSTSegLib.errors import InputError

PREFIX = "nlstseg-scratch-"
"""Begin of the names in the system's folder for temporary files: of a folder, and of the file with its lock beside it."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new empty folder that nobody else can look into, which goes at the end of the block."""
    remove_dead_folders()
    folder = Path(tempfile.gettempdir(), f"{PREFIX}{secrets.token_hex(8)}")
    lock = folder.with_suffix(".lock")
    descriptor = take_lock(lock)
    if descriptor is None:
        raise OSError(f"the new file '{lock}' is locked")
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        give_lock_back(lock, descriptor)


@functools.cache
def remove_dead_folders() -> None:
    """Remove the folders of :func:`scratch_folder` that killed processes have left; once in a process is enough."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        # Those of other users stay, and where a disk has no locks nobody knows whose they are.
        with contextlib.suppress(OSError, InputError):
            descriptor = take_lock(lock)
            if descriptor is not None:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                give_lock_back(lock, descriptor)
