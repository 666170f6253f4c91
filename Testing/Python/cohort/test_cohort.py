"""The catalogue of a cohort, its table and its report, with Dask's workers in this process."""

import csv
import json
import os
import runpy
import tempfile
import unittest
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from distributed import Client
from pyarrow import Table, parquet
from typer.testing import CliRunner

from helpers.dicom_files import small_chest, write_series
from helpers.marked_files import MARK, mark_dicom
from helpers.placed_chest import chest_ct
from helpers.source_tree import ROOT
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.cli.app import app
from NLSTSegLib.cohort.case import Case, Found, Outcome, Settings
from NLSTSegLib.cohort.catalogue import look_through, read_list
from NLSTSegLib.cohort.clusters import Workers, size_here, slurm_cluster
from NLSTSegLib.cohort.dask_map import each_done
from NLSTSegLib.cohort.plain_reason import plain_reason
from NLSTSegLib.cohort.report import write_reports
from NLSTSegLib.cohort.table import open_table
from NLSTSegLib.cohort.work import do_case
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.errors import InputError


class CohortTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = cls.enterClassContext(
            Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", set_as_default=False)
        )

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.tree = self.folder / "tree"

    def write(self, place: str, patient: str = "1", study: int = 1, series: int = 1, hu=None, **attributes) -> list[Path]:
        uids = {"StudyInstanceUID": f"1.2.{study}", "SeriesInstanceUID": f"1.2.{study}.{series}"}
        values = {"PatientID": patient, "SeriesNumber": series, **uids, **attributes}
        return write_series(self.tree / place, small_chest() if hu is None else hu, **values)

    def found(self, source: Path | str | None = None) -> list[Found]:
        return sorted(look_through(self.client, str(source or self.tree)), key=lambda one: (one.places, one.series))

    def names(self, found: Found) -> list[str]:
        return [os.path.relpath(place, self.tree) for place in found.places]


