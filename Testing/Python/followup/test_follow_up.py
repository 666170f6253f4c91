"""Whole follow-ups of phantoms whose lesions are known, and the folder that is written."""

import csv
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.placed_chest import AXES, LESIONS, chest_ct
from NLSTSegLib.cli.follow_up import FollowUpJob, run_follow_up
from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.compare import Options, days_of, follow_up
from NLSTSegLib.followup.matching import Kind
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.followup.table import rows
from NLSTSegLib.followup.time_point import of_labels
from NLSTSegLib.followup.tracks import follow
from NLSTSegLib.pipeline import SegmentOptions
from NLSTSegLib.reading.write import write_image
from NLSTSegLib.volume.components import component_labels
from NLSTSegLib.volume.scan_hash import scan_sha256


def shift_by(*shift_mm):
    """An accepted registration that moves every place so."""
    transform = sitk.TranslationTransform(3, [float(value) for value in shift_mm])
    return Registration(transform, 1.0, 1.0, 0.0, 1.0, (4000.0, 4000.0), "")


def point_of(ct):
    """All soft tissue in the placed chest as lesions."""
    return of_labels(ct, component_labels(ct.hu > -100), "test", {}, {})


def kinds(tracks):
    return sorted(str(step.kind) for track in tracks for step in track.steps if step)


