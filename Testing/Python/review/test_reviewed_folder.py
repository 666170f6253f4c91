"""A reviewed case as files: label map, table, audit, segmentation, training case; whole or not at all, nothing overwritten."""

import csv
import os
import stat
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.example_results import oblique_direction
from helpers.mrml_nodes import add_volume
from helpers.review_scene import FAINT, UNSEEN, ReviewTestCase, begin, ct_with_balls, soft_result, voxels_of
from NLSTSegLib.disk.csv_table import write_table
from NLSTSegLib.errors import InputError
from NLSTSegLib.review.folder import AUDIT_COLUMNS, TABLE_COLUMNS, audit_rows, write_review
from NLSTSegLib.review.state import Status
from NLSTSegLib.review.training_case import write_training_case
from NLSTSegLib.scene.adding import add_lesion, find_lesion_at
from NLSTSegLib.scene.correction import delete_lesion, merge_lesions
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_state import add_seconds_in_focus, lesion_state
from NLSTSegLib.scene.review import resume_review
from NLSTSegLib.scene.segmentation_file import write_segmentation_node
from NLSTSegLib.scene.sizes import reviewed_case
from NLSTSegLib.scene.threshold import ThresholdDrag
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.scan_hash import scan_sha256


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows = list(table)
        return list(table.fieldnames), rows


class ExportTestCase(ReviewTestCase):
    """One lesion accepted, one rejected, one edited, two added."""

    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.first = self.voxels()
        self.editor.decide(["Lesion_01"], Status.ACCEPTED, "Dr. Müller")
        self.editor.decide(["Lesion_02"], Status.REJECTED, "Dr. Müller")
        ThresholdDrag(self.editor, "Lesion_03").move(0.3)
        add_seconds_in_focus(self.node, "Lesion_03", 41.4)
        for ball in (FAINT, UNSEEN):
            add_lesion(self.editor, find_lesion_at(self.node, self.at(ball.centre_ijk)), "Dr. B")

    def export(self, name: str = "review") -> Path:
        write_review(reviewed_case(self.node), self.folder / name, partial(write_segmentation_node, self.node))
        return self.folder / name

    def counted(self) -> np.ndarray:
        """The label map as it should be."""
        labels = np.zeros(self.ct.hu.shape, int)
        for label, segment_id in enumerate(("Lesion_01", "Lesion_03", "Lesion_04", "Lesion_05"), start=1):
            labels[self.voxels()[segment_id]] = label
        return labels

    def assert_grid(self, image: sitk.Image, atol: float = 1e-4):
        np.testing.assert_allclose(image.GetSpacing(), self.ct.spacing_ijk_mm, atol=1e-6)
        np.testing.assert_allclose(image.GetOrigin(), self.ct.origin_lps_mm, atol=atol)
        np.testing.assert_allclose(image.GetDirection(), self.ct.direction_lps, atol=1e-6)