class TestCatalogue(CohortTest):
    def test_of_every_study_the_chest_is_taken_wherever_its_folders_lie(self):
        self.write("a/study/thick", series=1, hu=small_chest((6, 24, 28)), spacing_ijk_mm=(0.7, 0.8, 9.0))
        self.write("a/study/thin", series=2)
        self.write("b/deep/er", patient="2", study=2)
        (self.tree / "b/notes.txt").write_text("no image")
        found = self.found()
        self.assertEqual([self.names(one) for one in found], [["a/study/thin"], ["b/deep/er"]])
        self.assertEqual([one.series for one in found], ["1.2.1.2", "1.2.2.1"])
        self.assertEqual((found[0].slices, found[0].rows, found[0].columns), small_chest().shape)

    def test_one_folder_of_all_patients_is_parted_and_a_series_in_two_folders_is_one(self):
        self.write("flat", patient="1", study=1, name="a{:03d}".format)
        self.write("flat", patient="2", study=2, name="b{:03d}".format)
        first = self.write("halves/1", patient="3", study=3, skip=range(10, 20))
        self.write("halves/2", patient="3", study=3, skip=range(10))
        found = self.found()
        self.assertEqual([self.names(one) for one in found], [["flat"], ["flat"], ["halves/1", "halves/2"]])
        self.assertEqual(found[2].slices, len(first) + 10)

    def test_what_is_refused_says_why_and_the_others_are_found(self):
        self.write("mr", patient="9", study=9, Modality="MR")
        self.write("ct", patient="8", study=8)
        files = self.write("short", patient="7", study=7)
        files[3].write_bytes(files[3].read_bytes()[:300])
        (self.tree / "broken.nii").write_bytes(b"none")
        ct = chest_ct(np.eye(3))
        sitk.WriteImage(ct.to_image(), str(self.tree / "good.nrrd"))
        refused = {self.names(one)[0]: one.refused for one in self.found()}
        self.assertEqual(refused.pop("ct"), "")
        self.assertEqual(refused.pop("good.nrrd"), "")
        self.assertIn("is a CT volume", refused["mr"])
        self.assertIn("files beside its slices cannot be read", refused["short"])
        self.assertIn("damaged", refused["broken.nii"])

    def test_a_link_that_leads_back_is_followed_once(self):
        self.write("a")
        (self.tree / "a/back").symlink_to(self.tree, target_is_directory=True)
        self.assertEqual([self.names(one) for one in self.found()], [["a"]])

    def test_an_empty_tree_is_said(self):
        self.tree.mkdir()
        with self.assertRaisesRegex(InputError, "no DICOM or image files were found"):
            self.found()

    def test_a_list_names_its_cases(self):
        self.write("a/thick", series=1, hu=small_chest((6, 24, 28)), spacing_ijk_mm=(0.7, 0.8, 9.0))
        self.write("a/thin", series=2)
        sitk.WriteImage(chest_ct(np.eye(3)).to_image(), str(self.tree / "b.nrrd"))
        rows = [
            {"id": "100-T0", "path": "tree/a", "patient": "100", "date": "1999", "series": "1.2.1.1"},
            {"id": "101-T0", "path": "tree/b.nrrd", "patient": "101", "date": "", "series": ""},
            {"id": "102-T0", "path": "tree/none", "patient": "", "date": "", "series": ""},
        ]
        path = self.folder / "list.csv"
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        parquet.write_table(Table.from_pylist(rows), self.folder / "list.parquet")
        for source in (path, self.folder / "list.parquet"):
            found = {one.name: one for one in self.found(source)}
            self.assertEqual(self.names(found["100-T0"]), ["a/thick"])
            self.assertEqual((found["100-T0"].patient, found["100-T0"].date), ("100", "1999"))
            self.assertEqual(found["101-T0"].slices, chest_ct(np.eye(3)).hu.shape[0])
            self.assertIn("there is no file or folder", found["102-T0"].refused)

    def test_the_list_of_nlst_takes_one_series_of_a_study(self):
        made = runpy.run_path(str(ROOT / "examples" / "nlst_list.py"))["cases"]
        row = {"Modality": "CT", "Subject ID": "100002", "Study Date": "01-02-1999", "File Location": "./NLST/100002/a"}
        rows = [
            {**row, "Series UID": "1.1", "Number of Images": "90"},
            {**row, "Series UID": "1.2", "Number of Images": "180", "File Location": ".\\NLST\\100002\\b"},
            {**row, "Series UID": "1.3", "Number of Images": "200", "Modality": "SR"},
            {**row, "Series UID": "2.1", "Number of Images": "100", "Study Date": "01-02-2000"},
        ]
        first, second = made(rows, Path("/nlst"))
        self.assertEqual((first["id"], first["path"], first["series"]), ("100002-01-02-1999", "/nlst/NLST/100002/b", "1.2"))
        self.assertEqual(second["date"], "01-02-2000")

    def test_lists_with_faults_are_refused(self):
        for text, words in (
            ("id,file\na,b\n", "no column 'path'"),
            ("id,path\na,b\nA,c\n", "line 3 .* there twice"),
            ("id,path\n../a,b\n", "no name"),
            ("id,path\na,\n", "no path"),
        ):
            path = self.folder / "list.csv"
            path.write_text(text)
            with self.subTest(text), self.assertRaisesRegex(InputError, words):
                read_list(str(path))

    def test_an_address_is_looked_through_and_results_go_to_one(self):
        import fsspec

        self.write("a/thin")
        memory = fsspec.filesystem("memory")
        memory.put(str(self.tree), "/cohort-tree", recursive=True)
        self.addCleanup(memory.rm, "/cohort-tree", recursive=True)
        (found,) = self.found("memory://cohort-tree")
        self.assertEqual((found.slices, found.series), (20, "1.2.1.1"))
        bundle = self.folder / "model"
        card = write_threshold_bundle(bundle)
        settings = Settings(str(bundle), card.weights_sha256, "memory://cohort-results")
        for _ in range(2):
            outcome = do_case(Case("one", found.places, found.series), settings)
            self.assertEqual((outcome.status, outcome.reason), ("done", ""))
        self.assertTrue(memory.exists("/cohort-results/one/report.json"))
        memory.rm("/cohort-results", recursive=True)