class TestTracks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ct = chest_ct(np.eye(3))
        cls.point = point_of(cls.ct)

    def test_the_same_ct_twice_has_all_pairs_same_and_no_change(self):
        found = follow_up([self.point, self.point], None, Options(register=False))
        found = replace(found, tracks=tuple(follow([self.point] * 2, [shift_by(0, 0, 0)])))
        made = rows(found)
        self.assertEqual(len(made), len(LESIONS))
        for row in made:
            self.assertEqual((row["kind"], row["change_percent"], row["verdict"]), ("same", 0, "not measurable"))

    def test_axes_of_the_file_change_nothing(self):
        expected = [one.sizes.volume_mm3 for one in self.point.lesions]
        for direction in AXES[:: len(AXES) // 6]:
            tracks = follow([self.point, point_of(chest_ct(direction))], [shift_by(0, 0, 0)])
            self.assertEqual(kinds(tracks), ["same"] * len(expected))

    def test_a_lesion_that_one_of_three_cts_lacks_is_one_track(self):
        without = replace(self.point, lesions=self.point.lesions[1:])
        tracks = follow([self.point, without, self.point], [shift_by(0, 0, 0)] * 2)
        self.assertEqual(len(tracks), len(LESIONS))
        gap = next(track for track in tracks if not track.members[1])
        self.assertEqual([str(step.kind) for step in gap.steps], ["not found", "same"])
        found = follow_up([self.point] * 3, [0, 90, 365], Options(register=False))
        found = replace(found, points=(self.point, without, self.point), tracks=tuple(tracks))
        since_first = [row for row in rows(found) if (row["from"], row["to"]) == (1, 3)]
        self.assertEqual(len(since_first), len(LESIONS))
        self.assertEqual(since_first[0]["days"], 365)

    def test_no_lesion_in_one_of_them(self):
        empty = replace(self.point, lesions=())
        self.assertEqual(kinds(follow([self.point, empty], [shift_by(0, 0, 0)])), ["not found"] * len(LESIONS))
        self.assertEqual(kinds(follow([empty, self.point], [shift_by(0, 0, 0)])), ["new"] * len(LESIONS))
        self.assertEqual(follow([empty, empty], [shift_by(0, 0, 0)]), [])

    def test_refused_registrations_pair_nothing(self):
        refused = replace(shift_by(0, 0, 0), refusal="their lungs do not agree")
        tracks = follow([self.point, self.point], [refused])
        self.assertEqual({step.kind for track in tracks for step in track.steps if step}, {Kind.NOT_COMPARED})
        by_hand = follow([self.point, self.point], [refused], by_hand=[[((0,), (0,))]])
        self.assertEqual(sum(step.by_hand for track in by_hand for step in track.steps if step), 1)

    def test_merged_lesions_are_one_track_whose_volumes_are_summed(self):
        labels = component_labels(self.ct.hu > -100)
        labels[labels == 2] = 1
        one = of_labels(self.ct, labels, "test", {}, {})
        tracks = follow([self.point, one], [shift_by(0, 0, 0)], by_hand=[[((0, 1), (0,))]])
        merged = next(track for track in tracks if len(track.members[0]) == 2)
        found = replace(follow_up([self.point, one], None, Options(register=False)), tracks=tuple(tracks))
        change = found.change(merged, 1, 0)
        self.assertAlmostEqual(change.growth.change.value, 0)
        self.assertIsNone(change.sizes)

    def test_cts_must_be_in_the_order_of_their_dates(self):
        for days in ([0, 0], [0, -3], [0]):
            with self.subTest(days=days), self.assertRaisesRegex(InputError, "order of their dates"):
                follow_up([self.point, self.point], days, Options(register=False))

    def test_a_missing_date_gives_no_days(self):
        self.assertIsNone(days_of(["20240101", ""]))
        self.assertEqual(days_of(["20240101", "2024-03-01"]), [0.0, 60.0])
        with self.assertRaises(InputError) as refused:
            days_of(["20240101", "20241399"])
        self.assertNotIn("20241399", str(refused.exception))


class TestFindings(unittest.TestCase):
    def codes(self, **other):
        ct = chest_ct(np.eye(3))
        acquisition = replace(ct.acquisition, format="DICOM", kernel="B31f", patient_id="one", contrast="x")
        first = point_of(replace(ct, acquisition=acquisition))
        second = point_of(replace(ct, acquisition=replace(acquisition, **other)))
        found = follow_up([first, second], [0, 9], Options(register=False))
        return {finding.code for finding in found.findings} - {"not_registered"}, found

    def test_each_difference_is_said(self):
        self.assertEqual(self.codes()[0], set())
        self.assertEqual(self.codes(kernel="B70f")[0], {"kernel_differs"})
        self.assertEqual(self.codes(contrast="")[0], {"contrast_differs"})
        self.assertEqual(self.codes(slice_thickness_mm=9.0)[0], {"slices_differ"})

    def test_another_patient_id_is_said_and_shown_nowhere(self):
        codes, found = self.codes(patient_id="two")
        self.assertEqual(codes, {"other_patient_id"})
        self.assertNotIn("two", " ".join(finding.message for finding in found.findings).split())


class TestCommand(unittest.TestCase):
    """With lesions that were outlined before, as a reader exports them, and no registration: no network is needed."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        ct = chest_ct(np.eye(3))
        for name in ("a", "b"):
            (self.folder / f"result-{name}").mkdir()
            write_image(ct.to_image(), self.folder / f"{name}.nrrd")
            labels = component_labels(ct.hu > -100).astype(np.uint8)
            write_image(ct.image_like(labels), self.folder / f"result-{name}" / "labels.nii.gz")
            rows = "".join(f"{n},nodule {n},\n" for n in range(1, len(LESIONS) + 1))
            (self.folder / f"result-{name}" / "lesions.csv").write_text("label,lesion,score\n" + rows)

    def job(self, **other):
        job = FollowUpJob(
            inputs=[self.folder / "a.nrrd", self.folder / "b.nrrd"],
            output=self.folder / "out",
            days=[90.0],
            dates=(),
            results=[self.folder / "result-a", self.folder / "result-b"],
            pairs=None,
            model="lidc-25d",
            segment_options=SegmentOptions(),
            options=Options(register=False),
        )
        return replace(job, **other)

    def run_job(self, **other):
        run_follow_up(self.job(**other), as_json=False, quiet=True)
        with open(self.folder / "out" / "pairs.csv", newline="") as file:
            return list(csv.DictReader(file))

    def test_pairs_by_hand_are_made_and_the_rest_is_left_alone(self):
        pairs = self.folder / "pairs.csv"
        pairs.write_text("earlier,later\nnodule 1,nodule 1\nnodule 2,\n")
        table = self.run_job(pairs=pairs)
        told = sorted((row["kind"], row["by"], row["baseline"], row["followup"]) for row in table)
        self.assertEqual(
            told,
            [
                ("not compared", "", "", "nodule 2"),
                ("not compared", "", "", "nodule 3"),
                ("not compared", "", "nodule 3", ""),
                ("not found", "hand", "nodule 2", ""),
                ("same", "hand", "nodule 1", "nodule 1"),
            ],
        )

    def test_what_cannot_be_used_is_refused_before_anything_is_written(self):
        pairs = self.folder / "pairs.csv"
        pairs.write_text("earlier,later\nnodule 9,nodule 1\n")
        bad = {
            "has no lesion 'nodule 9'": {"pairs": pairs},
            "two CTs or more": {"inputs": [self.folder / "a.nrrd"]},
            "give one for each": {"results": [self.folder / "result-a"]},
            "from every CT to the next": {"days": [1.0, 2.0]},
            "either --days or --dates": {"dates": ["2024-01-01", "2024-02-01"]},
            "order of their dates": {"days": [], "dates": ["2024-02-01", "2024-01-01"]},
            "holds no result": {"results": [self.folder, self.folder / "result-b"]},
        }
        for sentence, other in bad.items():
            with self.subTest(sentence), self.assertRaisesRegex(InputError, sentence):
                self.run_job(**other)
            self.assertFalse((self.folder / "out").exists())

    def test_a_review_of_another_ct_on_the_same_grid_is_refused_by_its_hash(self):
        audit = self.folder / "result-b" / "audit.csv"
        audit.write_text(f"lesion,ct_sha256\nnodule 1,{scan_sha256(chest_ct(np.eye(3)))}\nnodule 2,\n")
        self.run_job()
        audit.write_text("lesion,ct_sha256\nnodule 1,ab12\n")
        with self.assertRaisesRegex(InputError, "'.*result-b' is of other voxels"):
            self.run_job(output=self.folder / "other")

    def test_dates_give_days_and_stand_nowhere(self):
        table = self.run_job(days=[], dates=["2024-01-01", "2024-03-01"])
        self.assertEqual({row["days"] for row in table}, {"60"})
        for file in (self.folder / "out").iterdir():
            self.assertNotIn(b"2024", file.read_bytes())


if __name__ == "__main__":
    unittest.main()
