"""The phantom's second time point: what is said to have changed has, and nothing else."""

import tempfile
import unittest
from pathlib import Path

import numpy as np

from NLSTSegLib.phantom.folder import write_follow_up
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.phantom.second import GONE, GROWN, GROWTH, NEW, Motion, make_follow_up
from NLSTSegLib.reading.read import read_ct


class TestSecondTimePoint(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.first = make_phantom(0, spacing_ijk_mm=(1.5, 1.5, 2.0))
        cls.second = make_follow_up(0, spacing_ijk_mm=(1.6, 1.6, 1.5))

    def volume_mm3(self, phantom, label):
        return (phantom.labels == label).sum() * phantom.ct.voxel_volume_mm3

    def test_one_lesion_is_twice_as_large_one_gone_one_new_and_the_rest_the_same(self):
        for label in range(1, 8):
            first, second = self.volume_mm3(self.first, label), self.volume_mm3(self.second, label)
            with self.subTest(label=label):
                if label == NEW:
                    self.assertTrue(first == 0 and second > 0)
                elif label == GONE:
                    self.assertTrue(first > 0 and second == 0)
                else:
                    self.assertAlmostEqual(second / first, GROWTH if label == GROWN else 1, delta=0.12)

    def test_lesions_lie_where_the_motion_brings_them(self):
        places = {lesion.label: np.array(lesion.centre_lps_mm) for lesion in self.first.lesions}
        for lesion in self.second.lesions:
            if lesion.label != NEW:
                expected = Motion().forward(places[lesion.label])
                self.assertLess(np.linalg.norm(expected - lesion.centre_lps_mm), 0.01)
            where = np.argwhere(self.second.labels == lesion.label)[:, ::-1]
            centroid = self.second.ct.lps_from_ijk_mm(where).mean(axis=0)
            self.assertLess(np.linalg.norm(centroid - lesion.centre_lps_mm), 3.5)

    def test_both_time_points_are_written_or_none(self):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "patient"
            write_follow_up(self.first, self.second, place)
            names = sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())
            each = ("ct.nrrd", "lesions.csv", "truth.nrrd")
            self.assertEqual(names, [f"{part}/{name}" for part in ("baseline", "followup") for name in each])
            self.assertEqual(read_ct(place / "followup" / "ct.nrrd").origin_lps_mm, self.second.ct.origin_lps_mm)


if __name__ == "__main__":
    unittest.main()
