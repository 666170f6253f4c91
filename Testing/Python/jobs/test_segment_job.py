"""A segmentation in a child process: what it gives, how it is stopped, and what is said when it fails."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers.child_processes import (
    child_with,
    living_processes,
    long_ct,
    own_temporary_folder,
    wait_until,
    write_launcher,
)
from helpers.placed_chest import AXES, chest_ct, leaning
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.child_process import ChildProcess, Priority
from NLSTSegLib.jobs.command_job import error_sentence
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.segment_job import ChildRun
from NLSTSegLib.models.bundle import find_model, load_model
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.results.folder import write_result
from NLSTSegLib.results.saved import read_result

ROOT = Path(__file__).resolve().parents[3]

LEFT_HANDED = next(axes for axes in AXES if np.linalg.det(axes) < 0 and axes[0, 0] == 0)

OWNER = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import tempfile, time
tempfile.tempdir = {temporary!r}
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.segment_job import ChildRun
from helpers.child_processes import child_with, long_ct
run = ChildRun(long_ct(), RunOptions(model={model!r}), {python!r})
while run.stage == "start":
    run.update()
    time.sleep(0.01)
print(child_with("segment"), flush=True)
time.sleep(1000)
"""
"""A program that starts a run and hangs."""


class ChildRunTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.bundle = cls.folder / "model"
        write_threshold_bundle(cls.bundle, min_volume_mm3=30.0)

    def setUp(self):
        self.temporary = own_temporary_folder(self)
        self.ct = chest_ct(np.eye(3))
        self.options = RunOptions(model=str(self.bundle), device="cpu", threads=1)

    def start(self, ct=None, *, python: str = sys.executable, **options) -> ChildRun:
        run = ChildRun(ct or self.ct, replace(self.options, **options), python)
        self.addCleanup(run.close)
        return run

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.temporary), [])


class TestResult(ChildRunTestCase):
    def test_child_finds_what_this_process_finds_on_every_kind_of_grid(self):
        model = load_model(find_model(str(self.bundle)))
        for name, direction in (("left-handed", LEFT_HANDED), ("sheared", leaning(0.2, 0.1))):
            with self.subTest(name):
                ct = chest_ct(direction)
                run = self.start(ct)
                seen = []
                wait_until(lambda run=run, seen=seen: seen.append((run.fraction, run.stage)) or run.update(), "the run ends")
                self.assertEqual((run.exit_code, run.error, run.fraction, run.stage), (0, "", 1.0, "done"), run.details)
                found = read_result(run.result_folder)
                run.close()

                own = segment(ct, model, SegmentOptions(device="cpu", threads=1))
                self.assertEqual(len(own.lesions), 3)
                np.testing.assert_array_equal(found.labels, own.labels)
                np.testing.assert_array_equal(found.probability, own.probability)
                for here, there in zip(found.grid, ct.grid, strict=True):
                    np.testing.assert_allclose(here, there, atol=1e-12)
                self.assertEqual([(x.label, x.name) for x in found.lesions], [(x.label, x.name) for x in own.lesions])
                self.assertEqual(found.findings, own.findings)
                self.assertEqual((found.threshold, found.card.name, found.card.version), (0.5, "threshold", "1"))
                self.assertEqual((found.card.weights_sha256, found.card.licence), (own.card.weights_sha256, "Apache-2.0"))
                self.assertEqual(found.device_note, own.device_note)
                self.assertGreater(found.seconds["total"], found.seconds["network"])
                fractions = [fraction for fraction, _ in seen]
                self.assertEqual((fractions[0], seen[0][1]), (0.0, "start"))
                self.assertEqual(fractions, sorted(fractions))
                self.assert_nothing_left()

    def test_every_option_reaches_the_run(self):
        run = self.start(threshold=0.75, min_volume_mm3=2000.0, lung_field="none")
        wait_until(run.update, "the run ends")
        report = json.loads((run.result_folder / "report.json").read_text(encoding="utf-8"))
        options = report["options"]
        self.assertEqual((options["threshold"], options["min_volume_mm3"], options["lung_field"]), (0.75, 2000.0, "none"))
        self.assertRegex(options["device"], "^CPU, 1 threads")
        self.assertEqual(report["model"]["name"], "threshold")

    def test_a_result_that_is_not_whole_is_refused(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "result"
        model = load_model(find_model(str(self.bundle)))
        write_result(segment(self.ct, model, SegmentOptions(device="cpu", threads=1)), folder, save_probability=True)
        self.assertEqual(len(read_result(folder).lesions), 3)
        os.replace(folder / "probability.nrrd", folder / "labels.nrrd")
        with self.assertRaisesRegex(InputError, "is not whole .*run it again"):
            read_result(folder)
        shutil.copy(folder / "labels.nrrd", folder / "probability.nrrd")
        with self.assertRaisesRegex(InputError, "do not belong together"):
            read_result(folder)


@unittest.skipIf(os.name == "nt", "the system counts its priorities otherwise")
class TestPriority(ChildRunTestCase):
    def assert_nicer(self, group: int, by: int):
        """Every thread of every process of the group than this one, and the session as a whole, where that has a number."""
        expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + by)
        for process in living_processes(group):
            threads = [int(entry.name) for entry in Path(f"/proc/{process}/task").iterdir()]
            found = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
            self.assertEqual(found, {expected})
        session = Path(f"/proc/{group}/autogroup")
        if session.exists() and session.read_text():
            self.assertRegex(session.read_text(), f" nice {by}$")

    def test_a_run_lets_the_windows_of_this_process_go_first_with_all_its_threads(self):
        before = os.getpriority(os.PRIO_PROCESS, 0)
        run = self.start(long_ct(), python=write_launcher(self.folder), threads=2)
        wait_until(lambda: run.update() or run.stage == "network", "the network runs")
        self.assertIsNone(run.exit_code, run.details)
        group = child_with("segment")
        self.assertGreater(len(living_processes(group)), 1, "the launcher has a child")
        self.assert_nicer(group, 5)
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, 0), before)

    def test_what_nobody_waits_for_has_what_nobody_else_wants(self):
        child = ChildProcess()
        self.addCleanup(child.close)
        child.start(["devices", "--json"], sys.executable, Priority.IDLE)
        self.assert_nicer(child_with("devices"), 19)


