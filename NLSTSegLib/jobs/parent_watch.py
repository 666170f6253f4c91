"""A child process that ends when the program that started it has died, whatever launcher stands between the two."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from NLSTSegLib.disk.scratch import is_scratch_lock, remove_dead_folder
from NLSTSegLib.errors import OWNER_GONE, InputError

OWNER_VARIABLE = "NLSTSEG_OWNER_LOCK"
"""Environment variable that names the lock of the scratch folder the child works in; whoever started it holds the lock."""

WATCH_S = 0.5
"""Seconds between two looks at the lock."""


def end_without_owner() -> None:
    """Watch the owner that the environment names, if it does, from a thread.

    The system gives the owner's lock back when the owner dies, however that comes about. Then nobody waits for the result
    any more: the scratch folder, with the patient's CT in it, is removed and the process ends with :data:`OWNER_GONE`.
    Raises :class:`InputError` when the environment names anything but the lock of a scratch folder.
    """
    named = os.environ.get(OWNER_VARIABLE)
    if not named:
        return
    lock = Path(named)
    if not is_scratch_lock(lock):
        raise InputError(f"{OWNER_VARIABLE} is set to '{named}', which is no lock of this program; unset it")
    threading.Thread(target=_watch, args=(lock,), daemon=True).start()


def _watch(lock: Path) -> None:
    while True:
        time.sleep(WATCH_S)
        try:
            is_dead = remove_dead_folder(lock)
        except FileNotFoundError:
            is_dead = True
        except (OSError, InputError):
            return  # The disk has no locks that would tell.
        if is_dead:
            os._exit(OWNER_GONE)
