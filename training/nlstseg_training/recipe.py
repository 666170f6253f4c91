"""What is trained and how, as one TOML file: checked against this schema, unknown keys refused."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

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
        if not (0 <= self.repeated_ends <= 1 and 0 <= self.mass_share <= 1):
            raise ValueError("repeated_ends and mass_share must be shares of 0 to 1")
        _check_zoom("mass_zoom", self.mass_zoom)


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

    def __post_init__(self) -> None:
        _check_zoom("zoom", self.zoom)
        if min(self.rotation_degrees, self.shift_px, self.shift_hu, self.contrast, self.noise_hu) < 0:
            raise ValueError("rotation_degrees, shift_px, shift_hu, contrast and noise_hu must be 0 or more")
        if not (0 <= self.noise_share <= 1 and 0 <= self.blur_share <= 1):
            raise ValueError("noise_share and blur_share must be shares of 0 to 1")


@dataclass(frozen=True)
class Loss:
    """Weights of the cross entropy on the soft target and of the Dice loss, which is taken over the whole batch."""

    cross_entropy: float = 5.0
    dice: float = 1.0

    def __post_init__(self) -> None:
        if min(self.cross_entropy, self.dice) < 0 or self.cross_entropy + self.dice == 0:
            raise ValueError("cross_entropy and dice must be weights of 0 or more, not both 0")


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
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate:g}")
        if min(self.mine_every_epochs, self.patience_epochs) < 0:
            raise ValueError("mine_every_epochs and patience_epochs must be 0 or more")


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
    """Batches, always the same ones, drawn over all validation cases: the epoch is chosen on them."""
    measure_every_epochs: int = 4
    measure_cases: int = 8
    """How often, and how many whole validation cases are measured for the curves; 0: none."""
    average_decay: float = 0.998
    """Decay of the exponentially averaged weights, which it rises to in the first steps; 0: the last weights themselves."""
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
        if min(self.measure_every_epochs, self.measure_cases) < 0:
            raise ValueError("measure_every_epochs and measure_cases must be 0 or more")
        if (self.architecture.dimensions == 3) != (self.input.patch_kji is not None):
            raise ValueError("a 3D network, and no other, needs the size of its patches (input.patch_kji)")
        if not (0 <= self.warmup < 1 and 0 <= self.average_decay < 1 and self.weight_decay >= 0):
            raise ValueError("warmup and average_decay must be 0 or more and below 1, weight_decay 0 or more")
        if not (0 < self.threshold < 1 and self.min_volume_mm3 >= 0):
            raise ValueError("threshold must lie between 0 and 1, min_volume_mm3 be 0 or more")
        if self.architecture.members != 1:
            raise ValueError("architecture.members must be 1: networks are trained one by one, see 'nlstseg-train ensemble'")
        multiple = 2
        if self.architecture.kind == "unet":
            from NLSTSegLib.networks.unet import UNetConfig

            own = self.architecture
            UNetConfig(own.dimensions, self.input.slices, own.channels, own.normalization, own.residual)
            multiple = 2 ** (len(own.channels) - 1)
        for phase in self.phases:
            if phase.sampling.side_px % multiple:
                raise ValueError(f"side_px must be a multiple of {multiple} for this network, not {phase.sampling.side_px}")


def _check_zoom(name: str, zoom: tuple[float, float]) -> None:
    if not 0 < zoom[0] <= zoom[1]:
        raise ValueError(f"{name} must be two factors above 0, the smaller one first, not {zoom}")


def read_recipe(name_or_path: str, base: ModelCard | None = None, changes: Sequence[str] = ()) -> Recipe:
    """One of the recipes that ship (``default``, ``published``, ``finetune``), or a file; raises :class:`InputError`.

    ``changes`` are keys with other values, ``key=value``; the key of a phase goes through its name or number.

    With ``base``, the model that a training starts from, a recipe need not say what the card does: network, input,
    threshold and minimum volume; network and input cannot be others.
    """
    try:
        content = tomllib.loads(recipe_text(name_or_path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the recipe '{name_or_path}' is no TOML file: {error}") from error
    for change in changes:
        _change(content, change)
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


def recipe_text(name_or_path: str) -> str:
    """The TOML of a recipe that ships, or of a file; raises :class:`InputError`."""
    path = resources.files("nlstseg_training") / "recipes" / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
        if not path.is_file() or path.stat().st_size > MAXIMUM_RECIPE_BYTES:
            names = ", ".join(recipe_names())
            raise InputError(f"there is no recipe '{name_or_path}'; name one of {names}, or a TOML file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the recipe '{name_or_path}' is no TOML file: {error}") from error


def _change(content: dict[str, Any], change: str) -> None:
    """Put the value of ``key=value`` in its place, in tables that are there; whether the recipe has such a key is seen later."""
    key, equals, text = change.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise InputError(f"'{change}' is no change of a recipe; write key=value, as epoch_steps=100 or phases.first.epochs=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        # A word needs no quotes here.
        value = text.strip()
    place: Any = content
    for name in names[:-1]:
        if isinstance(place, dict):
            place = place.setdefault(name, {})
        elif isinstance(place, list):
            by_name = {each.get("name"): each for each in place} | {str(n): each for n, each in enumerate(place)}
            place = by_name.get(name)
        if not isinstance(place, dict | list):
            raise InputError(f"'{change}' cannot be set: the recipe has no '{name}' there")
    if not isinstance(place, dict):
        raise InputError(f"'{change}' cannot be set: name one of the '{names[-2]}', as {names[-2]}.0.{names[-1]}")
    place[names[-1]] = value


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    folder = resources.files("nlstseg_training") / "recipes"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))
