"""Fitting a 2.5D U-Net with Lightning: soft targets, averaged weights, false positives mined as the training goes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from monai.losses import DiceLoss
from torch.nn import functional

from nlstseg_training.patches import Mined, PatchBatches, PatchRecipe
from nlstseg_training.sources import Stack
from NLSTSegLib.inference import InputSpec, predict_slices
from NLSTSegLib.networks.unet import UNet, UNetConfig, fold_batch_norm
from NLSTSegLib.volume import CtVolume

ENTROPY_WEIGHT = 5.0
"""Lesions fill about a hundredth of a patch, so the mean cross entropy is small beside Dice."""


@dataclass(frozen=True)
class FitOptions:
    """Length and pace of the training; an epoch is ``epoch_steps`` batches, and false positives are mined between epochs."""

    epochs: int = 20
    epoch_steps: int = 250
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    average_decay: float = 0.998
    mine_every_epochs: int = 3
    seed: int = 0


class PatchData(lightning.LightningDataModule):
    """Training batches of the epoch that runs; ``mined`` false positives join in as they are found."""

    def __init__(
        self, nodules: Sequence[Stack], lungs: Sequence[Stack], spec: InputSpec, options: FitOptions, recipe: PatchRecipe
    ):
        super().__init__()
        self.nodules, self.lungs, self.spec, self.options, self.recipe = nodules, lungs, spec, options, recipe
        self.mined: list[Mined] = []

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        count = self.options.epoch_steps
        batches = PatchBatches(
            self.nodules,
            self.lungs,
            self.spec,
            self.recipe,
            seed=self.options.seed,
            first=self.trainer.current_epoch * count,
            count=count,
            mined=self.mined,
        )
        return torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)

    def state_dict(self) -> dict[str, Any]:
        return {"mined": [(m.stack, *m.kji) for m in self.mined]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mined = [Mined(stack, (k, j, i)) for stack, k, j, i in state["mined"]]


class SegmentationTask(lightning.LightningModule):
    """Binary segmentation of lesions: cross entropy on the soft votes plus Dice over the whole batch."""

    def __init__(self, network: UNet, spec: InputSpec, options: FitOptions):
        super().__init__()
        self.network, self.spec, self.options = network, spec, options
        # Over the whole batch, an empty patch still has a gradient: what it marks lowers the one common score.
        self.dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=0.0, smooth_dr=1.0)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        x, target = batch
        logits = self.network(x.to(memory_format=torch.channels_last)).float()
        entropy = functional.binary_cross_entropy_with_logits(logits, target)
        dice = self.dice(logits, (target > 0.5).float())
        self.log_dict(
            {"cross_entropy": entropy, "dice_loss": dice}, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(x)
        )
        return ENTROPY_WEIGHT * entropy + dice

    def configure_optimizers(self) -> dict[str, Any]:
        options = self.options
        optimizer = torch.optim.AdamW(self.parameters(), options.learning_rate, weight_decay=options.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, options.learning_rate, total_steps=options.epochs * options.epoch_steps, pct_start=options.warmup
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class FalsePositiveMining(lightning.Callback):
    """Every few epochs, looks for what the network wrongly marks and hands it to the data."""

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: SegmentationTask) -> None:
        data, done = trainer.datamodule, trainer.current_epoch + 1
        if done % data.options.mine_every_epochs == 0 and done < data.options.epochs:
            data.mined = mine(pl_module.network, pl_module.spec, data.lungs)
            pl_module.log("mined", float(len(data.mined)))


def mine(network: UNet, spec: InputSpec, lungs: Sequence[Stack], threshold: float = 0.4, per_stack: int = 400) -> list[Mined]:
    """Where the network marks lung that no reader marked, one place per blob and slice pair, the surest first."""
    import SimpleITK as sitk

    device = next(network.parameters()).device
    frozen = fold_batch_norm(copy.deepcopy(network).eval()).to(torch.bfloat16)
    found = []
    for n, stack in enumerate(lungs):
        ct = CtVolume(stack.hu, stack.spacing_kji_mm[::-1])
        probability = predict_slices(frozen, spec, ct, stack.lungs, dtype=torch.bfloat16, device=str(device))
        wrong = (probability > 255 * threshold) & stack.lungs
        labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(wrong.astype(np.uint8)), True))
        lesion_labels = set(np.unique(labels[stack.votes > 0]).tolist())
        places: dict[tuple[int, int], tuple[int, tuple[int, int, int]]] = {}
        for k, j, i in np.argwhere(wrong):
            label, sureness = int(labels[k, j, i]), int(probability[k, j, i])
            key = (label, k // 2)
            if label not in lesion_labels and sureness > places.get(key, (0, (0, 0, 0)))[0]:
                places[key] = (sureness, (int(k), int(j), int(i)))
        surest = sorted(places.values(), reverse=True)[:per_stack]
        found += [Mined(n, place) for _, place in surest]
    return found


def fit(
    config: UNetConfig,
    spec: InputSpec,
    nodules: Sequence[Stack],
    lungs: Sequence[Stack],
    out: Path,
    *,
    options: FitOptions,
    recipe: PatchRecipe,
    start: UNet | None = None,
    accelerator: str = "auto",
) -> UNet:
    """Train, or go on from ``out/last.ckpt``; returns the network with averaged weights in evaluation mode.

    With ``start`` the training begins from its weights and from the false positives it makes.
    """
    lightning.seed_everything(options.seed, workers=True, verbose=False)
    task = SegmentationTask(UNet(config).to(memory_format=torch.channels_last), spec, options)
    data = PatchData(nodules, lungs, spec, options, recipe)
    last = out / "last.ckpt"
    if start is not None and not last.exists():
        task.network.load_state_dict(start.state_dict())
        data.mined = mine(task.network, spec, lungs)
    average = EMAWeightAveraging(decay=options.average_decay, use_buffers=True)
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        precision="bf16-mixed",
        max_epochs=options.epochs,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[average, FalsePositiveMining(), ModelCheckpoint(out, save_last=True, every_n_epochs=1)],
        logger=CSVLogger(out, name="log"),
        enable_model_summary=False,
        log_every_n_steps=50,
    )
    trainer.fit(task, data, ckpt_path=last if last.exists() else None)
    return task.network.eval()
