"""A real refinement whose answer is known: a voxel's outline depends on its own HU alone, and every score is the same."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from helpers.threshold_model import CARD, WINDOW_HU, threshold_network
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.specs import RefinementSpec

if TYPE_CHECKING:
    from NLSTSegLib.networks.refinement import RefinementNet

LIMIT_HU = -600.0
"""The outline is 0.5 here: below what the first network marks (threshold_model.THRESHOLD_HU)."""

SLOPE = 50.0
"""Logit of the outline for each unit of the scaled HU, of which the window has two: 14 HU change it by 1."""

SPEC = RefinementSpec(
    channels=(1, 1, 1, 1),
    window_hu=WINDOW_HU,
    candidate_threshold=0.3,
    outline_threshold=0.5,
    score_slope=1.0,
    score_shift=0.0,
)


def expected_outline(hu: np.ndarray) -> np.ndarray:
    """What the network gives for ``hu``: float, 0..1."""
    return 1 / (1 + np.exp(-SLOPE * (np.clip(hu.astype(float), *WINDOW_HU) - LIMIT_HU) / _half_window_hu()))


def hu_of_outline(share: float) -> float:
    """The HU at which the outline is ``share``."""
    return LIMIT_HU + float(np.log(share / (1 - share))) / SLOPE * _half_window_hu()


def known_second_network(logit: float) -> RefinementNet:
    """One channel everywhere; HU pass through the first skip alone, and each score is ``logit``."""
    import torch
    from torch import nn

    from NLSTSegLib.networks.refinement import RefinementConfig, RefinementNet

    network = RefinementNet(RefinementConfig(SPEC.channels)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)):
                for parameter in module.parameters():
                    parameter.zero_()
            if isinstance(module, nn.BatchNorm3d):
                # It divides by exactly 1.
                module.running_var.fill_(1 - module.eps)
        for block in (network.encoder[0], network.decoder[2]):
            # Of the decoder's two channels the skip is the first, of the input's HU are.
            block[0].weight[0, 0, 0, 1, 1] = 1
            block[3].weight[0, 0, 0, 1, 1] = 1
        # The input runs from -1 to 1; one more, and the ReLUs let it pass.
        network.encoder[0][1].bias[0] = 1
        network.outline.weight.fill_(SLOPE)
        network.outline.bias.fill_(-SLOPE * (LIMIT_HU - WINDOW_HU[0]) / _half_window_hu())
        network.score.bias.fill_(logit)
    return network


def two_look_model(logit: float, **changes: object) -> Model:
    """Together with the first network of threshold_model; ``changes`` are fields of the card."""
    return Model(dataclasses.replace(CARD, refinement=SPEC, **changes), threshold_network(), known_second_network(logit))


def _half_window_hu() -> float:
    return (WINDOW_HU[1] - WINDOW_HU[0]) / 2
