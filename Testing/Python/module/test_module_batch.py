"""The batch script of the docs as it stands: a folder of CTs through the module's logic, with real child processes."""

import contextlib
import csv
import io
import runpy
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk

from helpers.forked_command import forked_jobs
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "examples" / "batch_folder.py"


class TestBatchScript(ModuleTestCase):
    """Two chests, one file that is no CT, one that is none at all."""

    def setUp(self):
        super().setUp()
        self.enterContext(forked_jobs())
        if not host.inside_slicer():
            from slicer_stand_in.application import load_module

            # As at Slicer's start: the script imports it.
            load_module(str(ROOT / "NLSTSeg" / "NLSTSeg.py"))
        try:
            from helpers.placed_chest import chest_ct
            from helpers.threshold_model import write_threshold_bundle
        except ImportError as error:
            raise unittest.SkipTest(f"the model of the tests cannot be made here ({error})") from error
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.inputs, self.output, self.model = folder / "cts", folder / "out", folder / "model"
        self.inputs.mkdir()
        write_threshold_bundle(self.model)
        self.ct = chest_ct(np.diag([1.0, -1.0, 1.0]))
        for name in ("a.nrrd", "b.nii.gz"):
            sitk.WriteImage(self.ct.to_image(), str(self.inputs / name))
        (self.inputs / "broken.nrrd").write_text("NRRD0004\n")
        (self.inputs / "list.txt").write_text("not a CT")

    def run_script(self, *arguments: str) -> tuple[int, list[str]]:
        """As Slicer runs it; exit code and lines."""
        with (
            mock.patch.object(sys, "argv", [str(SCRIPT), "--", *arguments]),
            contextlib.redirect_stdout(io.StringIO()) as said,
            self.assertRaises(SystemExit) as ended,
        ):
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return ended.exception.code, said.getvalue().splitlines()

    def run_folder(self) -> tuple[int, list[str]]:
        return self.run_script(str(self.inputs), str(self.output), str(self.model))

    def test_folder_is_done_once_and_a_failure_costs_one_line(self):
        code, lines = self.run_folder()
        self.assertEqual(
            (code, lines[:2], lines[3:]), (1, ["1/3 a.nrrd: 3 lesions", "2/3 b.nii.gz: 3 lesions"], ["3 CTs, 1 failed."])
        )
        self.assertRegex(lines[2], "^3/3 broken.nrrd: failed: .*broken.nrrd")
        self.assertEqual({path.name for path in self.output.iterdir()}, {"a.nrrd", "b.nii.gz"})
        for folder in self.output.iterdir():
            labels = sitk.GetArrayFromImage(sitk.ReadImage(folder / "labels.nii.gz"))
            self.assertEqual(labels.shape, self.ct.hu.shape)
            with open(folder / "lesions.csv", newline="", encoding="utf-8") as file:
                volumes = [int(row["volume_mm3"]) for row in csv.DictReader(file)]
            voxels = np.bincount(labels.ravel())[1:] * self.ct.voxel_volume_mm3
            np.testing.assert_allclose(volumes, voxels, atol=0.5 + 1e-6)
        self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), 0)

        before = {path: path.stat().st_mtime_ns for path in self.output.rglob("*")}
        (self.inputs / "broken.nrrd").unlink()
        self.assertEqual(
            self.run_folder(), (0, ["1/2 a.nrrd: is there already", "2/2 b.nii.gz: is there already", "2 CTs, 0 failed."])
        )
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.output.rglob("*")}, before)

    def test_an_output_that_cannot_be_made_is_told_before_the_run(self):
        self.output.write_text("a file where the folder should be")
        (self.inputs / "broken.nrrd").unlink()
        (self.inputs / "b.nii.gz").unlink()
        code, lines = self.run_folder()
        self.assertEqual((code, lines[-1]), (1, "1 CTs, 1 failed."))
        self.assertIn("is not a folder", lines[0])

    def test_a_model_that_is_not_there_is_told(self):
        code, lines = self.run_script(str(self.inputs), str(self.output), "no-such-model")
        self.assertEqual(code, 1)
        self.assertIn("no-such-model", lines[0])
        self.assertFalse(self.output.exists())

    def test_wrong_calls_say_what_to_give(self):
        for arguments in ((), (str(self.inputs),), (str(self.inputs / "no"), str(self.output))):
            code, lines = self.run_script(*arguments)
            self.assertEqual((code, len(lines)), (2, 1))
            self.assertIn("folder with the CTs", lines[0])

    def test_uneven_slices_are_refused(self):
        from helpers.dicom_files import small_chest, write_series

        hu = small_chest((24, 24, 28))
        cts = self.inputs.parent / "dicom"
        write_series(cts / "even", hu)
        write_series(cts / "gap", hu, skip=(9, 10))
        code, lines = self.run_script(str(cts), str(self.output), str(self.model))
        self.assertEqual((code, lines[2]), (1, "2 CTs, 1 failed."))
        self.assertRegex(lines[0], r"^1/2 even: \d+ lesions$")
        self.assertIn("2/2 gap: failed: its slices lie unevenly", lines[1])
        self.assertEqual([path.name for path in self.output.iterdir()], ["even"])
