"""Folders with tiny chests, and ``nlstseg cohort`` as a process of its own on them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.child_processes import living_processes, wait_until
from helpers.cohort_faults import GATE_VARIABLE, PRELOAD, STARTED
from helpers.placed_chest import chest_ct
from helpers.source_tree import ROOT
from helpers.threshold_model import write_threshold_bundle


class CohortRun:
    """``nlstseg cohort`` in a process group of its own, as in a terminal."""

    def __init__(self, case: "CohortCase", *arguments: object) -> None:
        command = [sys.executable, "-m", "NLSTSegLib", "cohort", str(case.cts), "-o", str(case.out), "--model", str(case.bundle)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*command, "--workers", "2", *map(str, arguments)] if "--scheduler" not in arguments else [*command, *arguments],
            env=case.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        case.addCleanup(self.kill)

    def workers(self) -> list[int]:
        """Processes that Dask has started for it."""
        return [number for number in living_processes(self.process.pid) if number != self.process.pid]

    def send_to_all(self, number: signal.Signals) -> None:
        """As Ctrl-C does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """The client alone; its workers end by themselves."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not living_processes(self.process.pid), "the workers have ended")
        self._log.close()

    def ended(self) -> tuple[int, str]:
        """Exit code and what it has said on stderr."""
        code = self.process.wait()
        self._log.seek(0)
        return code, self._log.read().decode()


class CohortCase(unittest.TestCase):
    """A folder ``cts`` for chests, a model, a gate, an output."""

    def setUp(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.cts, self.out, self.bundle, self.gate = (folder / name for name in ("cts", "out", "model", "gate"))
        self.cts.mkdir()
        self.gate.mkdir()
        write_threshold_bundle(self.bundle, min_volume_mm3=30.0)
        paths = os.pathsep.join(str(ROOT / part) for part in (".", "Testing/Python", "training"))
        self.environment = {**os.environ, **PRELOAD, GATE_VARIABLE: str(self.gate), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def write_chest(self, name: str, first_hu: int = -1000) -> Path:
        ct = chest_ct(np.eye(3), shape_kji=(20, 28, 30), spacing_ijk_mm=(6.0, 6.4, 8.0))
        hu = ct.hu.copy()
        hu[0, 0, 0] = first_hu
        sitk.WriteImage(replace(ct, hu=hu).to_image(), str(self.cts / f"{name}.nrrd"), useCompression=False)
        return self.cts / f"{name}.nrrd"

    def rows(self) -> dict[str, dict]:
        """Of the table, by the name of the CT's file; empty as long as there is none."""
        table = self.out / "cohort.sqlite"
        if not table.exists():
            return {}
        with closing(sqlite3.connect(f"{table.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            try:
                rows = [dict(row) for row in connection.execute("SELECT * FROM cases")]
            except sqlite3.OperationalError:
                return {}
        return {Path(json.loads(row["places"])[0]).stem: row for row in rows}

    def statuses(self) -> dict[str, str]:
        return {name: row["status"] for name, row in self.rows().items()}

    def wait_for_done(self, *names: str) -> None:
        wait_until(lambda: all(self.statuses().get(name) == "done" for name in names), f"{names} are done")

    def wait_for_gate(self) -> None:
        wait_until((self.gate / STARTED).exists, "the gated case is under way")

    def assert_whole(self) -> None:
        """Every case that is done has a whole result, no other has any, and nothing half written is left."""
        done = {row["name"] for row in self.rows().values() if row["status"] == "done"}
        self.assertEqual({folder.parent.name for folder in self.out.glob("*/report.json")}, done)
        self.assertEqual([path.name for path in self.out.glob(".*")], [])
        for name in done:
            self.assertTrue((self.out / name / "labels.nrrd").is_file())
