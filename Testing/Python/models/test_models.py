"""Models are found, checked and loaded; whatever is wrong with one is said in a sentence and nothing in it runs."""

import copy
import dataclasses
import hashlib
import io
import json
import os
import pickle
import tempfile
import unittest
import warnings
from pathlib import Path

import numpy as np
import torch

from helpers.threshold_model import CARD, threshold_network, write_threshold_bundle
from NLSTSegLib.errors import ModelError
from NLSTSegLib.models.bundle import (
    CARD_FILE,
    DEFAULT_MODEL,
    WEIGHTS_FILE,
    Architecture,
    Model,
    ModelFiles,
    broken_models,
    find_model,
    list_models,
    load_model,
    published_card,
    read_card,
)
from NLSTSegLib.models.card import MAXIMUM_CARD_BYTES
from NLSTSegLib.networks.published import PublishedUNet
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.resources import MODELS_VARIABLE

PUBLISHED_FILE_BYTES = 14_400_000


class ModelTest(unittest.TestCase):
    """A folder of its own, and no models of the user's."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.addCleanup(os.environ.update, {k: v for k, v in os.environ.items() if k == MODELS_VARIABLE})
        self.addCleanup(os.environ.pop, MODELS_VARIABLE, None)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        os.environ[MODELS_VARIABLE] = str(self.folder / "installed")

    def refused(self, work, *words):
        with self.assertRaises(ModelError) as raised:
            work()
        text = str(raised.exception)
        self.assertNotIn("\n", text)
        self.assertLess(len(text), 700)
        for word in words:
            self.assertIn(str(word), text)
        self.assertEqual(raised.exception.exit_code, 3)


class CheckpointTest(ModelTest):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.network = PublishedUNet()
        cls.state = cls.network.state_dict()

    def save(self, content, name="checkpoint.pth", **options) -> Path:
        torch.save(content, self.folder / name, **options)
        return self.folder / name

    def load(self, path) -> Model:
        return load_model(find_model(str(path)))

    def prefixed(self, names=None):
        return {("module." if names is None or n in names else "") + n: t for n, t in self.state.items()}

    def assert_loaded(self, path):
        model = self.load(path)
        self.assertFalse(model.network.training)
        loaded = model.network.state_dict()
        self.assertEqual(set(loaded), set(self.state))
        self.assertTrue(all(torch.equal(loaded[name], self.state[name]) for name in loaded))
        return model

    def test_bare_state_dict(self):
        path = self.save(self.state)
        model = self.assert_loaded(path)
        self.assertEqual(model.card.architecture.kind, "published")
        self.assertEqual(model.card.weights_sha256, hashlib.sha256(path.read_bytes()).hexdigest())

    def test_wrapped_with_epoch_and_optimizer(self):
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-4)
        optimizer.zero_grad()
        self.network.last_layer[1].bias.grad = torch.ones(1)
        optimizer.step()
        wrapped = {"epoch": 200, "model_state_dict": self.state, "optimizer_state_dict": optimizer.state_dict(), "loss": 0.25}
        self.assert_loaded(self.save({**wrapped, "model_state_dict": self.prefixed()}, "200.pth"))

    def test_saved_through_data_parallel(self):
        self.assert_loaded(self.save(torch.nn.DataParallel(self.network).state_dict()))

    def test_prefix_on_some_names(self):
        self.assert_loaded(self.save(self.prefixed(list(self.state)[::3])))

    def test_format_of_older_torch(self):
        self.assert_loaded(self.save(self.prefixed(), _use_new_zipfile_serialization=False))

    def test_half_precision_is_widened(self):
        model = self.load(self.save({name: tensor.half() for name, tensor in self.state.items()}))
        self.assertEqual({tensor.dtype for tensor in model.network.state_dict().values()}, {torch.float32})

    def test_the_same_name_with_and_without_prefix(self):
        state = {**self.state, "module.init_conv.bias": torch.zeros(64)}
        self.refused(lambda: self.load(self.save(state)), "checkpoint.pth", "module.")

    def test_tensors_that_do_not_fit_are_named(self):
        # A small network, for speed; the checks are the same.
        whole = threshold_network().state_dict()
        name, weight = "encoder.0.conv2.weight", whole["encoder.0.conv2.weight"]
        for tensor, words in (
            (None, "is missing"),
            (torch.zeros(64, 3, 3, 3), "has shape (64, 3, 3, 3) instead of (1, 1, 3, 3)"),
            (torch.zeros(9), "has shape (9,) instead of (1, 1, 3, 3)"),
            (torch.full_like(weight, float("nan")), "holds values that are not finite"),
            (torch.where(weight > 0, float("-inf"), weight), "holds values that are not finite"),
            (torch.full_like(weight, 1e300, dtype=torch.float64), "holds values that are not finite"),
            (weight.to(torch.int64), "is no plain tensor of torch.float32"),
            (weight.to(torch.complex64), "is no plain tensor of torch.float32"),
            (weight.to(torch.float8_e4m3fn), "is no plain tensor of torch.float32"),
            (weight.to_sparse(), "is no plain tensor of torch.float32"),
        ):
            for wrap in (lambda state: state, lambda state: {"epoch": 1, "model_state_dict": state}):
                with self.subTest(words=words):
                    state = {"module." + n: t for n, t in whole.items() if n != name}
                    path = self.save(wrap(state | ({} if tensor is None else {"module." + name: tensor})))
                    self.refused(lambda path=path: load_model(ModelFiles(CARD, path, "file")), path, f"{name} {words}")
        path = self.save({**whole, "mid.0.bias": weight})
        self.refused(lambda: load_model(ModelFiles(CARD, path, "file")), path, "mid.0.bias is not part of the network")

    def test_tensors_that_do_not_fit_the_published_network_are_named(self):
        state = {**self.prefixed(), "module.mid.2.layer1.1.bias": torch.zeros(3), "module.init_conv.bias": torch.zeros(3)}
        del state["module.upblocks.3.upsample.1.weight"]
        self.refused(
            lambda: self.load(self.save({"model_state_dict": state})),
            "checkpoint.pth",
            "upblocks.3.upsample.1.weight is missing",
            "mid.2.layer1.1.bias is not part of the network",
            "init_conv.bias has shape (3,) instead of (64,)",
        )

    def test_many_faults_are_shortened(self):
        self.refused(lambda: self.load(self.save({})), "downblocks.0.layer1.1.bias is missing", "and 93 more")

    def test_what_is_no_state_dict(self):
        for content in ([1, 2], "text", {"a": 1}, {"model_state_dict": [self.state]}, torch.zeros(3), None):
            with self.subTest(type(content).__name__):
                self.refused(lambda content=content: self.load(self.save(content)), "checkpoint.pth", "model_state_dict")

    def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(self):
        trace = self.folder / "was-run"
        for content in (Trap(trace), {"model_state_dict": threshold_network().state_dict(), "epoch": Trap(trace)}):
            for new_format in (True, False):
                path = self.save(content, _use_new_zipfile_serialization=new_format)
                self.refused(lambda path=path: self.load(path), "checkpoint.pth", "nothing in it was run")
                self.assertFalse(trace.exists())
                # The same file does run code where pickles are trusted.
                torch.load(path, weights_only=False)
                self.assertTrue(trace.exists())
                trace.rmdir()

    def test_a_plain_pickle_that_would_run_code(self):
        trace, path = self.folder / "was-run", self.folder / "checkpoint.pth"
        path.write_bytes(pickle.dumps(Trap(trace), protocol=2))
        self.refused(lambda: self.load(path), "checkpoint.pth")
        self.assertFalse(trace.exists())

    def test_a_whole_network_instead_of_its_state_is_refused(self):
        self.refused(lambda: self.load(self.save(threshold_network())), "checkpoint.pth")

    def test_damaged_files(self):
        # A small wrapped checkpoint, so that every part of the file is hit.
        network = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.ones(3)).sum().backward()
        optimizer.step()
        content = {"epoch": 3, "model_state_dict": network.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
        rng = np.random.default_rng(1)
        path = self.folder / "checkpoint.pth"
        for new_format in (True, False):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=new_format)
            whole = stream.getvalue()
            damaged = [whole[:n] for n in rng.integers(0, len(whole), 60)]
            for _ in range(60):
                spoiled = bytearray(whole)
                for at in rng.integers(0, min(len(whole), 1000), 8):
                    spoiled[at] = rng.integers(256)
                damaged.append(bytes(spoiled))
            for data in (b"", b"\0" * 100, b"not a checkpoint", *damaged):
                path.write_bytes(data)
                # What is left may be a state dict, but not that of the published network.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.refused(lambda: load_model(ModelFiles(SMALL_CARD, path, "file")), "checkpoint.pth")

    def test_truncated_checkpoint(self):
        path = self.save(self.state)
        self.assertGreater(path.stat().st_size, PUBLISHED_FILE_BYTES * 0.99)
        path.write_bytes(path.read_bytes()[:-1000])
        self.refused(lambda: self.load(path), "checkpoint.pth", "damaged")

    def test_file_that_vanished(self):
        path = self.folder / "gone.pth"
        self.refused(lambda: load_model(ModelFiles(published_card(path), path, "file")), "gone.pth", "No such file")


SMALL_CARD = dataclasses.replace(CARD, architecture=Architecture("unet", 2, (1,), "none", True))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class BundleTest(ModelTest):
    def setUp(self):
        super().setUp()
        self.bundle = self.folder / "bundle"
        self.card = write_threshold_bundle(self.bundle, metrics={"dice": 0.8, "bins": {"6-10 mm": [1, 2]}, "none": None})

    def load(self):
        return load_model(find_model(str(self.bundle)))

    def change(self, **changes):
        """Write the card anew; ``input__slices`` is a field of its input, ``None`` takes a field away."""
        content = json.loads((self.bundle / CARD_FILE).read_text("utf-8"))
        for name, value in changes.items():
            *path, key = name.split("__")
            place = content
            for step in path:
                place = place[step]
            if value is None:
                place.pop(key, None)
            else:
                place[key] = value
        (self.bundle / CARD_FILE).write_text(json.dumps(content), "utf-8")

    def replace_weights(self, data: bytes):
        """Other weights, with a card that states their hash."""
        (self.bundle / WEIGHTS_FILE).write_bytes(data)
        self.change(weights_sha256=hashlib.sha256(data).hexdigest())

    def test_round_trip(self):
        model = self.load()
        self.assertEqual(model.card, self.card)
        self.assertFalse(model.network.training)
        expected = threshold_network().state_dict()
        found = model.network.state_dict()
        self.assertEqual(list(found), list(expected))
        self.assertTrue(all(torch.equal(found[name], expected[name]) for name in found))

    def test_round_trip_of_every_architecture(self):
        from nlstseg_training.export.bundle import write_bundle

        for dimensions, normalization, residual, slices in (
            (2, "batch", True, 3),
            (2, "none", False, 1),
            (2, "batch", True, 1),
            (3, "batch", False, 1),
            (3, "none", True, 1),
        ):
            with self.subTest(dimensions=dimensions, normalization=normalization):
                card = dataclasses.replace(
                    CARD,
                    architecture=Architecture("unet", dimensions, (4, 6), normalization, residual),
                    input=dataclasses.replace(CARD.input, slices=slices, patch_kji=(8, 8, 8) if dimensions == 3 else None),
                )
                network = UNet(UNetConfig(dimensions, slices, (4, 6), normalization, residual))
                write_bundle(network, card, self.bundle)
                found = self.load().network.state_dict()
                self.assertTrue(all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items()))

    def test_published_network_as_bundle(self):
        from nlstseg_training.export.bundle import write_bundle

        write_bundle(PublishedUNet(), dataclasses.replace(CARD, architecture=Architecture("published")), self.bundle)
        self.assertIsInstance(self.load().network, PublishedUNet)

    def test_weights_of_another_hash(self):
        weights = self.bundle / WEIGHTS_FILE
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        self.refused(self.load, weights, "hash")

    def test_card_without_hash(self):
        for changes in ({"weights_sha256": None}, {"weights_sha256": ""}):
            self.change(**changes)
            self.refused(self.load, "weights_sha256")

    def test_truncated_weights(self):
        data = (self.bundle / WEIGHTS_FILE).read_bytes()
        for length in (0, 4, 8, 30, len(data) // 2, len(data) - 1):
            with self.subTest(length=length):
                self.replace_weights(data[:length])
                self.refused(self.load, WEIGHTS_FILE, "safetensors")

    def test_weights_that_are_something_else(self):
        self.replace_weights(pickle.dumps(Trap(self.folder / "was-run")))
        self.refused(self.load, WEIGHTS_FILE)
        self.assertFalse((self.folder / "was-run").exists())

    def test_weights_that_do_not_fit_the_card(self):
        from nlstseg_training.export.bundle import write_bundle

        self.change(architecture__channels=[2])
        self.refused(self.load, "encoder.0.conv1.weight has shape (1, 1, 3, 3) instead of (2, 1, 3, 3)")
        self.change(architecture__channels=[1], architecture__normalization="batch")
        self.refused(self.load, "encoder.0.norm1.weight is missing")
        write_bundle(UNet(UNetConfig(2, 1, (1,), "batch", False)), CARD, self.bundle)
        self.refused(self.load, "encoder.0.conv1.bias is missing", "encoder.0.norm1.bias is not part of the network")

    def test_missing_weights_and_weights_that_are_a_folder(self):
        (self.bundle / WEIGHTS_FILE).unlink()
        self.refused(self.load, WEIGHTS_FILE, "No such file")
        (self.bundle / WEIGHTS_FILE).mkdir()
        self.refused(self.load, WEIGHTS_FILE, "directory")

    def test_fields_that_are_wrong_are_named(self):
        for changes, *words in (
            ({"colour": "red"}, "colour"),
            ({"architecture__depth": 3}, "architecture.depth"),
            ({"input__zoom": 2}, "input.zoom"),
            ({"licence": None}, "licence"),
            ({"input__window_hu": None}, "input.window_hu"),
            ({"architecture__kind": None}, "architecture.kind"),
            ({"threshold": "high"}, "threshold"),
            ({"threshold": "0.5"}, "threshold"),
            ({"threshold": True}, "threshold"),
            ({"threshold": 1.0}, "threshold"),
            ({"threshold": -0.5}, "threshold"),
            ({"threshold": float("nan")}, "threshold"),
            ({"min_volume_mm3": -1.0}, "min_volume_mm3"),
            ({"min_volume_mm3": float("inf")}, "min_volume_mm3"),
            ({"name": 7}, "name"),
            ({"classes": "lesion"}, "classes"),
            ({"orientation": "RAS"}, "orientation"),
            ({"format": 2}, "format"),
            ({"format": "1"}, "format"),
            ({"metrics": [1]}, "metrics"),
            ({"architecture__kind": "vit"}, "architecture.kind"),
            ({"architecture__dimensions": 4}, "architecture.dimensions"),
            ({"architecture__channels": [1.5]}, "architecture.channels"),
            ({"architecture__normalization": "layer"}, "architecture.normalization"),
            ({"input__window_hu": [400.0, -1000.0]}, "input", "window_hu"),
            ({"input__window_hu": [0.0, 0.0]}, "input", "window_hu"),
            ({"input__window_hu": [0.0, 1.0, 2.0]}, "input.window_hu"),
            ({"input__slices": 2}, "input", "slices"),
            ({"input__slices": 0}, "input", "slices"),
            ({"input__slices": 10**9 + 1}, "input", "slices"),
            ({"input__margin_px": -1}, "input", "margin_px"),
            ({"input__slice_step_mm": -1.0}, "input", "slice_step_mm"),
            ({"architecture__kind": "published", "input__slices": 3}, "slice"),
        ):
            with self.subTest(**changes):
                before = (self.bundle / CARD_FILE).read_text("utf-8")
                self.change(**changes)
                self.refused(self.load, self.bundle / CARD_FILE, *words)
                (self.bundle / CARD_FILE).write_text(before, "utf-8")
        self.load()

    def test_networks_that_cannot_be_built(self):
        for changes, *words in (
            ({"architecture__channels": []}, "channels"),
            ({"architecture__channels": [0]}, "channels"),
            ({"architecture__channels": [-4, 8]}, "channels"),
            ({"architecture__channels": [10**12, 10**12]}, "channels"),
            ({"architecture__channels": [10**40]}, "channels"),
            ({"architecture__channels": [1] * 100_000}, "channels"),
            ({"architecture__channels": [4096] * 8}, "parameters"),
            ({"architecture__dimensions": 3, "input__patch_kji": [128] * 3, "input__slices": 5}, "3D"),
            ({"architecture__dimensions": 3}, "patch_kji"),
            ({"input__patch_kji": [128] * 3}, "patch_kji"),
            ({"architecture__dimensions": 3, "input__patch_kji": [128, 127, 128]}, "multiples"),
            ({"architecture__dimensions": 3, "input__patch_kji": [8, 8, 10**9]}, "patch_kji"),
        ):
            with self.subTest(words=words):
                self.change(**{"architecture__dimensions": 2, "input__slices": 1, "input__patch_kji": None, **changes})
                self.refused(self.load, *words)

    def test_cards_that_are_no_json(self):
        for content in (b"", b"null", b"[]", b'{"format": 1', b"\xff\xfe\x00", b'{"a":' * 5000, b'"text"'):
            with self.subTest(content[:10]):
                (self.bundle / CARD_FILE).write_bytes(content)
                self.refused(self.load, self.bundle / CARD_FILE)

    def test_card_that_is_too_large_is_not_read(self):
        (self.bundle / CARD_FILE).write_bytes(b" " * MAXIMUM_CARD_BYTES + b"x")
        self.refused(self.load, self.bundle / CARD_FILE, "larger")

    def test_card_that_is_a_folder(self):
        (self.bundle / CARD_FILE).unlink()
        (self.bundle / CARD_FILE).mkdir()
        self.refused(self.load, self.bundle, CARD_FILE)
        self.refused(lambda: read_card(self.bundle / CARD_FILE), "directory")


class FindModelTest(ModelTest):
    def test_by_folder_and_by_card(self):
        card = write_threshold_bundle(self.folder / "Lunge ü")
        for path in (self.folder / "Lunge ü", self.folder / "Lunge ü" / CARD_FILE):
            files = find_model(str(path))
            self.assertEqual((files.card, files.weights), (card, self.folder / "Lunge ü" / WEIGHTS_FILE))
            self.assertEqual(files.origin, "file")

    def test_by_checkpoint_which_need_not_be_read_yet(self):
        (self.folder / "epoch 12.pth").write_bytes(b"x")
        files = find_model(str(self.folder / "epoch 12.pth"))
        self.assertEqual((files.card.name, files.card.architecture.kind), ("epoch 12", "published"))
        # The published procedure: window centre -500, width 1400, 8-bit grey values, sigmoid above a half.
        self.assertEqual((files.card.input.window_hu, files.card.input.as_uint8), ((-1200.0, 200.0), True))
        self.assertEqual((files.card.input.slices, files.card.threshold), (1, 0.5))

    def test_by_name_in_the_user_s_folder(self):
        card = write_threshold_bundle(self.folder / "installed" / "any folder", name="mine")
        files = find_model("mine")
        self.assertEqual((files.card, files.origin), (card, "installed"))
        self.assertIsInstance(load_model(files).network, UNet)
        self.assertIn("mine", [model.card.name for model in list_models()])

    def test_user_s_folder_need_not_exist_and_is_asked_anew_each_time(self):
        self.assertNotIn("installed", [model.origin for model in list_models()])
        write_threshold_bundle(self.folder / "elsewhere" / "x", name="other")
        os.environ[MODELS_VARIABLE] = str(self.folder / "elsewhere")
        self.assertEqual([model.card.name for model in list_models() if model.origin == "installed"], ["other"])

    def test_unknown_name_lists_the_names(self):
        write_threshold_bundle(self.folder / "installed" / "a", name="mine")
        self.refused(lambda: find_model("yours"), "yours", "mine", *(model.card.name for model in list_models()))

    def test_what_is_no_model(self):
        (self.folder / "weights.bin").write_bytes(b"x")
        self.refused(lambda: find_model(str(self.folder / "weights.bin")), "weights.bin", CARD_FILE)
        self.refused(lambda: find_model(str(self.folder)), self.folder / CARD_FILE)
        self.refused(lambda: find_model(str(self.folder / "nowhere" / CARD_FILE)), "nowhere")
        for name in ("\0", "a\0b", str(self.folder / "gone.pth")):
            self.refused(lambda name=name: find_model(name), "there is no model")

    def test_a_name_longer_than_a_path_can_be(self):
        with self.assertRaises(ModelError):
            find_model("x" * 5000)

    def test_broken_card_in_the_user_s_folder_is_named_and_stops_no_other(self):
        for name in ("a", "broken", "z"):
            write_threshold_bundle(self.folder / "installed" / name, name=name)
        card = self.folder / "installed" / "broken" / CARD_FILE
        card.write_text("{}")
        self.assertEqual([model.card.name for model in list_models() if model.origin == "installed"], ["a", "z"])
        (broken,) = broken_models()
        self.assertEqual((broken.name, broken.folder, broken.origin), ("broken", card.parent, "installed"))
        self.assertIn(str(card), broken.reason)
        self.assertEqual(find_model("z").card.name, "z")
        self.refused(lambda: find_model("broken"), card, "format")

    def test_installed_model_never_takes_the_name_of_a_bundled_one_but_is_found_by_its_path(self):
        folder = self.folder / "installed" / "mine"
        write_threshold_bundle(folder, name=DEFAULT_MODEL)
        self.assertEqual(find_model(DEFAULT_MODEL).origin, "bundled")
        self.assertEqual(find_model(str(folder)).weights, folder / WEIGHTS_FILE)

    def test_checkpoints_in_the_user_s_folder_are_models(self):
        folder = self.folder / "installed" / "published"
        folder.mkdir(parents=True)
        (folder / "epoch 12.pth").write_bytes(b"x")
        (folder / "notes.txt").write_bytes(b"x")
        files = find_model("epoch 12")
        self.assertEqual((files.weights, files.origin), (folder / "epoch 12.pth", "installed"))

    def test_hidden_folders_such_as_those_of_an_unfinished_copy_are_no_models(self):
        write_threshold_bundle(self.folder / "installed" / ".half", name="half")
        self.assertNotIn("half", [model.card.name for model in list_models()])


class BundledModelTest(ModelTest):
    def test_every_bundled_model_loads_and_is_small(self):
        bundled = [files for files in list_models() if files.origin == "bundled"]
        self.assertEqual(bundled[0].card.name, DEFAULT_MODEL)
        for files in bundled:
            with self.subTest(files.card.name):
                self.assertEqual(files.weights.parent.name, files.card.name)
                self.assertLessEqual(files.weights.stat().st_size, 8_000_000)
                self.assertIn("not for clinical use", files.card.intended_use)
                model = load_model(files)
                self.assertEqual(model.card, files.card)
                self.assertFalse(model.network.training)

    def test_default_is_found_without_a_name(self):
        self.assertEqual(find_model().card.name, DEFAULT_MODEL)
        self.assertEqual(list_models()[0].card.name, DEFAULT_MODEL)

    def test_bundled_weights_that_were_changed_are_noticed(self):
        files = copy.copy(find_model())
        spoiled = self.folder / WEIGHTS_FILE
        data = bytearray(files.weights.read_bytes())
        data[len(data) // 2] ^= 1
        spoiled.write_bytes(data)
        self.refused(lambda: load_model(dataclasses.replace(files, weights=spoiled)), "hash")
