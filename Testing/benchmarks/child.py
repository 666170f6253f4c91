"""What the benchmark measures in a process of its own: ``python child.py TASK JSON`` prints one JSON object."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from NLSTSegLib.inference.candidates import LEAST_VOXELS
from NLSTSegLib.inference.devices import PLAIN_CPU, Device, choose_device
from NLSTSegLib.inference.low_resolution import downsampled, least_voxels, upsampled
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.inference.refinement import refine
from NLSTSegLib.inference.slices import predict_slices
from NLSTSegLib.lesions.find import find_lesions, label_map
from NLSTSegLib.models.bundle import Model, find_model, load_model
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.networks.network import Network, fold_batch_norm
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume, to_canonical
from NLSTSegLib.volume.probability import above

PRODUCT_SIDE, PRODUCTS = 4096, 5
"""The machine's peak is the fastest of so many products of two square matrices of this side."""

COUNTED = 8
"""Operations are counted in every such slice with lung, which takes a run of its own."""


def plain(ct: Path, model: str, slices: list[int] | None, keep: Path, threads: int) -> dict[str, Any]:
    """Each whole slice alone in float32, as the published procedure does, with nothing left out; ``None``: every slice.

    Refinement and the half resolution follow, in float32 too. ``keep`` gets the probabilities (uint8) and which slices they
    are of.
    """
    torch.set_num_threads(threads)
    canonical, loaded = to_canonical(read_ct(ct)), load_model(find_model(model))
    k_all = list(range(len(canonical.hu))) if slices is None else slices
    cpu = time.process_time()
    probability, seconds = _slice_by_slice(canonical, loaded, k_all)
    slice_cpu = (time.process_time() - cpu) / len(k_all)
    start, cpu = time.perf_counter(), time.process_time()
    if loaded.refinement is not None:
        lung_mask = lung_field(canonical)
        small, small_field = downsampled(canonical, lung_mask)
        coarse, _ = _slice_by_slice(small, loaded, range(len(small.hu)))
        # As few as prediction.predict_on looks at there.
        coarse = _looked_again(coarse, loaded, small, small_field, least_voxels(canonical) // 2)
        probability = _looked_again(probability, loaded, canonical, lung_mask, LEAST_VOXELS)
        np.maximum(probability, upsampled(coarse, small, canonical, loaded.card.threshold), out=probability)
    np.savez(keep, slices=k_all, probability=probability)
    return {
        "slice_s": float(np.median(seconds)),
        "slice_cpu_s": slice_cpu,
        "slices": len(k_all),
        "looks_s": time.perf_counter() - start,
        "looks_cpu_s": time.process_time() - cpu,
    }


def _slice_by_slice(ct: CtVolume, model: Model, k_all: Sequence[int]) -> tuple[np.ndarray, list[float]]:
    """Probabilities of the first or only network (uint8), and the seconds of each slice."""
    answers, seconds = [], []
    with torch.inference_mode():
        for k in k_all:
            start = time.perf_counter()
            y = model.network(torch.from_numpy(_whole_slice(ct, model.card.input, k)))
            answers.append(torch.sigmoid(y).mul(255).round().to(torch.uint8)[0, 0].numpy())
            seconds.append(time.perf_counter() - start)
    rows, columns = ct.hu.shape[1:]
    return np.stack(answers)[:, :rows, :columns], seconds


def _looked_again(
    probability: np.ndarray,
    model: Model,
    ct: CtVolume,
    lung_mask: np.ndarray | None,
    least: int,
    network: torch.nn.Module | None = None,
    device: Device = PLAIN_CPU,
) -> np.ndarray:
    spec = model.card.refinement
    assert spec is not None
    assert model.refinement is not None
    options: dict[str, Any] = {"threshold": model.card.threshold, "least_voxels": least, "device": device}
    return refine(network or model.refinement, spec, ct, probability, lung_mask, **options)


def _whole_slice(ct: CtVolume, spec: InputSpec, k: int) -> np.ndarray:
    neighbours = np.clip(k + spec.slice_offsets(ct.spacing_ijk_mm[2]), 0, len(ct.hu) - 1)
    values = spec.scale(ct.hu[neighbours])
    missing = [-side % 16 for side in values.shape[1:]]
    return np.pad(values, [(0, 0), *((0, n) for n in missing)], constant_values=-1)[None]


def peak(precision: str, threads: int) -> dict[str, Any]:
    """GFLOP/s of a large matrix product."""
    torch.set_num_threads(threads)
    a, b = torch.randn(2, PRODUCT_SIDE, PRODUCT_SIDE).to(getattr(torch, precision))
    a @ b
    seconds = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return {"gflop_per_s": 2 * PRODUCT_SIDE**3 / min(seconds) / 1e9}


class Counted(Network):
    """A network, and how many operations it has done."""

    def __init__(self, network: Any):
        super().__init__()
        self.network, self.total = network, 0
        if isinstance(network, Network):
            self.side_multiple, self.takes_crops = network.side_multiple, network.takes_crops

    def forward(self, x: torch.Tensor) -> Any:
        return self._counted(self.network, x)

    def answer(self, x: torch.Tensor, lung_mask: np.ndarray) -> torch.Tensor:
        return self._counted(self.network.answer, x, lung_mask)

    def _counted(self, run: Callable[..., Any], *inputs: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            y = run(*inputs)
        self.total += counter.get_total_flops()
        return y


def operations(ct: Path, model: str) -> dict[str, Any]:
    """Operations of all slices: of the plain way, and those that ours really does; counted in some of the slices.

    Those of the refinement, in both resolutions, are the same in both ways and counted in all.
    """
    canonical, loaded = to_canonical(read_ct(ct)), load_model(find_model(model))
    lung_mask = lung_field(canonical)
    assert lung_mask is not None
    torch.set_num_threads(1)
    plain_total, ours_total, looks = 0.0, 0.0, 0.0
    resolutions = [(canonical, lung_mask, LEAST_VOXELS)]
    if loaded.refinement is not None:
        small, small_field = downsampled(canonical, lung_mask)
        assert small_field is not None
        resolutions.append((small, small_field, least_voxels(canonical) // 2))
    for volume, where, least in resolutions:
        whole = Counted(loaded.network)
        with torch.inference_mode():
            whole(torch.from_numpy(_whole_slice(volume, loaded.card.input, 0)))
        with_lung = np.flatnonzero(where.any(axis=(1, 2)))
        counted = with_lung[COUNTED // 2 :: COUNTED]
        some = np.zeros_like(where)
        some[counted] = where[counted]
        network, device = ours(load_model(find_model(model)))
        wrapped = Counted(network)
        predict_slices(wrapped, loaded.card.input, volume, some, device=device)
        plain_total += whole.total * len(where)
        ours_total += wrapped.total / len(counted) * len(with_lung)
        if loaded.refinement is not None:
            found = predict_slices(network, loaded.card.input, volume, where, device=device)
            second = Counted(device.place(fold_batch_norm(copy.deepcopy(loaded.refinement)), 3))
            _looked_again(found, loaded, volume, where, least, second, device)
            looks += second.total
    return {
        "plain_gflop": (plain_total + looks) / 1e9,
        "ours_gflop": (ours_total + looks) / 1e9,
        "refinement_gflop": looks / 1e9,
        "field_share": float(lung_mask.mean()),
        "slices_with_lung": int(lung_mask.any(axis=(1, 2)).sum()),
    }


def ours(model: Model) -> tuple[Network, Device]:
    """The network as ``segment`` runs it on a CPU, and with which numbers it is fed there."""
    device = choose_device("cpu")
    sparse = model.network.sparse(device.dtype)
    return (device.place(fold_batch_norm(model.network), 2), device) if sparse is None else (sparse, PLAIN_CPU)


def slices_with_lung(ct: Path) -> dict[str, Any]:
    """Which slices have lung, of how many."""
    lung_mask = lung_field(to_canonical(read_ct(ct)))
    assert lung_mask is not None
    return {"with_lung": np.flatnonzero(lung_mask.any(axis=(1, 2))).tolist(), "all": len(lung_mask)}


def agreement(ct: Path, model: str, plain: list[Path], probability: Path) -> dict[str, Any]:
    """How far our mask is that of the plain way, in the slices of ``plain``: equal voxels and Dice inside the lung field.

    With every slice, ``Dice of the lesions`` compares the lesions too, whole as far as they reach out of the field.
    """
    import SimpleITK as sitk

    canonical, card = to_canonical(read_ct(ct)), find_model(model).card
    lung_mask = lung_field(canonical)
    assert lung_mask is not None
    image = sitk.DICOMOrient(sitk.ReadImage(str(probability)), "LPS")
    mine = sitk.GetArrayFromImage(image)
    kept = [np.load(path) for path in plain]
    k = np.concatenate([one["slices"] for one in kept])
    theirs = np.concatenate([one["probability"] for one in kept])
    a, b = above(theirs, card.threshold)[lung_mask[k]], above(mine[k], card.threshold)[lung_mask[k]]
    result = {
        "slices": len(k),
        "equal in the field": float((a == b).mean()),
        "Dice in the field": _dice(a, b),
        "share of the field that is lesion": float(a.mean()),
    }
    if len(np.unique(k)) == len(lung_mask):
        order = np.unique(k, return_index=True)[1]
        masks = [
            label_map(
                find_lesions(p, canonical, threshold=card.threshold, min_volume_mm3=card.min_volume_mm3, lung_mask=lung_mask),
                p.shape,
            )
            > 0
            for p in (theirs[order], mine)
        ]
        result["Dice of the lesions"] = _dice(*masks)
    return result


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b)))


def write_cts(ct: Path, counts: list[int], folder: Path) -> dict[str, Any]:
    """The same chest cut into so many slices each, as ``COUNT.nrrd``."""
    import SimpleITK as sitk

    image = to_canonical(read_ct(ct)).to_image()
    for count in counts:
        spacing = [*image.GetSpacing()[:2], image.GetSpacing()[2] * (image.GetSize()[2] - 1) / (count - 1)]
        size = [*image.GetSize()[:2], count]
        cut = sitk.Resample(
            image,
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            image.GetOrigin(),
            spacing,
            image.GetDirection(),
            -1024,
            sitk.sitkInt16,
        )
        sitk.WriteImage(cut, str(folder / f"{count}.nrrd"))
    return {}


def network_memory(slices: int, model: str) -> dict[str, Any]:
    """MB that the network stage takes at its highest, beside the probability it gives back."""
    import resource

    loaded = load_model(find_model(model))
    hu = np.random.default_rng(0).integers(-1000, 200, (1, 512, 512), dtype=np.int16).repeat(slices, 0)
    lung_mask = np.zeros(hu.shape, bool)
    lung_mask[:, 200:300, 100:200] = True
    network, device = ours(loaded)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    probability = predict_slices(network, loaded.card.input, CtVolume(hu, (0.7, 0.7, 2.0)), lung_mask, device=device)
    probability.fill(1)
    return {"mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 - probability.nbytes / 2**20}


def main() -> None:
    """Run one task."""
    tasks = {task.__name__: task for task in (slices_with_lung, plain, peak, operations, agreement, write_cts, network_memory)}
    arguments = json.loads(sys.argv[2])
    for name in ("ct", "keep", "probability", "folder"):
        if name in arguments:
            arguments[name] = Path(arguments[name])
    print(json.dumps(tasks[sys.argv[1]](**arguments)))


if __name__ == "__main__":
    main()
