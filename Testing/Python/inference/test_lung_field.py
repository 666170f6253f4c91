"""The lung field holds both lungs and what grows in them, and nothing of the room, the belly or the trachea."""

import unittest

import numpy as np

from helpers.shared_data import shared_data
from NLSTSegLib.checks.preflight import check_lungs
from NLSTSegLib.inference.lung_field import GRID_MM, MARGIN_MM, lung_field
from NLSTSegLib.phantom.anatomy import lung_level
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume, to_canonical

AIR_HU, LUNG_HU, TISSUE_HU = -1000, -850, 40


def field_of(hu: np.ndarray, spacing_ijk_mm=(1.0, 1.0, 2.0)) -> np.ndarray | None:
    lung_mask = lung_field(CtVolume(np.ascontiguousarray(hu), spacing_ijk_mm))
    if lung_mask is not None:
        assert lung_mask.shape == hu.shape
        assert lung_mask.dtype == bool
    return lung_mask


def box_chest(shape_kji=(40, 130, 170)) -> np.ndarray:
    """At 1 x 1 x 2 mm: room, a body from 10 mm on, and a box-shaped lung on either side of 30 mm of tissue."""
    hu = np.full(shape_kji, AIR_HU, np.int16)
    hu[:, 10:-10, 10:-10] = TISSUE_HU
    hu[4:-4, 30:-30, 20:70] = LUNG_HU
    hu[4:-4, 30:-30, -70:-20] = LUNG_HU
    return hu


class PhantomTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        phantom = make_phantom(0, spacing_ijk_mm=(1.0, 1.0, 2.25))
        cls.ct, cls.lesion = phantom.ct, phantom.labels > 0
        k, j, i = (np.arange(n, dtype=np.float32) for n in cls.ct.hu.shape)
        x, y, z = (axis * s + o for axis, s, o in zip((i, j, k), cls.ct.spacing_ijk_mm, cls.ct.origin_lps_mm, strict=True))
        cls.axes = (x[None, None, :], y[None, :, None], z[:, None, None])
        cls.lung = lung_level(cls.axes) < 0
        cls.lung_mask = field_of(cls.ct.hu, cls.ct.spacing_ijk_mm)

    def test_both_lungs_are_inside(self):
        x = self.axes[0]
        for side in (x < 0, x > 0):
            self.assertGreater(self.lung_mask[self.lung & side].mean(), 0.998)

    def test_every_lesion_is_inside_whole(self):
        self.assertTrue(self.lung_mask[self.lesion].all())

    def test_field_is_little_larger_than_the_lungs(self):
        self.assertLess(self.lung_mask.sum(), 1.4 * self.lung.sum())

    def test_room_table_and_skin_are_outside(self):
        x, y, _ = self.axes
        body = (np.abs(x) / 155) ** 2.3 + (np.abs(y) / 105) ** 2.3 < 1
        self.assertFalse((self.lung_mask & ~body).any())

    def test_liver_and_heart_are_outside(self):
        x, y, z = self.axes
        for middle_mm, radius_mm in (((-60, -14, -100), 28), ((12, -32, -28), 18)):
            organ = (x - middle_mm[0]) ** 2 + (y - middle_mm[1]) ** 2 + (z - middle_mm[2]) ** 2 < radius_mm**2
            self.assertGreater(self.ct.hu[organ].mean(), 0)
            self.assertFalse((self.lung_mask & organ).any())

    def test_trachea_is_outside(self):
        # Its axis runs from (0, 4, 200) to the carina at (0, 10, 34); looked at well above the carina.
        x, y, z = self.axes
        middle = 4 + 6 * (200 - z) / 166
        lumen = (x**2 + (y - middle) ** 2 < 5**2) & (z > 60)
        self.assertLess(self.ct.hu[lumen].mean(), -900)
        self.assertLess(self.lung_mask[lumen].mean(), 0.05)

    def test_turned_and_mirrored_patients(self):
        hu, lesion = self.ct.hu[::2], self.lesion[::2]
        for name, turn in (
            ("prone", np.s_[:, ::-1, ::-1]),
            ("mirrored front to back", np.s_[:, ::-1]),
            ("mirrored left to right", np.s_[:, :, ::-1]),
            ("upside down", np.s_[::-1]),
        ):
            with self.subTest(name):
                lung_mask = field_of(hu[turn], (1.0, 1.0, 4.5))
                self.assertTrue(lung_mask[lesion[turn]].all())
                self.assertAlmostEqual(lung_mask.mean() / self.lung_mask.mean(), 1, delta=0.05)

    def test_other_spacings_give_the_same_field(self):
        for step_k, step_j, step_i in ((2, 1, 1), (1, 3, 3), (3, 1, 2)):
            with self.subTest(step=(step_k, step_j, step_i)):
                part = np.s_[::step_k, ::step_j, ::step_i]
                lung_mask = field_of(self.ct.hu[part], (1.0 * step_i, 1.0 * step_j, 2.25 * step_k))
                self.assertTrue(lung_mask[self.lesion[part]].all())
                both = (lung_mask & self.lung_mask[part]).sum()
                self.assertGreater(2 * both / (lung_mask.sum() + self.lung_mask[part].sum()), 0.96)

    def test_float_voxels_with_any_padding_give_the_same_field(self):
        part = np.s_[::2, ::2, ::2]
        whole = field_of(self.ct.hu[part], (2.0, 2.0, 4.5))
        for padding in (-3024.0, -1e9):
            hu = self.ct.hu[part].astype(np.float32)
            hu[:, :3] = padding
            np.testing.assert_array_equal(field_of(hu, (2.0, 2.0, 4.5)), whole)

    def test_lungs_that_go_on_beyond_the_volume_s_ends_are_not_cut_there(self):
        part = np.s_[45:85]
        lung_mask = field_of(self.ct.hu[part], self.ct.spacing_ijk_mm)
        for k in (0, -1):
            self.assertGreater(self.lung[part][k].sum(), 5_600)
            self.assertGreater(lung_mask[k][self.lung[part][k]].mean(), 0.995)
        self.assertTrue(lung_mask[self.lesion[part]].all())

    def test_stacks_of_one_and_two_slices(self):
        for count in (1, 2):
            part = np.s_[60 : 60 + count]
            lung_mask = field_of(self.ct.hu[part], self.ct.spacing_ijk_mm)
            self.assertGreater(lung_mask[self.lung[part]].mean(), 0.99)

    def test_lungs_cut_by_the_field_of_view_are_found_and_told(self):
        for sides, part in (("right", np.s_[:, :, 60:]), ("right, left", np.s_[:, :, 60:-60])):
            with self.subTest(sides):
                ct = CtVolume(np.ascontiguousarray(self.ct.hu[::2][part]), (1.0, 1.0, 4.5))
                lung_mask = lung_field(ct)
                self.assertGreater(lung_mask[self.lung[::2][part]].mean(), 0.995)
                self.assertTrue(lung_mask[self.lesion[::2][part]].all())
                (finding,) = check_lungs(ct, lung_mask)
                self.assertEqual(finding.code, "lungs_cut")
                self.assertIn(f"({sides})", finding.message)

    def test_room_that_reaches_the_sides_but_no_corner(self):
        # As after a rotation that fills the corners with 0: a disc of image, with the patient and the room in it.
        x, y, _ = self.axes
        hu = np.where(x**2 + y**2 < 167**2, self.ct.hu, 0)[::2, ::2, ::2]
        lung_mask = field_of(hu, (2.0, 2.0, 4.5))
        whole = field_of(self.ct.hu[::2, ::2, ::2], (2.0, 2.0, 4.5))
        np.testing.assert_array_equal(lung_mask, whole)

    def test_padding_of_any_value_and_shape_changes_nothing(self):
        hu, spacing = self.ct.hu[::2, ::3, ::3], (3.0, 3.0, 4.5)
        whole = field_of(hu, spacing)
        for value in (0, -1024, -3024, -700, 40, 3071):
            for name, around in (("all sides", (10, 10)), ("two sides", (10, 0))):
                with self.subTest(name, value=value):
                    padded = np.pad(hu, ((0, 0), around, around), constant_values=value)
                    rows, columns = (slice(around[0], around[0] + n) for n in hu.shape[1:])
                    field = field_of(padded, spacing)
                    self.assertEqual(field.sum(), field[:, rows, columns].sum())
                    self.assertGreater(2 * (field[:, rows, columns] & whole).sum() / (field.sum() + whole.sum()), 0.99)
            with self.subTest("empty slices", value=value):
                field = field_of(np.pad(hu, ((3, 3), (0, 0), (0, 0)), constant_values=value), spacing)
                self.assertGreater(2 * (field[3:-3] & whole).sum() / (field.sum() + whole.sum()), 0.99)

    def test_lungs_that_reach_a_round_field_of_view_are_kept(self):
        x, y, _ = self.axes
        for value in (0, -1024, -3024):
            with self.subTest(value=value):
                hu = np.where(x**2 + y**2 < 125**2, self.ct.hu, value)[::2, ::2, ::2]
                seen = (self.lung & (x**2 + y**2 < 124**2))[::2, ::2, ::2]
                self.assertGreater(field_of(hu, (2.0, 2.0, 4.5))[seen].mean(), 0.99)

    def test_what_fluid_leaves_of_a_lung_is_in_the_field(self):
        x, _, z = self.axes
        for top_mm in (85, 92, 100):
            with self.subTest(top_mm=top_mm):
                hu, part = self.ct.hu.copy(), self.lung & (x < -22) & (z >= top_mm)
                hu[self.lung & (x < -3) & ~part] = 20
                field = field_of(hu[::2, ::2, ::2], (2.0, 2.0, 4.5))
                self.assertGreater(field[part[::2, ::2, ::2]].mean(), 0.99)
                self.assertGreater(field[(self.lung & (x > 5))[::2, ::2, ::2]].mean(), 0.998)

    def test_gas_in_the_bowel_is_no_part_of_a_lung(self):
        x, y, z = self.axes
        hu = self.ct.hu.copy()
        gas = ((x + 60) / 35) ** 2 + ((y + 14) / 35) ** 2 + ((z + 100) / 18) ** 2 < 1
        hu[gas] = -990
        field = field_of(hu[::2, ::2, ::2], (2.0, 2.0, 4.5))
        self.assertLess(field[gas[::2, ::2, ::2]].mean(), 0.5)

    def test_a_table_with_a_light_core_is_no_lung(self):
        x, y, _ = self.axes
        hu = self.ct.hu.copy()
        shell = (np.abs(x) < 130) & (np.abs(y - 135) < 20)
        core = (np.abs(x) < 126) & (np.abs(y - 135) < 16)
        hu[np.broadcast_to(shell, hu.shape)], hu[np.broadcast_to(core, hu.shape)] = 100, -900
        field = field_of(hu[::2, ::2, ::2], (2.0, 2.0, 4.5))
        self.assertFalse((field & np.broadcast_to(core, hu.shape)[::2, ::2, ::2]).any())


