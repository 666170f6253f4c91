"""What is public in Python: the names, that they cost nothing at import, and that the examples run."""

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
import torch

import NLSTSegLib
from helpers.placed_chest import chest_ct
from helpers.threshold_model import write_threshold_bundle

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "how-to" / "from-python.md"

NAMES = """
    CtVolume InputError Model ModelError NLSTSegError SegmentOptions SegmentationResult
    find_model list_models load_model read_ct read_mask segment write_result
"""
"""A name that goes from here breaks the scripts of others: see docs/versions.md first."""


class TestNames(unittest.TestCase):
    def test_public_names_are_these_and_each_leads_somewhere(self):
        self.assertEqual(NLSTSegLib.__all__, NAMES.split())
        for name in NLSTSegLib.__all__:
            self.assertEqual(getattr(NLSTSegLib, name).__name__, name)
            self.assertTrue(getattr(NLSTSegLib, name).__doc__, name)
            self.assertIn(name, dir(NLSTSegLib))

    def test_what_is_not_public_is_no_attribute(self):
        with self.assertRaisesRegex(AttributeError, "nonesuch"):
            _ = NLSTSegLib.nonesuch

    def test_import_loads_nothing_heavy_and_star_import_no_torch(self):
        code = (
            "import json, sys, NLSTSegLib\nfirst = sorted(sys.modules)\n"
            "from NLSTSegLib import *\nprint(json.dumps([first, sorted(sys.modules)]))"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        first, names_used = (set(names) for names in json.loads(done.stdout))
        self.assertEqual(first & {"numpy", "torch", "SimpleITK", "pydicom"}, set())
        self.assertEqual(names_used & {"torch", "SimpleITK", "pydicom"}, set())


class TestExamples(unittest.TestCase):
    """In a folder with a small chest of three lesions; a model whose answer is known stands for the bundled one."""

    def setUp(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(contextlib.chdir(folder))
        write_threshold_bundle(folder / "model")
        self.ct = chest_ct(np.diag([1.0, -1.0, 1.0]))
        sitk.WriteImage(self.ct.to_image(), "ct.nrrd")
        self.find_model = NLSTSegLib.find_model

    def run_script(self, name: str, *arguments: str) -> tuple[int, list[str]]:
        """Exit code and lines of a script of ``examples/``."""
        with (
            mock.patch.object(sys, "argv", [name, *arguments]),
            contextlib.redirect_stdout(io.StringIO()) as said,
            self.assertRaises(SystemExit) as ended,
        ):
            runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return ended.exception.code, said.getvalue().splitlines()

    def with_small_model(self):
        """The model of the tests wherever none is named: the bundled one takes long."""
        return mock.patch("NLSTSegLib.models.bundle.find_model", lambda name="model": self.find_model(name))

    def test_page_from_python_runs_from_top_to_bottom(self):
        examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
        self.assertEqual(len(examples), 5)
        names: dict = {}
        with self.with_small_model(), contextlib.redirect_stdout(io.StringIO()) as said:
            for example in examples:
                exec(example, names)
        self.assertEqual(set(np.unique(names["labels"])), {0, 1, 2, 3})
        lines = said.getvalue().splitlines()
        self.assertEqual([line.split()[:2] for line in lines[:3]], [["Lesion", f"0{n}"] for n in (1, 2, 3)])
        self.assertRegex(lines[-1], "All voxels have the value 0")
        written = sitk.ReadImage("labels.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), names["labels"])
        np.testing.assert_allclose(written.GetDirection(), self.ct.direction_lps, atol=1e-6)
        probability = sitk.GetArrayFromImage(sitk.ReadImage("probability.nrrd"))
        np.testing.assert_array_equal(probability, names["probability"])
        self.assertGreater(probability[names["labels"] > 0].min(), 0.5)
        self.assertTrue(Path("result/report.json").is_file())

    def test_segment_one_prints_the_lesions_and_says_what_is_wrong(self):
        code, lines = self.run_script("segment_one.py", "ct.nrrd", "out", "model")
        self.assertEqual((code, len(lines)), (0, 4))
        self.assertRegex(lines[0], r"^Lesion 01: \d+\.\d x \d+\.\d mm, \d+ mm3, score \d")
        self.assertRegex(lines[-1], "^3 lesions above 0.5; ")
        self.assertTrue(Path("out/segmentation.seg.nrrd").is_file())
        code, lines = self.run_script("segment_one.py", "ct.nrrd", "out", "model")
        self.assertEqual((code, len(lines)), (2, 1))
        self.assertIn("force=True", lines[0])
        code, lines = self.run_script("segment_one.py", "ct.nrrd", "out2", "nonesuch")
        self.assertEqual(code, 3)
        self.assertEqual(self.run_script("segment_one.py")[0], 2)

    def test_own_reader_gives_what_the_library_reads(self):
        ct = self.ct
        grid = {name: getattr(ct, name) for name in ("spacing_ijk_mm", "origin_lps_mm", "direction_lps")}
        np.savez("ct.npz", hu=ct.hu, **grid)
        with self.with_small_model():
            self.assertEqual(self.run_script("own_reader.py", "ct.npz", "out"), (0, ["3 lesions written to out"]))
        labels = sitk.ReadImage("out/labels.nrrd")
        self.assertEqual(labels.GetDirection(), ct.direction_lps)
        self.assertEqual(labels.GetOrigin(), ct.origin_lps_mm)
        Path("text.npz").write_text("this is no archive of arrays")
        with self.with_small_model():
            code, (line,) = self.run_script("own_reader.py", "text.npz", "out2")
        self.assertEqual(code, 2)
        self.assertIn("text.npz", line)


if __name__ == "__main__":
    unittest.main()
