"""The user's models: added whole or not at all, never over another, removed without a trace."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch
from typer.testing import CliRunner

from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.cli.app import app
from NLSTSegLib.errors import ModelError
from NLSTSegLib.models.bundle import DEFAULT_MODEL, WEIGHTS_FILE, broken_models, find_model, list_models, load_model
from NLSTSegLib.models.card import CARD_FILE
from NLSTSegLib.models.figures import measured_lines
from NLSTSegLib.models.store import add_model, model_path, models_at, remove_model, weights_hash
from NLSTSegLib.networks.published import PublishedUNet
from NLSTSegLib.resources import MODELS_VARIABLE

ROOT = Path(__file__).resolve().parents[3]


class StoreTestCase(unittest.TestCase):
    """``self.store`` is the user's folder, which does not exist yet; bundles lie in ``self.folder``."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.store = self.folder / "home" / "models"
        before = os.environ.get(MODELS_VARIABLE)
        self.addCleanup(
            lambda: os.environ.pop(MODELS_VARIABLE) if before is None else os.environ.update({MODELS_VARIABLE: before})
        )
        os.environ[MODELS_VARIABLE] = str(self.store)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)

    def bundle(self, name: str, **changes) -> Path:
        write_threshold_bundle(self.folder / name, name=name, **changes)
        return self.folder / name

    def checkpoint(self, name: str = "epoch 12.pth") -> Path:
        torch.manual_seed(0)
        torch.save({"model_state_dict": PublishedUNet().state_dict()}, self.folder / name)
        return self.folder / name

    def installed(self) -> list[str]:
        return [model.card.name for model in list_models() if model.origin == "installed"]

    def stored_files(self) -> list[str]:
        return sorted(path.relative_to(self.store).as_posix() for path in self.store.rglob("*") if path.is_file())

    def refused(self, work, *words):
        with self.assertRaises(ModelError) as caught:
            work()
        for word in words:
            self.assertIn(str(word), str(caught.exception))


