"""The command line as a user or a hosting program runs it: real processes, their files, messages and exit codes."""

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
from typer.testing import CliRunner

from helpers.child_processes import WAIT_S
from helpers.dicom_files import write_series
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.cli.app import app
from NLSTSegLib.cli.inputs import find_cases
from NLSTSegLib.errors import InputError
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.volume.ct import CtVolume

ROOT = Path(__file__).resolve().parents[3]

FILES = {"segmentation.seg.nrrd", "labels.nrrd", "lesions.csv", "preview.png", "report.json"}

BODY_HU, LESION_HU = -360, 40
"""The threshold model takes what is above -300 HU for lesion, and what is below -400 HU inside the body is lung."""


def small_chest() -> CtVolume:
    """A body of 336 x 336 x 120 mm with two lungs and, in them, two lesions of different size; axes to the right and front."""
    k, j, i = np.ogrid[:40, :112, :112]
    mm = {"s": 3.0 * (k - 19.5), "p": 3.0 * (55.5 - j), "l": 3.0 * (55.5 - i)}

    def inside(centre, half):
        return sum(((mm[a] - c) / h) ** 2 for a, c, h in zip("lps", centre, half, strict=True)) < 1

    hu = np.full((40, 112, 112), -1000, np.int16)
    hu[np.broadcast_to((mm["l"] / 155) ** 2 + (mm["p"] / 110) ** 2 < 1, hu.shape)] = BODY_HU
    for side in (-1, 1):
        hu[inside((side * 75, 0, 0), (50, 75, 50))] = -850
    hu[inside((-75, 10, 5), (12, 12, 12))] = LESION_HU
    hu[inside((80, -20, -10), (8, 8, 8))] = LESION_HU
    return CtVolume(hu, (3.0, 3.0, 3.0), (166.5, 166.5, -58.5), (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))


def setUpModule() -> None:
    """The chest as a file and a model of the user's own, for all tests."""
    global DATA
    holder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(holder.cleanup)
    DATA = Path(holder.name)
    sitk.WriteImage(small_chest().to_image(), str(DATA / "chest.nrrd"))
    write_threshold_bundle(DATA / "models" / "dense", name="dense")
    (DATA / "text.nii.gz").write_text("this is no image")
    (DATA / "notes.docx").write_text("nor is this")


def environment() -> dict[str, str]:
    """Without the models of whoever runs the tests, and wide enough that no table is cut."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NLSTSEG_MODELS": str(DATA / "models"), "COLUMNS": "120"}


def nlstseg(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "NLSTSegLib", *map(str, arguments)]
    return subprocess.run(command, cwd=DATA, env=environment(), capture_output=True, text=True, encoding="utf-8")


def segment(*arguments: object) -> subprocess.CompletedProcess:
    return nlstseg("segment", *arguments, "--model", "dense", "--threads", 1)


def processor_seconds(pid: int) -> float:
    """What a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class CommandTestCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.out = self.folder / "out"

    def assert_done(self, done: subprocess.CompletedProcess):
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def assert_refused(self, done: subprocess.CompletedProcess, code: int, pattern: str):
        """One line on stderr that fits, nothing on stdout."""
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertEqual(done.stdout, "")

    def progress_of(self, text: str) -> list[dict]:
        """The JSON lines on stdout, checked: fractions never fall."""
        lines = [json.loads(line) for line in text.splitlines()]
        for line in lines:
            extra = {"cases"} if line["stage"] == "end" else set()
            self.assertEqual(set(line), {"stage", "fraction", "message"} | extra)
            self.assertIsInstance(line["stage"], str)
            self.assertIsInstance(line["message"], str)
        fractions = [line["fraction"] for line in lines]
        self.assertEqual(fractions, sorted(fractions))
        self.assertTrue(fractions[0] >= 0 and fractions[-1] <= 1)
        return lines