class TestCommand(CohortTest):
    def nlstseg(self, *arguments: object):
        return CliRunner().invoke(app, ["cohort", *map(str, arguments)])

    def test_input_and_output_may_be_addresses_and_seg_and_sr_lie_in_the_results(self):
        import fsspec

        self.write("a")
        self.write("b", patient="2", study=2)
        write_threshold_bundle(self.folder / "model")
        memory = fsspec.filesystem("memory")
        memory.put(str(self.tree), "/archive/tree", recursive=True)
        self.addCleanup(memory.rm, "/archive", recursive=True)
        one_thread = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        with Client(**one_thread, set_as_default=False) as client:
            more = ["--table", self.folder / "table", "--model", self.folder / "model", "--dicom-seg", "-q"]
            more += ["--scheduler", client.scheduler.address]
            done = self.nlstseg("memory://archive/tree", "-o", "memory://archive/out", *more)
            self.assertEqual(done.exit_code, 0, done.output)
            memory.get("/archive/out", str(self.folder / "out"), recursive=True)
            for n, patient in enumerate(("1", "2"), start=1):
                place = self.folder / "out" / f"case-{n:06d}"
                report = pydicom.dcmread(place / "measurements.sr.dcm")
                self.assertEqual((report.PatientID, report.StudyInstanceUID), (patient, f"1.2.{n}"))
                self.assertIn(f'href="{place.name}/preview.png"', (self.folder / "out" / "cohort.html").read_text())
                self.assertTrue((place / "preview.png").exists())
            with open(self.folder / "out" / "cohort.csv", newline="") as file:
                self.assertEqual([row["status"] for row in csv.DictReader(file)], ["done", "done"])
            # Paths and UIDs are in the table, which does not leave this computer.
            self.assertEqual([path.name for path in (self.folder / "table").iterdir()], ["cohort.sqlite"])
            self.assertEqual([path.name for path in (self.folder / "out").glob("*.sqlite")], [])
            done = self.nlstseg("memory://archive/tree", "-o", "memory://archive/other", *more)
            self.assertEqual(done.exit_code, 2)
            self.assertIn("lie in memory://archive/out", done.stderr)
            more[1] = self.folder / "another table"
            done = self.nlstseg("memory://archive/tree", "-o", "memory://archive/out", *more)
            self.assertEqual(done.exit_code, 2)
            self.assertIn("'memory://archive/out' belong to another table", done.stderr)
        done = self.nlstseg("memory://archive/tree", "-o", "memory://archive/out")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("name a folder for it with --table", done.stderr)

    def test_a_folder_of_results_that_another_client_writes_to_is_refused_whatever_its_table(self):
        self.write("a")
        write_threshold_bundle(self.folder / "model")
        out = self.folder / "out"
        with ThreadPoolExecutor(1) as other_client:
            holding = held(out)
            other_client.submit(holding.__enter__).result()
            done = self.nlstseg(self.tree, "-o", out, "--table", self.folder / "t", "--model", self.folder / "model", "-q")
            other_client.submit(holding.__exit__, None, None, None).result()
        self.assertEqual(done.exit_code, 2)
        self.assertIn(f"another run is writing to '{out}'", done.stderr)


class TestTable(CohortTest):
    settings = Settings("model", "0" * 64, "results")

    def table(self):
        return self.enterContext(open_table(self.folder))

    def test_cases_get_numbers_and_a_series_counts_once(self):
        table = self.table()
        found = [Found(("/b",), "1.2"), Found(("/a",), "1.2"), Found(("/c",), "3"), Found(("/d",), refused="no"), Found(("/e",))]
        table.add_cases("tree", found)
        rows = {row.name: (row.status, row.reason) for row in table.rows()}
        self.assertEqual(list(rows), [f"case-{n:06d}" for n in range(1, 6)])
        self.assertEqual([status for status, _ in rows.values()], ["open", "duplicate", "open", "refused", "open"])
        self.assertEqual(rows["case-000002"][1], "the same series as case-000001")
        self.assertEqual((self.folder / "cohort.sqlite").stat().st_mode & 0o077, 0)

    def test_retry_opens_what_failed_or_what_other_options_gave(self):
        table = self.table()
        table.add_cases("tree", [Found((f"/{n}",), name=f"c{n}") for n in range(3)])
        table.write(Outcome("c0", "done"), self.settings)
        table.write(Outcome("c1", "failed", "why"), self.settings)
        other = replace(self.settings, threshold=0.7)
        self.assertEqual((table.outdated(self.settings), table.outdated(other)), (0, 1))
        table.open_again(self.settings, "all")
        self.assertEqual([row.status for row in table.rows()], ["done", "open", "open"])
        table.open_again(other, "failed")
        self.assertEqual([row.status for row in table.rows()], ["done", "open", "open"])
        table.open_again(other, "all")
        self.assertEqual([row.status for row in table.rows()], ["open", "open", "open"])

    def test_a_damaged_table_is_said(self):
        (self.folder / "cohort.sqlite").write_bytes(b"this is no table" * 100)
        with self.assertRaisesRegex(InputError, "cannot be used"), open_table(self.folder):
            self.fail("it was opened")
        with self.assertRaisesRegex(InputError, "is no folder of a cohort"), open_table(self.folder / "none", reading=True):
            self.fail("it was made")