class AddTest(StoreTestCase):
    def test_bundle_is_copied_with_its_texts_and_loads_after_the_source_is_gone(self):
        source = self.bundle("mine")
        (source / "LICENSE.txt").write_text("free")
        (source / "last.ckpt").write_bytes(b"0" * 1000)
        (source / "readme").mkdir()
        added = add_model(source)
        self.assertTrue(added.is_loaded)
        self.assertEqual(self.stored_files(), ["mine/LICENSE.txt", f"mine/{CARD_FILE}", f"mine/{WEIGHTS_FILE}"])
        for file in source.rglob("*.*"):
            file.unlink()
        self.assertEqual(load_model(find_model("mine")).card, added.files.card)
        self.assertEqual(added.files.weights, self.store / "mine" / WEIGHTS_FILE)

    def test_published_checkpoint_keeps_its_name_and_bytes(self):
        source = self.checkpoint()
        added = add_model(source)
        self.assertEqual(self.installed(), ["epoch 12"])
        self.assertEqual(find_model("epoch 12").weights.read_bytes(), source.read_bytes())
        self.assertEqual(model_path(added.files), str(self.store / "epoch 12" / "epoch 12.pth"))
        self.assertEqual(find_model(model_path(added.files)).card, added.files.card)

    def test_names_that_are_no_names_of_folders_stay_inside_the_store(self):
        for name in ("../../escaped", "a/b", "C:\\x", "con:", "..", "x" * 300):
            source = self.folder / "odd"
            write_threshold_bundle(source, name=name)
            add_model(source)
        self.assertEqual(sorted({path.parent.parent for path in self.folder.rglob(CARD_FILE)}), [self.store, self.folder][::-1])
        self.assertEqual(len(list(self.store.iterdir())), 6)
        self.assertEqual(find_model("../../escaped").weights.parent.parent, self.store)

    def test_a_taken_name_is_said_and_nothing_is_overwritten(self):
        add_model(self.bundle("mine"))
        before = (self.store / "mine" / CARD_FILE).read_bytes()
        write_threshold_bundle(self.folder / "other", name="MINE", version="2")
        self.refused(lambda: add_model(self.folder / "other"), "'MINE'", "is installed already", self.store / "mine")
        write_threshold_bundle(self.folder / "other", name=DEFAULT_MODEL)
        self.refused(lambda: add_model(self.folder / "other"), DEFAULT_MODEL, "comes with the program")
        self.assertEqual((self.store / "mine" / CARD_FILE).read_bytes(), before)
        # Another name that makes the same folder.
        write_threshold_bundle(self.folder / "other", name="a/b")
        add_model(self.folder / "other")
        write_threshold_bundle(self.folder / "other", name="a:b")
        self.refused(lambda: add_model(self.folder / "other"), self.store / "a_b", "is there already")
        self.assertEqual(self.installed(), ["a/b", "mine"])

    def test_what_cannot_be_used_is_refused_and_leaves_nothing(self):
        source = self.bundle("mine")
        whole = (source / WEIGHTS_FILE).read_bytes()
        (source / WEIGHTS_FILE).write_bytes(whole[:-1])
        self.refused(lambda: add_model(source), "do not have the hash")
        (source / WEIGHTS_FILE).unlink()
        self.refused(lambda: add_model(source), WEIGHTS_FILE)
        (source / CARD_FILE).write_text("{}")
        self.refused(lambda: add_model(source), source / CARD_FILE, "format", "missing")
        (self.folder / "broken.pth").write_bytes(b"no checkpoint")
        self.refused(lambda: add_model(self.folder / "broken.pth"), "broken.pth")
        torch.save({"weight": torch.zeros(3)}, self.folder / "another.pth")
        self.refused(lambda: add_model(self.folder / "another.pth"), "do not fit the network")
        (self.folder / "picture.png").write_bytes(b"x")
        self.refused(lambda: add_model(self.folder / "picture.png"), "picture.png", "is no model")
        self.assertEqual(list(self.store.rglob("*")), [])

    @unittest.skipIf(sys.platform == "win32", "links need rights there")
    def test_what_a_link_in_a_bundle_leads_to_does_not_travel_with_the_model(self):
        source = self.bundle("plain")
        (self.folder / "private key").write_text("secret")
        (source / "LICENSE.txt").symlink_to(self.folder / "private key")
        (source / "README.md").write_text("ours")
        add_model(source)
        self.assertEqual(self.stored_files(), ["plain/README.md", f"plain/{CARD_FILE}", f"plain/{WEIGHTS_FILE}"])

    def test_a_store_that_cannot_be_written_is_said(self):
        self.store.parent.mkdir()
        self.store.write_text("a file")
        self.refused(lambda: add_model(self.bundle("mine")), "'mine' cannot be copied", self.store)

    def test_without_torch_the_card_and_the_hash_are_checked(self):
        good, spoiled = self.bundle("good"), self.bundle("spoiled")
        data = (spoiled / WEIGHTS_FILE).read_bytes()
        (spoiled / WEIGHTS_FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        # A Python without site-packages; numpy, which the library needs, is the only one of them.
        code = (
            "import sys, os\n"
            "from pathlib import Path\n"
            "class Finder:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.partition('.')[0] in ('torch', 'pydantic', 'safetensors', 'SimpleITK'):\n"
            "            raise ModuleNotFoundError(name)\n"
            "sys.meta_path.insert(0, Finder())\n"
            "import importlib.util\n"
            "real = importlib.util.find_spec\n"
            "importlib.util.find_spec = lambda name, package=None: None if name == 'torch' else real(name, package)\n"
            "from NLSTSegLib.models.store import add_model\n"
            "from NLSTSegLib.errors import ModelError\n"
            f"print(add_model(Path({str(good)!r})).is_loaded)\n"
            f"try: add_model(Path({str(spoiled)!r}))\n"
            "except ModelError as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines()[0], "False")
        self.assertIn("do not have the hash", done.stdout.splitlines()[1])
        self.assertEqual(self.installed(), ["good"])


class FindAtTest(StoreTestCase):
    def test_what_a_user_may_choose(self):
        bundle, checkpoint = self.bundle("one"), self.checkpoint()
        self.assertEqual(models_at(bundle), [bundle])
        self.assertEqual(models_at(bundle / CARD_FILE), [bundle])
        self.assertEqual(models_at(checkpoint), [checkpoint])

    def test_a_folder_with_several(self):
        for name in ("several/a", "several/b"):
            write_threshold_bundle(self.folder / name, name=name)
        (self.folder / "several" / "c").mkdir()
        self.checkpoint("several/c/c.pth")
        (self.folder / "several" / "notes").mkdir()
        found = models_at(self.folder / "several")
        self.assertEqual([path.name for path in found], ["a", "b", "c.pth"])
        for path in found:
            add_model(path)
        self.assertEqual(self.installed(), ["c", "several/a", "several/b"])

    def test_a_folder_with_none_is_refused(self):
        self.refused(lambda: models_at(self.folder), self.folder, CARD_FILE)


class RemoveTest(StoreTestCase):
    def test_removed_model_is_gone_and_the_others_stay(self):
        for name in ("one", "two"):
            add_model(self.bundle(name))
        remove_model(self.store / "one")
        self.assertEqual(self.installed(), ["two"])
        self.assertEqual([path.name for path in self.store.iterdir()], ["two"])

    def test_broken_one_can_be_removed(self):
        add_model(self.bundle("one"))
        (self.store / "one" / CARD_FILE).write_text("{}")
        remove_model(broken_models()[0].folder)
        self.assertEqual((broken_models(), list(self.store.iterdir())), ([], []))

    def test_nothing_else_can_be_removed(self):
        bundled, elsewhere = find_model(DEFAULT_MODEL).weights.parent, self.bundle("mine")
        add_model(elsewhere)
        for folder in (bundled, elsewhere, self.store, self.folder, self.store / "mine" / "..", self.store / "nothing"):
            self.refused(lambda folder=folder: remove_model(folder), folder, "only those in")
        self.assertTrue((bundled / WEIGHTS_FILE).exists() and (elsewhere / WEIGHTS_FILE).exists())
        self.assertEqual(self.installed(), ["mine"])


class CardTest(StoreTestCase):
    def test_hash_is_that_of_the_weights(self):
        bundle, checkpoint = find_model(str(self.bundle("mine"))), find_model(str(self.checkpoint()))
        self.assertEqual(weights_hash(bundle), bundle.card.weights_sha256)
        self.assertEqual(weights_hash(checkpoint), load_model(checkpoint).card.weights_sha256)

    def test_measured_figures_in_words(self):
        by_size = {"0-6 mm": {"dice": 0.7}, "more": {"dice": 0.9, "deep": {"x": 1}}, "to\x1b": 1, "list": [1]}
        figure = {"value": 0.8, "low": 0.7, "high": 0.9}
        made = {"made_with": {"commit": "0123abcd"}, "seed": 4}
        validation = {"cases": 9, "threshold": 0.2, "dice_per_lesion": figure, "by_size": by_size, **made}
        metrics = {"matched_dice": 0.6, "validation": validation, "empty": {}, "cpm": {"value": 1.0}}
        expected = [
            "matched dice 0.6",
            "mean sensitivity of the FROC curve (CPM) 1.0",
            "validation: 9 cases, threshold 0.2",
            "validation: Dice per lesion, 0 for a missed one 0.8 (95 % interval 0.7 to 0.9)",
            "validation, by size: to  1",
            "validation, by size, 0-6 mm: Dice of all that is marked in a case 0.7",
            "validation, by size, more: Dice of all that is marked in a case 0.9",
        ]
        self.assertEqual(measured_lines(metrics), expected)


class CommandTest(StoreTestCase):
    def run_command(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "NLSTSegLib", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    def test_models_lists_the_whole_ones_and_says_what_is_wrong_with_the_broken(self):
        for name in ("broken", "whole"):
            add_model(self.bundle(name))
        (self.store / "broken" / CARD_FILE).write_text("{}")
        done = self.run_command("models")
        self.assertIn("whole 1 (installed, 0.0 MB)", done.stdout)
        self.assertIn("broken (installed) cannot be used: ", done.stderr)
        self.assertIn(str(self.store / "broken" / CARD_FILE), done.stderr)

    @unittest.skipIf(sys.platform == "win32", "such names are refused there")
    def test_names_with_escape_sequences_are_shown_without(self):
        self.bundle("whole")
        broken = self.store / "\x1b[31mred\x07"
        broken.mkdir(parents=True)
        (broken / CARD_FILE).write_text("{}")
        odd = self.store / "odd"
        odd.mkdir()
        (odd / "\x1b[2J.pth").touch()
        done = CliRunner().invoke(app, ["models"])
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertIn(" [2J published (installed", done.stdout)
        self.assertIn(" [31mred  (installed) cannot be used: ", done.stderr)
        self.assertNotIn("\x1b", done.output)

    @unittest.skipIf(sys.platform == "win32", "Windows tells a home otherwise")
    def test_without_a_home_the_bundled_models_are_there_and_none_can_be_added(self):
        with (
            mock.patch.dict(os.environ),
            mock.patch("pwd.getpwuid", side_effect=KeyError("uid not found")),
        ):
            del os.environ[MODELS_VARIABLE]
            os.environ.pop("HOME", None)
            self.assertEqual(find_model().card.name, DEFAULT_MODEL)
            self.refused(lambda: add_model(self.bundle("plain")), "no home folder", MODELS_VARIABLE)

    @unittest.skipUnless(sys.platform != "win32" and os.geteuid() != 0, "root may read everything")
    def test_a_folder_that_cannot_be_read_is_a_broken_model(self):
        closed = self.store / "closed"
        closed.mkdir(parents=True)
        closed.chmod(0)
        self.addCleanup(closed.chmod, 0o700)
        self.assertEqual([broken.name for broken in broken_models()], ["closed"])
        self.assertEqual(find_model().card.name, DEFAULT_MODEL)

    def test_devices_are_those_of_this_computer(self):
        from NLSTSegLib.inference.devices import device_notes

        lines = self.run_command("devices").stdout.splitlines()
        self.assertEqual([line.partition(":")[0] for line in lines], list(device_notes()))
        self.assertRegex(lines[1], "^cpu: CPU, [0-9]+ threads, ")
