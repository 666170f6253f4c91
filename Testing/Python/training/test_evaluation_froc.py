"""The FROC on cases small enough to be worked out by hand."""

import math
import unittest

import numpy as np

from nlstseg_training.evaluation.metrics.bootstrap import draw_patients
from nlstseg_training.evaluation.metrics.froc import RATES, CandidateHits, Froc, Scan, match_candidates


def candidates_on(labels: np.ndarray, centres: list, scores: list, spacing=(1.0, 1.0, 1.0)) -> CandidateHits:
    values = np.unique(labels[labels > 0])
    centres_kji = np.array([np.argwhere(labels == value).mean(axis=0) for value in values]).reshape(-1, 3)
    volumes = np.array([(labels == value).sum() for value in values]) * np.prod(spacing)
    return match_candidates(
        labels, np.array(centres, float).reshape(-1, 3), np.array(scores, float), values, centres_kji, volumes, spacing
    )


class CandidateTest(unittest.TestCase):
    def test_a_centre_in_the_mask_hits_however_far_from_the_middle(self):
        labels = np.zeros((3, 3, 40), np.uint8)
        labels[1, 1, 2:38] = 1
        made = candidates_on(labels, [(1, 1, 3)], [0.9])
        self.assertEqual(made.lesion_scores.tolist(), [0.9])
        self.assertFalse(made.outside[0])
        # The voxel that a centre lies in is the nearest one.
        made = candidates_on(labels, [(1, 0.6, 3), (1.4, 1, 3), (1, 0.4, 3)], [0.9, 0.9, 0.9])
        self.assertEqual(made.outside.tolist(), [False, False, True])

    def test_a_centre_within_the_radius_hits_also_outside_the_mask(self):
        labels = np.zeros((20, 20, 20), np.uint8)
        labels[5:15, 5:15, 5:15] = 1
        # Edges at 4.5 and 14.5, radius 6.2 around 9.5.
        for at, hit in ((15.6, True), (15.8, False)):
            self.assertEqual(bool(candidates_on(labels, [(9.5, 9.5, at)], [0.5]).outside[0]), not hit, at)

    def test_the_radius_is_in_millimetres_on_every_axis(self):
        labels = np.zeros((9, 21, 21), np.uint8)
        labels[4, 8:13, 8:13] = 1
        # 25 voxels of 4 x 1 x 1 mm: a radius of 2.88 mm.
        spacing = (4.0, 1.0, 1.0)
        self.assertTrue(candidates_on(labels, [(5, 10, 10)], [0.5], spacing).outside[0])
        self.assertFalse(candidates_on(labels, [(4, 10, 12.8)], [0.5], spacing).outside[0])

    def test_the_best_of_several_counts_and_the_others_are_ignored(self):
        labels = np.zeros((3, 3, 20), np.uint8)
        labels[:, :, 2:8] = 1
        labels[:, :, 14:18] = 2
        made = candidates_on(labels, [(1, 1, 3), (1, 1, 5), (1, 1, 11)], [0.6, 0.8, 0.7])
        self.assertEqual(made.lesion_scores.tolist(), [0.8, 0.0])
        self.assertEqual(made.outside.tolist(), [False, False, True])

    def test_scans_without_lesions_or_candidates(self):
        empty, one = np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)
        one[1, 1, 1] = 1
        self.assertEqual(candidates_on(empty, [(1, 1, 1)], [0.5]).outside.tolist(), [True])
        self.assertEqual(candidates_on(one, [], []).lesion_scores.tolist(), [0.0])


class CurveTest(unittest.TestCase):
    def setUp(self):
        # Two scans, five lesions, one of them never hit.
        self.scans = [Scan((0.9, 0.7, 0.3), (0.8, 0.5, 0.2)), Scan((0.6, 0.0), (0.5,))]
        self.froc = Froc(self.scans, [0, 1])

    def test_the_points_are_those_counted_by_hand(self):
        curve = self.froc.curve()
        np.testing.assert_allclose(curve.scores, [np.inf, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2])
        np.testing.assert_allclose(curve.sensitivity, [0, 0.2, 0.2, 0.4, 0.6, 0.6, 0.8, 0.8])
        # Both marks of score 0.5 appear at once.
        np.testing.assert_allclose(curve.outside_per_scan, [0, 0, 0.5, 0.5, 0.5, 1.5, 1.5, 2])

    def test_the_sensitivities_and_their_mean_are_those_counted_by_hand(self):
        expected = [0.2, 0.2, 0.6, 0.6, 0.8, 0.8, 0.8]
        np.testing.assert_allclose(self.froc.sensitivities(RATES), expected)
        *at_rates, cpm = self.froc.estimates(RATES, draw_patients(2))
        np.testing.assert_allclose([each.value for each in at_rates], expected)
        self.assertAlmostEqual(cpm.value, np.mean(expected))

    def test_a_rate_that_is_just_reached_counts(self):
        scans = [Scan((0.9,), (0.95,)), *[Scan((), ())] * 9]
        # 1 of 10 scans: 0.1, which three tenths over three also is but for the last bit.
        froc = Froc(scans, list(range(10)))
        self.assertEqual(froc.sensitivities((0.3 - 0.2,))[0], 1.0)
        self.assertEqual(froc.sensitivities((0.0999,))[0], 0.0)

    def test_a_perfect_and_an_empty_model(self):
        self.assertTrue((Froc([Scan((0.9, 0.8), ())], [0]).sensitivities() == 1).all())
        self.assertTrue((Froc([Scan((0.0, 0.0), ())], [0]).sensitivities() == 0).all())

    def test_without_a_lesion_nothing_is_defined(self):
        self.assertTrue(np.isnan(Froc([Scan((), (0.5,))], [0]).sensitivities()).all())

    def test_the_lowest_score_of_all_is_on_the_curve_too(self):
        # MONAI's curve leaves it out.
        curve = Froc([Scan((0.9, 0.4), ())], [0]).curve()
        self.assertEqual(curve.sensitivity[-1], 1.0)

    def test_a_patient_drawn_twice_counts_with_its_scans_and_lesions(self):
        doubled = Froc([self.scans[0], self.scans[0]], [0, 1]).curve()
        weighted = self.froc.curve(np.array([2, 0]))
        for curve, other in ((doubled, weighted), (weighted, doubled)):
            at = np.searchsorted(-other.scores, -curve.scores, side="right") - 1
            np.testing.assert_allclose(curve.sensitivity, other.sensitivity[at])
            np.testing.assert_allclose(curve.outside_per_scan, other.outside_per_scan[at])

    def test_the_interval_is_by_patient(self):
        # Three scans of each of eight patients, who are all found or all missed.
        scans = [Scan((0.9 if patient < 4 else 0.0,), ()) for patient in range(8) for _ in range(3)]
        patients = [patient for patient in range(8) for _ in range(3)]
        cpm = Froc(scans, patients).estimates(RATES, draw_patients(8))[-1]
        self.assertEqual(cpm.value, 0.5)
        # Binomial of 8: 2.5 % lies at 1 of 8, 97.5 % at 7; of 24 it would be 7 and 17 of 24.
        self.assertAlmostEqual(cpm.low, 0.125, delta=0.03)
        self.assertAlmostEqual(cpm.high, 0.875, delta=0.03)
        alone = Froc(scans[:3], [0, 0, 0]).estimates(RATES, draw_patients(1))[-1]
        self.assertTrue(math.isnan(alone.low))


if __name__ == "__main__":
    unittest.main()
