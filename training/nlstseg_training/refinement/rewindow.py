"""A refinement network that goes on with another window of HU than it was trained with."""

from __future__ import annotations

import copy

import torch
from torch import nn

from NLSTSegLib.networks.refinement import RefinementNet


def seen_through(network: RefinementNet, own_hu: tuple[float, float], window_hu: tuple[float, float]) -> RefinementNet:
    """A copy that says of HU shown in ``window_hu`` what ``network`` says of them in ``own_hu``, where neither clips.

    HU are shown as -1..1 and are 0 where there is no voxel, so its own value is ``scale * shown + shift * there``, and the first
    convolution, which sees both, can take that in.
    """
    (own_low, own_high), (low, high) = own_hu, window_hu
    scale = (high - low) / (own_high - own_low)
    shift = scale - 1 + 2 * (low - own_low) / (own_high - own_low)
    result = copy.deepcopy(network)
    first = next(module for module in result.modules() if isinstance(module, nn.Conv3d))
    with torch.no_grad():
        first.weight[:, 1] += shift * first.weight[:, 0]
        first.weight[:, 0] *= scale
    return result
