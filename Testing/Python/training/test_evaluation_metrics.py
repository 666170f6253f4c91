"""Metrics of the evaluation against shapes whose answer is known, and against other implementations."""

import itertools
import math
import unittest

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_iou
from monai.metrics.meandice import compute_dice

from nlstseg_training.evaluation.metrics.bootstrap import draw_patients, estimate, estimate_ratio
from nlstseg_training.evaluation.metrics.matching import Detection, match_lenient, match_strict, shared_voxels, union_of_matches
from nlstseg_training.evaluation.metrics.overlap import VoxelCounts, count_voxels
from nlstseg_training.evaluation.metrics.published_protocol import PublishedProtocol, SliceOverlap, slices_with_tumour
from nlstseg_training.evaluation.metrics.surfaces import surface_distances
from nlstseg_training.evaluation.metrics.volumes import bland_altman, percent_differences, quartiles, volume_errors

CT_SPACING_MM = (2.0, 0.664, 0.664)
"""The median of NLSTseg."""


def sphere(radius_mm: float, spacing_kji_mm=CT_SPACING_MM, *, centre_mm=(0.0, 0.0, 0.0), half_mm: float = 20.0) -> np.ndarray:
    axes = [np.arange(-round(half_mm / step), round(half_mm / step) + 1) * step for step in spacing_kji_mm]
    grid = np.meshgrid(*axes, indexing="ij")
    return sum((axis - at) ** 2 for axis, at in zip(grid, centre_mm, strict=True)) < radius_mm**2


def surface_dice(reference, predicted, spacing_kji_mm, tolerances_mm=(1.0, 2.0)) -> tuple[float, ...]:
    return surface_distances(reference, predicted, spacing_kji_mm, tolerances_mm).nsd


def belt(radius: float, shift: float, tolerance: float) -> float:
    """Share of a sphere that lies within ``tolerance`` of another one of its size, shifted.

    At the angle t to the shift, a point of one sphere lies |sqrt(R^2 + d^2 - 2 R d cos t) - R| from the other; on a sphere
    cos t is evenly distributed.
    """
    ends = [(radius**2 + shift**2 - (radius + sign * tolerance) ** 2) / (2 * radius * shift) for sign in (1, -1)]
    return (min(1, ends[1]) - max(-1, ends[0])) / 2


