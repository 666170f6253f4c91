"""The pre-flight card of a volume node and what mends it: copies that lie where the volume lies, the volume untouched."""

import contextlib
import unittest

import numpy as np
import SimpleITK as sitk

from helpers.marks import real_data
from helpers.mrml_nodes import add_grid_transform, add_transform, add_volume, ras_from_ijk, rigid_motion, world_from_node
from helpers.placed_chest import chest_ct, chest_of_slices, leaning, rotation, true_centres_lps_mm, voxel_places_lps_mm
from helpers.shared_data import shared_data
from helpers.stored_ct import STORED_SHAPE, body_hu
from helpers.threshold_model import THRESHOLD_HU
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.scene.fixes import convert_copy, harden_copy, is_without_intercept, resample_copy
from NLSTSegLib.scene.volume_check import check_volume
from NLSTSegLib.scene.volumes import ct_from_volume_node
from NLSTSegLib.volume.ct import CtVolume
from slicer_stand_in.mrml_host import MrmlTestCase

OBLIQUE = rotation((0.1, -0.2, 0.15))


def lesion_centres_lps_mm(ct: CtVolume) -> np.ndarray:
    """``[lesion, (l, p, s)]`` of the placed chest, the largest first."""
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(ct.image_like((ct.hu > THRESHOLD_HU).astype(np.uint8))))
    voxels = np.bincount(labels.ravel())
    largest = 1 + np.argsort(-voxels[1:])[:3]
    places = voxel_places_lps_mm(ct)
    return np.array([places[labels == label].mean(axis=0) for label in largest])


class FixTestCase(MrmlTestCase):
    def lines(self, node, level=None):
        return [line for line in check_volume(node) if level in (None, line.level)]

    def fixes(self, node):
        return [line.fix.kind for line in check_volume(node) if line.fix]

    @contextlib.contextmanager
    def left_alone(self, node):
        """The volume is as before after the block."""
        import slicer

        image, voxels = node.GetImageData(), slicer.util.arrayFromVolume(node).copy()
        before = ras_matrix(node).tolist(), node.GetTransformNodeID(), node.GetName()
        yield
        self.assertIs(node.GetImageData(), image)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), voxels)
        self.assertEqual((ras_matrix(node).tolist(), node.GetTransformNodeID(), node.GetName()), before)


def ras_matrix(node) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


class CardTest(FixTestCase):
    def test_a_good_ct_has_green_lines_alone(self):
        node = add_volume(chest_ct(np.eye(3), shape_kji=(40, 60, 60), spacing_ijk_mm=(2.9, 2.9, 3.9)))
        self.assertEqual([line.level for line in self.lines(node)], ["good", "good"])
        self.assertIn("60 x 60 x 40 voxels of 2.90 x 2.90 x 3.90 mm", self.lines(node)[0].sentence)

    def test_looking_copies_and_changes_nothing(self):
        node = add_volume(chest_ct(np.eye(3)))
        with self.left_alone(node):
            self.lines(node)
        self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), 1)

    def test_what_is_looked_at_is_what_a_run_gets(self):
        ct = chest_ct(np.eye(3))
        for dtype in (np.int16, np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64):
            limits = (-30000, 30000) if np.dtype(dtype).kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            voxels = np.clip(ct.hu.astype(np.int64) * 60, *limits).astype(dtype)
            node = add_volume(ct, voxels=voxels)
            looked_at, copied = (ct_from_volume_node(node, copy=copy) for copy in (False, True))
            self.assertEqual(looked_at.hu.dtype, copied.hu.dtype)
            np.testing.assert_array_equal(looked_at.hu, copied.hu)
            self.assertEqual(looked_at.origin_lps_mm, copied.origin_lps_mm)

    def test_a_scaled_volume_and_a_label_map_are_red_without_a_fix(self):
        ct = chest_ct(np.eye(3))
        scaled = ((ct.hu - ct.hu.min()) / np.ptp(ct.hu)).astype(np.float32)
        labels = (ct.hu > -400).astype(np.uint8) + 2 * (ct.hu > 0).astype(np.uint8)
        grey = np.clip((ct.hu + 1000) / 6, 0, 255).astype(np.uint8)
        for voxels, words in ((scaled, "like a scaled image"), (labels, "label map"), (grey, "8-bit")):
            (line,) = self.lines(add_volume(ct, voxels=voxels), "error")
            self.assertIn(words, line.sentence)
            self.assertIsNone(line.fix)

    def test_volumes_that_are_no_ct_are_red_without_a_fix(self):
        import slicer

        empty = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
        colour = slicer.util.addVolumeFromArray(
            np.zeros((4, 5, 6, 3), np.uint8), name="Picture", nodeClassName="vtkMRMLVectorVolumeNode"
        )
        for node in (empty, colour):
            node.SetAndObserveTransformNodeID(add_transform(self.scene, np.diag([2.0, 2, 2, 1])).GetID())
            (line,) = self.lines(node)
            self.assertEqual((line.level, line.fix), ("error", None))
            self.assertRegex(line.sentence, f"^The volume '{node.GetName()}' .*[.]$")

    def test_sheared_grids_are_amber_and_need_no_fix(self):
        node = add_volume(chest_ct(leaning(0.2)))
        (line,) = [line for line in self.lines(node, "warning") if "lean" in line.sentence]
        self.assertIsNone(line.fix)
        self.assertIn("resampled to a regular grid", line.advice)
        self.assertFalse([line for line in self.lines(node, "good") if "grid" in line.sentence])

    def test_voxels_that_are_not_finite_are_counted_and_left_in_the_volume(self):
        voxels = chest_ct(np.eye(3)).hu.astype(np.float32)
        voxels[0, 0, 0] = np.nan
        node = add_volume(chest_ct(np.eye(3)), voxels=voxels)
        self.assertIn("1 voxels are NaN", self.lines(node, "warning")[0].sentence)
        import slicer

        self.assertTrue(np.isnan(slicer.util.arrayFromVolume(node)[0, 0, 0]), "the volume was mended")


