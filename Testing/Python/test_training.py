"""The training package: split, patches, a short fit that learns, and its bundle in the library."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.bundle import write_bundle
from nlstseg_training.evaluate import dice, evaluate_nodules
from nlstseg_training.fit import FitOptions, fit, mine
from nlstseg_training.patches import TARGET_OF_VOTES, Mined, PatchBatches, PatchRecipe, aerated, without_lesion
from nlstseg_training.sources import Stack, is_validation, load_nodules
from NLSTSegLib.inference import InputSpec
from NLSTSegLib.models import Architecture, Model, find_model, load_model, published_card
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume import CtVolume
from shared_data import shared_data

SPEC = InputSpec(window_hu=(-1000.0, 400.0), slices=3, slice_step_mm=2.0, margin_px=16)
RECIPE = PatchRecipe(side_px=32, batch=8)


def nodule_stack(name: str, radius_mm: float, seed: int) -> Stack:
    """A bright ball in noisy lung, as a crop of nodule slices only."""
    rng = np.random.default_rng(seed)
    depth = int(radius_mm / 2) * 2 + 1
    k, j, i = np.meshgrid(np.arange(depth) - depth // 2, np.arange(64) - 32, np.arange(64) - 32, indexing="ij")
    ball = np.sqrt((2.0 * k) ** 2 + j**2 + i**2) < radius_mm
    hu = rng.normal(-850, 30, ball.shape) + 900 * ball
    return Stack(name, name, hu.astype(np.int16), ball.astype(np.uint8) * 4, (2.0, 1.0, 1.0))


def lung_stack(seed: int) -> Stack:
    """Lung with a wall on one side, twelve slices."""
    hu = np.random.default_rng(seed).normal(-850, 30, (12, 96, 96))
    hu[:, :, :20] = 40
    lungs = np.ones(hu.shape, bool)
    return Stack(f"lung{seed}", f"lung{seed}", hu.astype(np.int16), np.zeros(hu.shape, np.uint8), (2.0, 1.0, 1.0), lungs)


def batches(**changes) -> PatchBatches:
    values = {"seed": 3, "first": 0, "count": 4} | changes
    nodules = [nodule_stack(f"n{n}", 4 + n, n) for n in range(4)]
    return PatchBatches(nodules, [lung_stack(0), lung_stack(1)], SPEC, values.pop("recipe", RECIPE), **values)


class SplitTest(unittest.TestCase):
    def test_split_is_by_patient_and_seed_alone(self):
        names = [f"LIDC-IDRI-{n:04d}" for n in range(1000)]
        validation = [is_validation(name) for name in names]
        self.assertEqual(validation, [is_validation(name) for name in names])
        self.assertNotEqual(validation, [is_validation(name, seed=1) for name in names])
        self.assertAlmostEqual(np.mean(validation), 0.2, delta=0.04)
        self.assertTrue(is_validation("LIDC-IDRI-0001"))

    def test_no_patient_of_the_real_crops_is_in_both_parts(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        stacks = load_nodules(data)
        parts = [{s.patient for s in stacks if is_validation(s.patient) == part} for part in (True, False)]
        self.assertFalse(parts[0] & parts[1])
        self.assertEqual(len(stacks), 810)
        for stack in stacks[:20]:
            self.assertEqual(stack.hu.shape, stack.votes.shape)
            self.assertEqual(stack.hu.dtype, np.int16)
            self.assertTrue(-1100 < np.percentile(stack.hu, 5) < -300)


class PatchTest(unittest.TestCase):
    def test_a_batch_depends_on_its_number_and_the_seed_only(self):
        first, again = batches()[2], batches(first=2)[0]
        for ours, theirs in zip(first, again, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        self.assertFalse(torch.equal(first[0], batches(seed=4)[2][0]))

    def test_shapes_ranges_and_soft_targets(self):
        x, target = batches()[0]
        self.assertEqual(tuple(x.shape), (8, 3, 32, 32))
        self.assertEqual(tuple(target.shape), (8, 1, 32, 32))
        self.assertGreaterEqual(float(x.min()), -1.0)
        self.assertLessEqual(float(x.max()), 1.0)
        self.assertGreater(float(target.max()), 0.9)
        self.assertTrue((TARGET_OF_VOTES[2:] > 0.5).all())
        self.assertTrue((TARGET_OF_VOTES[:2] < 0.5).all())

    def test_where_the_target_says_lesion_the_image_is_bright(self):
        recipe = PatchRecipe(side_px=32, batch=32, crops=0.5, transplants=0.5, noise_hu=0, shift_hu=0, contrast=0, blur_share=0)
        x, target = batches(recipe=recipe)[0]
        middle = x[:, 1:2]
        self.assertGreater(float(middle[target > 0.95].mean()), 0.2)
        self.assertLess(float(middle[target < 0.05].mean()), -0.3)

    def test_transplants_stay_out_of_the_wall(self):
        stack = lung_stack(0)
        air = aerated(stack)
        self.assertFalse(air[:, 8:-8, :14].any())
        self.assertGreater(air[:, :, 26:].mean(), 0.99)

    def test_mined_places_come_back_in_the_batch(self):
        recipe = PatchRecipe(side_px=32, batch=4, crops=0, transplants=0, mined=1.0)
        made = batches(recipe=recipe, mined=[Mined(0, (5, 40, 40))])[0]
        self.assertEqual(float(made[1].max()), 0.0)

    def test_the_nodule_is_taken_out_of_an_end_slice(self):
        stack = nodule_stack("n", 6, 0)
        k = len(stack.hu) // 2
        clean = without_lesion(stack.hu[k], stack.votes[k], np.random.default_rng(0))
        self.assertLess(clean.max(), -600)
        far = np.ones(clean.shape, bool)
        far[20:44, 20:44] = False
        np.testing.assert_array_equal(clean[far], stack.hu[k][far])


class EvaluationTest(unittest.TestCase):
    def test_dice_of_known_overlaps(self):
        a, b = np.zeros(10, bool), np.zeros(10, bool)
        self.assertTrue(np.isnan(dice(a, b)))
        a[:4] = True
        self.assertEqual(dice(a, b), 0.0)
        b[2:6] = True
        self.assertEqual(dice(a, b), 0.5)
        self.assertEqual(dice(a, a), 1.0)


class FitTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.config = UNetConfig(input_slices=3, channels=(8, 16))
        cls.nodules = [nodule_stack(f"n{n}", 4 + n, n) for n in range(4)]
        cls.lungs = [lung_stack(0), lung_stack(1)]
        options = FitOptions(epochs=3, epoch_steps=30, learning_rate=1e-2, mine_every_epochs=2, average_decay=0.8)
        cls.network = fit(
            cls.config, SPEC, cls.nodules, cls.lungs, cls.folder, options=options, recipe=RECIPE, accelerator="cpu"
        ).float()

    def test_the_loss_falls_and_an_unseen_ball_is_found(self):
        with open(next((self.folder / "log").glob("*/metrics.csv"))) as file:
            header, *rows = [line.strip().split(",") for line in file]
        column = header.index("dice_loss")
        losses = [float(row[column]) for row in rows if row[column]]
        self.assertEqual(len(losses), 3)
        self.assertLess(losses[-1], 0.8 * losses[0])
        card = published_card(Path("trained.pth"))
        model = Model(card, self.network)
        object.__setattr__(card, "input", SPEC)
        result = evaluate_nodules(model, [nodule_stack("unseen", 6, 99)])[0]
        self.assertGreater(result.matched_dice, 0.6)

    def test_the_bundle_gives_the_voxels_of_the_trained_network(self):
        import dataclasses

        card = dataclasses.replace(
            published_card(Path("trained.pth")),
            name="trained",
            architecture=Architecture("unet", 2, self.config.channels, "batch", True),
            input=SPEC,
        )
        write_bundle(self.network, card, self.folder / "trained")
        bundled = load_model(find_model(str(self.folder / "trained")))
        stack = nodule_stack("unseen", 6, 98)
        ct = CtVolume(stack.hu, stack.spacing_kji_mm[::-1])
        options = SegmentOptions(lung_field="none", device="cpu")
        ours = segment(ct, Model(card, self.network), options).probability
        theirs = segment(ct, bundled, options).probability
        np.testing.assert_array_equal(ours, theirs)

    def test_mining_reports_only_what_is_no_lesion(self):
        network = UNet(self.config)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        # A network that marks everything: all of the lung is a false positive, all of a lesion is none.
        network.head.bias.data.fill_(5.0)
        lung = lung_stack(5)
        self.assertTrue(mine(network, SPEC, [lung]))
        lesion = Stack("l", "l", lung.hu, np.full_like(lung.votes, 4), lung.spacing_kji_mm, lung.lungs)
        self.assertEqual(mine(network, SPEC, [lesion]), [])


if __name__ == "__main__":
    unittest.main()