class TestReport(CohortTest):
    def test_no_file_but_the_table_tells_whose_cts_they_are(self):
        for file in self.write(f"{MARK} John/{MARK}-study", patient=MARK):
            mark_dicom(file)
        self.write(f"{MARK} Jane/mr", study=7, patient=MARK, Modality="MR", SeriesDescription=f"{MARK} head")
        bundle = self.folder / "model"
        card = write_threshold_bundle(bundle)
        out = self.folder / "out"
        out.mkdir()
        settings = Settings(str(bundle), card.weights_sha256, str(out))
        with open_table(out) as table:
            table.add_cases(str(self.tree), self.found())
            for row in table.rows("status = 'open'"):
                table.write(do_case(row.case, settings), settings)
            self.assertEqual(table.counts(), {"done": 1, "refused": 1})
            write_reports(table, str(out), keep_identity=False)
            for file in out.rglob("*"):
                if file.is_file() and file.name != "cohort.sqlite":
                    self.assertNotIn(MARK.encode(), file.read_bytes(), file.name)
            with open(out / "cohort.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            self.assertEqual([row["status"] for row in rows], ["refused", "done"])
            self.assertEqual(
                rows[1]["lesions"], str(len(json.loads((out / rows[1]["case"] / "report.json").read_text())["lesions"]))
            )
            page = (out / "cohort.html").read_text()
            self.assertIn("is a CT volume", page)
            self.assertNotIn("http", page)
            write_reports(table, str(out), keep_identity=True)
        self.assertIn(MARK, (out / "cohort.csv").read_text())

    def test_reasons_lose_names_and_keep_sense(self):
        files = ["/data/Doe John/study 1/im 1.dcm"]
        for reason, kept in (
            ("/data/Doe John/study 1/im 1.dcm has no position; export it anew", "... has no position; export it anew"),
            (
                "the part in /data/Doe John/study 1 may be missing (the first is im 1.dcm)",
                "the part in ... may be missing (the first is ...)",
            ),
            ("only: CT 'Doe chest' (20 slices, 1.2.840.1.5/2)", "only: CT ... (20 slices, ...)"),
            ("another place /disk/x/y, too", "another place ..., too"),
        ):
            self.assertEqual(plain_reason(reason, files), kept)


def _worker_and_item(item):
    from distributed import get_worker

    return get_worker().address, item


class TestWorkers(CohortTest):
    def test_no_more_are_under_way_than_there_are_workers_and_what_is_added_is_done(self):
        running, most = set(), []
        waiting = deque(range(10))

        def call(item, ahead):
            running.add(item)
            most.append(len(running))
            return abs, -item

        done = []
        for item, future in each_done(self.client, call, waiting):
            running.discard(item)
            done.append(future.result())
            if item == 3:
                waiting.append(99)
        self.assertEqual(sorted(done), [*range(10), 99])
        self.assertEqual(max(most), 2)

    def test_each_worker_is_given_next_what_it_was_told_is_ahead(self):
        told, waiting = {}, deque(range(2, 14))

        def call(item, ahead):
            told[item] = ahead
            return _worker_and_item, item

        workers: dict[str, list[int]] = {}
        for _, future in each_done(self.client, call, waiting):
            worker, item = future.result()
            workers.setdefault(worker, []).append(item)
        self.assertEqual(sorted(item for items in workers.values() for item in items), list(range(2, 14)))
        for items in workers.values():
            # At the end another that is free takes what waits.
            for before, after in pairwise(items[:-1]):
                self.assertEqual(told[before], after)

    def test_workers_fit_cores_and_memory(self):
        self.assertEqual(size_here(Workers(1, threads=3)).threads, 3)
        sized = size_here(Workers())
        self.assertGreaterEqual(sized.count, 1)
        self.assertLessEqual(sized.count * sized.threads, os.cpu_count())
        self.assertEqual(size_here(Workers(memory_bytes=1 << 60)).count, 1)
        with self.assertRaisesRegex(InputError, "either"):
            Workers(scheduler="tcp://a:1", slurm="b")

    def test_a_slurm_job_asks_for_what_a_worker_needs(self):
        with slurm_cluster(Workers(0 or None, slurm="long", threads=3, memory_bytes=5 << 30)) as cluster:
            script = cluster.job_script()
        self.assertIn("#SBATCH -p long", script)
        self.assertIn("#SBATCH --cpus-per-task=3", script)
        self.assertIn("#SBATCH --mem=5G", script)
        self.assertIn("--nthreads 1", script)


if __name__ == "__main__":
    unittest.main()
