"""A lock that dies with its process: what a killed run leaves on the disk keeps no later run out."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path

from NLSTSegLib.errors import InputError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a disk without locks answers, as some of computing clusters are."""


MOST_TRIES = 100
"""A lock that goes just now is tried again so often; a living one goes once or twice in a row."""


def take_lock(file: Path) -> int | None:
    """Make ``file`` if it is missing and lock it; ``None`` when another process or another call of this one has it.

    The system itself gives a lock back when its process ends, however that comes about; numbers of processes would tell
    less, since they are given anew and mean nothing to another container or computer. :func:`give_lock_back` takes what is
    returned. On a disk without locks, who makes the file has it. Links are not followed. Raises :class:`OSError` when the
    file cannot be made, and :class:`InputError`, which names it, when what is there cannot be a lock, is another user's, or
    is there on such a disk.
    """
    for _ in range(MOST_TRIES):
        made, descriptor = _open(file)
        if descriptor is None:
            continue
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
        except OSError as error:
            if made and error.errno in NO_LOCKS:
                return descriptor
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            what = "and its disk has no locks to tell whether another run made it"
            raise InputError(f"'{file}' is there, {what}; remove it if none is under way") from error
        # Who had the lock before removes the file: then this was the old one, which the next process would not see.
        if _is_in_place(file, descriptor):
            return descriptor
        os.close(descriptor)
    raise InputError(f"the lock '{file}' comes and goes without end; remove what makes it, or choose another place")


def give_lock_back(file: Path, descriptor: int) -> None:
    """Remove ``file`` and its lock, the two of :func:`take_lock`."""
    with contextlib.suppress(OSError):
        if sys.platform != "win32" and _is_in_place(file, descriptor):
            file.unlink()
    os.close(descriptor)
    if sys.platform == "win32":
        # An open file cannot be removed there: not by this process before, nor by it now if another has taken it.
        with contextlib.suppress(OSError):
            file.unlink()


def _open(file: Path) -> tuple[bool, int | None]:
    """Whether the file was made by this call, and it; ``None`` when it went just now."""
    # Neither through a link, to what somebody else chose, nor waiting for the other end of a pipe. Windows has neither flag.
    careful = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return True, os.open(file, careful | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        pass
    try:
        descriptor = os.open(file, careful)
    except FileNotFoundError:
        return False, None
    except PermissionError as error:
        what = "is another user's; remove it if no run is under way, or choose another place"
        raise InputError(f"the lock '{file}' {what}") from error
    except OSError as error:
        if not os.path.lexists(file):
            return False, None
        raise _no_lock(file) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_lock(file)
    return False, descriptor


def _no_lock(file: Path) -> InputError:
    return InputError(f"'{file}', which stands where a lock belongs, is a link or no file; remove it, or choose another place")


def _is_in_place(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    """Whether nobody else had it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True