class ReviewFilesTest(ExportTestCase):
    def test_folder_holds_the_four_files(self):
        names = {path.name for path in self.export().iterdir()}
        self.assertEqual(names, {"labels.nii.gz", "lesions.csv", "audit.csv", "segmentation.seg.nrrd"})
        self.assertEqual([path.name for path in self.folder.iterdir()], ["review"])

    def test_label_map_leaves_rejected_lesions_out(self):
        image = sitk.ReadImage(self.export() / "labels.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), self.counted())
        self.assert_grid(image)

    def test_table_says_which_lesions_count_and_their_labels(self):
        columns, rows = read_table(self.export() / "lesions.csv")
        self.assertEqual(tuple(columns), TABLE_COLUMNS)
        found = [(row["lesion"], row["status"], row["counted"], row["label"], row["origin"]) for row in rows]
        self.assertEqual(
            found,
            [
                ("Lesion 01", "accepted", "1", "1", "model"),
                ("Lesion 02", "rejected", "0", "", "model"),
                ("Lesion 03", "edited", "1", "2", "model"),
                ("Lesion 04", "edited", "1", "3", "probability"),
                ("Lesion 05", "edited", "1", "4", "manual"),
            ],
        )
        counts = np.bincount(self.counted().ravel())
        for row in rows:
            if row["label"]:
                self.assertEqual(int(row["volume_mm3"]), round(counts[int(row["label"])] * self.ct.voxel_volume_mm3))
        self.assertEqual([row["reader"] for row in rows], ["Dr. Müller", "Dr. Müller", "", "Dr. B", "Dr. B"])
        self.assertEqual((rows[2]["seconds"], rows[4]["score"]), ("41", ""))

    def test_names_and_readers_are_no_formulas_in_a_spreadsheet(self):
        formulas = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(1)", " =1", "\t=1", "a=1", "Lesion 01"]
        path = self.folder / "names.csv"
        write_table(path, ["reader", "score"], [{"reader": name, "score": -1.5} for name in formulas])
        _, rows = read_table(path)
        self.assertEqual([row["reader"] for row in rows], [f"'{name}" for name in formulas[:6]] + formulas[6:])
        self.assertEqual({row["score"] for row in rows}, {"-1.5"})

    def test_segmentation_holds_every_lesion_with_its_state(self):
        import slicer

        path = self.export() / "segmentation.seg.nrrd"
        expected = {each: lesion_state(self.node, each) for each in self.node.GetSegmentation().GetSegmentIDs()}
        loaded = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(path))
        resume_review(loaded, self.volume_node)
        self.assertEqual({each: lesion_state(loaded, each) for each in loaded.GetSegmentation().GetSegmentIDs()}, expected)
        np.testing.assert_equal(voxels_of(loaded, self.ct.hu.shape), self.voxels())
        self.assertFalse(loaded.GetDisplayNode().GetSegmentVisibility("Lesion_02"))

    def test_lesions_of_all_kinds_of_labelmaps_are_whole_in_the_file(self):
        import slicer

        k, j, i = (int(n[0]) for n in self.voxels()["Lesion_01"].nonzero())
        self.paint("Lesion_03", (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1)))
        self.node.GetSegmentation().AddEmptySegment("Empty", "Empty")
        before, layers = self.voxels(), self.node.GetSegmentation().GetNumberOfLayers()
        self.assertGreater(layers, 1)
        path = self.folder / "x.seg.nrrd"
        write_segmentation_node(self.node, path)
        loaded = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(path))
        np.testing.assert_equal(voxels_of(loaded, self.ct.hu.shape), before)
        np.testing.assert_equal(self.voxels(), before)
        self.assertEqual(self.node.GetSegmentation().GetNumberOfLayers(), layers)

    def test_leaning_stack_gets_a_label_map_that_can_hold_it(self):
        leaning = np.array(self.ct.direction_matrix)
        leaning[:, 2] = leaning[:, 2] + 0.3 * leaning[:, 0]
        leaning[:, 2] /= np.linalg.norm(leaning[:, 2])
        case = reviewed_case(self.node)
        case = replace(case, ct=replace(case.ct, direction_lps=tuple(leaning.ravel().tolist())))
        write_review(case, self.folder / "x", partial(write_segmentation_node, self.node))
        image = sitk.ReadImage(self.folder / "x" / "labels.nrrd")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), self.counted())
        np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), leaning, atol=1e-6)

    def test_nothing_is_overwritten(self):
        folder = self.export()
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with self.assertRaisesRegex(InputError, "holds 'audit.csv' already"):
            self.export()
        self.assertEqual({path: path.read_bytes() for path in folder.iterdir()}, before)

    def test_failure_leaves_nothing(self):
        def fails(path: Path) -> None:
            path.write_text("half")
            raise InputError("no room")

        with self.assertRaisesRegex(InputError, "no room"):
            write_review(reviewed_case(self.node), self.folder / "x", fails)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_segmentation_file_that_cannot_be_written_is_named(self):
        with self.assertRaisesRegex(InputError, "could not be written"):
            write_segmentation_node(self.node, self.folder / "none" / "x.seg.nrrd")

    def test_voxel_of_two_lesions_belongs_to_the_first(self):
        k, j, i = (int(n[0]) for n in self.voxels()["Lesion_01"].nonzero())
        self.paint("Lesion_03", (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1)))
        self.assertTrue(self.voxels()["Lesion_01"][k, j, i] and self.voxels()["Lesion_03"][k, j, i])
        self.assertEqual(reviewed_case(self.node).labels[k, j, i], 1)

    def test_lesion_wholly_inside_another_is_refused(self):
        twin = self.node.GetSegmentation().AddEmptySegment("Twin", "Twin")
        k, j, i = (int(n[40]) for n in self.voxels()["Lesion_01"].nonzero())
        self.paint(twin, (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1)))
        with self.assertRaisesRegex(InputError, "'Twin' has no voxel that is not another lesion's"):
            self.export()
        self.assertEqual(list(self.folder.iterdir()), [])


