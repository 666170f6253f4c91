"""How long the open cases will take, by a measurement on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from NLSTSegLib.cohort.case import Settings
from NLSTSegLib.cohort.table import CohortTable
from NLSTSegLib.errors import NLSTSegError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.jobs.learned_duration import RunTime, measure_run_time

if TYPE_CHECKING:
    from distributed import Client


def expected_s(client: Client, table: CohortTable, settings: Settings) -> float | None:
    """Seconds for all open cases on all workers; ``None`` where it cannot be told, as of a 3D network.

    Raises whatever ends the worker that measures.
    """
    threads = sum(client.nthreads().values())
    if not threads:
        return None
    run_time: RunTime | str = client.submit(_measure, settings, pure=False).result()
    if isinstance(run_time, str):
        return None
    sizes = ((row.columns, row.rows, row.slices) for row in table.rows("status = 'open'"))
    # What a run takes to start is spent once a worker.
    return run_time.start_s + sum(run_time.slice_s * c * r * s / (512 * 512) for c, r, s in sizes) / threads


def _measure(settings: Settings) -> RunTime | str:
    try:
        device = DeviceRequest(settings.device, settings.threads)
        return measure_run_time(settings.model, device)
    except NLSTSegError as error:
        return str(error)
