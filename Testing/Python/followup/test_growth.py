"""Growth against numbers worked by hand, and the published rules."""

import math
import unittest

from hypothesis import given
from hypothesis import strategies as st

from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.growth import Verdict, growth, mass_mg
from NLSTSegLib.followup.rules import Sizes, recist, rules

WORKED = (
    # V1, V2, days, c1, c2, change %, low, high, days to double, low, high
    (250, 500, 180, 0.19, 0.14, 100.00, 26.37, 216.54, 180.00, 108.28, 533.14),
    (905, 1800, 1000, 0.12, 0.12, 98.90, 42.79, 177.05, 1008.06, 680.20, 1946.07),
    (1000, 2000, 365, 0, 0, 100.00, 100.00, 100.00, 365.00, 365.00, 365.00),
)
NOT_MEASURABLE = (
    (113, 170, 90, 0.29, 0.23, 50.44, -26.25, 206.89, 55.63),
    (1000, 1250, 365, 0.10, 0.10, 25.00, -5.19, 64.81, 506.37),
    (200, 200, 100, 0.20, 0.20, 0.00, -42.24, 73.14, 126.27),
)
VOLUMES = st.floats(1, 1e6)
CVS = st.floats(0, 0.6)


def percent(interval):
    return [round(100 * value, 2) for value in (interval.value, interval.low, interval.high)]


def days(interval):
    return [round(value, 2) for value in (interval.value, interval.low, interval.high)]


class TestGrowth(unittest.TestCase):
    def test_what_has_grown_beyond_its_error_has_a_doubling_time(self):
        for v1, v2, t, c1, c2, *expected in WORKED:
            with self.subTest(v1=v1):
                found = growth(v1, v2, t, c1, c2)
                self.assertEqual(found.verdict, Verdict.GROWN)
                self.assertEqual(percent(found.change) + days(found.doubling_days), expected)
                self.assertIsNone(found.halving_days)

    def test_what_is_within_its_error_has_a_bound_alone(self):
        for v1, v2, t, c1, c2, *change, bound in NOT_MEASURABLE:
            with self.subTest(v1=v1):
                found = growth(v1, v2, t, c1, c2)
                self.assertEqual(found.verdict, Verdict.NOT_MEASURABLE)
                self.assertEqual(percent(found.change), change)
                self.assertEqual(round(found.not_faster_than_days, 2), bound)
                self.assertIsNone(found.doubling_days)

    def test_what_has_shrunk_has_a_halving_time(self):
        found = growth(500, 250, 120, 0.14, 0.19)
        self.assertEqual(found.verdict, Verdict.SHRUNK)
        self.assertEqual(percent(found.change), [-50.00, -68.41, -20.87])
        self.assertEqual(days(found.halving_days), [120.00, 72.19, 355.43])
        self.assertIsNone(found.doubling_days)

    def test_exactly_no_change_without_error_doubles_never(self):
        found = growth(100, 100, 90, 0, 0)
        self.assertEqual((found.verdict, found.not_faster_than_days), (Verdict.NOT_MEASURABLE, None))

    def test_without_dates_there_is_the_change_alone(self):
        found = growth(250, 500, None, 0.19, 0.14)
        self.assertEqual(percent(found.change), [100.00, 26.37, 216.54])
        self.assertEqual((found.doubling_days, found.not_faster_than_days), (None, None))

    @given(VOLUMES, VOLUMES, CVS, CVS)
    def test_swapped_volumes_give_the_mirror(self, v1, v2, c1, c2):
        there, back = growth(v1, v2, 100, c1, c2), growth(v2, v1, 100, c2, c1)
        for one, other in (
            (there.change.value, back.change.value),
            (there.change.low, back.change.high),
            (there.change.high, back.change.low),
        ):
            self.assertTrue(math.isclose(1 + one, 1 / (1 + other), rel_tol=1e-9))
        mirror = {Verdict.GROWN: Verdict.SHRUNK, Verdict.SHRUNK: Verdict.GROWN}
        self.assertEqual(back.verdict, mirror.get(there.verdict, there.verdict))
        if there.doubling_days:
            for one, other in zip(days(there.doubling_days), days(back.halving_days), strict=True):
                self.assertTrue(math.isclose(one, other, rel_tol=1e-6, abs_tol=0.02))

    def test_what_cannot_be_is_refused(self):
        for bad in ((0, 1, 1, 0, 0), (1, -1, 1, 0, 0), (1, 1, 0, 0, 0), (1, 1, -5, 0, 0), (1, 1, 1, 2, 0), (1, 1, 1, 0, -0.1)):
            with self.subTest(bad=bad), self.assertRaises(InputError):
                growth(*bad)

    def test_mass_is_volume_times_density(self):
        self.assertAlmostEqual(mass_mg(1000, -600), 400)
        self.assertEqual(mass_mg(1000, -1100), 0)


