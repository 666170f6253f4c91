"""Runs the whole command on files, in this process for speed, and looks at what it says and writes."""

import functools
import json
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
from typer.main import get_command
from typer.testing import CliRunner

from helpers.placed_chest import label_centroids_lps_mm, off_voxels, true_centres_lps_mm, voxel_places_lps_mm
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.cli.app import app
from NLSTSegLib.reading.read import read_ct

same_command = functools.cache(get_command)
"""Of the library, which would make all commands anew for every call."""


@dataclass(frozen=True)
class Outcome:
    """What ``nlstseg segment`` did: the files it wrote, and the lines on stderr that are no progress bar."""

    labels: sitk.Image
    report: dict
    stderr: str

    @property
    def findings(self) -> dict[str, str]:
        """Severity by code."""
        return {finding["code"]: finding["severity"] for finding in self.report["findings"]}


class WholeCommandTest(unittest.TestCase):
    """A folder with a name in other letters than English, and in another one the threshold model."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "Lékař 胸部"
        self.folder.mkdir()
        self.bundle = Path(folder.name) / "model"
        write_threshold_bundle(self.bundle, min_volume_mm3=30.0)
        self.out = Path(folder.name) / "výsledek"
        self.tries = 0

    def run_command(self, *arguments: object):
        with mock.patch("typer.testing._get_command", same_command):
            done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        self.assertNotIn("Traceback", done.stderr)
        return done

    def segmented(self, path: Path, *options: object) -> Outcome:
        self.tries += 1
        out = self.out / str(self.tries)
        done = self.run_command("segment", path, "-o", out, "--model", self.bundle, "--threads", 1, *options)
        self.assertEqual(done.exit_code, 0, done.stderr)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        return Outcome(sitk.ReadImage(str(out / "labels.nrrd")), report, done.stderr)

    def assert_in_place(self, path: Path, *options: object, at_lps_mm=(0.0, 0.0, 0.0)) -> Outcome:
        """Segment the chest of :mod:`placed_chest`; its lesions must be where they are, in the file and in the report."""
        outcome = self.segmented(path, *options)
        series = options[options.index("--series") + 1] if "--series" in options else None
        ct = read_ct(path, series_uid=series)
        true = true_centres_lps_mm(at_lps_mm)
        labels = sitk.GetArrayFromImage(outcome.labels)
        self.assertEqual(labels.shape, ct.hu.shape)
        for told, own in zip(
            (outcome.labels.GetSpacing(), outcome.labels.GetOrigin(), outcome.labels.GetDirection()),
            (ct.spacing_ijk_mm, ct.origin_lps_mm, ct.direction_lps),
            strict=True,
        ):
            np.testing.assert_allclose(told, own, rtol=1e-9, atol=1e-9)
        self.assertEqual(labels.max(), len(true))
        self.assertLess(off_voxels(label_centroids_lps_mm(labels, voxel_places_lps_mm(ct)), true, ct), 0.5)
        rows = [[row[f"centroid_{axis}_mm"] for axis in "lps"] for row in outcome.report["lesions"]]
        self.assertLess(off_voxels(np.array(rows), true, ct), 0.5)
        return outcome

    def assert_refused(self, path: Path, *words: object, options=(), code: int = 2) -> str:
        """One line on stderr with ``words`` in it from ``check`` and ``segment`` alike, and nothing written."""
        before = self.tree()
        done = self.run_command("segment", path, "-o", self.out / "none", "--model", self.bundle, *options)
        lines = [line for line in done.stderr.splitlines() if not line.startswith(("taken: ", "there: "))]
        self.assertEqual(done.exit_code, code, done.stderr)
        message = lines[-1]
        self.assertTrue(message.startswith("nlstseg: error: "), done.stderr)
        # Before it there is at most the bar of the reading.
        self.assertEqual([line for line in lines[:-1] if "remaining" not in line], [], done.stderr)
        for word in words:
            self.assertIn(str(word), message)
        self.assertEqual(self.tree(), before)
        if code == 2:
            done = self.run_command("check", path, *(options if "--series" in options else ()))
            self.assertEqual(done.exit_code, 2, done.stderr)
            self.assertEqual(done.stderr.splitlines()[-1], message)
        return message

    def tree(self) -> list[Path]:
        return sorted(self.folder.parent.rglob("*"))
