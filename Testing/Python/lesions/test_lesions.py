"""Components become lesions: which, in what order, with what score, and where."""

import itertools
import unittest
from unittest import mock

import numpy as np

from helpers.marks import real_data
from helpers.shared_data import shared_data
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.find import MOST_LESIONS, find_lesions, label_map, outline_lesions
from NLSTSegLib.lesions.measure import measure
from NLSTSegLib.volume.ct import CtVolume, from_canonical, to_canonical

SPACING_MM = (0.7, 0.7, 2.0)
VOXEL_MM3 = 0.98


def empty_ct(shape_kji, spacing_ijk_mm=SPACING_MM) -> CtVolume:
    return CtVolume(np.full(shape_kji, -800, np.int16), spacing_ijk_mm)


def find(probability, *, threshold=0.5, min_volume_mm3=0.0, lung_mask=None, spacing_ijk_mm=SPACING_MM):
    ct = empty_ct(probability.shape, spacing_ijk_mm)
    return find_lesions(probability, ct, threshold=threshold, min_volume_mm3=min_volume_mm3, lung_mask=lung_mask)


def with_bricks(shape_kji, *bricks, value=200) -> np.ndarray:
    """A probability of zeros with a brick of ``value`` for each (start_kji, size_kji)."""
    probability = np.zeros(shape_kji, np.uint8)
    for start, size in bricks:
        probability[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))] = value
    return probability


class ComponentsTest(unittest.TestCase):
    def test_nothing_above_the_threshold_is_no_lesion(self):
        self.assertEqual(find(np.full((4, 5, 6), 127, np.uint8)), [])

    def test_voxels_that_touch_by_a_corner_are_one_lesion(self):
        probability = with_bricks((8, 8, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (2, 2, 2)))
        self.assertEqual([int(lesion.mask.sum()) for lesion in find(probability)], [16])

    def test_voxels_one_apart_are_two_lesions(self):
        probability = with_bricks((8, 8, 8), ((1, 1, 1), (2, 2, 2)), ((4, 1, 1), (2, 2, 2)))
        self.assertEqual([int(lesion.mask.sum()) for lesion in find(probability)], [8, 8])

    def test_threshold_is_exceeded_strictly_at_every_level(self):
        # One component of the values 0 to 255, so its size tells how many of them are above.
        ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)
        for value in range(0, 256, 3):
            lesions = find(ramp, threshold=value / 255)
            self.assertEqual(sum(int(lesion.mask.sum()) for lesion in lesions), 255 - value)
        self.assertEqual(int(find(ramp, threshold=0.5)[0].mask.sum()), 128)  # 128 / 255 is above a half
        self.assertEqual(find(ramp, threshold=1.0), [])

    def test_minimum_volume_itself_is_kept(self):
        for voxels in range(1, 40):
            probability = with_bricks((3, 3, 50), ((1, 1, 1), (1, 1, voxels)))
            self.assertEqual(len(find(probability, min_volume_mm3=voxels * VOXEL_MM3)), 1)
            self.assertEqual(len(find(probability, min_volume_mm3=voxels * VOXEL_MM3 + 0.01)), 0)

    def test_descending_volume_gives_the_labels(self):
        sizes = [3, 7, 2, 5]
        probability = with_bricks((12, 6, 12), *(((3 * n, 2, 2), (1, 1, size)) for n, size in enumerate(sizes)))
        lesions = find(probability)
        self.assertEqual([lesion.label for lesion in lesions], [1, 2, 3, 4])
        self.assertEqual([int(lesion.mask.sum()) for lesion in lesions], [7, 5, 3, 2])
        self.assertEqual([lesion.name for lesion in lesions], ["Lesion 01", "Lesion 02", "Lesion 03", "Lesion 04"])
        self.assertEqual([lesion.measurements.slice_k for lesion in lesions], [3, 9, 0, 6])

    def test_equal_volumes_are_labelled_by_position(self):
        starts = [(1, 7, 1), (1, 1, 5), (5, 1, 1), (1, 1, 1)]
        lesions = find(with_bricks((8, 10, 10), *((start, (2, 2, 2)) for start in starts)))
        corners = [tuple(np.argwhere(label_map(lesions, (8, 10, 10)) == lesion.label)[0].tolist()) for lesion in lesions]
        self.assertEqual(corners, sorted(starts))

    def test_same_input_gives_the_same_lesions(self):
        noise = np.random.default_rng(0).integers(0, 256, (20, 30, 30)).astype(np.uint8)
        one, other = find(noise, threshold=0.9), find(noise.copy(), threshold=0.9)
        self.assertGreater(len(one), 50)
        for a, b in zip(one, other, strict=True):
            self.assertEqual((a.label, a.score, a.box, a.measurements), (b.label, b.score, b.box, b.measurements))
            np.testing.assert_array_equal(a.mask, b.mask)

    def test_noise_falls_into_the_components_a_flood_fill_finds(self):
        noise = np.random.default_rng(5).random((9, 10, 11)) < 0.06
        noise[0, 0, 0] = noise[-1, -1, -1] = True
        labels = label_map(find(noise.astype(np.uint8) * 255), noise.shape)
        np.testing.assert_array_equal(labels > 0, noise)
        seen: set[tuple[int, ...]] = set()
        components = 0
        for start in map(tuple, np.argwhere(noise).tolist()):
            if start in seen:
                continue
            components += 1
            reached, todo = {start}, [start]
            while todo:
                here = todo.pop()
                for step in itertools.product((-1, 0, 1), repeat=3):
                    there = tuple(a + b for a, b in zip(here, step, strict=True))
                    inside = all(0 <= a < n for a, n in zip(there, noise.shape, strict=True))
                    if inside and noise[there] and there not in reached:
                        reached.add(there)
                        todo.append(there)
            seen |= reached
            self.assertEqual(set(map(tuple, np.argwhere(labels == labels[start]).tolist())), reached)
        self.assertEqual(components, labels.max())


