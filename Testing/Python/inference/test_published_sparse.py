"""The published network in the field alone: the numbers of the whole slice, less work, and lesions followed out of it."""

import threading
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.networks import SingleThreadTest, published_with_formula_weights
from NLSTSegLib.inference.extension import MAXIMUM_ML, STEP_PX, beyond_the_edge
from NLSTSegLib.lesions.find import find_lesions, label_map
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.card import published_card
from NLSTSegLib.networks.published import PublishedUNet
from NLSTSegLib.networks.published_sparse import SparsePublishedUNet
from NLSTSegLib.networks.rectangles import rectangles
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume.ct import CtVolume

SHAPE = (40, 56)


def some_fields(shape=SHAPE) -> dict[str, np.ndarray]:
    fields = {name: np.zeros(shape, bool) for name in ("pixel", "corners", "edges", "two parts", "frame")}
    fields["pixel"][21, 33] = True
    for j, i in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        fields["corners"][j, i] = True
    fields["edges"][-3:, 30:40] = fields["edges"][10:21, :5] = True
    fields["two parts"][2:13, 4:17] = fields["two parts"][31:36, 40:51] = True
    fields["frame"][4:36, 4:50] = True
    fields["frame"][9:30, 9:44] = False
    return {**fields, "whole": np.ones(shape, bool)}


def image(shape=SHAPE, seed=0) -> torch.Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class SparsePublishedTest(SingleThreadTest):
    @classmethod
    def setUpClass(cls):
        cls.network = published_with_formula_weights()
        with torch.inference_mode():
            cls.whole = cls.network(image())[0, 0].numpy()

    def ask(self, network, x, wanted):
        with torch.inference_mode():
            return network(x, wanted)[0, 0].numpy()[wanted]

    def test_it_gives_what_the_whole_slice_gives_where_it_is_wanted(self):
        network = SparsePublishedUNet(self.network, torch.float32)
        for name, wanted in some_fields().items():
            with self.subTest(lung_mask=name):
                np.testing.assert_allclose(self.ask(network, image(), wanted), self.whole[wanted], rtol=0, atol=2e-5)

    def test_nothing_that_was_left_beside_a_region_reaches_a_wanted_pixel(self):
        network = SparsePublishedUNet(self.network, torch.float32)
        for name, wanted in some_fields().items():
            with self.subTest(lung_mask=name):
                left = self.ask(network, torch.full_like(image(), torch.nan), np.ones(SHAPE, bool))
                self.assertTrue(np.isnan(left).all())
                np.testing.assert_allclose(self.ask(network, image(), wanted), self.whole[wanted], rtol=0, atol=2e-5)

    def test_slices_of_other_sizes_in_turn(self):
        network = SparsePublishedUNet(self.network, torch.float32)
        for shape in ((24, 16), (2, 2), (16, 24), (6, 34)):
            wanted = np.random.default_rng(0).random(shape) < 0.5
            with torch.inference_mode():
                expected = self.network(image(shape))[0, 0].numpy()[wanted]
            np.testing.assert_allclose(self.ask(network, image(shape), wanted), expected, rtol=0, atol=2e-5)

    def test_nothing_wanted_is_nothing_done(self):
        with FlopCounterMode(display=False) as counter:
            self.ask(SparsePublishedUNet(self.network, torch.float32), image(), np.zeros(SHAPE, bool))
        self.assertEqual(counter.get_total_flops(), 0)

    def test_it_works_less(self):
        shape = (64, 160)
        wanted = np.zeros(shape, bool)
        wanted[30:34, 80:84] = True
        counts = []
        for asked in (wanted, np.ones(shape, bool)):
            with FlopCounterMode(display=False) as counter:
                self.ask(SparsePublishedUNet(self.network, torch.bfloat16), image(shape), asked)
            counts.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.inference_mode():
            PublishedUNet()(torch.empty(1, 1, *shape))
        self.assertLess(counts[0], 0.25 * counter.get_total_flops())
        # Doubling the pixels before a convolution is not needed for the same answer.
        self.assertLess(counts[1], 0.98 * counter.get_total_flops())

    def test_threads_share_it(self):
        network = SparsePublishedUNet(self.network, torch.float32)
        wanted = some_fields()["two parts"]
        found = {}

        def ask(seed):
            torch.set_num_threads(1)
            found[seed] = self.ask(network, image(seed=seed), wanted)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed in range(3):
            with torch.inference_mode():
                expected = self.network(image(seed=seed))[0, 0].numpy()[wanted]
            np.testing.assert_allclose(found[seed], expected, rtol=0, atol=2e-5)

    def test_bfloat16_gives_nearly_the_same_mask(self):
        found = self.ask(SparsePublishedUNet(self.network, torch.bfloat16), image(), some_fields()["whole"])
        difference = np.abs(found - self.whole.ravel())
        self.assertLess(difference.mean(), 0.005 * self.whole.std())
        self.assertGreater(difference.max(), 0)


