"""How long a run takes: measured, corrected by real runs, counted down, and put into words."""

import copy
import json
import tempfile
import unittest
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from helpers.marks import real_data
from helpers.networks import SingleThreadTest, published_with_formula_weights
from helpers.shared_data import shared_data
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.cli.app import app
from NLSTSegLib.inference.devices import DeviceRequest, choose_device
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.inference.slices import predict_slices
from NLSTSegLib.jobs.learned_duration import (
    OTHER_STAGES_S,
    SLICES_WITH_LUNG,
    RunTime,
    measure_run_time,
    refined,
    run_time_of_text,
    synthetic_lungs,
    time_key,
)
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.remaining import RemainingTime, duration_text
from NLSTSegLib.models.bundle import Model, find_model
from NLSTSegLib.networks.network import Network
from NLSTSegLib.networks.published_sparse import SparsePublishedUNet
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume, to_canonical


class TestEstimate(unittest.TestCase):
    def test_time_grows_with_the_voxels(self):
        self.assertAlmostEqual(RunTime(5, 0.2).estimate_s((512, 512, 100)), 25)
        self.assertAlmostEqual(RunTime(5, 0.2).estimate_s((256, 512, 100)), 15)

    def test_first_real_run_replaces_nothing_and_later_ones_pull_the_estimate(self):
        size_ijk = (512, 512, 100)
        first = refined(None, 30.0, 26.0, size_ijk)
        self.assertEqual(first, RunTime(4.0, 0.26))
        self.assertAlmostEqual(first.estimate_s(size_ijk), 30.0)
        far_off = refined(RunTime(8.0, 0.52), 30.0, 26.0, size_ijk)
        self.assertAlmostEqual(far_off.estimate_s(size_ijk), 45.0)
        for _ in range(10):
            far_off = refined(far_off, 30.0, 26.0, size_ijk)
        self.assertAlmostEqual(far_off.estimate_s(size_ijk), 30.0, places=1)

    def test_a_small_ct_tells_nothing_of_a_large_one(self):
        self.assertIsNone(refined(None, 8.0, 4.0, (60, 56, 40)))
        self.assertEqual(refined(RunTime(4.0, 0.2), 8.0, 4.0, (60, 56, 40)), RunTime(4.0, 0.2))

    def test_text_comes_back_and_anything_else_is_nothing(self):
        self.assertEqual(run_time_of_text(RunTime(1.5, 0.25).as_text()), RunTime(1.5, 0.25))
        for text in ("", "x", "[]", "3", '{"start_s": 1}', '{"start_s": 1, "slice_s": -1}', '{"start_s": NaN, "slice_s": 1}'):
            with self.subTest(text):
                self.assertIsNone(run_time_of_text(text))

    def test_each_model_device_and_number_of_threads_has_a_time_of_its_own(self):
        options = RunOptions()
        changes = ({}, {"model": "x"}, {"device": "cuda"}, {"threads": 2}, {"lung_field": "none"})
        self.assertEqual(len({time_key(replace(options, **change)) for change in changes}), 5)
        self.assertEqual(time_key(options), time_key(replace(options, threshold=0.3)))

    def test_durations_are_rounded(self):
        for seconds, text in (
            (0.2, "1 s"),
            (4.4, "4 s"),
            (12, "10 s"),
            (38, "40 s"),
            (59, "1 min"),
            (170, "3 min"),
            (3590, "1 h"),
        ):
            self.assertEqual(duration_text(seconds), text)
        self.assertEqual(duration_text(4800), "1 h 20 min")


class TestRemaining(unittest.TestCase):
    def test_even_pace_counts_down_steadily(self):
        remaining = RemainingTime()
        told = []
        # 4 s until the network begins at 0.1, then 0.05 a second.
        for step in range(190):
            at_s = step / 10
            fraction = 0.025 * at_s if at_s < 4 else 0.1 + 0.05 * (at_s - 4)
            remaining.add(fraction, at_s)
            told.append((at_s, remaining.at(at_s)))
        self.assertIsNone(told[45][1], "too early to tell")
        for at_s, left_s in told[60:]:
            self.assertAlmostEqual(left_s, 22 - at_s, places=6)

    def test_time_passes_between_two_reports_and_never_below_nothing(self):
        remaining = RemainingTime()
        remaining.add(0.1, 10.0)
        remaining.add(0.5, 14.0)
        self.assertAlmostEqual(remaining.at(14.0), 5.0)
        self.assertAlmostEqual(remaining.at(16.0), 3.0)
        self.assertEqual(remaining.at(100.0), 0.0)


