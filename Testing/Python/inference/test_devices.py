"""What a network takes where it runs: memory, order of its numbers, the way there and back, and what is done where that fails."""

import dataclasses
import json
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from helpers.example_results import ct_with_spheres
from helpers.marks import slow
from helpers.networks import SingleThreadTest
from helpers.threshold_model import CARD, WINDOW_HU, threshold_model
from NLSTSegLib import pipeline
from NLSTSegLib.inference import devices
from NLSTSegLib.inference.devices import (
    GPU_BATCH_SLICES,
    PLAIN_CPU,
    Device,
    bytes_per_pixel,
    choose_device,
    memory_format,
    shortcoming,
    to_device,
    to_host,
)
from NLSTSegLib.inference.patches import predict_patches
from NLSTSegLib.inference.slices import predict_slices
from NLSTSegLib.models.bundle import Architecture, Model
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.networks.network import Network
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume.ct import CtVolume

ROOT = Path(__file__).resolve().parents[3]

MEMORY = """
import json, re, sys, torch
from pathlib import Path
from NLSTSegLib.inference.devices import bytes_per_pixel
from NLSTSegLib.networks.published import PublishedUNet
from NLSTSegLib.networks.network import fold_batch_norm
from NLSTSegLib.networks.unet import UNet, UNetConfig
torch.set_num_threads(1)
if sys.argv[1] == "published":
    network, slices, side = PublishedUNet().eval(), 1, 256
else:
    network, slices, side = fold_batch_norm(UNet(UNetConfig(2, 5, (16, 32, 64, 128, 160))).eval()), 5, 640
x = torch.zeros(1, slices, side, side)
estimate = bytes_per_pixel(network, slices, torch.float32) * side**2
def most_kb():
    # Not that of getrusage, which a child has from its parent.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
with torch.inference_mode():
    # So that what is loaded and packed once does not count.
    network(x[:, :, :64, :64])
    before = most_kb()
    network(x)
print(json.dumps([(most_kb() - before) * 1024, estimate]))
"""
"""The memory that a network really takes for a slice, on a CPU, and the estimate."""