def as_batch(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


def surface_of(mask: np.ndarray, spacing_kji_mm: tuple[float, float, float]):
    """The mask's surface as VTK's triangles."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    padded = np.pad(mask, 1).astype(np.float32)
    image = vtk.vtkImageData()
    image.SetDimensions(padded.shape[::-1])
    image.SetSpacing(spacing_kji_mm[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel(), deep=True))
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, 0.5)
    contour.Update()
    return contour.GetOutput()


def area_within(surface, other, tolerance_mm: float) -> tuple[float, float]:
    """Area of ``surface`` whose triangles' centres lie within the tolerance of ``other``, and all of it."""
    import vtk

    distance = vtk.vtkImplicitPolyDataDistance()
    distance.SetInput(other)
    close = total = 0.0
    for n in range(surface.GetNumberOfCells()):
        points = surface.GetCell(n).GetPoints()
        corners = [points.GetPoint(corner) for corner in range(3)]
        area = vtk.vtkTriangle.TriangleArea(*corners)
        centre = np.mean(corners, axis=0)
        total += area
        close += area * (abs(distance.EvaluateFunction(centre)) <= tolerance_mm)
    return close, total


class OverlapTest(unittest.TestCase):
    def test_concentric_spheres_have_the_dice_of_their_volumes(self):
        for spacing in (CT_SPACING_MM, (0.7, 0.7, 0.7), (2.5, 0.5, 0.8)):
            counts = count_voxels(sphere(15, spacing), sphere(12, spacing))
            self.assertAlmostEqual(counts.dice, 2 * 12**3 / (12**3 + 15**3), delta=0.01)
            self.assertAlmostEqual(counts.iou, (12 / 15) ** 3, delta=0.01)

    def test_shifted_boxes_count_exactly(self):
        reference, predicted = np.zeros((10, 12, 14), bool), np.zeros((10, 12, 14), bool)
        reference[2:6, 2:8, 2:7] = True
        predicted[3:7, 2:8, 2:7] = True
        counts = count_voxels(reference, predicted)
        self.assertEqual(counts, VoxelCounts(3 * 30, 30, 30))
        self.assertEqual(counts.dice, 0.75)
        self.assertEqual(counts.iou, 0.6)

    def test_one_empty_mask_counts_zero_and_two_count_nothing(self):
        empty, full = np.zeros((4, 5, 6), bool), sphere(3, (1, 1, 1), half_mm=4)[:4, :5, :6]
        for reference, predicted in ((empty, full), (full, empty)):
            counts = count_voxels(reference, predicted)
            self.assertEqual((counts.dice, counts.iou), (0.0, 0.0))
            self.assertEqual(surface_dice(reference, predicted, (1, 1, 1)), (0.0, 0.0))
        nothing = count_voxels(empty, empty)
        self.assertTrue(math.isnan(nothing.dice) and math.isnan(nothing.iou))
        self.assertTrue(all(math.isnan(value) for value in surface_dice(empty, empty, (1, 1, 1))))

    def test_dice_and_iou_are_monais(self):
        rng = np.random.default_rng(0)
        for share in (0.02, 0.3, 0.9):
            reference, predicted = rng.random((2, 9, 10, 11)) < share
            counts = count_voxels(reference, predicted)
            pair = as_batch(predicted).float(), as_batch(reference).float()
            self.assertAlmostEqual(counts.dice, float(compute_dice(*pair, include_background=True)), places=6)
            self.assertAlmostEqual(counts.iou, float(compute_iou(*pair, include_background=True)), places=6)


class SurfaceTest(unittest.TestCase):
    def test_concentric_spheres_agree_within_their_distance_only(self):
        fine = (0.5, 0.5, 0.5)
        for gap_mm, expected in ((0.5, (1.0, 1.0)), (1.6, (0.0, 1.0)), (3.0, (0.0, 0.0))):
            for value, wanted in zip(surface_dice(sphere(12, fine), sphere(12 - gap_mm, fine), fine), expected, strict=True):
                self.assertAlmostEqual(value, wanted, delta=0.03)

    def test_shifted_spheres_agree_on_the_belt_that_geometry_gives(self):
        fine = (0.4, 0.4, 0.4)
        masks = sphere(12.0, fine, half_mm=16), sphere(12.0, fine, centre_mm=(3.0, 0, 0), half_mm=16)
        for value, tolerance in zip(surface_dice(*masks, fine, (1.0, 2.0)), (1.0, 2.0), strict=True):
            self.assertAlmostEqual(value, belt(12.0, 3.0, tolerance), delta=0.02)

    def test_thick_slices_are_not_generous(self):
        # 0.64 within 1 mm: counted on the faces of voxels it was 0.83 to 0.86.
        self.assertAlmostEqual(belt(10.0, 1.57, 1.0), 0.64, delta=0.005)
        for direction in ((1, 0, 0), (0, 0, 1), (0.577, 0.577, 0.577)):
            centres = [tuple(sign * 1.57 / 2 * axis + 0.3 for axis in direction) for sign in (1, -1)]
            masks = [sphere(10.0, centre_mm=centre, half_mm=16) for centre in centres]
            self.assertAlmostEqual(surface_dice(*masks, CT_SPACING_MM, (1.0,))[0], belt(10.0, 1.57, 1.0), delta=0.03)

    def test_distances_of_concentric_spheres_are_their_gap(self):
        for spacing in ((0.5, 0.5, 0.5), CT_SPACING_MM):
            found = surface_distances(sphere(12, spacing), sphere(9, spacing), spacing)
            self.assertAlmostEqual(found.assd_mm, 3.0, delta=0.15)
            self.assertAlmostEqual(found.hd95_mm, 3.0, delta=0.5)
        same = surface_distances(sphere(9), sphere(9), CT_SPACING_MM)
        self.assertEqual((same.assd_mm, same.hd95_mm, same.nsd), (0.0, 0.0, (1.0, 1.0)))

    def test_hd95_is_near_monais(self):
        reference, predicted = sphere(9), sphere(7, centre_mm=(2.0, 1.0, -3.0))
        predicted |= sphere(3, centre_mm=(0.0, -12.0, 12.0))
        expected = compute_hausdorff_distance(
            as_batch(predicted), as_batch(reference), include_background=True, percentile=95, spacing=list(CT_SPACING_MM)
        )
        # Between voxels of the edges there, which are counted and not weighted.
        self.assertAlmostEqual(
            surface_distances(reference, predicted, CT_SPACING_MM).hd95_mm, float(expected), delta=0.1 * float(expected)
        )

    def test_a_lesion_of_one_voxel_has_a_surface(self):
        one, none = np.zeros((2, 5, 5, 5), bool)
        one[2, 2, 2] = True
        self.assertEqual(surface_distances(one, one, CT_SPACING_MM).nsd, (1.0, 1.0))
        self.assertTrue(math.isnan(surface_distances(one, none, CT_SPACING_MM).hd95_mm))

    def test_shifted_boxes_agree_on_the_faces_that_geometry_gives_along_every_axis(self):
        side, shift, tolerance = 24.0, 6.0, 2.0
        # Of either box: the sides up to the tolerance beyond the overlap, and the rim of the face inside the other box.
        within = 4 * side * (side - shift + tolerance) + side**2 - (side - 2 * tolerance) ** 2
        for spacing in ((0.5, 0.5, 0.5), (2.0, 0.5, 0.5), (1.0, 0.5, 0.75)):
            for axis in range(3):
                masks = [np.zeros([round(40 / step) for step in spacing], bool) for _ in range(2)]
                for mask, start in zip(masks, (0.0, shift), strict=True):
                    starts = [start if n == axis else 0.0 for n in range(3)]
                    box = [
                        slice(round((4 + s) / step), round((4 + s + side) / step))
                        for s, step in zip(starts, spacing, strict=True)
                    ]
                    mask[tuple(box)] = True
                value = surface_dice(*masks, spacing, (tolerance,))[0]
                self.assertAlmostEqual(value, within / (6 * side**2), delta=0.035, msg=f"{spacing} {axis}")

    def test_pieces_at_the_edge_and_beside_each_other_count_as_those_in_the_middle(self):
        small, large = np.zeros((2, 14, 40, 40), bool)
        for mask in (small, large):
            mask[2:6, 2:12, 2:12] = mask[2:6, 20:30, 20:30] = True
        large[2:6, 12:13, 2:12] = True
        at_edge = [mask[2:, 2:, 2:] for mask in (small, large)]
        ours, theirs = surface_distances(small, large, CT_SPACING_MM), surface_distances(*at_edge, CT_SPACING_MM)
        np.testing.assert_allclose(
            [*ours.nsd, ours.hd95_mm, ours.assd_mm], [*theirs.nsd, theirs.hd95_mm, theirs.assd_mm], rtol=1e-6
        )

    def test_it_is_near_that_of_finely_sampled_meshes_of_vtk(self):
        try:
            import vtk  # noqa: F401
        except ImportError:
            self.skipTest("VTK is not installed")
        fine, shift = (0.4, 0.4, 0.4), (1.5, 0.7, -1.0)
        meshes = surface_of(sphere(8, fine, half_mm=12), fine), surface_of(sphere(7, fine, centre_mm=shift, half_mm=12), fine)
        for spacing in (CT_SPACING_MM, (1.25, 0.8, 0.5)):
            reference, predicted = sphere(8, spacing), sphere(7, spacing, centre_mm=shift)
            for value, tolerance in zip(surface_dice(reference, predicted, spacing), (1.0, 2.0), strict=True):
                parts = area_within(*meshes, tolerance), area_within(*meshes[::-1], tolerance)
                expected = sum(close for close, _ in parts) / sum(total for _, total in parts)
                self.assertAlmostEqual(value, expected, delta=0.05)


def row(*runs: tuple[int, int, int], length: int = 60) -> np.ndarray:
    """A label map in one dimension: value, start and stop of each run."""
    labels = np.zeros((1, 1, length), np.uint8)
    for value, start, stop in runs:
        labels[0, 0, start:stop] = value
    return labels


class MatchingTest(unittest.TestCase):
    def test_shared_voxels_are_counted_by_pairs_of_values(self):
        shared = shared_voxels(row((1, 0, 10), (3, 20, 25)), row((1, 5, 22), (2, 40, 43)))
        np.testing.assert_array_equal(shared, [[0, 10, 3], [5, 5, 0], [0, 0, 0], [3, 2, 0]])

    def test_a_lesion_in_three_pieces_is_one_lesion(self):
        labels = row((1, 0, 4), (1, 10, 14), (1, 20, 24))
        shared = shared_voxels(labels, row((1, 11, 12)))
        self.assertEqual(match_lenient(shared).found.tolist(), [True])
        self.assertEqual(len(match_lenient(shared_voxels(labels, row())).found), 1)

    def test_several_marks_on_a_lesion_are_one_hit_and_the_rest_is_ignored(self):
        shared = shared_voxels(row((1, 0, 20)), row((1, 0, 8), (2, 9, 10), (3, 12, 30), (4, 40, 45)))
        for matches in (match_lenient(shared), match_strict(shared)):
            self.assertEqual(matches.found.tolist(), [True])
            self.assertEqual(matches.outside.tolist(), [False, False, False, True])

    def test_one_mark_on_two_lesions_finds_both_leniently_and_one_strictly(self):
        shared = shared_voxels(row((1, 0, 10), (2, 12, 20)), row((1, 0, 20)))
        self.assertEqual(match_lenient(shared).found.tolist(), [True, True])
        self.assertEqual(match_strict(shared).found.tolist(), [True, False])
        self.assertFalse(match_strict(shared).outside.any())

    def test_one_shared_voxel_is_enough_leniently_and_an_iou_of_a_tenth_strictly(self):
        for start, strictly in ((9, False), (8, True)):
            # 11 voxels against 11 from start 9 on: 2 shared of 20, an IoU of exactly 0.1.
            labels, marks = row((1, 0, 10)), row((1, start, start + 10))
            shared = shared_voxels(labels, marks)
            self.assertTrue(match_lenient(shared).found[0])
            self.assertEqual(bool(match_strict(shared).found[0]), strictly, start)
            self.assertEqual(bool(match_strict(shared).outside[0]), not strictly)
        exactly = shared_voxels(row((1, 0, 11)), row((1, 9, 20)))
        self.assertTrue(match_strict(exactly).found[0])

    def test_strict_pairs_have_the_largest_sum_of_iou_of_all_pairings(self):
        rng = np.random.default_rng(2)
        greedy_would_fail = 0
        for _ in range(60):
            shared = rng.integers(0, 30, (4, 5)) * (rng.random((4, 5)) < 0.7)
            shared[0, 0] = 0
            union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:] - shared[1:, 1:]
            iou = np.where(shared[1:, 1:] >= 0.1 * union, shared[1:, 1:] / np.maximum(union, 1), 0)
            pairings = list(itertools.permutations(range(4), 3))
            sums = [sum(iou[n, column] for n, column in enumerate(columns)) for columns in pairings]
            best = pairings[int(np.argmax(sums))]
            expected = [bool(iou[n, column] > 0) for n, column in enumerate(best)]
            if np.sum(np.isclose(sums, max(sums))) == 1:
                self.assertEqual(match_strict(shared).found.tolist(), expected)
                rest, taken = iou.copy(), 0.0
                for _ in range(3):
                    n, column = np.unravel_index(rest.argmax(), rest.shape)
                    taken += rest[n, column]
                    rest[n], rest[:, column] = 0, 0
                greedy_would_fail += taken < max(sums) - 1e-9
        self.assertGreater(greedy_would_fail, 0)

    def test_sensitivity_and_f1(self):
        detection = Detection(lesions=10, found=8, outside=2)
        self.assertEqual(detection.sensitivity, 0.8)
        self.assertAlmostEqual(detection.f1, 0.8)
        self.assertAlmostEqual(Detection(4, 1, 3).f1, 2 * 0.25 * 0.25 / 0.5)

    def test_rates_without_a_denominator_are_not_defined(self):
        self.assertTrue(math.isnan(Detection(0, 0, 3).sensitivity))
        self.assertTrue(math.isnan(Detection(0, 0, 0).f1))

    def test_nothing_marked_and_nothing_annotated(self):
        for labels, marks in ((row(), row((1, 0, 3))), (row((1, 0, 3)), row()), (row(), row())):
            shared = shared_voxels(labels, marks)
            for matches in (match_lenient(shared), match_strict(shared)):
                self.assertEqual((len(matches.found), len(matches.outside)), (int(labels.max()), int(marks.max())))
                self.assertFalse(matches.found.any())
                self.assertTrue(matches.outside.all())

    def test_dice_of_a_lesion_is_with_the_union_of_its_marks(self):
        shared = shared_voxels(row((1, 0, 20), (2, 30, 34)), row((1, 0, 8), (2, 10, 26), (3, 50, 60)))
        union, dice = union_of_matches(shared)
        np.testing.assert_array_equal(union, [24, 0])
        np.testing.assert_allclose(dice, [2 * 18 / (20 + 24), 0])


