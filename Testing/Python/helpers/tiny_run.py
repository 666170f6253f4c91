"""Tiny trainings for the tests: a cache, a split, recipes, and the command line on them."""

import os
import tempfile
import unittest
from pathlib import Path

from typer.testing import CliRunner

from helpers.tiny_cache import TinyCache
from nlstseg_training.cli import make_app
from nlstseg_training.data.cache import Split, write_json

ROOT = Path(__file__).resolve().parents[3]

RECIPE = """
format = 1
name = "tiny"
description = "A tiny network."
epoch_steps = 8
validation_steps = 2
average_decay = 0.8
precision = "32-true"
[architecture]
kind = "unet"
channels = [8, 16]
[input]
window_hu = [-1000.0, 400.0]
slices = 3
slice_step_mm = 2.0
margin_px = 16
[[phases]]
name = "only"
epochs = 3
learning_rate = 1e-2
mine_every_epochs = 1
sampling = {batch = 8, side_px = 32, lesions = 0.4, crops = 0.4, mined = 0.1}
"""

RECIPE_3D = (
    RECIPE.replace("channels = [8, 16]", "dimensions = 3\nchannels = [4, 8]")
    .replace("slices = 3\nslice_step_mm = 2.0", "patch_kji = [8, 32, 32]")
    .replace("epochs = 3", "epochs = 1")
    .replace("batch = 8", "batch = 2")
)

SPLIT = Split(1, 0, "salt", ("crop0", "crop1", "chest1"), ("crop2",), ("crop3", "chest0"))
"""Of :meth:`TinyCache.add_usual`."""

ON_CPU = ("--accelerator", "cpu", "--workers", 0, "--threads", 1)


def environment() -> dict[str, str]:
    """For a Python that imports the library and the training package from the source tree, and takes one core."""
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "training"))), "OMP_NUM_THREADS": "1"}


class TinyRunTest(unittest.TestCase):
    """A folder of the class with the cache ``cache``, the split ``split.json`` and the recipe ``tiny.toml``."""

    @classmethod
    def setUpClass(cls):
        import torch

        torch.set_num_threads(1)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.cache = TinyCache(cls.folder / "cache").add_usual()
        write_json(cls.folder / "split.json", SPLIT)
        cls.recipe = cls.write("tiny.toml", RECIPE)
        cls.of_cases = ("--cache", cls.cache.folder, "--split", cls.folder / "split.json")

    @classmethod
    def write(cls, name: str, text: str) -> Path:
        (cls.folder / name).write_text(text, encoding="utf-8")
        return cls.folder / name

    @classmethod
    def run_command(cls, *arguments: object):
        return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])

    @classmethod
    def done(cls, *arguments: object):
        """The command, which must end well."""
        done = cls.run_command(*arguments)
        if done.exit_code:
            raise AssertionError(done.stderr) from done.exception
        return done

    @classmethod
    def fit(cls, out: str, recipe: Path | None = None, *options: object) -> Path:
        cls.done("fit", "--recipe", recipe or cls.recipe, *cls.of_cases, "--out", cls.folder / out, *ON_CPU, *options)
        return cls.folder / out

    def assert_refused(self, *arguments: object, words: tuple[str, ...]) -> str:
        """One line with ``words``, exit code 2, and no file more or less than before."""
        before = self.tree()
        done = self.run_command(*arguments)
        self.assertEqual(done.exit_code, 2, done.stderr)
        line = done.stderr.splitlines()[-1]
        self.assertTrue(line.startswith("nlstseg-train: error: "), done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        for word in words:
            self.assertIn(word, line)
        self.assertEqual(self.tree(), before)
        return line

    def tree(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.folder.rglob("*") if path.is_file()}
