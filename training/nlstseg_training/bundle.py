"""A model bundle: ``model.json`` and ``weights.safetensors``, and whether it is the network that it was made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from nlstseg_training.cases import Case
from NLSTSegLib.devices import DeviceChoice
from NLSTSegLib.errors import InputError
from NLSTSegLib.models import CARD_FILE, WEIGHTS_FILE, Model, ModelCard, find_model, load_model
from NLSTSegLib.pipeline import SegmentOptions, segment


@dataclass(frozen=True)
class Where:
    """Where the network runs while it is measured."""

    device: DeviceChoice = "auto"
    threads: int | None = None


def write_bundle(network: torch.nn.Module, card: ModelCard, folder: Path) -> ModelCard:
    """Write the bundle, replacing its two files; returns the card with the hash of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = packed_weights(network)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    card = dataclasses.replace(card, weights_sha256=hashlib.sha256(weights).hexdigest())
    (folder / CARD_FILE).write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n", encoding="utf-8")
    return card


def packed_weights(network: torch.nn.Module) -> bytes:
    """The file of the weights, always the same for the same weights."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})


def check_parity(trained: Model, folder: Path, case: Case, where: Where) -> None:
    """Raise :class:`InputError` unless the bundle in ``folder`` gives exactly the probabilities of ``trained`` on ``case``."""
    options = SegmentOptions(lung_field="none" if case.lungs is None else "auto", device=where.device, threads=where.threads)
    bundled = load_model(find_model(str(folder)))
    ours, theirs = (segment(case.ct, model, options).canonical_probability for model in (trained, bundled))
    different = np.count_nonzero(ours != theirs)
    if different:
        raise InputError(
            f"the bundle gives other probabilities than the training's network in {different} voxels of case '{case.id}', so it "
            "was not written; report it"
        )