class LesionTest(unittest.TestCase):
    def test_score_is_the_95th_percentile_inside(self):
        probability = np.zeros((5, 5, 41), np.uint8)
        probability[2, 2, 10:31] = np.random.default_rng(0).permutation(np.arange(150, 171))
        self.assertAlmostEqual(find(probability)[0].score, 169 / 255)  # 0, 5, ..., 95, 100 % are 150, 151, ..., 169, 170
        probability[2, 2, 10:12] = [254, 129]  # interpolated between bytes
        inside = np.sort(probability[2, 2, 10:31].astype(float))
        self.assertAlmostEqual(find(probability)[0].score, inside[19] / 255)
        self.assertEqual(find(with_bricks((3, 3, 3), ((1, 1, 1), (1, 1, 1)), value=255))[0].score, 1.0)

    def test_box_is_grown_by_ten_millimetres_and_clipped(self):
        (lesion,) = find(with_bricks((20, 50, 60), ((9, 3, 30), (2, 4, 29))))
        # 10 mm are 5 slices and 15 pixels.
        self.assertEqual(lesion.box, (slice(4, 16), slice(0, 22), slice(15, 60)))
        self.assertEqual(lesion.mask.shape, (12, 22, 45))
        np.testing.assert_array_equal(np.argwhere(lesion.mask)[[0, -1]], [[5, 3, 15], [6, 6, 43]])

    def test_mask_leaves_out_the_neighbour_that_the_box_and_its_probability_show(self):
        probability = with_bricks((3, 20, 20), ((1, 5, 5), (1, 4, 4)), ((1, 11, 5), (1, 3, 3)))
        first, second = find(probability)
        self.assertEqual((int(first.mask.sum()), int(second.mask.sum())), (16, 9))
        self.assertEqual(int((first.probability > 0).sum()), 25)
        self.assertEqual(first.mask.dtype, bool)
        self.assertEqual(first.probability.dtype, np.uint8)
        np.testing.assert_array_equal(first.probability, probability[first.box])

    def test_lesion_inside_the_bend_of_another_stays_its_own(self):
        probability = with_bricks((3, 20, 20), ((1, 5, 5), (1, 9, 9)))
        probability[1, 7:14, 7:12] = 0
        probability[1, 9, 9] = 200
        bend, spot = find(probability)
        self.assertEqual((int(bend.mask.sum()), int(spot.mask.sum())), (81 - 35, 1))

    def test_probability_is_a_copy_of_its_own(self):
        probability = with_bricks((3, 5, 5), ((1, 1, 1), (1, 2, 2)))
        (lesion,) = find(probability)
        probability[:] = 0
        self.assertEqual(int(lesion.probability.max()), 200)

    def test_measurements_are_those_of_the_mask_where_it_lies_in_the_ct(self):
        rng = np.random.default_rng(0)
        probability = with_bricks((20, 40, 40), ((8, 20, 25), (3, 6, 8)), ((15, 0, 0), (1, 2, 2)))
        ct = CtVolume(rng.integers(-900, 200, probability.shape).astype(np.int16), SPACING_MM, (-9.0, -8.0, -7.0))
        whole = probability > 0
        whole[15] = False
        expected = measure(whole, ct, (0, 0, 0))
        sizes = find_lesions(probability, ct, threshold=0.5, min_volume_mm3=0)[0].measurements
        self.assertEqual(sizes.slice_k, expected.slice_k)
        self.assertEqual(sizes.mean_hu, expected.mean_hu)
        self.assertAlmostEqual(sizes.volume_mm3, 144 * VOXEL_MM3)
        self.assertAlmostEqual(sizes.long_axis_mm, expected.long_axis_mm)
        np.testing.assert_allclose(sizes.centroid_lps_mm, expected.centroid_lps_mm)
        np.testing.assert_allclose(sizes.short_axis_ends_lps_mm, expected.short_axis_ends_lps_mm)

    def test_views_of_any_memory_order_are_read_right(self):
        probability = with_bricks((10, 20, 30), ((2, 3, 4), (3, 5, 7)), ((8, 18, 1), (1, 1, 2)))
        plain = find(probability)
        turned = find(np.asfortranarray(probability))
        mirrored = find(np.ascontiguousarray(probability[:, ::-1, ::-1])[:, ::-1, ::-1])
        for other in (turned, mirrored):
            self.assertEqual([lesion.measurements for lesion in other], [lesion.measurements for lesion in plain])


