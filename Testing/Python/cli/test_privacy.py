"""Nothing leaves the computer, and no file or line says whose CT it was unless the user asks for it."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.dicom_files import change
from helpers.marked_files import DATES, MARK, UID_ROOT, marks_in, write_marked_image, write_marked_series
from helpers.no_network import has_kernel_guard, run_without_network
from helpers.placed_chest import chest_ct
from helpers.source_tree import LIBRARY, ROOT, imports, library_files, room_of, syntax_of
from helpers.threshold_model import write_threshold_bundle
from helpers.whole_command import WholeCommandTest

NETWORK = {
    *("asyncio", "ftplib", "http", "imaplib", "nntplib", "poplib", "smtplib", "socket", "socketserver", "ssl", "telnetlib"),
    *("urllib", "webbrowser", "wsgiref", "xmlrpc", "requests", "pynetdicom", "dicomweb_client"),
}
"""Modules that open connections."""

FILES = {"segmentation.seg.nrrd", "labels.nrrd", "lesions.csv", "preview.png", "report.json", "probability.nrrd"}


class TestNoNetwork(unittest.TestCase):
    """Processes that are not allowed to open a socket do all that they do, and do not try."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def run_guarded(self, *arguments: object, **variables: str):
        guard = Path(tempfile.mkdtemp(dir=self.folder))
        done = run_without_network(guard, *arguments, NLSTSEG_MODELS=str(self.folder / "models"), **variables)
        self.assertEqual(done.tried, "")
        return done

    def test_the_module_takes_a_ct_from_apply_to_export(self):
        test = "module.test_module.JourneyTest.test_lesions_are_found_in_place_reviewed_and_exported"
        paths = [str(ROOT / "Testing" / "Python"), str(ROOT / "Testing")]
        code = f"import sys, unittest; sys.path[:0] = {paths!r}; unittest.main(module=None, argv=['', {test!r}])"
        done = self.run_guarded("-c", code)
        self.assertEqual(done.exit_code, 0, done.stderr)
        self.assertRegex(done.stderr, r"Ran 1 test.*\n\nOK\n")

    def test_the_guard_keeps_python_and_libraries_from_sockets_and_children_too(self):
        connect = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
        for code in (
            connect,
            "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
            f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {connect!r}]).returncode)",
        ):
            done = run_without_network(Path(tempfile.mkdtemp(dir=self.folder)), "-c", code)
            self.assertNotEqual(done.exit_code, 0)
            self.assertRegex(done.tried, r"^(socket|urllib)\.")
        if has_kernel_guard():
            for family in (2, 10, 16):
                code = f"import ctypes; ctypes.CDLL(None).socket({family}, 1, 0); print('open')"
                done = self.run_guarded("-c", code)
                self.assertEqual((done.exit_code, done.stdout), (-31, ""), "the kernel ends who makes a socket")

    def test_commands_open_no_socket(self):
        ct = chest_ct(np.eye(3))
        sitk.WriteImage(ct.to_image(), str(self.folder / "ct.nrrd"))
        write_threshold_bundle(self.folder / "models" / "threshold", min_volume_mm3=30.0)
        few = replace(ct, hu=ct.hu[12:32])
        write_marked_series(self.folder / "ct", few)
        write_marked_series(self.folder / "jpeg", few, encoding="JPEG")
        out = self.folder / "out"
        models, image, _, jpeg, _, version = self.run_commands(
            ("models",),
            ("check", self.folder / "ct.nrrd"),
            ("segment", self.folder / "ct", "-o", out, "--model", "threshold", "--threads", 1, "--dicom-seg"),
            ("check", self.folder / "jpeg"),
            ("phantom", self.folder / "phantom"),
            ("--version",),
        )
        self.assertIn("lidc-25d", models)
        self.assertIn("40", image)
        self.assertTrue((out / "measurements.sr.dcm").exists())
        self.assertIn("20", jpeg)
        self.assertTrue((self.folder / "phantom" / "ct.nrrd").exists())
        self.assertEqual(version.count("."), 2)

    def run_commands(self, *commands: tuple[object, ...]) -> list[str]:
        """What the commands say, run one after the other in one guarded process, on phantoms of few slices."""
        code = (
            "import dataclasses, json, sys\n"
            "from typer.testing import CliRunner\n"
            "from NLSTSegLib.cli import demo\n"
            "from NLSTSegLib.cli.app import app\n"
            "from NLSTSegLib.phantom import make\n"
            "def few_slices(seed):\n"
            "    whole = of_all(seed, spacing_ijk_mm=(1.5, 1.5, 4.0))\n"
            "    ct, labels = dataclasses.replace(whole.ct, hu=whole.ct.hu[38:46]), whole.labels[38:46]\n"
            "    return make.Phantom(ct, labels, tuple(lesion for lesion in whole.lesions if (labels == lesion.label).any()))\n"
            "of_all, make.make_phantom, demo.make_phantom = make.make_phantom, few_slices, few_slices\n"
            "for command in json.loads(sys.argv[1]):\n"
            "    done = CliRunner().invoke(app, command)\n"
            "    print(json.dumps([done.exit_code, done.stdout, done.stderr]))\n"
        )
        done = self.run_guarded("-c", code, json.dumps([[str(word) for word in command] for command in commands]))
        self.assertEqual(done.exit_code, 0, done.stderr)
        ends = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([(code, stderr) for code, _, stderr in ends if code], [])
        return [stdout for _, stdout, _ in ends]

    def test_demo_with_the_bundled_model_opens_no_socket(self):
        (said,) = self.run_commands(("demo", "-o", self.folder / "demo"))
        self.assertIn("4 of 4 phantom lesions found", said)

    def test_importing_the_whole_library_opens_no_socket(self):
        names = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in library_files()
            if path.name != "__main__.py" and room_of(path) != "widgets"  # these need Slicer's own Python
        ]
        heavy = ["SimpleITK", "pydicom", "torch", "PIL.Image", "rich.progress", "pydantic", "safetensors.torch"]
        code = f"import importlib\nfor name in {names + heavy!r}: importlib.import_module(name)\nprint('all')"
        done = self.run_guarded("-c", code)
        self.assertEqual(done.stdout, "all\n", done.stderr)

    def test_no_room_but_that_of_the_pacs_imports_what_opens_connections(self):
        faults = [
            f"{path.relative_to(LIBRARY)} imports {name}"
            for path in library_files()
            if room_of(path) != "pacs"
            for name, _ in imports(syntax_of(path))
            if name.split(".")[0] in NETWORK
        ]
        self.assertEqual(faults, [])


