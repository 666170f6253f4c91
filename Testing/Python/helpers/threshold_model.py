"""A real model whose answer is known: the probability of a voxel depends on its own HU alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.models.bundle import Architecture, Model, ModelCard
from NLSTSegLib.models.specs import InputSpec

if TYPE_CHECKING:
    from NLSTSegLib.networks.unet import UNet

WINDOW_HU = (-1000.0, 400.0)

THRESHOLD_HU = -300.0
"""Probability 0.5 lies here."""

LOGIT_PER_HU = 0.04
"""100 HU above the threshold the probability is 0.982."""

CARD = ModelCard(
    format=1,
    name="threshold",
    version="1",
    description="The probability depends on the voxel's own HU.",
    architecture=Architecture("unet", 2, (1,), "none", False),
    input=InputSpec(window_hu=WINDOW_HU, margin_px=8),
    orientation="LPS",
    spacing_note="any",
    threshold=0.5,
    min_volume_mm3=0.0,
    classes=("lesion",),
    training_data="none",
    attribution="none",
    licence="Apache-2.0",
    intended_use="Tests",
)


def expected_probability(hu: np.ndarray) -> np.ndarray:
    """What the model gives for ``hu``: uint8, 255 is 1, to within the rounding of float32."""
    logit = LOGIT_PER_HU * (np.clip(hu.astype(float), *WINDOW_HU) - THRESHOLD_HU)
    return np.rint(255 / (1 + np.exp(-logit))).astype(np.uint8)


def threshold_network(slices: int = 1) -> UNet:
    """A U-Net of one level and one channel; every convolution looks at the middle of the middle slice alone."""
    # Inside functions, so that tests which use the chest alone also run where torch is not installed.
    import torch

    from NLSTSegLib.networks.unet import UNet, UNetConfig

    network = UNet(UNetConfig(input_slices=slices, channels=(1,), normalization="none", residual=False)).eval()
    half_window_hu = (WINDOW_HU[1] - WINDOW_HU[0]) / 2
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        block = network.encoder[0]
        # The input runs from -1 to 1; one more, and the ReLUs let it pass.
        block.conv1.weight[0, slices // 2, 1, 1] = 1
        block.conv1.bias[0] = 1
        block.conv2.weight[0, 0, 1, 1] = 1
        network.head.weight[0, 0, 0, 0] = LOGIT_PER_HU * half_window_hu
        network.head.bias[0] = LOGIT_PER_HU * (WINDOW_HU[0] - THRESHOLD_HU)
    return network


def threshold_model(**changes: object) -> Model:
    """The model in memory; ``changes`` are fields of its card."""
    return Model(dataclasses.replace(CARD, **changes), threshold_network())


def write_threshold_bundle(folder: Path, **changes: object) -> ModelCard:
    """The model as a bundle in ``folder``; ``changes`` are fields of its card."""
    from nlstseg_training.export.bundle import write_bundle

    return write_bundle(threshold_network(), dataclasses.replace(CARD, **changes), folder)
