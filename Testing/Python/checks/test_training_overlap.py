"""A scan that a model was trained on is known again, in whatever form it comes, and only that."""

import dataclasses
import hashlib
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.marks import real_data
from helpers.placed_chest import AXES
from helpers.shared_data import shared_data
from helpers.small_nlstseg import as_int32_with_padding, labelled_chest
from helpers.threshold_model import CARD, threshold_model, write_threshold_bundle
from helpers.whole_command import WholeCommandTest
from NLSTSegLib.checks.training_overlap import check_trained_on, salted
from NLSTSegLib.errors import ModelError
from NLSTSegLib.models.card import TrainingCases, read_card
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import Acquisition, CtVolume
from NLSTSegLib.volume.scan_hash import scan_sha256

SALT = "5a1t"


def card_of(*digests: str):
    return dataclasses.replace(CARD, training_cases=TrainingCases(SALT, tuple(salted(SALT, d) for d in digests)))


class TrainedOnTest(unittest.TestCase):
    def test_the_same_voxels_give_one_warning_and_others_none(self):
        ct, _ = labelled_chest(1)
        card = card_of(scan_sha256(labelled_chest(2)[0]), scan_sha256(ct))
        (finding,) = check_trained_on(ct, card)
        self.assertEqual((finding.severity, finding.code), ("warning", "trained_on"))
        self.assertIn(card.name, finding.message)
        self.assertEqual(check_trained_on(labelled_chest(3)[0], card), [])
        one_voxel_less = ct.hu.copy()
        one_voxel_less[20, 30, 30] += 1
        self.assertEqual(check_trained_on(dataclasses.replace(ct, hu=one_voxel_less), card), [])

    def test_the_salt_hides_a_scan_from_a_list_of_plain_hashes(self):
        digest = scan_sha256(labelled_chest(1)[0])
        self.assertEqual(len({digest, salted("", digest), salted("a", digest), salted("b", digest)}), 4)
        known = card_of(digest).training_cases
        other = dataclasses.replace(CARD, training_cases=dataclasses.replace(known, salt="other"))
        self.assertEqual(check_trained_on(labelled_chest(1)[0], other), [])

    def test_a_card_without_training_cases_warns_of_nothing(self):
        self.assertEqual(check_trained_on(labelled_chest(1)[0], CARD), [])

    def test_a_card_of_an_earlier_version_that_holds_series_too_is_read_by_its_voxels(self):
        ct, _ = labelled_chest(1)
        ours = dataclasses.replace(ct, acquisition=Acquisition(series_uid="1.2.840.1"))
        series = hashlib.sha256(b"1.2.840.1").hexdigest()
        self.assertEqual(len(check_trained_on(ours, card_of(scan_sha256(ours), series))), 1)
        self.assertEqual(check_trained_on(ours, card_of(series)), [])

    def test_axes_number_format_and_padding_do_not_hide_a_scan(self):
        ct, _ = labelled_chest(1)
        own = scan_sha256(ct)
        flipped = CtVolume(
            np.ascontiguousarray(ct.hu[::-1, :, ::-1]),
            ct.spacing_ijk_mm,
            tuple(ct.lps_from_ijk_mm(np.array([59, 0, 39])).tolist()),
            (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
        )
        self.assertEqual(scan_sha256(flipped), own)
        self.assertEqual(scan_sha256(dataclasses.replace(ct, hu=ct.hu.astype(np.float32) + np.float32(0.2))), own)
        padded = CtVolume.from_image(as_int32_with_padding(ct))
        air = ct.hu.copy()
        air[:, [0, 0, -1, -1], [0, -1, 0, -1]] = -1024
        self.assertEqual(scan_sha256(padded), scan_sha256(dataclasses.replace(ct, hu=air)))
        self.assertNotEqual(scan_sha256(dataclasses.replace(ct, hu=ct.hu.reshape(56, 40, 60))), own)

    def test_every_way_to_lay_the_axes_is_the_same_scan(self):
        ct, _ = labelled_chest(1)
        small = dataclasses.replace(ct, hu=np.ascontiguousarray(ct.hu[10:15, 20:27, 20:29]))
        own = scan_sha256(small)
        for axes in AXES:
            direction = tuple(np.ravel(axes).tolist())
            letters = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
            turned = CtVolume.from_image(sitk.DICOMOrient(small.to_image(), letters))
            self.assertEqual(scan_sha256(turned), own, letters)

    def test_segment_reports_it(self):
        ct, _ = labelled_chest(1)
        options = SegmentOptions(device="cpu", threads=1)
        known = dataclasses.replace(threshold_model(), card=card_of(scan_sha256(ct)))
        self.assertIn("trained_on", [finding.code for finding in segment(ct, known, options).findings])
        self.assertNotIn("trained_on", [finding.code for finding in segment(ct, threshold_model(), options).findings])


class RealScanTest(unittest.TestCase):
    @real_data
    def test_a_nifti_copy_is_the_scan_of_its_dicom_files(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        ct = read_ct(data / "ct" / "LIDC-IDRI-0001" / "dicom")
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "copy.nii.gz"
            flipped = sitk.DICOMOrient(sitk.Cast(ct.to_image(), sitk.sitkInt32), "RAS")
            sitk.WriteImage(flipped, str(path), useCompression=True, compressionLevel=1)
            self.assertEqual(scan_sha256(read_ct(path)), scan_sha256(ct))


class CardTest(unittest.TestCase):
    def test_the_hashes_come_back_from_the_card_and_what_is_none_is_refused(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cases = card_of("a", "b").training_cases
            write_threshold_bundle(folder, training_cases=cases)
            self.assertEqual(read_card(folder / "model.json").training_cases, cases)
            content = json.loads((folder / "model.json").read_text())
            content["training_cases"]["sha256"][0] = "patient 12"
            (folder / "model.json").write_text(json.dumps(content))
            with self.assertRaisesRegex(ModelError, "training_cases"):
                read_card(folder / "model.json")


class CommandTest(WholeCommandTest):
    def test_nlstseg_segment_warns_of_a_scan_that_was_trained_on(self):
        ct, _ = labelled_chest(1)
        path = self.folder / "ct.nii.gz"
        sitk.WriteImage(ct.to_image(), str(path))
        self.assertNotIn("trained_on", self.segmented(path).findings)
        write_threshold_bundle(
            self.bundle, min_volume_mm3=30.0, training_cases=card_of(scan_sha256(read_ct(path))).training_cases
        )
        outcome = self.segmented(path)
        self.assertEqual(outcome.findings["trained_on"], "warning")
        self.assertIn("trained_on", outcome.stderr)


if __name__ == "__main__":
    unittest.main()
