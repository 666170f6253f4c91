"""The losses of the refinement: an outline where there is a lesion, and a score everywhere."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from monai.losses import DiceLoss
from torch.nn import functional

from nlstseg_training.refinement.recipe import RefinementRecipe
from NLSTSegLib.networks.refinement import RefinementNet

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Input, target and labels of :class:`~nlstseg_training.refinement.cut_outs.CutOuts`."""


class RefinementTask(lightning.LightningModule):
    """Cross entropy and Dice for the outlines of true lesions, cross entropy for the scores of all candidates."""

    def __init__(self, network: RefinementNet, recipe: RefinementRecipe):
        super().__init__()
        self.network, self.recipe = network, recipe
        self.dice = DiceLoss(sigmoid=True, smooth_nr=0.0, smooth_dr=1.0)

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        return self._loss(batch, "")

    def validation_step(self, batch: Batch, index: int) -> None:
        self._loss(batch, "validation_")

    def _loss(self, batch: Batch, prefix: str) -> torch.Tensor:
        x, target, label = batch
        # What an outline of something that is no lesion should be, nobody can say, and half of the time goes into outlines.
        order, lesions = label.argsort(descending=True, stable=True), int(label.sum())
        x, target, label = x[order].to(memory_format=torch.channels_last_3d), target[order][:lesions], label[order]
        features, score = self.network.encoded(x)
        scored = functional.binary_cross_entropy_with_logits(score.float(), label)
        if lesions:
            inside_volume = x[:lesions, 1:]
            outline = self.network.outlined([each[:lesions] for each in features]).float()
            entropy = functional.binary_cross_entropy_with_logits(outline, target, inside_volume)
            dice = self.dice(torch.where(inside_volume > 0, outline, -20.0), (target > 0.5).float())
        else:
            # Means of nothing are no numbers, and no epoch would be the best.
            entropy = dice = scored.new_zeros(())
        loss = 5 * entropy + dice + self.recipe.score_weight * scored
        values = {f"{prefix}entropy": entropy, f"{prefix}dice_loss": dice, f"{prefix}score_loss": scored, f"{prefix}loss": loss}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True, logger=False)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        recipe = self.recipe
        optimizer = torch.optim.AdamW(self.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        steps = max(2, recipe.epochs * recipe.epoch_steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