class VolumeTest(unittest.TestCase):
    def test_signed_errors_and_differences_of_known_volumes(self):
        predicted, reference = np.array([150.0, 50.0, 80.0]), np.array([100.0, 100.0, 80.0])
        np.testing.assert_allclose(volume_errors(predicted, reference), [0.5, -0.5, 0])
        np.testing.assert_allclose(percent_differences(predicted, reference), [40, -200 / 3, 0])

    def test_bland_altman_is_mean_and_1_96_sample_deviations(self):
        agreement = bland_altman(np.array([1.0, 2.0, 3.0, 6.0]))
        self.assertEqual((agreement.bias, agreement.pairs), (3.0, 4))
        deviation = math.sqrt((4 + 1 + 0 + 9) / 3)
        self.assertAlmostEqual(agreement.lower, 3 - 1.96 * deviation)
        self.assertAlmostEqual(agreement.upper, 3 + 1.96 * deviation)

    def test_too_few_lesions_give_no_limits(self):
        self.assertTrue(math.isnan(bland_altman(np.array([])).bias))
        one = bland_altman(np.array([4.0]))
        self.assertEqual(one.bias, 4.0)
        self.assertTrue(math.isnan(one.lower) and math.isnan(one.upper))
        self.assertTrue(all(math.isnan(value) for value in quartiles(np.array([]))))
        self.assertEqual(quartiles(np.arange(5.0)), (1.0, 2.0, 3.0))


