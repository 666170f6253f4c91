"""Model bundles (``model.json`` + ``weights.safetensors``) and the published checkpoint: finding, checking, loading."""

from __future__ import annotations

import hashlib
import io
import os.path
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from NLSTSegLib.disk.archives import is_archive
from NLSTSegLib.errors import ModelError, printable
from NLSTSegLib.models.card import CARD_FILE, Architecture, ModelCard, published_card, read_card, read_limited
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.resources import resources_folder, user_models_folder

if TYPE_CHECKING:
    import torch

    from NLSTSegLib.networks.network import Network
    from NLSTSegLib.networks.refinement import RefinementNet

DEFAULT_MODEL = "lidc-25d"
"""Name of the bundled model that is used when none is named."""

WEIGHTS_FILE = "weights.safetensors"

SECOND_PREFIX = "second."
"""Before the names of the second network's tensors."""

CHECKPOINT_ENDINGS = (".pth", ".pt")
"""Endings of the file of a published checkpoint."""

MAXIMUM_WEIGHTS_BYTES = 2_000_000_000
"""A larger file of weights is not read; the published checkpoint with its optimizer has 0.05 GB."""

MAXIMUM_PARAMETERS = 500_000_000
"""A larger network is not built: it is a broken card, not a model for a workstation."""


@dataclass(frozen=True)
class ModelFiles:
    """A model on the disk: its card, and where its weights are."""

    card: ModelCard
    weights: Path
    origin: Literal["bundled", "installed", "file"]


@dataclass(frozen=True)
class BrokenModel:
    """What lies in a folder of models and cannot be used, and why."""

    name: str
    """That of its folder: its own may be unreadable."""
    folder: Path
    reason: str
    """One sentence."""
    origin: Literal["bundled", "installed"]


@dataclass(frozen=True)
class Model:
    """A model ready to run: its networks are in evaluation mode, on the CPU, in float32."""

    card: ModelCard
    network: Network
    refinement: RefinementNet | None = None
    """Where the card has a ``refinement``."""

    def __post_init__(self) -> None:
        if (self.refinement is None) != (self.card.refinement is None):
            raise ValueError(f"the second network of '{self.card.name}' and the card's refinement go together")


def list_models() -> list[ModelFiles]:
    """Every bundled and installed model, the default first; those that cannot be used are :func:`broken_models`."""
    models = [model for model in _all_models() if isinstance(model, ModelFiles)]
    return sorted(models, key=lambda model: model.card.name != DEFAULT_MODEL)


def broken_models() -> list[BrokenModel]:
    """What lies in the folders of the models and has a card that cannot be used."""
    return [model for model in _all_models() if isinstance(model, BrokenModel)]


def _all_models() -> Iterator[ModelFiles | BrokenModel]:
    """The bundled ones first, so that none of the user's takes the name of one."""
    folders: tuple[tuple[Path | None, Literal["bundled", "installed"]], ...]
    folders = ((resources_folder() / "Models", "bundled"), (user_models_folder(), "installed"))
    for parent, origin in folders:
        for folder in sorted(parent.glob("[!.]*/")) if parent else ():
            try:
                paths = models_in(folder)
            except OSError as error:
                reason = f"the folder '{folder}' cannot be read ({error.strerror}); change its rights, or remove it"
                yield BrokenModel(folder.name, folder, printable(reason), origin)
                continue
            for path in paths:
                try:
                    yield ModelFiles(*_card_and_weights(path), origin)
                except ModelError as error:
                    yield BrokenModel(folder.name, folder, str(error), origin)


def models_in(folder: Path) -> list[Path]:
    """The bundle that ``folder`` is, else the published checkpoints in it; empty when it is neither."""
    if (folder / CARD_FILE).exists():
        return [folder]
    return sorted(path for path in folder.glob("*") if path.suffix in CHECKPOINT_ENDINGS and path.is_file())


def _card_and_weights(path: Path) -> tuple[ModelCard, Path]:
    """Card and weights file of a bundle folder or a published checkpoint."""
    if path.suffix in CHECKPOINT_ENDINGS and not os.path.isdir(path):
        return published_card(path), path
    return read_card(path / CARD_FILE), path / WEIGHTS_FILE


def find_model(name_or_path: str | Path = DEFAULT_MODEL) -> ModelFiles:
    """A model by its name, or by the path of a bundle folder, a ``model.json`` or a published checkpoint."""
    models = list_models()
    for model in models:
        if model.card.name == str(name_or_path):
            return model
    path = Path(name_or_path)
    if path.name == CARD_FILE:
        path = path.parent
    # Not Path.is_dir, which raises on a name that is too long for a file.
    if os.path.isdir(path) or (os.path.isfile(path) and path.suffix in CHECKPOINT_ENDINGS):
        return ModelFiles(*_card_and_weights(path), "file")
    if os.path.isfile(path) and is_archive(path):
        raise ModelError(f"'{path}' is an archive; unpack it and name the folder with {CARD_FILE} that was in it")
    if os.path.isfile(path):
        raise ModelError(f"'{path}' is no model: name a bundle folder with {CARD_FILE}, or a published checkpoint (.pth)")
    for broken in broken_models():
        if broken.name == str(name_or_path):
            raise ModelError(broken.reason)
    names = ", ".join(model.card.name for model in models) or "none"
    raise ModelError(
        f"there is no model '{name_or_path}': the installed ones are {names}; or name a bundle folder or a .pth file"
    )