class CountingPixels(Network):
    """Answers nothing, and counts what it is shown."""

    side_multiple = 16
    pixels = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.pixels += x.numel()
        return torch.zeros_like(x)


class WhenAsked(Executor):
    """Does its work when the result is asked for, so that a clock that goes by the work does not run ahead."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, run, /, *arguments):
        return mock.Mock(result=lambda: run(*arguments))


class TestMeasuring(SingleThreadTest):
    def measure(self, *options: str) -> RunTime:
        with tempfile.TemporaryDirectory() as folder:
            write_threshold_bundle(Path(folder))
            done = CliRunner().invoke(app, ["time", "--model", folder, "--device", "cpu", "--threads", "1", *options])
        self.assertEqual(done.exit_code, 0, done.stderr)
        self.assertEqual(set(json.loads(done.stdout)), {"start_s", "slice_s"})
        return run_time_of_text(done.stdout)

    def test_command_prints_the_time_as_json(self):
        for options in ((), ("--everywhere",)):
            run_time = self.measure(*options)
            self.assertGreater(run_time.start_s, 0)
            self.assertGreater(run_time.slice_s, OTHER_STAGES_S)

    @real_data
    def test_made_up_lungs_cost_what_those_of_a_chest_do(self):
        folder = shared_data()
        if folder is None:
            self.skipTest("the shared data is not there")
        ct = to_canonical(read_ct(folder / "ct" / "LIDC-IDRI-0001" / "dicom"))
        lung_mask = lung_field(ct)
        made_up = np.stack([synthetic_lungs()] * 8)
        spec = replace(find_model().card.input, slices=1)

        def cost(lung_mask: np.ndarray) -> list[float]:
            """Of the voxels: those in the field, and those that a network with crops sees."""
            network = CountingPixels()
            predict_slices(network, spec, CtVolume(np.zeros(lung_mask.shape, np.int16), (0.7, 0.7, 2.0)), lung_mask)
            return [float(lung_mask.mean()), network.pixels / lung_mask.size]

        for real, ours in zip(cost(lung_mask), cost(made_up), strict=True):
            self.assertAlmostEqual(SLICES_WITH_LUNG * ours / real, 1.0, delta=0.15)

    def test_made_up_lungs_cost_the_published_network_what_those_of_a_chest_do(self):
        network = published_with_formula_weights()
        with FlopCounterMode(display=False) as whole, torch.inference_mode():
            copy.deepcopy(network).to("meta")(torch.zeros(1, 1, 512, 512, device="meta"))
        in_field = SparsePublishedUNet(network, choose_device("cpu").dtype)
        with FlopCounterMode(display=False) as ours, torch.inference_mode():
            in_field(torch.zeros(1, 1, 512, 512), synthetic_lungs())
        # Counted in a whole chest by the benchmark: 22 %.
        self.assertAlmostEqual(SLICES_WITH_LUNG * ours.get_total_flops() / whole.get_total_flops(), 0.22, delta=0.03)

    def test_a_run_in_the_lungs_is_expected_to_be_faster_than_one_everywhere(self):
        seen = []

        class Clockwork(CountingPixels):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                seen.append(x.numel())
                return super().forward(x)

        def slice_s(everywhere: bool) -> float:
            """On a computer whose clock goes by the pixels that the network has seen."""
            with (
                mock.patch("NLSTSegLib.inference.slices.ThreadPoolExecutor", WhenAsked),
                mock.patch("NLSTSegLib.models.bundle.load_model", return_value=Model(card, Clockwork())),
                mock.patch("time.perf_counter", side_effect=lambda: sum(seen) * 1e-6),
            ):
                return measure_run_time("lidc-25d", DeviceRequest("cpu", 1), everywhere=everywhere).slice_s - OTHER_STAGES_S

        card = find_model("lidc-25d").card
        card = replace(card, input=replace(card.input, slices=1), refinement=None)
        # The network sees 288 x 384 of the 512 x 512 pixels of a slice with lung.
        self.assertAlmostEqual(slice_s(False) / slice_s(True), SLICES_WITH_LUNG * 288 * 384 / 512**2, places=4)


if __name__ == "__main__":
    unittest.main()
