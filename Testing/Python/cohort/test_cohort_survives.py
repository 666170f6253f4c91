"""Runs of a cohort whose workers, scheduler and client are killed, and whose cases hang, eat the memory or fill the disk."""

import os
import random
import signal
import subprocess
import sys
import unittest

from helpers.child_processes import living_processes, wait_until
from helpers.cohort_case import CohortCase, CohortRun
from helpers.cohort_faults import EATS_MEMORY_HU, FULL_DISK_HU, GATED_HU, HANGS_HU, OPEN, ROOM, STARTED
from helpers.marks import slow


@unittest.skipUnless(os.path.exists("/dev/full") and sys.platform == "linux", "the faults need Linux")
class TestCohortSurvives(CohortCase):
    @slow
    def test_killed_workers_a_hanging_a_greedy_and_a_damaged_case_cost_nothing_but_themselves(self):
        good = [f"good{n}" for n in range(12)]
        for name in good:
            self.write_chest(name)
        self.write_chest("hangs", HANGS_HU)
        self.write_chest("greedy", EATS_MEMORY_HU)
        damaged = self.write_chest("adamaged")
        damaged.write_bytes(damaged.read_bytes()[:5000])
        run = CohortRun(self, "--memory", 1.2, "--time-limit", 20)
        chance = random.Random(0)
        for done in (1, 3, 6):
            wait_until(lambda done=done: list(self.statuses().values()).count("done") >= done, f"{done} cases are done")
            # Whatever that worker does just now; its nanny starts another.
            os.kill(max(run.workers()) if chance.random() < 0.5 else chance.choice(run.workers()[-2:]), signal.SIGKILL)
        code, log = run.ended()
        self.assertEqual(code, 2, log)
        rows = self.rows()
        self.assertEqual({name: rows[name]["status"] for name in good}, dict.fromkeys(good, "done"))
        self.assertEqual({rows[name]["status"] for name in ("hangs", "greedy", "adamaged")}, {"failed"})
        self.assertIn("took longer than 20 s", rows["hangs"]["reason"])
        self.assertIn("took more memory", rows["greedy"]["reason"])
        self.assertIn("...", rows["adamaged"]["reason"])
        self.assertNotIn("adamaged", rows["adamaged"]["reason"])
        self.assert_whole()

    @slow
    def test_two_clients_a_killed_one_and_ctrl_c_end_with_the_same_table(self):
        for name in ("one", "two", "three", "zfour"):
            self.write_chest(name)
        self.write_chest("gated", GATED_HU)
        first = CohortRun(self)
        self.wait_for_gate()
        self.wait_for_done("one")
        code, log = CohortRun(self).ended()
        self.assertEqual(code, 2)
        self.assertIn("another run is writing to", log)
        first.kill()
        kept = {name: row["finished"] for name, row in self.rows().items() if row["status"] == "done"}
        self.assertEqual(self.statuses()["gated"], "open")

        (self.gate / STARTED).unlink()
        second = CohortRun(self)
        self.wait_for_gate()
        wait_until(lambda: sum(status == "done" for status in self.statuses().values()) == 4, "the others are done")
        second.send_to_all(signal.SIGINT)
        (self.gate / OPEN).touch()
        code, log = second.ended()
        # What is under way at Ctrl-C is done to its end.
        self.assertEqual(code, 130, log)
        self.assertEqual(set(self.statuses().values()), {"done"})
        self.assertEqual({name: row["finished"] for name, row in self.rows().items() if name in kept}, kept)
        self.assert_whole()

    def test_a_scheduler_at_an_address_may_be_killed_and_a_disk_be_full(self):
        self.write_chest("one")
        self.write_chest("gated", GATED_HU)
        full = self.write_chest("full", FULL_DISK_HU)
        file = self.gate / "scheduler.json"
        scheduler = self._start_dask(
            "dask_scheduler", "--scheduler-file", file, "--port", 0, "--host", "127.0.0.1", "--no-dashboard"
        )
        wait_until(file.exists, "the scheduler runs")
        self._start_dask("dask_worker", "--scheduler-file", file, "--nthreads", 1, "--nworkers", 2, "--no-dashboard")
        address = _address(file)

        (self.gate / OPEN).touch()
        code, log = CohortRun(self, "--scheduler", address).ended()
        self.assertEqual(code, 2, log)
        self.assertIn("the disk is full", log)
        self.assertEqual(self.statuses()["full"], "open")
        (self.gate / OPEN).unlink()
        (self.gate / ROOM).touch()

        run = CohortRun(self, "--scheduler", address)
        if self.statuses()["gated"] == "open":
            self.wait_for_gate()
        self.wait_for_done("one", "full")
        scheduler.kill()
        (self.gate / OPEN).touch()
        code, log = run.ended()
        self.assertIn(code, (0, 2), log)
        if code:
            self.assertIn("the Dask scheduler", log)

        code, log = CohortRun(self).ended()
        self.assertEqual(code, 0, log)
        self.assertEqual(set(self.statuses().values()), {"done"})
        self.assertTrue(full.exists())
        self.assert_whole()

    def _start_dask(self, program: str, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *map(str, arguments)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=self.environment, start_new_session=True, cwd=self.gate, **quiet)

        def end() -> None:
            process.kill()
            process.wait()
            wait_until(lambda: not living_processes(process.pid), f"{program} has ended")

        self.addCleanup(end)
        return process


def _address(file) -> str:
    import json

    return json.loads(file.read_text())["address"]


if __name__ == "__main__":
    unittest.main()
