"""The run of a cohort: every open case by some worker, what kills workers once more alone, and what became of each."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NLSTSegLib.cohort.case import Case, Outcome, Settings
from NLSTSegLib.cohort.clusters import Cluster
from NLSTSegLib.cohort.dask_map import each_done
from NLSTSegLib.cohort.places import is_address
from NLSTSegLib.cohort.table import CohortTable
from NLSTSegLib.cohort.work import DISK_FULL, do_case
from NLSTSegLib.disk.atomic_folder import prepare_place
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

OUT_OF_MEMORY_TOPIC = "worker-restart-memory"
"""What Dask's nanny says when it ends a worker that takes more memory than it may."""

Tell = Callable[[Outcome, bool], None]
"""Called with every outcome, and whether it will be tried once more alone."""


def run_cases(
    table: CohortTable,
    cluster: Cluster,
    settings: Settings,
    *,
    limit: int | None,
    tell: Tell,
    begin: Callable[[Client, int], None],
) -> bool:
    """Do the open cases of ``table``, at most ``limit``, and write each outcome; whether it was stopped before its end.

    ``begin(client, cases)`` is called before the first. The first Ctrl-C (SIGINT or SIGTERM) lets the cases that are under way
    end and begins no other; the second raises ``KeyboardInterrupt``. A case whose worker dies, or that another run has just
    now, is tried once more alone, when all others are done. Raises :class:`InputError` where the disk is full or the scheduler
    is gone: then such cases are still open.
    """
    waiting = deque(row.case for row in table.rows("status = 'open'"))
    while limit is not None and len(waiting) > limit:
        waiting.pop()
    if not waiting:
        return False
    again: deque[Case] = deque()
    with _stopping(waiting, again) as stopped:
        client = cluster.client()
        begin(client, len(waiting))
        _go_through(client, table, settings, waiting, again, tell)
        if again and not stopped.is_set():
            _go_through(cluster.alone(), table, settings, again, None, tell)
    return stopped.is_set()


def _go_through(
    client: Client, table: CohortTable, settings: Settings, waiting: deque[Case], again: deque[Case] | None, tell: Tell
) -> None:
    """``again`` takes the cases to be tried alone; ``None`` when they are: then they fail."""
    began_s: dict[str, float] = {}
    without_memory: set[str] = set()
    client.subscribe_topic(OUT_OF_MEMORY_TOPIC, lambda event: without_memory.add(event[1]["worker"]))

    def call(case: Case, ahead: Case | None) -> tuple[Any, ...]:
        began_s[case.name] = time.monotonic()
        # What is tried alone is not to suffer from another.
        return do_case, case, settings, None if again is None else ahead

    full = ""
    for case, future in each_done(client, call, waiting, at_once=None if again is not None else 1):
        took_s = time.monotonic() - began_s.pop(case.name)
        if future.status == "finished":
            outcome = future.result()
        else:
            reason = _death(future.exception(), took_s, settings, without_memory)
            outcome = Outcome(case.name, "died", reason, round(took_s, 3))
        if outcome.reason.startswith(DISK_FULL):
            full = outcome.reason
            waiting.clear()
            continue
        is_tried_again = again is not None and outcome.status in ("busy", "died")
        if again is not None and is_tried_again:
            again.append(case)
        elif outcome.status != "busy":
            # Who is busy with it, such as the worker of a scheduler that was killed, will have done it by the next start.
            outcome = replace(outcome, status="failed") if outcome.status == "died" else outcome
            table.write(outcome, settings)
        tell(outcome, is_tried_again)
        if again is None and not is_address(settings.results):
            # What a worker left that died twice; another run may be writing there.
            with contextlib.suppress(InputError):
                prepare_place(Path(settings.results) / case.name)
    if full:
        raise InputError(f"{full}; the cases that are not done stay open: make room and start the same command again")


def _death(error: BaseException | None, took_s: float, settings: Settings, without_memory: set[str]) -> str:
    from distributed import KilledWorker

    if not isinstance(error, KilledWorker):
        return f"unexpected {type(error).__name__}"
    if error.last_worker.address in without_memory:
        return "it took more memory than its worker may have"
    if took_s >= settings.time_limit_s:
        return f"it took longer than {settings.time_limit_s:g} s"
    return "its worker died while it was under way"


@contextlib.contextmanager
def _stopping(waiting: deque[Case], again: deque[Case]) -> Iterator[threading.Event]:
    """The event tells of a first SIGINT or SIGTERM, which empties both; outside the main thread nothing is changed."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(signum: int, frame: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        waiting.clear()
        again.clear()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
