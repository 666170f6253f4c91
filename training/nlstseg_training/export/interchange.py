"""A network in the forms of other programs: the published code's checkpoint, and ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.networks.published import PublishedUNet

PREFIX = "module."
"""The published code wraps its network in DataParallel before it loads a checkpoint."""

ONNX_SIDE, ONNX_DEPTH = 64, 16
"""Size of the input that the network is traced with; in the file batch and sides are free, in multiples of the network's."""

ONNX_OPSET = 17

MOST_DIFFERENT = 1e-3
"""Difference in the probability, between torch and ONNX Runtime on the same random input."""


def write_pth(model: Model, path: Path) -> None:
    """A ``checkpoint.pth`` that the published code loads; raises :class:`InputError` for another network than the published."""
    if not isinstance(model.network, PublishedUNet):
        raise InputError(f"'{model.card.name}' is not the published network, the only one that its code can load; use --onnx")
    _not_there(path)
    state = {PREFIX + name: tensor.detach().float().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    with atomic_file(path) as partial:
        torch.save(state, partial)


def write_onnx(model: Model, path: Path) -> float:
    """The first network as ONNX: input as the card's ``input`` scales it, output logits; returns the largest difference.

    Raises :class:`InputError` when a package is missing, there is such a file, or ONNX Runtime gives other probabilities.
    """
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX needs the package '{error.name}', which is not installed; pip install 'nlstseg[onnx]'") from error
    _not_there(path)
    network, spec = model.network.float().cpu().eval(), model.card.input
    sides = (ONNX_SIDE, ONNX_SIDE) if spec.patch_kji is None else (ONNX_DEPTH, ONNX_SIDE, ONNX_SIDE)
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, spec.slices, *sides)).astype(np.float32))
    names = ["batch", *(["k"] if len(sides) == 3 else []), "j", "i"]
    free = dict(zip([0, *range(2, 2 + len(sides))], names, strict=True))
    with atomic_file(path) as partial, warnings.catch_warnings():
        # The exporter that it recommends needs one package more, and gives the same file.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (x,),
            str(partial),
            input_names=["ct"],
            output_names=["logits"],
            dynamic_axes={"ct": free, "logits": free},
            opset_version=ONNX_OPSET,
            dynamo=False,
        )
        loaded = onnx.load(str(partial))
        for key, value in (("model", f"{model.card.name} {model.card.version}"), ("notice", model.card.intended_use)):
            loaded.metadata_props.add(key=key, value=value)
        onnx.save(loaded, str(partial))
        session = onnxruntime.InferenceSession(partial.read_bytes(), providers=["CPUExecutionProvider"])
        # Another size than it was traced with.
        other = torch.cat((x, x.flip(-1)), dim=-1).repeat(2, *[1] * (x.ndim - 1))
        with torch.no_grad():
            ours = torch.sigmoid(network(other)).numpy()
        theirs = 1 / (1 + np.exp(-session.run(None, {"ct": other.numpy()})[0]))
        different = float(np.abs(ours - theirs).max())
        if not different <= MOST_DIFFERENT:
            raise InputError(f"ONNX Runtime gives probabilities that differ by up to {different:.3g}, so nothing was written")
    return different


def _not_there(path: Path) -> None:
    if path.exists():
        raise InputError(f"'{path}' is there already, and nothing is overwritten; choose another name")
