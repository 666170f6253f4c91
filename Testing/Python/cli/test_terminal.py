"""Printing never decides over results: no encoding, closed pipe or full disk behind a stream loses a run or its exit code."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.placed_chest import chest_ct
from helpers.source_tree import ROOT
from helpers.threshold_model import write_threshold_bundle

NAMES = ("患者", "a", "b")


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    for stream in filter(None, (process.stdout, process.stderr)):
        stream.close()


class TerminalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        for name in NAMES:
            sitk.WriteImage(chest_ct(np.eye(3)).to_image(), str(cls.folder / f"{name}.nrrd"))
        write_threshold_bundle(cls.folder / "model", min_volume_mm3=30.0)

    def start(
        self, output: str, *options: str, names=NAMES, stdout=subprocess.PIPE, preexec_fn=None, **environment: str
    ) -> subprocess.Popen:
        inputs = [str(self.folder / f"{name}.nrrd") for name in names]
        model = ["--model", str(self.folder / "model"), "--threads", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "NLSTSegLib", "segment", *inputs, "-o", str(self.folder / output), *model, *options],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=stdout,
            stderr=subprocess.PIPE,
            preexec_fn=preexec_fn,
        )
        self.addCleanup(end, process)
        return process

    def assert_all_done(self, output: str, process: subprocess.Popen, said: bytes):
        self.assertEqual(process.wait(), 0, said)
        done = {name for name in NAMES if (self.folder / output / name / "report.json").is_file()}
        self.assertEqual(done, set(NAMES), said)

    def test_a_closed_pipe_ends_no_batch(self):
        # With --json-progress the first line is there before the first CT is read.
        process = self.start("piped", "--json-progress")
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        self.assert_all_done("piped", process, said)
        self.assertNotIn(b"BrokenPipe", said)

    def test_an_encoding_without_the_characters_ends_no_batch(self):
        process = self.start("ascii", PYTHONIOENCODING="ascii")
        stdout, stderr = process.communicate()
        self.assert_all_done("ascii", process, stderr)
        self.assertIn(rb"\u60a3\u8005", stdout)
        stdout.decode("ascii")

    @unittest.skipIf(sys.platform == "win32", "there are no such numbers")
    def test_with_all_streams_closed_the_files_are_whole(self):
        # A file of the result would get the number of a closed stream, and with it whatever a library prints.
        process = self.start("closed", names=("a",), preexec_fn=lambda: os.closerange(0, 3))
        self.assertEqual(process.wait(), 0)
        self.assertEqual(sitk.GetArrayFromImage(sitk.ReadImage(str(self.folder / "closed" / "labels.nrrd"))).max(), 3)

    @unittest.skipUnless(os.path.exists("/dev/full"), "there is no /dev/full")
    def test_a_full_disk_behind_stdout_is_said_and_loses_no_result(self):
        with open("/dev/full", "wb") as full:
            process = self.start("full", names=("a",), stdout=full)
            _, stderr = process.communicate()
        self.assertEqual(process.returncode, 0, stderr)
        self.assertTrue((self.folder / "full" / "report.json").is_file())
        self.assertEqual(stderr.count(b"can no longer be written (No space left on device)"), 1, stderr)


if __name__ == "__main__":
    unittest.main()
