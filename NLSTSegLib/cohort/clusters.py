"""Which workers there are: of this computer, of a Dask scheduler that runs, or of SLURM."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

CASE_BYTES = 2 << 30
"""Memory that a worker needs: one chest takes 1 to 1.3 GB (docs/performance.md), thick or very long ones more."""

WAIT_S = 30.0
"""Time for which a scheduler is waited for."""

SLURM_THREADS = 4
"""CPU threads of a worker where nobody says."""


@dataclass(frozen=True)
class Workers:
    """Which workers are asked for."""

    count: int | None = None
    """``None``: of this computer as many as its cores and memory serve; of SLURM one."""
    scheduler: str = ""
    """Address of a running scheduler, whose workers are taken."""
    slurm: str = ""
    """Partition in which a job is started for every worker."""
    memory_bytes: int | None = None
    """Memory of a worker; ``None``: its share of this computer's, of SLURM :data:`CASE_BYTES` twice."""
    threads: int | None = None
    """CPU threads of the network in a worker; ``None``: its share of this computer's cores, of SLURM 4."""

    def __post_init__(self) -> None:
        if self.scheduler and self.slurm:
            raise InputError("name either a scheduler with --scheduler, or a partition with --slurm")
        if self.scheduler and self.count is not None:
            raise InputError("the workers of a running scheduler are its own; leave --workers out")
        if self.count is not None and self.count < 1:
            raise InputError(f"the number of workers must be 1 or more, not {self.count}")


@dataclass(frozen=True)
class Sized:
    """Workers of this computer."""

    count: int
    threads: int
    memory_bytes: int


def size_here(workers: Workers) -> Sized:
    """How many workers of how many threads: one thread each as far as the memory goes.

    Workers of one thread leave no core idle while one reads or writes. On two cores two of them did 547 chests an hour, one
    of two threads 479 (docs/performance.md).
    """
    from distributed.system import MEMORY_LIMIT

    cores = _cores()
    count = workers.count or max(1, min(cores, MEMORY_LIMIT // (workers.memory_bytes or CASE_BYTES)))
    threads = workers.threads or max(1, cores // count)
    return Sized(count, threads, workers.memory_bytes or MEMORY_LIMIT // count)


def _cores() -> int:
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


class Cluster:
    """Workers that begin when they are first needed, and end with the ``with`` block unless they are a running scheduler's."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._closing = contextlib.ExitStack()
        self._client: Client | None = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *raised: object) -> None:
        self._closing.close()

    def client(self) -> Client:
        """Raises :class:`InputError` when the workers cannot be had."""
        if self._client is None:
            self._client = self._closing.enter_context(_client_of(self._workers, alone=False))
        return self._client

    def alone(self) -> Client:
        """A client whose one worker has everything that this computer has; the others end. Raises as :meth:`client` does."""
        self._closing.close()
        self._client = self._closing.enter_context(_client_of(self._workers, alone=True))
        return self._client


@contextlib.contextmanager
def _client_of(workers: Workers, *, alone: bool) -> Iterator[Client]:
    import dask
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    settings = {
        # The first death of a worker says that the case is one to be tried alone.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.work-stealing": False,
        # A nanny ends a worker that needs too much; to spill or to wait does not help a single case.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.worker.preload": [*dask.config.get("distributed.worker.preload"), "NLSTSegLib.cohort.work"],
    }
    with dask.config.set(settings), contextlib.ExitStack() as closing:
        try:
            if workers.scheduler:
                client = Client(workers.scheduler, timeout=WAIT_S, set_as_default=False)
            else:
                cluster = slurm_cluster(workers) if workers.slurm else _local_cluster(workers, alone=alone)
                closing.enter_context(cluster)
                client = Client(cluster, set_as_default=False)
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            where = f"the scheduler at {workers.scheduler}" if workers.scheduler else "Dask's workers"
            raise InputError(f"{where} cannot be reached or started ({error}); look whether it runs") from error
        closing.enter_context(client)
        if any(threads > 1 for threads in client.nthreads().values()):
            # Time and memory are limited by worker, so a worker does one case.
            raise InputError("the scheduler has workers of several threads; start them with --nthreads 1 (and more --nworkers)")
        yield client


def _local_cluster(workers: Workers, *, alone: bool) -> Any:
    from distributed import LocalCluster

    sized = size_here(Workers(1, memory_bytes=workers.memory_bytes, threads=workers.threads) if alone else workers)
    return LocalCluster(
        n_workers=sized.count,
        threads_per_worker=1,
        memory_limit=sized.memory_bytes,
        # Nobody else on the network may give these workers work, or look at them.
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )


def slurm_cluster(workers: Workers) -> Any:
    """A SLURM job for every worker, started anew when it ends; Dask's jobqueue.yaml says all else of it, such as its time."""
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        queue=workers.slurm,
        cores=1,
        job_cpu=workers.threads or SLURM_THREADS,
        processes=1,
        memory=f"{workers.memory_bytes or 2 * CASE_BYTES} B",
    )
    cluster.adapt(minimum_jobs=workers.count or 1, maximum_jobs=workers.count or 1)
    return cluster