class Times(Network):
    """Answers a multiple of the input slice."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Back to where they were, if the numbers have not left what there is on the way.
        return x[:, :1] * self.factor / self.factor


class MemoryTest(SingleThreadTest):
    def test_every_number_of_every_layer_counts(self):
        for slices, dtype, size in ((1, torch.float32, 4), (3, torch.float16, 2)):
            one_level = UNet(UNetConfig(2, slices, (6,), "batch"))
            # Two convolutions, two normalizations, two activations, the shortcut, and the logit.
            self.assertEqual(bytes_per_pixel(one_level, slices, dtype), (7 * 6 + 1) * size)
        halved = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.AvgPool2d(2))
        self.assertEqual(bytes_per_pixel(halved, 1, torch.float32), (8 + 8 / 4) * 4)

    def test_network_stays_as_it_was(self):
        network = UNet(UNetConfig(2, 1, (2,)))
        bytes_per_pixel(network, 1, torch.float16)
        self.assertEqual({(p.device.type, p.dtype) for p in network.parameters()}, {("cpu", torch.float32)})
        self.assertFalse(any(layer._forward_hooks for layer in network.modules()))

    @slow
    @unittest.skipIf(sys.platform in ("win32", "darwin"), "the largest memory of a process is not told so here")
    def test_a_slice_takes_less_than_estimated_but_not_far_less(self):
        for network in ("published", "default"):
            command = [sys.executable, "-c", MEMORY, network]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            taken, estimate = json.loads(done.stdout)
            self.assertLess(taken, estimate)
            self.assertGreater(taken, estimate / 10)

    def test_slices_at_once_are_those_that_the_free_memory_holds(self):
        network, pixels = UNet(UNetConfig(2, 1, (6,), "batch")), 512 * 512
        slice_bytes = 43 * 2 * pixels
        card = Device("cpu:0", "float16", GPU_BATCH_SLICES, "synthetic card")
        for free_bytes, slices in (
            (0, 1),
            (slice_bytes // 2, 1),
            (3 * slice_bytes - 1, 2),
            (3 * slice_bytes, 3),
            (10**12, GPU_BATCH_SLICES),
        ):
            with mock.patch.object(devices, "_free_bytes", return_value=free_bytes):
                self.assertEqual(card.slices_at_once(network, 1, pixels), slices)
        self.assertEqual(choose_device("cpu").slices_at_once(network, 1, pixels), 1)


class WayTest(SingleThreadTest):
    def test_numbers_come_back_as_they_went(self):
        for shape in ((3, 2, 5, 7), (1, 2, 3, 5, 7)):
            values = np.random.default_rng(0).random(shape, np.float32)
            there = to_device(values, PLAIN_CPU)
            self.assertTrue(there.is_contiguous(memory_format=memory_format("cpu", len(shape) - 2)))
            np.testing.assert_array_equal(to_host(there)(), values)
            self.assertEqual(to_device(values, dataclasses.replace(PLAIN_CPU, precision="bfloat16")).dtype, torch.bfloat16)

    def test_order_of_the_numbers(self):
        self.assertEqual(memory_format("cpu", 2), torch.channels_last)
        self.assertEqual(memory_format("cuda:1", 3), torch.channels_last_3d)
        for dimensions in (2, 3):
            self.assertEqual(memory_format("mps", dimensions), torch.contiguous_format)

    def test_a_placed_network_has_the_device_s_precision_and_order(self):
        card = Device("cpu:0", "float16", 1, "synthetic card")
        for dimensions, order in ((2, torch.channels_last), (3, torch.channels_last_3d)):
            network = card.place(UNet(UNetConfig(dimensions, 1, (4,))), dimensions)
            weight = network.encoder[0].conv2.weight
            self.assertEqual(weight.dtype, torch.float16)
            self.assertTrue(weight.is_contiguous(memory_format=order))


FLOAT16 = Device("cpu", "float16", 1, "CPU, float16")


class TooNarrowTest(SingleThreadTest):
    def test_float16_that_overflows_is_an_error_and_never_a_probability(self):
        ct = CtVolume(np.full((8, 32, 32), 200, np.int16), (0.7, 0.7, 2.0))
        flat, cube = InputSpec(WINDOW_HU), InputSpec(WINDOW_HU, patch_kji=(4, 8, 8))
        for predict, spec in ((predict_slices, flat), (predict_patches, cube)):
            # 200 HU are 0.714 in a window that ends at 400.
            self.assertTrue((predict(Times(9e4), spec, ct, device=FLOAT16) > 128).all())
            with self.assertRaises(OverflowError):
                predict(Times(1.1e5), spec, ct, device=FLOAT16)
            for precision in ("bfloat16", "float32"):
                device = dataclasses.replace(PLAIN_CPU, precision=precision)
                self.assertTrue((predict(Times(1.1e5), spec, ct, device=device) > 128).all())


class FallbackTest(SingleThreadTest):
    """Through the pipeline, with a card made up on the CPU."""

    def run_on(self, card: Device, model: Model):
        def choose(choice, threads=None):
            return choose_device("cpu") if choice == "cpu" else card

        with mock.patch.object(pipeline, "choose_device", choose):
            return segment(ct_with_spheres(), model, SegmentOptions(lung_field="none"))

    def setUp(self):
        super().setUp()
        self.expected = segment(ct_with_spheres(), threshold_model(), SegmentOptions(lung_field="none", device="cpu"))

    def test_numbers_too_large_for_float16_are_computed_on_the_cpu_and_it_is_said(self):
        class Wide(Network):
            def __init__(self, network):
                super().__init__()
                self.network = network

            def forward(self, x):
                return self.network(x) * 1e5 / 1e5

        model = dataclasses.replace(threshold_model(), network=Wide(threshold_model().network))
        result = self.run_on(Device("cpu:0", "float16", 1, "synthetic card, float16"), model)
        self.assertIn("synthetic card, float16 has no numbers as large as this network's", result.device_note)
        self.assertRegex(result.device_note, "^CPU, ")
        np.testing.assert_array_equal(result.labels, self.expected.labels)

    def test_a_3d_network_on_apple_graphics_runs_on_the_cpu_and_it_is_said(self):
        network = UNet(UNetConfig(3, 1, (1,), "none", False)).eval()
        input_spec = dataclasses.replace(CARD.input, patch_kji=(16, 32, 32))
        card = dataclasses.replace(CARD, architecture=Architecture("unet", 3, (1,), "none", False), input=input_spec)
        result = self.run_on(Device("mps", "float32", GPU_BATCH_SLICES, "Apple graphics, float32"), Model(card, network))
        self.assertRegex(result.device_note, "^CPU, .*; Apple graphics, float32 lacks an operation of this network$")

    def test_fewer_slices_at_once_are_told(self):
        class Small(Network):
            """Holds two slices."""

            def __init__(self, network):
                super().__init__()
                self.network = network

            def forward(self, x):
                if len(x) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return self.network(x)

        model = dataclasses.replace(threshold_model(), network=Small(threshold_model().network))
        with mock.patch.object(devices, "_free_bytes", return_value=10**12):
            result = self.run_on(Device("cpu:0", "float32", GPU_BATCH_SLICES, "synthetic card"), model)
        self.assertEqual(result.device_note, "synthetic card, 2 of 8 slices at once for lack of memory")
        np.testing.assert_array_equal(result.labels, self.expected.labels)

    def test_only_what_the_cpu_can_do_better_is_a_shortcoming(self):
        memory, operation = "has too little memory", "lacks an operation of this network"
        for error, words in (
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), memory),
            (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), memory),
            (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), memory),
            (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), memory),
            (RuntimeError("GET was unable to find an engine to execute this computation"), memory),
            (NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device."), operation),
            (RuntimeError("ConvTranspose 3D is not supported on MPS"), operation),
            (OverflowError(), "has no numbers as large as this network's"),
            (RuntimeError("CUDA error: an illegal memory access was encountered"), ""),
            (RuntimeError("shapes do not fit"), ""),
        ):
            with self.subTest(str(error)):
                self.assertEqual(shortcoming(error), words)


if __name__ == "__main__":
    unittest.main()
