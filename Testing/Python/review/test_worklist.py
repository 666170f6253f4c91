"""The list of lesions as a reader works through it, the time in focus, and the rows kept up to date."""

import unittest

import numpy as np

from helpers.review_scene import ReviewTestCase, lesion_of
from NLSTSegLib.errors import InputError
from NLSTSegLib.review.case import review_row
from NLSTSegLib.review.focus_clock import IDLE_S, FocusClock
from NLSTSegLib.review.state import Status
from NLSTSegLib.review.worklist import counts, neighbour, next_new, possible_actions, sorted_rows
from NLSTSegLib.scene.correction import delete_lesion
from NLSTSegLib.scene.lesion_list import LesionList


def row(segment: str, status: str = "new", score: float | str = "", volume_mm3: int = 0) -> dict:
    return {"segment": segment, "status": status, "score": score, "volume_mm3": volume_mm3}


def ids(rows) -> str:
    return "".join(str(each["segment"]) for each in rows)


class OrderTest(unittest.TestCase):
    def test_rows_are_sorted_either_way_and_those_without_a_value_come_last(self):
        rows = [row("a", score=0.5), row("b"), row("c", score=0.9), row("d", score=0.5)]
        self.assertEqual(ids(sorted_rows(rows, "score", descending=True)), "cadb")
        self.assertEqual(ids(sorted_rows(rows, "score", descending=False)), "adcb")

    def test_status_is_sorted_by_what_is_left_to_do(self):
        rows = [row("r", "rejected"), row("a", "accepted"), row("n", "new"), row("e", "edited")]
        self.assertEqual(ids(sorted_rows(rows, "status", descending=False)), "near")

    def test_next_and_previous_go_round(self):
        self.assertEqual([neighbour(list("abc"), at, 1) for at in ("a", "c", None, "x")], ["b", "a", "a", "a"])
        self.assertEqual([neighbour(list("abc"), at, -1) for at in ("a", "c", None, "x")], ["c", "b", "c", "c"])
        self.assertIsNone(neighbour([], "a", 1))

    def test_next_new_lesion_is_looked_for_round_the_end(self):
        rows = [row("a"), row("b", "accepted"), row("c"), row("d", "rejected")]
        self.assertEqual([next_new(rows, at) for at in ("a", "b", "c", "d", None)], ["c", "c", "a", "a", "a"])
        self.assertIsNone(next_new([row("a", "edited")], "a"))
        self.assertEqual(next_new([row("a")], "a"), "a")

    def test_actions_depend_on_status_and_number_of_the_selected_lesions(self):
        cases = {
            (): set(),
            ("new",): {"accept", "reject", "split", "delete"},
            ("edited",): {"accept", "reject", "split", "delete"},
            ("accepted",): {"reject", "reopen", "split", "delete"},
            ("rejected",): {"accept", "reopen", "split", "delete"},
            ("accepted", "rejected"): {"accept", "reject", "reopen", "merge"},
            ("accepted", "edited"): {"accept", "reject", "merge"},
        }
        for states, expected in cases.items():
            with self.subTest(states=states):
                self.assertEqual(possible_actions([row("x", status) for status in states]), expected)

    def test_lesions_are_counted_by_status(self):
        rows = [row("a", "rejected"), row("b", "new"), row("c", "rejected")]
        self.assertEqual(counts(rows), {Status.NEW: 1, Status.REJECTED: 2})


class FocusClockTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FocusClock()

    def test_time_goes_to_the_lesion_that_was_looked_at(self):
        for now_s, lesion in ((10, "a"), (13, "b"), (14, "a"), (16, None), (100, None)):
            self.clock.tell(now_s, lesion)
        self.assertEqual(self.clock.take(), {"a": 5, "b": 1})

    def test_time_that_was_taken_does_not_count_twice(self):
        self.clock.tell(0, "a")
        self.clock.tell(2, "a")
        self.assertEqual(self.clock.take(), {"a": 2})
        self.assertEqual(self.clock.take(), {})
        self.clock.tell(5, "a")
        self.assertEqual(self.clock.take(), {"a": 3})

    def test_reader_who_does_nothing_counts_no_longer_than_a_minute(self):
        self.clock.tell(0, "a")
        for now_s in range(1, 500):
            self.clock.tell(now_s, "a")
        self.assertEqual(self.clock.take(), {"a": IDLE_S})
        self.clock.tell(500, "a", acted=True)
        self.clock.tell(507, "a")
        self.assertEqual(self.clock.take(), {"a": 7}, "the time away is not made up for")

    def test_each_action_begins_the_minute_anew(self):
        for now_s in range(0, 601, 30):
            self.clock.tell(now_s, "a", acted=True)
        self.assertEqual(self.clock.take(), {"a": 600})

    def test_time_away_does_not_count(self):
        for now_s, lesion in ((0, "a"), (4, None), (30, "a"), (31, None)):
            self.clock.tell(now_s, lesion)
        self.assertEqual(self.clock.take(), {"a": 5})


class LesionListTest(ReviewTestCase):
    def setUp(self):
        super().setUp()
        self.list = LesionList(self.node)

    def test_rows_are_those_of_the_lesions_after_any_edit(self):
        self.assertEqual(self.list.update(), {"Lesion_01", "Lesion_02", "Lesion_03"})
        self.paint("Lesion_02", (slice(10, 14), slice(22, 26), slice(38, 44)))
        self.assertEqual(self.list.update(), {"Lesion_02"})
        self.assertEqual(self.list.rows, [review_row(lesion_of(self.node, each)) for each in self.voxels()])
        self.assertEqual(self.list.rows[1]["status"], "edited")

    def test_decisions_measure_nothing_again(self):
        self.list.update()
        self.editor.decide(["Lesion_01"], Status.REJECTED)
        self.assertEqual(self.list.update(), set())
        self.assertEqual(self.list.rows[0]["status"], "rejected")

    def test_deleted_lesion_goes_and_comes_back_with_undo(self):
        self.list.update()
        delete_lesion(self.editor, "Lesion_01")
        self.assertEqual(self.list.update(), set())
        self.assertEqual([each["segment"] for each in self.list.rows], ["Lesion_02", "Lesion_03"])
        self.editor.undo()
        self.assertEqual(self.list.update(), {"Lesion_01"})

    def test_other_densities_of_the_ct_are_measured(self):
        import slicer

        self.list.update()
        before = self.list.rows[0]["mean_hu"]
        slicer.util.updateVolumeFromArray(self.volume_node, np.asarray(self.ct.hu + 5))
        self.assertEqual(self.list.update(), {"Lesion_01", "Lesion_02", "Lesion_03"})
        self.assertEqual(self.list.rows[0]["mean_hu"], before + 5)

    def test_missing_ct_is_named(self):
        self.scene.RemoveNode(self.volume_node)
        with self.assertRaisesRegex(InputError, "not in the scene"):
            self.list.update()
