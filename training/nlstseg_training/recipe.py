"""What is trained and how, as one TOML file: checked against this schema, unknown keys refused."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from NLSTSegLib.disk.free_name import is_plain_name
from NLSTSegLib.disk.strict_json import read_strict
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.card import Architecture, ModelCard
from NLSTSegLib.models.specs import InputSpec

MAXIMUM_RECIPE_BYTES = 100_000


@dataclass(frozen=True)
class Sampling:
    """What a batch is made of. The shares are of the batch; what is left of it are random places in the lungs. What the data have
    not got is given by something else (:mod:`nlstseg_training.batches.composition`)."""

    batch: int
    side_px: int
    """Rows and columns of a patch."""
    whole_slices: bool = False
    """Patches lie in the middle of the slice, which they should cover, instead of where something is."""
    lesions: float = 0.0
    """Places in lesions of whole chests, every lesion as often whatever its size."""
    crops: float = 0.0
    """Places in crops of nodules."""
    transplants: float = 0.0
    """Nodules of crops, scaled and blended into whole lungs."""
    synthetic: float = 0.0
    """Synthetic lesions (:mod:`nlstseg_training.batches.synthetic`) in whole lungs."""
    mined: float = 0.0
    """Places where the network marked something that is no lesion."""
    repeated_ends: float = 0.0
    """Share of the crops whose end slices stand in for what is missing beyond, as inference does, instead of being freed of
    the nodule: at the ends of a stack the network must not take the repetition for a vessel."""
    mass_share: float = 0.2
    mass_zoom: tuple[float, float] = (1.5, 5.0)
    """Share of the transplants that stand for masses, and how much larger than their nodule these are."""

    def __post_init__(self) -> None:
        shares = (self.lesions, self.crops, self.transplants, self.synthetic, self.mined)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9:
            raise ValueError(f"the shares of a batch must be 0 or more and at most 1 together, not {shares}")
        if min(self.batch, self.side_px) < 1:
            raise ValueError("batch and side_px must be 1 or more")


@dataclass(frozen=True)
class Augmentation:
    """How patches vary; all 0 by default, which is none."""

    zoom: tuple[float, float] = (1.0, 1.0)
    rotation_degrees: float = 0.0
    shift_px: float = 0.0
    flips: bool = False
    """Also quarter turns, and slices from bottom to top."""
    shift_hu: float = 0.0
    contrast: float = 0.0
    """Standard deviations of the level, and of the factor about 1."""
    noise_hu: float = 0.0
    noise_share: float = 0.5
    blur_share: float = 0.0


@dataclass(frozen=True)
class Loss:
    """Weights of the cross entropy on the soft target and of the Dice loss, which is taken over the whole batch."""

    cross_entropy: float = 5.0
    dice: float = 1.0


@dataclass(frozen=True)
class Phase:
    """A part of the training; each starts from the weights of the one before."""

    name: str
    epochs: int
    learning_rate: float
    sampling: Sampling
    mine_every_epochs: int = 0
    """How often false positives are looked for; 0: never."""
    patience_epochs: int = 0
    """Stop when the loss on the validation cases has not fallen for so many epochs; 0: never."""

    def __post_init__(self) -> None:
        # Its folder is called so.
        if not is_plain_name(self.name):
            raise ValueError("name must be up to 64 letters, digits, '-', '_' or '.'")


@dataclass(frozen=True)
class Recipe:
    """A whole training. ``architecture``, ``input``, ``threshold`` and ``min_volume_mm3`` go into the model's card."""

    format: Literal[1]
    name: str
    description: str
    architecture: Architecture
    input: InputSpec
    phases: tuple[Phase, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 1e-4
    warmup: float = 0.05
    """Part of a phase in which the learning rate rises."""
    epoch_steps: int = 250
    validation_steps: int = 20
    average_decay: float = 0.998
    """Decay of the exponentially averaged weights; 0: the last weights themselves."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    threshold: float = 0.5
    min_volume_mm3: float = 0.0

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases must hold one phase at least")
        if len({phase.name for phase in self.phases}) < len(self.phases):
            raise ValueError("every phase needs a name of its own")
        if min(phase.epochs for phase in self.phases) < 1 or min(self.epoch_steps, self.validation_steps) < 1:
            raise ValueError("epochs, epoch_steps and validation_steps must be 1 or more")
        if (self.architecture.dimensions == 3) != (self.input.patch_kji is not None):
            raise ValueError("a 3D network, and no other, needs the size of its patches (input.patch_kji)")


def read_recipe(name_or_path: str, base: ModelCard | None = None) -> Recipe:
    """One of the recipes that ship (``default``, ``published``, ``finetune``), or a file; raises :class:`InputError`.

    With ``base``, the model that a training starts from, a recipe need not say what the card does: network, input,
    threshold and minimum volume; network and input cannot be others.
    """
    path = resources.files("nlstseg_training") / "recipes" / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
        if not path.is_file() or path.stat().st_size > MAXIMUM_RECIPE_BYTES:
            names = ", ".join(recipe_names())
            raise InputError(f"there is no recipe '{name_or_path}'; name one of {names}, or a TOML file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe '{name_or_path}' is no TOML file: {error}") from error
    if base is not None:
        known = asdict(base)
        content = {name: known[name] for name in ("architecture", "input", "threshold", "min_volume_mm3")} | content
    try:
        recipe = read_strict(json.dumps(content, default=str).encode(), Recipe)
    except ValueError as error:
        raise InputError(f"the recipe '{name_or_path}' cannot be used: {error}") from error
    if base is not None and (recipe.architecture, recipe.input) != (base.architecture, base.input):
        raise InputError(
            f"the recipe '{name_or_path}' describes another network or input than the model '{base.name}'; leave them out of it"
        )
    return recipe


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    folder = resources.files("nlstseg_training") / "recipes"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))