def says(name, first, second, days):
    return next((rule.says for rule in rules(first, second, days) if rule.name == name), None)


def ball(diameter_mm):
    return Sizes(math.pi / 6 * diameter_mm**3, diameter_mm, diameter_mm)


class TestRules(unittest.TestCase):
    def test_a_quarter_more_volume_in_90_days_doubles_in_280(self):
        said = says("NELSON", Sizes(200, 7.3, 7.5), Sizes(250, 7.8, 8.0), 90)
        self.assertIn("doubling in 280 days, below 400: positive", said)
        self.assertIn("no growth", says("NELSON", Sizes(200, 7.3, 7.5), Sizes(249, 7.8, 8.0), 90))

    def test_slow_growth_is_slow_by_both(self):
        first, second = Sizes(200, 7, 7), Sizes(300, 8, 8)
        self.assertIn("above 600: negative", says("NELSON", first, second, 365))
        self.assertIn("again at 12 months", says("BTS", first, second, 365))

    def test_diameters_are_subtracted_before_they_are_rounded(self):
        # 6.04 and 7.55 are 6.0 and 7.6 mm when shown, 1.6 mm apart; unrounded it is 1.51.
        self.assertIn("+1.5 mm within 12 months", says("Lung-RADS", ball(6.04), ball(7.55), 300))
        # 6.46 and 7.95 are 6.5 and 8.0 mm when shown, 1.5 mm apart.
        self.assertIsNone(says("Lung-RADS", ball(6.46), ball(7.95), 300))

    def test_what_needs_dates_says_so(self):
        self.assertIn("no dates", says("Lung-RADS", ball(6), ball(8), None))
        self.assertIn("needs the days", says("NELSON", ball(6), ball(8), None))

    def test_rules_that_disagree_stand_side_by_side(self):
        # +1.6 mm at 10 mm: growth for Lung-RADS and BTS, not for Fleischner.
        names = {rule.name: rule.says for rule in rules(ball(10), ball(11.6), 180)}
        self.assertIn("growth", names["Lung-RADS"])
        self.assertTrue(names["BTS"].startswith("growth"))
        self.assertNotIn("Fleischner", names)

    def test_every_rule_names_its_source(self):
        for rule in rules(ball(8), ball(12), 100):
            self.assertTrue(rule.source)


class TestRecist(unittest.TestCase):
    def test_progression_needs_both_a_fifth_and_5_mm(self):
        self.assertIn("progression by size", recist([(20, 25), (15, 18)], 0).says)
        self.assertIn("neither", recist([(10, 12.5), (11, 13.4)], 0).says)  # +23 %, but +4.9 mm

    def test_progression_counts_from_the_smallest_sum(self):
        self.assertIn("progression by size", recist([(40, 20, 26)], 0).says)
        self.assertIn("partial response", recist([(40, 26)], 0).says)

    def test_two_longest_targets_of_10_mm_count(self):
        lengths = [(30, 30), (12, 90), (20, 20), (5, 90)]
        self.assertIn("sum of 2 longest diameters 50.0 to 50.0", recist(lengths, 0).says)

    def test_a_lesion_that_was_not_found_is_not_taken_for_gone(self):
        self.assertIn("sum of 1 longest diameter 20.0 to 20.0", recist([(30, 0), (20, 20)], 0).says)

    def test_a_new_lesion_is_said_beside_the_sum(self):
        self.assertIn("if new: progression", recist([(20, 20)], 1).says)
        self.assertIsNone(recist([(5, 5)], 0))


if __name__ == "__main__":
    unittest.main()