class FieldTest(unittest.TestCase):
    probability = with_bricks((10, 30, 30), ((4, 5, 5), (3, 8, 8)), ((4, 20, 20), (2, 4, 4)))

    def test_lesion_with_one_voxel_in_the_field_is_kept_whole(self):
        lung_mask = np.zeros(self.probability.shape, bool)
        lung_mask[4, 5, 5] = True
        (lesion,) = find(self.probability, lung_mask=lung_mask)
        self.assertEqual(int(lesion.mask.sum()), 3 * 8 * 8)

    def test_lesion_out_of_the_field_is_dropped_and_labels_close_up(self):
        lung_mask = np.zeros(self.probability.shape, bool)
        lung_mask[:, 15:] = True
        (lesion,) = find(self.probability, lung_mask=lung_mask)
        self.assertEqual(lesion.label, 1)
        self.assertEqual(int(lesion.mask.sum()), 2 * 4 * 4)

    def test_field_beside_the_lesion_but_in_its_box_does_not_count(self):
        lung_mask = np.ones(self.probability.shape, bool) & (self.probability == 0)
        self.assertEqual(find(self.probability, lung_mask=lung_mask), [])


class LabelMapTest(unittest.TestCase):
    def test_labels_are_on_the_components_voxels(self):
        probability = with_bricks((6, 20, 20), ((2, 2, 2), (2, 5, 5)), ((2, 10, 2), (2, 3, 3)))
        labels = label_map(find(probability), probability.shape)
        self.assertEqual(labels.dtype, np.uint8)
        np.testing.assert_array_equal(labels > 0, probability > 0)
        self.assertEqual(np.bincount(labels.ravel()).tolist(), [2400 - 68, 50, 18])

    def test_more_than_255_lesions_need_two_bytes(self):
        for count, dtype in [(255, np.uint8), (256, np.uint16)]:
            probability = np.zeros((1, 64, 64), np.uint8)
            spots = np.argwhere(np.ones((16, 16), bool))[:count] * 4
            probability[0, spots[:, 0], spots[:, 1]] = 255
            labels = label_map(find(probability), probability.shape)
            self.assertEqual(labels.dtype, dtype)
            self.assertEqual(labels.max(), count)

    def test_more_lesions_than_labels_are_said_with_a_minimum_volume_that_helps(self):
        self.assertEqual(MOST_LESIONS, np.iinfo(np.uint16).max)
        # Sixty lesions of one voxel, but for one of three and fourteen of two.
        probability = np.zeros((3, 9, 41), np.uint8)
        probability[1, 1:7:2, 1::2] = probability[0, 1, 1:31:2] = probability[2, 1, 1] = 255
        ct = empty_ct(probability.shape, (1.0, 1.0, 1.0))
        with (
            mock.patch("NLSTSegLib.lesions.find.MOST_LESIONS", 40),
            self.assertRaisesRegex(InputError, "60 lesions .* 40 that can be labelled; set the minimum volume to 2 mm3 or more"),
        ):
            outline_lesions(probability, ct, threshold=0.5, min_volume_mm3=0)
        self.assertEqual(len(outline_lesions(probability, ct, threshold=0.5, min_volume_mm3=2)), 15)

    def test_no_lesions_give_an_empty_map(self):
        labels = label_map([], (2, 3, 4))
        self.assertEqual((labels.shape, labels.dtype, int(labels.max())), ((2, 3, 4), np.uint8, 0))

    def test_labels_come_back_to_the_voxels_of_a_turned_source(self):
        source_probability = with_bricks((12, 14, 16), ((1, 2, 3), (3, 4, 5)), ((8, 9, 10), (2, 2, 2)))
        # Axes i, j, k of the source run to superior, right, anterior.
        turned = (0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0)
        source = CtVolume(np.full((12, 14, 16), -800, np.int16), (2.0, 0.7, 0.8), (5.0, 6.0, 7.0), turned)
        canonical = to_canonical(source)
        carrier = CtVolume(source_probability.astype(np.int16), (2.0, 0.7, 0.8), (5.0, 6.0, 7.0), turned)
        probability = to_canonical(carrier).hu.astype(np.uint8)
        lesions = find_lesions(probability, canonical, threshold=0.5, min_volume_mm3=0)
        labels = from_canonical(label_map(lesions, canonical.hu.shape), canonical, source)
        np.testing.assert_array_equal(labels > 0, source_probability > 0)
        self.assertEqual(labels[1, 2, 3], 1)
        self.assertEqual(labels[8, 9, 10], 2)
        centre = source.lps_from_ijk_mm([10.5, 9.5, 8.5])
        np.testing.assert_allclose(lesions[1].measurements.centroid_lps_mm, centre)