class BootstrapTest(unittest.TestCase):
    def test_the_interval_of_a_mean_is_that_of_theory(self):
        values = np.random.default_rng(3).normal(10, 2, 400)
        made = estimate_ratio(values, np.ones(400), draw_patients(400))
        error = values.std() / math.sqrt(400)
        self.assertAlmostEqual(made.value, values.mean())
        self.assertAlmostEqual(made.low, values.mean() - 1.96 * error, delta=0.15 * error)
        self.assertAlmostEqual(made.high, values.mean() + 1.96 * error, delta=0.15 * error)

    def test_more_cases_of_the_same_patients_do_not_narrow_it(self):
        values = np.random.default_rng(4).random(30)
        draws = draw_patients(30)
        once, ten_times = (estimate_ratio(values * n, np.full(30, n), draws) for n in (1, 10))
        self.assertAlmostEqual(once.low, ten_times.low)
        self.assertAlmostEqual(once.high, ten_times.high)

    def test_a_ratio_is_what_the_general_way_gives(self):
        rng = np.random.default_rng(5)
        parts, wholes = rng.integers(0, 5, 12), rng.integers(0, 9, 12)
        draws = draw_patients(12)[:50]
        general = estimate(lambda weights: float((weights * parts).sum() / (weights * wholes).sum()), draws)
        made = estimate_ratio(parts, wholes, draws)
        np.testing.assert_allclose((made.value, made.low, made.high), (general.value, general.low, general.high))

    def test_one_patient_has_a_value_and_no_interval(self):
        made = estimate_ratio(np.array([3.0]), np.array([4.0]), draw_patients(1))
        self.assertEqual(made.value, 0.75)
        self.assertTrue(math.isnan(made.low) and math.isnan(made.high))
        # Nor where only one of several has anything to count.
        self.assertTrue(math.isnan(estimate_ratio(np.array([3.0, 0]), np.array([4.0, 0]), draw_patients(2)).low))

    def test_resamples_without_anything_to_count_are_left_out(self):
        made = estimate_ratio(np.array([1.0, 1.0, 0, 0]), np.array([1.0, 1.0, 0, 0]), draw_patients(4))
        self.assertEqual((made.value, made.low, made.high), (1.0, 1.0, 1.0))
        nothing = estimate_ratio(np.zeros(3), np.zeros(3), draw_patients(3))
        self.assertTrue(math.isnan(nothing.value) and math.isnan(nothing.low))

    def test_every_time_the_same_is_drawn_and_every_draw_is_complete(self):
        draws = draw_patients(7)
        np.testing.assert_array_equal(draws, draw_patients(7))
        self.assertTrue((draws.sum(axis=1) == 7).all())


