"""A function on many items by the workers of a Dask client, with few under way at a time: client and scheduler stay small."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")

LOOK_AGAIN_S = 1.0
"""Workers come and go; so often they are counted."""


class SchedulerGoneError(InputError):
    """The Dask scheduler cannot be reached any more."""


def each_done(
    client: Client,
    call: Callable[[Item, Item | None], tuple[Any, ...]],
    waiting: deque[Item],
    *,
    at_once: int | None = None,
) -> Iterator[tuple[Item, Future]]:
    """Items with their ended futures, as they end; ``call(item, ahead)`` gives a function and its arguments.

    ``ahead`` is what the same worker is given next, unless another is free when nothing else waits; ``None`` where nothing
    does. As many are under way as there are workers (or ``at_once``), which have one thread each: what waits on a worker would
    be lost with it when another case kills it. ``waiting`` may grow meanwhile, and what is in it when the caller stops is not
    begun. Raises :class:`SchedulerGoneError` when the connection is lost.
    """
    from distributed import as_completed

    running: dict[Any, tuple[Item, str]] = {}
    promised: dict[str, Item] = {}
    completed = as_completed(loop=client.loop)
    workers, counted_s = _workers(client), time.monotonic()
    while waiting or running:
        if time.monotonic() - counted_s > LOOK_AGAIN_S:
            workers, counted_s = _workers(client), time.monotonic()
            promised = {worker: promised[worker] for worker in workers if worker in promised}
        busy = {worker for _, worker in running.values()}
        # Without any, the scheduler keeps one item until there is one.
        for worker in [worker for worker in workers or [""] if worker not in busy]:
            if not waiting or len(running) >= (at_once or max(1, len(workers))):
                break
            item = _taken(waiting, promised, worker)
            ahead = next((one for one in waiting if one not in promised.values()), None)
            if ahead is not None:
                promised[worker] = ahead
            # Where the worker has gone meanwhile, any does it.
            where: dict[str, Any] = {"workers": [worker], "allow_other_workers": True} if worker else {}
            future = client.submit(*call(item, ahead), pure=False, **where)
            running[future.key] = item, worker
            completed.add(future)
        future = next(completed)
        if future.status == "cancelled":
            raise SchedulerGoneError(
                "the Dask scheduler is gone; start it and this command again, which goes on where it stopped"
            )
        if future.status == "error":
            # A worker that died comes back under another address.
            counted_s = 0.0
        item, _ = running.pop(future.key)
        yield item, future
        future.release()


def _taken(waiting: deque[Item], promised: dict[str, Item], worker: str) -> Item:
    """What ``worker`` was promised, or the first that no other was, or the first, taken out of ``waiting``."""
    item = promised.pop(worker, None)
    if item is None or item not in waiting:
        item = next((one for one in waiting if one not in promised.values()), waiting[0])
    waiting.remove(item)
    return item


def _workers(client: Client) -> list[str]:
    try:
        return list(client.nthreads())
    except (OSError, TimeoutError) as error:
        raise SchedulerGoneError(f"the Dask scheduler cannot be reached ({error}); start it and this command again") from error
