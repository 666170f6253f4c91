"""Silence of pydicom, whose warnings show the values of a patient, also where several threads read."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class SharedBlock:
    """A block on the state of the process that threads share: the first in begins it, and the last out ends it.

    If each gave back what it had found, the last out would leave what the first had set.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[None]]) -> None:
        self._begin, self._lock = begin, threading.Lock()
        self._inside = 0
        self._block: AbstractContextManager[None]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._block = self._begin()
                self._block.__enter__()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._block.__exit__(None, None, None)


@contextmanager
def _without_pydicoms_words() -> Iterator[None]:
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


quiet_pydicom = SharedBlock(_without_pydicoms_words)
"""A block without warnings of pydicom about values that break the standard, on stderr or in the log of a hosting program: they
show the value, which may say whose CT it is. What matters of them is checked by the readers."""
