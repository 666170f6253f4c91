"""The phantom and its second time point, whose motion is known: their registration, and the whole follow-up of their lesions."""

import csv
import functools
import io
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
from PIL import Image

from NLSTSegLib.errors import InputError
from NLSTSegLib.followup import registration
from NLSTSegLib.followup.compare import FollowUp, Options, follow_up
from NLSTSegLib.followup.folder import write_follow_up
from NLSTSegLib.followup.registration import Registration, register
from NLSTSegLib.followup.table import COLUMNS, rows
from NLSTSegLib.followup.time_point import of_labels
from NLSTSegLib.followup.tracks import follow
from NLSTSegLib.inference.lung_field import find_lungs
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.phantom.second import GONE, GROWN, NEW, Motion, make_follow_up

VOXELS_MM = (2.0, 2.0, 3.0)
MOTION = Motion(breath_mm=22.0)


def errors_mm(found: Registration, followup, motion: Motion) -> np.ndarray:
    """At 100 places in the lungs of the follow-up that the baseline shows."""
    lungs = find_lungs(followup)
    assert lungs is not None
    inside = np.argwhere(lungs.mask & (followup.hu < -500))[:, ::-1]
    later = followup.lps_from_ijk_mm(np.random.default_rng(0).permutation(inside)[:100])
    return np.array([np.linalg.norm(found.forward(motion.back(place)) - place) for place in later])


class PairTest(unittest.TestCase):
    """The pair is made, and registered, once."""

    @classmethod
    def setUpClass(cls):
        cls.found, cls.stages = pair()
        cls.points = cls.found.points
        cls.baseline, cls.followup = (point.ct for point in cls.points)
        cls.registration = cls.found.registrations[0]


@functools.cache
def pair() -> tuple[FollowUp, list[tuple[float, str]]]:
    """The follow-up by lesions that are known, and its progress."""
    stages: list[tuple[float, str]] = []
    phantoms = make_phantom(0, spacing_ijk_mm=VOXELS_MM), make_follow_up(0, spacing_ijk_mm=(2.2, 2.2, 2.5), motion=MOTION)
    points = [
        of_labels(one.ct, one.labels, "truth", {n: f"Lesion {n}" for n in range(9)}, dict.fromkeys(range(9), 0.9))
        for one in phantoms
    ]
    return follow_up(points, [0, 180], Options(cv=0.1), progress=lambda done, stage: stages.append((done, stage))), stages


class TestRegistration(PairTest):
    def test_places_are_found_within_3_mm_where_the_diaphragm_moved_by_22(self):
        self.assertTrue(self.registration.is_accepted, self.registration.refusal)
        error = errors_mm(self.registration, self.followup, MOTION)
        self.assertLess(error.mean(), 3.0)
        self.assertLess(error.max(), 10.0)
        self.assertGreater(self.registration.seen_share, 0.95)

    def test_backward_is_the_inverse_of_forward(self):
        for place in ([60.0, 20, 30], [-50, -10, -40], [0, 0, 0], [80, 40, 80]):
            there = self.registration.forward(np.array(place))
            self.assertLess(np.linalg.norm(self.registration.backward(there) - place), 0.05)

    def test_progress_goes_forward_to_the_end(self):
        done = [share for share, _ in self.stages]
        self.assertEqual(done, sorted(done))
        self.assertEqual(self.stages[-1], (1.0, "registration: done"))

    def test_the_upper_half_of_a_chest_lies_in_the_upper_half(self):
        cut = len(self.followup.hu) // 2
        step = self.followup.spacing_ijk_mm[2]
        x, y, z = self.followup.origin_lps_mm
        half = replace(self.followup, hu=self.followup.hu[cut:], origin_lps_mm=(x, y, z + cut * step))
        found = register(self.baseline, half)
        self.assertTrue(found.is_accepted, found.refusal)
        self.assertLess(errors_mm(found, half, MOTION).mean(), 3.0)
        self.assertLess(found.seen_share, 0.8)

    def test_another_chest_is_refused(self):
        # Fewer samples are enough for it, and take less time.
        with mock.patch.multiple(registration, AFFINE_SAMPLES=5000, SPLINE_SAMPLES=5000):
            found = register(self.baseline, make_phantom(3, spacing_ijk_mm=VOXELS_MM).ct)
        self.assertFalse(found.is_accepted)
        self.assertIn("do not agree", found.refusal)

    def test_what_shows_no_lungs_is_refused_and_said(self):
        water = replace(self.baseline, hu=np.zeros_like(self.baseline.hu))
        self.assertIn("no lungs were found in the follow-up", register(self.baseline, water).refusal)


