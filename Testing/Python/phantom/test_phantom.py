"""The phantom CT: a chest in which everything that is claimed of the lesions can be measured."""

from __future__ import annotations

import unittest
from itertools import combinations
from typing import ClassVar

import numpy as np
import SimpleITK as sitk

from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.phantom.lesion import GAP_MM, SOLID_HU, PhantomLesion
from NLSTSegLib.phantom.make import NOISE_HU, Phantom, make_phantom

COARSE_MM = (2.0, 2.0, 3.0)
MARGIN_VOXELS = 12


def depth_mm(mask: np.ndarray, spacing_ijk_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance to the mask's surface, positive inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_ijk_mm)
    return sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    )


class PhantomTest(unittest.TestCase):
    phantom: ClassVar[Phantom]
    lung_mask: ClassVar[np.ndarray]
    by_kind: ClassVar[dict[str, PhantomLesion]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.phantom = make_phantom(0)
        lung_mask = lung_field(cls.phantom.ct)
        assert lung_mask is not None
        cls.lung_mask = lung_mask
        cls.by_kind = {lesion.kind: lesion for lesion in cls.phantom.lesions}

    def box(self, lesion: PhantomLesion) -> tuple[slice, ...]:
        where = np.argwhere(self.phantom.labels == lesion.label)
        return tuple(
            slice(low - MARGIN_VOXELS, high + MARGIN_VOXELS + 1) for low, high in zip(where.min(0), where.max(0), strict=True)
        )

    def around(self, lesion: PhantomLesion) -> tuple[np.ndarray, np.ndarray]:
        """HU and depth inside the lesion (mm, below 0 outside), cut out with a margin."""
        box, ct = self.box(lesion), self.phantom.ct
        return ct.hu[box], depth_mm(self.phantom.labels[box] == lesion.label, ct.spacing_ijk_mm)

    def positions_mm(self, label: int) -> np.ndarray:
        return self.phantom.ct.lps_from_ijk_mm(np.argwhere(self.phantom.labels == label)[:, ::-1])

    def test_the_grid_is_that_of_a_chest_ct_around_the_origin(self) -> None:
        ct = self.phantom.ct
        self.assertEqual(ct.hu.shape, (128, 448, 448))
        self.assertEqual(ct.hu.dtype, np.int16)
        self.assertEqual(ct.spacing_ijk_mm, (0.75, 0.75, 2.25))
        self.assertEqual(ct.orientation, "LPS")
        np.testing.assert_allclose(ct.lps_from_ijk_mm(np.array([447, 447, 127]) / 2), 0, atol=1e-6)
        self.assertEqual(self.phantom.labels.shape, ct.hu.shape)
        self.assertEqual(self.phantom.labels.dtype, np.uint8)

    def test_outside_the_body_is_air_and_no_padding(self) -> None:
        corners = self.phantom.ct.hu[:, :20, [0, 1, -2, -1]]
        self.assertAlmostEqual(float(corners.mean()), -1000, delta=10)
        self.assertGreater(corners.std(), 5)
        self.assertGreaterEqual(self.phantom.ct.hu.min(), -1024)

    def test_each_of_the_six_kinds_is_there_once(self) -> None:
        self.assertEqual([lesion.label for lesion in self.phantom.lesions], [1, 2, 3, 4, 5, 6])
        self.assertEqual(list(self.by_kind), ["solid", "part-solid", "ground glass", "juxtapleural", "juxtavascular", "mass"])
        self.assertEqual(set(np.unique(self.phantom.labels)), set(range(7)))
        self.assertGreater(self.by_kind["mass"].diameter_mm, 30)
        self.assertGreaterEqual(min(lesion.diameter_mm for lesion in self.phantom.lesions), 8)

    def test_a_label_has_the_volume_of_the_sphere_of_its_diameter(self) -> None:
        for lesion in self.phantom.lesions:
            with self.subTest(lesion.kind):
                volume_mm3 = (self.phantom.labels == lesion.label).sum() * self.phantom.ct.voxel_volume_mm3
                # Only four or five slices go through the smallest, so where they happen to lie counts more.
                tolerance = 0.03 if lesion.diameter_mm >= 10 else 0.05
                self.assertAlmostEqual(volume_mm3 / (np.pi / 6 * lesion.diameter_mm**3), 1, delta=tolerance)

    def test_a_label_lies_about_the_stated_centre(self) -> None:
        for lesion in self.phantom.lesions:
            with self.subTest(lesion.kind):
                offset_mm = self.positions_mm(lesion.label).mean(axis=0) - lesion.centre_lps_mm
                self.assertLess(np.linalg.norm(offset_mm), 0.1 * lesion.diameter_mm)

    def test_lesions_keep_their_distance(self) -> None:
        rims = {}
        for lesion in self.phantom.lesions:
            positions_mm = self.positions_mm(lesion.label)
            out_mm = np.linalg.norm(positions_mm - lesion.centre_lps_mm, axis=1)
            rims[lesion.label] = positions_mm[out_mm > 0.3 * lesion.diameter_mm]
        for first, second in combinations(rims, 2):
            nearest_mm = min(np.linalg.norm(rims[first] - point, axis=1).min() for point in rims[second][::5])
            self.assertGreater(nearest_mm, GAP_MM)

    def test_the_inside_of_a_lesion_has_the_stated_density(self) -> None:
        for lesion in self.phantom.lesions:
            with self.subTest(lesion.kind):
                hu, depth = self.around(lesion)
                # The ground glass of the part-solid lesion lies in a ring around its core.
                inside = (depth > 0.5) & (depth < 1.8) if lesion.kind == "part-solid" else depth > 1
                self.assertAlmostEqual(float(np.median(hu[inside])), lesion.hu, delta=30)

    def test_the_part_solid_lesion_has_a_solid_core_of_the_stated_size(self) -> None:
        lesion = self.by_kind["part-solid"]
        hu, depth = self.around(lesion)
        core = (depth >= 0) & (hu > (SOLID_HU + lesion.hu) / 2)
        expected_mm3 = np.pi / 6 * lesion.solid_diameter_mm**3
        self.assertAlmostEqual(core.sum() * self.phantom.ct.voxel_volume_mm3 / expected_mm3, 1, delta=0.15)
        self.assertAlmostEqual(float(np.percentile(hu[core], 75)), SOLID_HU, delta=30)

    def test_a_solid_edge_passes_half_way_at_the_outline(self) -> None:
        hu, depth = self.around(self.by_kind["solid"])
        lung_hu = float(np.median(hu[(depth < -3) & (hu < -600)]))
        half_way_hu = (lung_hu + SOLID_HU) / 2
        # Depth is 0 at the outermost voxels inside and one pixel below at their neighbours outside.
        self.assertGreater(hu[depth == 0].mean(), half_way_hu + 100)
        self.assertLess(hu[(depth < 0) & (depth > -0.8)].mean(), half_way_hu - 100)

    def test_only_the_lesions_said_to_touch_something_do(self) -> None:
        tissue = {}
        for lesion in self.phantom.lesions:
            hu, depth = self.around(lesion)
            shell = hu[(depth < -1.5) & (depth > -3)]
            tissue[lesion.kind] = float((shell > -300).mean())
        self.assertGreater(tissue["juxtapleural"], 0.1)
        self.assertLess(tissue["juxtapleural"], 0.6)
        self.assertGreater(tissue["juxtavascular"], 0.01)
        self.assertLess(tissue["juxtavascular"], 0.3)
        for kind in ("solid", "part-solid", "ground glass"):
            self.assertLess(tissue[kind], 0.03, kind)
        # Vessels run into the mass.
        self.assertLess(tissue["mass"], 0.15)

    def test_the_lung_field_holds_two_lungs_and_every_lesion(self) -> None:
        lung = self.lung_mask & (self.phantom.ct.hu < -600)
        for half in (lung[:, :, :224], lung[:, :, 224:]):
            litres = half.sum() * self.phantom.ct.voxel_volume_mm3 / 1e6
            self.assertGreater(litres, 1.8)
            self.assertLess(litres, 2.7)
        for lesion in self.phantom.lesions:
            with self.subTest(lesion.kind):
                self.assertGreaterEqual(self.lung_mask[self.phantom.labels == lesion.label].mean(), 0.99)

    def test_the_lungs_hold_vessels_and_parenchyma_like_a_real_chest(self) -> None:
        hu = self.phantom.ct.hu
        inner = depth_mm(self.lung_mask[::2, ::4, ::4], (3, 3, 4.5)) > 12
        inner &= self.phantom.labels[::2, ::4, ::4] == 0
        inside = hu[::2, ::4, ::4][inner]
        self.assertAlmostEqual(float(np.median(inside)), -880, delta=25)
        vessels = float((inside > -500).mean())
        self.assertGreater(vessels, 0.01)
        self.assertLess(vessels, 0.15)

    def test_noise_has_its_strength_and_a_grain_within_the_slice(self) -> None:
        # A block of liver: nothing but noise.
        block = self.phantom.ct.hu[2:14, 180:220, 120:170].astype(float)
        self.assertAlmostEqual(block.std(), NOISE_HU, delta=1)

        def correlation(a: np.ndarray, b: np.ndarray) -> float:
            return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

        self.assertGreater(correlation(block[:, :, 1:], block[:, :, :-1]), 0.4)
        self.assertGreater(correlation(block[:, 1:], block[:, :-1]), 0.4)
        self.assertLess(abs(correlation(block[1:], block[:-1])), 0.05)


class PhantomSeedTest(unittest.TestCase):
    first: ClassVar[Phantom]

    @classmethod
    def setUpClass(cls) -> None:
        cls.first = make_phantom(3, spacing_ijk_mm=COARSE_MM)

    def test_the_same_seed_gives_the_same_phantom(self) -> None:
        again = make_phantom(3, spacing_ijk_mm=COARSE_MM)
        np.testing.assert_array_equal(again.ct.hu, self.first.ct.hu)
        np.testing.assert_array_equal(again.labels, self.first.labels)
        self.assertEqual(again.lesions, self.first.lesions)

    def test_another_seed_gives_other_lesions_and_other_noise(self) -> None:
        other = make_phantom(4, spacing_ijk_mm=COARSE_MM)
        for one, two in zip(self.first.lesions, other.lesions, strict=True):
            self.assertNotEqual(one.centre_lps_mm, two.centre_lps_mm)
        self.assertFalse(np.array_equal(other.ct.hu[:2], self.first.ct.hu[:2]))

    def test_the_spacing_samples_the_same_chest(self) -> None:
        finer = make_phantom(3, spacing_ijk_mm=(2.0, 2.0, 1.5))
        self.assertEqual(finer.ct.hu.shape, (192, 168, 168))
        self.assertEqual(finer.lesions, self.first.lesions)
        averaged = finer.ct.hu.reshape(96, 2, 168, 168).mean(axis=1)
        difference = averaged - self.first.ct.hu
        self.assertLess(abs(float(np.median(difference))), 2)
        self.assertLess(float(np.percentile(np.abs(difference), 95)), 100)

    def test_a_seed_or_spacing_that_cannot_be_used_is_refused_with_its_value(self) -> None:
        with self.assertRaisesRegex(InputError, "-1"):
            make_phantom(-1)
        with self.assertRaisesRegex(InputError, r"0\.1"):
            make_phantom(0, spacing_ijk_mm=(0.1, 0.75, 2.25))
