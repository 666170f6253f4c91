"""Follow-up of real chests: two low-dose CTs of one patient, two months apart, of which one shows the upper half."""

import csv
import unittest

import numpy as np

from helpers.marks import real_data, slow
from helpers.shared_data import shared_data
from NLSTSegLib.followup.compare import Options, follow_up
from NLSTSegLib.followup.time_point import of_labels
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import to_canonical

RADIUS_MM = 4.0


@real_data
@slow
class TestLowDosePair(unittest.TestCase):
    def point(self, data, name):
        """The chest with a ball at every mark of ``marks.csv``."""
        ct = to_canonical(read_ct(data / "chests" / name / "ct.nrrd"))
        labels = np.zeros(ct.hu.shape, np.uint8)
        with open(data / "chests" / "marks.csv", newline="") as file:
            marks = [row for row in csv.DictReader(file) if row["chest"] == name]
        places = ct.lps_from_ijk_mm(np.moveaxis(np.indices(ct.hu.shape)[::-1], 0, -1))
        for label, row in enumerate(marks, start=1):
            centre = [float(row[f"centroid_{axis}_mm"]) for axis in "lps"]
            labels[np.linalg.norm(places - centre, axis=-1) <= RADIUS_MM] = label
        return of_labels(ct, labels, "marks", {}, {})

    def test_registered_or_refused_and_no_false_growth(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        points = [self.point(data, f"ACRIN-FLT-Breast_001{part}") for part in "ac"]
        found = follow_up(points, [0, 61], Options())
        registration = found.registrations[0]
        codes = {finding.code for finding in found.findings}
        if registration.is_accepted:
            self.assertIn("part_of_chest", codes)
        else:
            self.assertIn("not_registered", codes)
            self.assertEqual({str(step.kind) for track in found.tracks for step in track.steps}, {"not compared"})
        grown = [found.change(track, 1, 0) for track in found.tracks]
        self.assertEqual([change for change in grown if change and change.growth.verdict == "grown"], [])


if __name__ == "__main__":
    unittest.main()
