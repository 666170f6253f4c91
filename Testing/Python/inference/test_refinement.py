"""The refinement: candidates, cut-outs, outlines put together again, scores, and bundles with two networks."""

import dataclasses
import hashlib
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from helpers.known_refinement import SPEC, expected_outline, hu_of_outline, known_second_network, two_look_model
from helpers.threshold_model import CARD, THRESHOLD_HU, expected_probability, threshold_network
from nlstseg_training.export.bundle import write_bundle
from NLSTSegLib.errors import ModelError
from NLSTSegLib.inference.candidates import (
    LARGEST_CUT_KJI,
    SMALLEST_CUT_KJI,
    Candidate,
    cut_out,
    cut_size,
    find_candidates,
    slice_step,
)
from NLSTSegLib.inference.devices import choose_device
from NLSTSegLib.inference.low_resolution import SURE_FROM_MM3
from NLSTSegLib.inference.predict import predict_first
from NLSTSegLib.inference.refinement import RIM_PX, SMOOTH_FROM_MM3, refine, score_candidates
from NLSTSegLib.lesions.find import find_lesions
from NLSTSegLib.models.bundle import CARD_FILE, SECOND_PREFIX, WEIGHTS_FILE, Model, find_model, load_model
from NLSTSegLib.networks.network import fold_batch_norm
from NLSTSegLib.networks.refinement import SIDE_MULTIPLE_KJI, RefinementConfig, RefinementNet
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume.ct import CtVolume

AIR_HU, SHAPE_HU, DIM_HU = -850, 0, -450
"""Lung; what both networks mark; what the second alone would."""

SPACINGS_K_MM = {2.5: 1, 1.25: 1, 0.625: 2, 0.45: 3}
"""And how many slices further the next slice of a cut-out is."""

DEPTH = 12
"""Slices of the shape."""


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def cap(logit: float) -> int:
    """The highest probability (of 255) of a candidate with this logit, for :data:`SPEC`."""
    return round(255 * sigmoid(logit))


def add_shape(hu: np.ndarray, start_kji: tuple[int, int, int], value: int) -> np.ndarray:
    """bool: where it is. Every slice has another height or width, and no slice, row or column is symmetric."""
    k, j, i = start_kji
    mask = np.zeros(hu.shape, bool)
    for n in range(DEPTH):
        mask[k + n, j : j + 4 + n % 5, i : i + 4 + n * 3 % 7] = True
    mask[k, j + 3, i + 3] = False
    hu[mask] = value
    return mask


def volume_of(hu: np.ndarray, spacing_k_mm: float = 2.5) -> CtVolume:
    return CtVolume(hu, (0.7, 0.7, spacing_k_mm))


def air(shape: tuple[int, int, int] = (60, 80, 80)) -> np.ndarray:
    return np.full(shape, AIR_HU, np.int16)


