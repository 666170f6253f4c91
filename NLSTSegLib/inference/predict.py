"""The probability volume of a CT: the first network alone, or both networks, at full and at half resolution."""

from __future__ import annotations

import copy
from collections.abc import Callable
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
from NLSTSegLib.progress import Progress, stage_of
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.probability import above

if TYPE_CHECKING:
    from NLSTSegLib.networks.published_sparse import PublishedFieldUNet

START, STOP = 0.06, 0.95
"""Of the whole, in the progress that is reported."""

FIRST_NETWORK, LOW_RESOLUTION = 0.75, 0.85
"""In the progress, where the refinement begins, and where both begin again at half resolution."""


def predict_on(
    device: Device,
    canonical: CtVolume,
    model: Model,
    where: np.ndarray | None,
    threshold: float,
    progress: Progress,
    left_out: Callable[[int], None],
) -> tuple[np.ndarray, str]:
    """The probability (uint8 ``[k, j, i]``, 255 is 1) that the model gives for the canonical CT, and a note on where it ran.

    ``where`` is the lung field; ``left_out`` is told how many candidates were too many to refine. A CT with pixels that the model
    does not know is shown to it resampled. Raises what torch does when the device does not manage it.
    """
    shown, shown_where = with_known_pixels(canonical, where, model.card.in_plane_range_mm)
    probability, note = _predict_as_shown(device, shown, model, shown_where, threshold, progress, left_out)
    if shown is canonical:
        return probability, note
    i_mm, j_mm, _ = shown.spacing_ijk_mm
    _, rows, columns = canonical.hu.shape
    return resized(probability, (rows, columns)), f"{note}, with pixels of {j_mm:.2f} x {i_mm:.2f} mm"


def _predict_as_shown(
    device: Device,
    canonical: CtVolume,
    model: Model,
    where: np.ndarray | None,
    threshold: float,
    progress: Progress,
    left_out: Callable[[int], None],
) -> tuple[np.ndarray, str]:
    spec, second = model.card.refinement, model.refinement
    if spec is None or second is None:
        return predict_first(device, canonical, model, where, threshold, progress)
    from NLSTSegLib.networks.refinement import fold_refinement

    # What is left to do is little; Apple graphics are not relied on for it (see Device.place).
    second_device = choose_device("cpu") if device.name == "mps" else device
    network = second_device.place(fold_refinement(copy.deepcopy(second)), 3)

    def both(
        ct: CtVolume, lung_mask: np.ndarray | None, least: int, start: float, middle: float, stop: float
    ) -> tuple[np.ndarray, str]:
        def first_part(fraction: float, stage: str) -> None:
            progress(start + (fraction - START) / (STOP - START) * (middle - start), stage)

        found, note = predict_first(device, ct, model, lung_mask, spec.candidate_threshold, first_part)
        report = stage_of(progress, "network", middle, stop)
        looked = refine(
            network,
            spec,
            ct,
            found,
            lung_mask,
            threshold=model.card.threshold,
            least_voxels=least,
            device=second_device.name,
            dtype=second_device.dtype,
            progress=report,
            left_out=left_out,
        )
        return looked, note

    probability, note = both(canonical, where, LEAST_VOXELS, START, FIRST_NETWORK, LOW_RESOLUTION)
    if can_be_downsampled(canonical):
        # Most of a mass is marked there, if not all.
        least = least_voxels(canonical) // 2
        small, small_where = downsampled(canonical, where)
        coarse, _ = both(small, small_where, least, LOW_RESOLUTION, (LOW_RESOLUTION + STOP) / 2, STOP)
        np.maximum(probability, upsampled(coarse, small, canonical, model.card.threshold), out=probability)
    progress(STOP, "network")
    return probability, note if second_device is device else f"{note}; refinement: {second_device.note}"


def predict_first(
    device: Device,
    canonical: CtVolume,
    model: Model,
    where: np.ndarray | None,
    threshold: float,
    progress: Progress,
) -> tuple[np.ndarray, str]:
    """The probability (uint8 ``[k, j, i]``) that the first or only network gives, and a note on where it ran."""
    from NLSTSegLib.networks.published import PublishedUNet
    from NLSTSegLib.networks.published_sparse import PublishedFieldUNet
    from NLSTSegLib.networks.unet import UNet, fold_batch_norm

    if isinstance(model.network, PublishedUNet) and device.name == "cpu":
        network_in_field = PublishedFieldUNet(model.network, device.dtype)
        return _predict_followed(network_in_field, canonical, model, where, threshold, progress), device.note
    network = copy.deepcopy(model.network)
    if isinstance(network, UNet):
        fold_batch_norm(network)
    report = stage_of(progress, "network", START, STOP)
    if model.card.architecture.dimensions == 3:
        probability = predict_patches(
            device.place(network, 3), model.card.input, canonical, where, device=device.name, dtype=device.dtype, progress=report
        )
        return probability, device.note
    batch_slices = device.slices_at_once(network, model.card.input.slices, canonical.hu[0].size)
    at_once: list[int] = []
    probability = predict_slices(
        device.place(network, 2),
        model.card.input,
        canonical,
        where,
        device=device.name,
        dtype=device.dtype,
        batch_slices=batch_slices,
        progress=report,
        smaller_batch=at_once.append,
    )
    fewer = f", {at_once[-1]} of {batch_slices} slices at once for lack of memory" if at_once else ""
    return probability, device.note + fewer


def _predict_followed(
    network: PublishedFieldUNet,
    canonical: CtVolume,
    model: Model,
    where: np.ndarray | None,
    threshold: float,
    progress: Progress,
) -> np.ndarray:
    """In the field, and on from there wherever a lesion leads."""
    report = stage_of(progress, "network", START, STOP)
    searched, probability = where, np.zeros(canonical.hu.shape, np.uint8)
    while True:
        probability |= predict_slices(network, model.card.input, canonical, where, progress=report)
        if searched is None:
            return probability
        where = beyond_the_edge(above(probability, threshold), searched, canonical.voxel_volume_mm3)
        if where is None:
            return probability
        searched = searched | where
        report = stage_of(progress, "network", STOP, STOP)
