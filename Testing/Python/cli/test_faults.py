"""Runs that are killed, stopped, starved or hindered: the earlier result stays whole, and the next run finds its place in order.

All of them are real processes of the command line, each in a folder of its own.
"""

import ast
import dataclasses
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from typer.testing import CliRunner

from helpers.child_processes import WAIT_S, can_be_without_rights, without_overriding_rights
from helpers.dicom_files import write_series
from helpers.file_hashes import hashes
from helpers.forked_command import ForkedCommand
from helpers.marks import slow
from helpers.placed_chest import chest_ct
from helpers.source_tree import LIBRARY, ROOT, library_files, syntax_of
from helpers.threshold_model import CARD, write_threshold_bundle
from nlstseg_training.export.bundle import write_bundle
from NLSTSegLib.cli.app import app
from NLSTSegLib.models.bundle import Architecture
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.phantom.make import make_phantom

STOPPED_LINE = "nlstseg: stopped; nothing half written was left"

SEED = 20
"""Of the moments at which runs are killed."""


def setUpModule() -> None:
    """A chest, a model for it, and an earlier result of the two."""
    global DATA
    if sys.platform == "win32":
        raise unittest.SkipTest("there are no such signals and limits on Windows")
    holder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(holder.cleanup)
    DATA = Path(holder.name)
    sitk.WriteImage(chest_ct(np.eye(3)).to_image(), str(DATA / "chest.nrrd"))
    write_threshold_bundle(DATA / "model", min_volume_mm3=30.0)
    for name, options in (("earlier", OLD), ("new", NEW)):
        done = CliRunner().invoke(app, [str(a) for a in arguments(DATA / name, *options)])
        if done.exit_code:
            raise AssertionError(done.stderr)


OLD, NEW = ("--min-volume", 30), ("--min-volume", 3000)
"""With the first the model finds three lesions, with the second one: a new result differs from the earlier one."""


def arguments(output: Path, *options: object) -> tuple[object, ...]:
    """A command line that segments the chest."""
    return ("segment", DATA / "chest.nrrd", "-o", output, "--model", DATA / "model", "--threads", 1, "--json-progress", *options)


Process = ForkedCommand | subprocess.Popen


def limit_file_bytes(most: int) -> None:
    """No file of this process may become larger: what a full disk does, to the byte."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


class FaultCase(unittest.TestCase):
    """``self.out`` is a result of earlier; ``self.folder``, around it, holds nothing else."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "outputs"
        self.folder.mkdir()
        self.out = self.folder / "result"
        shutil.copytree(DATA / "earlier", self.out)
        self.before = hashes(self.out)

    def start(self, *options: object, before: Callable[[], None] | None = None, **variables: str) -> ForkedCommand:
        """``nlstseg segment`` of the chest with other options than those of the earlier result."""
        return self.start_command(*arguments(self.out, *NEW, *options), before=before, **variables)

    def start_command(self, *command: object, before: Callable[[], None] | None = None, **variables: str) -> ForkedCommand:
        process = ForkedCommand([str(word) for word in command], DATA, {**os.environ, **variables}, before)
        self.addCleanup(end, process)
        return process

    def start_python(self, *words: object, **variables: str) -> subprocess.Popen:
        """Python itself, for what depends on how it starts."""
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=DATA,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.addCleanup(end, process)
        return process

    def start_program(self, *options: object, **variables: str) -> subprocess.Popen:
        """As :meth:`start`, by :meth:`start_python`."""
        return self.start_python("-m", "NLSTSegLib", *arguments(self.out, *NEW, *options), **variables)

    def read_to(self, process: Process, stage: str) -> None:
        """Read what ``process`` says of its progress until it is at ``stage``."""
        for line in process.stdout:
            if json.loads(line)["stage"] == stage:
                return
        self.fail(f"the run ended before '{stage}': {process.communicate()[1]}")

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def assert_earlier(self):
        """Alone, and as it was."""
        self.assertEqual(self.names(), ["result"])
        self.assertEqual(hashes(self.out), self.before)

    def assert_new(self):
        """Alone, and whole."""
        self.assertEqual(self.names(), ["result"])
        self.assert_is_new(self.out)

    def assert_is_new(self, folder: Path):
        json.loads((folder / "report.json").read_text("utf-8"))
        mine, expected = hashes(folder), hashes(DATA / "new")
        self.assertNotEqual(mine.pop("report.json"), expected.pop("report.json"))
        self.assertEqual(mine, expected)

    def assert_one_line(self, process: Process, code: int, pattern: str):
        """The exit code, and one sentence on stderr beside the findings about the chest."""
        _, stderr = process.communicate(timeout=WAIT_S)
        lines = [line for line in stderr.splitlines() if not line.startswith("warning ")]
        self.assertEqual(process.returncode, code, stderr)
        self.assertEqual(len(lines), 1, stderr)
        self.assertRegex(lines[0], pattern)

    def assert_next_run_works(self):
        """It is told of the earlier result, clears what is left over, and with ``--force`` makes the earlier one again."""
        done = CliRunner().invoke(app, [str(a) for a in arguments(self.out, *OLD)])
        self.assertEqual((done.exit_code, self.names()), (2, ["result"]), done.stderr)
        self.assertIn("earlier result", done.stderr)
        done = CliRunner().invoke(app, [str(a) for a in arguments(self.out, *OLD, "--force")])
        self.assertEqual((done.exit_code, self.names()), (0, ["result"]), done.stderr)
        again = hashes(self.out)
        self.assertEqual({**self.before, "report.json": ""}, {**again, "report.json": ""})
        self.before = again