class TestFollowUp(PairTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.rows = {row["baseline"] or row["followup"]: row for row in rows(cls.found)}

    def test_every_lesion_is_what_was_made_of_it(self):
        self.assertEqual(self.registration.refusal, "")
        expected = {f"Lesion {n}": "same" for n in range(1, 7)} | {f"Lesion {GONE}": "not found", f"Lesion {NEW}": "new"}
        self.assertEqual({name: row["kind"] for name, row in self.rows.items()}, expected)
        for name, row in self.rows.items():
            if row["kind"] == "same":
                self.assertEqual(row["followup"], name)
                self.assertLess(row["distance_mm"], 5)

    def test_the_one_that_doubled_is_the_only_one_that_has_grown(self):
        verdicts = {name: row["verdict"] for name, row in self.rows.items() if row["kind"] == "same"}
        self.assertEqual([name for name, verdict in verdicts.items() if verdict == "grown"], [f"Lesion {GROWN}"])
        grown = self.rows[f"Lesion {GROWN}"]
        self.assertAlmostEqual(grown["change_percent"], 100, delta=20)
        self.assertAlmostEqual(grown["vdt_days"], 180, delta=30)
        self.assertIn("positive", grown["rules"])

    def test_what_is_not_the_same_is_said_of_the_cts(self):
        self.assertEqual({finding.code for finding in self.found.findings}, {"slices_differ"} | self.breath())

    def breath(self):
        first, second = self.registration.lungs_ml
        return {"breath_differs"} if abs(second / first - 1) > 0.15 else set()

    def test_the_folder_has_table_pictures_report_and_transform(self):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "out"
            write_follow_up(self.found, place, ["aa", "bb"], {})
            names = {file.name for file in place.iterdir()}
            self.assertEqual(names, {"pairs.csv", "follow-up.json", "follow-up.png", "follow-up.html", "baseline-to-followup.h5"})
            with open(place / "pairs.csv", newline="") as file:
                table = list(csv.DictReader(file))
            self.assertEqual(tuple(table[0]), COLUMNS)
            self.assertEqual(len(table), 7)
            report = json.loads((place / "follow-up.json").read_text())
            self.assertEqual((report["schema"], report["days"]), (1, [0, 180]))
            self.assertTrue(report["registrations"][0]["accepted"])
            page = (place / "follow-up.html").read_text(encoding="utf-8")
            self.assertEqual(page.count("<img"), 7)
            # What has grown comes with its interval, and a column in which nothing stands is left out.
            self.assertIn("<th>doubling days</th><th>from</th><th>to</th>", page)
            self.assertNotIn("halving", page)
            self.assertNotIn("http", page.replace("http://www.w3.org", ""))
            transform = sitk.ReadTransform(str(place / "baseline-to-followup.h5"))
            at = self.points[0].lesions[0].sizes.centroid_lps_mm
            np.testing.assert_allclose(transform.TransformPoint(at), self.registration.forward(np.array(at)))
            picture = Image.open(io.BytesIO((place / "follow-up.png").read_bytes()))
            self.assertGreater(picture.height, 7 * 160)
            with self.assertRaisesRegex(InputError, "not empty"):
                write_follow_up(self.found, place, ["aa", "bb"], {})

    def test_time_reversed_new_is_not_found_and_growth_is_its_mirror(self):
        there = self.registration
        back = _Back(there.transform, *(1.0, 1.0, 0.0, 1.0, (1.0, 1.0), ""))
        tracks = follow(self.points[::-1], [back])
        kinds = sorted(str(step.kind) for track in tracks for step in track.steps if step)
        self.assertEqual(kinds, sorted(["same"] * 5 + ["new", "not found"]))
        reversed_ = replace(self.found, points=tuple(self.points[::-1]), registrations=(back,), tracks=tuple(tracks))
        by_name = {row["baseline"]: row for row in rows(reversed_)}
        self.assertAlmostEqual(by_name[f"Lesion {GROWN}"]["change_percent"], -50, delta=6)
        self.assertEqual(by_name[f"Lesion {GROWN}"]["verdict"], "shrunk")


class _Back(Registration):
    """The same registration the other way round."""

    def forward(self, point_lps_mm):
        return Registration.backward(self._there(), point_lps_mm)

    def backward(self, point_lps_mm):
        return self._there().forward(point_lps_mm)

    def _there(self):
        return Registration(self.transform, 1.0, 1.0, 0.0, 1.0, (1.0, 1.0), "")


if __name__ == "__main__":
    unittest.main()
