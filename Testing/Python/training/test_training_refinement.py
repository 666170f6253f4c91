"""Training of the refinement: batches of cut-outs, augmentation, calibration, and the whole way to a bundle."""

import copy
import csv
import dataclasses
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from helpers.known_refinement import SPEC
from helpers.threshold_model import threshold_model, threshold_network
from helpers.tiny_cache import TinyCache, chest_hu_and_labels
from nlstseg_training.data.cache import Split, load_case, write_json
from nlstseg_training.export.bundle import write_bundle
from nlstseg_training.export.card import Texts, describe_cases
from nlstseg_training.fitting.checkpoints import FINISHED, LAST
from nlstseg_training.fitting.machine import Machine
from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER
from nlstseg_training.recipe import Augmentation
from nlstseg_training.refinement.augmentation import vary
from nlstseg_training.refinement.calibration import KEPT_SHARE, SURE_SHARE, Scored, calibrated, calibration_curve, platt
from nlstseg_training.refinement.candidates import labelled_candidates
from nlstseg_training.refinement.cut_out_voxels import (
    BESIDE_PX,
    CROP_PX,
    DENSE_HU,
    arrays_around,
    continued,
    dense_places,
    fill_with_lung,
    soft_target,
)
from nlstseg_training.refinement.cut_outs import OFF_MIDDLE_SLICES, CutOuts
from nlstseg_training.refinement.fit import fit_refinement, unfolded
from nlstseg_training.refinement.pool import LoadedCase
from nlstseg_training.refinement.recipe import Batch, RefinementRecipe, Shares
from nlstseg_training.refinement.rewindow import seen_through
from nlstseg_training.refinement.variants import between_lungs, downsampled_case, thicker, with_contrast
from nlstseg_training.refinement.workflow import FIT_FOLDER, PLACES_FILE, add_refinement
from nlstseg_training.workflows import shipped
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.inference.refinement import network_input
from NLSTSegLib.models.bundle import CARD_FILE, Model, find_model, load_model
from NLSTSegLib.models.card import read_card
from NLSTSegLib.networks.network import fold_batch_norm
from NLSTSegLib.networks.refinement import RefinementConfig, RefinementNet
from NLSTSegLib.pipeline import SegmentOptions, segment

# Half as many slices leave the deepest layer two, of which torch's bfloat16 on a CPU makes wrong gradients.
SMALL, LARGE = Batch(4, (16, 32, 32)), Batch(2, (16, 48, 48))

DOWNSAMPLED = Batch(4, (16, 32, 32), downsampled=True)

RECIPE = RefinementRecipe(
    channels=(4, 4, 8, 8),
    batches=(SMALL, SMALL, LARGE),
    epochs=1,
    epoch_steps=3,
    validation_steps=1,
)

AS_IT_IS = dataclasses.replace(RECIPE, augmentation=Augmentation(), thicker=0.0, contrast=0.0)

SPLIT = Split(1, 0, "salt", ("crop0", "crop1", "chest1"), ("crop2", "chest0"), ("crop3",))
"""The wall of each chest is what the first network wrongly marks."""

CPU, ONE_CORE = Machine("cpu", workers=0), DeviceRequest("cpu", 1)


class TinyCacheTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.cache = TinyCache(cls.folder / "cache").add_usual()

    def loaded(self, case_id: str) -> LoadedCase:
        return LoadedCase(load_case(self.cache.folder, case_id))


