"""The synthetic masses of ``Testing/benchmarks/masses.py``: what is put into a CT, and the script on one."""

import importlib.util
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.marks import slow
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.volume.ct import to_canonical

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "masses.py"


def masses():
    spec = importlib.util.spec_from_file_location("masses", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class MassTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ct = to_canonical(make_phantom(spacing_ijk_mm=(1.4, 1.4, 4.0)).ct)
        cls.masses = masses()
        cls.depth_mm = cls.masses.depth_below_surface(cls.ct)

    def test_a_mass_is_one_piece_of_soft_tissue_in_the_lungs_and_nothing_else_changes(self):
        rng = np.random.default_rng(1)
        for _ in range(4):
            mass, hu, middle, within = self.masses.mass_in(self.ct, self.depth_mm, rng)
            self.assertGreaterEqual(np.count_nonzero(mass) * self.ct.voxel_volume_mm3, 40_000)
            self.assertTrue(mass[tuple(middle)])
            self.assertTrue(0 < within <= 1)
            self.assertEqual(
                sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mass.astype(np.uint8)))).max(), 1
            )
            self.assertGreaterEqual(self.depth_mm[mass].min(), 0)
            self.assertTrue(-40 < np.median(hu[mass]) < 120)
            self.assertFalse((hu < self.ct.hu).any())
            # A voxel's partial volume around it.
            reach = sitk.BinaryDilate(sitk.GetImageFromArray(mass.astype(np.uint8)), (2, 2, 1))
            away = sitk.GetArrayFromImage(reach) == 0
            np.testing.assert_array_equal(hu[away], self.ct.hu[away])

    @slow
    def test_the_script_tells_how_well_one_is_outlined(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        image = sitk.GetImageFromArray(self.ct.hu)
        image.SetSpacing(self.ct.spacing_ijk_mm)
        sitk.WriteImage(image, folder / "ct.nrrd")
        done = subprocess.run(
            [sys.executable, SCRIPT, folder / "ct.nrrd", "--count", "1"], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(float(done.stdout.rsplit("mean Dice ", 1)[1].split()[0]), 0.5)
