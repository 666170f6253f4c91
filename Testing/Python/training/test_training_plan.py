"""Recipes from the data: what is planned can be read, fits the data and the memory, and says why."""

import math
import re
import unittest

import numpy as np
from typer.testing import CliRunner

from helpers.small_nlstseg import write_nlstseg
from helpers.training_data_case import DataTest
from nlstseg_training.batches.composition import describe
from nlstseg_training.batches.patches import Batches
from nlstseg_training.cli import make_app
from nlstseg_training.data.cache import load_case, read_manifest
from nlstseg_training.data.fingerprint import Fingerprint, fingerprint
from nlstseg_training.recipe import read_recipe
from nlstseg_training.workflows.plan import plan_3d, plan_25d

NLSTSEG = Fingerprint(
    cases=605,
    chests=605,
    lesions=715,
    spacing_kji_mm=((1.25, 2.0, 2.5), (0.55, 0.664, 0.82), (0.55, 0.664, 0.82)),
    size_kji=((120.0, 162.0, 280.0), (512.0, 512.0, 512.0), (512.0, 512.0, 512.0)),
    diameter_mm=(8.0, 18.0, 45.0),
    lesion_hu=(-750.0, -20.0, 130.0),
    incomplete=605,
)
"""As docs of the data set tell it."""


class PlanTest(DataTest):
    def test_the_fingerprint_is_that_of_the_cases(self):
        write_nlstseg(self.root, ["1", "2", "3"])
        manifest = self.prepared()
        found = fingerprint(self.cache, manifest)
        self.assertEqual((found.cases, found.chests, found.lesions, found.incomplete), (3, 3, 9, 3))
        case = load_case(self.cache, "1")
        self.assertEqual(tuple(axis[1] for axis in found.spacing_kji_mm), case.ct.spacing_ijk_mm[::-1])
        self.assertEqual(tuple(axis[1] for axis in found.size_kji), case.ct.hu.shape)
        self.assertAlmostEqual(found.lesion_hu[1], float(np.median(case.ct.hu[case.labels > 0])), delta=15)

    def test_both_recipes_make_batches_that_show_lesions(self):
        write_nlstseg(self.root, ["1", "2", "3"])
        self.prepared()
        out = self.cache.with_name("plans")
        command = ["plan", str(self.cache), "--out", str(out), "--memory-gb", "8"]
        done = CliRunner().invoke(make_app(), command)
        self.assertEqual(done.exit_code, 0, done.output)
        spacing = re.search(r"prepared with --spacing (.*)\)", done.stdout)[1].split()
        flat, deep = (read_recipe(str(out / f"plan-{name}.toml")) for name in ("25d", "3d"))
        self.assertEqual([str(f"{step:g}") for step in deep.input.spacing_kji_mm], spacing)
        manifest = read_manifest(self.cache)
        for recipe in (flat, deep):
            (phase,) = recipe.phases
            self.assertIn("lesions of chests", describe(phase.sampling, manifest.cases, phase.name))
            batches = Batches(self.cache, manifest.cases, recipe, phase.sampling, seed=0, count=1, augment=False)
            _, target, _ = batches[0]
            self.assertGreater(int((target.flatten(1).amax(dim=1) > 0.5).sum()), phase.sampling.batch / 3)
        again = CliRunner().invoke(make_app(), command)
        self.assertEqual(again.exit_code, 2)
        self.assertIn("is there already", again.stderr)

    def test_less_memory_gives_smaller_batches_and_patches_and_the_values_follow_the_data(self):
        made = {}
        for gigabytes in (0.6, 16, 80):
            for plan in (plan_25d, plan_3d):
                path = self.root / f"{plan.__name__}-{gigabytes}.toml"
                path.write_text(plan(NLSTSEG, gigabytes * 1e9, f"{gigabytes} GB").toml, encoding="utf-8")
                made[plan.__name__, gigabytes] = read_recipe(str(path))
        large, small = made["plan_3d", 80], made["plan_3d", 0.6]
        self.assertLess(math.prod(small.input.patch_kji), math.prod(large.input.patch_kji))
        self.assertLessEqual(small.phases[0].sampling.batch, large.phases[0].sampling.batch)
        self.assertEqual(large.input.spacing_kji_mm, (2.0, 0.66, 0.66))
        flat = made["plan_25d", 80]
        # A lesion of 45 mm is seen whole, with its surroundings.
        self.assertGreaterEqual(flat.phases[0].sampling.side_px * 0.664, 1.4 * 45)
        self.assertEqual((flat.input.slice_step_mm, flat.input.window_hu), (2.0, (-1000.0, 400.0)))
        self.assertLess(made["plan_25d", 0.6].phases[0].sampling.batch, 48)
        text = plan_25d(NLSTSEG, 16e9, "16 GB").toml
        for words in ("715 lesions of 8 to 45 (median 18) mm", "605 not completely annotated", "1.25 to 2.5 (median 2) mm apart"):
            self.assertIn(words, text)


if __name__ == "__main__":
    unittest.main()
