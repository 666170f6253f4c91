"""A training that can be stopped at any step and goes on as if it had not been."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import lightning
import torch

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""They ask a training to stop."""

SAVE_EVERY_S = 300.0
"""Time between the checkpoints within an epoch: what a power cut takes at most."""


class Stopped(Exception):  # noqa: N818
    """The training was asked to stop, and its checkpoint is written."""


@contextlib.contextmanager
def kept_signal_handlers() -> Iterator[None]:
    """Put the handlers back that were there before the block, whoever replaced them (Lightning does not)."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Signals that ask to stop come after the block; a process begun in it begins with them blocked (not on Windows)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It unblocks them when it begins, and would leave the server that processes are forked from, begun after it, without.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Ignore in a process that works for another, which ends it, what asks to stop is for that one."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class StepSampler(torch.utils.data.Sampler[int]):
    """Numbers of the batches of the epoch that runs, from the step that comes next; each process takes its own share."""

    def __init__(self, trainer: lightning.Trainer, epoch_steps: int):
        self.trainer, self.epoch_steps = trainer, epoch_steps

    def __len__(self) -> int:
        # Lightning counts the batches before an interruption too.
        return self.epoch_steps

    def __iter__(self) -> Iterator[int]:
        step, processes, rank = self.trainer.global_step, self.trainer.world_size, self.trainer.global_rank
        end = (step // self.epoch_steps + 1) * self.epoch_steps
        return (number * processes + rank for number in range(step, end))


class Interruption(lightning.Callback):
    """Writes the checkpoint ``path`` every few minutes and when asked to stop (Ctrl-C, SIGTERM), after the step that runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved_s = time.monotonic()
        self.asked = False
        self._handlers: dict[int, Any] = {}
        self._random_state: torch.Tensor | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._ask)
        if self._random_state is not None:
            torch.set_rng_state(self._random_state)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        # Once more stops at once.
        signal.signal(number, self._handlers[number])

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        # The last step of an epoch has its checkpoint after the validation, which belongs to the epoch.
        if trainer.is_last_batch:
            return
        due = self.asked or time.monotonic() - self._saved_s > SAVE_EVERY_S
        # Several processes save and stop after the same step, whichever of them was asked.
        together = trainer.strategy.reduce_boolean_decision
        if not together(due, all=False):
            return
        self.asked = together(self.asked, all=False)
        trainer.save_checkpoint(self.path)
        self._saved_s = time.monotonic()
        if self.asked:
            raise Stopped

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # For dropout; what the batches are made of depends on their numbers alone.
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._random_state = checkpoint.get("random_state")
