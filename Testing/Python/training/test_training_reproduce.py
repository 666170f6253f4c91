"""From the NLSTseg zips to the table in one command, on a tiny synthetic data set in that layout; and from where it stopped."""

import json
import tempfile
import unittest
from pathlib import Path

import torch

from helpers.marks import slow
from helpers.small_nlstseg import write_nlstseg
from helpers.tiny_run import ON_CPU, TinyRunTest
from nlstseg_training.data.cache import read_manifest, read_split
from nlstseg_training.evaluation.metrics.published_protocol import PUBLISHED_IOU
from nlstseg_training.workflows.reproduce import PUBLISHED_ROWS
from NLSTSegLib.models.bundle import find_model, load_model

RECIPE = """
format = 1
name = "tiny"
description = "A tiny network."
epoch_steps = 10
validation_steps = 2
average_decay = 0.5
precision = "32-true"
[architecture]
kind = "unet"
channels = [8, 16]
[input]
window_hu = [-1000.0, 400.0]
margin_px = 8
[[phases]]
name = "first"
epochs = 2
learning_rate = 1e-2
sampling = {batch = 8, side_px = 32, lesions = 0.5}
[[phases]]
name = "second"
epochs = 1
learning_rate = 1e-3
sampling = {batch = 8, side_px = 32, lesions = 0.5}
"""


@slow
class ReproduceTest(TinyRunTest):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_nlstseg(cls.folder / "zips", [str(n) for n in range(1, 7)], zipped=True)
        cls.recipe = cls.write("tiny.toml", RECIPE)
        cls.out = cls.folder / "out"
        cls.first = cls.done(*cls.command())

    @classmethod
    def command(cls, *options: object) -> tuple:
        return ("reproduce", "--nlstseg", cls.folder / "zips", "--out", cls.out, "--recipe", cls.recipe, *ON_CPU, *options)

    def times(self) -> dict[Path, int]:
        """Of what takes long to make."""
        kept = ("ct.b2nd", "best.ckpt", "weights.safetensors", "probability")
        return {path: time for path, time in self.tree().items() if path.name in kept or path.parent.name in kept}

    def test_every_step_was_taken(self):
        manifest, split = read_manifest(self.out / "cache"), read_split(self.out / "split.json")
        self.assertEqual(len(manifest.cases), 6)
        self.assertEqual(
            {kind for case in manifest.cases for kind in (lesion.kind for lesion in case.lesions)}, {"tumour", "nodule"}
        )
        self.assertEqual(sorted((*split.train, *split.validation, *split.test)), list("123456"))
        card = load_model(find_model(str(self.out / "bundle"))).card
        self.assertIn("NLSTseg: Chen et al.", card.attribution)
        content = json.loads((self.out / "fit" / "test" / "evaluation.json").read_text(encoding="utf-8"))
        self.assertEqual([row["id"] for row in content["by_case"]], list(split.test))
        self.assertEqual(card.metrics["test"]["dice"]["value"], round(content["overlap"][0]["dice"]["value"], 3))
        self.assertTrue((self.out / "fit" / "test" / "report.html").exists())

    def test_the_table_holds_the_published_figures_by_their_protocol(self):
        content = json.loads((self.out / "fit" / "test" / "evaluation.json").read_text(encoding="utf-8"))
        words = " ".join(self.first.stdout.replace("│", " ").replace("┃", " ").split())
        self.assertEqual(PUBLISHED_IOU, 0.42)
        for figure in ("IoU 0.42", "0.612", "0.617", "Chen et al. 2025"):
            self.assertIn(figure, words)
        self.assertIn(f"IoU {content['published_protocol']['iou']['value']:.3f}", words)
        self.assertIn(f"{content['overlap'][0]['dice']['value']:.3f}", words)
        by_figure = {row.figures.split(",")[0]: row for row in PUBLISHED_ROWS}
        self.assertIn("published protocol", by_figure["IoU 0.42"].protocol)
        self.assertIn("per case, 3D", by_figure["Dice 0.612"].protocol)

    def test_it_goes_on_from_where_it_was(self):
        before = self.times()
        self.assertTrue({path.name for path in before} >= {"ct.b2nd", "best.ckpt", "weights.safetensors"})
        again = self.done(*self.command())
        self.assertEqual(self.times(), before)
        table = [done.stdout[done.stdout.index("NLSTseg; 95 %") :] for done in (self.first, again)]
        self.assertEqual(table[0], table[1])
        # As if it had been stopped in the second phase.
        for path in (self.out / "bundle", self.out / "fit" / "second"):
            for file in path.rglob("*"):
                if file.is_file():
                    file.unlink()
        (self.out / "bundle").rmdir()
        third = self.done(*self.command())
        after = self.times()
        self.assertEqual(after.keys(), before.keys())
        made = {path.relative_to(self.out).parts[0:2] for path in before if after[path] != before[path]}
        self.assertIn(("fit", "second"), made)
        self.assertFalse(made & {("fit", "first"), *(("cache", case_id) for case_id in "123456")})
        table.append(third.stdout[third.stdout.index("NLSTseg; 95 %") :])
        self.assertEqual(table[0], table[2])

    def test_another_seed_or_recipe_needs_another_folder(self):
        self.assertIn("another seed", self.refusal("--seed", 1))
        other = self.write("other.toml", RECIPE.replace("1e-3", "1e-4"))
        self.assertIn("another recipe", self.refusal("--recipe", other))

    def test_a_folder_without_cases_is_refused(self):
        (self.folder / "empty").mkdir()
        command = ("reproduce", "--nlstseg", self.folder / "empty", "--out", self.folder / "new", "--recipe", self.recipe)
        self.assert_refused(*command, words=("no case of NLSTseg", str(self.folder / "empty")))
        self.assertFalse((self.folder / "new").exists())

    def refusal(self, *options: object) -> str:
        done = self.run_command(*self.command(*options))
        self.assertEqual(done.exit_code, 2, done.stderr)
        return done.stderr.splitlines()[-1]


if __name__ == "__main__":
    unittest.main()
