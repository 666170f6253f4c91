"""The cache is made again from where it stopped, in parallel, from the command line; and the scans in it are known again."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from typer.testing import CliRunner

from helpers.child_processes import WAIT_S, wait_until
from helpers.small_nlstseg import labelled_chest, write_case, write_nlstseg
from helpers.threshold_model import CARD
from helpers.training_data_case import DataTest, FallingSource
from nlstseg_training.cli import make_app
from nlstseg_training.data.cache import load_case, read_manifest, training_cases
from nlstseg_training.data.prepare import prepare
from nlstseg_training.data.readers.nlstseg import find_corrected, find_nlstseg
from nlstseg_training.data.readers.source import Found
from nlstseg_training.data.split import make_split
from NLSTSegLib.checks.training_overlap import check_trained_on
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.read import read_ct

ROOT = Path(__file__).resolve().parents[3]


def environment() -> dict[str, str]:
    """For a Python that imports the library and the training package from the source tree."""
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "training")))}


class ResumeTest(DataTest):
    def times(self) -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in self.cache.glob("*/ct.b2nd")}

    def test_what_is_done_is_not_done_again_but_what_changed_is(self):
        write_nlstseg(self.root, ["1", "2"])
        first = self.prepared()
        before = self.times()
        seen = []
        self.assertEqual(self.prepared(progress=lambda *n: seen.append(n)), first)
        self.assertEqual((self.times(), seen), (before, [(1, 2), (2, 2)]))
        ct, labels = labelled_chest(2)
        path = next(self.root.rglob("2_tumor.nii.gz"))
        sitk.WriteImage(ct.image_like(np.where(labels == 2, 0, labels).astype(np.uint8)), str(path))
        manifest = self.prepared()
        self.assertEqual(self.times()["1"], before["1"])
        self.assertEqual([len(entry.lesions) for entry in manifest.cases], [3, 2])
        self.assertEqual(set(np.unique(load_case(self.cache, "2").labels)), {0, 1, 2})

    def test_a_file_that_is_damaged_or_gone_is_made_again(self):
        write_nlstseg(self.root, ["1", "2", "3"])
        first = self.prepared()
        before = {path: path.read_bytes() for path in self.cache.rglob("*") if path.is_file() and path.suffix != ".json"}
        ct = self.cache / "1" / "ct.b2nd"
        content = bytearray(ct.read_bytes())
        content[len(content) // 2] ^= 1
        ct.write_bytes(content)
        (self.cache / "3" / "lung_places.npy").unlink()
        untouched = self.times()["2"]
        self.assertEqual(self.prepared(), first)
        self.assertEqual({path: path.read_bytes() for path in before}, before)
        self.assertEqual(self.times()["2"], untouched)

    def test_a_case_that_went_wrong_leaves_the_cache(self):
        write_nlstseg(self.root, ["1", "2"])
        self.prepared()
        next(self.root.rglob("2_tumor.nii.gz")).unlink()
        manifest = self.prepared()
        self.assertEqual(self.ids(manifest), ["1"])
        self.only_refusal(manifest, "2", "no mask")

    def test_cases_of_other_sources_stay(self):
        write_nlstseg(self.root / "a", ["1"])
        write_case(self.root / "a", "9", labelled_chest(9)[0], None)
        write_case(self.root / "b", "mine", *labelled_chest(5))
        write_case(self.root / "b", "1", *labelled_chest(6))
        self.prepared(find_nlstseg(self.root / "a"))
        manifest = self.prepared(find_corrected(self.root / "b"))
        self.assertEqual([(entry.id, entry.reader) for entry in manifest.cases], [("1", "nlstseg"), ("mine", "corrected")])
        self.assertEqual([(refusal.id, refusal.reader) for refusal in manifest.refused], [("1", "corrected"), ("9", "nlstseg")])

    def test_another_spacing_or_a_folder_of_something_else_is_refused(self):
        self.one()
        self.prepared()
        with self.assertRaisesRegex(InputError, "own spacing"):
            self.prepared(spacing_kji_mm=(2.0, 1.0, 1.0))
        with self.assertRaisesRegex(InputError, "no cache"):
            prepare(find_nlstseg(self.root), self.root)

    def test_an_interrupted_run_keeps_what_is_done(self):
        write_nlstseg(self.root, ["1", "2", "3"])

        def stop(done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.prepared(progress=stop)
        self.assertEqual(self.ids(read_manifest(self.cache)), ["1", "2"])
        before = self.times()
        self.assertEqual(self.ids(self.prepared()), ["1", "2", "3"])
        self.assertEqual({name: when for name, when in self.times().items() if name != "3"}, before)

    def test_several_processes_give_the_same_cache(self):
        write_nlstseg(self.root, ["1", "2", "3"])
        write_case(self.root, "4", labelled_chest(4)[0], None)
        done = []
        manifest = self.prepared(workers=2, progress=lambda *n: done.append(n))
        self.assertEqual(sorted(done), [(1, 3), (2, 3), (3, 3)])
        alone = prepare(find_nlstseg(self.root), self.cache.with_name("alone"))
        self.assertEqual(manifest, alone)
        self.assertFalse(list(self.cache.rglob(".*")), "something half written was left")

    def test_a_process_that_is_ended_from_outside_stops_the_run_with_a_sentence_and_keeps_what_is_done(self):
        write_nlstseg(self.root, ["1", "2"])
        self.prepared(Found(find_nlstseg(self.root).sources[:1]))
        dying = FallingSource(id="3", patient="3", reader="nlstseg", dies=True)
        with self.assertRaisesRegex(InputError, "ended from outside.*fewer workers"):
            self.prepared(Found((*find_nlstseg(self.root).sources, dying)), workers=2)
        self.assertIn("1", self.ids(read_manifest(self.cache)))
        self.assertEqual(self.ids(self.prepared()), ["1", "2"])

    @unittest.skipIf(sys.platform == "win32", "file sizes cannot be limited there")
    def test_a_full_disk_stops_the_run_and_is_no_fault_of_a_case(self):
        write_nlstseg(self.root / "extracted", ["1"])
        write_nlstseg(self.root / "zipped", ["2"], zipped=True)
        # What stops is the CT in the cache of the first, and the extracted CT of the second.
        code = (
            "import resource, sys\n"
            "from nlstseg_training.cli import main\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))\n"
            "main()"
        )
        for name, words in (("extracted", "could not be written"), ("zipped", "temporary files")):
            command = [sys.executable, "-c", code, "prepare", str(self.cache), "--nlstseg", str(self.root / name)]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(words, done.stderr.splitlines()[-1])
            manifest = read_manifest(self.cache)
            self.assertEqual((manifest.cases, manifest.refused), ((), ()))


class CommandTest(DataTest):
    def run_command(self, *arguments: object):
        return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])

    def test_prepare_and_split_end_to_end(self):
        write_nlstseg(self.root, [str(n) for n in range(1, 6)], zipped=True)
        write_case(self.root, "9", labelled_chest(9)[0], None)
        done = self.run_command("prepare", self.cache, "--nlstseg", self.root)
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertIn("refused 9: there is no mask", done.stdout)
        self.assertIn("5 cases of 5 patients with 15 lesions", done.stdout)
        out = self.cache.with_name("split.json")
        done = self.run_command("split", self.cache, "-o", out, "--seed", 3, "--validation", 0.2, "--test", 0.2)
        self.assertEqual(done.exit_code, 0, done.output)
        content = json.loads(out.read_text())
        self.assertEqual(
            {name: len(content[name]) for name in ("train", "validation", "test")}, dict(train=3, validation=1, test=1)
        )
        done = self.run_command("split", self.cache, "-o", out)
        self.assertEqual(done.exit_code, 2)
        self.assertIn("is there already", done.stderr)

    def test_a_broken_archive_is_an_error_when_the_others_are_done(self):
        write_nlstseg(self.root, ["1", "2"], zipped=True)
        archive = self.root / "3_LungTumor.zip"
        archive.write_bytes(archive.read_bytes()[:-50])
        done = self.run_command("prepare", self.cache, "--nlstseg", self.root)
        self.assertEqual(done.exit_code, 2, done.output)
        self.assertIn("1 cases of 1 patients", done.stdout)
        self.assertIn("1 archive(s) could not be opened: ", done.stderr.splitlines()[-1])
        self.assertIn("3_LungTumor.zip", done.stderr.splitlines()[-1])

    def test_a_missing_package_is_named_with_the_extra_that_brings_it(self):
        write_nlstseg(self.root, ["1"])
        for module, command in (
            ("blosc2", ("prepare", self.cache, "--nlstseg", self.root)),
            ("lightning", ("fit", "--cache", self.cache, "--split", self.root / "split.json", "--out", self.root / "out")),
        ):
            code = f"import sys; sys.modules[{module!r}] = None; from nlstseg_training.cli import main; main()"
            done = subprocess.run(
                [sys.executable, "-c", code, *map(str, command)], env=environment(), capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertRegex(done.stderr.splitlines()[-1], f"nlstseg-train: error: .*'{module}'")

    def test_errors_are_one_sentence(self):
        for arguments in (
            ("prepare", self.cache),
            ("prepare", self.cache, "--nlstseg", self.root / "none"),
            ("prepare", self.cache, "--pairs", self.root),
            ("split", self.cache, "-o", self.cache / "split.json"),
        ):
            done = self.run_command(*arguments)
            self.assertEqual(done.exit_code, 2, done.output)
            last = done.stderr.splitlines()[-1]
            self.assertTrue(last.startswith("nlstseg-train: error: "), done.stderr)
            self.assertNotIn("Traceback", done.output)
        self.assertFalse(self.cache.exists())

    @unittest.skipIf(sys.platform == "win32", "Windows has no such signal")
    def test_ctrl_c_with_several_processes_leaves_nothing_half_done(self):
        write_nlstseg(self.root, [str(n) for n in range(1, 60)])
        command = [sys.executable, "-m", "nlstseg_training", "prepare", str(self.cache), "--nlstseg", str(self.root)]
        child = subprocess.Popen(
            [*command, "--workers", "2"],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests run in the background of a shell, Ctrl-C is ignored, and children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_until(lambda: list(self.cache.glob("*/case.json")) or child.poll() is not None, "a case is done")
        # As a terminal does: to all of them.
        os.killpg(child.pid, signal.SIGINT)
        _, said = child.communicate(timeout=WAIT_S)
        self.assertEqual(child.returncode, 130, said)
        self.assertNotIn("Traceback", said)
        self.assertFalse([path for path in self.cache.parent.rglob(".*")], "something half written was left")
        manifest = read_manifest(self.cache)
        there = {path.parent.name for path in self.cache.glob("*/case.json")}
        self.assertLess(len(there), 59)
        self.assertLessEqual({entry.id for entry in manifest.cases}, there)
        for case_id in there:
            load_case(self.cache, case_id)


class TrainedOnTest(DataTest):
    def test_training_and_validation_scans_are_known_again_and_test_scans_are_not(self):
        write_nlstseg(self.root, [str(n) for n in range(1, 6)])
        manifest = self.prepared()
        split = make_split(manifest, validation=0.2, test=0.2)
        card = dataclasses.replace(CARD, training_cases=training_cases(manifest, split))
        for part in ("train", "validation", "test"):
            for case_id in getattr(split, part):
                ct = read_ct(next(self.root.rglob(f"{case_id}_CT.nii.gz")))
                self.assertEqual(bool(check_trained_on(ct, card)), part != "test", part)
        # Nothing in the card is the hash itself.
        self.assertFalse({entry.scan_sha256 for entry in manifest.cases} & set(card.training_cases.sha256))


if __name__ == "__main__":
    unittest.main()
