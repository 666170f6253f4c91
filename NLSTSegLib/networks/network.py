"""What all architectures have in common: how they are run slice by slice, and how they get faster without other answers."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Network(nn.Module):
    """A network of one logit map. What is said here is what holds for most; an architecture that is run otherwise says so."""

    side_multiple = 1
    """The sides of its input are multiples of this."""

    takes_crops = True
    """Whether it may be shown the surroundings of the lungs alone; else it gets whole slices, one at a time."""

    def answer(self, x: torch.Tensor, lung_mask: np.ndarray) -> torch.Tensor:
        """Logits ``[batch, 1, j, i]`` of slices ``[batch, input slice, j, i]``, which need be right in ``lung_mask`` alone
        (bool ``[batch, j, i]``)."""
        return self(x)

    def sparse(self, dtype: torch.dtype) -> Network | None:
        """A network for a CPU that gives the same numbers where they are asked for, with less work; ``None``: there is none."""
        return None


def fold_batch_norm(network: AnyModule) -> AnyModule:
    """Merge every batch normalization into the convolution registered just before it, in place; the outputs stay the same.

    The network must be in evaluation mode. Returns ``network``.
    """
    for module in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(module, conv_name, torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return network