class HardenTest(FixTestCase):
    def test_tilted_ct_under_the_grid_transform_of_dicom_import(self):
        heights_mm = np.arange(40) * 4.0
        ct, middle = chest_of_slices(np.eye(3), heights_mm, np.column_stack([0 * heights_mm, 0.27 * heights_mm]))
        node = add_volume(ct)
        node.SetAndObserveTransformNodeID(add_grid_transform(self.scene, ct).GetID())
        (line,) = self.lines(node)
        self.assertEqual((line.level, line.fix.kind), ("error", "harden"))
        self.assertIn("gantry tilt", line.sentence)
        with self.left_alone(node):
            copy = line.fix.apply(node)
        self.assertEqual(self.lines(copy, "error"), [])
        mended = ct_from_volume_node(copy)
        self.assertTrue(mended.is_orthogonal)
        off_mm = np.abs(lesion_centres_lps_mm(mended) - true_centres_lps_mm(middle))
        self.assertLess(off_mm.max(), 0.75)
        # What no slice covers is air.
        self.assertLessEqual(mended.hu[[0, -1]][:, [0, -1]].max(), -900)

    def test_scaling_and_shearing_transforms(self):
        shear = np.eye(4)
        shear[1, 2] = 0.2
        for matrix in (np.diag([1.5, 1.5, 1.5, 1.0]), shear):
            ct = chest_ct(OBLIQUE)
            node = add_volume(ct)
            inner, outer = add_transform(self.scene, matrix), add_transform(self.scene, rigid_motion())
            inner.SetAndObserveTransformNodeID(outer.GetID())
            node.SetAndObserveTransformNodeID(inner.GetID())
            self.assertEqual(self.fixes(node), ["harden"])
            with self.left_alone(node):
                copy = harden_copy(node)
            self.assertIsNone(copy.GetParentTransformNode())
            np.testing.assert_allclose(ras_matrix(copy), world_from_node(node) @ ras_from_ijk(ct), atol=1e-9)
            np.testing.assert_array_equal(ct_from_volume_node(copy).hu, ct.hu)
            self.assertNotIn("harden", self.fixes(copy))

    def test_a_rigid_transform_needs_none(self):
        node = add_volume(chest_ct(OBLIQUE))
        node.SetAndObserveTransformNodeID(add_transform(self.scene, rigid_motion()).GetID())
        self.assertNotIn("harden", self.fixes(node))


class ResampleTest(FixTestCase):
    def test_odd_pixels_become_usual_ones_and_lesions_stay_in_place(self):
        for direction, shape, spacing in (
            (OBLIQUE, (40, 40, 44), (4.1, 4.3, 4.0)),
            (OBLIQUE[:, [2, 0, 1]] * (1, -1, 1), (44, 40, 40), (3.9, 4.1, 4.3)),
        ):
            ct = chest_ct(direction, shape_kji=shape, spacing_ijk_mm=spacing)
            node = add_volume(ct, "Coarse")
            node.SetAndObserveTransformNodeID(add_transform(self.scene, rigid_motion()).GetID())
            self.assertEqual(self.fixes(node), ["resample"])
            with self.left_alone(node):
                copy = resample_copy(node)
            self.assertTrue(copy.GetName().startswith("Coarse resampled"), copy.GetName())
            self.assertEqual(copy.GetTransformNodeID(), node.GetTransformNodeID())
            self.assertEqual(self.fixes(copy), [])
            mended = ct_from_volume_node(copy)
            self.assertEqual(mended.hu.dtype, np.int16)
            off_mm = np.abs(lesion_centres_lps_mm(mended) - true_centres_lps_mm()).max()
            self.assertLess(off_mm, 0.75)
            # The outer borders of the voxels, and the slices, are those of before.
            for corner in ((-0.5, -0.5, -0.5), (1, 1, 1)):
                places = [
                    volume.lps_from_ijk_mm(corner if corner[0] < 0 else np.array(volume.hu.shape[::-1]) - 0.5)
                    for volume in (ct, mended)
                ]
                np.testing.assert_allclose(*places, atol=1e-6)
            along = int(np.abs(direction[2]).argmax())
            self.assertAlmostEqual(mended.spacing_ijk_mm[along], ct.spacing_ijk_mm[along])
            self.assertEqual(mended.hu.shape[2 - along], ct.hu.shape[2 - along])
            for axis in {0, 1, 2} - {along}:
                self.assertAlmostEqual(mended.spacing_ijk_mm[axis], 0.7, delta=0.01)

    def test_fine_pixels_are_averaged(self):
        rng = np.random.default_rng(0)
        hu = rng.normal(-800, 100, (16, 96, 96)).astype(np.int16)
        node = add_volume(CtVolume(hu, (0.1, 0.1, 1.0)))
        mended = ct_from_volume_node(resample_copy(node))
        self.assertEqual(mended.hu.shape, (16, 14, 14))
        self.assertAlmostEqual(float(mended.hu.mean()), -800, delta=5)
        self.assertLess(float(mended.hu.std()), 100 / 7 * 1.6)

    def test_a_very_wide_field_gets_larger_pixels_and_a_usual_one_no_fix(self):
        node = add_volume(CtVolume(np.zeros((16, 200, 210), np.int16), (4.0, 4.0, 2.0)))
        self.assertLessEqual(max(ct_from_volume_node(resample_copy(node)).hu.shape), 1024)
        self.assertEqual(self.fixes(add_volume(chest_ct(np.eye(3), shape_kji=(40, 60, 60), spacing_ijk_mm=(2.9, 2.9, 4.0)))), [])


