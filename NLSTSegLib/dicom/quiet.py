"""The DICOM libraries' imports and their logs, which may show whose data they handle."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.quiet import SharedBlock, quiet_pydicom

_LOGGERS = ("highdicom", "pynetdicom", "dicomweb_client", "urllib3")


def check_installed() -> None:
    """Raise :class:`InputError` unless the packages of the extra ``dicom`` are there."""
    try:
        importlib.import_module("highdicom")
    except ImportError as error:
        raise InputError(
            f"DICOM SEG and SR need a package that is missing ({error.name}): pip install 'nlstseg[dicom]'"
        ) from error


@contextmanager
def _without_their_words() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with quiet_pydicom():
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


quiet_dicom = SharedBlock(_without_their_words)
"""A block without warnings and log lines of pydicom, highdicom and the network libraries: they show names, IDs and UIDs."""
