"""Model bundles (``model.json`` + ``weights.safetensors``) and the published checkpoint: finding, checking, loading."""

from __future__ import annotations

import hashlib
import io
import os.path
import zipfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from NLSTSegLib.archives import is_archive
from NLSTSegLib.errors import ModelError
from NLSTSegLib.inference import InputSpec
from NLSTSegLib.resources import resources_folder, user_models_folder

if TYPE_CHECKING:
    import torch

DEFAULT_MODEL = "lidc-25d"
"""Name of the bundled model that is used when none is named."""

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"

MAXIMUM_CARD_BYTES = 1_000_000
"""A larger ``model.json`` is not read."""

MAXIMUM_WEIGHTS_BYTES = 2_000_000_000
"""A larger file of weights is not read; the published checkpoint with its optimizer has 0.05 GB."""

MAXIMUM_PARAMETERS = 500_000_000
"""A larger network is not built: it is a broken card, not a model for a workstation."""


@dataclass(frozen=True)
class Architecture:
    """Which network to build; ``published`` takes no further values, ``unet`` those of ``UNetConfig``."""

    kind: Literal["unet", "published"]
    dimensions: Literal[2, 3] = 2
    channels: tuple[int, ...] = ()
    normalization: Literal["batch", "group", "instance", "none"] = "batch"
    residual: bool = True


@dataclass(frozen=True)
class ModelCard:
    """What ``model.json`` says; every field but those with a default must be there, and no other."""

    format: Literal[1]
    name: str
    version: str
    description: str
    architecture: Architecture
    input: InputSpec
    orientation: Literal["LPS"]
    spacing_note: str
    """Voxel spacings the model was trained on."""
    threshold: float
    min_volume_mm3: float
    classes: tuple[str, ...]
    training_data: str
    attribution: str
    licence: str
    intended_use: str
    metrics: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    """Hash of the weights file; empty only for a checkpoint that has no card."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {self.threshold}")
        if not 0 <= self.min_volume_mm3 < 1e9:
            raise ValueError(f"min_volume_mm3 must be 0 or more, not {self.min_volume_mm3}")
        for field_ in fields(self):
            text = getattr(self, field_.name)
            # These texts go to the terminal and into headers of files.
            if isinstance(text, str) and not text.isprintable():
                raise ValueError(f"{field_.name} must be one line without control characters")
        if self.architecture.kind == "published" and self.input.slices != 1:
            raise ValueError(f"the published network takes 1 input slice, not {self.input.slices}")


@dataclass(frozen=True)
class ModelFiles:
    """A model on the disk: its card, and where its weights are."""

    card: ModelCard
    weights: Path
    origin: Literal["bundled", "installed", "file"]


@dataclass(frozen=True)
class Model:
    """A model ready to run: ``network`` is in evaluation mode, on the CPU, in float32."""

    card: ModelCard
    network: torch.nn.Module


def list_models() -> list[ModelFiles]:
    """Every bundled and installed model, the default first; a folder with a broken card raises :class:`ModelError`."""
    bundled = sorted((resources_folder() / "Models").glob(f"*/{CARD_FILE}"))
    installed = sorted(user_models_folder().glob(f"*/{CARD_FILE}"))
    found = [ModelFiles(read_card(card), card.parent / WEIGHTS_FILE, "bundled") for card in bundled]
    found += [ModelFiles(read_card(card), card.parent / WEIGHTS_FILE, "installed") for card in installed]
    return sorted(found, key=lambda model: model.card.name != DEFAULT_MODEL)


def find_model(name_or_path: str = DEFAULT_MODEL) -> ModelFiles:
    """A model by its name, or by the path of a bundle folder, a ``model.json`` or a published checkpoint."""
    models = list_models()
    for model in models:
        if model.card.name == name_or_path:
            return model
    path = Path(name_or_path)
    if path.name == CARD_FILE:
        path = path.parent
    # Not Path.is_dir, which raises on a name that is too long for a file.
    if os.path.isdir(path):
        return ModelFiles(read_card(path / CARD_FILE), path / WEIGHTS_FILE, "file")
    if os.path.isfile(path) and path.suffix in (".pth", ".pt"):
        return ModelFiles(published_card(path), path, "file")
    if os.path.isfile(path) and is_archive(path):
        raise ModelError(f"'{path}' is an archive; unpack it and name the folder with {CARD_FILE} that was in it")
    if os.path.isfile(path):
        raise ModelError(f"'{path}' is no model: name a bundle folder with {CARD_FILE}, or a published checkpoint (.pth)")
    names = ", ".join(model.card.name for model in models) or "none"
    raise ModelError(
        f"there is no model '{name_or_path}': the installed ones are {names}; or name a bundle folder or a .pth file"
    )


def read_card(path: Path) -> ModelCard:
    """Read and check a ``model.json``; raises :class:`ModelError` that names the file and the field."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    text = _content(path, MAXIMUM_CARD_BYTES)
    strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    adapter = TypeAdapter(with_config(strict)(ModelCard))
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"'{path}' is not a valid model card: {place}: {reason}") from error