class PublishedProtocolTest(unittest.TestCase):
    def test_the_logit_and_not_the_probability_is_compared_with_a_half(self):
        reference = np.zeros((1, 1, 4), bool)
        reference[0, 0, :2] = True
        # 0.62 is a logit below 0.5, 0.63 one above.
        probability = np.array([[[round(0.63 * 255), round(0.61 * 255), 0, 0]]], np.uint8)
        self.assertEqual(slices_with_tumour(probability, reference), (SliceOverlap(0, 0.5),))

    def test_slices_without_tumour_cost_nothing(self):
        reference, probability = np.zeros((3, 4, 4), bool), np.full((3, 4, 4), 255, np.uint8)
        reference[1, :2] = True
        self.assertEqual(slices_with_tumour(probability, reference), (SliceOverlap(1, 0.5),))

    def test_it_is_the_mean_over_the_batches_of_the_published_loader(self):
        rng = np.random.default_rng(0)
        cases = []
        for slices in (40, 7, 130, 16):
            chosen = sorted(rng.choice(slices, min(slices, 12), replace=False).tolist())
            cases.append((slices, [SliceOverlap(k, float(rng.random())) for k in chosen]))
        # As the loader does it: the files of each case by name, then batches of 16 in a row; None is a slice without tumour.
        row = []
        for slices, overlaps in cases:
            known = {f"{overlap.k}.png": overlap.iou for overlap in overlaps}
            row += [known.get(name) for name in sorted(f"{k}.png" for k in range(slices))]
        batches = [[iou for iou in row[n : n + 16] if iou is not None] for n in range(0, len(row), 16)]
        wanted = float(np.mean([np.mean(batch) for batch in batches if batch]))
        self.assertAlmostEqual(PublishedProtocol(cases).iou(np.ones(4, int)), wanted, places=12)
        # In the order of the numbers the batches are others.
        row = [dict((o.k, o.iou) for o in overlaps).get(k) for slices, overlaps in cases for k in range(slices)]
        batches = [[iou for iou in row[n : n + 16] if iou is not None] for n in range(0, len(row), 16)]
        self.assertNotAlmostEqual(wanted, float(np.mean([np.mean(batch) for batch in batches if batch])), places=3)
        # A case that is drawn twice comes twice in a row, one that is not drawn not at all.
        drawn = [cases[1], cases[1], cases[3]]
        self.assertAlmostEqual(
            PublishedProtocol(cases).iou(np.array([0, 2, 0, 1])), PublishedProtocol(drawn).iou(np.ones(3, int)), places=12
        )
        self.assertTrue(math.isnan(PublishedProtocol([(5, [])]).iou(np.ones(1, int))))


if __name__ == "__main__":
    unittest.main()
