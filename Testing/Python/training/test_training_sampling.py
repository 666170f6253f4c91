"""What training batches hold: the right places, in order whatever happens, and lesions whose labels lie on them."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from helpers.tiny_cache import TinyCache
from helpers.training_recipes import SPEC, recipe_of
from nlstseg_training.batches.composition import SOURCE_NAMES, composition, describe, lesion_share
from nlstseg_training.batches.patches import Batches, Mined
from nlstseg_training.batches.synthetic import blend, synthetic_lesion
from nlstseg_training.batches.transplant import without_lesion
from nlstseg_training.data.aerated import aerated
from nlstseg_training.data.cache import load_case
from nlstseg_training.recipe import Augmentation, Sampling, read_recipe
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.card import Architecture
from NLSTSegLib.models.specs import InputSpec

VARIED = Augmentation((0.8, 1.3), 20.0, 6.0, True, 20.0, 0.05, 10.0, 0.5, 0.3)


class SamplingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cache = TinyCache(Path(cls.enterClassContext(tempfile.TemporaryDirectory()))).add_usual()

    def batches(
        self, augmentation=VARIED, mined_places=(), seed=3, entries=None, spec=SPEC, architecture=None, **sampling
    ) -> Batches:
        shares = Sampling(**({"batch": 8, "side_px": 32} | sampling))
        changes = {"architecture": architecture} if architecture else {}
        recipe = recipe_of(shares, augmentation=augmentation, input=spec, **changes)
        entries = self.cache.entries if entries is None else entries
        return Batches(self.cache.folder, entries, recipe, shares, seed=seed, count=20, mined=mined_places)

    def test_a_batch_depends_on_its_number_and_the_seed_only(self):
        shares = {"lesions": 0.2, "crops": 0.2, "transplants": 0.2, "synthetic": 0.2}
        first = self.batches(**shares)
        earlier = [first[n] for n in range(5)]
        again = self.batches(**shares)[4]
        for ours, theirs in zip(earlier[4][:2], again[:2], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        self.assertEqual(earlier[4][2], again[2])
        self.assertFalse(torch.equal(earlier[4][0], self.batches(seed=4, **shares)[4][0]))
        self.assertFalse(torch.equal(earlier[4][0], earlier[3][0]))

    def test_shapes_and_ranges_in_2d_and_3d(self):
        shares = {"lesions": 0.25, "crops": 0.25, "transplants": 0.25, "synthetic": 0.25}
        x, target, _ = self.batches(**shares)[0]
        self.assertEqual((tuple(x.shape), tuple(target.shape)), ((8, 3, 32, 32), (8, 1, 32, 32)))
        flat = InputSpec(window_hu=SPEC.window_hu, patch_kji=(8, 32, 32))
        x3, target3, _ = self.batches(spec=flat, architecture=Architecture("unet", 3, (8, 16)), **shares)[0]
        self.assertEqual((tuple(x3.shape), tuple(target3.shape)), ((8, 1, 8, 32, 32), (8, 1, 8, 32, 32)))
        for values, soft in ((x, target), (x3, target3)):
            self.assertTrue(float(values.min()) >= -1 and float(values.max()) <= 1)
            self.assertTrue(float(soft.min()) >= 0 and 0.99 < float(soft.max()) <= 1)

    def test_where_the_target_says_lesion_the_image_is_bright_in_every_kind(self):
        still = Augmentation((0.8, 1.3), 20.0, 6.0, True)
        for spec, architecture in (
            (SPEC, None),
            (InputSpec(window_hu=SPEC.window_hu, patch_kji=(8, 32, 32)), Architecture("unet", 3, (8, 16))),
        ):
            for kind in ("lesions", "crops", "transplants"):
                with self.subTest(kind, dimensions=3 if architecture else 2):
                    batches = self.batches(still, spec=spec, architecture=architecture, batch=24, **{kind: 1.0})
                    x, target, _ = batches[0]
                    seen = x if architecture else x[:, 1:2]
                    self.assertGreater(float((target > 0.5).float().mean()), 0.01)
                    self.assertGreater(float(seen[target > 0.95].mean()), 0.2)
                    # The wall of the chest is bright too, and no lesion.
                    self.assertLess(float(seen[target < 0.05].median()), -0.6)

    def test_plain_lung_has_no_lesion_but_what_lies_there_by_chance(self):
        chest = [entry for entry in self.cache.entries if entry.id == "chest1"]
        _, target, ids = self.batches(entries=chest)[0]
        self.assertEqual((float(target.max()), ids), (0.0, ["chest1"]))

    def test_mined_places_come_back_in_the_batch(self):
        place = Mined("chest1", (6, 60, 60))
        batches = self.batches(mined_places=[place], mined=1.0)
        for n in range(3):
            self.assertEqual(batches[n][2], ["chest1"])
        self.assertEqual(float(batches[0][1].max()), 0.0)

    def test_any_case_may_come_in_any_batch(self):
        ids = {case_id for n in range(3) for case_id in self.batches(batch=16)[n][2]}
        self.assertEqual(ids, {"chest0", "chest1"})

    def test_whole_slices_show_the_slice_as_it_is(self):
        flat = InputSpec(window_hu=(-1200.0, 200.0), as_uint8=True)
        entries = [entry for entry in self.cache.entries if entry.id == "chest0"]
        batches = self.batches(Augmentation(), spec=flat, entries=entries, side_px=96, whole_slices=True, lesions=0.5)
        x, target, _ = batches[0]
        self.assertEqual(tuple(x.shape), (8, 1, 96, 96))
        case = load_case(self.cache.folder, "chest0")
        wanted = flat.scale(case.ct.hu)
        for image, soft in zip(x.numpy(), target.numpy(), strict=True):
            k = next(k for k in range(12) if np.array_equal(wanted[k], image[0]))
            np.testing.assert_array_equal(soft[0], case.labels[k] > 0)
        # Slices with a lesion, in which the other half may fall by chance too.
        self.assertGreaterEqual(sum(soft.max() > 0 for soft in target.numpy()), 4)


class CompositionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cache = TinyCache(Path(cls.enterClassContext(tempfile.TemporaryDirectory()))).add_usual()

    def entries(self, *kinds):
        return [entry for entry in self.cache.entries if entry.kind in kinds]

    def test_where_everything_is_there_the_shares_are_the_recipes(self):
        for phase in read_recipe("default").phases:
            counts = composition(phase.sampling, {*SOURCE_NAMES})
            for source, count in counts.items():
                own = getattr(phase.sampling, source, None)
                self.assertTrue(own is None or abs(count - 48 * own) <= 1, (source, count))

    def test_on_chests_alone_lesions_take_the_place_of_crops_and_transplants(self):
        for phase in read_recipe("default").phases:
            counts = composition(phase.sampling, {"lesions", "synthetic", "lung"})
            self.assertGreater(counts["lesions"] / 48, 0.55)
            self.assertGreater(lesion_share(counts), 0.6)
            self.assertEqual((sum(counts.values()), counts["crops"], counts["transplants"], counts["mined"]), (48, 0, 0, 0))

    def test_a_batch_of_the_recipe_on_incomplete_chests_shows_lesions(self):
        batches = Batches(
            self.cache.folder,
            self.entries("chest"),
            recipe_of(Sampling(48, 32)),
            Sampling(48, 32, lesions=0.05, crops=0.35, transplants=0.2, mined=0.2),
            seed=0,
            count=1,
        )
        _, target, _ = batches[0]
        self.assertGreater(int((target.amax(dim=(1, 2, 3)) > 0.5).sum()), 24)

    def test_it_is_said_and_too_few_lesions_are_refused(self):
        sampling = Sampling(48, 32, lesions=0.05, crops=0.55, mined=0.2)
        said = describe(sampling, self.entries("chest"), "first")
        self.assertIn("'first': a batch of 48 patches is 29 lesions of chests, 9 false positives", said)
        with self.assertRaisesRegex(InputError, "less than a third would hold a lesion"):
            describe(Sampling(48, 32, lesions=0.3), self.entries("chest"), "first")
        self.assertIn("29 synthetic lesions", describe(sampling, self.entries("background"), "first"))


class LesionsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cache = TinyCache(Path(cls.enterClassContext(tempfile.TemporaryDirectory()))).add_usual()

    def test_lesions_grow_in_lung_alone(self):
        case = load_case(self.cache.folder, "chest1")
        air = aerated(case.ct.hu, case.lungs, case.ct.spacing_ijk_mm[::-1])
        self.assertFalse(air[:, 8:-8, :14].any())
        self.assertGreater(air[:, :, 26:].mean(), 0.99)

    def test_the_nodule_is_taken_out_of_an_end_slice(self):
        case = load_case(self.cache.folder, "crop2")
        k = len(case.ct.hu) // 2
        clean = without_lesion(case.ct.hu[k], case.target[k], np.random.default_rng(0))
        self.assertLess(clean.max(), -600)
        far = np.ones(clean.shape, bool)
        far[20:44, 20:44] = False
        np.testing.assert_array_equal(clean[far], case.ct.hu[k][far])


class SyntheticTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rng = np.random.default_rng(1)
        heights_mm = (np.arange(25) - 12) * 2.0
        cls.lesions = [synthetic_lesion(heights_mm, 2.0, 1.0, 100, rng) for _ in range(60)]

    def test_sizes_and_densities_are_those_of_lesions(self):
        for share, hu in self.lesions:
            self.assertEqual(share.shape, hu.shape)
            self.assertTrue(share.min() >= 0 and share.max() <= 1)
            inside = share >= 0.5
            self.assertTrue(inside[12].any(), "the slice at height 0 does not cut it")
            self.assertTrue(-800 < hu[inside].mean() < 200)
        diameters_mm = [np.cbrt(6 * (share >= 0.5).sum() * 2.0 / np.pi) for share, _ in self.lesions]
        self.assertTrue(2 < min(diameters_mm) < 6 and max(diameters_mm) > 20)
        kinds = [hu[share >= 0.5].mean() > -300 for share, hu in self.lesions]
        self.assertTrue(0.4 < np.mean(kinds) < 0.95)

    def test_the_share_sums_to_the_volume_of_the_outline(self):
        # Partial volume: half filled voxels count half, so the sum of shares is what the outline encloses.
        for share, _ in self.lesions:
            if share[0].any() or share[-1].any() or share[:, 0].any():
                continue
            self.assertAlmostEqual(float(share.sum() / max(1, (share >= 0.5).sum())), 1.0, delta=0.25)

    def test_a_blend_mixes_by_share_and_never_darkens(self):
        hu = np.array([-850.0, -850.0, 40.0])
        mixed = blend(hu, np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.0, 0.0]))
        np.testing.assert_allclose(mixed, [-850.0, -425.0, 40.0])


if __name__ == "__main__":
    unittest.main()
