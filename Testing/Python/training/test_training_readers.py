"""The other layouts that training cases come in: PNG slices, pairs, exported cases, LIDC-IDRI."""

import csv
import dataclasses
import hashlib
import shutil
import unittest

import numpy as np
import SimpleITK as sitk
from PIL import Image

from helpers.dicom_files import change, small_chest, write_series
from helpers.marks import real_data
from helpers.shared_data import shared_data
from helpers.small_nlstseg import labelled_chest
from helpers.training_data_case import DataTest
from nlstseg_training.data.cache import Manifest, load_case
from nlstseg_training.data.conform import HIGHEST_HU, LOWEST_HU
from nlstseg_training.data.readers.lidc import TARGET_OF_VOTES, find_lidc
from nlstseg_training.data.readers.marked_chests import MANY, MARGIN_MM, find_marked_chests
from nlstseg_training.data.readers.nlstseg import find_corrected
from nlstseg_training.data.readers.pairs import find_pairs
from nlstseg_training.data.readers.png_slices import find_png_slices, hu_of_grey
from nlstseg_training.data.readers.source import Found
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.review.case import ReviewedCase, ReviewedLesion
from NLSTSegLib.review.state import LesionState, Origin, Status
from NLSTSegLib.review.training_case import write_training_case
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regions import Region


