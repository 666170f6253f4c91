"""The point in numbers, for libraries that write and read text by the locale: a hosting program may have set one with a comma."""

from __future__ import annotations

import ctypes
import locale
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def point_in_numbers() -> Iterator[None]:
    """In this thread alone, C functions write and read numbers with a point, whatever locale the program has set.

    ITK's NRRD files need it: under a comma their spacing of 1.25 is read as 1 and written as ``1,25``. A desktop program takes
    the system's locale for all its threads, and to change that of the program would change its other threads.
    """
    if sys.platform == "win32":
        with _point_on_windows():
            yield
        return
    c = ctypes.CDLL(None)
    for name in ("newlocale", "uselocale"):
        getattr(c, name).restype = ctypes.c_void_p
    # Not a copy of the program's locale, which another thread may be changing just now: all of it as in C.
    point = c.newlocale(1 << locale.LC_NUMERIC, b"C", None)
    before = c.uselocale(ctypes.c_void_p(point))
    try:
        yield
    finally:
        c.uselocale(ctypes.c_void_p(before))
        c.freelocale(ctypes.c_void_p(point))


@contextmanager
def _point_on_windows() -> Iterator[None]:
    c = ctypes.CDLL("ucrtbase")
    shared = c._configthreadlocale(1)  # _ENABLE_PER_THREAD_LOCALE
    before = locale.setlocale(locale.LC_NUMERIC)
    locale.setlocale(locale.LC_NUMERIC, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
        c._configthreadlocale(shared)
