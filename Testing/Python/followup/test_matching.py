"""Lesions of two CTs matched: simulated in numbers, and each kind of pair by itself."""

import itertools
import unittest

import numpy as np

from NLSTSegLib.followup.assignment import assign
from NLSTSegLib.followup.matching import Mark, Move, match


def ball(place, diameter_mm=8.0, mean_hu=0.0):
    place = np.asarray(place, float)
    return Mark(place, np.pi / 6 * diameter_mm**3, mean_hu, lambda point: np.linalg.norm(point - place) <= diameter_mm / 2)


def shifted(shift=(0, 0, 0), low=-1000.0, high=1000.0):
    """Both CTs reach from ``low`` to ``high`` along the third axis of the follow-up."""
    shift = np.asarray(shift, float)
    return Move(
        forward=lambda point: point + shift,
        backward=lambda point: point - shift,
        seen_later=lambda point: low <= point[2] <= high,
        seen_earlier=lambda point: low <= point[2] <= high,
    )


def of(pairs):
    return [(str(pair.kind), pair.earlier, pair.later) for pair in pairs]


class TestAssignment(unittest.TestCase):
    def test_is_the_cheapest_of_all(self):
        rng = np.random.default_rng(0)
        for rows, columns in ((1, 1), (3, 3), (4, 6), (5, 5)):
            for _ in range(20):
                cost = rng.uniform(0, 1, (rows, columns))
                best = min(cost[range(rows), list(way)].sum() for way in itertools.permutations(range(columns), rows))
                found = assign(cost)
                self.assertEqual(len(set(found.tolist())), rows)
                self.assertAlmostEqual(cost[range(rows), found].sum(), best)


class TestKinds(unittest.TestCase):
    def test_the_same_lesions_are_the_same(self):
        marks = [ball((0, 0, 0)), ball((40, 0, 0)), ball((0, 60, 20))]
        self.assertEqual(of(match(marks, marks, shifted())), [("same", (n,), (n,)) for n in range(3)])

    def test_a_place_without_a_lesion_is_not_found_and_beyond_the_scan_it_says_so(self):
        marks = [ball((0, 0, 0)), ball((0, 0, 500))]
        self.assertEqual(of(match(marks, [], shifted(high=100))), [("not found", (0,), ()), ("not in the scan", (1,), ())])
        self.assertEqual(of(match([], marks, shifted(high=100))), [("new", (), (0,)), ("not in the scan", (), (1,))])

    def test_two_that_grew_together_are_merged(self):
        pairs = match([ball((0, 0, 0), 10), ball((8, 0, 0), 6)], [ball((3, 0, 0), 22)], shifted())
        self.assertEqual(of(pairs), [("merged", (0, 1), (0,))])

    def test_one_that_fell_apart_is_split(self):
        pairs = match([ball((3, 0, 0), 22)], [ball((0, 0, 0), 10), ball((8, 0, 0), 6)], shifted())
        self.assertEqual(of(pairs), [("split", (0,), (0, 1))])

    def test_two_that_could_be_either_are_called_ambiguous(self):
        clear = match([ball((0, 0, 0))], [ball((1, 0, 0)), ball((60, 0, 0))], shifted())
        self.assertFalse(clear[0].ambiguous)
        either = match([ball((0, 0, 0))], [ball((4, 0, 0)), ball((-5, 0, 0))], shifted())
        self.assertTrue(either[0].ambiguous)

    def test_a_pair_by_hand_wins_over_a_nearer_one(self):
        earlier, later = [ball((0, 0, 0)), ball((50, 0, 0))], [ball((1, 0, 0)), ball((90, 0, 0))]
        pairs = match(earlier, later, shifted(), by_hand=[((0,), (1,))])
        self.assertEqual(of(pairs), [("same", (0,), (1,)), ("not found", (1,), ()), ("new", (), (0,))])
        self.assertTrue(pairs[0].by_hand)

    def test_a_lesion_that_a_reader_left_alone_stays_alone(self):
        pairs = match([ball((0, 0, 0))], [ball((1, 0, 0))], shifted(), by_hand=[((0,), ())])
        self.assertEqual(of(pairs), [("not found", (0,), ()), ("new", (), (0,))])

    def test_without_a_registration_only_a_reader_pairs(self):
        marks = [ball((0, 0, 0)), ball((50, 0, 0))]
        pairs = match(marks, marks, None, by_hand=[((1,), (1,))])
        self.assertEqual(of(pairs), [("not compared", (0,), ()), ("same", (1,), (1,)), ("not compared", (), (0,))])

    def test_nothing_matches_nothing(self):
        self.assertEqual(match([], [], shifted()), [])


class TestManyLesions(unittest.TestCase):
    def simulated(self, rng, count, error_mm):
        """Places in two lungs, a tenth gone, a tenth new; each off its place by ``error_mm`` on average."""

        def places(n):
            sides = rng.choice([-70.0, 70.0], n)[:, None] * [1, 0, 0]
            unit = rng.normal(size=(n, 3))
            inside = unit / np.linalg.norm(unit, axis=1)[:, None] * np.cbrt(rng.uniform(0, 1, n))[:, None]
            return sides + inside * [50, 75, 110]

        here = places(count)
        sizes, hu = np.exp(rng.normal(np.log(7), 0.35, count)), rng.normal(-100, 150, count)
        stays = rng.permutation(count)[: count - count // 10]
        # The mean length of a normal vector in space is 1.596 of its standard deviation along one axis.
        off = rng.normal(0, error_mm / 1.596, (len(stays), 3))
        grown = np.exp(rng.normal(0, 0.12, len(stays)))
        later = [ball(here[n] + d, sizes[n] * g, hu[n] + rng.normal(0, 40)) for n, d, g in zip(stays, off, grown, strict=True)]
        new = [
            ball(place, size) for place, size in zip(places(count // 10), np.exp(rng.normal(np.log(7), 0.35, 99)), strict=False)
        ]
        return [ball(*one) for one in zip(here, sizes, hu, strict=True)], later + new, {int(n): k for k, n in enumerate(stays)}

    def test_of_60_lesions_5_mm_off_their_places_99_of_100_are_paired_rightly(self):
        rng = np.random.default_rng(22)
        right = wrong = total = 0
        for _ in range(8):
            earlier, later, truth = self.simulated(rng, 60, 5.0)
            for pair in match(earlier, later, shifted()):
                if pair.earlier and pair.later:
                    hits = sum(truth.get(one) in pair.later for one in pair.earlier)
                    right += hits
                    wrong += hits == 0
            total += len(truth)
        self.assertGreaterEqual(right / total, 0.99)
        self.assertLessEqual(wrong / total, 0.01)


if __name__ == "__main__":
    unittest.main()
