"""Checkpoints that no full disk, power cut or network gone wrong takes away: the one before stays until the next is whole."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.errors import InputError

LAST, BEST, FINISHED = "last.ckpt", "best.ckpt", "weights.safetensors"
"""Files in the folder of a training: where it goes on, the epoch with the lowest loss on the validation cases (the last one where
none is chosen), and the result."""

BEFORE_LAST = "before-last.ckpt"


class SafeCheckpoints(TorchCheckpointIO):
    """Writes beside the place, syncs and renames; the :data:`LAST` of before becomes :data:`BEFORE_LAST`.

    Weights that are no finite numbers are not written, since nothing could go on from them: :class:`InputError`, with ``way_on``.
    """

    def __init__(self, way_on: str) -> None:
        self.way_on = way_on

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        spoilt = [name for name, tensor in checkpoint["state_dict"].items() if not bool(tensor.isfinite().all())]
        if spoilt:
            what = f"the weights '{spoilt[0]}' are no numbers after step {checkpoint['global_step']}"
            raise InputError(f"{what}; {self.way_on}")
        place = Path(path)
        with atomic_file(place) as partial:
            torch.save(checkpoint, partial)
            if place.name == LAST and place.exists():
                os.replace(place, place.with_name(BEFORE_LAST))


def whole_checkpoint(folder: Path) -> Path | None:
    """:data:`LAST` of a training, or the one before where that is missing or cut off; None where there is neither.

    Raises :class:`InputError` where there is one and none can be read.
    """
    there = [path for path in (folder / LAST, folder / BEFORE_LAST) if path.exists()]
    whole = [path for path in there if zipfile.is_zipfile(path)]
    if there and not whole:
        raise InputError(f"'{there[0]}' is damaged, and there is none before it; begin again in another folder")
    return whole[0] if whole else None


def step_of(checkpoint: Path | None) -> int:
    """Steps that were done when it was written; 0 without one."""
    return 0 if checkpoint is None else int(torch.load(checkpoint, weights_only=True, mmap=True)["global_step"])


def scaled_rates(checkpoint: dict[str, Any], factor: float) -> None:
    """Bring the learning rates of a checkpoint, those to come included, to ``factor`` of what they were, in place."""
    for state in checkpoint["optimizer_states"]:
        for group in state["param_groups"]:
            # Those that OneCycleLR goes between are kept in the optimizer.
            for name in {"lr", "initial_lr", "max_lr", "min_lr"} & group.keys():
                group[name] = group[name] * factor
