"""A child process that ends when the program that started it has died, whatever launcher stands between the two."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

from NLSTSegLib.disk.lock import give_lock_back, take_lock
from NLSTSegLib.errors import InputError

OWNER_VARIABLE = "NLSTSEG_OWNER_LOCK"
"""Environment variable that names the lock of the scratch folder the child works in; whoever started it holds the lock."""

WATCH_S = 0.5
"""Seconds between two looks at the lock."""

OWNER_GONE = 131
"""Exit code of a child whose owner has died."""


def lock_of(folder: Path) -> Path:
    """The file whose lock the owner of a folder of :func:`NLSTSegLib.disk.scratch.scratch_folder` holds."""
    return folder.with_suffix(".lock")


def end_without_owner() -> None:
    """Watch the owner that the environment names, if it does, from a thread.

    The system gives the owner's lock back when the owner dies, however that comes about. Then nobody waits for the result
    any more: the scratch folder, with the patient's CT in it, is removed and the process ends with :data:`OWNER_GONE`.
    """
    named = os.environ.get(OWNER_VARIABLE)
    if named:
        threading.Thread(target=_watch, args=(Path(named),), daemon=True).start()


def _watch(lock: Path) -> None:
    while True:
        time.sleep(WATCH_S)
        try:
            descriptor = take_lock(lock)
        except FileNotFoundError:
            os._exit(OWNER_GONE)
        except (OSError, InputError):
            return  # The disk has no locks that would tell.
        if descriptor is not None:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            give_lock_back(lock, descriptor)
            os._exit(OWNER_GONE)
