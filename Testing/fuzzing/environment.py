"""Runs the program in environments drawn at random, and looks whether the result or one sentence came of it.

``python Testing/fuzzing/environment.py --runs 100 --seed 0``: each is a process of ``nlstseg segment`` on a good small CT, with a
locale, an encoding, a folder for temporary files, a home, streams, names and leftovers that are whole or not. It must end with
exit code 0 and a whole result, or with 2 and one line on stderr, if that can be read, and nothing written. Nothing that was there
before may be changed. ``--first N --runs 1`` repeats run N.
"""

import argparse
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTING.parent), str(TESTING / "Python")]

HANG_S = 1200

LOCALES = ("C", "POSIX", "C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8", "en_US.ISO-8859-1", "xx_XX")

ENCODINGS = ("", "ascii", "ascii:strict", "latin-1", "cp1252", "utf-8", "utf-16", "shift_jis")

NAMES = ("result", "výsledek 患者", os.fsdecode(b"M\xfcller"), "-=1", "\x1b[31mred", "a" * 200)


@dataclass
class Run:
    """One run: what it is given, in words too."""

    variables: dict[str, str]
    output: Path
    options: list[str] = field(default_factory=list)
    streams: dict[str, str] = field(default_factory=dict)
    """``"pipe"``, ``"gone"`` (nobody reads), ``"closed"`` or ``"full"``, of stdout and stderr."""
    words: list[str] = field(default_factory=list)


def drawn(number: int, seed: int, folder: Path) -> Run:
    """Run ``number`` in the new, empty ``folder``; the same number is the same run."""
    choose = random.Random(f"{seed} {number}")
    output = folder / "outputs" / choose.choice(NAMES)
    output.parent.mkdir()
    run = Run({"PYTHONPATH": str(TESTING.parent), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}, output)
    if choose.random() < 0.8:
        run.variables["LC_ALL"] = choose.choice(LOCALES)
    if encoding := choose.choice(ENCODINGS):
        run.variables["PYTHONIOENCODING"] = encoding
    if choose.random() < 0.3:
        run.variables |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run.variables |= choose.choice(({}, {"TERM": "dumb"}, {"COLUMNS": "1", "TERM": "xterm"}, {"COLUMNS": "no number"}))
    run.streams = {name: choose.choice(("pipe", "pipe", "gone", "closed", "full")) for name in ("stdout", "stderr")}
    run.options = choose.choice(([], [], ["--json-progress"], ["--save-probability"]))
    run.words = [f"output {output.name!r}"]
    run.words += [f"{name}={value}" for name, value in run.variables.items() if name not in ("PYTHONPATH", "PATH")]
    for change in (_temporary_folder, _home, _leftovers, _owner):
        run.words.append(f"{change.__name__}: {change(run, choose, folder)}")
    return run


def _temporary_folder(run: Run, choose: random.Random, folder: Path) -> str:
    place = folder / choose.choice(NAMES[:3])
    run.variables["TMPDIR"] = str(place)
    kind = choose.choice(("new", "new", "missing", "a file", "closed", "with links", "with a pipe"))
    if kind == "a file":
        place.touch()
    elif kind != "missing":
        place.mkdir()
    lock = place / f"nlstseg-scratch-{'0' * 16}.lock"
    if kind == "closed":
        place.chmod(0)
    elif kind == "with links":
        lock.symlink_to(folder / "precious")
        (place / "nlstseg-scratch-a.lock").symlink_to("/nonexistent/lock")
    elif kind == "with a pipe":
        os.mkfifo(lock)
    return kind


def _home(run: Run, choose: random.Random, folder: Path) -> str:
    kind = choose.choice(("none", "missing", "a file", "whole"))
    home = folder / "home"
    if kind != "none":
        run.variables["HOME"] = str(home)
    if kind == "a file":
        home.touch()
    elif kind == "whole":
        (home / ".nlstseg" / "models" / "\x1b[2Jodd").mkdir(parents=True)
        (home / ".nlstseg" / "models" / "\x1b[2Jodd" / "model.json").write_text("{}")
    return kind


def _leftovers(run: Run, choose: random.Random, folder: Path) -> str:
    """What lies at the output, or beside it."""
    precious = folder / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    place, name = run.output.parent, run.output.name
    kind = choose.choice(("nothing", "nothing", "a dangling lock", "a lock", "a link", "a folder", "half a result", "a file"))
    if kind == "a dangling lock":
        (place / f".{name}.lock"[:250]).symlink_to("/nonexistent/lock")
    elif kind == "a lock":
        (place / f".{name}.lock").touch()
    elif kind == "a link":
        run.output.symlink_to(precious)
    elif kind == "a folder":
        run.output.mkdir()
        (run.output / "report.json").write_text('{"program": {"name": "Other"}}')
        run.options = [*run.options, "--force"]
    elif kind == "half a result":
        (place / f".{name}.partial-1").mkdir()
    elif kind == "a file":
        run.output.write_text("mine")
    return kind