class OtherLayoutsTest(DataTest):
    def write_png(self, case_id: str = "100012", *, instances: bool = False) -> tuple[np.ndarray, np.ndarray]:
        ct, labels = labelled_chest(int(case_id))
        grey = ((np.clip(ct.hu, -1200, 200) + 1200.0) / 1400 * 255).astype(np.uint8)
        marks = labels if instances else np.where(labels > 0, 255, 0).astype(np.uint8)
        for name, stack in (("ct", grey), ("tumor", marks)):
            folder = self.root / case_id / name
            folder.mkdir(parents=True)
            for k, pixels in enumerate(stack):
                Image.fromarray(pixels).save(folder / f"{k}.png")
        return ct.hu, labels

    def test_png_slices_are_stacked_by_number_and_put_back_into_hu(self):
        hu, labels = self.write_png()
        manifest = self.prepared(find_png_slices(self.root, (4.0, 3.2, 3.0)))
        self.assertEqual(manifest.cases[0].spacing_kji_mm, (4.0, 3.2, 3.0))
        case = load_case(self.cache, "100012")
        half_grey = 1400 / 255 / 2
        inside = (hu > -1190) & (hu < 195)
        self.assertLess(np.abs(case.ct.hu[inside] - hu[inside].astype(float)).max(), half_grey + 1)
        np.testing.assert_array_equal(case.labels > 0, labels > 0)
        self.assertEqual(len(manifest.cases[0].lesions), 3)

    def test_hu_of_a_grey_value_is_windowed_to_that_value_again(self):
        grey = np.arange(256, dtype=np.uint8)
        scaled = InputSpec(window_hu=(-1200.0, 200.0), as_uint8=True).scale(hu_of_grey(grey).astype(np.float32))
        np.testing.assert_array_equal(np.rint((scaled + 1) / 2 * 255), grey)

    def test_label_values_in_the_mask_are_lesions(self):
        _, labels = self.write_png(instances=True)
        self.prepared(find_png_slices(self.root))
        np.testing.assert_array_equal(load_case(self.cache, "100012").labels, labels)

    def test_the_lists_of_the_published_split_are_kept(self):
        for case_id in ("1", "2", "3"):
            self.write_png(case_id)
        (self.root / "train.txt").write_text("1\n3\n4\n")
        (self.root / "test.txt").write_text("2\n3\n")
        manifest = self.prepared(find_png_slices(self.root))
        self.assertEqual([(entry.id, entry.given_part) for entry in manifest.cases], [("1", "train"), ("2", "test")])
        reasons = {refusal.id: refusal.reason for refusal in manifest.refused}
        self.assertIn("in train.txt and in test.txt", reasons["3"])
        self.assertIn("there is no", reasons["4"])

    def test_missing_doubled_and_odd_slices_are_refused(self):
        for case_id in ("1", "2", "3", "4", "5"):
            self.write_png(case_id)
        for name in ("ct", "tumor"):
            (self.root / "1" / name / "7.png").unlink()
        (self.root / "2" / "tumor" / "39.png").unlink()
        Image.fromarray(np.zeros((56, 60, 3), np.uint8)).save(self.root / "3" / "ct" / "5.png")
        Image.fromarray(np.zeros((56, 61), np.uint8)).save(self.root / "4" / "tumor" / "5.png")
        (self.root / "5" / "ct" / "5.png").write_bytes((self.root / "5" / "ct" / "5.png").read_bytes()[:200])
        reasons = {refusal.id: refusal.reason for refusal in self.prepared(find_png_slices(self.root)).refused}
        for case_id, words in {
            "1": "slice 7 is missing",
            "2": "other numbers",
            "3": "not an 8-bit grey",
            "4": "another size",
            "5": "damaged",
        }.items():
            self.assertIn(words, reasons[case_id])

    def test_small_files_of_huge_slices_are_refused_by_their_headers(self):
        self.write_png("1")
        self.write_png("2")
        for name in ("ct", "tumor"):
            Image.new("1", (5000, 5000)).save(self.root / "1" / name / "0.png")
        # Above this Pillow itself refuses.
        Image.new("1", (13_500, 13_500)).save(self.root / "2" / "ct" / "0.png")
        reasons = {refusal.id: refusal.reason for refusal in self.prepared(find_png_slices(self.root)).refused}
        self.assertIn("5000x5000 pixels", reasons["1"])
        self.assertIn("0.png", reasons["2"])

    def test_pairs_in_several_formats_with_their_patients(self):
        (self.root / "images").mkdir()
        (self.root / "labels").mkdir()
        for n, ending in enumerate((".nrrd", ".nii.gz", ".mha")):
            ct, labels = labelled_chest(n)
            sitk.WriteImage(ct.to_image(), str(self.root / "images" / f"scan{n}{ending}"))
            mask = labels if n else (labels > 0).astype(np.uint8)
            sitk.WriteImage(ct.image_like(mask), str(self.root / "labels" / f"scan{n}.nrrd"))
        sitk.WriteImage(ct.to_image(), str(self.root / "images" / "alone.nrrd"))
        with (self.root / "patients.csv").open("w", newline="") as table:
            csv.writer(table).writerows([("id", "patient"), ("scan0", "A"), ("scan1", "A")])
        manifest = self.prepared(find_pairs(self.root))
        self.assertEqual([(e.id, e.patient) for e in manifest.cases], [("scan0", "A"), ("scan1", "A"), ("scan2", "scan2")])
        self.assertEqual([len(entry.lesions) for entry in manifest.cases], [3, 3, 3])
        self.assertIn("single value", " ".join(manifest.cases[0].notes))
        self.only_refusal(manifest, "alone", "labels")

    def test_a_dicom_series_under_two_names_is_kept_once(self):
        (self.root / "labels").mkdir()
        for name, seed in (("a", 0), ("b", 0)):
            write_series(self.root / "images" / name, small_chest(seed=seed), SeriesInstanceUID="1.2.3.4")
            ct = read_ct(self.root / "images" / name)
            labels = np.zeros(ct.hu.shape, np.uint8)
            labels[8:11, 10:13, 6:9] = 2
            sitk.WriteImage(ct.image_like(labels), str(self.root / "labels" / f"{name}.nrrd"))
        # The series decides, also where the voxels were changed since.
        change(sorted((self.root / "images" / "b").iterdir())[5], RescaleIntercept=-1000)
        manifest = self.prepared(find_pairs(self.root))
        self.assertEqual(self.ids(manifest), ["a"])
        self.assertEqual(manifest.cases[0].series_uid_sha256, hashlib.sha256(b"1.2.3.4").hexdigest())
        self.assertIn("same scan as 'a'", manifest.refused[0].reason)

    def test_lists_in_another_encoding_are_said(self):
        (self.root / "images").mkdir()
        (self.root / "labels").mkdir()
        (self.root / "patients.csv").write_bytes(b"id,patient\nM\xfcller,A\n")
        (self.root / "train.txt").write_bytes(b"M\xfcller\n")
        for find, name in ((find_pairs, "patients.csv"), (find_png_slices, "train.txt")):
            with self.assertRaisesRegex(InputError, f"{name}' is no .* in UTF-8"):
                find(self.root)

    def test_a_case_exported_by_the_slicer_module_is_read(self):
        ct, labels = labelled_chest(1)
        everywhere = tuple(slice(0, n) for n in ct.hu.shape)
        lesions = tuple(
            ReviewedLesion(
                f"L{label}", f"L{label}", LesionState(status, Origin.MODEL), Region.of(labels == label, everywhere), None, None
            )
            for label, status in ((1, Status.ACCEPTED), (2, Status.REJECTED), (3, Status.EDITED))
        )
        write_training_case(ReviewedCase("case", ct, lesions, ()), self.root, "corrected-1")
        (entry,) = self.prepared(find_corrected(self.root)).cases
        self.assertEqual((entry.id, entry.complete, len(entry.lesions)), ("corrected-1", True, 2))
        case = load_case(self.cache, "corrected-1")
        np.testing.assert_array_equal(case.labels, np.array([0, 1, 0, 2])[labels])
        np.testing.assert_array_equal(case.ct.hu, ct.hu)


