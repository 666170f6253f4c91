"""Models from elsewhere: nothing in them runs, nothing is written, no memory is taken by what they promise."""

import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import unittest
import zipfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from helpers.limited_process import can_limit_memory, run_limited
from helpers.placed_chest import chest_ct
from helpers.threshold_model import CARD, threshold_network, write_threshold_bundle
from helpers.whole_command import WholeCommandTest
from NLSTSegLib.errors import ModelError
from NLSTSegLib.models.bundle import CARD_FILE, WEIGHTS_FILE, ModelFiles, find_model, load_model


class UntrustedTest(WholeCommandTest):
    def setUp(self):
        super().setUp()
        self.ct = self.folder / "ct.nrrd"
        sitk.WriteImage(chest_ct(np.eye(3)).to_image(), str(self.ct))

    def assert_model_refused(self, model: Path, *words: object) -> str:
        self.bundle = model
        return self.assert_refused(self.ct, *words, code=3)

    def change_card(self, **changes):
        card = json.loads((self.bundle / CARD_FILE).read_text("utf-8"))
        (self.bundle / CARD_FILE).write_text(json.dumps({**card, **changes}), "utf-8")

    def change_weights(self, data: bytes):
        (self.bundle / WEIGHTS_FILE).write_bytes(data)
        self.change_card(weights_sha256=hashlib.sha256(data).hexdigest())


class ArchiveTest(UntrustedTest):
    def test_packed_bundles_are_refused_with_what_to_do_and_never_unpacked(self):
        with zipfile.ZipFile(self.folder / "model.zip", "w") as packed:
            for name in (CARD_FILE, WEIGHTS_FILE):
                # As a hostile archive has them.
                for place in ("", "../", "../../escaped/", "/"):
                    packed.writestr(f"{place}{name}", (self.bundle / name).read_bytes())
        with tarfile.open(self.folder / "model.tar.gz", "w:gz") as packed:
            for name in (CARD_FILE, WEIGHTS_FILE):
                packed.add(self.bundle / name, f"../../escaped/{name}")
        shutil.copy(self.folder / "model.zip", self.folder / "model.bundle")
        for name in ("model.zip", "model.tar.gz", "model.bundle"):
            with self.subTest(name):
                self.assert_model_refused(self.folder / name, self.folder / name, "archive", "unpack it", CARD_FILE)

    def test_checkpoint_whose_members_would_escape(self):
        stream = io.BytesIO()
        torch.save(threshold_network().state_dict(), stream)
        path = self.folder / "model.pth"
        with zipfile.ZipFile(stream) as whole, zipfile.ZipFile(path, "w") as spoiled:
            for member in whole.infolist():
                spoiled.writestr(f"../../{member.filename}", whole.read(member))
        self.assert_model_refused(path, path)

    def test_names_that_lead_elsewhere_find_nothing(self):
        for name in ("../../../etc/passwd", "/etc/passwd", "..", "lidc-25d/../../lidc-25d", "https://example.org/model.json"):
            with self.subTest(name):
                self.assert_model_refused(Path(name) if "://" not in name else name)


class CodeTest(UntrustedTest):
    def test_pickles_that_would_run_code(self):
        trace = self.folder / "was-run"

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(trace),)

        for new_format in (True, False):
            path = self.folder / "model.pth"
            content = {"model_state_dict": threshold_network().state_dict(), "epoch": Trap()}
            torch.save(content, path, _use_new_zipfile_serialization=new_format)
            self.assert_model_refused(path, path, "nothing in it was run")
            torch.load(path, weights_only=False)
            self.assertTrue(trace.exists(), "the file is no trap")
            trace.rmdir()
        # The same in the place of the weights of a bundle.
        self.bundle = self.folder / "bundle"
        write_threshold_bundle(self.bundle)
        self.change_weights(path.read_bytes())
        self.assert_model_refused(self.bundle, WEIGHTS_FILE, "safetensors")


class CardTest(UntrustedTest):
    def test_other_versions_and_control_characters(self):
        for changes, words in (
            ({"format": 2}, "format"),
            ({"format": 0}, "format"),
            ({"format": None}, "format"),
            ({"name": "\x1b]0;owned\x07"}, "name must be one line"),
            ({"version": "1\nspace: left-posterior-superior"}, "version must be one line"),
            ({"licence": "free\r"}, "licence must be one line"),
            ({"x\x1b[31m\n": 1}, "x [31m"),
        ):
            with self.subTest(changes=changes):
                write_threshold_bundle(self.bundle)
                self.change_card(**changes)
                message = self.assert_model_refused(self.bundle, self.bundle / CARD_FILE, words)
                self.assertTrue(message.isprintable())

    def test_windows_and_steps_that_would_overflow(self):
        for changes in (
            {"window_hu": [-1e308, 1e308]},
            {"window_hu": [0.0, 1e30]},
            {"slice_step_mm": 1e300},
            {"margin_px": 10**9},
            {"margin_px": 10**30},
        ):
            with self.subTest(changes=changes):
                write_threshold_bundle(self.bundle)
                self.change_card(input={"window_hu": [-1000.0, 400.0], **changes})
                self.assert_model_refused(self.bundle, self.bundle / CARD_FILE, "input")

    def test_files_that_never_end(self):
        os.mkfifo(self.folder / "pipe")
        for name in (CARD_FILE, WEIGHTS_FILE):
            for target in ("/dev/zero", self.folder / "pipe"):
                with self.subTest(name=name, target=str(target)):
                    write_threshold_bundle(self.bundle)
                    (self.bundle / name).unlink()
                    (self.bundle / name).symlink_to(target)
                    self.assert_model_refused(self.bundle, self.bundle / name, "not a file")
                    (self.bundle / name).unlink()


