"""What a worker does with a case: reads it, segments it, and writes a result folder, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import functools
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from NLSTSegLib.cohort.ahead import Reading, give_up_ahead, read_ahead, reading_of
from NLSTSegLib.cohort.case import Case, Outcome, Settings
from NLSTSegLib.cohort.places import fetched, is_address, list_folder, put_folder
from NLSTSegLib.cohort.plain_reason import plain_reason
from NLSTSegLib.dicom.source import source_of
from NLSTSegLib.dicom.write import dicom_writer
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.disk.scratch import scratch_folder
from NLSTSegLib.errors import InputError, ModelError, NLSTSegError, is_out_of_memory, printable
from NLSTSegLib.models.bundle import Model, find_model, load_model
from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions
from NLSTSegLib.results.report import patient_identity, peak_memory_mb
from NLSTSegLib.results.run import segment_to_folder
from NLSTSegLib.results.saved import REPORT_FILE, Summary

DISK_FULL = "the disk is full"
"""Begin of the reason of a case that failed by it: the run stops, since all others would fail too."""


def dask_setup(worker: Any) -> None:
    """Called by Dask as a worker process starts: Ctrl-C is the client's, which lets workers end what they write."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def dask_teardown(worker: Any) -> None:
    """Called by Dask before a worker process ends: another may have done what it has read ahead."""
    give_up_ahead()


def do_case(case: Case, settings: Settings, ahead: Case | None = None) -> Outcome:
    """Segment a case, or find its result of an earlier run; whatever goes wrong with it is in the outcome.

    Meanwhile the CT of ``ahead`` is read, which this worker is given next, unless another is free before.
    After ``settings.time_limit_s`` the process ends, whatever it does then; Dask's nanny starts another and the client is told.
    """
    start = time.perf_counter()
    _forget_peak_memory()
    files: list[Path] = []
    result, status, reason = None, "done", ""
    try:
        model = _model(settings.model)
        if model.card.weights_sha256 != settings.weights_sha256:
            raise ModelError(f"the model {model.card.name} of this worker has other weights than the client's; install the same")
        with _time_limit(settings.time_limit_s), reading_of(case) as reading:
            files = reading.files
            result = _result(reading, settings, model, ahead)
    except Exception as error:
        status = "busy" if _is_busy(error) else "failed"
        reason = plain_reason(_reason(error), [*map(str, files), *case.places])
    return Outcome(
        name=case.name,
        status=status,  # type: ignore[arg-type]
        reason=reason,
        seconds=round(time.perf_counter() - start, 3),
        peak_mb=peak_memory_mb(),
        worker=_worker_name(),
        findings=() if result is None else tuple(f"{finding.severity} {finding.code}" for finding in result.findings),
        rows=() if result is None else tuple(result.to_rows()),
    )


def _result(reading: Reading, settings: Settings, model: Model, ahead: Case | None) -> SegmentationResult | Summary:
    case = reading.case
    ct, series = reading.ct_and_series()
    if ahead is not None:
        read_ahead(ahead, _memory_limit())
    write_more = dicom_writer(ct, source_of(series, "it")) if settings.dicom_seg else None
    options = SegmentOptions(settings.threshold, settings.min_volume_mm3, device=settings.device, threads=settings.threads)
    with _result_folder(case.name, settings.results) as folder:
        return segment_to_folder(
            ct,
            folder,
            model,
            options,
            reuse=True,
            force=settings.force,
            save_probability=settings.save_probability,
            case=case.name,
            identity=patient_identity(ct, Path(case.places[0])) if settings.keep_identity else None,
            write_more=write_more,
        )


@contextlib.contextmanager
def _result_folder(name: str, results: str) -> Iterator[Path]:
    """The folder of the result, or one that is copied to its address at the end of the block."""
    if not is_address(results):
        folder = Path(results) / name
        with held(folder):
            yield folder
        return
    place = f"{results}/{name}"
    with scratch_folder() as scratch:
        folder = scratch / name
        with contextlib.suppress(InputError):
            there = list_folder(place).files
            if any(file.endswith(f"/{REPORT_FILE}") for file in there):
                folder.mkdir()
                with fetched(there) as files:
                    for file in files:
                        file.rename(folder / file.name)
        before = _written(folder)
        yield folder
        if _written(folder) != before:
            put_folder(folder, place, last=REPORT_FILE)


def _written(folder: Path) -> bytes:
    return (folder / REPORT_FILE).read_bytes() if folder.exists() else b""


@functools.lru_cache(maxsize=1)
def _model(name: str) -> Model:
    return load_model(find_model(name))


def _reason(error: BaseException) -> str:
    if _is_disk_full(error):
        return f"{DISK_FULL}: {error}"
    if isinstance(error, NLSTSegError):
        return str(error)
    if is_out_of_memory(error):
        return "there is too little memory for this CT; give each worker more"
    return printable(f"unexpected {type(error).__name__}: {error}")


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, InputError) and "another run is writing" in str(error)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the process if the block takes longer: from C, so also where it hangs in a library and Python cannot run."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _forget_peak_memory() -> None:
    """Largest memory from now on; only Linux can, elsewhere it is that of the process so far."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def _worker() -> Any:
    """The worker of the cluster that this process is; ``None`` outside of one."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _worker_name() -> str:
    """Which of the cluster's this is; names of computers stay in Dask."""
    worker = _worker()
    return "" if worker is None else str(worker.name)


def _memory_limit() -> int | None:
    worker = _worker()
    return None if worker is None else worker.memory_manager.memory_limit