class MarkedChestsTest(DataTest):
    def write(self, name: str, marks: list[tuple[tuple[float, float, float], float, str]]) -> CtVolume:
        """A chest whose axes are turned, and the marks (centroid in LPS mm, mm3, label) in it."""
        ct, _ = labelled_chest(100012)
        ct = dataclasses.replace(
            ct, origin_lps_mm=(10.0, -20.0, 30.0), direction_lps=(0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        )
        (self.root / "chests" / name).mkdir(parents=True)
        sitk.WriteImage(ct.to_image(), self.root / "chests" / name / "ct.nrrd")
        table = self.root / "chests" / "marks.csv"
        is_new = not table.exists()
        with table.open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            if is_new:
                rows.writerow(["chest", *(f"centroid_{axis}_mm" for axis in "lps"), "volume_mm3", "score", "label", "what"])
            rows.writerows((name, *centroid, volume, 0.5, label, "") for centroid, volume, label in marks)
        return ct

    def test_only_what_is_no_anatomy_is_left_open_in_a_ball_of_its_size(self):
        ct, _ = labelled_chest(100012)
        middle = tuple(length // 2 for length in ct.hu.shape[::-1])
        place = tuple(self.write("A-1a", []).lps_from_ijk_mm(middle))
        shutil.rmtree(self.root / "chests" / "A-1a")
        ct = self.write("A-1b", [(place, 4 / 3 * np.pi * 6**3, "uncertain"), ((0.0, 0.0, 0.0), 9e9, "anatomy")])
        (source,) = find_marked_chests(self.root).sources
        raw = source.read()
        self.assertEqual((source.patient, raw.kind, raw.complete, raw.labels.any()), ("A-1", "chest", True, False))
        marked_mm = ct.lps_from_ijk_mm(np.argwhere(raw.target > 0)[:, ::-1])
        self.assertLessEqual(np.linalg.norm(marked_mm - place, axis=1).max(), 6 + MARGIN_MM)
        expected = 4 / 3 * np.pi * (6 + MARGIN_MM) ** 3
        self.assertAlmostEqual(len(marked_mm) * ct.voxel_volume_mm3, expected, delta=0.1 * expected)

    def test_a_chest_with_many_lesions_has_more_of_them(self):
        self.write("A-1", [((0.0, 0.0, 0.0), 10.0, "lesion-like")] * (MANY + 1))
        (source,) = find_marked_chests(self.root).sources
        self.assertFalse(source.read().complete)

    def test_a_chest_that_is_missing_and_a_table_that_is_none_are_told(self):
        with self.assertRaisesRegex(InputError, "marks.csv"):
            find_marked_chests(self.root)
        self.write("A-1", [((0.0, 0.0, 0.0), 10.0, "uncertain")])
        (self.root / "chests" / "A-1" / "ct.nrrd").unlink()
        found = find_marked_chests(self.root)
        self.assertEqual((found.sources, [refusal.id for refusal in found.refused]), ((), ["A-1"]))


class LidcFilesTest(DataTest):
    """Made-up files in the layout of the nodule crops and background slices."""

    def write_crop(self, name: str, **changes: object) -> None:
        arrays = {
            "pixels": np.zeros((3, 16, 16), np.uint8),
            "hu_slope": np.full(3, 4.0),
            "hu_intercept": np.full(3, -1000.0),
            "votes": np.pad(np.full((1, 4, 4), 4, np.uint8), ((1, 1), (6, 6), (6, 6))),
            "spacing_zyx_mm": np.array([2.0, 0.7, 0.7]),
            "slice_index": np.arange(3),
        }
        (self.root / "lidc_nodules").mkdir(exist_ok=True)
        np.savez_compressed(self.root / "lidc_nodules" / f"{name}.npz", **(arrays | changes))

    def test_crops_that_would_fill_the_memory_are_refused_and_the_others_prepared(self):
        self.write_crop("A_nodule-0")
        self.write_crop("B_nodule-0", pixels=np.zeros((3, 10_000, 10_000), np.uint8))
        self.write_crop("C_nodule-0", slice_index=np.array([0, 1, 2_000_000_000]))
        manifest = self.prepared(find_lidc(self.root))
        self.assertEqual(self.ids(manifest), ["A_nodule-0"])
        self.assertEqual([refusal.id for refusal in manifest.refused], ["B_nodule-0", "C_nodule-0"])
        for refusal in manifest.refused:
            self.assertIn("damaged or of another layout", refusal.reason)

    def test_background_files_that_lead_elsewhere_or_are_damaged_are_listed(self):
        self.write_crop("A_nodule-0")
        (self.root / "background").mkdir()
        (self.root / "background" / "b.npz").write_bytes(b"PK\x03\x04")
        (self.root / "background.csv").write_text("file,patient\n../secret.npz,P\nb.npz,P\n")
        refused = {refusal.id: refusal.reason for refusal in find_lidc(self.root).refused}
        self.assertEqual(set(refused), {"../secret.npz", "b"})
        (self.root / "background.csv").write_bytes(b"file,patient\n\xfc,P\n")
        found = find_lidc(self.root)
        self.assertEqual(([source.id for source in found.sources], found.refused[0].id), (["A_nodule-0"], "background.csv"))


@real_data
class LidcTest(DataTest):
    def setUp(self):
        super().setUp()
        self.data = shared_data()
        if self.data is None:
            self.skipTest("no shared data beside the repository")

    def some(self, *ids: str) -> Manifest:
        found = find_lidc(self.data)
        return self.prepared(Found(tuple(source for source in found.sources if source.id in ids)))

    def test_all_three_kinds_are_found(self):
        ids = [source.id for source in find_lidc(self.data).sources]
        self.assertEqual(sum("_nodule-" in case_id for case_id in ids), 810)
        self.assertEqual([case_id for case_id in ids if "_" not in case_id], ["LIDC-IDRI-0001", "LIDC-IDRI-0002"])
        self.assertGreater(sum("_run-" in case_id for case_id in ids), 30)
        self.assertEqual(len(set(ids)), len(ids))

    def test_a_crop_has_soft_targets_and_one_lesion(self):
        (entry,) = self.some("LIDC-IDRI-0011_nodule-0").cases
        self.assertEqual((entry.patient, entry.kind, entry.complete), ("LIDC-IDRI-0011", "crop", True))
        case = load_case(self.cache, entry.id)
        with np.load(self.data / "lidc_nodules" / "LIDC-IDRI-0011_nodule-0.npz") as crop:
            votes = crop["votes"]
            first = crop["pixels"][0] * crop["hu_slope"][0] + crop["hu_intercept"][0]
        self.assertIsNone(case.lungs)
        np.testing.assert_array_equal(case.labels > 0, votes >= 2)
        np.testing.assert_allclose(case.target / 255, TARGET_OF_VOTES[votes], atol=0.5 / 255)
        np.testing.assert_array_equal(case.target > 127, votes >= 2)
        np.testing.assert_allclose(case.ct.hu[0], np.clip(first, LOWEST_HU, HIGHEST_HU), atol=0.51)
        self.assertEqual(len(entry.lesions), 1)

    def test_background_is_empty_and_certain(self):
        (entry,) = self.some("CMB-CRC-MSB-01068_0_run-0").cases
        case = load_case(self.cache, entry.id)
        self.assertEqual((entry.kind, entry.lesions, entry.complete), ("background", (), False))
        self.assertEqual(int(case.target.max()), 0)
        self.assertTrue(0.05 < case.lungs.mean() < 0.9)


if __name__ == "__main__":
    unittest.main()