class ConvertTest(FixTestCase):
    def test_stored_values_become_hu(self):
        hu = body_hu()
        ct = CtVolume(hu, (0.8, 0.7, 2.0), (10.0, 20.0, 30.0), tuple(OBLIQUE.ravel()))
        for dtype in (np.uint16, np.int16, np.int32, np.float32):
            node = add_volume(ct, "Stored", (hu.astype(np.int32) + 1024).astype(dtype))
            self.assertEqual(self.fixes(node), ["convert"], dtype)
            with self.left_alone(node):
                copy = convert_copy(node)
            mended = ct_from_volume_node(copy)
            self.assertEqual(mended.hu.dtype, np.int16)
            np.testing.assert_array_equal(mended.hu, hu)
            np.testing.assert_allclose(ras_matrix(copy), ras_from_ijk(ct), atol=1e-12)
            self.assertEqual([line.level for line in self.lines(copy)], ["good", "good"])
            self.scene.Clear()

    def test_it_is_offered_only_where_the_values_leave_no_doubt(self):
        hu = body_hu()
        stored = hu.astype(np.int32) + 1024
        rng = np.random.default_rng(1)
        doubtful = {
            "HU": hu,
            "another intercept": stored + 300,
            "scaled": stored * 2,
            "fractions": (stored + 0.5).astype(np.float32),
            "a labelled part": np.where(stored > 1500, -1, stored),
            "MR": np.abs(rng.normal(900, 400, STORED_SHAPE) * (rng.random(STORED_SHAPE) > 0.4)).astype(np.int32),
            "no air": np.maximum(stored, 900),
        }
        for name, voxels in doubtful.items():
            node = add_volume(CtVolume(hu, (0.8, 0.7, 2.0)), voxels=voxels)
            with self.subTest(name):
                self.assertNotIn("convert", self.fixes(node))
                with self.assertRaisesRegex(InputError, "load the CT again"):
                    convert_copy(node)

    @real_data
    @unittest.skipIf(shared_data() is None, "the shared CT data are not here")
    def test_real_ct(self):
        ct = read_ct(shared_data() / "ct" / "LIDC-IDRI-0002" / "ct.nrrd")
        ct = CtVolume(np.maximum(ct.hu[::4, ::2, ::2], -1024), (1.4, 1.4, 5.0))
        self.assertFalse(is_without_intercept(ct))
        self.assertTrue(is_without_intercept(CtVolume(ct.hu + np.int16(1024), ct.spacing_ijk_mm)))
        for wrong in (ct.hu + np.int16(1400), ct.hu // 2 + np.int16(512), np.maximum(ct.hu, 0)):
            self.assertFalse(is_without_intercept(CtVolume(wrong, ct.spacing_ijk_mm)))


class PlaceTest(FixTestCase):
    def test_copy_lies_in_the_study_with_a_name_of_its_own_and_its_modality(self):
        import slicer

        hierarchy = self.scene.GetSubjectHierarchyNode()
        study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
        node = add_volume(chest_ct(np.eye(3)), "Chest")
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(study, node)
        hierarchy.SetItemParent(item, study)
        attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        hierarchy.SetItemAttribute(item, attribute, "CT")
        copies = [harden_copy(node), harden_copy(node)]
        self.assertEqual(len({copy.GetName() for copy in (node, *copies)}), 3)
        for copy in copies:
            self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(copy)), study)
            self.assertEqual(ct_from_volume_node(copy).acquisition.modality, "CT")

    def test_a_volume_in_no_scene_is_refused(self):
        import slicer

        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName("Alone")
        with self.assertRaisesRegex(InputError, "'Alone' is in no scene"):
            harden_copy(node)