def end(process: Process) -> None:
    process.kill()
    process.communicate()


class TestKilled(FaultCase):
    def assert_result_is_whole(self):
        """The earlier or the new one; between the two renames it is there under the other name."""
        folder = self.out if self.out.exists() else self.folder / ".result.replaced"
        if hashes(folder) != self.before:
            self.assert_is_new(folder)

    def kill_at_random(self, moments: int, command: tuple[object, ...], choose: random.Random) -> None:
        """Kill the command at so many moments, or find it done.

        A third of them are random by the clock, a third random among its lines of progress, a third among those of its writing.
        """
        with self.start_command(*command) as process:
            start = time.perf_counter()
            stages = [json.loads(line)["stage"] for line in process.stdout]
        seconds = time.perf_counter() - start
        self.assertEqual(process.returncode, 0)
        self.assert_next_run_works()
        for n in range(moments):
            with self.start_command(*command) as process:
                if n % 3 == 0:
                    time.sleep(choose.uniform(0, seconds))
                else:
                    first = 0 if n % 3 == 1 else stages.index("write")
                    for _ in range(choose.randrange(first, len(stages))):
                        process.stdout.readline()
                    time.sleep(choose.uniform(0, 0.05))
                process.kill()
            self.assertIn(process.returncode, (0, -signal.SIGKILL))
            self.assert_result_is_whole()
            self.assert_next_run_works()

    @slow
    def test_at_20_random_moments_the_result_is_whole_and_the_next_run_works(self):
        self.kill_at_random(20, arguments(self.out, *NEW, "--force"), random.Random(SEED))

    def test_with_the_bundled_model(self):
        ct = make_phantom(0, spacing_ijk_mm=(4, 4, 4)).ct
        sitk.WriteImage(dataclasses.replace(ct, hu=ct.hu[39:42]).to_image(), str(self.folder.parent / "phantom.nrrd"))
        command = ("segment", self.folder.parent / "phantom.nrrd", "-o", self.out, "--force", "--threads", 1, "--json-progress")
        for moment in ("network", "lesions", "write"):
            with self.start_command(*command) as process:
                self.read_to(process, moment)
                process.kill()
            self.assertEqual(hashes(self.out), self.before)
        self.assert_next_run_works()

    def test_frames_on_the_disk_go_with_the_next_run_but_not_those_of_a_living_one(self):
        write_series(self.folder.parent / "ct", chest_ct(np.eye(3)).hu, encoding="JPEG")
        temporary = self.folder.parent / "temporary"
        temporary.mkdir()
        command = ("check", self.folder.parent / "ct")
        process = self.start_command(*command, TMPDIR=str(temporary))
        while not list(temporary.glob("nlstseg-scratch-*/frame.dcm")):
            process.send_signal(signal.SIGCONT)
            self.assertIsNone(process.poll(), "it ended before it was seen at work")
            time.sleep(0.001)
            process.send_signal(signal.SIGSTOP)
        there = sorted(os.listdir(temporary))
        self.assertEqual(len(there), 2)
        other = self.start_command(*command, TMPDIR=str(temporary))
        self.assertEqual((other.communicate()[1].count("error"), other.returncode), (0, 0))
        self.assertEqual(sorted(os.listdir(temporary)), there)
        end(process)
        self.assertEqual(sorted(os.listdir(temporary)), there)
        for command in (("check", self.folder.parent / "ct"), arguments(self.folder.parent / "other")):
            process = self.start_command(*command, TMPDIR=str(temporary))
            process.communicate()
            self.assertEqual((process.returncode, os.listdir(temporary)), (0, []))
            (temporary / f"nlstseg-scratch-{'0' * 16}").mkdir()
            (temporary / f"nlstseg-scratch-{'0' * 16}.lock").touch()


