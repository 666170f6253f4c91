"""Fine-tuning on corrected cases: better on those held out, the model it comes from untouched and named."""

import dataclasses
import json
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import load_file

from helpers.known_refinement import SPEC
from helpers.small_nlstseg import labelled_chest, write_case
from helpers.threshold_model import CARD
from helpers.tiny_run import ON_CPU, TinyRunTest
from nlstseg_training.data.cache import read_manifest, read_split
from nlstseg_training.export.bundle import write_bundle
from nlstseg_training.fitting.run_folder import read_run
from NLSTSegLib.checks.training_overlap import check_trained_on, salted
from NLSTSegLib.models.bundle import find_model, load_model
from NLSTSegLib.models.card import Architecture, TrainingCases
from NLSTSegLib.networks.refinement import RefinementConfig, RefinementNet
from NLSTSegLib.networks.unet import UNet, UNetConfig

RECIPE = """
format = 1
name = "corrected"
description = "Fine-tuning on corrected cases."
epoch_steps = 30
validation_steps = 1
average_decay = 0.5
precision = "32-true"
[[phases]]
name = "all"
epochs = 2
learning_rate = 1e-2
mine_every_epochs = 1
sampling = {batch = 8, side_px = 32, lesions = 0.5, mined = 0.2}
"""

SALT = "5a1t"

THRESHOLD = 0.35
"""Not among those that are tried on a validation part."""

BEFORE = TrainingCases(SALT, (salted(SALT, "a scan of long ago"),))