class PlacesTest(TinyCacheTest):
    def places_of(self, cache: TinyCache):
        return labelled_candidates(threshold_model(), 0.5, cache.folder, cache.entries, lambda _: None)

    def test_every_candidate_has_the_label_of_the_lesion_that_it_lies_on(self):
        found = self.places_of(self.cache)
        self.assertEqual({(place.case_id, place.lesion) for place in found}, {
            *((f"crop{n}", 1) for n in range(4)), ("chest0", 1), ("chest0", 2), ("chest0", 0), ("chest1", 0)
        })  # fmt: skip
        by_lesion = {place.lesion: place.centre_kji for place in found if place.case_id == "chest0"}
        np.testing.assert_allclose(by_lesion[1], (6, 50, 60), atol=1)
        np.testing.assert_allclose(by_lesion[2], (4, 20, 70), atol=1)
        self.assertLess(by_lesion[0][2], 20)

    def test_what_a_minority_marked_and_what_is_unmarked_in_an_incomplete_chest_is_neither(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        cache = TinyCache(folder)
        cache.add("part", *chest_hu_and_labels(1), kind="chest", complete=False)
        self.assertEqual([place.lesion for place in self.places_of(cache)], [1])
        hu, labels = chest_hu_and_labels(1)
        cache = TinyCache(folder / "other")
        cache.add("doubted", hu, np.zeros_like(labels), kind="chest", target=(labels * 64).astype(np.uint8))
        wall, *downsampled = self.places_of(cache)
        self.assertTrue(all(place.downsampled for place in downsampled))
        self.assertEqual((wall.lesion, wall.centre_kji[2] < 20), (0, True))


class CutOutsTest(TinyCacheTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.places = labelled_candidates(threshold_model(), 0.5, cls.cache.folder, cls.cache.entries, lambda _: None)

    def batches(self, recipe=RECIPE, entries=None, seed=3, count=12) -> CutOuts:
        return CutOuts(self.cache.folder, entries or self.cache.entries, self.places, recipe, seed=seed, count=count)

    def test_a_batch_depends_on_the_seed_and_its_number_alone(self):
        batches, again = self.batches(), self.batches()
        forward = [batches[number] for number in range(4)]
        for number in (3, 0, 2, 1):
            for one, other in zip(again[number], forward[number], strict=True):
                self.assertTrue(torch.equal(one, other))
        self.assertFalse(torch.equal(forward[0][0], forward[1][0]))
        self.assertFalse(torch.equal(forward[0][0], self.batches(seed=4)[0][0]))

    def test_shapes_and_types_and_every_third_batch_is_of_large_cut_outs(self):
        batches = self.batches()
        for number, (count, sides) in enumerate(((4, (16, 32, 32)), (4, (16, 32, 32)), (2, (16, 48, 48)), (4, (16, 32, 32)))):
            x, target, labels = batches[number]
            self.assertEqual((x.shape, target.shape, labels.shape), ((count, 2, *sides), (count, 1, *sides), (count,)))
            self.assertEqual({each.dtype for each in (x, target, labels)}, {torch.float32})
            self.assertTrue(bool(((target >= 0) & (target <= 1)).all()))
            self.assertTrue(bool((x[:, 0].abs() <= 1).all()))

    def test_a_label_of_1_means_a_lesion_in_the_middle_and_0_none(self):
        seen = {0: 0, 1: 0}
        k, j, i = (side // 2 for side in SMALL.size_kji)
        slices, pixels = round(OFF_MIDDLE_SLICES), round(RECIPE.off_middle_px)
        # One more for the rounding of the middle, and one for a hole that the lung left in it.
        near = (slice(k - slices - 1, k + slices + 2), *(slice(n - pixels - 2, n + pixels + 3) for n in (j, i)))
        batches = self.batches(dataclasses.replace(AS_IT_IS, batches=(SMALL,)))
        for number in range(len(batches)):
            x, target, labels = batches[number]
            for image, wanted, label in zip(x, target[:, 0], labels, strict=True):
                seen[int(label)] += 1
                self.assertEqual(float(image[1, k, j, i]), 1)
                if label == 1:
                    self.assertGreater(float(wanted[near].max()), 0.5)
                else:
                    self.assertEqual(float(wanted[k, j - 2 : j + 3, i - 2 : i + 3].max()), 0)
        self.assertGreater(min(seen.values()), 10)

    def test_a_lesion_is_as_bright_as_it_was_where_the_target_says_it_is(self):
        crops_alone = dataclasses.replace(AS_IT_IS, shares=Shares(1.0, 0, 0, 0, 0), batches=(SMALL,))
        x, target, labels = self.batches(crops_alone)[0]
        self.assertEqual(labels.tolist(), [1, 1, 1, 1])
        # Brighter than -300 HU, as only a nodule is.
        bright = (x[:, 0] > network_input(np.array(-300.0), np.array(True), RECIPE.window_hu)[0]) & (x[:, 1] > 0)
        np.testing.assert_array_equal(bright.numpy(), target[:, 0].numpy() > 0.5)

    def test_beyond_the_ct_both_channels_and_the_target_are_0(self):
        for recipe in (RECIPE, AS_IT_IS):
            batches, beyond = self.batches(recipe), 0
            for number in range(6):
                x, target, _ = batches[number]
                outside = x[:, 1] == 0
                beyond += int(outside.sum())
                self.assertTrue(bool(((x[:, 1] == 0) | (x[:, 1] == 1)).all()))
                self.assertFalse(bool(x[:, 0][outside].any()))
                self.assertFalse(bool(target[:, 0][outside].any()))
            self.assertGreater(beyond, 1000)

    def test_each_kind_of_cut_out_can_make_up_a_batch_of_its_own(self):
        nothing = Shares(0, 0, 0, 0, 0)
        for name, label in (("crops", 1), ("transplants", 1), ("synthetic", 1), ("chests", 1), ("wrong_in_crops", 0), ("", 0)):
            with self.subTest(name or "wrong in chests"):
                shares = dataclasses.replace(nothing, **({name: 1.0} if name else {}))
                batches = self.batches(dataclasses.replace(AS_IT_IS, shares=shares, batches=(SMALL, LARGE)))
                for number in range(2):
                    _, target, labels = batches[number]
                    self.assertEqual(set(labels.tolist()), {label})
                    if label:
                        self.assertTrue(bool((target.flatten(1).max(dim=1).values > 0.5).all()))

    def test_downsampled_batches_hold_masses_grown_into_the_lung_and_organs(self):
        cache = TinyCache(Path(self.enterContext(tempfile.TemporaryDirectory())))
        hu, labels = chest_hu_and_labels(1)
        # Slices enough for a lung at half the resolution.
        cache.add("tall", hu.repeat(2, axis=0), np.zeros_like(labels.repeat(2, axis=0)), kind="chest")
        for share, expected in ((1.0, {1}), (0.0, {0}), (0.5, {0, 1})):
            recipe = dataclasses.replace(
                AS_IT_IS, batches=(DOWNSAMPLED,), low_resolution_masses=share, low_resolution_mass_mm=(16, 24)
            )
            x, target, labels = CutOuts(cache.folder, cache.entries, [], recipe, seed=3, count=1)[0]
            self.assertEqual((x.shape, set(labels.tolist())), ((4, 2, *DOWNSAMPLED.size_kji), expected))
            largest = target.flatten(1).max(dim=1).values
            self.assertTrue(bool((largest[labels == 1] > 0.5).all()))

    def test_slices_are_averaged_and_blood_is_made_brighter_in_chests_alone(self):
        recipe = dataclasses.replace(AS_IT_IS, thicker=1.0, contrast=1.0, thickest_mm=4.0, shares=Shares(0, 0, 0, 0, 0))
        x, _, _ = self.batches(recipe)[0]
        plain, _, _ = self.batches(dataclasses.replace(AS_IT_IS, shares=recipe.shares))[0]
        wall = plain[:, 0] > 0
        self.assertTrue(bool(wall.any()))
        self.assertGreater(float(x[:, 0].max()), float(plain[:, 0].max()) + 0.03)

    def test_chests_alone_make_batches_too(self):
        for case_id in ("chest0", "chest1"):
            batches = self.batches(entries=[entry for entry in self.cache.entries if entry.id == case_id])
            self.assertTrue(all(bool(batches[n][0].isfinite().all()) for n in range(3)), case_id)

    def test_cases_without_anything_that_is_no_lesion_are_refused(self):
        batches = self.batches(entries=[entry for entry in self.cache.entries if entry.kind == "crop"])
        with self.assertRaisesRegex(InputError, "nothing that is no lesion"):
            batches[0]


class VariantsTest(TinyCacheTest):
    def test_a_case_at_half_its_resolution_keeps_every_mark(self):
        case = self.loaded("chest0").case
        small = downsampled_case(case)
        self.assertEqual(small.ct.hu.shape, (len(case.ct.hu) // 2, *(side // 2 for side in case.ct.hu.shape[1:])))
        for own, small_own in ((case.labels, small.labels), (case.target, small.target)):
            self.assertEqual((small_own.shape, set(np.unique(small_own))), (small.ct.hu.shape, set(np.unique(own))))
            k, j, i = np.argwhere(own > 0).T
            self.assertTrue(small_own[k // 2, j // 2, i // 2].all())

    def test_thicker_slices_are_means_and_a_lesion_stays_where_it_fills_half_of_one(self):
        case = self.loaded("chest0").case
        thick = thicker(case, 4)
        self.assertEqual((thick.ct.hu.shape[0], thick.ct.spacing_ijk_mm[2]), (3, 8.0))
        np.testing.assert_allclose(thick.ct.hu[1], case.ct.hu[4:8].mean(axis=0), atol=0.51)
        np.testing.assert_array_equal(thick.labels[1] > 0, (case.target[4:8] > 0).mean(axis=0) >= 0.5)
        self.assertTrue((thick.target[1] > 0)[(case.target[4:8] > 0).any(axis=0)].all())

    def test_contrast_is_in_blood_between_the_lungs_and_not_in_lung_fat_or_bone(self):
        lungs = np.zeros((1, 40, 60), bool)
        lungs[:, 10:30, 5:20] = lungs[:, 10:30, 40:55] = True
        between = between_lungs(lungs)
        self.assertFalse(between[0, :5].any())
        hu = np.full((1, 40, 60), 40, np.float32)
        hu[lungs], hu[:, 12:16, 22:26], hu[:, 24:28, 22:26] = -850, -100, 700
        more = with_contrast(hu, np.ones(hu.shape, bool), 200.0) - hu
        self.assertEqual(set(np.unique(more[:, 12:29, 6:19])), {0})
        self.assertEqual((more[0, 14, 24], more[0, 26, 24], more[0, 20, 30]), (0, 0, 200))


class UnfoldedTest(unittest.TestCase):
    def test_a_network_without_normalizations_gets_them_back_and_says_the_same(self):
        torch.manual_seed(1)
        network = RefinementNet(RefinementConfig((4, 4, 8, 8))).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        folded = fold_batch_norm(copy.deepcopy(network))
        again = unfolded(folded)
        self.assertEqual(set(again.state_dict()), set(network.state_dict()))
        x = torch.randn(2, 2, 8, 32, 32)
        with torch.inference_mode():
            for one, other in zip(network(x), again(x), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


class FitTest(TinyCacheTest):
    def fit(self, parts, recipe) -> tuple[RefinementNet, list[dict[str, str]]]:
        """The network, and the lines of the log that an epoch's validation wrote."""
        places = labelled_candidates(threshold_model(), 0.5, self.cache.folder, [*parts[0], *parts[1]], lambda _: None)
        self.out = Path(self.enterContext(tempfile.TemporaryDirectory()))
        network = fit_refinement(recipe, self.cache.folder, parts, places, self.out, machine=CPU)
        with open(self.out / "log" / "metrics.csv", encoding="utf-8") as file:
            return network, [row for row in csv.DictReader(file) if row["validation_loss"]]

    def test_it_learns_what_is_a_lesion_and_its_outline(self):
        parts = tuple([entry for entry in self.cache.entries if entry.id in part] for part in (SPLIT.train, SPLIT.validation))
        recipe = dataclasses.replace(RECIPE, epochs=3, epoch_steps=20, learning_rate=3e-3, average_decay=0.5)
        network, rows = self.fit(parts, recipe)
        self.assertFalse(network.training)
        self.assertEqual(len(rows), 3)
        for name in ("validation_dice_loss", "validation_score_loss"):
            self.assertLess(float(rows[-1][name]), 0.9 * float(rows[0][name]))

    def test_the_result_is_the_last_epoch_s_also_where_an_earlier_one_had_a_lower_loss(self):
        # It learns that everything is a lesion, and is measured where nothing is.
        parts = tuple([entry for entry in self.cache.entries if entry.id in ids] for ids in (SPLIT.train, ("chest1",)))
        only_lesions = Shares(1, 0, 0, 0, 0)
        recipe = dataclasses.replace(RECIPE, shares=only_lesions, epochs=3, epoch_steps=6, learning_rate=1e-2, average_decay=0.0)
        network, rows = self.fit(parts, recipe)
        losses = [float(row["validation_loss"]) for row in rows]
        self.assertGreater(losses[-1], min(losses))
        last = torch.load(self.out / LAST, map_location="cpu", weights_only=True)
        self.assertEqual(last["epoch"], 2)
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(tensor, last["state_dict"][f"network.{name}"])

    def test_batches_without_a_lesion_have_a_loss_that_epochs_can_be_compared_by(self):
        entries = [entry for entry in self.cache.entries if entry.id == "chest1"]
        network, rows = self.fit((entries, entries), dataclasses.replace(RECIPE, shares=Shares(0, 0, 0, 0, 0)))
        for row in rows:
            self.assertTrue(np.isfinite(float(row["validation_loss"])), row)
            self.assertEqual(float(row["validation_entropy"]), 0)
        self.assertTrue(all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()))


class PiecesTest(TinyCacheTest):
    def test_two_of_up_to_four_readers_are_a_lesion_and_one_of_more_than_two_is_not(self):
        for readers, votes, lesion in ((4, 2, True), (4, 3, True), (4, 4, True), (3, 2, True), (2, 1, True), (1, 1, True),
                                       (4, 1, False), (3, 1, False), (4, 0, False)):  # fmt: skip
            for rounded in (np.floor, np.ceil):
                share = np.array([rounded(255 * votes / readers)], np.uint8)
                self.assertEqual(bool(soft_target(share)[0] > 0.5), lesion, (readers, votes))
        rising = soft_target(np.arange(256, dtype=np.uint8))
        self.assertTrue((np.diff(rising) >= 0).all())
        self.assertEqual((rising[0], rising[-1], rising.dtype), (0, 1, np.float32))

    def test_cut_short_a_lesion_is_shown_in_2_to_12_slices_and_never_without_a_voxel_of_it(self):
        hu, marked = np.zeros((40, 240, 240), np.int16), np.zeros((40, 240, 240), np.uint8)
        marked[19:21, 116:124, 116:124] = 255
        # The second middle lies beside the lesion: where few slices hold nothing of it, all are shown.
        for middle_k, counts in ((20, {*range(2, 13)}), (22, {*range(3, 13), 16})):
            seen = set()
            for seed in range(300):
                rng = np.random.default_rng(seed)
                _, target, there = arrays_around(hu, marked, np.array((middle_k, 120, 120)), (16, 48, 48), 1, short=True, rng=rng)
                self.assertGreater(target[there].max(), 0.5)
                seen.add(int(there.any(axis=(1, 2)).sum()))
            self.assertEqual(seen, counts)

    def test_lung_takes_a_marked_disc_s_place_and_the_rest_is_untouched(self):
        rows, columns = np.mgrid[:CROP_PX, :CROP_PX]
        away_px = np.hypot(rows - 60, columns - 68)
        hu = np.random.default_rng(0).normal(-850, 20, (CROP_PX, CROP_PX)).astype(np.float32)
        hu[away_px <= 7] = 50
        before = hu.copy()
        filled = fill_with_lung(hu, away_px <= 7, np.random.default_rng(1))
        self.assertLess(filled.max(), -700)
        np.testing.assert_array_equal(hu, before)
        # It is grown by three pixels, and blended over two.
        box = np.maximum(np.abs(rows - 60), np.abs(columns - 68)) > 7 + 5
        np.testing.assert_array_equal(filled[box], hu[box])
        self.assertGreater(filled[away_px <= 7].std(), 10)

    def test_the_darkest_stretch_is_taken(self):
        # Darker from left to right, by 4 HU a pixel.
        hu = np.tile(np.arange(-400, -400 - 4 * CROP_PX, -4, dtype=np.float32), (CROP_PX, 1))
        marked = np.zeros(hu.shape, bool)
        marked[60:63, 60:63] = True
        for seed in range(6):
            filled = fill_with_lung(hu, marked, np.random.default_rng(seed))
            self.assertLess(filled[marked].max(), hu[0, 62 + 25], seed)

    def test_without_a_mark_a_slice_is_as_it_was_and_a_mark_as_large_as_the_slice_still_gives_dark_voxels(self):
        hu = np.full((16, 16), -850, np.float32)
        np.testing.assert_array_equal(fill_with_lung(hu, np.zeros(hu.shape, bool), np.random.default_rng(0)), hu)
        self.assertTrue(np.isfinite(fill_with_lung(hu, np.ones(hu.shape, bool), np.random.default_rng(0))).all())

    def test_a_crop_goes_on_with_lung_beyond_its_ends(self):
        loaded = self.loaded("crop3")
        hu, target = continued(loaded, 4, np.random.default_rng(0))
        self.assertEqual((hu.shape, target.shape), ((len(loaded.hu) + 8, 64, 64),) * 2)
        np.testing.assert_array_equal(hu[4:-4], loaded.hu)
        np.testing.assert_array_equal(target[4:-4], loaded.target)
        for end in (slice(0, 4), slice(-4, None)):
            self.assertLess(hu[end].max(), -600)
            self.assertFalse(target[end].any())

    def test_vessels_and_walls_lie_beside_lung_and_away_from_every_mark(self):
        loaded = self.loaded("chest0")
        places = dense_places(loaded)
        self.assertGreater(len(places), 10)
        for place in places:
            self.assertEqual((place.case_id, place.lesion), ("chest0", 0))
            k, j, i = place.centre_kji
            self.assertGreater(loaded.hu[k, j, i], DENSE_HU)
            # The wall is 20 pixels wide; deeper in it there is no lung.
            self.assertGreater(i, 12)
        self.assert_away_from_marks(places, loaded)
        self.assertEqual(places, dense_places(self.loaded("chest0")))

    def assert_away_from_marks(self, places, loaded: LoadedCase):
        marked = np.argwhere(loaded.target > 0)
        for place in places:
            away = np.abs(marked - place.centre_kji)
            self.assertFalse(((away[:, 0] <= 3) & (away[:, 1:] <= BESIDE_PX).all(axis=1)).any(), place)

    def test_a_crop_whose_only_dense_voxels_are_marked_has_none(self):
        self.assertEqual(dense_places(self.loaded("crop0")), [])

    def test_a_nodule_beside_a_wall_leaves_no_place_near_it(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        hu, labels = chest_hu_and_labels(3, ((6, 50, 24, 5.0),))
        TinyCache(folder).add("beside", hu, labels, kind="chest")
        loaded = LoadedCase(load_case(folder, "beside"))
        places = dense_places(loaded)
        self.assertGreater(len(places), 50)
        self.assert_away_from_marks(places, loaded)


class VaryTest(unittest.TestCase):
    WIDE, SIDE = 48, 32

    def setUp(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)

    def shown(self, options: Augmentation, seed: int = 0, hu=None, count: int = 6, own_pixels: float = 0.0):
        """A lobed disc, twice as large in the last slice, whose HU are 1000 times its target; and what becomes of it."""
        rows, columns = np.mgrid[: self.WIDE, : self.WIDE] - (self.WIDE - 1) / 2
        angle = np.arctan2(rows, columns)
        target = np.stack([(np.hypot(rows, columns) < r * (1 + 0.4 * np.cos(angle))) for r in (4, 4, 6, 8)]).astype(np.float32)
        target = torch.from_numpy(np.repeat(target[None], count, 0))
        there = torch.ones_like(target)
        hu = 1000 * target if hu is None else hu
        rng = np.random.default_rng(seed)
        return target, vary(hu.clone(), target.clone(), there, self.SIDE, options, rng, own_pixels=own_pixels)

    def test_without_augmentation_it_is_the_middle(self):
        given, (hu, target, there) = self.shown(Augmentation())
        inner = slice((self.WIDE - self.SIDE) // 2, (self.WIDE + self.SIDE) // 2)
        torch.testing.assert_close(target, given[..., inner, inner], rtol=0, atol=1e-4)
        torch.testing.assert_close(hu, 1000 * given[..., inner, inner], rtol=0, atol=0.1)
        self.assertTrue(bool((there == 1).all()))

    def test_image_and_target_stay_together_however_they_are_turned(self):
        for options in (Augmentation(flips=True), Augmentation(rotation_degrees=180), Augmentation(zoom=(0.75, 1.4)),
                        Augmentation((0.75, 1.4), 180, flips=True)):  # fmt: skip
            with self.subTest(options):
                _, (hu, target, _) = self.shown(options, seed=2)
                torch.testing.assert_close(hu, 1000 * target, rtol=0, atol=0.1)
                self.assertGreater(float((target[0] - target[1]).abs().sum() + (target[0] - target[2]).abs().sum()), 5)

    def test_flips_turn_slices_and_columns_over_half_of_the_time(self):
        given, (_, target, _) = self.shown(Augmentation(flips=True), count=64)
        inner = slice((self.WIDE - self.SIDE) // 2, (self.WIDE + self.SIDE) // 2)
        middle = given[0, :, inner, inner]
        ways = {(k, i): middle.flip([axis for axis, flip in ((0, k), (2, i)) if flip]) for k in (0, 1) for i in (0, 1)}
        counts = {way: sum(bool(torch.allclose(each, wanted, atol=1e-3)) for each in target) for way, wanted in ways.items()}
        self.assertEqual(sum(counts.values()), 64)
        self.assertGreater(min(counts.values()), 6)

    def test_a_share_keeps_its_own_pixels_and_is_turned_by_quarters_alone(self):
        given, (hu, target, _) = self.shown(Augmentation((1.2, 1.4), 180), count=64, own_pixels=0.5)
        inner = slice((self.WIDE - self.SIDE) // 2, (self.WIDE + self.SIDE) // 2)
        quarters = [torch.rot90(given[0, :, inner, inner], n, (1, 2)) for n in range(4)]
        counts = [sum(bool(torch.allclose(each, wanted, atol=1e-3)) for each in target) for wanted in quarters]
        self.assertTrue(20 <= sum(counts) <= 44, counts)
        self.assertGreater(min(counts), 1)
        torch.testing.assert_close(hu, 1000 * target, rtol=0, atol=0.1)

    def test_zoom_makes_it_larger_by_that_factor(self):
        _, (_, as_it_is, _) = self.shown(Augmentation())
        for zoom in (0.75, 1.4):
            _, (_, target, _) = self.shown(Augmentation(zoom=(zoom, zoom)))
            self.assertAlmostEqual(float(target[0].sum() / as_it_is[0].sum()), zoom**2, delta=0.06 * zoom**2)

    def test_what_is_beyond_the_given_voxels_is_marked_as_such(self):
        smaller = Augmentation(zoom=(0.5, 0.5))
        _, (_hu, target, there) = self.shown(smaller)
        self.assertEqual(set(there.unique().tolist()), {0.0, 1.0})
        # Half as large, 48 pixels are 24 of the 32.
        self.assertAlmostEqual(float(there[0, 0].mean()), (24 / 32) ** 2, delta=0.01)
        self.assertFalse(bool(target[there == 0].any()))

    def test_noise_has_about_the_strength_asked_for_and_leaves_the_target(self):
        flat = torch.zeros(200, 4, self.WIDE, self.WIDE)
        given, (hu, target, _) = self.shown(Augmentation(noise_hu=10.0, noise_share=1.0), hu=flat, count=200)
        # Exponential with mean 10; smoothing over 3 x 3 leaves a third, the factor 2 brings two thirds back.
        self.assertAlmostEqual(float(hu.std(dim=(1, 2, 3)).mean()), 10 * 2 / 3, delta=1.5)
        inner = slice((self.WIDE - self.SIDE) // 2, (self.WIDE + self.SIDE) // 2)
        torch.testing.assert_close(target, given[..., inner, inner], rtol=0, atol=1e-4)


class WindowTest(unittest.TestCase):
    def test_a_network_says_the_same_of_hu_that_neither_window_clips_and_another_of_denser_ones(self):
        torch.manual_seed(3)
        network = RefinementNet(RefinementConfig((4, 4, 8, 8))).eval()
        hu = np.random.default_rng(0).uniform(-900, 300, (16, 32, 32))
        there = np.ones(hu.shape, bool)
        there[:5] = there[:, :7] = False
        for own_hu, window_hu in (((-1000.0, 400.0), (-1000.0, 1000.0)), ((-950.0, 350.0), (-1024.0, 500.0))):
            other = seen_through(network, own_hu, window_hu)
            answers = []
            for each, window in ((network, own_hu), (other, window_hu)):
                with torch.no_grad():
                    answers.append(each(torch.from_numpy(network_input(hu, there, window))[None]))
            for one, another in zip(*answers, strict=True):
                torch.testing.assert_close(one, another, rtol=0, atol=1e-4)
            with torch.no_grad():
                denser = other(torch.from_numpy(network_input(hu + 150, there, window_hu))[None])
            self.assertGreater(float((denser[0] - answers[0][0]).abs().max()), 1e-3)

    def test_the_network_that_it_comes_from_is_untouched(self):
        network = RefinementNet(RefinementConfig((4, 4, 8, 8)))
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        seen_through(network, (-1000.0, 400.0), (-1000.0, 1000.0))
        self.assertTrue(all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()))


class CalibrationTest(unittest.TestCase):
    def drawn(self, slope: float, shift: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(7)
        logits = rng.normal(0, 3, count)
        return logits, rng.random(count) < 1 / (1 + np.exp(-(slope * logits + shift)))

    def test_platt_finds_the_curve_that_the_data_were_drawn_from(self):
        for slope, shift in ((1.0, 0.0), (0.6, -1.5), (2.0, 1.0)):
            with self.subTest(slope=slope, shift=shift):
                logits, is_lesion = self.drawn(slope, shift)
                found = platt(logits, is_lesion)
                np.testing.assert_allclose(found, (slope, shift), atol=0.1)

    def test_the_slope_stays_above_0_and_finite(self):
        logits = np.linspace(-3, 3, 20)
        for is_lesion in (logits > 0, logits < 0):
            slope, shift = platt(logits, is_lesion)
            self.assertGreater(slope, 0)
            self.assertTrue(np.isfinite([slope, shift]).all())
            self.assertLess(slope, 1000)

    def test_the_curve_tells_which_share_is_lesions_by_fifth_of_the_score(self):
        spec, _, _ = calibrated([Scored(1.0, True), Scored(-1.0, False)], RECIPE)
        spec = dataclasses.replace(spec, score_slope=1.0, score_shift=0.0)
        # Scores of 0.88, 0.88, 0.88, 0.27 and 0.5.
        several = [Scored(logit, lesion) for logit, lesion in ((2.0, True), (2.0, True), (2.0, False))]
        several += [Scored(-1.0, False), Scored(0.0, True)]
        curve = calibration_curve(several, spec)
        self.assertEqual(
            curve,
            {
                "score 0.2-0.4": {"candidates": 1, "share_of_lesions": 0.0},
                "score 0.4-0.6": {"candidates": 1, "share_of_lesions": 1.0},
                "score 0.8-1": {"candidates": 3, "share_of_lesions": 0.67},
            },
        )
        # The highest score of all is in the last fifth.
        self.assertEqual(list(calibration_curve([Scored(99.0, True)], spec)), ["score 0.8-1"])

    def test_drawn_scores_lie_on_the_curve(self):
        logits, is_lesion = self.drawn(3.0, 1.0)
        several = [Scored(float(logit), bool(lesion)) for logit, lesion in zip(logits, is_lesion, strict=True)]
        spec, threshold, sure = calibrated(several, RECIPE)
        for name, row in calibration_curve(several, spec).items():
            low, high = (float(end) for end in name.removeprefix("score ").split("-"))
            self.assertTrue(low - 0.02 <= row["share_of_lesions"] <= high + 0.02, (name, row))
        scores = 1 / (1 + np.exp(-(spec.score_slope * logits + spec.score_shift)))
        for share, limit in ((KEPT_SHARE, threshold), (SURE_SHARE, sure)):
            self.assertAlmostEqual(float((scores[is_lesion] >= limit).mean()), share, delta=0.01)

    def test_marks_of_which_fewer_than_one_in_five_is_a_lesion_are_not_shown_whatever_that_costs(self):
        logits, is_lesion = self.drawn(0.7, -1.0)
        _, threshold, _ = calibrated([Scored(*each) for each in zip(logits, is_lesion, strict=True)], RECIPE)
        self.assertEqual(threshold, 0.2)

    def test_lesions_alone_and_wrong_marks_alone_set_no_scores(self):
        for several in ([], [Scored(1.0, True)], [Scored(1.0, False)]):
            with self.assertRaisesRegex(InputError, "split again"):
                calibrated(several, RECIPE)


class AddRefinementTest(TinyCacheTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_json(cls.folder / "split.json", SPLIT)
        write_bundle(threshold_network(), threshold_model().card, cls.folder / "base")
        cls.base = load_model(find_model(str(cls.folder / "base")))

    def add(self, out: str, base: Model | None = None, version: str = "2", **options):
        cache, split = self.cache.folder, self.folder / "split.json"
        fixed = {"recipe": RECIPE, "texts": Texts(version=version), "machine": CPU, "device": ONE_CORE, "seed": 1}
        return add_refinement(base or self.base, cache, split, self.folder / out, **(fixed | options))

    def stamps(self, folder: Path) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    def test_a_bundle_is_written_that_says_what_it_is_and_segments(self):
        card, content = self.add("usual")
        bundle = self.folder / "usual" / BUNDLE_FOLDER
        self.assertEqual(read_card(bundle / CARD_FILE), card)
        self.assertEqual((card.name, card.version), (self.base.card.name, "2"))
        self.assertEqual(card.refinement.channels, RECIPE.channels)
        self.assertEqual(card.refinement.candidate_threshold, RECIPE.candidate_threshold)
        self.assertIn("3D network", card.description)
        self.assertEqual(content["cases"], 2)
        self.assertTrue((self.folder / "usual" / "validation" / "report.html").exists())
        self.assertIn("calibration", card.metrics["refinement"])
        self.assertIn("validation", card.metrics)
        json.dumps(card.metrics, allow_nan=False)
        model = load_model(find_model(str(bundle)))
        for (name, tensor), expected in zip(
            model.network.state_dict().items(), threshold_network().state_dict().values(), strict=True
        ):
            self.assertTrue(torch.equal(tensor, expected.half().float()), name)
        for parameter in model.refinement.parameters():
            self.assertTrue(torch.equal(parameter, parameter.half().float()))
        case = load_case(self.cache.folder, "chest0")
        result = segment(case.ct, model, SegmentOptions(lung_field="none", device="cpu", threads=1, threshold=0.01))
        self.assertEqual(result.card, card)
        # What the first network did not mark is nobody's.
        self.assertLessEqual(set(np.unique(result.probability[:, 70:, 40:])), {0})

    def test_what_was_stopped_goes_on_where_it_was(self):
        out = self.folder / "stopped"

        def stop_at(wanted: str):
            def progress(fraction: float, stage: str) -> None:
                if stage == wanted:
                    raise KeyboardInterrupt

            return progress

        with self.assertRaises(KeyboardInterrupt):
            self.add("stopped", progress=stop_at("candidates"))
        self.assertFalse((out / PLACES_FILE).exists())
        with self.assertRaises(KeyboardInterrupt):
            self.add("stopped", progress=stop_at("calibration"))
        self.assertTrue((out / FIT_FOLDER / FINISHED).exists())
        self.assertFalse((out / BUNDLE_FOLDER).exists())
        before = self.stamps(out)
        card, _ = self.add("stopped")
        self.assertEqual({path: stamp for path, stamp in self.stamps(out).items() if path in before}, before)
        # No file of the training more than there were.
        self.assertEqual(set(self.stamps(out / FIT_FOLDER)), {path for path in before if FIT_FOLDER in path.parts})
        straight, _ = self.add("straight")
        self.assertEqual(card.weights_sha256, straight.weights_sha256)
        self.assertEqual(card.refinement, straight.refinement)
        with self.assertRaisesRegex(InputError, "already"):
            self.add("stopped")

    def test_further_training_starts_from_the_model_s_own_refinement_network(self):
        torch.manual_seed(5)
        own = RefinementNet(RefinementConfig(SPEC.channels)).eval()
        card = dataclasses.replace(self.base.card, version="3", refinement=dataclasses.replace(SPEC, candidate_threshold=0.4))
        base = Model(card, threshold_network(), own)
        still = dataclasses.replace(RECIPE, further_rate=1e-9)
        card, _ = self.add("further", base, "4", further=True, recipe=still)
        trained = load_model(find_model(str(self.folder / "further" / BUNDLE_FOLDER))).refinement
        before = seen_through(own, SPEC.window_hu, RECIPE.window_hu)
        for (name, tensor), wanted in zip(trained.named_parameters(), before.parameters(), strict=True):
            torch.testing.assert_close(tensor, wanted, rtol=2e-3, atol=1e-4, msg=name)
        # What it was made with, not what the recipe says, but for the window.
        self.assertEqual((card.refinement.channels, card.refinement.candidate_threshold), (SPEC.channels, 0.4))
        self.assertEqual(card.refinement.window_hu, RECIPE.window_hu)
        self.assertEqual(card.description, base.card.description)

    def test_the_bundled_model_s_cycles_follow_each_other_and_those_that_are_there_are_kept(self):
        torch.manual_seed(5)
        spec = dataclasses.replace(SPEC, candidate_threshold=0.4)
        card = dataclasses.replace(self.base.card, version="3", refinement=spec)
        write_bundle(threshold_network(), card, self.folder / "third", RefinementNet(RefinementConfig(SPEC.channels)).eval())
        out = self.folder / "shipped"
        out.mkdir()
        (out / shipped.CACHE_FOLDER).symlink_to(self.cache.folder)
        cycles = (shipped.Cycle("first", 5, 2, 1e-4, (SMALL,)), shipped.Cycle("second", 6, 3, 1e-4, (SMALL, LARGE)))

        def make():
            base = str(self.folder / "third")
            return shipped.make_shipped(out, SPLIT, base, cycles=cycles, recipe=RECIPE, machine=CPU, device=ONE_CORE)

        card = make()
        self.assertEqual((card.name, card.version), (shipped.NAME, "second"))
        self.assertEqual(card.attribution.count(shipped.ATTRIBUTION), 1)
        self.assertIn(describe_cases([entry for entry in self.cache.entries if entry.id in SPLIT.train]), card.training_data)
        self.assertEqual(card.in_plane_range_mm, (1.0, 1.0))
        self.assertEqual(card.slice_range_mm, (2.0, RECIPE.thickest_mm))
        before = self.stamps(out)
        self.assertEqual(make(), card)
        after = self.stamps(out)
        self.assertEqual({path for path in after if before.get(path) != after[path]}, {out / shipped.SPLIT_FILE})

    def test_a_model_without_a_refinement_network_has_none_to_train_further(self):
        with self.assertRaisesRegex(InputError, "no refinement"):
            self.add("none", further=True)
        self.assertFalse((self.folder / "none").exists())

    def test_the_name_and_version_of_the_model_it_comes_from_are_refused(self):
        for texts in (Texts(version=self.base.card.version), Texts(self.base.card.name, self.base.card.version)):
            with self.assertRaisesRegex(InputError, f"'{self.base.card.name}' {self.base.card.version}"):
                self.add("same", texts=texts)
        self.assertFalse((self.folder / "same").exists())

    def test_a_folder_of_another_model_or_of_other_cases_is_refused(self):
        def stop(fraction: float, stage: str) -> None:
            if stage == "calibration":
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.add("begun", progress=stop)
        other = threshold_network()
        with torch.no_grad():
            other.head.bias += 1
        write_bundle(other, self.base.card, self.folder / "other")
        before = self.stamps(self.folder / "begun")
        with self.assertRaisesRegex(InputError, "begun.*another model"):
            self.add("begun", base=load_model(find_model(str(self.folder / "other"))))
        fewer = self.folder / "fewer.json"
        write_json(fewer, dataclasses.replace(SPLIT, train=SPLIT.train[1:]))
        with self.assertRaisesRegex(InputError, "begun.*other cases"):
            add_refinement(self.base, self.cache.folder, fewer, self.folder / "begun", recipe=RECIPE, texts=Texts(version="2"))
        (self.folder / "begun" / PLACES_FILE).unlink()
        with self.assertRaisesRegex(InputError, PLACES_FILE):
            self.add("begun")
        del before[self.folder / "begun" / PLACES_FILE]
        self.assertEqual({path: stamp for path, stamp in self.stamps(self.folder / "begun").items() if path in before}, before)