class TestIdentity(WholeCommandTest):
    """A CT in which everything that may say whose it is holds a mark: none comes through."""

    def setUp(self):
        super().setUp()
        whole = chest_ct(np.eye(3))
        self.ct = replace(whole, hu=whole.hu[12:32])  # with all lesions; marking a file takes long
        self.source = self.folder / f"{MARK}_Doe_John" / f"{MARK} study"

    def segment(self, *arguments: object):
        done = self.run_command("segment", *arguments, "--model", self.bundle, "--threads", 1)
        self.assertEqual(done.exit_code, 0, done.stderr)
        return done

    def segment_in_a_child(self, *arguments: object) -> subprocess.CompletedProcess:
        """What the decoders print themselves is seen too."""
        command = [sys.executable, "-m", "NLSTSegLib", "segment", *map(str, arguments), "--model", str(self.bundle)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, cwd=self.folder.parent, capture_output=True, encoding="utf-8")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def assert_no_marks(self, content: bytes | str, where: str):
        self.assertEqual(marks_in(content.encode() if isinstance(content, str) else content), [], where)

    def assert_result_without_marks(self, folder: Path, but: tuple[str, ...] = ()):
        """No mark in any file, packed or unpacked, but in the column of cases; in the report those in the values ``but``."""
        self.assertLessEqual({path.name for path in folder.iterdir()}, FILES)
        for path in folder.iterdir():
            content = path.read_bytes()
            if path.name == "report.json":
                for value in but:
                    # As JSON writes it.
                    shown = json.dumps(value, ensure_ascii=False).encode()
                    self.assertEqual(content.count(shown), 1, value)
                    content = content.replace(shown, b"")
            self.assert_no_marks(without_cases(content) if path.name == "lesions.csv" else content, path.name)
            if path.suffix == ".nrrd":
                self.assert_no_marks(gzip.decompress(content.partition(b"\n\n")[2]), path.name)
            if path.suffix == ".png":
                self.assertEqual(png_chunks(content), {b"IHDR", b"IDAT", b"IEND"})

    def test_a_marked_dicom_series_leaves_no_mark(self):
        files, marked = write_marked_series(self.source, self.ct)
        self.assertGreater(marked, 1500)
        # The marks are there, in the files and for who reads them.
        content = files[0].read_bytes()
        self.assertGreater(content.count(MARK.encode()), 1000)
        self.assertGreater(content.count(UID_ROOT.encode()), 80)
        self.assertGreater(sum(date.encode() in content for date in DATES), 20)
        for n, (segment, *options) in enumerate(
            (
                (self.segment,),
                (self.segment, "--json-progress", "--save-probability"),
                (self.segment_in_a_child, "--debug"),
            )
        ):
            out = self.out / str(n)
            done = segment(self.source, "-o", out, *options)
            self.assert_no_marks(done.stdout, "stdout")
            self.assert_no_marks(done.stderr, "stderr")
            self.assert_result_without_marks(out)
        self.assertGreater(len(json.loads((self.out / "0" / "report.json").read_text("utf-8"))["lesions"]), 0)
        done = self.run_command("check", self.source)
        self.assertEqual(done.exit_code, 0, done.stderr)
        self.assert_no_marks(done.stdout + done.stderr, "check")

    def test_values_that_break_the_standard_are_in_no_log_of_a_hosting_program(self):
        write_marked_series(self.source, self.ct, encoding="RLE")
        with self.assertLogs("pydicom"):
            for file in self.source.iterdir():
                change(file, PatientID=MARK * 20, StudyInstanceUID=f"{UID_ROOT}.007", SeriesDescription=MARK * 30)
        with self.assertNoLogs(level="DEBUG"):
            done = self.run_command("segment", self.source, "-o", self.out, "--model", self.bundle)
        self.assertEqual(done.exit_code, 0, done.stderr)
        self.assert_no_marks(done.stdout + done.stderr, "lines")
        self.assert_result_without_marks(self.out)

    def test_one_file_of_a_series_and_compressed_ones_leave_no_mark(self):
        for encoding in ("JPEG", "RLE", "deflated"):
            files, _ = write_marked_series(self.source / encoding, self.ct, encoding=encoding)
            out = self.out / encoding
            done = self.segment(files[3], "-o", out)
            self.assert_no_marks(done.stdout + done.stderr, encoding)
            self.assert_result_without_marks(out)

    def test_with_dicom_seg_the_two_dicom_files_alone_carry_identity(self):
        write_marked_series(self.source, self.ct)
        with self.assertNoLogs(level="DEBUG"):
            done = self.run_command(
                *("segment", self.source, "-o", self.out, "--model", self.bundle, "--threads", 1, "--dicom-seg")
            )
        self.assertEqual(done.exit_code, 0, done.stderr)
        self.assert_no_marks(done.stdout + done.stderr, "lines")
        self.assertIn("carry the patient's name", done.stderr)
        for name in ("lesions.seg.dcm", "measurements.sr.dcm"):
            self.assertIn(f"{MARK}^".encode(), (self.out / name).read_bytes())
            (self.out / name).unlink()
        self.assert_result_without_marks(self.out)

    def test_dicom_seg_of_a_file_that_is_not_dicom_is_refused_before_the_run(self):
        sitk.WriteImage(self.ct.to_image(), str(self.folder / "ct.nrrd"))
        done = self.run_command("segment", self.folder / "ct.nrrd", "-o", self.out, "--model", self.bundle, "--dicom-seg")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("is not DICOM", done.stderr)
        self.assertFalse(self.out.exists())

    def test_marked_single_files_leave_no_mark(self):
        self.source.mkdir(parents=True)
        for ending in (".nii.gz", ".nrrd", ".mha"):
            file = self.source / f"{MARK}{ending}"
            write_marked_image(file, self.ct)
            mask = self.source / f"mask {MARK}{ending}"
            sitk.WriteImage(self.ct.image_like(np.ones(self.ct.hu.shape, np.uint8)), str(mask))
            for n, options in enumerate(((), ("--lung-field", mask, "--json-progress"))):
                out = self.out / f"{ending[1:]} {n}"
                done = self.segment(file, "-o", out, *options)
                self.assert_no_marks(done.stdout + done.stderr, ending)
                self.assert_result_without_marks(out)

    def test_several_inputs_are_counted_in_the_progress_and_not_named(self):
        self.source.mkdir(parents=True)
        inputs = [self.source / f"{MARK}{n}.nrrd" for n in range(2)]
        for file in inputs:
            sitk.WriteImage(self.ct.to_image(), str(file))
        done = self.segment(*inputs, "-o", self.out, "--json-progress")
        *progress, closing = done.stdout.splitlines()
        self.assert_no_marks("".join(progress) + done.stderr, "progress")
        self.assertIn("2 of 2 network", "".join(progress))
        # Folders, and the column "case" of the tables, are named after the inputs, which is how the user finds them; so are the
        # paths in the line for the program that asked for it.
        told = json.loads(closing)
        for file, case in zip(inputs, told["cases"], strict=True):
            self.assertEqual(case.pop("case"), file.stem)
            self.assertEqual({Path(path).parent for path in case.pop("paths")}, {self.out / file.stem})
            self.assert_result_without_marks(self.out / file.stem)
        self.assert_no_marks(json.dumps(told), "closing line")
        self.assert_no_marks(without_cases((self.out / "lesions.csv").read_bytes()), "table of all")

    def test_of_several_series_the_choice_shows_description_and_series_uid_alone(self):
        shown = set()
        for n in (1, 2):
            folder = self.source / str(n)
            write_marked_series(folder, self.ct, SeriesInstanceUID=f"1.2.3.{n}11111")
            for file in folder.iterdir():
                change(file, SeriesDescription=f"Thorax {MARK}", SeriesNumber=n)
            shown |= {f"{UID_ROOT}.5.{n}11111", f"Thorax {MARK}"}
        done = self.segment(self.source, "-o", self.out)
        text = done.stderr
        for value in shown:
            self.assertIn(value, text)
            text = text.replace(value, "")
        self.assert_no_marks(text + done.stdout, "beside the choice")
        self.assert_result_without_marks(self.out)

    def test_refusals_say_nothing_of_the_patient(self):
        def broken(name: str, **attributes: object) -> Path:
            folder = self.folder / name
            few = replace(self.ct, hu=self.ct.hu[10:16])
            files, _ = write_marked_series(folder, few, name="{:04d}.dcm".format, SeriesInstanceUID="1.2.3.111111")
            for file in files if name.startswith("all") else files[3:4]:
                change(file, **attributes)
            return folder

        folders = (
            broken("all mr", Modality="MR"),
            broken("all inverted", PhotometricInterpretation="MONOCHROME1"),
            broken("all of unknown kind", PhotometricInterpretation=MARK),
            broken("all of another unit", RescaleType=f"HU of {MARK}"),
            broken("unit", RescaleType=MARK),
            broken("place", ImagePositionPatient=None),
            broken("rescale", RescaleSlope=None),
            broken("size", Rows=7),
            broken("doubled", ImagePositionPatient=["0", "0", "1e9"]),
        )
        cut = broken("cut") / "0004.dcm"
        cut.write_bytes(cut.read_bytes()[:-500])
        for folder in (*folders, cut.parent):
            for command in (("check", folder), ("segment", folder, "-o", self.out, "--model", self.bundle)):
                done = self.run_command(*command)
                self.assertEqual(done.exit_code, 2, f"{folder.name}: {done.stderr}")
                # Where no series is a CT, all are named like those to choose from.
                choice = f"'{MARK}0008103E' (6 slices, 20 mm, a kernel of another name, {UID_ROOT}.5.111111)"
                self.assertEqual(choice in done.stderr, folder.name == "all mr", done.stderr)
                self.assert_no_marks(done.stdout + done.stderr.replace(choice, ""), folder.name)
        self.assertFalse(self.out.exists())

    def test_keep_identity_writes_path_patient_id_and_uids_into_the_report_alone(self):
        files, _ = write_marked_series(self.source, self.ct)
        done = self.segment(self.source, "-o", self.out, "--keep-identity")
        self.assert_no_marks(done.stdout + done.stderr, "lines")
        report = json.loads((self.out / "report.json").read_text("utf-8"))
        self.assertEqual(set(report["identity"]), {"path", "patient_id", "study_uid", "series_uid"})
        self.assertEqual(report["identity"]["path"], str(self.source))
        self.assertEqual(report["identity"]["patient_id"], f"{MARK}00100020")
        self.assertEqual(report["identity"]["study_uid"], f"{UID_ROOT}.{0x0020000D}")
        self.assertRegex(report["identity"]["series_uid"], rf"^{UID_ROOT}\.5\.\d+$")
        self.assert_result_without_marks(self.out, tuple(report["identity"].values()))

        file = self.source / f"{MARK}.nrrd"
        write_marked_image(file, self.ct)
        out = self.out.with_name("single")
        done = self.run_command("segment", file, "-o", out, "--model", self.bundle, "--keep-identity")
        report = json.loads((out / "report.json").read_text("utf-8"))
        self.assertEqual(report["identity"], {"path": str(file), "patient_id": "", "study_uid": "", "series_uid": ""})
        self.assertNotIn("identity", json.loads(self.plain_report(files[0])))

    def plain_report(self, path: Path) -> str:
        out = self.out.with_name("plain")
        done = self.run_command("segment", path, "-o", out, "--model", self.bundle)
        self.assertEqual(done.exit_code, 0, done.stderr)
        return (out / "report.json").read_text("utf-8")


def without_cases(table: bytes) -> str:
    """``lesions.csv`` without its column ``case``."""
    rows = [{name: value for name, value in row.items() if name != "case"} for row in csv.DictReader(io.StringIO(table.decode()))]
    return json.dumps(rows)


def png_chunks(content: bytes) -> set[bytes]:
    """Kinds of chunks in a PNG file; every checksum is right."""
    kinds, at = set(), 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        kind_and_data = content[at + 4 : at + 8 + length]
        if zlib.crc32(kind_and_data) != int.from_bytes(content[at + 8 + length : at + 12 + length], "big"):
            raise AssertionError("a chunk is damaged")
        kinds.add(kind_and_data[:4])
        at += 12 + length
    return kinds
