"""NLSTseg into the cache: every trap of the data is met on small files in its layout, and what is wrong is listed."""

import dataclasses
import json
import os
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import SimpleITK as sitk

from helpers.placed_chest import LESIONS, placed
from helpers.small_nlstseg import (
    as_int32_with_padding,
    labelled_chest,
    table_row,
    write_case,
    write_nlstseg,
    write_table,
    zip_folder,
)
from helpers.training_data_case import DataTest, FallingSource
from nlstseg_training.batches.stored import StoredCase
from nlstseg_training.data.aerated import aerated
from nlstseg_training.data.cache import load_case, read_manifest
from nlstseg_training.data.conform import HIGHEST_HU, LOWEST_HU, conform
from nlstseg_training.data.prepare import prepare
from nlstseg_training.data.readers.label_table import find_table, read_table
from nlstseg_training.data.readers.nlstseg import find_corrected, find_nlstseg
from nlstseg_training.data.readers.source import Found, RawCase
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.results.report import voxels_sha256


class LayoutTest(DataTest):
    def test_zips_extracted_folders_and_bare_folders_give_the_same_cache(self):
        write_nlstseg(self.root / "zips", ["100012", "100147"], zipped=True)
        self.assertEqual(len(list((self.root / "zips").rglob("*.nii.gz"))), 0)
        write_nlstseg(self.root / "extracted", ["100012", "100147"])
        for case_id in ("100012", "100147"):
            write_case(self.root / "bare", case_id, *labelled_chest(int(case_id)))
        manifests = [prepare(find_nlstseg(self.root / name), self.cache / name) for name in ("zips", "extracted", "bare")]
        for manifest in manifests:
            self.assertEqual(self.ids(manifest), ["100012", "100147"])
            self.assertEqual(manifest.refused, ())
            first = load_case(self.cache / "zips", "100147")
            again = load_case(self.cache / ("zips", "extracted", "bare")[manifests.index(manifest)], "100147")
            np.testing.assert_array_equal(first.ct.hu, again.ct.hu)
            np.testing.assert_array_equal(first.labels, again.labels)
        kinds = [[lesion.kind for lesion in manifest.cases[0].lesions] for manifest in manifests]
        self.assertEqual(kinds, [["tumour", "tumour", "nodule"]] * 2 + [["", "", ""]])
        self.assertEqual(manifests[0].cases[0].notes, manifests[1].cases[0].notes)
        self.assertFalse(any("table" in note for note in manifests[0].cases[0].notes))

    def test_a_zip_can_be_named_itself_and_nothing_of_it_is_left_unpacked(self):
        self.one()
        archive = zip_folder(self.root / "NLSTseg_2_LungTumor")
        before = set(Path(tempfile.gettempdir()).glob("nlstseg-scratch-*"))
        self.assertEqual(self.ids(self.prepared(find_nlstseg(archive))), ["100012"])
        self.assertEqual(set(Path(tempfile.gettempdir()).glob("nlstseg-scratch-*")) - before, set())
        self.assertEqual([path.name for path in self.root.rglob("*")], [archive.name])

    def test_an_extracted_case_is_not_read_again_from_its_zip(self):
        case, ct, labels = self.one()
        zip_folder(self.root / "NLSTseg_2_LungTumor")
        write_case(case.parent, "100012", ct, labels)
        manifest = self.prepared()
        self.assertEqual((self.ids(manifest), manifest.refused), (["100012"], ()))

    def test_a_mask_of_a_scaled_file_is_rounded(self):
        ct, labels = labelled_chest(1)
        case = write_case(self.root / "NLSTseg_2_LungTumor", "100012", ct, labels)
        sitk.WriteImage(ct.image_like(labels.astype(np.float32) * 1.00002), str(case / "100012_tumor.nii.gz"))
        self.prepared()
        np.testing.assert_array_equal(load_case(self.cache, "100012").labels, labels)

    def test_what_table_folders_and_files_do_not_agree_on_is_told(self):
        ct, labels = labelled_chest(1)
        self.one()
        write_case(self.root / "NLSTseg_2_LungTumor", "100013", *labelled_chest(2)).rename(
            self.root / "NLSTseg_2_LungTumor" / "100014"
        )
        rows = [table_row(case_id, label, "Tumor", ct, labels) for case_id in ("100012", "777", "778") for label in (1, 2, 3)]
        write_table(self.root / "1_Table" / "Label.xlsx", rows)
        manifest = self.prepared()
        notes = {entry.id: " ".join(entry.notes) for entry in manifest.cases}
        self.assertNotIn("no row", notes["100012"])
        self.assertIn("it has no row in Label.xlsx", notes["100013"])
        self.assertIn("its files are called '100013', its folder '100014'", notes["100013"])
        (refusal,) = manifest.refused
        self.assertEqual(refusal.id, "Label.xlsx")
        self.assertIn("2 case(s) of which there is no CT and no mask: 777, 778", refusal.reason)

    def test_a_half_extracted_case_is_read_from_its_zip(self):
        case, ct, _ = self.one()
        zip_folder(self.root / "NLSTseg_2_LungTumor")
        write_case(case.parent, "100012", ct, None)
        self.assertEqual(self.ids(self.prepared()), ["100012"])

    def test_the_same_id_in_two_folders_is_listed_and_read_once(self):
        _, ct, _ = self.one()
        write_case(self.root / "NLSTseg_3_LungTumor", "100012", *labelled_chest(2))
        manifest = self.prepared()
        self.assertEqual(self.ids(manifest), ["100012"])
        self.assertEqual(manifest.cases[0].voxels_sha256, voxels_sha256(ct))
        self.assertIn("NLSTseg_3_LungTumor", manifest.refused[0].reason)

    def test_files_of_macos_are_no_cases(self):
        case, _, _ = self.one()
        (case / "._100012_CT.nii.gz").write_bytes(b"Mac OS X")
        (self.root / "__MACOSX").mkdir()
        (self.root / "__MACOSX" / "._100012_tumor.nii.gz").write_bytes(b"Mac OS X")
        manifest = self.prepared()
        self.assertEqual((self.ids(manifest), manifest.refused), (["100012"], ()))