class WeightsTest(UntrustedTest):
    def test_truncated_weights_other_shapes_and_another_hash(self):
        data = (self.bundle / WEIGHTS_FILE).read_bytes()
        (self.bundle / WEIGHTS_FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        self.assert_model_refused(self.bundle, self.bundle / WEIGHTS_FILE, "hash")
        for length in (0, 7, 8, 100, len(data) - 1):
            with self.subTest(length=length):
                self.change_weights(data[:length])
                self.assert_model_refused(self.bundle, self.bundle / WEIGHTS_FILE, "not a whole safetensors file")
        self.change_weights(data)
        self.change_card(architecture={"kind": "unet", "channels": [2], "normalization": "none", "residual": False})
        self.assert_model_refused(self.bundle, self.bundle / WEIGHTS_FILE, "has shape (1, 1, 3, 3) instead of (2, 1, 3, 3)")


class SizeTest(UntrustedTest):
    def test_safetensors_whose_header_lies(self):
        data = (self.bundle / WEIGHTS_FILE).read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        name = "head.weight"

        def changed(**changes) -> bytes:
            text = json.dumps({**header, name: {**header[name], **changes}}).encode()
            return struct.pack("<Q", len(text)) + text + data[8 + length :]

        for what, spoiled in (
            ("header of 2**63 bytes", struct.pack("<Q", 2**63) + data[8:]),
            ("header of 100 GB", struct.pack("<Q", 10**11) + data[8:]),
            ("header of 200 MB", struct.pack("<Q", 200_000_000) + b"{" + b" " * 1000),
            ("shape", changed(shape=[2, 1, 1, 1])),
            ("shape that overflows", changed(shape=[2**32, 2**32])),
            ("negative shape", changed(shape=[-1, -1])),
            ("empty shape", changed(shape=[])),
            ("offsets past the end", changed(data_offsets=[0, 10**12])),
            ("offsets that overlap", changed(data_offsets=[0, 4])),
            ("another type", changed(dtype="I64")),
            ("a type that is none", changed(dtype="F31")),
            ("twice", struct.pack("<Q", length) + data[8:] + data[8:]),
        ):
            with self.subTest(what):
                self.change_weights(spoiled)
                self.assert_model_refused(self.bundle, self.bundle / WEIGHTS_FILE)

    @unittest.skipUnless(can_limit_memory(), "the memory of a process is not known here")
    def test_what_a_model_promises_takes_no_memory(self):
        models = {}
        for name, channels in (("wide", [4096] * 8), ("large", [2048, 2048, 2048]), ("deep", [1] * 10_000)):
            self.bundle = self.folder / name
            write_threshold_bundle(self.bundle)
            self.change_card(architecture={"kind": "unet", "channels": channels})
            models[name] = self.bundle
        self.bundle = models["sparse"] = self.folder / "sparse"
        write_threshold_bundle(self.bundle)
        os.truncate(self.bundle / WEIGHTS_FILE, 10**12)
        os.truncate(self.bundle / CARD_FILE, 10**12)
        models["bomb"] = self.folder / "bomb.pth"
        models["bomb"].write_bytes(zip_bomb())
        commands = [["segment", str(self.ct), "-o", str(self.out), "--model", str(path)] for path in models.values()]
        for name, (code, text, taken_mb) in zip(models, run_limited(commands, 1 << 30), strict=True):
            with self.subTest(name):
                self.assertEqual(code, 3, text)
                self.assertRegex(text, r"^nlstseg: error: [^\n]*\n$")
                self.assertLess(taken_mb, 60)

    def test_weights_larger_than_any_model_are_not_read(self):
        os.truncate(self.bundle / WEIGHTS_FILE, 10**13)
        with self.assertRaisesRegex(ModelError, "larger than 2000 MB"):
            load_model(find_model(str(self.bundle)))

    def test_good_weights_of_a_larger_type_are_still_loaded(self):
        path = self.folder / "model.pth"
        torch.save({name: tensor.double() for name, tensor in threshold_network().state_dict().items()}, path)
        model = load_model(ModelFiles(CARD, path, "file"))
        for name, tensor in threshold_network().state_dict().items():
            torch.testing.assert_close(model.network.state_dict()[name], tensor)


def zip_bomb() -> bytes:
    """A checkpoint that says of a tensor that it would unpack to 3 GB."""
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, stream)
    content = bytearray(stream.getvalue())
    # Its entry in the list at the end of a zip file; 24 bytes on is the unpacked size.
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    struct.pack_into("<I", content, entry + 24, 3_000_000_000)
    return bytes(content)
