"""Slices go through the network as they should: cropped without a trace, with the right neighbours, and stopped at once."""

import threading
import unittest
from dataclasses import replace

import numpy as np
import torch

from helpers.networks import SingleThreadTest, randomized
from helpers.threshold_model import CARD, expected_probability, threshold_network
from NLSTSegLib.inference.devices import PLAIN_CPU, Device
from NLSTSegLib.inference.predict import predict_first
from NLSTSegLib.inference.slices import MAXIMUM_WORKERS, predict_slices
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.specs import MAXIMUM_INPUT_SLICES, InputSpec
from NLSTSegLib.networks.network import Network
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.volume.ct import PADDING_HU, CtVolume

SPEC = CARD.input

GAIN = 2.5
"""Logit of the top of the window in :class:`OneSlice`; every step of 20 HU or so is another byte."""


class OneSlice(Network):
    """Hands one input slice on."""

    def __init__(self, channel: int):
        super().__init__()
        self.channel = channel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return GAIN * x[:, self.channel : self.channel + 1]


class Counting(Network):
    """Counts the batches and notes the threads they ran in."""

    def __init__(self, together: int = 1):
        """The first batches of so many threads wait for each other, so that all of these take part."""
        super().__init__()
        self.barrier = threading.Barrier(together)
        self.batches: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.torch_threads: set[int] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() not in self.threads:
            self.barrier.wait()
        self.batches.append(len(x))
        self.threads.add(threading.current_thread())
        self.torch_threads.add(torch.get_num_threads())
        return x[:, :1]


def noise_ct(shape_kji, spacing_k_mm=1.25, seed=0) -> CtVolume:
    hu = np.random.default_rng(seed).integers(-1100, 500, shape_kji).astype(np.int16)
    return CtVolume(hu, (0.7, 0.7, spacing_k_mm))


def small_unet(normalization="none", channels=(3, 4, 5), slices=1) -> UNet:
    """Random weights, but answers that spread over 0 to 255."""
    torch.manual_seed(1)
    network = UNet(UNetConfig(2, slices, channels, normalization, True))
    network = randomized(network, seed=1).eval()
    with torch.no_grad():
        y = network(torch.rand(4, slices, 64, 64) * 2 - 1)
        network.head.weight.mul_(2 / y.std())
        network.head.bias.sub_(y.mean()).mul_(2 / y.std())
    return network