class MadeChestTest(unittest.TestCase):
    def test_field_is_the_lungs_grown_by_the_margin(self):
        lung_mask = field_of(box_chest())
        i = np.flatnonzero(lung_mask[20, 65])
        # Between the lungs, 30 mm apart, the closing leaves tissue out; outwards the margin is what was asked for.
        for outer in (i[0] - (20 - MARGIN_MM), (149 + MARGIN_MM) - i[-1]):
            self.assertLessEqual(abs(outer), GRID_MM / 2)
        self.assertTrue(lung_mask[box_chest() == LUNG_HU].all())

    def test_empty_slices_at_an_end_where_the_lungs_are_cut_change_nothing(self):
        cut = box_chest()[4:20]
        whole = field_of(cut)
        self.assertIsNotNone(whole)
        empty = np.full((2, *cut.shape[1:]), AIR_HU, np.int16)
        for before, after in ((empty[:0], empty), (empty[:1], empty[:0]), (empty, empty)):
            lung_mask = field_of(np.concatenate((before, cut, after)))
            self.assertIsNotNone(lung_mask)
            np.testing.assert_array_equal(lung_mask[len(before) : len(before) + len(cut)] & (cut < 0), whole & (cut < 0))

    def test_an_end_aslant_that_opens_the_lungs_to_the_room_hides_them_not(self):
        whole = box_chest()
        # Room air is uneven, so it is no padding.
        whole[whole == AIR_HU] += np.random.default_rng(0).integers(-20, 20, np.count_nonzero(whole == AIR_HU)).astype(np.int16)
        expected = field_of(whole)
        for end in (slice(-7, None), slice(7)):
            hu = whole.copy()
            # In the last slices of lung nothing was seen of the front of the body and of a part of the lungs.
            hu[end, :60, 60:110] = -1024
            with self.subTest(end=end):
                found = field_of(hu)
                away = np.ones(len(hu), bool)
                away[end] = False
                self.assertIsNotNone(found)
                self.assertTrue(found[away][(whole == LUNG_HU)[away]].all())
                self.assertLess(np.count_nonzero(found[away] != expected[away]), 100)
                self.assertFalse(found[end, :20].any())

    def test_coarse_search_does_not_shift_the_field(self):
        # Five fine pixels make a pixel of the search; the chest is its own mirror image, and so must be the field.
        hu = np.full((40, 130, 170), TISSUE_HU, np.int16)
        hu[4:-4, 32:-32, 23:73] = LUNG_HU
        hu[4:-4, 32:-32, -73:-23] = LUNG_HU
        lung_mask = field_of(hu, (0.5, 0.5, 2.0))
        for mirror in (np.s_[:, ::-1], np.s_[:, :, ::-1]):
            np.testing.assert_array_equal(lung_mask[mirror], lung_mask)

    def test_masses_on_the_pleura_stay_inside(self):
        for diameter_mm in (10, 20, 25):
            with self.subTest(diameter_mm=diameter_mm):
                hu = box_chest()
                k, j, i = np.indices(hu.shape)
                mass = ((k - 20) * 2) ** 2 + (j - 65) ** 2 + (i - 20) ** 2 <= (diameter_mm / 2) ** 2
                mass &= i >= 20
                hu[mass] = TISSUE_HU
                self.assertTrue(field_of(hu)[mass].all())

    def test_nodules_inside_a_lung_stay_inside_whatever_their_size(self):
        hu = box_chest()
        k, j, i = np.indices(hu.shape)
        mass = ((k - 20) * 2) ** 2 + (j - 65) ** 2 + (i - 45) ** 2 <= 18**2
        hu[mass] = TISSUE_HU
        self.assertTrue(field_of(hu)[mass].all())

    def test_where_there_are_no_lungs(self):
        bowel = np.full((40, 100, 100), TISSUE_HU, np.int16)
        bowel[10:20, 40:60, 40:60] = AIR_HU
        belly = np.full((40, 100, 100), AIR_HU, np.int16)
        belly[:, 10:-10, 10:-10] = TISSUE_HU
        pipe = belly.copy()
        pipe[:, 45:55, 45:55] = AIR_HU
        for name, hu in (
            ("water", np.zeros((40, 100, 100), np.int16)),
            ("air", np.full((40, 100, 100), AIR_HU, np.int16)),
            ("two slices of water", np.zeros((2, 100, 100), np.int16)),
            ("one voxel", np.zeros((1, 1, 1), np.int16)),
            ("one voxel of air", np.full((1, 1, 1), AIR_HU, np.int16)),
            ("a bubble of 8 ml", bowel),
            ("a body without air", belly),
            ("a trachea alone", pipe),
        ):
            with self.subTest(name):
                self.assertIsNone(field_of(hu))

    def test_airless_lung_does_not_hide_the_other(self):
        hu = box_chest()
        hu[4:-4, 30:-30, 20:70] = TISSUE_HU
        lung_mask = field_of(hu)
        self.assertTrue(lung_mask[hu == LUNG_HU].all())
        self.assertFalse(lung_mask[:, :, :70].any())

    def test_gas_of_the_bowel_below_the_lungs_is_outside_and_a_dark_lung_beside_a_dense_one_is_not(self):
        hu = box_chest((60, 130, 170))
        hu[:30] = box_chest()[0]
        hu[30:34] = hu[0]
        lungs = field_of(hu)
        hu[4:24, 40:90, 50:120] = -980
        np.testing.assert_array_equal(field_of(hu), lungs)
        dark = box_chest()
        dark[:, :, :85][dark[:, :, :85] == LUNG_HU] = -960
        dark[:, :, 85:][dark[:, :, 85:] == LUNG_HU] = -650
        np.testing.assert_array_equal(field_of(dark), field_of(box_chest()))

    def test_what_is_nearer_to_gas_of_the_bowel_than_to_a_lung_is_outside(self):
        hu = box_chest((60, 130, 170))
        hu[:30] = box_chest()[0]
        hu[30:34] = hu[0]
        # Bowel rises into a hollow of the right lung's base, which the closing fills in part.
        hollow, gas = np.s_[34:42, 45:85, 28:62], np.s_[24:38, 50:80, 34:56]
        hu[hollow] = TISSUE_HU
        self.assertTrue(field_of(hu)[gas].any())
        hu[gas] = -980
        field = field_of(hu)
        self.assertFalse(field[gas].any())
        self.assertTrue(field[hu == LUNG_HU].all())
        self.assertTrue(field[36, 50:80, 28:30].all())

    def test_a_little_gas_need_not_be_as_much_darker_than_the_lungs(self):
        hu = box_chest((60, 130, 170))
        hu[:30] = box_chest()[0]
        hu[30:34] = hu[0]
        lungs = field_of(hu)
        hu[10:16, 40:70, 60:90] = LUNG_HU - 40
        np.testing.assert_array_equal(field_of(hu), lungs)

    def test_small_lung_beside_a_large_one(self):
        hu = box_chest()
        hu[4:-4, 30:80, 20:70] = TISSUE_HU  # what is left on the right is 28 % of the left
        lung_mask = field_of(hu)
        self.assertTrue(lung_mask[hu == LUNG_HU].all())


class RealChestTest(unittest.TestCase):
    def chest(self, name: str, file: str) -> tuple[CtVolume, np.ndarray]:
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        ct = read_ct(data / "ct" / name / file)
        votes = to_canonical(read_ct(data / "ct" / name / "votes.nrrd")).hu
        return to_canonical(ct), votes

    def test_every_voxel_that_two_readers_marked_is_inside(self):
        for name, file in (("LIDC-IDRI-0001", "dicom"), ("LIDC-IDRI-0002", "ct.nrrd")):
            with self.subTest(name):
                ct, votes = self.chest(name, file)
                lung_mask = lung_field(ct)
                self.assertGreater((votes >= 2).sum(), 5000)
                self.assertTrue(lung_mask[votes >= 2].all())
                # A field, not the body: air makes up most of it.
                self.assertGreater(np.mean(ct.hu[lung_mask] < -500), 0.6)

    def test_prone_patient(self):
        ct, votes = self.chest("LIDC-IDRI-0001", "dicom")
        lung_mask = field_of(ct.hu[:, ::-1, ::-1], ct.spacing_ijk_mm)
        self.assertTrue(lung_mask[votes[:, ::-1, ::-1] >= 2].all())