class AuditTest(ExportTestCase):
    def rows(self) -> dict[str, dict[str, str]]:
        columns, rows = read_table(self.export() / "audit.csv")
        self.assertEqual(tuple(columns), AUDIT_COLUMNS)
        return {row["lesion"]: row for row in rows}

    def test_every_lesion_is_compared_with_its_first_proposal(self):
        rows = self.rows()
        untouched, edited = rows["Lesion 01"], rows["Lesion 03"]
        self.assertEqual((untouched["dice"], untouched["volume_change_percent"]), ("1.0", "0.0"))
        before, after = self.first["Lesion_03"], self.voxels()["Lesion_03"]
        dice = 2 * (before & after).sum() / (before.sum() + after.sum())
        self.assertAlmostEqual(float(edited["dice"]), dice, delta=5e-5)
        self.assertAlmostEqual(float(edited["volume_change_percent"]), 100 * (after.sum() / before.sum() - 1), delta=0.05)
        self.assertAlmostEqual(float(edited["proposed_mm3"]), before.sum() * self.ct.voxel_volume_mm3, delta=0.05)
        self.assertEqual((edited["status"], edited["seconds"], edited["threshold"]), ("edited", "41", "0.3"))
        self.assertEqual(rows["Lesion 02"]["status"], "rejected")
        self.assertEqual({row["ct_sha256"] for row in rows.values()}, {scan_sha256(self.ct)})
        self.assertEqual({rows[f"Lesion 0{n}"]["weights_sha256"] for n in (1, 2, 3, 4)}, {"ab" * 32})

    def test_added_lesions_have_nothing_to_be_compared_with(self):
        rows = self.rows()
        for name in ("Lesion 04", "Lesion 05"):
            self.assertEqual((rows[name]["dice"], rows[name]["proposed_mm3"], rows[name]["volume_change_percent"]), ("", "", ""))
        self.assertEqual((rows["Lesion 05"]["origin"], rows["Lesion 05"]["weights_sha256"]), ("manual", ""))

    def test_deleted_proposals_are_not_forgotten(self):
        delete_lesion(self.editor, "Lesion_03")
        row = self.rows()["Lesion 03"]
        self.assertEqual((row["status"], row["dice"], row["volume_mm3"]), ("deleted", "0.0", "0.0"))
        self.assertAlmostEqual(float(row["proposed_mm3"]), self.first["Lesion_03"].sum() * self.ct.voxel_volume_mm3, delta=0.05)

    def test_merged_lesion_is_compared_with_all_it_came_from(self):
        self.editor.undo()
        self.editor.undo()
        self.editor.undo()
        merge_lesions(self.editor, ["Lesion_01", "Lesion_03"])
        case = reviewed_case(self.node)
        self.assertEqual(case.lost, ())
        row = next(row for row in audit_rows(case) if row["lesion"] == "Lesion 01")
        self.assertEqual((row["dice"], row["proposals"]), (1.0, "run1/Lesion_01 run1/Lesion_03"))


