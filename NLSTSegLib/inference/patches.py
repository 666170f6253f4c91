"""From HU voxels to a probability volume: a 3D network over overlapping patches of the lung field."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import ModelError
from NLSTSegLib.inference.devices import PLAIN_CPU, Device, to_device
from NLSTSegLib.inference.slices import Answer, arriving
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.volume.ct import PADDING_HU, CtVolume

if TYPE_CHECKING:
    import torch

SIGMA_OF_PATCH = 0.125
"""Width of the Gaussian that weights a patch, of its side: near its border a patch has seen less (as nnU-Net does, Isensee
et al., Nature Methods 2021)."""

LEAST_WEIGHT = 1e-3
"""A voxel that only the corner of one patch covers keeps that patch's value."""

MOST_GRID_VOXELS = 10**9
"""Most voxels of a CT resampled to the model's spacing; 300 slices of 512 x 512 pixels have 0.08 times as many."""

Corner = tuple[int, int, int]
"""First voxel (k, j, i) of a patch; the patch may reach beyond the image, where there is air."""


def predict_patches(
    network: torch.nn.Module,
    spec: InputSpec,
    ct: CtVolume,
    lung_mask: np.ndarray | None = None,
    *,
    device: Device = PLAIN_CPU,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Probability of lesion per voxel, uint8 ``[k, j, i]`` (255 is 1), of a canonical ``ct``.

    The CT is resampled to ``spec.spacing_kji_mm``, where there is one, and the probability brought back, both linearly.
    Patches of ``spec.patch_kji`` overlap by half and are averaged with Gaussian weights; those without ``lung_mask`` (boolean,
    the CT's shape) are skipped, and what no patch covers stays 0. Memory beside the CT and the result is that of one layer
    of patches. ``progress(fraction)`` is called after every patch and may raise to stop. Raises ``OverflowError`` where
    float16 does not hold the network's numbers.
    """
    if spec.patch_kji is None:
        raise ValueError("a 3D network needs the size of its patches (patch_kji)")
    if spec.spacing_kji_mm is None:
        return _predict(network, spec, spec.patch_kji, ct, lung_mask, device, progress)
    grid = _regridded(ct, spec.spacing_kji_mm)
    if lung_mask is not None:
        lung_mask = _moved(lung_mask.astype(np.uint8), ct, grid, nearest=True) > 0
    probability = _predict(network, spec, spec.patch_kji, grid, lung_mask, device, progress)
    return _moved(probability, grid, ct, nearest=False)


def _predict(
    network: torch.nn.Module,
    spec: InputSpec,
    patch_kji: tuple[int, int, int],
    ct: CtVolume,
    lung_mask: np.ndarray | None,
    device: Device,
    progress: Callable[[float], None] | None,
) -> np.ndarray:
    probability = np.zeros(ct.hu.shape, np.uint8)
    corners = patch_corners(ct.hu.shape, patch_kji, lung_mask)
    if not corners:
        return probability
    weight = _gaussian(patch_kji)
    _, rows, columns = (max(size, side) for size, side in zip(ct.hu.shape, patch_kji, strict=True))
    summed, weights = np.zeros((2, patch_kji[0], rows, columns), np.float32)
    starts = sorted({k for k, _, _ in corners})
    answers = _answers(network, spec, patch_kji, ct, corners, device)
    done = 0
    for k, following in pairwise([*starts, starts[-1] + patch_kji[0]]):
        for _, j, i in (corner for corner in corners if corner[0] == k):
            summed[:, j : j + patch_kji[1], i : i + patch_kji[2]] += weight * next(answers)
            weights[:, j : j + patch_kji[1], i : i + patch_kji[2]] += weight
            done += 1
            if progress is not None:
                progress(done / len(corners))
        # No later patch reaches these slices.
        ready = min(following - k, patch_kji[0])
        out = probability[k : k + ready]
        mean = summed[:ready] / np.maximum(weights[:ready], LEAST_WEIGHT)
        out[:] = np.rint(255 * mean)[: len(out), : out.shape[1], : out.shape[2]]
        for layer in (summed, weights):
            layer[: len(layer) - ready] = layer[ready:].copy()
            layer[len(layer) - ready :] = 0
    return probability


def _answers(
    network: torch.nn.Module,
    spec: InputSpec,
    patch_kji: tuple[int, int, int],
    ct: CtVolume,
    corners: list[Corner],
    device: Device,
) -> Iterator[np.ndarray]:
    """Probability in each patch in turn, float32 ``[k, j, i]``."""
    import torch

    # A CUDA card is asked for the next patch before it has brought this one; any other would have to be waited for.
    ahead = 1 if torch.device(device.name).type == "cuda" else 0
    asked: deque[Answer] = deque()
    for corner in corners:
        with torch.inference_mode():
            patch = _patch(ct.hu, corner, patch_kji, spec)[None, None]
            logits = network(to_device(patch, device))
            asked.append(arriving(torch.sigmoid(logits.float())[0, 0], logits))
        if len(asked) > ahead:
            yield asked.popleft()()
    while asked:
        yield asked.popleft()()


def patch_corners(shape_kji: tuple[int, ...], patch_kji: tuple[int, int, int], lung_mask: np.ndarray | None) -> list[Corner]:
    """Where the patches lie, half a patch apart from the first voxel of ``lung_mask`` to its last (all of the image without one).

    Patches without a voxel of the field are left out.
    """
    spans = [(0, size) for size in shape_kji]
    if lung_mask is not None:
        if not lung_mask.any():
            return []
        occupied = [np.flatnonzero(lung_mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        spans = [(int(indices[0]), int(indices[-1]) + 1) for indices in occupied]
    starts = []
    for (low, high), side, size in zip(spans, patch_kji, shape_kji, strict=True):
        # A field smaller than a patch stands in its middle, as far as the image goes.
        if high - low <= side:
            starts.append([max(0, min((low + high - side) // 2, size - side))])
        else:
            steps = -(-2 * (high - low - side) // side)
            starts.append([low + round(n * (high - low - side) / steps) for n in range(steps + 1)])
    corners = [(k, j, i) for k in starts[0] for j in starts[1] for i in starts[2]]
    if lung_mask is None:
        return corners
    return [c for c in corners if lung_mask[tuple(slice(at, at + side) for at, side in zip(c, patch_kji, strict=True))].any()]


def _patch(hu: np.ndarray, corner: Corner, patch_kji: tuple[int, int, int], spec: InputSpec) -> np.ndarray:
    values = spec.scale(hu[tuple(slice(at, at + side) for at, side in zip(corner, patch_kji, strict=True))])
    missing = [(0, side - size) for side, size in zip(patch_kji, values.shape, strict=True)]
    return np.pad(values, missing, constant_values=float(spec.scale(np.array(PADDING_HU))))


def _gaussian(patch_kji: tuple[int, int, int]) -> np.ndarray:
    """float32 of the shape of a patch, 1 in its middle."""
    weight = np.ones((), np.float32)
    for side in patch_kji:
        away = (np.arange(side) - (side - 1) / 2) / (SIGMA_OF_PATCH * side)
        weight = np.multiply.outer(weight, np.exp(-0.5 * away**2).astype(np.float32))
    return np.maximum(weight / weight.max(), LEAST_WEIGHT)


def _regridded(ct: CtVolume, spacing_kji_mm: tuple[float, float, float]) -> CtVolume:
    """The CT resampled to ``spacing_kji_mm``: its first voxel centres stay, and the last ones are reached or passed."""
    spacing_ijk_mm = spacing_kji_mm[::-1]
    extents_mm = [(n - 1) * step for n, step in zip(ct.hu.shape[::-1], ct.spacing_ijk_mm, strict=True)]
    size_ijk = [int(np.ceil(extent / step - 1e-6)) + 1 for extent, step in zip(extents_mm, spacing_ijk_mm, strict=True)]
    if np.prod(size_ijk, dtype=float) > MOST_GRID_VOXELS:
        size = "x".join(str(n) for n in size_ijk)
        raise ModelError(f"the model sees the CT in voxels of {spacing_ijk_mm} mm, {size} of them; use a model for this CT")
    empty = np.broadcast_to(np.int16(0), size_ijk[::-1])
    grid = CtVolume(empty, spacing_ijk_mm, ct.origin_lps_mm, ct.direction_lps)
    return CtVolume(_moved(ct.hu, ct, grid, nearest=False), spacing_ijk_mm, ct.origin_lps_mm, ct.direction_lps)


def _moved(array: np.ndarray, source: CtVolume, target: CtVolume, *, nearest: bool) -> np.ndarray:
    """``array`` on the voxels of ``source``, on those of ``target``; the outermost voxels are repeated outwards."""
    import SimpleITK as sitk

    resample = sitk.ResampleImageFilter()
    resample.SetSize(target.hu.shape[::-1])
    resample.SetOutputSpacing(target.spacing_ijk_mm)
    resample.SetOutputOrigin(target.origin_lps_mm)
    resample.SetOutputDirection(target.direction_lps)
    resample.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resample.UseNearestNeighborExtrapolatorOn()
    return sitk.GetArrayFromImage(resample.Execute(source.image_like(array)))
