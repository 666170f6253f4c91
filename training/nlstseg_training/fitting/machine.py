"""Where a training runs, alone or as one of several processes, and what Lightning says meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from NLSTSegLib.errors import InputError

INTERACTIVE_JOBS = ("bash", "interactive")
"""Names of SLURM jobs in whose shell a program is one process, whatever the job asked for."""


@dataclass(frozen=True)
class Machine:
    """Where Lightning trains: it knows processes and nodes, which a single :class:`~NLSTSegLib.inference.devices.Device` has not.
    Several processes come from ``torchrun`` or SLURM, or from ``devices``."""

    accelerator: str = "auto"
    devices: str | int = 1
    nodes: int = 1
    workers: int = 1
    """Processes that make batches ahead, for each that trains; 0: none."""


def started_processes() -> tuple[int, int]:
    """On this node, and the number of nodes, as torchrun or SLURM tell; else 1 and 1.

    Raises :class:`InputError` for a SLURM job that does not say how many processes a node has.
    """
    told = os.environ
    if "LOCAL_WORLD_SIZE" in told:
        here = int(told["LOCAL_WORLD_SIZE"])
        return here, int(told["WORLD_SIZE"]) // here
    tasks = told.get("SLURM_NTASKS", "1")
    if tasks != "1" and "SLURM_NTASKS_PER_NODE" not in told and told.get("SLURM_JOB_NAME") not in INTERACTIVE_JOBS:
        raise InputError(f"the SLURM job has --ntasks={tasks}; ask for --ntasks-per-node, which tells each node its own")
    return int(told.get("SLURM_NTASKS_PER_NODE", 1)), int(told.get("SLURM_NNODES", 1))


def is_first_process() -> bool:
    """Whether this is the one, of the processes that train together, that writes what they share; as Lightning counts them."""
    told = os.environ
    rank = next((told[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in told), "0")
    return int(rank) == 0 and ("RANK" in told or int(told.get("NODE_RANK", 0)) == 0)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without what Lightning and the libraries under it advise programmers to do; the progress bar stays."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for module in ("lightning", "torch", "tensorboard"):
                warnings.filterwarnings("ignore", module=rf"{module}\b")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