class TrainingCaseTest(ExportTestCase):
    def test_case_has_the_layout_of_the_data_set_and_instances_by_label(self):
        folder = write_training_case(reviewed_case(self.node), self.folder, "100012")
        self.assertEqual(folder, self.folder / "100012")
        names = sorted(path.name for path in folder.iterdir())
        self.assertEqual(names, ["100012_CT.nii.gz", "100012_tumor.nii.gz"])
        ct, mask = (sitk.ReadImage(folder / name) for name in names)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(ct), self.ct.hu)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), self.counted())
        for image in (ct, mask):
            self.assert_grid(image)
        self.assertEqual(ct.GetPixelID(), sitk.sitkInt16)

    def test_case_without_a_lesion_has_an_empty_mask(self):
        ids = list(self.node.GetSegmentation().GetSegmentIDs())
        self.editor.decide(ids, Status.REJECTED)
        folder = write_training_case(reviewed_case(self.node), self.folder, "none")
        self.assertFalse(sitk.GetArrayFromImage(sitk.ReadImage(folder / "none_tumor.nii.gz")).any())

    def test_undecided_lesions_are_refused(self):
        self.editor.decide(["Lesion_01"], Status.NEW)
        with self.assertRaisesRegex(InputError, r"1 lesion\(s\) .* still new \('Lesion 01'\)"):
            write_training_case(reviewed_case(self.node), self.folder, "a")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_nothing_is_overwritten_not_even_an_empty_folder(self):
        (self.folder / "a").mkdir()
        with self.assertRaisesRegex(InputError, "there is a training case"):
            write_training_case(reviewed_case(self.node), self.folder, "a")
        self.assertEqual(list((self.folder / "a").iterdir()), [])

    def test_names_that_are_no_file_names_are_refused(self):
        case = reviewed_case(self.node)
        for name in ("", ".", "..", "a/b", "../a", "a b", ".a", "a.", "x" * 65, "a\n"):
            with self.subTest(name=name), self.assertRaisesRegex(InputError, "cannot name a training case"):
                write_training_case(case, self.folder, name)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_leaning_stack_is_refused(self):
        case = reviewed_case(self.node)
        leaning = np.array(case.ct.direction_matrix)
        leaning[:, 2] = (leaning[:, 2] + 0.3 * leaning[:, 0]) / np.hypot(1, 0.3)
        case = replace(case, ct=replace(case.ct, direction_lps=tuple(leaning.ravel().tolist())))
        with self.assertRaisesRegex(InputError, "not at right angles"):
            write_training_case(case, self.folder, "a")

    def test_folder_that_cannot_be_written_is_named_and_nothing_left(self):
        if os.name == "nt" or os.geteuid() == 0:
            self.skipTest("this user may write everywhere")
        self.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        self.addCleanup(self.folder.chmod, stat.S_IRWXU)
        with self.assertRaisesRegex(InputError, "no right to write"):
            write_training_case(reviewed_case(self.node), self.folder, "a")

    def test_float_ct_keeps_its_values(self):
        case = reviewed_case(self.node)
        hu = (case.ct.hu + 0.25).astype(np.float32)
        folder = write_training_case(replace(case, ct=replace(case.ct, hu=hu)), self.folder, "f")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(folder / "f_CT.nii.gz")), hu)


class LeftHandedTest(ExportTestCase):
    def test_ct_of_any_axes_is_written_in_place(self):
        ct = ct_with_balls(direction_lps=oblique_direction((2, 0, 1), (-1, 1, 1)))
        volume_node = add_volume(ct, "Second")
        node = begin(soft_result(ct), volume_node)
        editor = LesionEditor(node)
        editor.decide(["Lesion_01", "Lesion_02", "Lesion_03"], Status.ACCEPTED)
        editor.close()
        folder = write_training_case(reviewed_case(node), self.folder, "b")
        back = CtVolume.from_image(sitk.ReadImage(folder / "b_CT.nii.gz"))
        np.testing.assert_array_equal(back.hu, ct.hu)
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(ct.hu.shape[::-1]) - 1)
        np.testing.assert_allclose(back.lps_from_ijk_mm(corners), ct.lps_from_ijk_mm(corners), atol=1e-3)
