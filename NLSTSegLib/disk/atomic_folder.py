"""A folder that appears whole or not at all: it is filled under another name, which is then changed; one run at a time."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from NLSTSegLib.disk.lock import give_lock_back, take_lock
from NLSTSegLib.disk.scratch import remove_own_folder
from NLSTSegLib.errors import InputError, is_out_of_memory, is_utf8

PARTIAL_MARK = ".partial-"
"""Part of the name of a folder that is being filled; the number of the process follows."""

LONGEST_NAME, LONGEST_PATH = 255, 3900
"""Bytes of a name, and of a path to which those of the files in the folder are added, on most systems."""

NOT_COUNTED = {".DS_Store"}
"""Files that a file manager puts into every folder somebody looks at."""

_HELD: set[tuple[int, Path]] = set()
"""Threads and the folders they hold; the lock itself cannot be taken twice."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """No other run writes to ``folder`` during the block, and what a killed run left of it was put in order before.

    The lock, a file beside ``folder``, dies with its process. In one thread the block may contain another of the same
    folder. Missing folders above it are made, and go again if nothing came into them. Raises :class:`InputError` when
    another run writes to ``folder``, or nothing can be written beside it.
    """
    place = _absolute(folder)
    key = (threading.get_ident(), place)
    if key in _HELD:
        yield
        return
    with _said_of(folder):
        _check_place(folder, place)
        missing = [parent for parent in place.parents if not parent.exists()]
    lock = place.parent / f".{place.name}.lock"
    try:
        with _said_of(folder):
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor = take_lock(lock)
        if descriptor is None:
            raise InputError(f"another run is writing to '{folder}'; wait until it is done, or choose another folder")
        _HELD.add(key)
        try:
            with _said_of(folder):
                _put_in_order(place)
            yield
        finally:
            _HELD.discard(key)
            give_lock_back(lock, descriptor)
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def prepare_place(folder: Path) -> set[str]:
    """Names of what ``folder`` holds, after what a killed run left of it was put in order; nothing if there is none.

    Raises :class:`InputError` when a folder of that name can be neither made nor replaced, or another run writes to it.
    """
    place = _absolute(folder)
    with _said_of(folder):
        _check_place(folder, place)
        if not place.parent.exists():
            return set()
        with held(folder):
            return set(os.listdir(place)) - NOT_COUNTED if place.exists() else set()


def other_than_files(folder: Path, names: Iterable[str]) -> str | None:
    """Name of something in ``folder`` that is not a file with one of ``names``: of another name, a folder, or a link."""
    known = {*names}
    for name in sorted(set(os.listdir(folder)) - NOT_COUNTED):
        if name not in known or not stat.S_ISREG((folder / name).lstat().st_mode):
            return name
    return None


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name ``folder`` at the end of the block; what had that name goes.

    Until then, and when the block raises, ``folder`` stays as it is. The caller has called :func:`prepare_place` and
    knows that its content may go; where another run might change that meanwhile, both are in one block of :func:`held`.
    Raises :class:`InputError` when a file cannot be written, or another run writes to ``folder``.
    """
    with held(folder):
        place = _absolute(folder)
        partial = place.parent / f".{place.name}{PARTIAL_MARK}{os.getpid()}"
        try:
            partial.mkdir(parents=True)
            yield partial
            _take_name(partial, place)
        except (OSError, RuntimeError, MemoryError) as error:
            if not place.parent.exists():
                why, fix = "the folder above it was removed", "run it again"
            elif is_out_of_memory(error):
                why, fix = "there is too little memory", "close other programs, or take a computer with more"
            elif isinstance(error, OSError):
                why, fix = error.strerror or str(error), "look after that disk, or choose another place"
            elif "ITK ERROR" in str(error):
                # SimpleITK says this at length, and of a full disk not that it is full.
                why, fix = "perhaps the disk is full", "make room on it, or choose another place"
            else:
                raise
            raise InputError(f"'{folder}' could not be written ({why}), nothing was changed there; {fix}") from error
        finally:
            remove_own_folder(partial)


@contextlib.contextmanager
def _said_of(folder: Path) -> Iterator[None]:
    """Errors of the system as one sentence about ``folder``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"the output '{folder}' cannot be used ({error.strerror}); choose another place") from error


def _check_place(folder: Path, place: Path) -> None:
    if not is_utf8(place):
        raise InputError(f"the output '{folder}' has a name that is not in UTF-8, which writing needs; choose another name")
    names = [*place.parts[1:-1], f".{place.name}{PARTIAL_MARK}{os.getpid()}"]
    if max(len(os.fsencode(name)) for name in names) > LONGEST_NAME or len(os.fsencode(place)) > LONGEST_PATH:
        raise InputError(f"the output '{str(folder)[:80]}...' has a name too long for the files in it; choose a shorter one")
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise InputError(f"the output '{folder}' is not a folder; choose another name")
    if os.path.ismount(place):
        raise InputError(f"the output '{folder}' is a disk of its own (a mount point); name a new folder in it")
    parent = next(p for p in place.parents if p.exists())
    if not parent.is_dir():
        raise InputError(f"the output '{folder}' cannot be made: '{parent}' is not a folder; choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"the output '{folder}' cannot be made: no right to write to '{parent}'; choose another place")
    if place.exists() and not os.access(place, os.W_OK | os.X_OK):
        # Its own files could not be removed, and who made it so wants to keep them.
        raise InputError(f"the output '{folder}' is there and read-only; choose another name")


def _take_name(partial: Path, place: Path) -> None:
    replaced = _replaced(place)
    try:
        if place.exists():
            place.rename(replaced)
        partial.rename(place)
    finally:
        # Also when the run is stopped between the two.
        if replaced.exists():
            # Under the name of what is half written nobody takes it for a result, should its removal be cut short.
            replaced.rename(partial if place.exists() else place)


def _absolute(folder: Path) -> Path:
    """Path with a name and a parent of its own, also for ``.``; that of the folder itself where ``folder`` is a link to one."""
    try:
        place = Path(os.path.abspath(folder))
        return place.resolve() if os.path.islink(place) and os.path.isdir(place) else place
    except OSError as error:  # of a folder that is not there any more
        raise InputError(f"'{folder}' lies in the current folder, which was removed; change to another one") from error


def _replaced(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.replaced"


def _put_in_order(folder: Path) -> None:
    """The caller has the lock, so what is there is of dead processes."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}{PARTIAL_MARK}*"):
        if left.name.rpartition(PARTIAL_MARK)[2].isdecimal():
            remove_own_folder(left)
    replaced = _replaced(folder)
    if replaced.exists():
        if folder.exists():
            remove_own_folder(replaced)
        else:
            # Killed between the two renames: what was replaced goes back to its place.
            replaced.rename(folder)