class RefusedInputTest(unittest.TestCase):
    def test_options_out_of_range(self):
        probability = np.zeros((2, 2, 2), np.uint8)
        for options in ({"threshold": -0.1}, {"threshold": 1.1}, {"threshold": float("nan")}, {"min_volume_mm3": -1}):
            with self.assertRaises(InputError):
                find(probability, **options)

    def test_field_of_another_shape(self):
        with self.assertRaisesRegex(InputError, r"\(2, 2, 3\)"):
            find(np.zeros((2, 2, 2), np.uint8), lung_mask=np.ones((2, 2, 3), bool))

    def test_probability_of_another_type_or_shape(self):
        ct = empty_ct((2, 2, 2))
        for probability in (np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 3), np.uint8)):
            with self.assertRaises(ValueError):
                find_lesions(probability, ct, threshold=0.5, min_volume_mm3=0)


class RealChestTest(unittest.TestCase):
    @real_data
    def test_readers_marks_on_a_whole_chest_become_lesions_and_come_back(self):
        data = shared_data()
        if data is None:
            self.skipTest("the shared data folder is absent (set NLSTSEG_DATA)")
        import SimpleITK as sitk

        votes = sitk.ReadImage(data / "ct" / "LIDC-IDRI-0001" / "votes.nrrd")
        source = CtVolume.from_image(sitk.Cast(votes, sitk.sitkInt16))
        canonical = to_canonical(source)
        probability = ((canonical.hu >= 2) * 255).astype(np.uint8)
        lesions = find_lesions(probability, canonical, threshold=0.5, min_volume_mm3=10)
        self.assertGreaterEqual(len(lesions), 1)
        largest = lesions[0].measurements
        self.assertTrue(3 < largest.short_axis_mm <= largest.long_axis_mm < 100)
        labels = from_canonical(label_map(lesions, canonical.hu.shape), canonical, source)
        self.assertTrue((source.hu[labels > 0] >= 2).all())
        self.assertAlmostEqual((labels == 1).sum() * source.voxel_volume_mm3, largest.volume_mm3)


if __name__ == "__main__":
    unittest.main()
