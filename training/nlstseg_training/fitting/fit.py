"""Fitting a network by a recipe with Lightning: soft targets, averaged weights, false positives mined as the training goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from monai.losses import DiceLoss
from safetensors.torch import load_file
from torch.nn import functional

from nlstseg_training.batches.composition import describe
from nlstseg_training.batches.patches import Batches, Mined
from nlstseg_training.data.cache import CaseEntry
from nlstseg_training.data.case_files import check_files
from nlstseg_training.fitting.checkpoints import FINISHED, scaled_rates, whole_checkpoint
from nlstseg_training.fitting.curves import Curves, LoggerName, RunPart
from nlstseg_training.fitting.interruption import StepSampler
from nlstseg_training.fitting.loop import LoopOptions, batch_loader, train
from nlstseg_training.fitting.machine import Machine, is_first_process
from nlstseg_training.fitting.mining import cases_to_mine, mine
from nlstseg_training.fitting.whole_cases import WholeCases
from nlstseg_training.recipe import Phase, Recipe
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import new_network
from NLSTSegLib.networks.network import Network

WAY_ON = "run the same command with '--rate 0.3': it goes on from the last good checkpoint at that part of the recipe's rates"
"""Way on from a loss or weights that are no numbers."""


class TrainingData(lightning.LightningDataModule):
    """Batches of the training and the validation cases; ``mined`` false positives join in as they are found."""

    def __init__(
        self,
        cache: Path,
        train: Sequence[CaseEntry],
        validation: Sequence[CaseEntry],
        recipe: Recipe,
        phase: Phase,
        *,
        seed: int,
        workers: int,
    ):
        super().__init__()
        self.cache, self.train, self.validation = cache, train, validation
        self.recipe, self.phase, self.seed, self.workers = recipe, phase, seed, workers
        self.mined: list[Mined] = []

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        steps, trainer = self.recipe.epoch_steps, cast(lightning.Trainer, self.trainer)
        batches = Batches(
            self.cache,
            self.train,
            self.recipe,
            self.phase.sampling,
            seed=self.seed,
            count=self.phase.epochs * steps * trainer.world_size,
            mined=self.mined,
        )
        return batch_loader(batches, StepSampler(trainer, steps), self.workers, stay=not self.phase.mine_every_epochs)

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        batches = Batches(
            self.cache,
            self.validation,
            self.recipe,
            self.phase.sampling,
            seed=self.seed + 1,
            count=self.recipe.validation_steps,
            augment=False,
        )
        return batch_loader(batches, None, self.workers, stay=True)

    def state_dict(self) -> dict[str, Any]:
        return {"mined": [(place.case_id, *place.kji) for place in self.mined]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mined = [Mined(case_id, (k, j, i)) for case_id, k, j, i in state["mined"]]


class SegmentationTask(lightning.LightningModule):
    """Binary segmentation of lesions: cross entropy on the soft target plus Dice over the whole batch."""

    def __init__(self, network: Network, recipe: Recipe, phase: Phase, rate: float = 1.0):
        super().__init__()
        self.network, self.recipe, self.phase, self.rate = network, recipe, phase, rate
        # Over the whole batch, an empty patch still has a gradient: what it marks lowers the one common score.
        self.dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=0.0, smooth_dr=1.0)
        self.layout = torch.channels_last if recipe.architecture.dimensions == 2 else torch.channels_last_3d

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor, list[str]], index: int) -> torch.Tensor:
        loss = self._loss(batch, "")
        if not bool(loss.isfinite()):
            cases = ", ".join(batch[2])
            what = f"the loss is {loss.item()} in step {self.global_step}, whose patches came from the cases {cases}"
            raise InputError(f"{what}; look at those, or {WAY_ON}")
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor, list[str]], index: int) -> None:
        self._loss(batch, "validation_")

    def _loss(self, batch: tuple[torch.Tensor, torch.Tensor, list[str]], prefix: str) -> torch.Tensor:
        x, target, _ = batch
        logits = self.network(x.to(memory_format=self.layout)).float()
        entropy = functional.binary_cross_entropy_with_logits(logits, target)
        dice = self.dice(logits, (target > 0.5).float())
        loss = self.recipe.loss.cross_entropy * entropy + self.recipe.loss.dice * dice
        values = {f"{prefix}cross_entropy": entropy, f"{prefix}dice_loss": dice}
        # The curves are drawn by a callback.
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(x), "sync_dist": True, "logger": False}
        self.log_dict(values, **options)
        self.log(f"{prefix}loss", loss, prog_bar=True, **options)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        recipe, phase = self.recipe, self.phase
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        most = phase.learning_rate * self.rate
        optimizer = kind(self.parameters(), most, weight_decay=recipe.weight_decay)
        # A rise of a single step is divided by zero in there.
        steps = max(2, phase.epochs * recipe.epoch_steps)
        rise = max(recipe.warmup, 2 / steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, most, total_steps=steps, pct_start=rise)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rate"] = self.rate

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        scaled_rates(checkpoint, self.rate / checkpoint["rate"])


class FalsePositiveMining(lightning.Callback):
    """Every few epochs, and first of all ``at_start``, looks for what the network wrongly marks and hands it to the data."""

    def __init__(self, data: TrainingData, *, at_start: bool) -> None:
        self.data, self.at_start = data, at_start

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.at_start and self.data.phase.mine_every_epochs:
            self._mine(trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        phase, done = self.data.phase, trainer.current_epoch + 1
        if phase.mine_every_epochs and done % phase.mine_every_epochs == 0 and done < phase.epochs:
            self._mine(trainer, pl_module)
            pl_module.log("mined", float(len(self.data.mined)), logger=False)

    def _mine(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        self.data.mined = mine_chests(trainer, task.network, self.data)


def mine_chests(trainer: lightning.Trainer, network: Network, data: TrainingData) -> list[Mined]:
    """False positives in training chests, those found before in others among them.

    Each process looks through its share of them, and all get what all found.
    """
    chests = cases_to_mine(data.train, data.seed, trainer.current_epoch)
    found = mine(network, data.recipe.input, data.cache, chests[trainer.global_rank :: trainer.world_size])
    looked_at = {entry.id for entry in chests}
    kept = [place for place in data.mined if place.case_id not in looked_at]
    if trainer.world_size == 1:
        return kept + found
    parts: list[list[Mined]] = [[]] * trainer.world_size
    torch.distributed.all_gather_object(parts, found)
    return kept + [place for part in parts for place in part]


def fit(
    recipe: Recipe,
    cache: Path,
    train: Sequence[CaseEntry],
    validation: Sequence[CaseEntry],
    out: Path,
    *,
    seed: int = 0,
    start: Network | None = None,
    machine: Machine | None = None,
    logger: LoggerName = "tensorboard",
    rate: float = 1.0,
) -> Network:
    """Train all phases of a recipe, or go on where a training stopped; returns the network on the CPU, evaluating.

    Each phase has a folder of its name in ``out`` with checkpoints; the curves of all are in ``out/log``, and for ``logger``.
    Learning rates are the recipe's times ``rate``, also from a checkpoint that was written at another. ``start`` gives the first
    weights. The weights of a phase are those of its epoch with the lowest loss on the validation cases; without such cases, its
    last.

    Before that, what a batch is made of is printed, and every file of the cases compared with its hash.

    Raises :class:`InputError` when there is nothing to train on, less than a third of a batch would hold a lesion, a file of a
    case is not what was prepared, the loss is no number (with the cases that it came from), or a checkpoint cannot be written;
    and :class:`KeyboardInterrupt`, with everything saved, when asked to stop.
    """
    if not train:
        raise InputError("there is no case to train on; look at the split and at what the cache refused")
    machine = machine or Machine()
    for phase in recipe.phases:
        said = describe(phase.sampling, train, phase.name)
        if is_first_process():
            print(said)
    check_files(cache, [*train, *validation])
    for n, phase in enumerate(recipe.phases):
        finished = out / phase.name / FINISHED
        torch.manual_seed(seed + n)
        network = new_network(recipe.architecture, recipe.input)
        if finished.exists():
            network.load_state_dict(load_file(finished))
        else:
            if start is not None:
                network.load_state_dict(start.state_dict())
            data = TrainingData(cache, train, validation, recipe, phase, seed=seed + n, workers=machine.workers)
            first_step = sum(before.epochs for before in recipe.phases[:n]) * recipe.epoch_steps
            part = RunPart(out, phase.name, n + 1, first_step, logger)
            network = _fit_phase(network, data, part, start is not None, machine, rate)
        start = network
    return network.float().cpu().eval()


def _fit_phase(network: Network, data: TrainingData, part: RunPart, from_weights: bool, machine: Machine, rate: float) -> Network:
    recipe, phase, folder = data.recipe, data.phase, part.folder / part.phase
    curves = Curves(part)
    callbacks: list[lightning.Callback] = [
        FalsePositiveMining(data, at_start=from_weights and whole_checkpoint(folder) is None),
        WholeCases(data.cache, data.validation, recipe, phase.epochs, curves),
    ]
    options = LoopOptions(
        phase.epochs,
        recipe.precision,
        recipe.average_decay,
        bool(data.validation),
        phase.patience_epochs,
        new_data_each_epoch=bool(phase.mine_every_epochs),
        way_on=WAY_ON,
    )
    train(SegmentationTask(network, recipe, phase, rate), data, folder, options, machine, curves, callbacks)
    return network
