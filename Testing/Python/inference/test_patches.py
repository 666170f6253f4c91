"""A 3D network over overlapping patches: the same answer everywhere, in place, with and without resampling."""

import unittest

import numpy as np
import torch

from NLSTSegLib.errors import ModelError
from NLSTSegLib.inference.patches import patch_corners, predict_patches
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.volume.ct import CtVolume

WINDOW_HU = (-1000.0, 400.0)


class VoxelNetwork(torch.nn.Module):
    """The logit of a voxel is four times its own input value; counts its patches."""

    patches = 0

    def forward(self, x):
        self.patches += 1
        return 4 * x


def spec(patch_kji=(8, 16, 16), **options) -> InputSpec:
    return InputSpec(window_hu=WINDOW_HU, patch_kji=patch_kji, **options)


def noisy_ct(shape_kji=(21, 40, 37), spacing_ijk_mm=(0.7, 0.8, 2.5)) -> CtVolume:
    hu = np.random.default_rng(3).integers(-1000, 400, shape_kji).astype(np.int16)
    return CtVolume(hu, spacing_ijk_mm, (10.0, -20.0, 30.0))


def expected(hu: np.ndarray) -> np.ndarray:
    return np.rint(255 / (1 + np.exp(-4.0 * spec().scale(hu)))).astype(np.uint8)