class GrainNetwork(nn.Module):
    """The known outline; a logit of 3 where the middle of the cut-out is grainy, and of 0.25 where it is even."""

    def __init__(self) -> None:
        super().__init__()
        self.known = known_second_network(0.0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        middle = x[:, 0, *(slice(side // 2 - 2, side // 2 + 2) for side in x.shape[2:])]
        return self.known(x)[0], torch.where(middle.flatten(1).std(dim=1) > 0.02, 3.0, 0.25)


class RefinementTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)


class CandidatesTest(unittest.TestCase):
    def test_each_26_connected_component_above_the_threshold_is_one(self):
        probability = np.zeros((6, 20, 20), np.uint8)
        for n in range(4):
            probability[n, 3 + n, 5 + n] = 200
        probability[4, 15:18, 2:4] = 103
        # 102 / 255 is the threshold itself.
        probability[1, 15:18, 15:18] = 102
        one, other = find_candidates(probability, 0.4)
        self.assertEqual(one.box, (slice(0, 4), slice(3, 7), slice(5, 9)))
        np.testing.assert_array_equal(one.mask, probability[one.box] == 200)
        self.assertEqual(other.box, (slice(4, 5), slice(15, 18), slice(2, 4)))
        self.assertTrue(other.mask.all())

    def test_the_mask_of_a_component_is_without_another_one_in_its_box(self):
        probability = np.zeros((3, 20, 20), np.uint8)
        probability[0, 2:12, 2] = probability[0, 12, 2:12] = 200
        probability[0, 4:7, 6:9] = 200
        large, small = find_candidates(probability, 0.5)
        self.assertEqual((large.mask.sum(), small.mask.sum()), (20, 9))

    def test_its_centre_is_that_of_the_surest_voxels_wherever_a_vessel_leads(self):
        probability = np.zeros((9, 40, 60), np.uint8)
        probability[3:6, 9:12, 9:12] = 250
        probability[3:6, 10, 12:55] = 190
        (candidate,) = find_candidates(probability, 0.4)
        self.assertEqual(candidate.box[2], slice(9, 55))
        self.assertEqual(candidate.centre_kji, (4, 10, 10))
        # As sure as that, it counts.
        probability[probability == 190] = 201
        (candidate,) = find_candidates(probability, 0.4)
        self.assertGreater(candidate.centre_kji[2], 20)

    def test_the_surest_voxels_are_those_of_the_component_itself(self):
        probability = np.zeros((3, 30, 30), np.uint8)
        probability[1, 2:22, 2] = probability[1, 21, 2:22] = 120
        probability[1, 5:8, 15:18] = 255
        centres = [candidate.centre_kji for candidate in find_candidates(probability, 0.3)]
        self.assertIn((1, 6, 16), centres)
        self.assertEqual(len(centres), 2)
        self.assertGreater(min(j for _, j, _ in set(centres) - {(1, 6, 16)}), 10)

    def test_a_component_with_next_to_nothing_in_the_field_is_left_out_and_one_with_a_share_is_whole(self):
        probability = np.zeros((3, 20, 20), np.uint8)
        probability[1, 2:6, 2:6] = probability[1, 10:14, 10:14] = 200
        lung_mask = np.zeros(probability.shape, bool)
        lung_mask[1, 13, 13] = True
        # A sixteenth of the one, nothing of the other.
        self.assertEqual(find_candidates(probability, 0.5, lung_mask), [])
        lung_mask[1, 13, 12] = True
        (candidate,) = find_candidates(probability, 0.5, lung_mask)
        self.assertEqual(candidate.box, (slice(1, 2), slice(10, 14), slice(10, 14)))
        self.assertTrue(candidate.mask.all())
        # In its box, but not on its voxels.
        probability[1, 11:, 11:] = 0
        lung_mask[...] = False
        lung_mask[1, 13, 13] = True
        self.assertEqual(find_candidates(probability, 0.5, lung_mask), [])

    def test_two_voxels_are_none_and_three_are_one(self):
        probability = np.zeros((3, 20, 20), np.uint8)
        probability[1, 5, 5:7] = 255
        self.assertEqual(find_candidates(probability, 0.5), [])
        probability[1, 5, 7] = 255
        self.assertEqual(len(find_candidates(probability, 0.5)), 1)
        self.assertEqual(find_candidates(np.zeros_like(probability), 0.5), [])


class CutSizeTest(unittest.TestCase):
    def size(self, k: int, j: int, i: int, step: int = 1) -> tuple[int, int, int]:
        return cut_size((slice(5, 5 + k), slice(7, 7 + j), slice(9, 9 + i)), step)

    def test_slices_are_shown_about_as_far_apart_whatever_their_thickness(self):
        for spacing_k_mm, step in {**SPACINGS_K_MM, 5.0: 1, 0.25: 5}.items():
            self.assertEqual(slice_step(spacing_k_mm), step)

    def test_a_small_candidate_has_the_smallest_and_a_huge_one_the_largest(self):
        self.assertEqual(self.size(1, 1, 1), SMALLEST_CUT_KJI)
        self.assertEqual(self.size(8, 24, 24), SMALLEST_CUT_KJI)
        self.assertEqual(self.size(300, 300, 300), LARGEST_CUT_KJI)

    def test_sides_grow_with_the_candidate_each_on_its_own(self):
        self.assertEqual(self.size(9, 24, 24), (24, 48, 48))
        self.assertEqual(self.size(10, 40, 60), (24, 64, 96))
        self.assertEqual(self.size(1, 25, 1), (16, 64, 48))

    def test_of_thin_slices_as_many_are_counted_as_are_shown(self):
        self.assertEqual(self.size(16, 30, 30, step=2), (16, 64, 64))
        self.assertEqual(self.size(17, 30, 30, step=2), (24, 64, 64))
        self.assertEqual(self.size(25, 30, 30, step=3), (24, 64, 64))

    def test_sides_are_what_the_network_can_halve_and_hold_the_candidate_with_what_is_around_it(self):
        for n in range(1, 250, 7):
            size = self.size(n, n + 1, n + 2)
            self.assertFalse(any(side % multiple for side, multiple in zip(size, SIDE_MULTIPLE_KJI, strict=True)), size)
            for side, own, around, most in zip(size, (n, n + 1, n + 2), (8, 24, 24), LARGEST_CUT_KJI, strict=True):
                self.assertGreaterEqual(side, min(most, own + around))


class CutOutTest(unittest.TestCase):
    ARRAY = np.arange(1, 1 + 20 * 14 * 9, dtype=np.int16).reshape(20, 14, 9)

    def test_values_are_those_of_the_array_and_nothing_beyond_its_ends(self):
        beyond = 50
        padded = np.pad(self.ARRAY, beyond)
        for centre in ((10, 7, 4), (0, 0, 0), (19, 13, 8), (1, 12, 4)):
            for size in ((8, 6, 4), (3, 5, 7), (16, 16, 16)):
                for step in (1, 2, 3):
                    with self.subTest(centre=centre, size=size, step=step):
                        cut = cut_out(self.ARRAY, centre, size, step)
                        where = [
                            slice(beyond + c - n // 2 * s, beyond + c + (n - n // 2) * s, s)
                            for c, n, s in zip(centre, size, (step, 1, 1), strict=True)
                        ]
                        np.testing.assert_array_equal(cut.values, padded[tuple(where)])
                        np.testing.assert_array_equal(cut.inside_volume, cut.values > 0)
                        self.assertEqual(cut.values.dtype, np.int16)

    def test_axes_are_the_indices_of_its_voxels(self):
        cut = cut_out(self.ARRAY, (2, 12, 4), (8, 6, 4), 3)
        self.assertEqual(cut.axes[0].tolist(), [-10, -7, -4, -1, 2, 5, 8, 11])
        self.assertEqual([axis.tolist() for axis in cut.axes[1:]], [[9, 10, 11, 12, 13, 14], [2, 3, 4, 5]])
        for k, j, i in np.argwhere(cut.inside_volume):
            at = cut.axes[0][k], cut.axes[1][j], cut.axes[2][i]
            self.assertEqual(cut.values[k, j, i], self.ARRAY[at])


class PatternNetwork(nn.Module):
    """Its outline depends on the place in the cut-out alone, and its score on whether there are voxels in the first row."""

    def __init__(self, pattern: np.ndarray, logit: float):
        super().__init__()
        self.pattern, self.logit = torch.from_numpy(pattern), logit

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outline = self.pattern.expand(len(x), 1, *self.pattern.shape)
        return outline, self.logit + 10 * (1 - x[:, 1, :, 0].amin(dim=(1, 2)))


class ScoreTest(RefinementTest):
    def scored(self, hu: np.ndarray, spacing_k_mm: float, candidates: list[Candidate], logit: float = 1.5):
        network = known_second_network(logit)
        return list(score_candidates(network, SPEC.window_hu, volume_of(hu, spacing_k_mm), candidates))

    def test_every_voxel_of_the_outline_is_in_its_place(self):
        hu = np.random.default_rng(1).integers(-650, -550, (60, 80, 80), dtype=np.int16)
        mask = np.random.default_rng(2).random((3, 4, 5)) < 0.6
        for spacing_k_mm, step in SPACINGS_K_MM.items():
            for centre in ((30, 40, 40), (1, 2, 3), (58, 78, 77)):
                with self.subTest(spacing_k_mm=spacing_k_mm, centre=centre):
                    box = tuple(slice(c - 1, c - 1 + n) for c, n in zip(centre, (2, 3, 3), strict=True))
                    own = mask[:2, :3, :3]
                    ((_, look),) = self.scored(hu, spacing_k_mm, [Candidate(box, own, centre)])
                    around = [
                        slice(max(0, c - half), min(most, c + half))
                        for c, half, most in zip(centre, (8 * step, 24, 24), hu.shape, strict=True)
                    ]
                    self.assertEqual(list(look.box), around)
                    np.testing.assert_allclose(look.outline, expected_outline(hu[look.box]), atol=2e-5)
                    marked = np.zeros(hu.shape, bool)
                    marked[box] = own
                    np.testing.assert_array_equal(look.own, marked[look.box])
                    self.assertEqual(look.logit, 1.5)

    def test_each_of_many_candidates_of_several_sizes_is_judged_once(self):
        hu = np.random.default_rng(3).integers(-650, -550, (20, 120, 120), dtype=np.int16)
        corners = [(k, j, i) for k in (3, 12) for j in (8, 50, 95) for i in (10, 60)]
        widths = [3 if n % 5 else 30 for n in range(len(corners))]
        candidates = []
        for (k, j, i), width in zip(corners, widths, strict=True):
            j, i = min(j, 120 - width), min(i, 120 - width)
            box = (slice(k, k + 1), slice(j, j + width), slice(i, i + width))
            candidates.append(Candidate(box, np.ones((1, width, width), bool), (k, j + width // 2, i + width // 2)))
        for spacing_k_mm in (2.5, 0.625):
            scored = self.scored(hu, spacing_k_mm, candidates)
            self.assertEqual({id(candidate) for candidate, _ in scored}, {id(candidate) for candidate in candidates})
            self.assertEqual(len(scored), len(candidates))
            for candidate, look in scored:
                np.testing.assert_allclose(look.outline, expected_outline(hu[look.box]), atol=2e-5)
                self.assertEqual(look.own.sum(), candidate.mask.sum())
                self.assertTrue(look.own[tuple(c - s.start for c, s in zip(candidate.centre_kji, look.box, strict=True))])

    def test_a_candidate_larger_than_the_largest_cut_out_is_judged_by_its_middle(self):
        hu = air((4, 250, 250))
        hu[1:3, 5:245, 5:245] = SHAPE_HU
        candidate = Candidate((slice(1, 3), slice(5, 245), slice(5, 245)), np.ones((2, 240, 240), bool), (2, 125, 125))
        ((_, look),) = self.scored(hu, 2.5, [candidate])
        self.assertEqual(look.box, (slice(0, 4), slice(77, 173), slice(77, 173)))
        np.testing.assert_array_equal(look.own, hu[look.box] == SHAPE_HU)

    def test_what_may_be_a_lesion_is_seen_mirrored_and_moved_and_anything_else_once(self):
        k, j, i = np.indices((16, 48, 48)).astype(np.float32) / 48
        pattern = j * j - 2 * i * i * i + k * j
        candidate = Candidate((slice(29, 31),) * 3, np.ones((2, 2, 2), bool), (30, 30, 30))

        def seen(logit: float) -> np.ndarray:
            network = PatternNetwork(pattern, logit)
            ((_, look),) = score_candidates(network, SPEC.window_hu, volume_of(air()), [candidate])
            self.assertEqual(look.logit, logit)
            return np.log(look.outline / (1 - look.outline))

        np.testing.assert_allclose(seen(-2.5), pattern, atol=1e-5)
        slices_rows, slices_columns, in_plane = (np.flip(pattern, axes) for axes in ((0, 1), (0, 2), (1, 2)))
        expected = np.mean([pattern, slices_rows, slices_columns, in_plane], axis=0)
        # Of the cut-out moved by four pixels the last four are not in it.
        moved = slices_rows[:, 4:, 4:] + slices_columns[:, 4:, 4:]
        expected[:, :44, :44] = (4 * expected[:, :44, :44] + moved) / 6
        np.testing.assert_allclose(seen(-1.5), expected, atol=1e-5)


class LookAgainTest(RefinementTest):
    LOGIT = 0.75

    def look(self, hu, marked, *, spacing_k_mm=2.5, logit=LOGIT, threshold=0.5, spec=SPEC, lung_mask=None, progress=None):
        """What the second network makes of the ``marked`` voxels, which the first one is sure of."""
        probability = np.where(marked, 240, 10).astype(np.uint8)
        ct = volume_of(hu, spacing_k_mm)
        return refine(known_second_network(logit), spec, ct, probability, lung_mask, threshold=threshold, progress=progress)

    def part_of(self, mask: np.ndarray) -> np.ndarray:
        """Three voxels' width of a few slices above its middle."""
        k, j, i = np.argwhere(mask).min(axis=0)
        part = np.zeros_like(mask)
        part[k + 5 : k + 8, j : j + 3, i : i + 3] = True
        self.assertTrue(mask[part].all())
        return part

    def test_of_too_many_candidates_the_surest_are_looked_at_and_the_others_are_told(self):
        probability = np.zeros((8, 40, 200), np.uint8)
        for n, sure in enumerate((150, 250, 200, 250)):
            probability[3:5, 18:22, 30 + 40 * n : 34 + 40 * n] = sure
        probability[3:5, 18:24, 150:154] = 250
        seen, told = [], []
        with (
            mock.patch("NLSTSegLib.inference.refinement.MOST_CANDIDATES", 2),
            mock.patch("NLSTSegLib.inference.refinement.score_candidates", side_effect=lambda *a, **k: seen.extend(a[3]) or ()),
        ):
            ct, network = volume_of(air(probability.shape)), known_second_network(self.LOGIT)
            refine(network, SPEC, ct, probability, threshold=0.5, left_out=told.append)
        # Of equally sure ones the larger comes first.
        self.assertEqual([each.centre_kji[2] // 40 for each in seen], [3, 1])
        self.assertEqual(told, [2])

    def test_a_shape_marked_in_part_gets_exactly_its_own_outline(self):
        for spacing_k_mm in SPACINGS_K_MM:
            for start in ((24, 40, 38), (0, 0, 0), (60 - DEPTH, 80 - 8, 80 - 10)):
                with self.subTest(spacing_k_mm=spacing_k_mm, start=start):
                    hu = air()
                    mask = add_shape(hu, start, SHAPE_HU)
                    result = self.look(hu, self.part_of(mask), spacing_k_mm=spacing_k_mm)
                    np.testing.assert_array_equal(result, np.where(mask, cap(self.LOGIT), 0))

    def test_a_neighbour_in_the_same_cut_out_that_nothing_marked_stays_out(self):
        hu = air()
        mask = add_shape(hu, (24, 40, 38), SHAPE_HU)
        # Two voxels beside it, nearer than the rim around its outline reaches; and farther away.
        hu[24:36, 40:48, 34:36] = SHAPE_HU
        hu[24:30, 55:58, 50:54] = SHAPE_HU
        self.assertGreater(RIM_PX, 2)
        result = self.look(hu, self.part_of(mask))
        np.testing.assert_array_equal(result > 0, mask)

    def test_two_marks_on_one_lesion_give_one_lesion_and_each_of_two_gets_its_own(self):
        hu = air()
        mask = add_shape(hu, (24, 40, 38), SHAPE_HU)
        # Each is in the cut-out of the other.
        apart = add_shape(hu, (24, 55, 20), SHAPE_HU)
        marked = self.part_of(mask) | self.part_of(apart)
        marked[34, 40:43, 38:41] = True
        result = self.look(hu, marked)
        np.testing.assert_array_equal(result, np.where(mask | apart, cap(self.LOGIT), 0))
        self.assertEqual(len(find_lesions(result, volume_of(hu), threshold=0.5, min_volume_mm3=0)), 2)

    def test_the_score_is_the_cap_and_a_threshold_above_it_drops_the_lesion(self):
        hu = air()
        marked = self.part_of(add_shape(hu, (24, 40, 38), SHAPE_HU))
        for logit, slope, shift in ((-2.0, 1.0, 0.0), (0.25, 1.0, 0.0), (3.0, 1.0, 0.0), (0.5, 2.0, -1.5), (-1.0, 0.5, 1.0)):
            with self.subTest(logit=logit, slope=slope, shift=shift):
                spec = dataclasses.replace(SPEC, score_slope=slope, score_shift=shift)
                result = self.look(hu, marked, logit=logit, spec=spec)
                highest = round(255 * sigmoid(slope * logit + shift))
                self.assertEqual(result.max(), highest)
                lower, higher = (highest - 1) / 255, highest / 255
                (lesion,) = find_lesions(result, volume_of(hu), threshold=lower, min_volume_mm3=0)
                self.assertAlmostEqual(lesion.score, highest / 255)
                self.assertEqual(find_lesions(result, volume_of(hu), threshold=higher, min_volume_mm3=0), [])

    def test_a_mass_that_is_rather_none_is_left_out_and_a_nodule_is_not(self):
        for half, is_mass in ((5, False), (16, True)):
            hu = air()
            mask = np.zeros(hu.shape, bool)
            mask[20:40, 40 - half : 40 + half, 40 - half : 40 + half] = True
            hu[mask] = SHAPE_HU
            self.assertEqual(np.count_nonzero(mask) * volume_of(hu).voxel_volume_mm3 >= SURE_FROM_MM3, is_mass)
            for logit, kept in ((-0.5, not is_mass), (0.5, True)):
                with self.subTest(half=half, logit=logit):
                    result = self.look(hu, mask, logit=logit, threshold=0.2)
                    self.assertEqual(bool(result.any()), kept)

    def test_what_is_large_has_to_look_like_a_lesion_without_its_grain_too(self):
        for half, logit in ((2, 3.0), (4, 0.25)):
            hu = air()
            mask = np.zeros(hu.shape, bool)
            mask[20:40, 40 - half : 40 + half, 40 - half : 40 + half] = True
            hu[mask] = (SHAPE_HU + 40 * (-1) ** np.indices(hu.shape).sum(axis=0))[mask]
            ct, probability = volume_of(hu), np.where(mask, 240, 10).astype(np.uint8)
            with self.subTest(half=half):
                self.assertEqual(np.count_nonzero(mask) * ct.voxel_volume_mm3 >= SMOOTH_FROM_MM3, logit < 3)
                result = refine(GrainNetwork(), SPEC, ct, probability, threshold=0.5)
                np.testing.assert_array_equal(result, np.where(mask, cap(logit), 0))

    def test_the_outline_s_threshold_becomes_that_of_the_card_and_a_rim_is_kept(self):
        hu = air()
        shares = (0.98, 0.8, 0.45, 0.24, 0.1, 0.05, 0.15, 0.2)
        hu[28:33, 38:43, 30:38] = SHAPE_HU
        hu[28:33, 38:43, 38:46] = [round(hu_of_outline(share)) for share in shares]
        marked = np.zeros(hu.shape, bool)
        marked[29:32, 39:42, 31:35] = True
        for low, threshold in ((0.3, 0.6), (0.3, 0.15), (0.5, 0.5)):
            with self.subTest(low=low, threshold=threshold):
                spec = dataclasses.replace(SPEC, outline_threshold=low)
                result = self.look(hu, marked, logit=12.0, spec=spec, threshold=threshold)
                share = expected_outline(hu)
                np.testing.assert_array_equal(result / 255 > threshold, share > low)
                row = share[30, 40, 38:46]
                inner = int((row > low).sum()) + RIM_PX
                expected = np.interp(row, (0, low, 1), (0, threshold, 1))
                np.testing.assert_allclose(result[30, 40, 38 : 38 + inner] / 255, expected[:inner], atol=0.6 / 255)
                self.assertFalse(result[30, 40, 38 + inner :].any())

    def test_nothing_is_left_where_the_second_network_sees_nothing(self):
        hu = air()
        marked = self.part_of(add_shape(hu, (24, 40, 38), AIR_HU))
        self.assertFalse(self.look(hu, marked).any())
        # Nor of what it sees only beside the mark.
        add_shape(hu, (24, 50, 50), SHAPE_HU)
        self.assertFalse(self.look(hu, marked).any())

    def test_only_candidates_above_the_threshold_and_in_the_field_are_looked_at(self):
        hu = air()
        marked = self.part_of(add_shape(hu, (24, 40, 38), SHAPE_HU))
        self.assertFalse(self.look(hu, marked, spec=dataclasses.replace(SPEC, candidate_threshold=0.95)).any())
        self.assertFalse(self.look(hu, marked, lung_mask=~marked).any())
        np.testing.assert_array_equal(self.look(hu, marked, lung_mask=marked), self.look(hu, marked))

    def test_without_a_candidate_all_is_zero(self):
        hu = air()
        add_shape(hu, (24, 40, 38), SHAPE_HU)
        result = self.look(hu, np.zeros(hu.shape, bool))
        self.assertEqual((result.dtype, result.shape), (np.uint8, hu.shape))
        self.assertFalse(result.any())

    def test_progress_rises_to_one(self):
        hu = air()
        marked = self.part_of(add_shape(hu, (24, 40, 38), SHAPE_HU)) | self.part_of(add_shape(hu, (10, 60, 20), SHAPE_HU))
        fractions: list[float] = []
        self.look(hu, marked, progress=fractions.append)
        self.assertEqual(fractions, [0.5, 1.0])


class NetworkTest(RefinementTest):
    def setUp(self):
        torch.manual_seed(4)

    def test_folded_it_gives_the_same(self):
        network = RefinementNet(RefinementConfig((4, 6, 8, 10))).double()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.Conv3d):
                    module.weight.mul_(4)
                if isinstance(module, nn.BatchNorm3d):
                    module.running_mean.normal_(0, 0.5)
                    module.running_var.uniform_(0.3, 3)
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_(0, 0.5)
        x = torch.randn(2, 2, 16, 48, 32, dtype=torch.float64)
        with torch.inference_mode():
            before = network.eval()(x)
            after = fold_batch_norm(network)(x)
        self.assertFalse(any(isinstance(module, nn.BatchNorm3d) for module in network.modules()))
        self.assertGreater(before[0].std(), 0.1)
        self.assertGreater((before[1][0] - before[1][1]).abs(), 1e-3)
        for one, other in zip(before, after, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)

    def test_outline_has_the_cut_out_s_sides_which_the_network_must_be_able_to_halve(self):
        network = RefinementNet(RefinementConfig((1, 1, 1, 1))).eval()
        with torch.inference_mode():
            for sides in (SIDE_MULTIPLE_KJI, SMALLEST_CUT_KJI, (24, 64, 48)):
                outline, score = network(torch.zeros(3, 2, *sides))
                self.assertEqual((outline.shape, score.shape), ((3, 1, *sides), (3,)))
            for sides in ((18, 48, 48), (16, 44, 48), (16, 48, 42)):
                with self.assertRaises(RuntimeError):
                    network(torch.zeros(1, 2, *sides))

    def test_the_score_looks_at_the_middle(self):
        network = RefinementNet(RefinementConfig((2, 2, 2, 2))).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(0.1)
        size = (32, 96, 96)
        x = torch.ones(1, 2, *size, requires_grad=True)
        network(x)[1].sum().backward()
        weight = x.grad[0].abs().sum(dim=0).numpy()
        middle = [
            float(np.average(np.arange(side), weights=weight.sum(axis=others)))
            for side, others in zip(size, ((1, 2), (0, 2), (0, 1)), strict=True)
        ]
        # Strides leave the deepest layer's cells at every fourth slice and every eighth pixel; two of them share the middle.
        np.testing.assert_allclose(middle, np.array(size) / 2 - (2, 4, 4), atol=0.5)

    def test_the_weights_of_the_usual_one_stay_small(self):
        self.assertLess(sum(parameter.numel() for parameter in RefinementNet().parameters()), 3_000_000)
        self.assertLess(len(save(RefinementNet().state_dict())), 12_000_000)

    def test_widths_that_cannot_be_built_are_refused(self):
        for channels in ((0, 8, 8, 8), (8, 8, 8, 1025), (8, -1, 8, 8)):
            with self.assertRaisesRegex(ValueError, "channels"):
                RefinementConfig(channels)


class BundleTest(RefinementTest):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        torch.manual_seed(5)
        # Weights that no other network has.
        self.second = RefinementNet(RefinementConfig(SPEC.channels)).eval()
        self.card = write_bundle(threshold_network(), dataclasses.replace(CARD, refinement=SPEC), self.folder, self.second)

    def load(self):
        return load_model(find_model(str(self.folder)))

    def change_card(self, **changes: object) -> None:
        path = self.folder / CARD_FILE
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")

    def change_weights(self, change) -> None:
        """Other weights, with a card that states their hash."""
        state = load((self.folder / WEIGHTS_FILE).read_bytes())
        change(state)
        data = save(state)
        (self.folder / WEIGHTS_FILE).write_bytes(data)
        self.change_card(weights_sha256=hashlib.sha256(data).hexdigest())

    def refused(self, *words: object) -> None:
        with self.assertRaises(ModelError) as raised:
            self.load()
        self.assertNotIn("\n", str(raised.exception))
        for word in words:
            self.assertIn(str(word), str(raised.exception))

    def test_both_networks_are_loaded_as_they_were_written(self):
        model = self.load()
        self.assertEqual(model.card, self.card)
        self.assertEqual(model.card.refinement, SPEC)
        self.assertFalse(model.network.training or model.refinement.training)
        for found, written in ((model.refinement, self.second), (model.network, threshold_network())):
            expected = written.state_dict()
            self.assertEqual(list(found.state_dict()), list(expected))
            for name, tensor in found.state_dict().items():
                self.assertTrue(torch.equal(tensor, expected[name]), name)

    def test_a_bundle_without_a_second_network_has_none(self):
        write_bundle(threshold_network(), CARD, self.folder)
        model = self.load()
        self.assertEqual((model.refinement, model.card.refinement), (None, None))

    def test_a_tensor_that_is_missing_extra_or_of_another_shape_is_named(self):
        name = SECOND_PREFIX + "context.3.weight"
        whole = (self.folder / WEIGHTS_FILE).read_bytes()
        for change, *words in (
            (lambda state: state.pop(name), f"{name} is missing"),
            (lambda state: state.update({"second.extra": torch.zeros(1)}), "second.extra is not part of the network"),
            (lambda state: state.update({name: torch.zeros(2, 1, 3, 3, 3)}), name, "shape"),
            (lambda state: state[name].fill_(float("nan")), name, "finite"),
        ):
            with self.subTest(words=words):
                (self.folder / WEIGHTS_FILE).write_bytes(whole)
                self.change_weights(change)
                self.refused(self.folder / WEIGHTS_FILE, *words)

    def test_a_second_network_that_the_card_does_not_know_and_one_that_the_file_lacks_are_refused(self):
        self.change_card(refinement=None)
        self.refused(WEIGHTS_FILE, "second.", "is not part of the network")
        write_bundle(threshold_network(), dataclasses.replace(CARD, refinement=SPEC), self.folder)
        self.refused(WEIGHTS_FILE, "second.", "is missing")

    def test_widths_other_than_those_of_the_weights_are_refused(self):
        self.change_card(refinement=dataclasses.asdict(SPEC) | {"channels": [1, 1, 1, 2]})
        self.refused("second.", "shape")

    def test_values_that_cannot_be_are_refused_and_named(self):
        whole = dataclasses.asdict(SPEC)
        for name, value in (
            ("channels", [1, 1, 1]),
            ("channels", [1, 1, 1, 0]),
            ("channels", [1, 1, 1, 10**9]),
            ("channels", "wide"),
            ("window_hu", [400.0, -1000.0]),
            ("window_hu", [0.0, 0.0]),
            ("window_hu", [0.0, float("inf")]),
            ("candidate_threshold", 0.0),
            ("candidate_threshold", 1.0),
            ("outline_threshold", 1.5),
            ("outline_threshold", "half"),
            ("score_slope", 0.0),
            ("score_slope", -1.0),
            ("score_slope", float("nan")),
            ("score_shift", float("nan")),
            ("score_shift", None),
            ("colour", "red"),
        ):
            with self.subTest(name=name, value=value):
                self.change_card(refinement=whole | {name: value})
                self.refused(name)
        del whole["outline_threshold"]
        self.change_card(refinement=whole)
        self.refused("refinement.outline_threshold")


class PipelineTest(RefinementTest):
    LOGIT = 1.5
    OPTIONS = SegmentOptions(lung_field="none", device="cpu")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        hu = air((24, 96, 96))
        cls.mask = add_shape(hu, (6, 40, 40), DIM_HU)
        # What the first network marks of it, and what neither it nor therefore the second is asked about.
        hu[10:13, 40:43, 40:43] = SHAPE_HU
        add_shape(hu, (6, 60, 60), DIM_HU)
        cls.hu = hu
        cls.ct = volume_of(hu)

    def test_the_shape_is_found_whole_with_its_score(self):
        for spacing_k_mm in SPACINGS_K_MM:
            with self.subTest(spacing_k_mm=spacing_k_mm):
                result = segment(volume_of(self.hu, spacing_k_mm), two_look_model(self.LOGIT), self.OPTIONS)
                np.testing.assert_array_equal(result.labels > 0, self.mask)
                (lesion,) = result.lesions
                self.assertAlmostEqual(lesion.score, cap(self.LOGIT) / 255, places=2)
                self.assertAlmostEqual(result.probability.max(), cap(self.LOGIT), delta=1)

    def test_the_threshold_is_one_of_the_score(self):
        score = cap(self.LOGIT) / 255
        for threshold, found in ((0.05, 1), (score - 0.02, 1), (score + 0.02, 0), (0.97, 0)):
            options = dataclasses.replace(self.OPTIONS, threshold=threshold)
            self.assertEqual(len(segment(self.ct, two_look_model(self.LOGIT), options).lesions), found, threshold)
        self.assertEqual(segment(self.ct, two_look_model(-3.0), self.OPTIONS).lesions, ())

    def test_the_probabilities_are_the_same_whatever_threshold_is_asked_for(self):
        hu = self.hu.copy()
        hu[11, 40:43, 37:40] = round(hu_of_outline(0.8))
        results = [
            segment(volume_of(hu), two_look_model(6.0), dataclasses.replace(self.OPTIONS, threshold=threshold)).probability
            for threshold in (0.1, 0.5, 0.9)
        ]
        self.assertTrue(((results[0] > 20) & (results[0] < 235)).any())
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])

    def test_that_candidates_were_left_out_is_a_warning_of_the_run(self):
        with mock.patch("NLSTSegLib.inference.refinement.MOST_CANDIDATES", 0):
            result = segment(self.ct, two_look_model(self.LOGIT), self.OPTIONS)
        (finding,) = [finding for finding in result.findings if finding.code == "many_candidates"]
        self.assertEqual((finding.severity, result.lesions), ("warning", ()))

    def test_card_and_networks_say_the_same(self):
        model = two_look_model(self.LOGIT)
        for card, second in ((model.card, None), (dataclasses.replace(model.card, refinement=None), model.refinement)):
            with self.assertRaisesRegex(ValueError, "go together"):
                Model(card, model.network, second)

    def test_stages_are_told_in_order_up_to_one(self):
        told: list[tuple[float, str]] = []
        hu = self.hu.copy()
        # A second candidate, since the last one always ends the stage.
        hu[10:13, 10:13, 10:13] = SHAPE_HU
        result = segment(volume_of(hu), two_look_model(self.LOGIT), self.OPTIONS, lambda *each: told.append(each))
        self.assertEqual(len(result.lesions), 2)
        fractions = [fraction for fraction, _ in told]
        self.assertEqual(fractions, sorted(fractions))
        self.assertEqual((fractions[0], told[-1]), (0.0, (1.0, "done")))
        self.assertEqual(list(dict.fromkeys(stage for _, stage in told)), ["check", "lung field", "network", "lesions", "done"])
        self.assertAlmostEqual(max(fraction for fraction, stage in told if stage == "network"), 0.95)
        self.assertEqual(list(result.seconds), ["check", "lung field", "network", "lesions", "measurements"])
        self.assertTrue(result.device_note.startswith("CPU"))

    def test_what_lies_outside_the_field_is_not_looked_at(self):
        for lung_mask, found in ((self.mask, 1), (~self.mask, 0)):
            options = dataclasses.replace(self.OPTIONS, lung_field=lung_mask)
            self.assertEqual(len(segment(self.ct, two_look_model(self.LOGIT), options).lesions), found)

    def test_the_networks_of_the_model_are_left_as_they_are(self):
        model = two_look_model(self.LOGIT)
        segment(self.ct, model, self.OPTIONS)
        for found, expected in ((model.network, threshold_network()), (model.refinement, known_second_network(self.LOGIT))):
            self.assertEqual(list(found.state_dict()), list(expected.state_dict()))
            self.assertEqual({parameter.dtype for parameter in found.parameters()}, {torch.float32})

    def test_first_look_alone_gives_the_first_network_s_probability(self):
        probability, _ = predict_first(choose_device("cpu"), self.ct, two_look_model(self.LOGIT), None, 0.5, lambda _: None)
        np.testing.assert_allclose(probability.astype(int), expected_probability(self.hu), atol=3)
        np.testing.assert_array_equal(probability > 127, self.hu > THRESHOLD_HU)

    def test_a_bundle_with_both_segments_as_the_model_does(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        model = two_look_model(self.LOGIT)
        write_bundle(model.network, model.card, folder, model.refinement)
        found, expected = (segment(self.ct, each, self.OPTIONS) for each in (load_model(find_model(str(folder))), model))
        np.testing.assert_array_equal(found.probability, expected.probability)
        self.assertEqual(len(found.lesions), 1)
