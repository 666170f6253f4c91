"""Networks with numbers that are the same everywhere, and tests that run on one thread."""

import unittest

import numpy as np
import torch
from torch import nn

from NLSTSegLib.networks.published import PublishedUNet
from NLSTSegLib.networks.unet import UNet


def formula(n: int, count: int, amplitude: float) -> np.ndarray:
    """Numbers that look random and are the same everywhere: tensor ``n`` of the published network's test vector."""
    u = np.mod(np.sin(12.9898 * np.arange(count) + 78.233 * n) * 43758.5453, 1.0)
    return ((2 * u - 1) * amplitude).astype(np.float32)


def published_with_formula_weights() -> PublishedUNet:
    network = PublishedUNet().eval()
    state = {}
    for n, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        amplitude = np.sqrt(3 / np.prod(tensor.shape[1:])) if tensor.ndim > 1 else 0.1
        state[name] = torch.from_numpy(formula(n, tensor.numel(), amplitude).reshape(tensor.shape))
    network.load_state_dict(state)
    return network


def randomized(network: UNet, seed: int = 3) -> UNet:
    """As after training: normalizations whose statistics and weights are not 0 and 1, and an output that varies."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                module.weight.mul_(4)
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 0.5, generator=generator)
                module.running_var.uniform_(0.3, 3, generator=generator)
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.normal_(0, 0.5, generator=generator)
    return network


class SingleThreadTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        torch.manual_seed(0)