class TestSegment(CommandTestCase):
    def test_a_chest_becomes_lesions_in_files(self):
        done = segment(DATA / "chest.nrrd", "--output", self.out, "--save-probability")
        self.assert_done(done)
        self.assertEqual(set(os.listdir(self.out)), FILES | {"probability.nrrd"})
        self.assertEqual(os.listdir(self.folder), ["out"])

        ct = small_chest()
        labels = sitk.ReadImage(str(self.out / "labels.nrrd"))
        array = sitk.GetArrayFromImage(labels)
        np.testing.assert_array_equal(array > 0, ct.hu == LESION_HU)
        self.assertEqual(array.max(), 2)
        self.assertEqual(labels.GetSpacing(), ct.spacing_ijk_mm)
        self.assertEqual(labels.GetOrigin(), ct.origin_lps_mm)
        self.assertEqual(labels.GetDirection(), ct.direction_lps)

        rows = (self.out / "lesions.csv").read_text().splitlines()[1:]
        self.assertEqual([row.split(",")[0] for row in rows], ["Lesion 01", "Lesion 02"])
        left, posterior, superior = (float(value) for value in rows[0].split(",")[9:12])
        np.testing.assert_allclose((left, posterior, superior), (-75, 10, 5), atol=1.5)
        # The table on the screen has the same numbers.
        for row in rows:
            values = row.split(",")
            for value in (values[0], values[1], values[2], f"{values[4]} x {values[5]}", values[7], values[12]):
                self.assertIn(value, done.stdout)
        self.assertIn(str(self.out), done.stdout)

        report = json.loads((self.out / "report.json").read_text(encoding="utf-8"))
        weights = (DATA / "models" / "dense" / "weights.safetensors").read_bytes()
        self.assertEqual(report["model"]["weights_sha256"], hashlib.sha256(weights).hexdigest())
        self.assertEqual(report["geometry"]["orientation"], "RAS")
        self.assertEqual(report["options"]["lung_field"], "auto")
        stages = {"read", "check", "lung field", "network", "lesions", "measurements", "write", "total"}
        self.assertEqual(set(report["seconds"]), stages)
        self.assertEqual(len(report["lesions"]), 2)

        before = {path.name: path.read_bytes() for path in self.out.iterdir()}
        self.assert_refused(segment(DATA / "chest.nrrd", "--output", self.out), 2, "--force")
        self.assertEqual({path.name: path.read_bytes() for path in self.out.iterdir()}, before)

    def test_two_slices_without_lung_field_are_segmented_with_a_warning(self):
        chest = small_chest()
        ct = dataclasses.replace(chest, hu=chest.hu[20:22])
        sitk.WriteImage(ct.to_image(), str(self.folder / "two.mha"))
        self.out.mkdir()
        done = segment(self.folder / "two.mha", "-o", self.out, "--lung-field", "none", "--json-progress")
        self.assert_done(done)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(self.out / "labels.nrrd")))
        np.testing.assert_array_equal(labels > 0, ct.hu == LESION_HU)

        # A hosting program reads stdout; the warning is for people, and in the report.
        lines = self.progress_of(done.stdout)
        self.assertEqual(lines[-1]["fraction"], 1.0)
        stages = list(dict.fromkeys(line["stage"] for line in lines))
        self.assertEqual(stages, ["read", "check", "lung field", "network", "lesions", "write", "done", "end"])
        (case,) = lines[-1]["cases"]
        self.assertEqual((case["count"], case["error"]), (len((self.out / "lesions.csv").read_text().splitlines()) - 1, ""))
        self.assertEqual({Path(path).name for path in case["paths"]}, FILES)
        self.assertIn("few_slices", [finding["code"] for finding in case["findings"]])
        self.assertEqual([line["stage"] for line in lines].count("done"), 1)
        self.assertRegex(done.stderr, "warning.*few_slices.*2 slices")
        report = json.loads((self.out / "report.json").read_text(encoding="utf-8"))
        self.assertIn(("warning", "few_slices"), [(f["severity"], f["code"]) for f in report["findings"]])
        self.assertEqual(report["options"]["lung_field"], "none")

    def test_several_inputs_give_one_folder_each_and_a_broken_one_does_not_stop_the_rest(self):
        (self.folder / "a").mkdir()
        (self.folder / "b").mkdir()
        chest = small_chest()
        only_large = chest.hu.copy()
        only_large[chest.hu == LESION_HU] = -850
        sitk.WriteImage(chest.to_image(), str(self.folder / "a" / "ct.nrrd"))
        sitk.WriteImage(dataclasses.replace(chest, hu=only_large).to_image(), str(self.folder / "b" / "ct.nii.gz"))
        # As a zip from Windows leaves it, where names are in UTF-8.
        odd = self.folder / os.fsdecode(b"M\xfcller.nrrd")
        odd.write_bytes((self.folder / "a" / "ct.nrrd").read_bytes())
        inputs = (self.folder / "a" / "ct.nrrd", DATA / "text.nii.gz", odd, self.folder / "b" / "ct.nii.gz")
        done = segment(*inputs, "--output", self.out, "--json-progress")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(sorted(os.listdir(self.out)), ["a_ct", "b_ct", "lesions.csv"])
        # Every table says of which CT it is, and one holds all.
        own = (self.out / "a_ct" / "lesions.csv").read_text().splitlines()
        self.assertEqual([row.split(",")[0] for row in own], ["case", "a_ct", "a_ct"])
        self.assertEqual((self.out / "lesions.csv").read_text().splitlines(), own)
        self.assertEqual(len((self.out / "a_ct" / "lesions.csv").read_text().splitlines()), 3)
        # No lesion at all is a result like any other.
        self.assertEqual(len((self.out / "b_ct" / "lesions.csv").read_text().splitlines()), 1)
        errors = [line for line in done.stderr.splitlines() if line.startswith("nlstseg:")]
        self.assertEqual(len(errors), 3)
        self.assertIn("text.nii.gz", errors[0])
        self.assertIn("not in UTF-8", errors[1])
        self.assertIn("2 of 4", errors[2])
        lines = self.progress_of(done.stdout)
        self.assertEqual(lines[-1]["fraction"], 1.0)
        # By number: the names of files may be those of patients, and these lines go into logs.
        for name, start in (("1 of 4 ", 0.0), ("4 of 4 ", 3 / 4)):
            own = [line["fraction"] for line in lines if line["message"].startswith(name)]
            self.assertTrue(start - 1e-3 <= own[0] and own[-1] <= start + 1 / 4 + 1e-3, name)

    def test_lung_field_file_says_where_to_look(self):
        ct = small_chest()
        mask = np.zeros(ct.hu.shape, np.uint8)
        mask[:, :, :56] = 1  # axis i runs to the right: the left half
        sitk.WriteImage(ct.image_like(mask), str(self.folder / "left.nrrd"))
        short = ct.image_like(mask)[:, :, 1:]
        short.SetOrigin(ct.origin_lps_mm)  # not the part of the CT that it looks like: its place is lost
        sitk.WriteImage(short, str(self.folder / "short.nrrd"))
        done = segment(DATA / "chest.nrrd", "-o", self.out, "--lung-field", self.folder / "left.nrrd")
        self.assert_done(done)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(self.out / "labels.nrrd")))
        np.testing.assert_array_equal(labels > 0, (ct.hu == LESION_HU) & (mask > 0))
        report = json.loads((self.out / "report.json").read_text(encoding="utf-8"))
        self.assertEqual(report["options"]["lung_field"], "given")

        done = segment(DATA / "chest.nrrd", "-o", self.folder / "no", "--lung-field", self.folder / "short.nrrd")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr.splitlines()[-1], "^nlstseg: error: .*short.nrrd.*voxels")
        self.assertFalse((self.folder / "no").exists())

    def test_dicom_folder_lists_its_series_and_keeps_the_patient_out_of_the_result(self):
        identity = {
            "PatientName": "Musterfrau^Erika",
            "PatientID": "ID-4711-0815",
            "PatientBirthDate": "19640812",
            "InstitutionName": "Klinik am See",
        }
        dicom = self.folder / "Musterfrau_Erika"
        ct = small_chest()
        shared = {"orientation": (-1, 0, 0, 0, -1, 0), "origin_lps_mm": ct.origin_lps_mm, "spacing_ijk_mm": (3, 3, 3), **identity}
        write_series(dicom / "1", ct.hu[10:20], SeriesNumber=1, SeriesDescription="Lung base", **shared)
        write_series(dicom / "2", ct.hu, SeriesNumber=2, SeriesDescription="Chest thin", SeriesInstanceUID="1.2.826.77", **shared)
        listed = nlstseg("check", dicom)
        self.assert_done(listed)
        done = segment(dicom, "--output", self.out)
        self.assert_done(done)
        for stderr in (listed.stderr, done.stderr):
            self.assertRegex(stderr, r"there: CT 'Lung base' \(10 slices")
            self.assertRegex(stderr, r"taken: CT 'Chest thin' \(40 slices")
        labels = sitk.ReadImage(str(self.out / "labels.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(labels) > 0, ct.hu == LESION_HU)
        np.testing.assert_allclose(labels.GetDirection(), ct.direction_lps, atol=1e-9)
        for path in self.out.iterdir():
            content = path.read_bytes()
            for word in ("Musterfrau", "Erika", "ID-4711", "19640812", "Klinik", "1.2.826.77", str(self.folder)):
                self.assertNotIn(word.encode(), content, path.name)

        chosen = nlstseg("check", dicom, "--series", "1.2.826.77")
        self.assert_done(chosen)
        self.assertIn("112 x 112 x 40 voxels of 3 x 3 x 3 mm, orientation RAS", chosen.stdout)
        done = nlstseg("check", dicom, "--series", "1.2.3.4")
        self.assert_refused(done, 2, "1.2.3.4.*Lung base.*Chest thin")

    @unittest.skipUnless(Path("/proc/self/stat").exists(), "the processor time of another process is not known here")
    def test_ctrl_c_stops_inside_a_slice_and_leaves_nothing(self):
        import resource

        import torch

        from NLSTSegLib.networks.published import PublishedUNet

        torch.save(PublishedUNet().state_dict(), self.folder / "slow.pth")
        hu = np.full((16, 512, 512), -800, np.int16)
        hu[:, 200:300, 200:300] = 40
        sitk.WriteImage(CtVolume(hu, (0.7, 0.7, 1.0)).to_image(), str(self.folder / "large.nrrd"))
        before = sorted(os.listdir(self.folder))
        seconds_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        arguments = (
            "large.nrrd",
            "-o",
            "out",
            "--model",
            "slow.pth",
            "--lung-field",
            "none",
            "--threads",
            "1",
            "--json-progress",
        )
        with subprocess.Popen(
            [sys.executable, "-m", "NLSTSegLib", "segment", *arguments],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has it ignored.
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        ) as process:
            self.addCleanup(process.kill)
            for line in process.stdout:
                if json.loads(line)["stage"] == "network":
                    break
            start = processor_seconds(process.pid)
            while (at_signal := processor_seconds(process.pid)) < start + 0.5:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=WAIT_S)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(stderr.splitlines()[-1], "nlstseg: stopped; nothing half written was left")
        self.assertNotIn("Traceback", stderr)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        # Not by the clock, which a busy machine would spoil: a slice alone takes several seconds.
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = usage.ru_utime + usage.ru_stime - seconds_before.ru_utime - seconds_before.ru_stime
        self.assertLess(total - at_signal, 1.0)


class TestRefusals(CommandTestCase):
    """Exit codes and messages; all but the damaged weights are found before the network's library is loaded."""

    def test_missing_input(self):
        self.assert_refused(
            segment(DATA / "not_there.nrrd", "-o", self.out), 2, "error: there is no file or folder .*not_there.nrrd; name"
        )

    def test_missing_input_among_others_stops_before_the_work(self):
        done = segment(DATA / "chest.nrrd", DATA / "not_there.nrrd", "-o", self.out)
        self.assert_refused(done, 2, "not_there.nrrd")
        self.assertFalse(self.out.exists())

    def test_files_that_are_no_ct(self):
        for name, pattern in (("notes.docx", "notes.docx.*neither DICOM nor"), ("text.nii.gz", "text.nii.gz.*damaged or not")):
            self.assert_refused(nlstseg("check", DATA / name), 2, pattern)

    def test_debug_adds_the_traceback(self):
        done = nlstseg("check", DATA / "text.nii.gz", "--debug")
        self.assertEqual(done.returncode, 2)
        self.assertIn("Traceback (most recent call last)", done.stderr)
        self.assertRegex(done.stderr.splitlines()[-1], "^nlstseg: error: .*text.nii.gz")

    def test_options_out_of_range(self):
        for option, value, pattern in (
            ("--threshold", "1.5", "threshold.*1.5"),
            ("--threshold", "nan", "threshold.*nan"),
            ("--min-volume", "-1", "minimum volume.*-1"),
        ):
            self.assert_refused(segment(DATA / "chest.nrrd", "-o", self.out, option, value), 2, pattern)
        for option, value, pattern in (
            ("--device", "abacus", "device must be one of auto, cpu, gpu.*abacus"),
            ("--threshold", "high", "--threshold: it must be a number; see 'nlstseg segment --help'"),
            ("--format", "tiff", "--format: 'tiff' is none of 'nrrd', 'nifti'"),
            ("--treshold", "0.5", "no option --treshold; did you mean --threshold"),
        ):
            self.assert_refused(segment(DATA / "chest.nrrd", "-o", self.out, option, value), 2, pattern)
        threads = nlstseg("segment", DATA / "chest.nrrd", "-o", self.out, "--threads", "1.5")
        self.assert_refused(threads, 2, "--threads: it must be a whole number; see")
        self.assert_refused(nlstseg("segment"), 2, "INPUTS is missing")
        self.assert_refused(nlstseg("segmnt"), 2, "no command 'segmnt'")

    def test_outputs_that_are_meant_for_a_file_are_refused_with_a_hint(self):
        for arguments, pattern in (
            (("-o", self.folder / "x.nii.gz"), "names a folder.*--labels-only '.*x.nii.gz'"),
            (("-o", self.folder / "x.csv"), "names a folder.*x.csv"),
            (("-o", "-"), "stdout"),
            ((), "--output, or one file with --labels-only"),
            (("-o", self.out, "--labels-only", self.folder / "x.nrrd"), "either"),
            (("--labels-only", self.folder / "x.png"), ".nrrd or .nii.gz"),
        ):
            self.assert_refused(segment(DATA / "chest.nrrd", *arguments), 2, pattern)
        self.assertEqual(os.listdir(self.folder), [])

    def test_unknown_model(self):
        done = nlstseg("segment", DATA / "chest.nrrd", "-o", self.out, "--model", "nonesuch")
        self.assert_refused(done, 3, "no model 'nonesuch'.*lidc-25d.*dense")

    def test_damaged_weights(self):
        bundle = self.folder / "bundle"
        write_threshold_bundle(bundle)
        weights = bytearray((bundle / "weights.safetensors").read_bytes())
        weights[-1] ^= 1
        (bundle / "weights.safetensors").write_bytes(weights)
        done = nlstseg("segment", DATA / "chest.nrrd", "-o", self.out, "--model", bundle)
        self.assert_refused(done, 3, "weights.safetensors.*hash")
        self.assertFalse(self.out.exists())

    def test_output_that_cannot_be_made(self):
        shutil.copy(DATA / "text.nii.gz", self.folder / "text")
        for output, pattern in ((self.folder / "text", "not a folder"), (self.folder / "text" / "below", "not a folder")):
            self.assert_refused(segment(DATA / "chest.nrrd", "-o", output), 2, pattern)
            self.assert_refused(nlstseg("phantom", output), 2, pattern)
            self.assert_refused(nlstseg("demo", "-o", output), 2, pattern)

    def test_folder_with_other_files_is_not_touched(self):
        (self.folder / "thesis.txt").write_text("years of work")
        for arguments in (("segment", DATA / "chest.nrrd", "--force"), ("demo",)):
            self.assert_refused(nlstseg(*arguments, "-o", self.folder), 2, "holds other files")
        self.assert_refused(nlstseg("phantom", self.folder), 2, "not empty")
        self.assertEqual(os.listdir(self.folder), ["thesis.txt"])

    def test_missing_package_is_named_with_its_extra(self):
        for package, pattern in (
            ("lightning", r"pip install 'nlstseg\[train\]'"),
            ("nonesuch", "install the program's requirements"),
        ):
            lines = ("from NLSTSegLib.cli.run import exit_on_errors", "with exit_on_errors(False):")
            code = "\n".join((*lines, f"    raise ModuleNotFoundError(name='{package}.x')"))
            done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
            self.assertRegex(done.stderr, f"nlstseg: error: .*'{package}'.*{pattern}")
            self.assertNotIn("unexpected", done.stderr)

    def test_errors_of_the_program_are_one_line_too(self):
        code = "from NLSTSegLib.cli.run import exit_on_errors\nwith exit_on_errors({}):\n    raise TypeError('a\\nbug')"
        for debug in (False, True):
            done = subprocess.run([sys.executable, "-c", code.format(debug)], env=environment(), capture_output=True, text=True)
            self.assertIn("nlstseg: unexpected TypeError: a bug; ", done.stderr)

    def test_inputs_of_the_same_name_are_told_apart_or_refused(self):
        for name in ("x/a/ct.nrrd", "x/b/ct.nii.gz", "x/a/ct.mha", "x/b/CT", "y/a/ct.nrrd"):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        (self.folder / "x" / "c.nrrd").mkdir()

        def names(*inputs: str) -> list[str]:
            return [case.name for case in find_cases([self.folder / i for i in inputs])[0]]

        self.assertFalse(find_cases([self.folder / "x/a/ct.nrrd"])[1])
        # The ending of a folder belongs to its name.
        self.assertEqual(names("x/a/ct.nrrd", "x/b/ct.nii.gz", "x/c.nrrd"), ["a_ct", "b_ct", "c.nrrd"])
        # Some file systems take upper and lower case for the same.
        self.assertEqual(names("x/a/ct.nrrd", "x/b/CT"), ["a_ct", "b_CT"])
        for pair in (("x/a/ct.nrrd", "x/a/ct.nrrd"), ("x/a/ct.nrrd", "x/a/ct.mha"), ("x/a/ct.nrrd", "y/a/ct.nrrd")):
            with self.assertRaisesRegex(InputError, "one by one"):
                names(*pair)


class TestOtherCommands(CommandTestCase):
    def test_help_is_there_without_loading_what_the_work_needs(self):
        code = (
            "import sys\n"
            "from NLSTSegLib.cli.app import main\n"
            "sys.argv = ['nlstseg', *sys.argv[1:]]\n"
            "try: main()\n"
            "except SystemExit as end: print(end.code, *sorted(sys.modules), sep='\\n')"
        )
        options = "output labels-only model threshold min-volume lung-field series all-series device threads save-probability"
        options += " format skip-existing json-progress keep-identity force quiet verbose debug"
        for arguments, words in (
            (["--help"], ["segment", "check", "models", "phantom", "demo", "--version", "--install-completion"]),
            (["-h"], ["Measure how long a run takes here: prints seconds to start, and per", "slice of 512 x 512, as JSON."]),
            (["segment", "--help"], [f"--{option}" for option in options.split()]),
        ):
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments], env=environment(), capture_output=True, text=True, check=True
            )
            text, _, rest = done.stdout.rpartition("\n0\n")
            for word in words:
                self.assertIn(" ".join(word.split()), " ".join(text.split()))
            loaded = set(rest.splitlines())
            self.assertEqual(loaded & {"torch", "SimpleITK", "numpy", "pydicom", "PIL"}, set())

    def test_check_tells_what_it_found(self):
        done = nlstseg("check", DATA / "chest.nrrd")
        self.assert_done(done)
        self.assertIn("112 x 112 x 40 voxels of 3 x 3 x 3 mm, orientation RAS", done.stdout)
        self.assertNotIn("error", done.stderr)

        ct = small_chest()
        grey = dataclasses.replace(ct, hu=((ct.hu + 1000) // 8).astype(np.int16))
        sitk.WriteImage(grey.to_image(), str(self.folder / "grey.nrrd"))
        done = nlstseg("check", self.folder / "grey.nrrd")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, "error not_hu: ")
        self.assertRegex(done.stderr.splitlines()[-1], "^nlstseg: error: .*not HU")

    def test_models_lists_the_bundled_and_the_installed(self):
        done = nlstseg("models")
        self.assert_done(done)
        weights = ROOT / "Resources" / "Models" / "lidc-25d" / "weights.safetensors"
        size_mb = weights.stat().st_size / 1e6
        bundled, installed = re.split(r"\n(?=dense )", done.stdout)
        self.assertRegex(bundled, rf"^lidc-25d \S+ \(bundled, {size_mb:.1f} MB\)")
        for heading in ("what", "trained on", "spacing", "use", "licence", "attribution"):
            self.assertRegex(bundled, rf"\n  {heading}: \S")
        self.assertRegex(bundled, r"\n  measured: validation: Dice per lesion.* \(95 %\s+interval 0\.\d+ to 0\.\d+\)")
        for word in ("{", "commit", "made_with", "sha256"):
            self.assertNotIn(word, bundled)
        told = json.loads(nlstseg("models", "--json").stdout)
        self.assertEqual([model["card"]["name"] for model in told["models"]], ["lidc-25d", "dense"])
        self.assertEqual((told["models"][0]["bytes"], told["broken"]), (weights.stat().st_size, []))
        self.assertIn("LIDC-IDRI", bundled)
        self.assertIn("not for clinical use", bundled)
        self.assertRegex(installed, r"^dense 1 \(installed, 0.0 MB\)")
        self.assertIn("licence: Apache-2.0", installed)

    def test_phantom_of_a_seed_is_always_the_same(self):
        hashes = []
        coarse = functools.partial(make_phantom, spacing_ijk_mm=(2.0, 2.0, 3.0))
        for name in ("one", "two"):
            with mock.patch("NLSTSegLib.phantom.make.make_phantom", coarse):
                done = CliRunner().invoke(app, ["phantom", str(self.folder / name), "--seed", "3"])
            self.assertEqual(done.exit_code, 0, done.stderr)
            self.assertIn("seed 3", done.stdout)
            files = sorted((self.folder / name).iterdir())
            self.assertEqual([path.name for path in files], ["ct.nrrd", "lesions.csv", "truth.nrrd"])
            hashes.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
        self.assertEqual(*hashes)
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(self.folder / "one" / "truth.nrrd")))
        self.assertEqual(set(np.unique(truth)), set(range(7)))
        self.assertEqual(len((self.folder / "one" / "lesions.csv").read_text().splitlines()), 7)

    @unittest.skipIf(os.name == "nt", "there is no such signal")
    def test_request_to_end_stops_the_phantom_and_leaves_nothing(self):
        code = (
            "import os, signal\n"
            "from NLSTSegLib.phantom import make as phantom\n"
            "from NLSTSegLib.cli.app import main\n"
            "make = phantom.make_phantom\n"
            "phantom.make_phantom = lambda seed: (os.kill(os.getpid(), signal.SIGTERM), make(seed))[1]\n"
            "main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "phantom", str(self.out)], env=environment(), capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertEqual(done.stderr.splitlines(), ["nlstseg: stopped; nothing half written was left"])
        self.assertEqual(os.listdir(self.folder), [])