def load_model(files: ModelFiles) -> Model:
    """Build the network and fill it with the checked weights.

    Raises :class:`ModelError` when the file is missing or damaged, holds anything but tensors, its hash is not that of
    the card, or any tensor is missing, extra, of another shape or not finite.
    """
    import torch

    with torch.device("meta"):
        # Without memory for parameters: a card may ask for absurd sizes, or others than the weights have.
        network = new_network(files.card.architecture, files.card.input)
        second = None if files.card.refinement is None else new_refinement(files.card.refinement.channels)
    size = sum(parameter.numel() for parameter in network.parameters())
    if size > MAXIMUM_PARAMETERS:
        raise ModelError(f"the model card describes a network of {size} parameters; at most {MAXIMUM_PARAMETERS} are built")
    card, state = _read_weights(files)
    wanted = network.state_dict()
    if second is not None:
        wanted |= {SECOND_PREFIX + name: tensor for name, tensor in second.state_dict().items()}
    _check_state(wanted, state, files.weights)
    # Assigned, not copied into empty parameters: making those from shapes alone imports sympy, which takes half a second.
    state = {
        name: tensor.detach().to(wanted[name].dtype, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    if second is not None:
        part = {name.removeprefix(SECOND_PREFIX): state.pop(name) for name in list(state) if name.startswith(SECOND_PREFIX)}
        second.load_state_dict(part, assign=True)
        second.eval()
    network.load_state_dict(state, assign=True)
    return Model(card, network.eval(), second)


def new_network(architecture: Architecture, spec: InputSpec) -> Network:
    """The network of a card or a recipe, with new weights; raises :class:`ModelError` when it cannot be built."""
    from NLSTSegLib.networks.ensemble import MOST_MEMBERS, Ensemble

    if not 1 <= architecture.members <= MOST_MEMBERS:
        raise ModelError(f"the model card describes {architecture.members} members of an ensemble; 1 to {MOST_MEMBERS} are built")
    members = [_one_network(architecture, spec) for _ in range(architecture.members)]
    return members[0] if len(members) == 1 else Ensemble(members)


def _one_network(architecture: Architecture, spec: InputSpec) -> Network:
    from NLSTSegLib.networks.published import PublishedUNet
    from NLSTSegLib.networks.unet import UNet, UNetConfig

    if architecture.kind == "published":
        return PublishedUNet()
    try:
        config = UNetConfig(
            dimensions=architecture.dimensions,
            input_slices=spec.slices,
            channels=architecture.channels,
            normalization=architecture.normalization,
            residual=architecture.residual,
        )
    except ValueError as error:
        raise ModelError(f"the model card describes a network that cannot be built: {error}") from error
    return UNet(config)


def new_refinement(channels: tuple[int, int, int, int]) -> RefinementNet:
    """The refinement network of a card or a recipe, with new weights; raises :class:`ModelError` when it cannot be built."""
    from NLSTSegLib.networks.refinement import RefinementConfig, RefinementNet

    try:
        return RefinementNet(RefinementConfig(channels))
    except ValueError as error:
        raise ModelError(f"the model card describes a second network that cannot be built: {error}") from error


def _read_weights(files: ModelFiles) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """The state dict, and the card with the hash of what was read."""
    path = files.weights
    data = read_limited(path, MAXIMUM_WEIGHTS_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if files.card.weights_sha256 not in ("", digest):
        raise ModelError(f"the weights '{path}' do not have the hash that the model card states; get the model again")
    if path.suffix in CHECKPOINT_ENDINGS:
        state = _checkpoint_state(data, path)
    elif not files.card.weights_sha256:
        raise ModelError(f"the model card beside '{path}' states no weights_sha256; export the bundle again")
    else:
        state = _safetensors_state(data, path)
    return replace(files.card, weights_sha256=digest), state


def _safetensors_state(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise ModelError(f"'{path}' is not a whole safetensors file ({str(error)[:200]}); get the model again") from error


def _checkpoint_state(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    """State dict of a published checkpoint: bare, or wrapped with epoch and optimizer; ``module.`` is taken off."""
    import torch

    try:
        if _unpacked_bytes(data) > MAXIMUM_WEIGHTS_BYTES:
            raise ModelError(f"'{path}' would unpack to more than {MAXIMUM_WEIGHTS_BYTES / 1e6:.0f} MB; get the model again")
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # a damaged pickle stumbles anywhere: IndexError, struct.error, AssertionError, ...
        raise ModelError(f"'{path}' is not a checkpoint of tensors alone, or is damaged; nothing in it was run") from error
    if isinstance(content, dict) and "model_state_dict" in content:
        content = content["model_state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"'{path}' holds no state dict: expected parameter names and tensors, or 'model_state_dict' with them")
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    if len(state) < len(content):
        raise ModelError(f"'{path}' holds tensors both with and without 'module.' before the same name; save one of them")
    return state


def _unpacked_bytes(data: bytes) -> int:
    """Bytes that a checkpoint unpacks to: torch writes a zip archive since 1.6; older ones are not packed."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return len(data)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        return sum(member.file_size for member in packed.infolist())


def _check_state(wanted: dict[str, torch.Tensor], state: dict[str, torch.Tensor], path: Path) -> None:
    import torch

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    faults = [f"{name} is missing" for name in sorted(set(wanted) - set(state))]
    faults += [f"{name[:100]} is not part of the network" for name in sorted(set(state) - set(wanted))]
    for name in sorted(set(wanted) & set(state)):
        tensor = state[name]
        types = floats if wanted[name].is_floating_point() else (wanted[name].dtype,)
        if wanted[name].shape != tensor.shape:
            faults.append(f"{name} has shape {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}")
        elif tensor.dtype not in types or tensor.layout != torch.strided or tensor.is_meta:
            faults.append(f"{name} is no plain tensor of {wanted[name].dtype}")
        elif not bool(tensor.float().isfinite().all()):
            faults.append(f"{name} holds values that are not finite")
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise ModelError(f"the weights '{path}' do not fit the network: {shown}")
