"""From trained weights to a model bundle: ``model.json`` and ``weights.safetensors``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from NLSTSegLib.models import CARD_FILE, WEIGHTS_FILE, ModelCard


def write_bundle(network: torch.nn.Module, card: ModelCard, folder: Path) -> ModelCard:
    """Write the bundle, replacing its two files; returns the card with the hash of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_FILE
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, weights)
    card = dataclasses.replace(card, weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    (folder / CARD_FILE).write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n", encoding="utf-8")
    return card