def _owner(run: Run, choose: random.Random, folder: Path) -> str:
    kind = "foreign" if choose.random() < 0.1 else "none"
    if kind == "foreign":
        (folder / "precious.lock").touch()
        run.variables["NLSTSEG_OWNER_LOCK"] = str(folder / "precious.lock")
    return kind


def outcome(run: Run, ct: Path, model: Path, folder: Path) -> tuple[str, str]:
    """``"result"``, ``"refused"``, or what else happened, and what it said."""
    # Here: between the streams' closing and the program's start nothing may be opened.
    from helpers.child_processes import without_overriding_rights

    before = _everything(folder)
    command = [sys.executable, "-m", "NLSTSegLib", "segment", str(ct), "-o", str(run.output), "--model", str(model)]
    ends, mine = {}, []
    for name, kind in run.streams.items():
        if kind == "full":
            ends[name] = os.open("/dev/full", os.O_WRONLY)
        elif kind == "gone":
            read, ends[name] = os.pipe()
            os.close(read)
        mine += [ends[name]] if name in ends else []
    closed = [number for number, name in ((1, "stdout"), (2, "stderr")) if run.streams[name] == "closed"]
    done = subprocess.run(
        [*command, "--threads", "1", *run.options],
        env=run.variables,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=ends.get("stdout", subprocess.PIPE),
        stderr=ends.get("stderr", subprocess.PIPE),
        preexec_fn=lambda: (without_overriding_rights(), [os.close(number) for number in closed]),
        timeout=HANG_S,
    )
    for end in mine:
        os.close(end)
    encoding = run.variables.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    said = (done.stderr or b"").decode(encoding, "replace")
    lost = {path: facts for path, facts in before.items() if _everything(folder).get(path) != facts}
    # What a killed run of the program left of this very output may go.
    lost = {path: facts for path, facts in lost.items() if not Path(path).name.startswith(f".{run.output.name}")}
    if lost:
        return "changed what was there", str(lost)
    whole = (run.output / "report.json").is_file() and "lesions" in json.loads((run.output / "report.json").read_bytes())
    if done.returncode == 0:
        return ("result", said) if whole else ("no result", said)
    errors = [line for line in said.splitlines() if line.startswith("nlstseg: ")]
    if done.returncode != 2 or "Traceback" in said or (run.streams["stderr"] == "pipe" and len(errors) != 1):
        return f"exit code {done.returncode}", said
    return ("refused but written", said) if whole else ("refused", errors[0] if errors else "")


def _everything(folder: Path) -> dict[str, str]:
    """Kind and content of all that is there; links are not followed."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            mode = os.lstat(path).st_mode
            link = os.readlink(path) if stat.S_ISLNK(mode) else ""
            content = Path(path).read_bytes().hex() if stat.S_ISREG(mode) else ""
            found[path] = f"{stat.S_IFMT(mode)} {link} {content}"
    return found


def run_all(first: int, count: int, seed: int, tell: Callable[[str], None] = print) -> Counter[str]:
    """How many runs had which outcome; what is not as it should be is told."""
    import SimpleITK as sitk

    from helpers.dicom_files import small_chest
    from helpers.threshold_model import write_threshold_bundle

    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        good = Path(name)
        image = sitk.GetImageFromArray(small_chest())
        image.SetSpacing((5.0, 5.0, 5.0))
        sitk.WriteImage(image, str(good / "ct.nrrd"))
        write_threshold_bundle(good / "model")
        for number in range(first, first + count):
            folder = good / "run"
            folder.mkdir()
            run = drawn(number, seed, folder)
            what, said = outcome(run, good / "ct.nrrd", good / "model", folder)
            outcomes[what] += 1
            if what not in ("result", "refused"):
                tell(f"run {number}: {what}: {said[-1000:]!r}\n  {run.streams} {run.options} {run.words}")
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
            shutil.rmtree(folder)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    outcomes = run_all(options.first, options.runs, options.seed)
    print(", ".join(f"{count} {what}" for what, count in outcomes.most_common()))
    return 0 if set(outcomes) <= {"result", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