def published_card(weights: Path) -> ModelCard:
    """The card of a checkpoint of the published U-Net, whose file says nothing about itself."""
    return ModelCard(
        format=1,
        name=weights.stem,
        version="published",
        description="Checkpoint of the published NLSTseg 2D U-Net, supplied by the user.",
        architecture=Architecture("published"),
        # Window centre -500 width 1400; the procedure truncates to whole grey values.
        input=InputSpec(window_hu=(-1200.0, 200.0), as_uint8=True, margin_px=44),
        orientation="LPS",
        spacing_note="native in-plane pixels, each axial slice alone",
        threshold=0.5,
        min_volume_mm3=0.0,
        classes=("lesion",),
        training_data="NLSTseg training slices (Chen et al., Scientific Data 2025, doi 10.1038/s41597-025-05742-x)",
        attribution="Chen et al. 2025, doi 10.1038/s41597-025-05742-x",
        licence="unknown: the publication's repository states none",
        intended_use="Research only; not for clinical use.",
    )


def load_model(files: ModelFiles) -> Model:
    """Build the network and fill it with the checked weights.

    Raises :class:`ModelError` when the file is missing or damaged, holds anything but tensors, its hash is not that of
    the card, or any tensor is missing, extra, of another shape or not finite.
    """
    network = _describe(files.card.architecture, files.card.input)
    card, state = _read_weights(files)
    _check_state(network, state, files.weights)
    network.to_empty(device="cpu").load_state_dict(state)
    return Model(card, network.eval())


def _describe(architecture: Architecture, spec: InputSpec) -> torch.nn.Module:
    """The network without memory for its parameters: a card may ask for absurd sizes, or others than the weights have."""
    import torch

    from NLSTSegLib.networks.published import PublishedUNet
    from NLSTSegLib.networks.unet import UNet, UNetConfig

    if architecture.kind == "published":
        with torch.device("meta"):
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
    with torch.device("meta"):
        network = UNet(config)
    size = sum(parameter.numel() for parameter in network.parameters())
    if size > MAXIMUM_PARAMETERS:
        raise ModelError(f"the model card describes a network of {size} parameters; at most {MAXIMUM_PARAMETERS} are built")
    return network


def _read_weights(files: ModelFiles) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """The state dict, and the card with the hash of what was read."""
    path = files.weights
    data = _content(path, MAXIMUM_WEIGHTS_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if files.card.weights_sha256 not in ("", digest):
        raise ModelError(f"the weights '{path}' do not have the hash that the model card states; get the model again")
    if path.suffix in (".pth", ".pt"):
        state = _checkpoint_state(data, path)
    elif not files.card.weights_sha256:
        raise ModelError(f"the model card beside '{path}' states no weights_sha256; export the bundle again")
    else:
        state = _safetensors_state(data, path)
    return replace(files.card, weights_sha256=digest), state


def _content(path: Path, most_bytes: int) -> bytes:
    """Raises :class:`ModelError` when the file cannot be read or is larger."""
    try:
        # A pipe would be waited for, and a device may have no end.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"'{path}' is not a file; get the model again")
        if path.stat().st_size > most_bytes:
            raise ModelError(f"'{path}' is larger than {most_bytes / 1e6:.0f} MB, so it is damaged; get the model again")
        return path.read_bytes()
    except OSError as error:
        what = f"cannot be read ({error.strerror}): a bundle folder holds {CARD_FILE} and {WEIGHTS_FILE}; get the model again"
        raise ModelError(f"'{path}' {what}") from error


def _safetensors_state(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise ModelError(f"'{path}' is not a whole safetensors file ({error}); get the model again") from error


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
    """Of a checkpoint as torch writes it since 1.6, a zip archive; older ones are not packed."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return len(data)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        return sum(member.file_size for member in packed.infolist())


def _check_state(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    import torch

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    wanted = network.state_dict()
    faults = [f"{name} is missing" for name in sorted(set(wanted) - set(state))]
    faults += [f"{name} is not part of the network" for name in sorted(set(state) - set(wanted))]
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