class TestFailure(ChildRunTestCase):
    def test_error_of_the_child_is_told_in_its_own_sentence(self):
        run = self.start(model="no such model")
        wait_until(run.update, "the run ends")
        self.assertEqual(run.exit_code, 3)
        self.assertRegex(run.error, r"^There is no model 'no such model': .* or a \.pth file\.$")
        run.close()
        self.assertIn("nlstseg: error: there is no model", run.details, "the log is kept")
        self.assert_nothing_left()

    def test_a_python_that_is_not_there_is_named_and_nothing_is_left(self):
        with self.assertRaisesRegex(InputError, "'/no/such/python' cannot be started"):
            ChildRun(self.ct, self.options, "/no/such/python")
        self.assert_nothing_left()

    def test_a_python_that_cannot_run_the_program_is_an_error(self):
        stranger = self.folder / "stranger"
        stranger.write_text("#!/bin/sh\necho \"No module named 'numpy'\" >&2\nexit 1\n")
        stranger.chmod(0o755)
        run = self.start(python=str(stranger))
        wait_until(run.update, "the run ends")
        self.assertRegex(run.error, r"could not start \(No module named 'numpy'\)")

    @unittest.skipIf(os.name == "nt", "there is no such signal")
    def test_a_killed_child_is_told_as_the_end_of_memory(self):
        run = self.start(long_ct())
        wait_until(lambda: run.update() or run.stage != "start", "the run has begun")
        os.kill(child_with("segment"), signal.SIGKILL)
        wait_until(run.update, "the end is seen")
        self.assertEqual(run.exit_code, -signal.SIGKILL)
        self.assertRegex(run.error, "memory .* ran out")

    def test_sentences_for_every_way_to_end(self):
        crashed, memory = r"^The program crashed \(SIGSEGV\)", "^The run was ended because the memory"
        for exit_code, log, expected in (
            (2, "warning\nnlstseg: error: the CT 'a b' is flat; give another\n", "^The CT 'a b' is flat; give another.$"),
            (1, "nlstseg: unexpected ValueError: x; run it with", r"^The program failed \(ValueError: x\);"),
            (1, "nlstseg: unexpected OutOfMemoryError: CUDA out of memory. Tried; run it", memory),
            (1, "Traceback\nMemoryError: Unable to allocate", memory),
            (-9, "", memory),
            (137, "", memory),
            (-11, "nothing", crashed),
            (139, "Segmentation fault", crashed),
            (1, "Traceback\nImportError: No module named 'x'\n", r"^The run could not start \(ImportError: No .*'x'\)"),
            (0xC0000005, "", r"^The program ended unexpectedly \(exit code 0xC0000005\)"),
            (7, "some\nlast words\n", r"^The program ended unexpectedly \(exit code 7: last words\)"),
        ):
            with self.subTest(exit_code=exit_code, log=log):
                self.assertRegex(error_sentence(exit_code, log), expected)


class TestStopping(ChildRunTestCase):
    def freeze(self, run: ChildRun) -> int:
        """Stop the Python behind the launcher, so that nothing but a kill ends it; returns the number of their group."""
        group = child_with("segment")
        behind = [process for process in living_processes(group) if process != group]
        self.assertTrue(behind, "the launcher has a child")
        for process in behind:
            os.kill(process, signal.SIGSTOP)
        self.addCleanup(self.kill_all, behind)
        return group

    def kill_all(self, processes: list[int]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def test_kill_ends_the_launcher_and_the_python_behind_it(self):
        run = self.start(long_ct(), python=write_launcher(self.folder))
        wait_until(lambda: run.update() or run.stage != "start", "the run has begun")
        group = self.freeze(run)
        run.kill()
        wait_until(lambda: not living_processes(group), "both are gone")
        run.close()
        self.assertEqual((run.update(), run.error), (True, "The run was stopped."))
        self.assert_nothing_left()

    def test_a_launcher_that_dies_takes_its_python_with_it(self):
        run = self.start(long_ct(), python=write_launcher(self.folder))
        wait_until(lambda: run.update() or run.stage != "start", "the run has begun")
        group = self.freeze(run)
        os.kill(group, signal.SIGKILL)
        wait_until(run.update, "the end is seen")
        wait_until(lambda: not living_processes(group), "the Python is gone")
        self.assertTrue(run.error)

    def test_close_at_once_leaves_nothing(self):
        run = self.start()
        run.close()
        run.close()
        self.assert_nothing_left()

    def test_child_ends_with_its_files_when_the_owner_is_killed(self):
        code = OWNER.format(
            root=str(ROOT),
            tests=str(Path(__file__).parents[1]),
            temporary=str(self.temporary),
            model=str(self.bundle),
            python=write_launcher(self.folder),
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
            group = int(owner.stdout.readline())
            owner.kill()
        wait_until(lambda: not living_processes(group), "launcher and Python are gone")
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
