"""The networks: the published one number for number, the own one in every shape it can take."""

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import nn

from helpers.marks import real_data
from helpers.networks import SingleThreadTest, formula, published_with_formula_weights, randomized
from helpers.shared_data import shared_data
from NLSTSegLib.models.bundle import published_card
from NLSTSegLib.networks.network import fold_batch_norm
from NLSTSegLib.networks.published import PublishedUNet
from NLSTSegLib.networks.unet import MAXIMUM_LEVELS, MAXIMUM_WIDTH, UNet, UNetConfig

NORMALIZATIONS = ("batch", "none")

NOTED_LOGITS = (-0.01862, 0.04313, 0.48522, -0.04796, -0.32143, -0.04975)
"""Of the published network with the formula's weights, when it reproduced the test vector; for a checkout without the vector."""


def logits(network: nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(image)[None, None])[0, 0].numpy()


class PublishedUNetTest(SingleThreadTest):
    def test_number_of_parameters_is_the_published_one(self):
        self.assertEqual(sum(parameter.numel() for parameter in PublishedUNet().parameters()), 3_586_177)

    @real_data
    def test_test_vector_is_reproduced(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        vector = np.load(data / "published_unet_vector.npz", allow_pickle=False)
        network = published_with_formula_weights()
        shapes = {name: str(tuple(tensor.shape)) for name, tensor in network.state_dict().items()}
        self.assertEqual(shapes, dict(zip(vector["keys"].tolist(), vector["shapes"].tolist(), strict=True)))
        np.testing.assert_allclose(logits(network, vector["input"]), vector["expected_logits"], rtol=0, atol=1e-4)

    def test_logits_noted_when_the_test_vector_was_reproduced(self):
        image = formula(1000, 24 * 32, 1.0).reshape(24, 32)
        found = logits(published_with_formula_weights(), image)
        self.assertEqual(found.shape, (24, 32))
        np.testing.assert_allclose(found[[0, 0, 7, 12, 23, 23], [0, 31, 5, 16, 0, 31]], NOTED_LOGITS, rtol=0, atol=1e-4)

    def test_margin_of_its_card_covers_what_a_pixel_depends_on(self):
        margin, network = published_card(Path("x.pth")).input.margin_px, published_with_formula_weights()
        rows = torch.zeros(1, 1, 100, 4, requires_grad=True)
        found = network(rows)[0, 0]
        reach = []
        for at in (49, 50):  # an odd pixel and an even one see differently far
            (gradient,) = torch.autograd.grad(found[at, 2], rows, retain_graph=True)
            seen = gradient[0, 0].abs().amax(dim=1).nonzero()[:, 0].tolist()
            reach += [at - seen[0], seen[-1] - at]
        self.assertLessEqual(max(reach), margin)
        self.assertGreaterEqual(max(reach), 40)

    def test_odd_sides_are_what_its_side_multiple_rules_out(self):
        network = PublishedUNet().eval()
        self.assertEqual(network.side_multiple, 2)
        self.assertEqual(logits(network, np.zeros((6, 10), np.float32)).shape, (6, 10))
        with self.assertRaises(RuntimeError):
            logits(network, np.zeros((7, 10), np.float32))


class UNetTest(SingleThreadTest):
    def test_every_kind_gives_one_logit_map_of_the_input_s_size(self):
        for dimensions, normalization, residual in itertools.product((2, 3), NORMALIZATIONS, (True, False)):
            for slices in (1, 3, 5) if dimensions == 2 else (1,):
                with self.subTest(dimensions=dimensions, normalization=normalization, residual=residual, slices=slices):
                    network = UNet(UNetConfig(dimensions, slices, (4, 6, 8), normalization, residual)).eval()
                    sides = (8, 20) if dimensions == 2 else (8, 12, 20)
                    with torch.inference_mode():
                        y = network(torch.randn(2, slices, *sides))
                    self.assertEqual(tuple(y.shape), (2, 1, *sides))
                    self.assertTrue(y.isfinite().all())

    def test_sides_are_halved_once_for_every_level_below_the_first(self):
        for levels in range(1, 6):
            network = UNet(UNetConfig(channels=(2,) * levels))
            self.assertEqual(network.side_multiple, 2 ** (levels - 1))
            with torch.inference_mode():
                self.assertEqual(network.eval()(torch.zeros(1, 1, 16, 48)).shape, (1, 1, 16, 48))

    def test_every_weight_takes_part(self):
        for dimensions, normalization, residual in itertools.product((2, 3), NORMALIZATIONS, (True, False)):
            with self.subTest(dimensions=dimensions, normalization=normalization, residual=residual):
                network = UNet(UNetConfig(dimensions, 1, (4, 6), normalization, residual))
                network(torch.randn(2, 1, *(8,) * dimensions)).square().sum().backward()
                idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
                self.assertEqual(idle, [])

    def test_every_input_slice_matters(self):
        network = UNet(UNetConfig(input_slices=5, channels=(4, 6))).eval()
        x = torch.randn(1, 5, 8, 8, requires_grad=True)
        network(x).sum().backward()
        self.assertTrue((x.grad.abs().sum(dim=(0, 2, 3)) > 0).all())

    def test_residual_adds_the_block_s_input(self):
        # With the convolutions at zero, a residual block of equal widths hands its (positive) input on.
        network = UNet(UNetConfig(channels=(1,), normalization="none", residual=True))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            network.head.weight.fill_(1)
        x = torch.rand(1, 1, 4, 4)
        np.testing.assert_array_equal(network(x).detach().numpy(), x.numpy())

    def test_impossible_configurations_are_refused(self):
        for changes, word in (
            ({"dimensions": 1}, "dimensions"),
            ({"dimensions": 4}, "dimensions"),
            ({"input_slices": 0}, "input_slices"),
            ({"input_slices": 2}, "input_slices"),
            ({"input_slices": -1}, "input_slices"),
            ({"dimensions": 3, "input_slices": 3}, "input_slices"),
            ({"channels": ()}, "channels"),
            ({"channels": (4, 0)}, "channels"),
            ({"channels": (4, MAXIMUM_WIDTH + 1)}, "channels"),
            ({"channels": (1,) * (MAXIMUM_LEVELS + 1)}, "channels"),
            ({"normalization": "layer"}, "normalization"),
        ):
            with self.subTest(**changes), self.assertRaisesRegex(ValueError, word):
                UNetConfig(**changes)


class FoldBatchNormTest(SingleThreadTest):
    def test_outputs_stay_and_no_normalization_is_left(self):
        for dimensions, residual in itertools.product((2, 3), (True, False)):
            with self.subTest(dimensions=dimensions, residual=residual):
                network = randomized(UNet(UNetConfig(dimensions, 1, (4, 6, 8), "batch", residual))).eval().double()
                x = torch.randn(2, 1, *(8,) * dimensions, dtype=torch.float64)
                with torch.inference_mode():
                    before = network(x)
                    self.assertIs(fold_batch_norm(network), network)
                    after = network(x)
                self.assertGreater(float(before.std()), 1e-2)
                np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-8)
                self.assertFalse([m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))])

    def test_a_network_without_normalization_is_left_alone(self):
        network = UNet(UNetConfig(channels=(4, 6), normalization="none")).eval()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        after = fold_batch_norm(network).state_dict()
        self.assertEqual(list(after), list(before))
        self.assertTrue(all(torch.equal(after[name], before[name]) for name in before))