class RectanglesTest(unittest.TestCase):
    def test_they_cover_the_region_and_do_not_overlap(self):
        random = np.random.default_rng(0)
        for shape in ((1, 1), (7, 30), (64, 64), (90, 34), (300, 200)):
            for share in (0.0, 0.001, 0.02, 0.5, 1.0):
                region = random.random(shape) < share
                covered = np.zeros(shape, int)
                for j, j_end, i, i_end in rectangles(region):
                    self.assertTrue(0 <= j < j_end <= shape[0] and 0 <= i < i_end <= shape[1])
                    covered[j:j_end, i:i_end] += 1
                self.assertLessEqual(covered.max(), 1)
                self.assertTrue(covered[region].all())

    def test_two_lungs_are_two_rectangles_and_one_round_spot_is_one(self):
        region = np.zeros((400, 400), bool)
        region[100:300, 40:140] = region[120:320, 260:360] = True
        self.assertEqual(sorted(rectangles(region)), [(100, 300, 40, 140), (120, 320, 260, 360)])
        j, i = np.indices(region.shape)
        self.assertEqual(len(list(rectangles(np.hypot(j - 200, i - 200) < 25))), 1)


class FollowingTest(unittest.TestCase):
    def setUp(self):
        self.searched = np.zeros((5, 80, 80), bool)
        self.searched[1:4, 20:60, 20:60] = True
        self.above = np.zeros_like(self.searched)

    def test_what_stays_inside_is_not_followed(self):
        self.above[2, 30:40, 30:40] = True
        self.assertIsNone(beyond_the_edge(self.above, self.searched, 1.0))
        self.assertIsNone(beyond_the_edge(np.zeros_like(self.above), self.searched, 1.0))

    def test_search_goes_on_around_the_place_where_it_leads_out(self):
        self.above[2, 59, 40] = True
        beyond = beyond_the_edge(self.above, self.searched, 1.0)
        self.assertFalse((beyond & self.searched).any())
        self.assertTrue(beyond[1:4, 60, 40 - 1 - STEP_PX : 40 + 2 + STEP_PX].all())
        self.assertTrue(beyond[2, 60 + STEP_PX, 40])
        self.assertFalse(beyond[:, 61 + STEP_PX :].any())
        self.assertFalse(beyond[[0, 4]].any())

    def test_a_corner_and_the_next_slice_count(self):
        for at, seen in (((1, 20, 20), (0, 19, 19)), ((3, 40, 40), (4, 41, 41))):
            self.above[:] = False
            self.above[at] = True
            self.assertTrue(beyond_the_edge(self.above, self.searched, 1.0)[seen])

    def test_more_than_lesions_can_be_is_not_followed(self):
        self.above[2, 50:60, 50:60] = True
        self.assertIsNotNone(beyond_the_edge(self.above, self.searched, MAXIMUM_ML * 1000 / 100))
        self.assertIsNone(beyond_the_edge(self.above, self.searched, MAXIMUM_ML * 1000 / 99))


class WholeLesionTest(SingleThreadTest):
    """With weights that hand the slice to the last layer unchanged: lesion is what is brighter than some HU."""

    def test_a_lesion_that_leads_far_out_of_the_field_is_found_whole(self):
        network = PublishedUNet().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            network.init_conv.weight[0, 0, 1, 1] = 1
            network.upblocks[-1].shortcut.weight[0, 64, 0, 0] = 1
            network.last_layer[1].weight[0, 0, 1, 1] = 20
            network.last_layer[1].bias.fill_(-5)
        hu = np.full((6, 48, 112), -900, np.int16)
        hu[1:4, 20:26, 8:100] = 0
        hu[3, 25:44, 92:96] = 0
        hu[4, 41:46, 95:98] = 0
        hu[0, 4:8, 80:90] = 0  # touches neither the field nor the lesion
        lung_mask = np.zeros(hu.shape, bool)
        lung_mask[2:4, 16:28, 4:14] = True
        ct = CtVolume(hu, (1.0, 1.0, 2.0))
        model = Model(replace(published_card(Path("x.pth")), min_volume_mm3=0.0), network)
        result = segment(ct, model, SegmentOptions(lung_field=lung_mask, device="cpu"))
        lesion = hu == 0
        lesion[0] = False
        np.testing.assert_array_equal(result.labels > 0, lesion)
        whole = segment(ct, model, SegmentOptions(lung_field="none", device="cpu"))
        gated = find_lesions(whole.canonical_probability, ct, threshold=0.5, min_volume_mm3=0.0, lung_mask=lung_mask)
        np.testing.assert_array_equal(result.labels, label_map(gated, hu.shape))