class CropTest(SingleThreadTest):
    REACH_PX = 24
    """Three levels: 2 + 2 * 2 + 2 * 4 pixels down, 2 * 2 + 2 up, and 3 for the strides."""

    def test_crop_gives_what_the_whole_slice_gives_inside_the_field(self):
        ct = noise_ct((4, 150, 171))
        for normalization in ("none", "batch"):
            for corner in ((61, 83), (70, 78)):
                with self.subTest(normalization=normalization, corner=corner):
                    network = small_unet(normalization)
                    lung_mask = np.zeros(ct.hu.shape, bool)
                    lung_mask[:, corner[0] : corner[0] + 15, corner[1] : corner[1] + 13] = True
                    whole = predict_slices(network, InputSpec(SPEC.window_hu), ct)
                    cropped = predict_slices(network, InputSpec(SPEC.window_hu, margin_px=self.REACH_PX), ct, lung_mask)
                    self.assertGreater(whole[lung_mask].std(), 20)
                    np.testing.assert_allclose(cropped[lung_mask].astype(int), whole[lung_mask], atol=1)
                    self.assertGreater(np.mean(cropped[lung_mask] == whole[lung_mask]), 0.99)
                    # It was a crop, and the margin was needed.
                    self.assertLess(np.mean(cropped > 0), 0.5)
                    bare = predict_slices(network, InputSpec(SPEC.window_hu, margin_px=0), ct, lung_mask)
                    self.assertGreater(np.abs(bare[lung_mask].astype(int) - whole[lung_mask]).max(), 3)

    def test_crop_at_the_image_s_border(self):
        ct = noise_ct((2, 128, 128))
        network = small_unet()
        whole = predict_slices(network, InputSpec(SPEC.window_hu), ct)
        for corner in (np.s_[:, :9, :9], np.s_[:, -9:, -9:], np.s_[:, 50:60, -3:]):
            lung_mask = np.zeros(ct.hu.shape, bool)
            lung_mask[corner] = True
            cropped = predict_slices(network, InputSpec(SPEC.window_hu, margin_px=self.REACH_PX), ct, lung_mask)
            np.testing.assert_allclose(cropped[lung_mask].astype(int), whole[lung_mask], atol=1)

    def test_slices_without_field_stay_0(self):
        ct = noise_ct((30, 40, 40))
        lung_mask = np.zeros(ct.hu.shape, bool)
        with_field = [0, 3, 4, 7, 8, 21]
        lung_mask[with_field, 10:20, 10:20] = True
        probability = predict_slices(threshold_network(), SPEC, ct, lung_mask, batch_slices=3)
        self.assertEqual([k for k in range(30) if probability[k].any()], with_field)
        np.testing.assert_array_equal(probability[lung_mask], expected_probability(ct.hu)[lung_mask])

    def test_empty_field_runs_nothing(self):
        network = Counting()
        probability = predict_slices(network, SPEC, noise_ct((9, 20, 20)), np.zeros((9, 20, 20), bool))
        self.assertFalse(probability.any())
        self.assertEqual(network.batches, [])

    def test_any_size_of_image(self):
        for shape in ((1, 1, 1), (2, 7, 5), (3, 33, 47), (9, 31, 32), (2, 17, 200)):
            with self.subTest(shape=shape):
                ct = noise_ct(shape)
                np.testing.assert_allclose(
                    predict_slices(threshold_network(), SPEC, ct).astype(int), expected_probability(ct.hu), atol=1
                )
                lung_mask = np.zeros(shape, bool)
                lung_mask[:, shape[1] // 2, shape[2] // 2] = True
                found = predict_slices(threshold_network(), SPEC, ct, lung_mask)
                np.testing.assert_allclose(found[lung_mask].astype(int), expected_probability(ct.hu)[lung_mask], atol=1)

    def test_missing_pixels_up_to_the_network_s_multiple_are_air(self):
        for channels in ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2, 2)):
            network = small_unet(channels=channels)
            multiple = max(16, network.side_multiple)
            ct = noise_ct((2, 5, 37))
            padded = np.full((2, multiple, -(-37 // multiple) * multiple), PADDING_HU, np.int16)
            padded[:, :5, :37] = ct.hu
            expected = predict_slices(network, SPEC, CtVolume(padded, ct.spacing_ijk_mm))[:, :5, :37]
            np.testing.assert_array_equal(predict_slices(network, SPEC, ct), expected)

    def test_batches_of_any_length_give_the_same(self):
        ct = noise_ct((11, 40, 44))
        network = small_unet()
        lung_mask = np.zeros(ct.hu.shape, bool)
        lung_mask[1:10, 8:30, 8:30] = True
        for where in (None, lung_mask):
            one = predict_slices(network, SPEC, ct, where, batch_slices=1)
            for length in (3, 8, 50):
                several = predict_slices(network, SPEC, ct, where, batch_slices=length)
                np.testing.assert_allclose(several.astype(int), one, atol=1)

    def test_input_is_left_as_it_is(self):
        ct = noise_ct((3, 20, 20))
        before = ct.hu.copy()
        predict_slices(threshold_network(), SPEC, ct)
        np.testing.assert_array_equal(ct.hu, before)


class NeighboursTest(SingleThreadTest):
    def seen(self, spacing_k_mm, slices, step_mm, count=12):
        """For every slice and channel, which slice the network sees; by the HU that differ from slice to slice."""
        hu = np.broadcast_to((np.arange(count) * 100 - 950)[:, None, None], (count, 4, 4)).astype(np.int16)
        ct = CtVolume(np.ascontiguousarray(hu), (0.7, 0.7, spacing_k_mm))
        spec = InputSpec(SPEC.window_hu, slices=slices, slice_step_mm=step_mm)
        logit = GAIN * spec.scale(hu[:, 0, 0])
        code = np.rint(255 / (1 + np.exp(-logit.astype(float)))).astype(int).tolist()
        self.assertEqual(len(set(code)), count)
        answers = [predict_slices(OneSlice(n), spec, ct, batch_slices=5)[:, 2, 2] for n in range(slices)]
        return [[code.index(int(answer[k])) for answer in answers] for k in range(count)]

    def test_neighbours_lie_two_millimetres_apart_whatever_the_slices_are(self):
        for spacing_k_mm, step in ((0.7, 3), (1.0, 2), (1.25, 2), (2.0, 1), (2.5, 1), (5.0, 1)):
            with self.subTest(spacing_k_mm=spacing_k_mm):
                seen = self.seen(spacing_k_mm, 3, 2.0)
                self.assertEqual(seen[5], [5 - step, 5, 5 + step])
                self.assertEqual(self.seen(spacing_k_mm, 5, 2.0, count=14)[7], [7 + n * step for n in (-2, -1, 0, 1, 2)])

    def test_end_slices_are_repeated_beyond_the_ends(self):
        seen = self.seen(1.25, 5, 2.0)
        self.assertEqual(seen[0], [0, 0, 0, 2, 4])
        self.assertEqual(seen[1], [0, 0, 1, 3, 5])
        self.assertEqual(seen[10], [6, 8, 10, 11, 11])
        self.assertEqual(seen[11], [7, 9, 11, 11, 11])
        self.assertEqual(self.seen(2.5, 3, 2.0, count=1), [[0, 0, 0]])

    def test_without_a_step_the_next_slices_are_seen(self):
        self.assertEqual(self.seen(0.5, 3, 0.0)[4], [3, 4, 5])

    def test_one_input_slice_is_the_slice_itself(self):
        self.assertEqual(self.seen(0.7, 1, 2.0), [[k] for k in range(12)])

    def test_thick_slices_are_shown_twice_each(self):
        network = threshold_network(3)
        with torch.no_grad():
            # The mean of a slice and of the next one: what fills a slice alone is not enough.
            network.encoder[0].conv1.weight[0, 1:, 1, 1] = 0.5
        model = Model(replace(CARD, input=replace(SPEC, slices=3, slice_step_mm=2.0)), network)
        hu = np.full((7, 16, 16), -850, np.int16)
        hu[3, 4:9, 5:11] = 0
        for spacing_k_mm, is_found in ((5.0, False), (7.0, True)):
            for lung_mask in (None, np.ones(hu.shape, bool)):
                with self.subTest(spacing_k_mm=spacing_k_mm, field=lung_mask is not None):
                    ct = CtVolume(hu, (0.7, 0.7, spacing_k_mm))
                    probability, _ = predict_first(PLAIN_CPU, ct, model, lung_mask, 0.5, lambda _: None)
                    np.testing.assert_array_equal(probability > 127, (hu == 0) & is_found)

    def test_neighbours_may_lie_outside_the_field(self):
        hu = np.full((5, 20, 20), -900, np.int16)
        hu[1] = 0
        lung_mask = np.zeros(hu.shape, bool)
        lung_mask[2, 5:9, 5:9] = True
        spec = InputSpec(SPEC.window_hu, slices=3)
        probability = predict_slices(OneSlice(0), spec, CtVolume(hu, (1, 1, 1)), lung_mask)
        self.assertGreater(probability[2, 6, 6], 128)


class ScaleTest(unittest.TestCase):
    PUBLISHED = InputSpec((-1200.0, 200.0), as_uint8=True)

    def test_window_becomes_minus_1_to_1(self):
        spec = InputSpec((-1000.0, 400.0))
        hu = np.array([-3000, -1000, -650, -300, 50, 400, 3000])
        for dtype in (np.int16, np.float32):
            scaled = spec.scale(hu.astype(dtype))
            self.assertEqual(scaled.dtype, np.float32)
            np.testing.assert_allclose(scaled, [-1, -1, -0.5, 0, 0.5, 1, 1], atol=1e-6)

    def test_published_grey_values_are_truncated(self):
        # (HU + 1200) / 1400 * 255: 127.5, 51 exactly, 50.8, 0.18, 0.91, 254.8
        hu = np.array([-500, -920, -921, -1199, -1195, 199, -1200, 200, -2000, 1000], np.int16)
        grey = np.array([127, 51, 50, 0, 0, 254, 0, 255, 0, 255])
        np.testing.assert_allclose(self.PUBLISHED.scale(hu), (grey / 255 - 0.5) / 0.5, atol=1e-6)

    def test_every_hu_has_the_grey_value_of_whole_number_arithmetic(self):
        hu = np.arange(-1200, 201)
        grey = (hu + 1200) * 255 // 1400
        for dtype in (np.int16, np.float32):
            found = np.rint((self.PUBLISHED.scale(hu.astype(dtype)) + 1) / 2 * 255)
            np.testing.assert_array_equal(found, grey)

    def test_impossible_inputs_are_refused(self):
        for changes, word in (
            ({"window_hu": (400.0, -1000.0)}, "window_hu"),
            ({"window_hu": (0.0, 0.0)}, "window_hu"),
            ({"window_hu": (float("nan"), 0.0)}, "window_hu"),
            ({"slices": 2}, "slices"),
            ({"slices": -1}, "slices"),
            ({"slices": MAXIMUM_INPUT_SLICES + 2}, "slices"),
            ({"slice_step_mm": -1.0}, "slice_step_mm"),
            ({"margin_px": -1}, "margin_px"),
        ):
            with self.subTest(**changes), self.assertRaisesRegex(ValueError, word):
                InputSpec(**{"window_hu": (-1000.0, 400.0), **changes})


class RunTest(SingleThreadTest):
    def test_progress_rises_to_1_batch_by_batch(self):
        fractions = []
        predict_slices(Counting(), SPEC, noise_ct((10, 8, 8)), batch_slices=4, progress=fractions.append)
        # Eight slices share a crop: batches of 4, 4 and 2.
        np.testing.assert_allclose(fractions, [1 / 3, 2 / 3, 1])

    def test_raising_in_progress_stops_the_work(self):
        for error in (KeyboardInterrupt, ValueError):
            network = Counting()
            fractions = []

            def progress(fraction, fractions=fractions, error=error):
                fractions.append(fraction)
                if len(fractions) == 2:
                    raise error

            with self.assertRaises(error):
                predict_slices(network, SPEC, noise_ct((60, 8, 8)), progress=progress)
            for thread in network.threads:
                thread.join(10)
                self.assertFalse(thread.is_alive())
            # Two were collected, and one more may have begun.
            self.assertLessEqual(len(network.batches), 3)
            self.assertEqual(len(fractions), 2)

    def test_no_thread_is_left_after_a_whole_run(self):
        network = Counting()
        predict_slices(network, SPEC, noise_ct((5, 8, 8)))
        self.assertEqual(network.batches, [1] * 5)
        self.assertEqual(len(network.threads), 1)
        for thread in network.threads:
            self.assertIsNot(thread, threading.current_thread())
            thread.join(10)
            self.assertFalse(thread.is_alive())

    def test_workers_share_the_caller_s_threads(self):
        for threads, workers in ((1, 1), (2, 2), (3, 3), (6, 3), (7, 1), (16, MAXIMUM_WORKERS)):
            torch.set_num_threads(threads)
            network = Counting(workers)
            predict_slices(network, SPEC, noise_ct((12, 8, 8)))
            self.assertEqual(network.torch_threads, {threads // workers})
            self.assertEqual(len(network.threads), workers)

    def test_threads_to_come_have_the_caller_s_number_again(self):
        torch.set_num_threads(2)
        predict_slices(Counting(), SPEC, noise_ct((4, 8, 8)))
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        self.assertEqual((found, torch.get_num_threads()), ([2], 2))

    def test_an_error_in_the_network_reaches_the_caller(self):
        with self.assertRaises(RuntimeError):
            predict_slices(threshold_network(slices=3), SPEC, noise_ct((20, 8, 8)))

    def test_bfloat16_is_close_to_float32(self):
        ct = noise_ct((2, 64, 64))
        network = small_unet("batch")
        exact = predict_slices(network, SPEC, ct)
        rough = predict_slices(network.to(torch.bfloat16), SPEC, ct, device=Device("cpu", "bfloat16", 1, "CPU"))
        difference = np.abs(rough.astype(int) - exact)
        self.assertLess(difference.mean(), 3)
        self.assertGreater(difference.max(), 0)
        sure = np.abs(exact.astype(int) - 128) > 30
        np.testing.assert_array_equal(rough[sure] > 128, exact[sure] > 128)