class TestStopped(FaultCase):
    def test_a_request_to_end_leaves_the_earlier_result_alone_at_any_moment(self):
        choose = random.Random(SEED)
        with self.start("--force") as process:
            lines = len(process.stdout.readlines())
        self.assert_new()
        self.assert_next_run_works()
        for n in range(6):
            with self.start("--force") as process:
                for _ in range(1 + choose.randrange(lines - 1)):
                    process.stdout.readline()
                process.send_signal(signal.SIGTERM if n % 4 else signal.SIGINT)
                stderr = process.communicate(timeout=WAIT_S)[1]
            if process.returncode == 0:
                self.assert_new()
                self.assert_next_run_works()
                continue
            self.assertEqual(process.returncode, 130, stderr)
            self.assertEqual(stderr.splitlines()[-1], STOPPED_LINE)
            self.assertEqual(self.names(), ["result"])
            if hashes(self.out) != self.before:
                self.assert_new()
                self.assert_next_run_works()


class TestTwoRuns(FaultCase):
    def test_a_second_run_is_refused_and_harms_nothing_of_the_first(self):
        for stage in ("network", "write"):
            first = self.start("--force")
            self.read_to(first, stage)
            first.send_signal(signal.SIGSTOP)
            there = self.names()
            self.assertIn(".result.lock", there)
            self.assertEqual(any(".partial-" in name for name in there), stage == "write")
            self.assert_one_line(self.start("--force"), 2, "^nlstseg: error: another run is writing to '.*result'; wait")
            self.assertEqual(self.names(), there)
            self.assertEqual(hashes(self.out), self.before)
            first.send_signal(signal.SIGCONT)
            self.assertEqual(first.communicate(timeout=WAIT_S)[1].count("error"), 0)
            self.assertEqual(first.returncode, 0)
            self.assert_new()
            self.assert_next_run_works()

    def test_a_run_that_was_killed_keeps_nobody_out(self):
        first = self.start("--force")
        self.read_to(first, "write")
        first.send_signal(signal.SIGSTOP)
        end(first)
        self.assertEqual(len(self.names()), 3)
        second = self.start("--force")
        self.assertEqual(second.communicate(timeout=WAIT_S)[1].count("error"), 0)
        self.assert_new()

    def test_of_runs_started_at_once_one_succeeds(self):
        for n in range(3):
            shutil.rmtree(self.out)
            runs = [self.start() for _ in range(2 + n % 2)]
            ends = [run.communicate(timeout=WAIT_S)[1] for run in runs]
            codes = sorted(run.returncode for run in runs)
            self.assertEqual(codes, [0] + [2] * (len(runs) - 1), ends)
            for run, stderr in zip(runs, ends, strict=True):
                if run.returncode:
                    self.assertRegex(stderr, "another run is writing to|holds an earlier result; only --force")
            self.assert_new()

    def test_a_disk_without_locks_lets_one_run_in_and_names_the_file_to_remove(self):
        # The kernel answers as such a disk does.
        guard = self.folder.parent / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(NO_LOCKS)
        paths = os.pathsep.join((str(guard), str(ROOT)))
        first = self.start_program("--force", PYTHONPATH=paths)
        self.read_to(first, "network")
        first.send_signal(signal.SIGSTOP)
        second = self.start_program("--force", PYTHONPATH=paths)
        if second.wait() == 99:
            self.skipTest("this kernel takes no filter")
        self.assert_one_line(second, 2, r"^nlstseg: error: '.*\.result\.lock' is there, and its disk has no locks.*remove it")
        end(first)
        self.assertEqual(hashes(self.out), self.before)
        (self.folder / ".result.lock").unlink()
        third = self.start_program("--force", PYTHONPATH=paths)
        self.assertEqual(third.communicate()[1].count("error"), 0)
        self.assert_new()


