"""From a finished training to a bundle: the same voxels, a card filled from the run, nothing overwritten; and the commands."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
import unittest
import unittest.mock
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from helpers.child_processes import WAIT_S, wait_until
from helpers.marks import slow
from helpers.threshold_model import CARD, threshold_model
from helpers.tiny_cache import TinyCache, ball
from helpers.tiny_run import ON_CPU, RECIPE, RECIPE_3D, TinyRunTest, environment
from nlstseg_training.cli import make_app
from nlstseg_training.data.cache import load_case, read_manifest, write_json
from nlstseg_training.evaluation.evaluate import THRESHOLDS
from nlstseg_training.evaluation.job import ModelJob
from nlstseg_training.evaluation.report.curves import read_curves
from nlstseg_training.export.bundle import check_parity, write_bundle
from nlstseg_training.export.export import best_min_volume_mm3
from nlstseg_training.fitting.checkpoints import LAST
from nlstseg_training.fitting.run_folder import read_run, trained_network
from nlstseg_training.recipe import read_recipe
from NLSTSegLib.checks.training_overlap import salted
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import DEFAULT_MODEL, Model, find_model, load_model
from NLSTSegLib.models.card import published_card
from NLSTSegLib.pipeline import SegmentOptions, segment

CPU = DeviceRequest("cpu", 1)


class ExportTest(TinyRunTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.run_2d = cls.fit("2d")
        cls.done("export", cls.run_2d, "--out", cls.folder / "mine", "--name", "mine", "--version", "2", *cls.texts, *cls.cpu)

    texts = ("--licence", "CC0", "--attribution", "Somebody, doi 10.1/x", "--intended-use", "Tests")
    cpu = ("--accelerator", "cpu", "--threads", 1)

    @property
    def card(self):
        return find_model(str(self.folder / "mine")).card

    def trained(self, run: Path) -> Model:
        return Model(find_model(str(run / "bundle")).card, trained_network(run, read_run(run)))

    def test_the_bundle_gives_the_voxels_of_the_training_network_in_2d_and_3d(self):
        for run in (self.run_2d, self.fit("3d", self.write("3d.toml", RECIPE_3D))):
            trained, bundled = self.trained(run), load_model(find_model(str(run / "bundle")))
            for case_id in ("chest0", "crop3"):
                ct = load_case(self.cache.folder, case_id).ct
                options = SegmentOptions(lung_field="none", device="cpu", threads=1)
                ours, theirs = (segment(ct, model, options).probability for model in (trained, bundled))
                self.assertGreater(len(np.unique(ours)), 10)
                np.testing.assert_array_equal(ours, theirs)
            self.check_one_weight(run, trained)

    def check_one_weight(self, run: Path, trained: Model):
        """A bundle that differs in a single weight is no copy."""
        case = load_case(self.cache.folder, "crop3")
        check_parity(trained, run / "bundle", case, CPU)
        with torch.no_grad():
            trained.network.head.bias += 0.05
        with self.assertRaisesRegex(InputError, "other probabilities.*crop3"):
            check_parity(trained, run / "bundle", case, CPU)

    def test_a_bundle_that_is_no_copy_is_not_left(self):
        def damaged(network, card, folder, second):
            other = copy.deepcopy(network)
            with torch.no_grad():
                other.head.bias += 0.05
            return write_bundle(other, card, folder, second)

        with unittest.mock.patch("nlstseg_training.export.export.write_bundle", damaged):
            done = self.run_command("export", self.run_2d, "--out", self.folder / "damaged", *self.cpu)
        self.assertEqual(done.exit_code, 2, done.stderr)
        self.assertIn("other probabilities", done.stderr.splitlines()[-1])
        self.assertFalse((self.folder / "damaged").exists())

    def test_the_card_is_filled_from_the_run(self):
        card, recipe = self.card, read_recipe(str(self.recipe))
        self.assertEqual((card.name, card.version, card.licence, card.intended_use), ("mine", "2", "CC0", "Tests"))
        self.assertEqual((card.architecture, card.input), (recipe.architecture, recipe.input))
        self.assertIn("Somebody, doi 10.1/x", card.attribution)
        self.assertIn("2 x crop, 2 patient(s), 2 lesion(s)", card.training_data)
        self.assertIn("in-plane 1 mm, slices 2 mm", card.spacing_note)
        # The test cases are not among them.
        known = {salted("salt", case_id) for case_id in ("crop0", "crop1", "chest1", "crop2")}
        self.assertEqual((card.training_cases.salt, set(card.training_cases.sha256)), ("salt", known))
        self.assertEqual(card.metrics["seed"], 0)
        self.assertEqual(card.metrics["made_with"]["torch"], torch.__version__)
        self.assertEqual(card.metrics["made_with"], read_run(self.run_2d).made_with)

    def test_the_figures_are_those_of_the_reports_and_the_threshold_is_chosen_on_validation(self):
        card = self.card
        contents = {part: json.loads((self.run_2d / part / "evaluation.json").read_text()) for part in ("validation", "test")}
        for part, cases in (("validation", ["crop2"]), ("test", ["chest0", "crop3"])):
            content, told = contents[part], card.metrics[part]
            self.assertEqual(sorted(row["id"] for row in content["by_case"]), cases)
            self.assertEqual(told["dice"]["value"], round(content["overlap"][0]["dice"]["value"], 3))
            self.assertEqual(told["cases"], len(cases))
            self.assertEqual(content["model"]["weights_sha256"], card.weights_sha256)
            self.assertEqual((content["threshold"]["value"], content["min_volume_mm3"]), (card.threshold, card.min_volume_mm3))
        best = max(contents["validation"]["sweep"], key=lambda row: (row["f1_strict"]["value"], row["threshold"]))
        self.assertEqual(card.threshold, best["threshold"])
        self.assertIn(card.threshold, THRESHOLDS)

    def test_fit_looks_at_validation_alone(self):
        card = find_model(str(self.run_2d / "bundle")).card
        self.assertIn("validation", card.metrics)
        self.assertNotIn("test", card.metrics)
        self.assertEqual((card.name, card.version, card.threshold), ("tiny", "1", self.card.threshold))

    def test_a_cache_that_was_moved_is_named(self):
        moved = self.folder / "moved"
        self.cache.folder.rename(moved)
        try:
            self.assert_refused("export", self.run_2d, "--out", self.folder / "from-moved", words=("manifest.json",))
            self.done("export", self.run_2d, "--out", self.folder / "from-moved", "--cache", moved, "--accelerator", "cpu")
        finally:
            moved.rename(self.cache.folder)
        self.assertTrue((self.folder / "from-moved" / "model.json").exists())

    def test_no_folder_is_overwritten(self):
        words = (str(self.folder / "mine"), "already")
        self.assert_refused("export", self.run_2d, "--out", self.folder / "mine", *self.cpu, words=words)

    def test_what_is_no_finished_run_is_refused(self):
        self.assert_refused("export", self.folder, "--out", self.folder / "new", words=("run.json", "nlstseg-train fit"))
        unfinished = self.folder / "unfinished"
        unfinished.mkdir()
        for name in ("run.json", "split.json"):
            (unfinished / name).write_bytes((self.run_2d / name).read_bytes())
        self.assert_refused("export", unfinished, "--out", self.folder / "new", words=("not finished", "goes on"))

    def test_a_run_goes_on_only_as_it_began(self):
        options = ("fit", *self.of_cases, "--out", self.run_2d, *ON_CPU, "--recipe")
        self.done(*options, self.recipe)
        self.assert_refused(*options, self.recipe, "--seed", 1, words=("another seed",))
        other = self.write("other.toml", RECIPE.replace("epochs = 3", "epochs = 4"))
        self.assert_refused(*options, other, words=("another recipe",))
        self.assert_refused(*options, self.recipe, "--start", self.folder / "mine", words=("another start model",))
        elsewhere = ("fit", *self.of_cases, "--out", self.cache.folder, *ON_CPU, "--recipe", self.recipe)
        self.assert_refused(*elsewhere, words=("not empty",))

    def test_other_cases_in_the_cache_are_noticed(self):
        with tempfile.TemporaryDirectory() as name:
            cache = TinyCache(Path(name)).add_usual()
            text = (self.run_2d / "run.json").read_text(encoding="utf-8")
            manifest = read_manifest(cache.folder)
            first = dataclasses.replace(manifest.cases[0], scan_sha256="other")
            other = dataclasses.replace(manifest, cases=(first, *manifest.cases[1:]))
            write_json(cache.folder / "manifest.json", other)
            self.addCleanup((self.run_2d / "run.json").write_text, text, encoding="utf-8")
            (self.run_2d / "run.json").write_text(json.dumps(json.loads(text) | {"cache": name}), encoding="utf-8")
            self.assert_refused("export", self.run_2d, "--out", self.folder / "new", words=("not those", name))


class MinimumVolumeTest(unittest.TestCase):
    def test_it_drops_specks_and_keeps_small_lesions(self):
        shape = (9, 64, 64)
        labels = ball(shape, (4, 32, 32), 1.7).astype(np.uint8)
        self.assertTrue(15 < 2 * labels.sum() < 30)
        hu = np.where(labels > 0, 100, -850).astype(np.int16)
        specks = hu.copy()
        # Not annotated.
        specks[4, 10, 10:14] = specks[2, 50, 20] = 100
        with tempfile.TemporaryDirectory() as name:
            cache = TinyCache(Path(name) / "cache")
            for case_id, voxels, best in (("specks", specks, 15.0), ("none", hu, 0.0)):
                entries = (cache.add(case_id, voxels, labels, kind="crop"),)
                for begin in (0.0, 30.0):
                    job = ModelJob(threshold_model(min_volume_mm3=begin), cache.folder, entries, Path(name) / "out", CPU)
                    self.assertEqual(best_min_volume_mm3(job), best)


class RecipesTest(unittest.TestCase):
    def test_a_recipe_is_printed_and_its_keys_are_overridden(self):
        for name in ("default", "published", "finetune"):
            text = CliRunner().invoke(make_app(), ["recipe", name]).stdout
            self.assertEqual(tomllib.loads(text)["name"], name)
        self.assertEqual(CliRunner().invoke(make_app(), ["recipe"]).stdout.split(), ["default", "finetune", "published"])
        changes = (
            "epoch_steps=7",
            "phases.second.epochs=2",
            "phases.0.sampling.batch=4",
            "precision=32-true",
            "input.margin_px = 8",
        )
        recipe = read_recipe("default", changes=changes)
        self.assertEqual((recipe.epoch_steps, recipe.phases[1].epochs, recipe.phases[0].sampling.batch), (7, 2, 4))
        self.assertEqual((recipe.precision, recipe.input.margin_px, recipe.phases[1].sampling.batch), ("32-true", 8, 48))
        for change, words in (
            ("epochs", "write key=value"),
            ("phases.epochs=2", r"phases\.0\.epochs"),
            ("phases.fourth.epochs=2", "no 'fourth'"),
            ("nothing=2", "nothing"),
            ("epoch_steps=many", "epoch_steps.*whole number"),
            ("epoch_steps=0", "1 or more"),
            ("phases.first.learning_rate=-1", "learning_rate must be above 0"),
            ("phases.first.sampling.side_px=100", "multiple of 16"),
            ("augmentation.zoom=[2, 1]", "zoom.*smaller one first"),
            ("warmup=1.5", "warmup"),
            ("average_decay=1", "average_decay"),
            ("threshold=1.5", "threshold"),
            ("architecture.channels=[]", "channels"),
            ("architecture.channels=[0, 4]", "channels"),
            ("loss.dice=-1", "dice"),
        ):
            with self.subTest(change), self.assertRaisesRegex(InputError, words):
                read_recipe("default", changes=[change])

    def test_the_recipes_are_those_of_the_models_they_are_for(self):
        for name, card in (("default", find_model(DEFAULT_MODEL).card), ("published", published_card(Path("x.pth")))):
            recipe = read_recipe(name)
            self.assertEqual(recipe.name, name)
            # A model with a refinement network has the threshold of that.
            chosen = () if card.refinement else ("threshold", "min_volume_mm3")
            for field in ("architecture", "input", *chosen):
                self.assertEqual(getattr(recipe, field), getattr(card, field), f"{name} {field}")

    def test_the_one_for_fine_tuning_takes_network_and_input_from_the_model(self):
        with self.assertRaisesRegex(InputError, "finetune.*architecture"):
            read_recipe("finetune")
        card = find_model(DEFAULT_MODEL).card
        recipe = read_recipe("finetune", card)
        self.assertEqual((recipe.architecture, recipe.input, recipe.threshold), (card.architecture, card.input, card.threshold))
        with self.assertRaisesRegex(InputError, "default.*another network or input.*threshold"):
            read_recipe("default", CARD)

    def test_names_of_phases_that_lead_out_of_the_run_are_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.toml"
            for name in ("../../x", "/x", "..", ""):
                path.write_text(RECIPE.replace('name = "only"', f'name = "{name}"'))
                with self.subTest(name=name), self.assertRaisesRegex(InputError, r"phases\.0: name must be"):
                    read_recipe(str(path))


class ProcessesTest(TinyRunTest):
    def start(self, *command: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(process.kill)
        return process

    @slow
    def test_two_processes_of_torchrun_make_one_model(self):
        out = self.folder / "two"
        launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
        command = ("-m", "nlstseg_training", "fit", "--recipe", self.recipe, *self.of_cases, "--out", out, *ON_CPU)
        process = self.start(*launcher, *command)
        _, stderr = process.communicate(timeout=WAIT_S)
        self.assertEqual(process.returncode, 0, stderr)
        # Two that did not know of each other would have written two logs.
        epochs = [row["step"] for row in read_curves(out / "log" / "metrics.csv") if "epoch" in row]
        self.assertEqual(epochs, [8, 16, 24])
        self.assertEqual(torch.load(out / "only" / LAST, weights_only=True)["global_step"], 24)
        weights = load_file(out / "bundle" / "weights.safetensors")
        self.assertTrue(all(bool(tensor.isfinite().all()) for tensor in weights.values()))
        alone = load_file(self.fit("alone") / "bundle" / "weights.safetensors")
        # They saw twice as many patches.
        self.assertFalse(torch.equal(weights["head.weight"], alone["head.weight"]))

    @unittest.skipUnless(Path("/proc/self/status").exists(), "the system does not tell which signals are blocked")
    def test_a_signal_to_all_processes_does_not_end_the_server_that_they_are_forked_from(self):
        code = (
            "from multiprocessing import forkserver\n"
            "from nlstseg_training.fitting.interruption import blocked_signals\n"
            "with blocked_signals():\n"
            "    forkserver.ensure_running()\n"
            "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())\n"
        )
        told, stderr = self.start(sys.executable, "-c", code).communicate(timeout=WAIT_S)
        self.assertIn("SigBlk:", told, stderr)
        blocked = int(told.partition("SigBlk:")[2].split()[0], 16)
        for number in (signal.SIGINT, signal.SIGTERM):
            self.assertTrue(blocked >> (number - 1) & 1, number)

    @slow
    def test_who_stops_all_of_its_processes_is_told_how_it_goes_on(self):
        out, recipe = self.folder / "long", self.write("long.toml", RECIPE.replace("epochs = 3", "epochs = 5000"))
        command = ("-m", "nlstseg_training", "fit", "--recipe", recipe, *self.of_cases, "--out", out, *ON_CPU, "--workers", 1)
        process = self.start(sys.executable, *command)
        wait_until((out / "only" / LAST).exists, "an epoch is done")
        # As SLURM and timeout do, and a terminal with Ctrl-C.
        os.killpg(process.pid, signal.SIGTERM)
        _, stderr = process.communicate(timeout=WAIT_S)
        self.assertEqual(process.returncode, 130, stderr)
        last = stderr.strip().splitlines()[-1]
        self.assertIn("stopped", last)
        self.assertIn(f"'{out}', the same command goes on", last)
        # Neither advice for programmers nor a traceback.
        for word in ("Tip", "Warning", "warn", "Traceback", "GPU available"):
            self.assertNotIn(word, stderr)
        self.assertGreater(torch.load(out / "only" / LAST, weights_only=True)["global_step"], 0)


if __name__ == "__main__":
    unittest.main()
