"""One options of a training with Lightning, whatever the network: checkpoints, going on, averaged weights, errors in words."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import save_file

from nlstseg_training.fitting.averaging import averaging
from nlstseg_training.fitting.checkpoints import BEST, FINISHED, LAST, SafeCheckpoints, step_of, whole_checkpoint
from nlstseg_training.fitting.curves import Curves, make_loggers
from nlstseg_training.fitting.interruption import (
    Interruption,
    StepSampler,
    Stopped,
    blocked_signals,
    ignore_signals,
    kept_signal_handlers,
)
from nlstseg_training.fitting.machine import Machine, is_first_process, quiet_lightning
from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.errors import InputError


@dataclass(frozen=True)
class LoopOptions:
    """How a training goes, whatever it trains."""

    epochs: int
    precision: Any
    average_decay: float
    validation: bool
    """Whether there are cases to measure every epoch on."""
    patience_epochs: int = 0
    gradient_norm: float | None = None
    """Longer gradients are cut to this."""
    new_data_each_epoch: bool = False
    """Whether what batches are drawn from changes between epochs; else the processes that make them stay."""
    way_on: str = "begin again in another folder, with another seed"
    """What to do when the weights are no numbers any more."""
    choose_epoch: bool = True
    """Whether the epoch with the lowest loss on the validation cases is the result, not the last one."""


def train(
    task: lightning.LightningModule,
    data: lightning.LightningDataModule,
    folder: Path,
    options: LoopOptions,
    machine: Machine,
    curves: Curves,
    callbacks: Sequence[lightning.Callback] = (),
) -> None:
    """Train ``task.network``, or go on where it stopped, and write its weights to ``folder``; they are then in it.

    Raises as :func:`fit` does.
    """
    last = whole_checkpoint(folder)
    monitor = "validation_loss" if options.validation and options.choose_epoch else None
    callbacks = [
        *callbacks,
        curves,
        ModelCheckpoint(folder, BEST.removesuffix(".ckpt"), monitor, save_last=True, enable_version_counter=False),
    ]
    if options.average_decay:
        callbacks.append(averaging(options.average_decay))
    if options.patience_epochs and monitor:
        callbacks.append(EarlyStopping(monitor, patience=options.patience_epochs))
    interruption = Interruption(folder / LAST)
    # After the averaging, which belongs to the step.
    callbacks.append(interruption)
    try:
        with kept_signal_handlers(), quiet_lightning():
            trainer = lightning.Trainer(
                accelerator=machine.accelerator,
                devices=machine.devices,
                num_nodes=machine.nodes,
                precision=options.precision,
                gradient_clip_val=options.gradient_norm,
                max_epochs=options.epochs,
                limit_val_batches=None if options.validation else 0,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                reload_dataloaders_every_n_epochs=int(options.new_data_each_epoch),
                callbacks=callbacks,
                logger=make_loggers(curves.part, curves.part.first_step + step_of(last)) if is_first_process() else [],
                plugins=[SafeCheckpoints(options.way_on)],
                enable_model_summary=False,
                log_every_n_steps=50,
            )
            trainer.fit(task, data, ckpt_path=last)
    except (Stopped, SystemExit):
        # Lightning exits when it is interrupted before the first step.
        raise KeyboardInterrupt from None
    except OSError as error:
        raise InputError(f"'{folder}' could not be written ({error.strerror}); make room, and start it again") from error
    except MisconfigurationException as error:
        raise InputError(f"the training cannot run on this machine ({error}); choose another accelerator or devices") from error
    except InputError as error:
        # Of a process that makes batches it comes with a traceback before it.
        raise InputError(str(error).rpartition(f"{InputError.__module__}.{InputError.__name__}: ")[2].strip()) from error
    network = cast(torch.nn.Module, task.network)
    if monitor:
        best = torch.load(folder / BEST, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in best.items()})
    if trainer.is_global_zero:
        with atomic_file(folder / FINISHED) as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, partial)
    if interruption.asked:
        raise KeyboardInterrupt


class UndisturbedLoader(torch.utils.data.DataLoader):
    """Whose processes leave Ctrl-C and SIGTERM to the one that trains, also when the whole group gets them."""

    def __iter__(self) -> Any:
        # Until they have set that themselves.
        with blocked_signals():
            return super().__iter__()


def batch_loader(
    batches: torch.utils.data.Dataset, sampler: StepSampler | None, workers: int, *, stay: bool = False
) -> torch.utils.data.DataLoader:
    """Whole batches, made ahead in ``workers`` processes, which ``stay`` from one epoch to the next."""
    ahead: dict[str, Any] = (
        {"prefetch_factor": 4, "multiprocessing_context": _context(), "persistent_workers": stay} if workers else {}
    )
    return UndisturbedLoader(batches, None, sampler=sampler, num_workers=workers, worker_init_fn=_begin_worker, **ahead)


def _context() -> Any:
    """A forked process would wait for threads of SimpleITK that only its parent has; a fork of one that only imported has none,
    and begins at once, where it can be had."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlstseg_training.batches.patches", "monai.transforms"])
    return context


def _begin_worker(number: int) -> None:
    ignore_signals()
    torch.set_num_threads(1)
