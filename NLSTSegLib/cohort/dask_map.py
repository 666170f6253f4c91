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
    client: Client, call: Callable[[Item], tuple[Any, ...]], waiting: deque[Item], *, at_once: int | None = None
) -> Iterator[tuple[Item, Future]]:
    """Items with their ended futures, as they end; ``call(item)`` gives a function and its arguments.

    As many are under way as the workers have threads (or ``at_once``): what waits on a worker would be lost with it when
    another case kills it. ``waiting`` may grow meanwhile, and what is in it when the caller stops is not begun. Raises
    :class:`SchedulerGoneError` when the connection is lost.
    """
    from distributed import as_completed

    running: dict[Any, Item] = {}
    completed = as_completed(loop=client.loop)
    threads, counted_s = 0, 0.0
    while waiting or running:
        if time.monotonic() - counted_s > LOOK_AGAIN_S or not threads:
            threads, counted_s = _threads(client), time.monotonic()
        while waiting and len(running) < (at_once or max(1, threads)):
            item = waiting.popleft()
            future = client.submit(*call(item), pure=False)
            running[future.key] = item
            completed.add(future)
        future = next(completed)
        if future.status == "cancelled":
            raise SchedulerGoneError(
                "the Dask scheduler is gone; start it and this command again, which goes on where it stopped"
            )
        item = running.pop(future.key)
        yield item, future
        future.release()


def _threads(client: Client) -> int:
    try:
        return sum(client.nthreads().values())
    except (OSError, TimeoutError) as error:
        raise SchedulerGoneError(f"the Dask scheduler cannot be reached ({error}); start it and this command again") from error
