"""Chests that a worker reads while its network is at another."""

import tempfile
import threading
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import fsspec
import SimpleITK as sitk

from helpers.cohort_case import CohortCase
from NLSTSegLib.cohort.ahead import READING_BYTES, give_up_ahead, read_ahead, reading_of
from NLSTSegLib.cohort.case import Case, Settings
from NLSTSegLib.cohort.clusters import CASE_BYTES
from NLSTSegLib.cohort.work import dask_teardown, do_case
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import find_model, load_model

VOXELS = 20 * 28 * 30
"""Of a chest of :class:`CohortCase`."""


def wait_for_reading() -> None:
    for thread in threading.enumerate():
        if thread.name == "reading":
            thread.join()


class TestAhead(CohortCase):
    def setUp(self):
        super().setUp()
        weights = load_model(find_model(str(self.bundle))).card.weights_sha256
        self.settings = Settings(str(self.bundle), weights, str(self.out), device="cpu", threads=1)
        # Nothing that one test began is left to the next.
        self.addCleanup(give_up_ahead)

    def case(self, name: str, first_hu: int = -1000) -> Case:
        return Case(name, (str(self.write_chest(name, first_hu)),), "", VOXELS)

    def test_what_was_read_ahead_needs_its_file_no_more(self):
        one, two = self.case("one"), self.case("two", -900)
        self.assertEqual(do_case(one, self.settings, two).status, "done")
        wait_for_reading()
        Path(two.places[0]).unlink()
        outcome = do_case(two, self.settings)
        self.assertEqual((outcome.status, outcome.reason, len(outcome.rows)), ("done", "", 3))
        # Only once: it is of that case alone.
        self.assertEqual(do_case(replace(two, name="again"), self.settings).status, "failed")

    def test_another_case_than_was_read_ahead_is_read_itself(self):
        one, two, three = self.case("one"), self.case("two", -900), self.case("three", -800)
        do_case(one, self.settings, two)
        self.assertEqual(do_case(three, self.settings).status, "done")
        written = [sitk.ReadImage(self.out / name / "labels.nrrd") for name in ("one", "three")]
        self.assertEqual(*(image.GetSize() for image in written))
        Path(two.places[0]).unlink()
        self.assertEqual(do_case(two, self.settings).status, "failed")

    def test_a_damaged_ct_ahead_costs_itself_alone(self):
        one, two = self.case("one"), self.case("two")
        Path(two.places[0]).write_bytes(b"NRRD0004\n")
        self.assertEqual(do_case(one, self.settings, two).status, "done")
        outcome = do_case(two, self.settings)
        self.assertEqual(outcome.status, "failed")
        self.assertNotIn("two", outcome.reason)
        self.assertIn("...", outcome.reason)

    def test_without_room_nothing_is_read_ahead(self):
        for memory_bytes, is_read in (
            (None, True),
            (CASE_BYTES + READING_BYTES * VOXELS, True),
            (CASE_BYTES + READING_BYTES * VOXELS - 1, False),
        ):
            with self.subTest(memory_bytes=memory_bytes):
                case = self.case("one")
                read_ahead(case, memory_bytes)
                wait_for_reading()
                Path(case.places[0]).unlink()
                with reading_of(case) as reading:
                    if is_read:
                        self.assertEqual(reading.ct_and_series()[0].hu.size, VOXELS)
                    else:
                        self.assertRaises(InputError, reading.ct_and_series)

    def test_what_was_fetched_ahead_goes_with_its_case(self):
        scratch = self.gate / "scratch"
        scratch.mkdir()
        self.enterContext(mock.patch.object(tempfile, "tempdir", str(scratch)))
        system = fsspec.filesystem("memory")
        cases = []
        for name in ("one", "two"):
            system.put_file(self.case(name).places[0], f"/ahead/{name}.nrrd")
            cases.append(replace(self.case(name), places=(f"memory://ahead/{name}.nrrd",)))
        self.assertEqual(do_case(cases[0], self.settings, cases[1]).status, "done")
        wait_for_reading()
        self.assertEqual(len([path for path in scratch.iterdir() if path.is_dir()]), 1)
        # Where another worker has done it, it goes with this one.
        dask_teardown(None)
        self.assertEqual(list(scratch.iterdir()), [])
        do_case(replace(cases[0], name="again"), self.settings, cases[1])
        wait_for_reading()
        system.rm("/ahead", recursive=True)
        self.assertEqual(do_case(cases[1], self.settings).status, "done")
        self.assertEqual(list(scratch.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
