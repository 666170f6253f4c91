"""A folder that appears whole or not at all: it is filled under another name, which is then changed."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from NLSTSegLib.errors import InputError

PARTIAL_MARK = ".partial-"
"""Part of the name of a folder that is being filled; the number of the process follows."""

NOT_COUNTED = {".DS_Store"}
"""Files that a file manager puts into every folder somebody looks at."""


def prepare_place(folder: Path) -> set[str]:
    """Names of what ``folder`` holds, after what a killed run left of it was put in order; nothing if there is none.

    Raises :class:`InputError` when a folder of that name can be neither made nor replaced.
    """
    folder = _absolute(folder)
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InputError(f"the output '{folder}' is not a folder; choose another name")
        if os.path.ismount(folder):
            raise InputError(f"the output '{folder}' is a disk of its own (a mount point); name a new folder in it")
        parent = next(p for p in folder.parents if p.exists())
        if not parent.is_dir():
            raise InputError(f"the output '{folder}' cannot be made: '{parent}' is not a folder; choose another place")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise InputError(f"the output '{folder}' cannot be made: no right to write to '{parent}'; choose another place")
        _put_in_order(folder)
        return set(os.listdir(folder)) - NOT_COUNTED if folder.exists() else set()
    except OSError as error:
        raise InputError(f"the output '{folder}' cannot be used ({error.strerror}); choose another place") from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name ``folder`` at the end of the block; what had that name goes.

    Until then, and when the block raises, ``folder`` stays as it is. The caller has called :func:`prepare_place` and
    knows that its content may go. Raises :class:`InputError` when a file cannot be written.
    """
    place = _absolute(folder)
    partial = place.parent / f".{place.name}{PARTIAL_MARK}{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        yield partial
        _take_name(partial, place)
    except OSError as error:
        raise InputError(f"'{folder}' could not be written ({error.strerror}); nothing was changed there") from error
    except RuntimeError as error:
        if "ITK ERROR" not in str(error):
            raise
        # SimpleITK says this at length, and of a full disk not that it is full.
        raise InputError(f"'{folder}' could not be written, perhaps the disk is full; nothing was changed there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _take_name(partial: Path, place: Path) -> None:
    replaced = _replaced(place)
    try:
        if place.exists():
            place.rename(replaced)
        partial.rename(place)
    except BaseException:
        if replaced.exists() and not place.exists():
            replaced.rename(place)
        raise
    if replaced.exists():
        # Under this name nobody takes it for a result, should its removal be cut short.
        replaced.rename(partial)


def _absolute(folder: Path) -> Path:
    """With a name and a parent of its own, also for ``.``; links are not followed."""
    return Path(os.path.abspath(folder))


def _replaced(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.replaced"


def _put_in_order(folder: Path) -> None:
    for left in folder.parent.glob(f".{glob.escape(folder.name)}{PARTIAL_MARK}*"):
        if not _is_running_elsewhere(left.name.rpartition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    replaced = _replaced(folder)
    if replaced.exists():
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            # Killed between the two renames: what was replaced goes back to its place.
            replaced.rename(folder)


def _is_running_elsewhere(process: str) -> bool:
    if not process.isdecimal() or int(process) == os.getpid() or os.name == "nt":
        # In a container every run may have the same number. On Windows os.kill would end the process; a folder that is in
        # use there cannot be removed anyway.
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