NO_LOCKS = """
import ctypes, errno, platform, struct, sys
number = {"x86_64": 73, "aarch64": 32}.get(platform.machine())
steps = ((0x20, 0, 0, 0), (0x15, 0, 1, number or 0), (0x06, 0, 0, 0x00050000 | errno.ENOLCK), (0x06, 0, 0, 0x7FFF0000))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
call = getattr(ctypes.CDLL(None), "prctl", None)
if number is None or call is None:
    sys.exit(99)
call.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
if call(38, 1, 0, 0, 0) or call(22, 2, ctypes.addressof(program), 0, 0):
    sys.exit(99)
"""
"""A seccomp filter that lets flock fail with ENOLCK, set before any other Python runs."""


class TestDisk(FaultCase):
    def test_files_cut_short_leave_the_earlier_result(self):
        sizes = sorted(path.stat().st_size for path in (DATA / "new").iterdir())
        # The lowest stops the first file, the highest the end of the largest.
        for limit in (1, sizes[1] - 1, sizes[3], sizes[-1] - 1):
            process = self.start("--force", before=functools.partial(limit_file_bytes, limit))
            self.assert_one_line(process, 2, r"result' could not be written \(.+\), nothing was changed there; .*another place$")
            self.assert_earlier()
        self.assert_next_run_works()

    def test_a_disk_that_fills_up_leaves_the_earlier_result(self):
        disk = self.folder.parent / "disk"
        disk.mkdir()
        code = (
            "import json, os, shutil, subprocess, sys\n"
            f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
            "from typer.testing import CliRunner\n"
            "from helpers.file_hashes import Path, hashes\n"
            "from NLSTSegLib.cli.app import app\n"
            "disk, earlier, command = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4:]\n"
            "used = sum(-(-path.stat().st_size // 4096) * 4096 for path in earlier.iterdir())\n"
            "for room in map(int, sys.argv[3].split(',')):\n"
            "    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={used + room}', 'tmpfs', disk], check=True)\n"
            "    shutil.copytree(earlier, disk / 'result')\n"
            "    done = CliRunner().invoke(app, command)\n"
            "    print(json.dumps([done.exit_code, done.stderr, os.listdir(disk), hashes(disk / 'result')]))\n"
            "    subprocess.run(['umount', disk], check=True)\n"
        )
        try:
            subprocess.run(["unshare", "-rm", "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("this system lets nobody mount a disk of his own")
        rooms = (0, 12_000, 40_000, 1_000_000)
        command = map(str, arguments(disk / "result", *NEW, "--force"))
        done = subprocess.run(
            ["unshare", "-rm", sys.executable, "-c", code, disk, self.out, ",".join(map(str, rooms)), *command],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        *full, large = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(full), 3)
        for code, stderr, names, result in full:
            self.assertEqual((code, names, result), (2, ["result"], self.before), stderr)
            self.assertRegex(
                stderr.splitlines()[-1],
                r"could not be written \((No space left|perhaps the disk is full|only a part of a file).*; ",
            )
        self.assertEqual((large[0], large[2]), (0, ["result"]), large[1])
        self.assertEqual({**large[3], "report.json": ""}, {**hashes(DATA / "new"), "report.json": ""})

    def test_an_image_of_which_only_a_part_was_kept_is_noticed(self):
        # ITK says nothing of it, the NIfTI writer never and the NRRD writer not at the end of a file.
        code = (
            "import resource, sys\n"
            "from pathlib import Path\n"
            "import numpy as np, SimpleITK as sitk\n"
            "from NLSTSegLib.reading.write import write_image\n"
            "image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 200, (9, 30, 30)).astype(np.uint8))\n"
            "for name in ('labels.nrrd', 'labels.nii.gz', 'a.seg.nrrd'):\n"
            "    path = Path(sys.argv[1], name)\n"
            "    write_image(image, path)\n"
            "    size = path.stat().st_size\n"
            "    for limit in (size, size - 1, size - 9, size // 2, 100, 1):\n"
            "        path.unlink()\n"
            "        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
            "        try: write_image(image, path); print(limit == size)\n"
            "        except (OSError, RuntimeError): print(limit < size)\n"
            "        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code, self.folder], env=environment, capture_output=True, text=True)
        self.assertEqual(done.stdout.splitlines(), ["True"] * 18, done.stderr)

    def test_a_full_disk_for_temporary_files_is_named(self):
        write_series(self.folder.parent / "ct", chest_ct(np.eye(3)).hu[:3], encoding="JPEG")
        limited = functools.partial(limit_file_bytes, 1000)
        process = self.start_command("check", self.folder.parent / "ct", before=limited)
        self.assert_one_line(process, 2, r"dcm cannot be read \(File too large\); make room on the disk for temporary files")

    @unittest.skipUnless(can_be_without_rights(), "root may write everywhere")
    def test_a_folder_without_the_right_to_write_is_refused_before_the_work(self):
        for folder, pattern in ((self.out, "is there and read-only"), (self.folder, "no right to write to '.*outputs'")):
            folder.chmod(0o555)
            self.addCleanup(folder.chmod, 0o755)
            for command in (arguments(self.out, "--force"), ("phantom", self.out), ("demo", "-o", self.out)):
                process = self.start_command(*command, before=without_overriding_rights)
                self.assert_one_line(process, 2, pattern)
            folder.chmod(0o755)
            self.assert_earlier()

    @unittest.skipUnless(can_be_without_rights(), "root may write everywhere")
    def test_a_folder_that_becomes_read_only_during_the_run(self):
        process = self.start("--force", before=without_overriding_rights)
        self.read_to(process, "network")
        self.folder.chmod(0o555)
        self.addCleanup(self.folder.chmod, 0o755)
        self.assert_one_line(process, 2, "no right to write to '.*outputs'; choose another place")
        self.folder.chmod(0o755)
        self.assertEqual(hashes(self.out), self.before)
        self.assert_next_run_works()

    def test_a_result_removed_during_the_run_is_made_anew(self):
        for gone in (self.out, self.folder):
            process = self.start("--force")
            self.read_to(process, "network")
            shutil.rmtree(gone)
            self.assertEqual(process.communicate(timeout=WAIT_S)[1].count("error"), 0)
            self.assertEqual(process.returncode, 0)
            self.assert_new()

    def test_the_folder_above_removed_during_the_writing(self):
        process = self.start("--force")
        self.read_to(process, "write")
        process.send_signal(signal.SIGSTOP)
        shutil.rmtree(self.folder)
        process.send_signal(signal.SIGCONT)
        self.assert_one_line(process, 2, r"could not be written \(the folder above it was removed\).*; run it again$")
        self.assertFalse(self.folder.exists())

    def test_the_current_folder_removed_during_the_run(self):
        place = self.folder.parent / "here"
        place.mkdir()
        code = "import os, sys; os.chdir(sys.argv.pop(1)); from NLSTSegLib.cli.app import main; main()"
        process = self.start_python("-c", code, place, *arguments(Path("result")))
        self.read_to(process, "network")
        shutil.rmtree(place)
        self.assert_one_line(process, 2, "'result' lies in the current folder, which was removed; change to another one$")


@unittest.skipUnless(sys.platform == "linux", "the memory of another process cannot be limited here")
class TestMemory(FaultCase):
    """The address space of a run is limited when its network begins, so that taking memory really fails."""

    def setUp(self):
        super().setUp()
        self.model = self.folder.parent / "wide"
        network = UNet(UNetConfig(channels=(32,), normalization="none", residual=False)).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(0.01)
        card = dataclasses.replace(CARD, architecture=Architecture("unet", 2, (32,), "none", False))
        write_bundle(network, card, self.model)
        hu = np.full((6, 512, 512), -800, np.int16)
        hu[:, 100:120, 100:120] = 40
        image = sitk.GetImageFromArray(hu)
        image.SetSpacing((0.7, 0.7, 2.0))
        self.ct = self.folder.parent / "large.nrrd"
        sitk.WriteImage(image, str(self.ct))

    def limited_run(self, more_mb: int, stage: str) -> ForkedCommand:
        import resource

        options = ("--lung-field", "none", "--threads", 1, "--json-progress", "--force")
        process = self.start_command("segment", self.ct, "-o", self.out, "--model", self.model, *options)
        self.read_to(process, stage)
        process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{process.pid}/status").read_text()
        used_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmSize")))
        limit = used_kb * 1024 + more_mb * 2**20
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        process.send_signal(signal.SIGCONT)
        return process

    def test_too_little_for_the_network_is_told_and_leaves_the_earlier_result(self):
        for more_mb in (0, 10, 40):
            process = self.limited_run(more_mb, "network")
            self.assert_one_line(process, 3, r"too little memory for this CT \(stage: network\); close other programs")
            self.assert_earlier()
        process = self.limited_run(4000, "network")
        self.assertEqual(process.communicate(timeout=WAIT_S)[1].count("error"), 0)
        self.assertEqual((process.returncode, self.names()), (0, ["result"]))

    def test_fewer_slices_at_once_are_tried_and_give_the_same(self):
        code = (
            "import resource, sys, json\n"
            "import numpy as np, torch\n"
            "from NLSTSegLib.inference.slices import predict_slices\n"
            "from NLSTSegLib.models.bundle import find_model, load_model\n"
            "from NLSTSegLib.reading.read import read_ct\n"
            "torch.set_num_threads(1)\n"
            "model, ct, told = load_model(find_model(sys.argv[1])), read_ct(sys.argv[2]), []\n"
            "def run(batch):\n"
            "    return predict_slices(model.network, model.card.input, ct, batch_slices=batch, smaller_batch=told.append)\n"
            "one = run(1)\n"
            "with open('/proc/self/status') as file:\n"
            "    used_kb = next(int(line.split()[1]) for line in file if line.startswith('VmSize'))\n"
            "limit = used_kb * 1024 + 300 * 2**20\n"
            "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
            "print(json.dumps([bool((run(6) == one).all()), int(one.max()), told]))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, str(self.model), str(self.ct)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        same, highest, told = json.loads(done.stdout)
        self.assertTrue(same)
        self.assertGreater(highest, 0)
        self.assertEqual(told, [3, 1][: len(told)])
        self.assertGreater(len(told), 0, "six slices were too many")


class TestClock(FaultCase):
    def test_a_clock_that_jumps_by_years_at_every_look_changes_nothing(self):
        library = self.folder.parent / "jumping_clock.so"
        source = Path(__file__).parents[1] / "helpers" / "jumping_clock.c"
        try:
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("there is no C compiler")
        look = "import time; print(len({time.gmtime().tm_year for _ in range(5)}))"
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        seen = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True)
        if seen.stdout.strip() != "5":
            self.skipTest("the clock cannot be replaced here")
        for left in (".result.partial-77", ".result.lock"):
            (self.folder / left).mkdir() if "partial" in left else (self.folder / left).touch()
            os.utime(self.folder / left, (4e9, 4e9))
        process = self.start_program("--force", LD_PRELOAD=str(library))
        stdout, stderr = process.communicate(timeout=WAIT_S)
        self.assertEqual(process.returncode, 0, stderr)
        self.assert_new()
        fractions = [json.loads(line)["fraction"] for line in stdout.splitlines()]
        self.assertEqual(fractions, sorted(fractions))
        seconds = json.loads((self.out / "report.json").read_text("utf-8"))["seconds"]
        for stage, value in seconds.items():
            # The clock jumps by years.
            self.assertTrue(0 <= value < 1e6, stage)

    def test_leftovers_go_whatever_their_time(self):
        for n, stamp in enumerate((0, 1e9, 4e9, time.time())):
            left = self.folder / f".result.partial-{n}"
            left.mkdir()
            (left / "labels.nrrd").write_bytes(b"half")
            for path in (left, left / "labels.nrrd", self.out / "report.json", self.out):
                os.utime(path, (stamp, stamp))
        self.assert_next_run_works()

    def test_nothing_in_the_library_asks_for_the_time_of_day_or_the_age_of_a_file(self):
        of_day = {"time", "time_ns", "localtime", "gmtime", "strftime", "now", "utcnow", "today"}
        of_a_file = {"st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "getmtime", "getctime"}
        faults = []
        for path in library_files():
            for node in ast.walk(syntax_of(path)):
                if isinstance(node, ast.Attribute) and node.attr in of_day | of_a_file and not isinstance(node.ctx, ast.Store):
                    faults.append(f"{path.relative_to(LIBRARY)}:{node.lineno} {ast.unparse(node)}")
        self.assertEqual(faults, [])
