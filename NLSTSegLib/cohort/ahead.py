"""The next chest of a worker, read while its network is at another: waiting for a disk or an address does not keep it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from NLSTSegLib.cohort.case import Case
from NLSTSegLib.cohort.clusters import CASE_BYTES
from NLSTSegLib.cohort.places import fetched
from NLSTSegLib.cohort.reading_list import files_of, read_case_files
from NLSTSegLib.reading.dicom_series import DicomSeries
from NLSTSegLib.volume.ct import CtVolume

READING_BYTES = 8
"""Memory that a voxel takes while it is read, at most, beside what the case before takes."""

_AHEAD: list[Reading] = []
"""What this process reads ahead: one case, or none."""


class Reading:
    """A CT that is read in a thread of its own, from files that are there until :meth:`close`."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.files: list[Path] = []
        """As far as they are known; reasons of errors name them."""
        self._closing = contextlib.ExitStack()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="reading", daemon=True)
        self._thread.start()

    def ct_and_series(self) -> tuple[CtVolume, DicomSeries | None]:
        """Waits for its end; raises what the reading raises."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found

    def close(self) -> None:
        """Waits for its end, and removes what was fetched."""
        self._thread.join()
        self._closing.close()

    def _read(self) -> None:
        try:
            self.files.extend(self._closing.enter_context(fetched(files_of(self.case))))
            self._found = read_case_files(self.files, self.case.series)
        except Exception as error:
            self._error = error


@contextlib.contextmanager
def reading_of(case: Case) -> Iterator[Reading]:
    """The reading of ``case``, which may have been begun ahead; another that was is given up."""
    if not _AHEAD or _AHEAD[0].case != case:
        give_up_ahead()
        _AHEAD.append(Reading(case))
    with contextlib.closing(_AHEAD.pop()) as reading:
        yield reading


def give_up_ahead() -> None:
    """Let go of what was read ahead, with what was fetched for it."""
    while _AHEAD:
        _AHEAD.pop().close()


def read_ahead(case: Case, memory_bytes: int | None) -> None:
    """Begin to read ``case``, where a worker that may take ``memory_bytes`` (``None``: any) has room for it beside another."""
    if memory_bytes is None or CASE_BYTES + READING_BYTES * case.voxels <= memory_bytes:
        _AHEAD.append(Reading(case))
