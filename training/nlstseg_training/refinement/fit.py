"""Training the second network on the candidates of the first."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import lightning
import torch
from safetensors.torch import load_file
from torch import nn

from nlstseg_training.data.cache import CaseEntry
from nlstseg_training.fitting.checkpoints import FINISHED
from nlstseg_training.fitting.curves import Curves, RunPart
from nlstseg_training.fitting.interruption import StepSampler
from nlstseg_training.fitting.loop import LoopOptions, batch_loader, train
from nlstseg_training.fitting.machine import Machine
from nlstseg_training.refinement.candidates import LabelledCandidate
from nlstseg_training.refinement.cut_outs import CutOuts
from nlstseg_training.refinement.recipe import RefinementRecipe
from nlstseg_training.refinement.task import RefinementTask
from NLSTSegLib.models.bundle import new_refinement
from NLSTSegLib.networks.network import fold_batch_norm
from NLSTSegLib.networks.refinement import RefinementNet


class CutOutData(lightning.LightningDataModule):
    """Batches of the training and of the validation cases."""

    def __init__(
        self,
        cache: Path,
        parts: tuple[Sequence[CaseEntry], Sequence[CaseEntry]],
        places: Sequence[LabelledCandidate],
        recipe: RefinementRecipe,
        *,
        seed: int,
        workers: int,
    ):
        super().__init__()
        self.cache, self.parts, self.places = cache, parts, places
        self.recipe, self.seed, self.workers = recipe, seed, workers

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        steps, trainer = self.recipe.epoch_steps, cast(lightning.Trainer, self.trainer)
        count = self.recipe.epochs * steps * trainer.world_size
        batches = CutOuts(self.cache, self.parts[0], self.places, self.recipe, seed=self.seed, count=count)
        return batch_loader(batches, StepSampler(trainer, steps), self.workers, stay=True)

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        count = self.recipe.validation_steps
        batches = CutOuts(self.cache, self.parts[1], self.places, self.recipe, seed=self.seed + 1, count=count)
        return batch_loader(batches, None, self.workers, stay=True)


def fit_refinement(
    recipe: RefinementRecipe,
    cache: Path,
    parts: tuple[Sequence[CaseEntry], Sequence[CaseEntry]],
    places: Sequence[LabelledCandidate],
    out: Path,
    *,
    seed: int = 0,
    start: RefinementNet | None = None,
    machine: Machine | None = None,
) -> RefinementNet:
    """Train on the first of ``parts``, or go on where a training in ``out`` stopped; the network on the CPU, evaluating.

    The result is the last epoch's, where the rate has come down: on a few hundred candidates the losses of scores vary more by
    chance than from one epoch to the next. Those on the second part are logged. Raises as :func:`.fitting.fit.fit` does.
    """
    torch.manual_seed(seed)
    network = new_refinement(recipe.channels)
    if start is not None:
        # Twice as fast, and no statistics of batches that are no longer what they were.
        network = fold_batch_norm(copy.deepcopy(start).eval()).train()
    if (out / FINISHED).exists():
        network.load_state_dict(load_file(out / FINISHED))
    else:
        machine = machine or Machine()
        data = CutOutData(cache, parts, places, recipe, seed=seed, workers=machine.workers)
        validation = {entry.id for entry in parts[1]}
        measured = any(place.case_id in validation for place in places)
        options = LoopOptions(
            recipe.epochs,
            "bf16-mixed",
            recipe.average_decay,
            measured,
            gradient_norm=recipe.gradient_norm,
            choose_epoch=False,
        )
        # torch's own annotations know the order of two dimensions only.
        task = RefinementTask(network.to(memory_format=torch.channels_last_3d), recipe)  # type: ignore[call-overload]
        train(task, data, out, options, machine, Curves(RunPart(out, "refinement")))
    network = network.float().cpu().eval()
    return network if start is None else unfolded(network)


def unfolded(folded: RefinementNet) -> RefinementNet:
    """The network with batch normalizations again, as a bundle holds them, which only add the biases of the convolutions."""
    network = RefinementNet(folded.config)
    state = folded.state_dict()
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            parent, _, index = name.rpartition(".")
            before = f"{parent}.{int(index) - 1}.bias"
            state |= {f"{name}.{own}": tensor for own, tensor in module.state_dict().items()}
            state[f"{name}.bias"] = state.pop(before)
            state[f"{name}.running_var"] = torch.full_like(state[f"{name}.running_var"], 1 - module.eps)
    network.load_state_dict(state)
    return network.eval()
