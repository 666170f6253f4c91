"""Sizes against shapes whose sizes are known, and against slow formulas that look at every pair of points."""

import dataclasses
import itertools
import unittest

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from NLSTSegLib.lesions.measure import Measurements, measure, round_half_up
from NLSTSegLib.volume.ct import CtVolume, to_canonical

SLICES_MM = (0.664, 0.664, 2.0)
FINE_MM = (0.5, 0.5, 0.5)


def grid_mm(half_size_mm, spacing_ijk_mm, shift_ijk=(0.0, 0.0, 0.0)):
    """x, y, z in mm from the centre of a grid that holds ``half_size_mm``; the centre lies ``shift`` voxels off a voxel."""
    sizes = [2 * int(half / s + 2) + 1 for half, s in zip(half_size_mm, spacing_ijk_mm, strict=True)]
    axes = ((np.arange(n) - n // 2 + d) * s for n, s, d in zip(sizes, spacing_ijk_mm, shift_ijk, strict=True))
    z, y, x = np.meshgrid(*reversed(list(axes)), indexing="ij")
    return x, y, z


def sphere(diameter_mm, spacing_ijk_mm, shift_ijk=(0.0, 0.0, 0.0)):
    x, y, z = grid_mm([diameter_mm / 2] * 3, spacing_ijk_mm, shift_ijk)
    return x**2 + y**2 + z**2 <= (diameter_mm / 2) ** 2


def rotated_ellipse(long_mm, short_mm, degrees, spacing_ijk_mm, shift_ijk=(0.0, 0.0, 0.0)):
    """One slice; the long axis runs ``degrees`` from the direction of i towards that of j."""
    x, y, _ = grid_mm([long_mm / 2, long_mm / 2, 0], spacing_ijk_mm, shift_ijk)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    inside = ((c * x + s * y) / (long_mm / 2)) ** 2 + ((c * y - s * x) / (short_mm / 2)) ** 2 <= 1
    middle = len(inside) // 2
    return inside[middle : middle + 1]


def measure_alone(mask, spacing_ijk_mm=(1.0, 1.0, 1.0), hu=0, **geometry) -> Measurements:
    """The mask as a whole CT."""
    return measure(mask, CtVolume(np.broadcast_to(np.int16(hu), mask.shape).copy(), spacing_ijk_mm, **geometry), (0, 0, 0))


def axis_mm(ends_lps_mm) -> np.ndarray:
    return np.subtract(ends_lps_mm[1], ends_lps_mm[0])


SIZES = [field.name for field in dataclasses.fields(Measurements) if field.type == "float"]


class SphereTest(unittest.TestCase):
    spheres = {4: 33.5, 6: 113.1, 8: 268.1, 10: 523.6, 15: 1767.1, 30: 14137.2}  # noqa: RUF012

    def test_volume_and_equivalent_diameter(self):
        for diameter, volume in self.spheres.items():
            with self.subTest(diameter):
                sizes = measure_alone(sphere(diameter, FINE_MM, (0.2, 0.4, 0.1)), FINE_MM)
                self.assertAlmostEqual(sizes.volume_mm3 / volume, 1, delta=0.2 / diameter)
                self.assertAlmostEqual(sizes.equivalent_diameter_mm, diameter, delta=0.1)

    def test_axes_within_one_pixel(self):
        shifts = [(0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.3, -0.2, 0.4)]
        for diameter, spacing, shift in itertools.product(self.spheres, (FINE_MM, SLICES_MM, (0.6, 0.8, 1.0)), shifts):
            with self.subTest(diameter=diameter, spacing=spacing, shift=shift):
                sizes = measure_alone(sphere(diameter, spacing, shift), spacing)
                # A centre between two slices is cut off the middle: the largest circle on the grid is what is there.
                off_mm = min(abs(shift[2]), 1 - abs(shift[2])) * spacing[2]
                circle = 2 * np.sqrt((diameter / 2) ** 2 - off_mm**2)
                self.assertAlmostEqual(sizes.long_axis_mm, circle, delta=max(spacing[:2]) + 1e-9)
                self.assertAlmostEqual(sizes.short_axis_mm, circle, delta=max(spacing[:2]) + 1e-9)
                self.assertLessEqual(sizes.short_axis_mm, sizes.long_axis_mm)

    def test_middle_slice_and_centroid(self):
        mask = np.zeros((40, 60, 70), bool)
        ball = sphere(10, SLICES_MM)
        mask[11 : 11 + ball.shape[0], 5 : 5 + ball.shape[1], 20 : 20 + ball.shape[2]] = ball
        sizes = measure_alone(mask, SLICES_MM, origin_lps_mm=(-100.0, -90.0, -300.0))
        self.assertEqual(sizes.slice_k, 11 + ball.shape[0] // 2)
        centre_ijk = np.array([20, 5, 11]) + np.array(ball.shape[::-1]) // 2
        np.testing.assert_allclose(sizes.centroid_lps_mm, np.array([-100, -90, -300]) + centre_ijk * SLICES_MM, atol=1e-9)


class EllipseTest(unittest.TestCase):
    def test_rotated_ellipse_on_anisotropic_pixels(self):
        for degrees, spacing in itertools.product(range(0, 180, 15), [(0.5, 0.8, 1.0), (0.8, 0.5, 1.0), (0.664, 0.664, 2.0)]):
            with self.subTest(degrees=degrees, spacing=spacing):
                sizes = measure_alone(rotated_ellipse(24, 13, degrees, spacing, (0.3, 0.1, 0)), spacing)
                self.assertAlmostEqual(sizes.long_axis_mm, 24, delta=max(spacing[:2]))
                self.assertAlmostEqual(sizes.short_axis_mm, 13, delta=max(spacing[:2]))
                self.assertEqual(sizes.mean_diameter_mm, (sizes.long_axis_mm + sizes.short_axis_mm) / 2)
                x, y, _ = axis_mm(sizes.long_axis_ends_lps_mm)
                off = (np.degrees(np.arctan2(y, x)) - degrees + 90) % 180 - 90
                self.assertLess(abs(off), 12)  # an end one pixel off across a tip that is nearly flat

    def test_tilted_ellipsoid_is_measured_in_its_largest_axial_section(self):
        rng = np.random.default_rng(3)
        spacing = (0.6, 0.7, 0.8)
        for _ in range(6):
            axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
            form = axes @ np.diag(1 / np.array([14.0, 9.0, 6.0]) ** 2) @ axes.T
            points = np.stack(grid_mm([14] * 3, spacing), axis=-1)
            inside = np.einsum("...a,ab,...b->...", points, form, points) <= 1
            # All axial sections are alike, the one through the centre is the largest: x' F x <= 1 with the 2x2 part of F.
            short, long = 2 / np.sqrt(np.linalg.eigvalsh(form[:2, :2])[::-1])
            sizes = measure_alone(inside, spacing)
            self.assertAlmostEqual(sizes.long_axis_mm, long, delta=0.7)
            self.assertAlmostEqual(sizes.short_axis_mm, short, delta=0.7)
            self.assertAlmostEqual(sizes.slice_k, len(inside) // 2, delta=1)
            self.assertAlmostEqual(sizes.volume_mm3 / (4 / 3 * np.pi * 14 * 9 * 6), 1, delta=0.01)


class OtherShapesTest(unittest.TestCase):
    def test_one_voxel_is_as_long_and_wide_as_its_pixel(self):
        sizes = measure_alone(np.ones((1, 1, 1), bool), (0.6, 0.8, 2.5))
        self.assertAlmostEqual(sizes.volume_mm3, 1.2)
        self.assertAlmostEqual(sizes.long_axis_mm, 0.8)
        self.assertAlmostEqual(sizes.short_axis_mm, 0.6)
        self.assertEqual(sizes.slice_k, 0)
        np.testing.assert_allclose(sizes.centroid_lps_mm, 0)

    def test_one_slice(self):
        mask = np.zeros((7, 50, 50), bool)
        disc = rotated_ellipse(20, 10, 40, (0.7, 0.7, 1.0))[0]
        mask[4, : disc.shape[0], : disc.shape[1]] = disc
        sizes = measure_alone(mask, (0.7, 0.7, 2.5))
        self.assertEqual(sizes.slice_k, 4)
        self.assertAlmostEqual(sizes.long_axis_mm, 20, delta=0.7)
        self.assertAlmostEqual(sizes.short_axis_mm, 10, delta=0.7)
        self.assertAlmostEqual(sizes.volume_mm3 / (np.pi * 10 * 5 * 2.5), 1, delta=0.02)

    def test_line_one_pixel_wide_is_one_pixel_wide(self):
        sizes = measure_alone(np.ones((1, 1, 9), bool), (0.7, 0.9, 1.0))
        self.assertAlmostEqual(sizes.long_axis_mm, 9 * 0.7)
        self.assertAlmostEqual(sizes.short_axis_mm, 0.9)
        diagonal = measure_alone(np.eye(9, dtype=bool)[None])
        self.assertAlmostEqual(diagonal.long_axis_mm, np.hypot(9, 8))
        self.assertGreater(diagonal.short_axis_mm, 0.5)
        self.assertLess(diagonal.short_axis_mm, 1.5)

    def test_rectangle_has_its_diagonal_and_the_line_across_it(self):
        sizes = measure_alone(np.ones((1, 100, 200), bool), (0.1, 0.1, 1.0))
        self.assertAlmostEqual(sizes.long_axis_mm, np.hypot(20, 10), delta=0.1)
        # The line perpendicular to the diagonal of a x b, from long side to long side: b / cos(angle of the diagonal).
        self.assertAlmostEqual(sizes.short_axis_mm, 10 * np.hypot(20, 10) / 20, delta=0.1)

    def test_contour_cuts_the_corner_of_a_pixel(self):
        # Corner pixels contribute the middles of their free sides: 3 x 2 pixels reach from (-0.5, 0) to (2.5, 1).
        self.assertAlmostEqual(measure_alone(np.ones((1, 2, 3), bool)).long_axis_mm, np.hypot(3, 1))

    def test_c_shape_is_measured_across_its_opening(self):
        x, y, _ = grid_mm([10, 10, 0], (0.2, 0.2, 1.0), (0.1, 0.3, 0))
        radius = np.hypot(x, y)
        half_ring = (radius <= 10) & (radius >= 7) & (x <= 0)
        sizes = measure_alone(half_ring[2:3], (0.2, 0.2, 1.0))
        self.assertAlmostEqual(sizes.long_axis_mm, 20, delta=0.2)
        self.assertAlmostEqual(sizes.short_axis_mm, 10, delta=0.2)
        # From tip to tip of the C, and the short axis over the gap from its back to there.
        self.assertAlmostEqual(abs(axis_mm(sizes.long_axis_ends_lps_mm)[1]), 20, delta=0.3)
        self.assertAlmostEqual(abs(axis_mm(sizes.short_axis_ends_lps_mm)[0]), 10, delta=0.3)

    def test_both_axes_come_from_the_same_slice(self):
        mask = np.zeros((3, 20, 30), bool)
        mask[0, 2:18, 2:18] = True  # wider, but not longer
        mask[2, 4:7, 1:28] = True
        sizes = measure_alone(mask)
        self.assertEqual(sizes.slice_k, 2)
        self.assertAlmostEqual(sizes.long_axis_mm, np.hypot(27, 2))
        self.assertLess(sizes.short_axis_mm, 3.1)

    def test_unusable_masks_are_refused(self):
        ct = CtVolume(np.zeros((4, 4, 4), np.int16), (1.0, 1.0, 1.0))
        for mask, offset in [
            (np.zeros((2, 2, 2), bool), (0, 0, 0)),
            (np.ones((2, 2, 2), bool), (3, 0, 0)),
            (np.ones((2, 2, 2), bool), (-1, 0, 0)),
            (np.ones((2, 2, 2), np.uint8), (0, 0, 0)),
        ]:
            with self.assertRaises(ValueError):
                measure(mask, ct, offset)


class PlaceTest(unittest.TestCase):
    """Where things are, and that sizes do not depend on it."""

    def setUp(self):
        rng = np.random.default_rng(1)
        blob = sphere(14, (0.7, 0.8, 1.5), (0.4, 0.1, 0.3))
        blob[:, :, 12:] &= rng.random(blob[:, :, 12:].shape) < 0.5
        self.hu = np.where(blob, rng.integers(-700, 100, blob.shape), -1000).astype(np.int16)
        self.spacing = (0.7, 0.8, 1.5)

    def assert_same_sizes(self, one: Measurements, other: Measurements):
        for name in SIZES:
            self.assertAlmostEqual(getattr(one, name), getattr(other, name), places=6, msg=name)

    def test_flipped_and_permuted_axes_leave_sizes_and_places_unchanged(self):
        plain = CtVolume(self.hu, self.spacing, (-50.0, 20.0, -400.0))
        reference = measure(plain.hu > -999, plain, (0, 0, 0))
        for flips in itertools.product((1, -1), repeat=3):
            last_ijk = [n - 1 if f < 0 else 0 for n, f in zip(self.hu.shape[::-1], flips, strict=True)]
            source = CtVolume(
                self.hu[:: flips[2], :: flips[1], :: flips[0]].transpose(1, 0, 2).copy(),
                (self.spacing[0], self.spacing[2], self.spacing[1]),
                tuple(plain.lps_from_ijk_mm(last_ijk)),
                tuple(np.diag(np.array(flips, float))[:, [0, 2, 1]].ravel()),
            )
            canonical = to_canonical(source)
            sizes = measure(canonical.hu > -999, canonical, (0, 0, 0))
            self.assert_same_sizes(sizes, reference)
            np.testing.assert_allclose(sizes.centroid_lps_mm, reference.centroid_lps_mm, atol=1e-6)
            self.assertEqual(sizes.slice_k, reference.slice_k)

    def test_mirrored_mask_has_the_same_sizes(self):
        reference = measure_alone(self.hu > -999, self.spacing)
        for axes in [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]:
            self.assert_same_sizes(measure_alone(np.flip(self.hu > -999, axes), self.spacing), reference)

    def test_cut_out_gives_what_the_whole_gives(self):
        whole = CtVolume(np.pad(self.hu, ((5, 3), (4, 6), (8, 2)), constant_values=-1000), self.spacing, (9.0, 8.0, 7.0))
        cut_out, all_of_it = measure(self.hu > -999, whole, (5, 4, 8)), measure(whole.hu > -999, whole, (0, 0, 0))
        self.assert_same_sizes(cut_out, all_of_it)
        self.assertEqual(cut_out.slice_k, all_of_it.slice_k)
        for name in ("centroid_lps_mm", "long_axis_ends_lps_mm", "short_axis_ends_lps_mm"):
            np.testing.assert_allclose(getattr(cut_out, name), getattr(all_of_it, name), atol=1e-6)

    def test_ends_of_the_axes_lie_in_the_slice_on_an_oblique_grid(self):
        axes, _ = np.linalg.qr(np.eye(3) + 0.2 * np.random.default_rng(2).normal(size=(3, 3)))
        axes *= np.sign(np.diag(axes))
        ct = CtVolume(self.hu, self.spacing, (-50.0, 20.0, -400.0), tuple(axes.ravel()))
        sizes = measure(self.hu > -999, ct, (0, 0, 0))
        self.assert_same_sizes(sizes, measure_alone_hu(self.hu, self.spacing))
        long, short = axis_mm(sizes.long_axis_ends_lps_mm), axis_mm(sizes.short_axis_ends_lps_mm)
        self.assertAlmostEqual(np.linalg.norm(long), sizes.long_axis_mm)
        self.assertAlmostEqual(np.linalg.norm(short), sizes.short_axis_mm)
        self.assertAlmostEqual(float(long @ short), 0, places=6)
        for end in sizes.long_axis_ends_lps_mm + sizes.short_axis_ends_lps_mm:
            ijk = axes.T @ np.subtract(end, ct.origin_lps_mm) / self.spacing
            self.assertAlmostEqual(ijk[2], sizes.slice_k)
            j, i = np.argwhere(self.hu[sizes.slice_k] > -999).T
            self.assertTrue(i.min() - 0.5 <= ijk[0] + 1e-6 and ijk[0] - 1e-6 <= i.max() + 0.5)
            self.assertTrue(j.min() - 0.5 <= ijk[1] + 1e-6 and ijk[1] - 1e-6 <= j.max() + 0.5)

    def test_sheared_in_plane_axes(self):
        # A parallelogram of pixels: j leans 30 degrees towards i.
        ct = CtVolume(np.zeros((1, 40, 40), np.int16), (0.5, 0.5, 1.0), (0, 0, 0), (1, 0.5, 0, 0, np.sqrt(0.75), 0, 0, 0, 1))
        sizes = measure(np.ones((1, 40, 40), bool), ct, (0, 0, 0))
        self.assertAlmostEqual(sizes.long_axis_mm, 20 * np.sqrt(3), delta=0.5)
        self.assertAlmostEqual(sizes.short_axis_mm, 20, delta=0.5)
        self.assertAlmostEqual(sizes.volume_mm3, 400 * np.sqrt(0.75))
        self.assertAlmostEqual(np.linalg.norm(axis_mm(sizes.long_axis_ends_lps_mm)), sizes.long_axis_mm)
        self.assertAlmostEqual(np.linalg.norm(axis_mm(sizes.short_axis_ends_lps_mm)), sizes.short_axis_mm)


def measure_alone_hu(hu, spacing) -> Measurements:
    return measure(hu > -999, CtVolume(hu, spacing), (0, 0, 0))


class DensityTest(unittest.TestCase):
    def test_mean_is_over_the_mask_alone(self):
        hu = np.full((3, 3, 3), 3000, np.int16)
        mask = np.zeros((3, 3, 3), bool)
        mask[1, 1] = True
        hu[mask] = [-500, -100, 31]
        sizes = measure(mask, CtVolume(hu, (1.0, 1.0, 1.0)), (0, 0, 0))
        self.assertAlmostEqual(sizes.mean_hu, -569 / 3)

    def test_float_hu_of_many_voxels_keep_their_mean(self):
        ct = CtVolume(np.full((60, 60, 60), -700.1, np.float32), (1.0, 1.0, 1.0))
        self.assertAlmostEqual(measure(np.ones((60, 60, 60), bool), ct, (0, 0, 0)).mean_hu, -700.1, places=4)

    def test_solid_core_of_a_part_solid_nodule(self):
        outer, core = sphere(20, FINE_MM), np.zeros_like(sphere(20, FINE_MM))
        ball = sphere(8, FINE_MM)
        start = [(a - b) // 2 for a, b in zip(outer.shape, ball.shape, strict=True)]
        core[tuple(slice(s, s + n) for s, n in zip(start, ball.shape, strict=True))] = ball
        hu = np.where(core, 30, np.where(outer, -600, 40)).astype(np.int16)  # soft tissue around it is not its solid part
        sizes = measure(outer, CtVolume(hu, FINE_MM), (0, 0, 0))
        self.assertAlmostEqual(sizes.solid_volume_mm3 / 268.1, 1, delta=0.03)
        self.assertAlmostEqual(sizes.solid_long_axis_mm, 8, delta=0.5)
        self.assertAlmostEqual(sizes.long_axis_mm, 20, delta=0.5)

        middle = [n // 2 for n in outer.shape]
        hu[middle[0], middle[1], np.flatnonzero(outer[middle[0], middle[1]])[0]] = 30  # a speck of noise at the rim
        specked = measure(outer, CtVolume(hu, FINE_MM), (0, 0, 0))
        self.assertEqual(specked.solid_long_axis_mm, sizes.solid_long_axis_mm)
        self.assertAlmostEqual(specked.solid_volume_mm3, sizes.solid_volume_mm3 + 0.125)

    def test_solid_pieces_that_touch_by_a_corner_are_one(self):
        hu = np.where(np.eye(6, dtype=bool), 0, -600).astype(np.int16)[None]
        sizes = measure(np.ones((1, 6, 6), bool), CtVolume(hu, (1.0, 1.0, 1.0)), (0, 0, 0))
        self.assertAlmostEqual(sizes.solid_long_axis_mm, np.hypot(6, 5))

    def test_minus_160_is_not_solid(self):
        mask = np.ones((1, 4, 4), bool)
        self.assertEqual(measure_alone(mask, hu=-160).solid_volume_mm3, 0)
        self.assertEqual(measure_alone(mask, hu=-160).solid_long_axis_mm, 0)
        self.assertEqual(measure_alone(mask, hu=-159).solid_volume_mm3, 16)
        self.assertEqual(measure_alone(mask, hu=-159).solid_long_axis_mm, measure_alone(mask).long_axis_mm)


class RoundingTest(unittest.TestCase):
    def test_halves_go_up(self):
        for value, decimals, expected in [
            (2.25, 1, 2.3),
            (5.5, 0, 6.0),
            (4.5, 0, 5.0),
            (2.675, 2, 2.68),
            (0.05, 1, 0.1),
            (2.2499, 1, 2.2),
            (5.49, 0, 5.0),
            (-2.25, 1, -2.3),
            (372000.5, 0, 372001.0),
            (3, 1, 3.0),
        ]:
            self.assertEqual(round_half_up(value, decimals), expected, value)

    def test_half_missed_by_binary_noise_goes_up(self):
        self.assertEqual(round_half_up(5.499999999999999, 0), 6.0)
        self.assertEqual(round_half_up(np.float64(1.1 + 2.2 - 1.05), 1), 2.3)

    def test_no_negative_zero(self):
        self.assertEqual(str(round_half_up(-0.04, 1)), "0.0")

    def test_three_pixels_of_three_quarters_read_as_two_point_three(self):
        mask = np.zeros((1, 5, 5), bool)
        mask[0, 2, 1:4] = True
        sizes = measure_alone(mask, (0.75, 0.75, 1.0), origin_lps_mm=(-183.6, -171.3, -310.7))
        self.assertEqual(round_half_up(sizes.long_axis_mm, 1), 2.3)


def contour_points(mask_ji) -> np.ndarray:
    """(i, j) of the middle between each inside pixel and each of its outside neighbours."""
    padded = np.pad(mask_ji, 1)
    points = []
    for j, i in np.argwhere(padded):
        for dj, di in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            if not padded[j + dj, i + di]:
                points.append((i - 1 + di / 2, j - 1 + dj / 2))
    return np.array(points)


def widest_across(points, along) -> float:
    """Longest line perpendicular to ``along`` in the hull of ``points``: its edges are lines between pairs of them."""
    s, t = points @ along, points @ np.array([-along[1], along[0]])
    widest = 0.0
    for station in s:
        heights = list(t[np.isclose(s, station)])
        for a, b in itertools.permutations(range(len(points)), 2):
            if s[a] < station - 1e-9 and s[b] > station + 1e-9:
                heights.append(t[a] + (t[b] - t[a]) * (station - s[a]) / (s[b] - s[a]))
        widest = max(widest, max(heights) - min(heights))
    return widest


class BruteForceTest(unittest.TestCase):
    @settings(max_examples=60, deadline=None)
    @given(
        mask=arrays(bool, st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5))).filter(np.any),
        spacing=st.sampled_from([(1.0, 1.0, 1.0), (0.5, 0.8, 2.0), (1.3, 0.7, 1.0)]),
    )
    def test_axes_are_those_of_all_pairs_of_contour_points(self, mask, spacing):
        sizes = measure_alone(mask, spacing)
        slices = {k: contour_points(mask[k]) * spacing[:2] for k in range(len(mask)) if mask[k].any()}
        pairs = [(k, a, b, np.hypot(*(a - b))) for k, points in slices.items() for a, b in itertools.combinations(points, 2)]
        long = max(length for *_, length in pairs)
        self.assertAlmostEqual(sizes.long_axis_mm, long)
        tied = [(k, widest_across(slices[k], (a - b) / length)) for k, a, b, length in pairs if length > long - 1e-7]
        short = max(width for _, width in tied)
        self.assertAlmostEqual(sizes.short_axis_mm, short)
        self.assertEqual(sizes.slice_k, min(k for k, width in tied if width > short - 1e-7))
        self.assertGreater(sizes.short_axis_mm, 0)

    @settings(max_examples=150, deadline=None)
    @given(mask=arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24))).filter(np.any))
    def test_long_axis_of_larger_masks_and_mirror_images(self, mask):
        sizes = measure_alone(mask, (0.6, 0.9, 1.0))
        slices = [contour_points(one) * (0.6, 0.9) for one in mask if one.any()]
        long = max(np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)).max() for points in slices)
        self.assertAlmostEqual(sizes.long_axis_mm, long)
        mirrored = measure_alone(mask[:, ::-1, ::-1], (0.6, 0.9, 1.0))
        self.assertAlmostEqual(sizes.short_axis_mm, mirrored.short_axis_mm)
        self.assertAlmostEqual(sizes.volume_mm3, mask.sum() * 0.54)
        self.assertLessEqual(sizes.short_axis_mm, sizes.long_axis_mm)


if __name__ == "__main__":
    unittest.main()
