"""A model bundle: ``model.json`` and ``weights.safetensors``, and whether it is the network that it was made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save

from nlstseg_training.data.cache import Case
from nlstseg_training.evaluation.predictions import segment_options
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import CARD_FILE, SECOND_PREFIX, WEIGHTS_FILE, Model, ModelCard, find_model, load_model
from NLSTSegLib.pipeline import segment

Network = TypeVar("Network", bound=torch.nn.Module)


def write_bundle(network: torch.nn.Module, card: ModelCard, folder: Path, second: torch.nn.Module | None = None) -> ModelCard:
    """Write the bundle, replacing its two files; returns the card with the hash of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = packed_weights(network, second)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    card = dataclasses.replace(card, weights_sha256=hashlib.sha256(weights).hexdigest())
    (folder / CARD_FILE).write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n", encoding="utf-8")
    return card


def packed_weights(network: torch.nn.Module, second: torch.nn.Module | None = None) -> bytes:
    """The file of the weights, always the same for the same weights; in float16 what that holds exactly (:func:`rounded`)."""
    state = dict(network.state_dict())
    if second is not None:
        state |= {SECOND_PREFIX + name: tensor for name, tensor in second.state_dict().items()}
    return save({name: _smallest(tensor.detach().cpu().contiguous()) for name, tensor in state.items()})


def _smallest(tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.half() if tensor.dtype == torch.float32 else tensor
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor


def rounded(network: Network) -> Network:
    """The network with parameters that float16 holds, in place: half the file, and the very numbers that it runs with."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half())
    return network


def check_parity(trained: Model, folder: Path, case: Case, device: DeviceRequest) -> None:
    """Raise :class:`InputError` unless the bundle in ``folder`` gives exactly the probabilities of ``trained`` on ``case``."""
    options = segment_options(case, device)
    bundled = load_model(find_model(str(folder)))
    ours, theirs = (segment(case.ct, model, options).canonical_probability for model in (trained, bundled))
    different = np.count_nonzero(ours != theirs)
    if different:
        raise InputError(
            f"the bundle gives other probabilities than the training's network in {different} voxels of case '{case.id}', so it "
            "was not written; report it"
        )