class WrongCaseTest(DataTest):
    """One good case, one that is not: the good one is prepared and the other listed."""

    def setUp(self):
        super().setUp()
        write_case(self.root / "NLSTseg_2_LungTumor", "100147", *labelled_chest(2))

    def refused(self, case_id: str, *words: str) -> str:
        manifest = self.prepared()
        self.assertEqual(self.ids(manifest), ["100147"])
        return self.only_refusal(manifest, case_id, *words)

    def test_mask_of_another_shape(self):
        ct, labels = labelled_chest(1)
        case = write_case(self.root / "NLSTseg_6_LungTumor", "205714", ct, None)
        mask = sitk.GetImageFromArray(labels[:-1])
        mask.SetSpacing(ct.spacing_ijk_mm)
        sitk.WriteImage(mask, str(case / "205714_tumor.nii.gz"))
        self.refused("205714", "(39, 56, 60)", "(40, 56, 60)")

    def test_mask_in_another_place(self):
        case, ct, labels = self.one()
        mask = ct.image_like(labels)
        mask.SetOrigin((0.0, 0.0, 0.0))
        sitk.WriteImage(mask, str(case / "100012_tumor.nii.gz"))
        self.refused("100012", "mm off the CT's voxels")

    def test_missing_mask_and_missing_ct(self):
        case, _, _ = self.one(labels=None)
        self.refused("100012", "no mask")
        (case / "100012_CT.nii.gz").rename(case / "100012_tumor.nii.gz")
        self.refused("100012", "no CT")

    def test_missing_mask_in_a_zip(self):
        self.one(labels=None)
        (self.root / "NLSTseg_2_LungTumor" / "100012").rename(self.root / "100012")
        zip_folder(self.root / "100012")
        self.refused("100012", "no mask", "100012.zip")

    def test_truncated_gzip(self):
        case, _, _ = self.one()
        path = case / "100012_CT.nii.gz"
        path.write_bytes(path.read_bytes()[:-1000])
        self.refused("100012", "100012_CT.nii.gz", "truncated")

    def test_flipped_bit_in_the_gzip_of_the_mask(self):
        case, _, _ = self.one()
        path = case / "100012_tumor.nii.gz"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        self.refused("100012", "100012_tumor.nii.gz", "damaged")

    def test_damaged_member_of_a_zip(self):
        self.one()
        (self.root / "NLSTseg_2_LungTumor" / "100012").rename(self.root / "100012")
        archive = zip_folder(self.root / "100012")
        with zipfile.ZipFile(archive) as packed:
            where = packed.getinfo("100012/100012_CT.nii.gz").header_offset + 5000
        data = bytearray(archive.read_bytes())
        data[where] ^= 255
        archive.write_bytes(data)
        self.refused("100012", "100012_CT.nii.gz", "100012.zip", "get the archive again")

    def test_archive_that_is_none(self):
        (self.root / "3_LungTumor.zip").write_bytes(b"<html>404 Not Found</html>" * 100)
        self.refused("3_LungTumor.zip", "no whole zip archive")

    def test_a_member_whose_name_is_no_utf8(self):
        archive = self.root / "other.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("\N{LATIN SMALL LETTER U WITH DIAERESIS}_CT.nii.gz", b"")
        archive.write_bytes(archive.read_bytes().replace("\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode(), b"\xfc\xfc"))
        self.refused("other.zip", "other.zip", "no whole zip archive")

    @unittest.skipUnless(sys.platform == "linux", "others refuse such names")
    def test_a_name_on_the_disk_that_is_no_utf8(self):
        case, _, _ = self.one()
        for kind in ("CT", "tumor"):
            (case / f"100012_{kind}.nii.gz").rename(case / os.fsdecode(b"M\xfcller_%s.nii.gz" % kind.encode()))
        manifest = self.prepared()
        self.assertEqual(self.ids(manifest), ["100147"])
        self.only_refusal(manifest, "M ller", "its name cannot be that of a case")
        json.dumps(dataclasses.asdict(manifest), ensure_ascii=False).encode()

    def test_values_that_are_not_hu(self):
        ct, _ = labelled_chest(1)
        self.one(image=ct.image_like((ct.hu - ct.hu.min()).astype(np.float32) / 2000))
        self.refused("100012", "not HU")

    def test_mask_that_is_a_ct_or_a_probability(self):
        ct, labels = labelled_chest(1)
        self.one(labels=ct.hu)
        self.refused("100012", "give a label map")
        sitk.WriteImage(
            ct.image_like(labels * np.float32(0.25)), str(self.root / "NLSTseg_2_LungTumor/100012/100012_tumor.nii.gz")
        )
        self.refused("100012", "the value 0.5", "give a label map")

    def test_two_ids_with_one_series(self):
        ct, labels = labelled_chest(2)
        write_case(self.root / "NLSTseg_3_LungTumor", "218800", ct, np.where(labels == 1, 1, 0).astype(np.uint8))
        manifest = self.prepared()
        self.assertEqual(self.ids(manifest), ["100147"])
        self.assertIn("same scan as '100147'", manifest.refused[0].reason)
        self.assertEqual(self.prepared(), manifest)

    def test_whatever_a_case_makes_a_library_raise(self):
        falling = FallingSource(id="1", patient="1", reader="nlstseg")
        manifest = self.prepared(Found((falling, *find_nlstseg(self.root).sources)))
        self.assertEqual(self.ids(manifest), ["100147"])
        self.only_refusal(manifest, "1", "ZeroDivisionError: float division")


class ContentTest(DataTest):
    def test_lesions_are_counted_by_label_value(self):
        ct, labels = labelled_chest(1)
        # One lesion in three pieces, two lesions that touch.
        labels[:] = 0
        labels[10:13, 20:24, 20:23] = 1
        labels[20:22, 20:24, 20:23] = 1
        labels[30, 30, 42] = 1
        labels[20:24, 20:24, 40:44] = 2
        labels[20:24, 20:24, 44:46] = 3
        self.one(ct=ct, labels=labels)
        (entry,) = self.prepared().cases
        self.assertEqual([lesion.label for lesion in entry.lesions], [1, 2, 3])
        voxel_mm3 = 3.0 * 3.2 * 4.0
        for lesion, voxels in zip(entry.lesions, (36 + 24 + 1, 64, 32), strict=True):
            self.assertAlmostEqual(lesion.volume_mm3, voxels * voxel_mm3, places=2)
            self.assertAlmostEqual(np.pi / 6 * lesion.diameter_mm**3, voxels * voxel_mm3, delta=1)
        case = load_case(self.cache, "100012")
        np.testing.assert_array_equal(case.labels, labels)
        np.testing.assert_array_equal(case.target, np.where(labels > 0, 255, 0))
        self.assertEqual((case.labels.dtype, case.target.dtype), (np.uint8, np.uint8))

    def test_labels_with_gaps_are_renumbered_and_keep_their_type(self):
        ct, labels = labelled_chest(1)
        self.one(ct=ct, labels=labels.astype(np.int16) * 3)
        rows = [table_row("100012", label * 3, kind, ct, labels * 3) for label, kind in ((1, "Tumor"), (2, "Nodule"))]
        write_table(self.root / "1_Table" / "Label.xlsx", [*rows, table_row("100012", 12, "Tumor", ct, labels)])
        (entry,) = self.prepared().cases
        self.assertEqual([(lesion.label, lesion.kind) for lesion in entry.lesions], [(1, "tumour"), (2, "nodule"), (3, "")])
        np.testing.assert_array_equal(load_case(self.cache, "100012").labels, labels)
        notes = " ".join(entry.notes)
        self.assertIn("labels 3, 6, 9 of its mask are now 1 to 3", notes)
        self.assertIn("label 9 of its mask is not in the table", notes)
        self.assertIn("label 12 of the table is not in its mask", notes)

    def test_more_than_255_lesions_keep_their_labels(self):
        ct, _ = labelled_chest(1)
        labels = np.zeros(ct.hu.shape, np.uint16)
        labels[20, 10:30, 10:30] = np.arange(1, 401).reshape(20, 20)
        self.one(ct=ct, labels=labels)
        self.assertEqual(len(self.prepared().cases[0].lesions), 400)
        case = load_case(self.cache, "100012")
        self.assertEqual(case.labels.dtype, np.uint16)
        np.testing.assert_array_equal(case.labels, labels)

    def test_int32_with_padding_is_clipped_to_int16(self):
        ct, _ = labelled_chest(1)
        image = as_int32_with_padding(ct)
        image[30, 28, 20] = 40_000
        self.one(image=image)
        self.prepared()
        hu = load_case(self.cache, "100012").ct.hu
        self.assertEqual(hu.dtype, np.int16)
        self.assertEqual((hu.min(), hu.max()), (LOWEST_HU, HIGHEST_HU))
        inside = ct.hu.copy()
        inside[:, [0, 0, -1, -1], [0, -1, 0, -1]] = LOWEST_HU
        inside[20, 28, 30] = HIGHEST_HU
        np.testing.assert_array_equal(hu, inside)

    def test_padding_is_clipped_before_it_is_interpolated(self):
        ct, _ = labelled_chest(1)
        self.one(image=as_int32_with_padding(ct))
        self.prepared(spacing_kji_mm=(4.0, 1.6, 1.5))
        hu = load_case(self.cache, "100012").ct.hu
        # Between padding and air nothing lies below both.
        self.assertGreaterEqual(hu.min(), LOWEST_HU)

    def test_clipping_changes_no_recipes_input(self):
        hu = np.arange(-3000, 3500, dtype=np.float32)
        for window in ((-1200.0, 200.0), (-1000.0, 400.0)):
            spec = InputSpec(window_hu=window, as_uint8=True)
            np.testing.assert_array_equal(spec.scale(hu), spec.scale(np.clip(hu, LOWEST_HU, HIGHEST_HU)))

    def test_identity_direction_is_taken_as_it_stands_and_other_axes_are_turned(self):
        ct, labels = labelled_chest(1)
        self.assertEqual(ct.direction_lps, (1, 0, 0, 0, 1, 0, 0, 0, 1))
        self.one("1", ct=ct, labels=labels)
        turned, turned_labels = (sitk.DICOMOrient(ct.image_like(array), "SRA") for array in (ct.hu, labels))
        case = write_case(self.root, "2", ct, None, image=turned)
        sitk.WriteImage(turned_labels, str(case / "2_tumor.nii.gz"))
        # They are one scan, which is told too: each in its own cache.
        for case_id in ("1", "2"):
            found = find_nlstseg(self.root)
            own = Found(tuple(source for source in found.sources if source.id == case_id))
            prepare(own, self.cache / case_id)
            prepared = load_case(self.cache / case_id, case_id)
            self.assertEqual(prepared.ct.orientation, "LPS")
            np.testing.assert_array_equal(prepared.ct.hu, ct.hu)
            np.testing.assert_array_equal(prepared.labels, labels)
            np.testing.assert_allclose(prepared.ct.origin_lps_mm, ct.origin_lps_mm, atol=1e-3)
            np.testing.assert_allclose(prepared.ct.spacing_ijk_mm, ct.spacing_ijk_mm)
        (refusal,) = prepare(find_nlstseg(self.root), self.cache / "both").refused
        self.assertEqual((refusal.id, "same scan as '1'" in refusal.reason), ("2", True))

    def test_the_lung_field_keeps_a_lesion_that_it_would_cut(self):
        ct, labels = labelled_chest(1)
        # A mass in the wall, outside of every lung.
        mass = (slice(12, 24), slice(0, 10), slice(26, 34))
        labels[mass] = 4
        self.assertFalse(lung_field(ct)[mass].all())
        self.one(ct=ct, labels=labels)
        self.prepared()
        lungs = load_case(self.cache, "100012").lungs
        self.assertTrue(lungs[labels > 0].all())
        # Its surroundings of 6 mm too, but not everything.
        self.assertTrue(lungs[18, 10, 30])
        self.assertFalse(lungs[18, 2, 50])
        self.assertFalse(lungs.all())
        np.testing.assert_array_equal(lungs & lung_field(ct), lung_field(ct))

    def test_a_case_without_a_lesion_is_a_case(self):
        ct, labels = labelled_chest(1)
        write_case(self.root, "healthy", ct, labels * 0)
        (entry,) = self.prepared(find_corrected(self.root)).cases
        self.assertEqual((entry.lesions, entry.complete, entry.reader), ((), True, "corrected"))
        self.assertEqual(int(load_case(self.cache, "healthy").target.max()), 0)
        # In NLSTseg every patient has a lesion.
        (entry,) = prepare(find_nlstseg(self.root), self.cache / "other").cases
        self.assertFalse(entry.complete)
        self.assertIn("nothing is marked in its mask", entry.notes)

    def test_manifest_says_what_a_result_says(self):
        case, _, _ = self.one()
        (entry,) = self.prepared().cases
        ct = read_ct(case / "100012_CT.nii.gz")
        self.assertEqual(entry.voxels_sha256, voxels_sha256(ct))
        self.assertEqual((entry.patient, entry.kind, entry.shape_kji), ("100012", "chest", (40, 56, 60)))
        np.testing.assert_allclose(entry.spacing_kji_mm, (4.0, 3.2, 3.0), rtol=1e-6)

    def test_resampled_lesions_keep_their_place_and_volume(self):
        _, ct, _ = self.one()
        (entry,) = self.prepared(spacing_kji_mm=(2.0, 2.0, 2.0)).cases
        case = load_case(self.cache, "100012")
        self.assertEqual(entry.spacing_kji_mm, (2.0, 2.0, 2.0))
        self.assertEqual(case.ct.hu.shape, (80, 90, 90))
        for label, (centre, radius_mm) in enumerate(LESIONS, start=1):
            kji = np.argwhere(case.labels == label)
            found = case.ct.lps_from_ijk_mm(kji[:, ::-1]).mean(axis=0)
            np.testing.assert_allclose(found, centre, atol=0.5)
            self.assertAlmostEqual(len(kji) * 8.0 / entry.lesions[label - 1].volume_mm3, 1, delta=0.12)
            self.assertAlmostEqual(entry.lesions[label - 1].volume_mm3 / (4 / 3 * np.pi * radius_mm**3), 1, delta=0.1)
        self.assertAlmostEqual(float(case.ct.hu.mean()), float(ct.hu.mean()), delta=3)
        self.assertGreater(float(case.ct.hu[case.labels > 0].mean()), 0)
        self.assertTrue(case.lungs[case.labels > 0].all())

    def test_resampled_hu_are_neither_brighter_nor_darker(self):
        _, ct, _ = self.one()
        self.prepared(spacing_kji_mm=(2.0, 1.6, 1.5))
        hu = load_case(self.cache, "100012").ct.hu
        # With half the spacing every voxel gives its value to eight, a quarter of a voxel to either side.
        self.assertEqual(hu.shape, (80, 112, 120))
        self.assertAlmostEqual(float(hu.mean()), float(np.clip(ct.hu, LOWEST_HU, HIGHEST_HU).mean()), delta=0.1)

    def test_uneven_slices_are_brought_to_a_regular_grid_with_their_lesions(self):
        ct, labels = labelled_chest(1)
        # One slice is missing between 9 and 10.
        keep = np.array([k for k in range(40) if k != 10])
        uneven = placed(dataclasses.replace(ct, hu=np.ascontiguousarray(ct.hu[keep])), keep * 4.0)
        self.one()
        source = find_nlstseg(self.root).sources[0]
        prepared = conform(source, RawCase(uneven, labels[keep], "chest", complete=False), "", None)
        self.assertEqual(prepared.ct.hu.shape, ct.hu.shape)
        np.testing.assert_array_equal(prepared.labels[keep], labels[keep])
        np.testing.assert_array_equal(prepared.ct.hu[keep], ct.hu[keep])
        self.assertTrue(any("missing" in note for note in prepared.entry.notes))

    def test_a_part_of_a_cached_volume_is_read_alone_and_is_what_was_prepared(self):
        _, ct, labels = self.one()
        entry = self.prepared().cases[0]
        self.assertEqual(
            sorted(path.name for path in (self.cache / "100012").iterdir()), sorted([*entry.files_sha256, "case.json"])
        )
        case = load_case(self.cache, "100012")
        np.testing.assert_array_equal(case.labels, labels)
        np.testing.assert_allclose(case.ct.origin_lps_mm, ct.origin_lps_mm, atol=1e-3)
        stored = StoredCase(self.cache, entry)
        # Repeated and out of order, as at the border of a patch.
        slices, rows, columns = np.array([3, 3, 7]), np.array([0, 0, 5, 20]), np.arange(10, 30)
        window = np.ix_(slices, rows, columns)
        np.testing.assert_array_equal(stored.hu_at(slices, rows, columns), case.ct.hu[window])
        np.testing.assert_array_equal(stored.target_at(slices, rows, columns), labels[window] > 0)
        air = aerated(case.ct.hu, case.lungs, case.ct.spacing_ijk_mm[::-1])
        np.testing.assert_array_equal(stored.air_at(slices, rows, columns), air[window])
        self.assertTrue(case.lungs[tuple(stored.lung_places.T)].all())
        for label, voxels in enumerate(stored.lesions, start=1):
            self.assertEqual(set(labels[tuple(voxels.T)].tolist()), {label})

    def test_a_damaged_cache_is_told(self):
        self.one()
        self.prepared()
        path = self.cache / "100012" / "ct.b2nd"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with self.assertRaisesRegex(InputError, r"ct\.b2nd.*changed; prepare the case again"):
            load_case(self.cache, "100012")
        (self.cache / "manifest.json").write_text('{"format": 2}')
        with self.assertRaisesRegex(InputError, "manifest.json"):
            read_manifest(self.cache)


class TableTest(DataTest):
    def rows(self, *rows: dict) -> dict:
        path = self.root / "Label.xlsx"
        write_table(path, list(rows))
        return read_table(path.read_bytes())

    def test_negative_spacings_are_spacings_and_ids_are_text(self):
        ct, labels = labelled_chest(1)
        table = self.rows(table_row("100012", 1, "Tumor", ct, labels, PixelspcingX=-0.546875, PixelspacingY=-0.5))
        row = table["100012"][1]
        self.assertEqual((row.kind, row.spacing_ij_mm), ("tumour", (0.546875, 0.5)))
        self.assertAlmostEqual(row.volume_cm3, (labels == 1).sum() * ct.voxel_volume_mm3 / 1000, places=3)

    def test_rows_without_a_label_are_left_out(self):
        ct, labels = labelled_chest(1)
        table = self.rows(
            table_row("1", 1, "nodule", ct, labels, Mark_labels=None),
            table_row("1", 1, "nodule", ct, labels, ID=None),
            table_row("1", 2, "NODULE ", ct, labels),
            table_row("1", 3, "scar", ct, labels),
        )
        self.assertEqual({label: row.kind for label, row in table["1"].items()}, {2: "nodule", 3: ""})

    def test_contradictions_are_noted_and_nothing_stops(self):
        _, ct, labels = self.one()
        rows = [table_row("100012", label, "Tumor", ct, labels) for label in (1, 2, 3)]
        rows[0]["Tumor_V(cm3)"] += 0.006
        rows[1]["Tumor_V(cm3)"] += 0.004
        rows[2]["PixelspcingX"] = -2.9
        write_table(self.root / "1_Table" / "Label.xlsx", rows)
        (entry,) = self.prepared().cases
        notes = [note for note in entry.notes if "table" in note]
        self.assertEqual(len(notes), 2, notes)
        self.assertIn("label 1 has", notes[0])
        self.assertIn("2.9", notes[1])

    def test_a_table_that_is_none_is_listed_and_the_cases_are_read(self):
        self.one()
        (self.root / "1_Table").mkdir()
        (self.root / "1_Table" / "Label.xlsx").write_bytes(b"no workbook")
        manifest = self.prepared()
        self.assertEqual(self.ids(manifest), ["100012"])
        self.assertIn("no whole Excel workbook", manifest.refused[0].reason)
        write_table(self.root / "1_Table" / "Label.xlsx", [])
        book = openpyxl.Workbook()
        book.active.append(["ID", "Stage"])
        book.save(self.root / "1_Table" / "Label.xlsx")
        self.assertIn("no column Mark_labels", self.prepared().refused[0].reason)

    def test_a_damaged_or_hostile_table_is_listed_and_the_cases_are_read(self):
        _, ct, labels = self.one()
        path = self.root / "1_Table" / "Label.xlsx"
        write_table(path, [table_row("100012", 1, "Nodule", ct, labels)])
        with zipfile.ZipFile(path) as packed:
            whole = {name: packed.read(name) for name in packed.namelist()}
        sheet = "xl/worksheets/sheet1.xml"
        laughs = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10 if n else b"lol") for n in range(12))
        hostile = (
            b'<!DOCTYPE x [%s]><worksheet><sheetData><row><c t="str"><v>&l11;</v></c></row></sheetData></worksheet>' % laughs
        )
        contents = {
            "broken XML": whole | {sheet: whole[sheet][:-40]},
            "no XML": whole | {sheet: b"\0" * 1000},
            "a bomb": whole | {sheet: b"0" * 60_000_000},
            "entities": whole | {sheet: hostile},
        }
        for what, content in contents.items():
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for name, data in content.items():
                    packed.writestr(name, data)
            with self.subTest(what):
                found, refused = find_table(self.root)
                self.assertEqual(found, {})
                self.assertIn("no whole Excel workbook", refused[0].reason)
        manifest = self.prepared()
        self.assertEqual((self.ids(manifest), len(manifest.refused)), (["100012"], 1))

    def test_a_table_whose_checksum_is_wrong_in_its_zip_is_listed(self):
        _, ct, labels = self.one()
        write_table(self.root / "NLSTseg_1_Table" / "Label.xlsx", [table_row("100012", 1, "Nodule", ct, labels)])
        archive = zip_folder(self.root / "NLSTseg_1_Table")
        data = bytearray(archive.read_bytes())
        data[200] ^= 1
        archive.write_bytes(data)
        manifest = self.prepared()
        self.assertEqual(self.ids(manifest), ["100012"])
        self.assertIn("damaged (Bad CRC-32", manifest.refused[0].reason)

    def test_types_that_come_later_reach_the_cache(self):
        _, ct, labels = self.one()
        self.assertEqual(self.prepared().cases[0].lesions[0].kind, "")
        write_table(self.root / "1_Table" / "Label.xlsx", [table_row("100012", 1, "Nodule", ct, labels)])
        self.assertEqual(self.prepared().cases[0].lesions[0].kind, "nodule")


if __name__ == "__main__":
    unittest.main()