class PatchesTest(unittest.TestCase):
    def assert_close(self, found, wanted, levels=1):
        self.assertLessEqual(int(np.abs(found.astype(int) - wanted).max()), levels)

    def test_every_voxel_gets_the_networks_answer_whatever_the_size(self):
        for shape in ((21, 40, 37), (8, 16, 16), (5, 9, 60), (1, 1, 1), (30, 16, 17)):
            with self.subTest(shape):
                ct = noisy_ct(shape)
                found = predict_patches(VoxelNetwork(), spec(), ct)
                self.assertEqual((found.shape, found.dtype), (shape, np.uint8))
                self.assert_close(found, expected(ct.hu))

    def test_patches_without_field_are_skipped_and_stay_0(self):
        ct, lung_mask = noisy_ct((60, 40, 40)), np.zeros((60, 40, 40), bool)
        # Two parts with more than a patch of slices between them.
        lung_mask[2:6, 5:12, 6:30] = lung_mask[45:50, 20:30, 8:15] = True
        network = VoxelNetwork()
        found = predict_patches(network, spec(), ct, lung_mask)
        self.assertEqual(network.patches, len(patch_corners(lung_mask.shape, (8, 16, 16), lung_mask)))
        self.assert_close(found[lung_mask], expected(ct.hu)[lung_mask])
        self.assertFalse(found[15:35].any())

    def test_an_empty_field_runs_nothing(self):
        network = VoxelNetwork()
        found = predict_patches(network, spec(), noisy_ct(), np.zeros((21, 40, 37), bool))
        self.assertEqual((network.patches, int(found.max())), (0, 0))

    def test_patches_cover_the_field_and_overlap_by_half_at_least(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            shape, patch = rng.integers(1, 70, 3), tuple(int(side) for side in rng.integers(1, 30, 3))
            low = rng.integers(0, shape)
            high = low + 1 + rng.integers(0, shape - low)
            lung_mask = np.zeros(shape, bool)
            lung_mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
            covered = np.zeros(shape, int)
            corners = patch_corners(tuple(shape), patch, lung_mask)
            for corner in corners:
                covered[tuple(slice(at, at + side) for at, side in zip(corner, patch, strict=True))] += 1
            self.assertTrue((covered[lung_mask] > 0).all())
            for axis, side in enumerate(patch):
                steps = np.diff(sorted({corner[axis] for corner in corners}))
                self.assertTrue((steps <= side / 2 + 0.5).all())

    def test_the_middle_of_a_patch_counts_more_than_its_border(self):
        class Position(torch.nn.Module):
            """Sure in the middle of its patch, and of the contrary at its border."""

            def forward(self, x):
                answer = torch.full_like(x, -20.0)
                answer[..., 4:12] = 20.0
                return answer

        found = predict_patches(Position(), spec((1, 1, 16)), noisy_ct((1, 1, 64)))[0, 0]
        # Where two patches weigh least alike, Gaussians 1.75 and 2.25 widths away; without weights it would be 128.
        self.assertEqual(int(found[4:60].min()), 186)

    def test_one_thick_layer_after_another_gives_what_one_patch_gives(self):
        network = UNet(UNetConfig(3, 1, (2, 3), "none")).eval()
        ct = noisy_ct((16, 16, 16))
        whole = predict_patches(network, spec((16, 16, 16)), ct)
        x = torch.from_numpy(spec().scale(ct.hu))[None, None]
        with torch.inference_mode():
            self.assert_close(whole, np.rint(255 * torch.sigmoid(network(x))[0, 0].numpy()))

    def test_progress_ends_at_1_and_stops_by_raising(self):
        seen = []
        predict_patches(VoxelNetwork(), spec(), noisy_ct(), progress=seen.append)
        self.assertEqual((seen, seen[-1]), (sorted(seen), 1.0))

        def stop(done):
            raise KeyboardInterrupt

        network = VoxelNetwork()
        with self.assertRaises(KeyboardInterrupt):
            predict_patches(network, spec(), noisy_ct(), progress=stop)
        self.assertEqual(network.patches, 1)


class SpacingTest(unittest.TestCase):
    def test_a_ramp_comes_back_in_its_place(self):
        # Linear in each direction, so that linear interpolation there and back changes nothing inside.
        k, j, i = np.indices((14, 30, 26))
        ct = CtVolume((-900 + 20 * k + 12 * j + 9 * i).astype(np.int16), (0.7, 0.8, 2.5), (10.0, -20.0, 30.0))
        network = VoxelNetwork()
        found = predict_patches(network, spec(spacing_kji_mm=(1.25, 0.9, 0.6)), ct)
        self.assertEqual(found.shape, ct.hu.shape)
        self.assertLessEqual(int(np.abs(found.astype(int) - expected(ct.hu)).max()), 2)

    def test_the_network_sees_the_spacing_that_it_was_trained_on(self):
        class Size(VoxelNetwork):
            sizes = ()

            def forward(self, x):
                self.sizes = (*self.sizes, tuple(x.shape[2:]))
                return super().forward(x)

        network, ct = Size(), noisy_ct((10, 20, 20), (1.0, 1.0, 4.0))
        predict_patches(network, spec((37, 10, 10), spacing_kji_mm=(1.0, 2.0, 2.0)), ct)
        # 36 mm and 19 mm between the outermost voxel centres.
        self.assertEqual(set(network.sizes), {(37, 10, 10)})
        self.assertEqual(network.patches, 4)

    def test_the_field_is_brought_along(self):
        ct, lung_mask = noisy_ct((20, 64, 64), (1.0, 1.0, 2.0)), np.zeros((20, 64, 64), bool)
        lung_mask[8:12, 40:50, 4:10] = True
        found = predict_patches(VoxelNetwork(), spec(spacing_kji_mm=(2.0, 2.0, 2.0)), ct, lung_mask)
        self.assertTrue((found[lung_mask] > 0).any())
        self.assertFalse(found[:, :10].any())

    def test_a_grid_that_would_fill_the_memory_is_refused(self):
        ct = CtVolume(np.broadcast_to(np.int16(0), (700, 512, 512)), (0.9, 0.9, 0.9))
        with self.assertRaisesRegex(ModelError, "use a model for this CT"):
            predict_patches(VoxelNetwork(), spec(spacing_kji_mm=(0.2, 0.2, 0.2)), ct)


class SpecTest(unittest.TestCase):
    def test_patches_and_spacings_that_no_computer_holds_are_refused(self):
        for options in (
            {"patch_kji": (0, 8, 8)},
            {"patch_kji": (513, 8, 8)},
            {"patch_kji": (512, 512, 512)},
            {"spacing_kji_mm": (0.0, 1.0, 1.0)},
            {"spacing_kji_mm": (1.0, 1.0, 1000.0)},
        ):
            with self.subTest(**options), self.assertRaises(ValueError):
                InputSpec(window_hu=WINDOW_HU, **options)


if __name__ == "__main__":
    unittest.main()
