"""The probability volume of a CT: the first network alone, or both networks, at full and at half resolution."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.inference.candidates import LEAST_VOXELS
from NLSTSegLib.inference.devices import Device, choose_device
from NLSTSegLib.inference.extension import beyond_the_edge
from NLSTSegLib.inference.in_plane import resized, with_known_pixels
from NLSTSegLib.inference.low_resolution import can_be_downsampled, downsampled, least_voxels, upsampled
from NLSTSegLib.inference.patches import predict_patches
from NLSTSegLib.inference.refinement import refine
from NLSTSegLib.inference.slices import predict_slices
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.progress import Fraction, part_of
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.probability import above

if TYPE_CHECKING:
    from NLSTSegLib.networks.network import Network

THICK_MM = 6.0
"""Slices farther apart are shown twice each to a network that sees several: what lies in one alone is else no lesion to it, since
it learned from thinner ones (docs/experiments.md)."""

FULL_RESOLUTION, FIRST_NETWORK, FIRST_AT_LOW_RESOLUTION = 0.89, 0.87, 0.5
"""Shares of the progress: of the full resolution, and of the first network in each of the two."""


def predict_on(
    device: Device,
    canonical: CtVolume,
    model: Model,
    lung_mask: np.ndarray | None,
    threshold: float,
    progress: Fraction,
    left_out: Callable[[int], None],
) -> tuple[np.ndarray, str]:
    """The probability (uint8 ``[k, j, i]``, 255 is 1) that the model gives for the canonical CT, and a note on where it ran.

    ``left_out`` is told how many candidates were too many to refine. A CT with pixels that the model does not know is shown to
    it resampled. Raises what torch does when the device does not manage it.
    """
    shown, shown_mask = with_known_pixels(canonical, lung_mask, model.card.in_plane_range_mm)
    probability, note = _predict_as_shown(device, shown, model, shown_mask, threshold, progress, left_out)
    if shown is canonical:
        return probability, note
    i_mm, j_mm, _ = shown.spacing_ijk_mm
    _, rows, columns = canonical.hu.shape
    return resized(probability, (rows, columns)), f"{note}, with pixels of {j_mm:.2f} x {i_mm:.2f} mm"


def _predict_as_shown(
    device: Device,
    canonical: CtVolume,
    model: Model,
    lung_mask: np.ndarray | None,
    threshold: float,
    progress: Fraction,
    left_out: Callable[[int], None],
) -> tuple[np.ndarray, str]:
    spec, second = model.card.refinement, model.refinement
    if spec is None or second is None:
        return predict_first(device, canonical, model, lung_mask, threshold, progress)
    from NLSTSegLib.networks.network import fold_batch_norm

    # What is left to do is little; Apple graphics are not relied on for it (see Device.place).
    second_device = choose_device("cpu") if device.name == "mps" else device
    network = second_device.place(fold_batch_norm(copy.deepcopy(second)), 3)

    def both(
        ct: CtVolume, lung_mask: np.ndarray | None, least: int, first_share: float, progress: Fraction
    ) -> tuple[np.ndarray, str]:
        first_part = part_of(progress, 0, first_share)
        found, note = predict_first(device, ct, model, lung_mask, spec.candidate_threshold, first_part)
        looked = refine(
            network,
            spec,
            ct,
            found,
            lung_mask,
            threshold=model.card.threshold,
            least_voxels=least,
            device=second_device,
            progress=part_of(progress, first_share, 1),
            left_out=left_out,
        )
        return looked, note

    probability, note = both(canonical, lung_mask, LEAST_VOXELS, FIRST_NETWORK, part_of(progress, 0, FULL_RESOLUTION))
    if can_be_downsampled(canonical):
        # Most of a mass is marked there, if not all.
        least = least_voxels(canonical) // 2
        small, small_mask = downsampled(canonical, lung_mask)
        coarse, _ = both(small, small_mask, least, FIRST_AT_LOW_RESOLUTION, part_of(progress, FULL_RESOLUTION, 1))
        np.maximum(probability, upsampled(coarse, small, canonical, model.card.threshold), out=probability)
    progress(1)
    return probability, note if second_device is device else f"{note}; refinement: {second_device.note}"


def predict_first(
    device: Device, canonical: CtVolume, model: Model, lung_mask: np.ndarray | None, threshold: float, progress: Fraction
) -> tuple[np.ndarray, str]:
    """The probability (uint8 ``[k, j, i]``) that the first or only network gives, and a note on where it ran."""
    if model.card.input.slices > 1 and canonical.spacing_ijk_mm[2] > THICK_MM:
        i_mm, j_mm, k_mm = canonical.spacing_ijk_mm
        twice = replace(canonical, hu=canonical.hu.repeat(2, axis=0), spacing_ijk_mm=(i_mm, j_mm, k_mm / 2))
        probability, note = predict_first(
            device, twice, model, None if lung_mask is None else lung_mask.repeat(2, axis=0), threshold, progress
        )
        return probability.reshape(-1, 2, *probability.shape[1:]).max(axis=1), note
    from NLSTSegLib.networks.network import fold_batch_norm

    spec, dimensions = model.card.input, model.card.architecture.dimensions
    sparse = model.network.sparse(device.dtype) if device.name == "cpu" else None
    if sparse is not None:
        return _predict_sparse(sparse, canonical, spec, lung_mask, threshold, progress), device.note
    network = device.place(fold_batch_norm(copy.deepcopy(model.network)), dimensions)
    if dimensions == 3:
        return predict_patches(network, spec, canonical, lung_mask, device=device, progress=progress), device.note
    batch_slices = device.slices_at_once(network, spec.slices, canonical.hu[0].size)
    at_once: list[int] = []
    probability = predict_slices(
        network,
        spec,
        canonical,
        lung_mask,
        device=device,
        batch_slices=batch_slices,
        progress=progress,
        smaller_batch=at_once.append,
    )
    fewer = f", {at_once[-1]} of {batch_slices} slices at once for lack of memory" if at_once else ""
    return probability, device.note + fewer


def _predict_sparse(
    network: Network, canonical: CtVolume, spec: InputSpec, lung_mask: np.ndarray | None, threshold: float, progress: Fraction
) -> np.ndarray:
    """Probability in the lung mask, and on from there wherever a lesion leads."""
    probability = predict_slices(network, spec, canonical, lung_mask, progress=progress)
    searched = lung_mask
    while searched is not None:
        beyond = beyond_the_edge(above(probability, threshold), searched, canonical.voxel_volume_mm3)
        if beyond is None:
            break
        probability |= predict_slices(network, spec, canonical, beyond, progress=part_of(progress, 1, 1))
        searched = searched | beyond
    return probability