class FineTuneTest(TinyRunTest):
    """Four corrected chests, one of them for testing, and a network that has learnt nothing."""

    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        for n in range(4):
            write_case(cls.folder / "corrected", f"case-{n}", *labelled_chest(n))
        cls.recipe = cls.write("short.toml", RECIPE)
        cls.done("prepare", cls.folder / "cache", "--corrected", cls.folder / "corrected")
        cls.split_file = cls.folder / "split.json"
        cls.done("split", cls.folder / "cache", "--out", cls.split_file, "--validation", 0, "--test", 0.25)
        cls.base = cls.write_base("from/bundle")
        cls.done(*cls.command("tuned"))

    @classmethod
    def write_base(cls, name: str) -> Path:
        torch.manual_seed(3)
        architecture = Architecture("unet", 2, (8, 16), "none", True)
        card = dataclasses.replace(CARD, name="base", version="7", architecture=architecture, threshold=THRESHOLD)
        card = dataclasses.replace(card, training_cases=BEFORE)
        write_bundle(UNet(UNetConfig(2, 1, (8, 16), "none", True)), card, cls.folder / name)
        return cls.folder / name

    @classmethod
    def command(cls, out: str, *options: object, base: Path | None = None, split: Path | None = None) -> tuple:
        where = ("--cache", cls.folder / "cache", "--split", split or cls.split_file, "--out", cls.folder / out)
        return ("finetune", base or cls.base, "--recipe", cls.recipe, *where, *ON_CPU, *options)

    def evaluation(self, place: str) -> dict:
        return json.loads((self.folder / "tuned" / place / "evaluation.json").read_text(encoding="utf-8"))

    def test_the_held_out_case_is_outlined_better_and_the_table_says_so(self):
        before = self.tree()
        done = self.done(*self.command("tuned"))
        # It was finished: it is shown again.
        self.assertEqual(self.tree(), before)
        before, after = self.evaluation("before"), self.evaluation("test")
        self.assertEqual([row["id"] for row in before["by_case"]], list(read_split(self.split_file).test))
        self.assertEqual([row["id"] for row in after["by_case"]], [row["id"] for row in before["by_case"]])
        dice = [content["overlap"][0]["dice"]["value"] for content in (before, after)]
        self.assertGreater(dice[1], dice[0] + 0.2)
        row = next(line for line in done.stdout.splitlines() if " dice " in line)
        self.assertIn(f"{dice[0]:.3f}", row)
        self.assertIn(f"{dice[1]:.3f}", row)
        self.assertLess(row.index(f"{dice[0]:.3f}"), row.index(f"{dice[1]:.3f}"))
        # Both at the threshold of the model it comes from.
        self.assertEqual({content["threshold"]["value"] for content in (before, after)}, {THRESHOLD})

    def test_the_card_names_the_model_it_comes_from_and_knows_its_scans(self):
        card, base = find_model(str(self.folder / "tuned" / "bundle")).card, find_model(str(self.base)).card
        told = {"name": "base", "version": "7", "weights_sha256": base.weights_sha256}
        self.assertEqual(card.metrics["derived_from"], told)
        self.assertEqual((card.name, card.version, card.licence), ("base-corrected", "1", base.licence))
        self.assertIn("from base 7", card.description)
        self.assertEqual((card.architecture, card.input, card.threshold), (base.architecture, base.input, base.threshold))
        self.assertEqual(card.training_cases.salt, SALT)
        self.assertLess(set(BEFORE.sha256), set(card.training_cases.sha256))
        seen, unseen = labelled_chest(0)[0], labelled_chest(9)[0]
        split = read_split(self.split_file)
        self.assertEqual(bool(check_trained_on(seen, card)), "case-0" in split.train)
        self.assertEqual(check_trained_on(unseen, card), [])
        known = {salted(SALT, read_manifest(self.folder / "cache").entry(case_id).scan_sha256) for case_id in split.train}
        self.assertLess(known, set(card.training_cases.sha256))
        self.assertEqual(read_run(self.folder / "tuned").base.identity.name, "base")

    def test_it_starts_from_the_weights_of_the_model_and_keeps_its_threshold(self):
        still = self.write("still.toml", RECIPE.replace("1e-2", "1e-9").replace("epochs = 2", "epochs = 1"))
        content = json.loads(self.split_file.read_text(encoding="utf-8"))
        split = self.write("validation.json", json.dumps(content | {"test": [], "validation": content["test"]}))
        done = self.run_command(*self.command("still", split=split), "--recipe", still)
        self.assertEqual(done.exit_code, 0, done.stderr)
        self.assertIn("validation: 1 case(s)", done.stdout)
        self.assertEqual(find_model(str(self.folder / "still" / "bundle")).card.threshold, THRESHOLD)
        before, after = (load_file(folder / "weights.safetensors") for folder in (self.base, self.folder / "still" / "bundle"))
        for name in before:
            torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-5)

    def test_a_refinement_network_is_trained_further_and_keeps_how_its_numbers_become_scores(self):
        torch.manual_seed(4)
        card = dataclasses.replace(find_model(str(self.base)).card, refinement=SPEC)
        first = load_model(find_model(str(self.base))).network
        own = RefinementNet(RefinementConfig(SPEC.channels))
        base = self.folder / "two-looks"
        write_bundle(first, card, base, own)
        done = self.run_command(*self.command("tuned-twice", "--refinement-steps", 2, base=base))
        self.assertEqual(done.exit_code, 0, done.stderr)
        tuned = load_model(find_model(str(self.folder / "tuned-twice" / "bundle")))
        self.assertEqual(tuned.card.refinement, SPEC)
        weights = [*zip(tuned.refinement.parameters(), own.parameters(), strict=True)]
        moved = [float((after - before).detach().abs().max()) for after, before in weights]
        # Two steps of 2e-4 at most each, from where it was.
        self.assertGreater(max(moved), 1e-5)
        self.assertLess(max(moved), 5e-3)

    def test_the_model_it_comes_from_is_not_overwritten(self):
        files = {path.name: path.read_bytes() for path in self.base.iterdir()}
        for out in ("from", "from/bundle"):
            self.assert_refused(*self.command(out), words=("not overwritten", str(self.folder / out)))
        self.assertEqual({path.name: path.read_bytes() for path in self.base.iterdir()}, files)

    def test_its_name_and_version_are_taken(self):
        self.assert_refused(*self.command("named", "--name", "base", "--version", "7"), words=("'base' 7", "another name"))

    def test_without_a_case_held_out_nothing_can_be_shown(self):
        split = self.folder / "none.json"
        content = json.loads(self.split_file.read_text(encoding="utf-8"))
        content["train"] += content["test"]
        split.write_text(json.dumps(content | {"test": []}), encoding="utf-8")
        self.assert_refused(*self.command("nothing", split=split), words=("no case for testing", str(split)))


if __name__ == "__main__":
    unittest.main()
