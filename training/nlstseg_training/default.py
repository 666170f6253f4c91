"""The recipe of the bundled model."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from NLSTSegLib.inference import InputSpec
from NLSTSegLib.networks.unet import UNetConfig
from nlstseg_training.fit import FitOptions, fit
from nlstseg_training.patches import PatchRecipe
from nlstseg_training.sources import is_validation, load_background, load_chests, load_nodules

CONFIG = UNetConfig(dimensions=2, input_slices=5, channels=(16, 32, 64, 128, 160))
"""Full resolution is cheap and thin; the width sits where a vessel is told from a nodule."""

SPEC = InputSpec(window_hu=(-1000.0, 400.0), slices=5, slice_step_mm=2.0)
"""Lung parenchyma to contrast-filled vessels; two neighbours each way, about 2 mm apart."""


def train_default(data: Path, out: Path, *, epochs: int, seed: int) -> None:
    """Train on the training patients of ``data`` and write ``out/weights.safetensors``."""
    nodules = [stack for stack in load_nodules(data) if not is_validation(stack.patient, seed)]
    lungs = [stack for stack in load_chests(data) + load_background(data) if not is_validation(stack.patient, seed)]
    options = FitOptions(epochs=epochs, seed=seed)
    network = fit(CONFIG, SPEC, nodules, lungs, out, options=options, recipe=PatchRecipe())
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, out / "weights.safetensors")
