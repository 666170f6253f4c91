"""Gives the program thousands of spoiled files and counts what it does with them.

``python Testing/fuzzing/fuzz.py --inputs 10000 --seed 0`` runs in child processes whose memory and time are limited, and prints a
table by format. Every input must be read (segmented and written to a result) or refused in one line; the exit code is 1
when anything else happened. ``--first N --inputs 1`` repeats input N.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MEMORY_BYTES = 1 << 30
"""Address space that an input may take beyond what the libraries take; the files have less than a MB."""

MOST_MEMORY_MB = 200
"""An input that takes more of the memory is told of."""

CPU_SECONDS = 20
WALL_SECONDS = 300
"""Limits for one input; the slowest is done in less than a second."""

LONGEST_MESSAGE = 1500
"""Characters of an error message; it may name two paths and five parameters."""

PART = 2000
"""Inputs that one child process is given."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.first, options.inputs, options.seed)
        return 0
    start = time.monotonic()
    outcomes = run_all(options.first, options.inputs, options.seed, options.processes)
    print_table(outcomes)
    print(f"{len(outcomes)} inputs, seed {options.seed}, {time.monotonic() - start:.0f} s")
    others = [one for one in outcomes if not as_it_should(one)]
    for one in others:
        print(f"input {one['number']} ({one['format']}, {one['memory_mb']} MB): {one['outcome']}: {one['text']}")
    return 1 if others else 0


def as_it_should(outcome: dict) -> bool:
    """Whether the input was read or refused, with little memory."""
    return outcome["outcome"] in ("read", "refused") and outcome["memory_mb"] <= MOST_MEMORY_MB


def run_all(first: int, count: int, seed: int, processes: int = 1) -> list[dict]:
    """The outcome of every input: format, outcome, text, seconds and the largest memory of its process in MB."""
    from concurrent.futures import ThreadPoolExecutor

    parts = [(n, min(PART, first + count - n)) for n in range(first, first + count, PART)]
    with ThreadPoolExecutor(processes) as pool:
        return [one for part in pool.map(lambda part: list(run_part(*part, seed)), parts) for one in part]


def run_part(first: int, count: int, seed: int) -> Iterator[dict]:
    """The outcomes of a child process, and of a new one after each input that ended it."""
    end = first + count
    while first < end:
        command = [sys.executable, __file__, "--child", "--first", str(first), "--inputs", str(end - first), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        # A line is written before every input, and a second one after it.
        started = [line for line in lines if "outcome" not in line]
        finished = [line for line in lines if "outcome" in line]
        yield from finished
        if len(finished) == end - first:
            return
        if len(started) == len(finished):
            raise RuntimeError(f"the child process failed before an input: {done.stderr[-2000:]}")
        ended = "too slow" if -done.returncode in (signal.SIGVTALRM, signal.SIGALRM) else f"ended by {done.returncode}"
        yield {**started[-1], "outcome": ended, "text": done.stderr[-300:], "seconds": 0.0, "memory_mb": 0.0}
        first = started[-1]["number"] + 1


def run_child(first: int, count: int, seed: int) -> None:
    """Print two JSON lines for every input: before it, and after it with the outcome."""
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)] + [
        str(Path(__file__).resolve().parents[1] / "Python")
    ]
    import resource

    import torch

    from fuzzing.inputs import Inputs

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "good").mkdir()
        inputs = Inputs(folder / "good")
        # Once without a limit, so that all libraries are loaded; and what is spoiled was good.
        outcome, text = run_input(folder / "good" / "packed.nii.gz", folder / "good" / "model", folder / "result")
        if outcome != "read":
            raise RuntimeError(f"the good input was {outcome}: {text}")
        shutil.rmtree(folder / "result")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in range(first, first + count):
            kind, ct, model = inputs.make(number, seed, folder / "input")
            print(json.dumps({"number": number, "format": kind}), flush=True)
            signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
            # The highest memory is counted anew.
            Path("/proc/self/clear_refs").write_text("5")
            memory_kb, start = status_kb("VmRSS"), time.process_time()
            outcome, text = run_input(ct, model, folder / "result")
            seconds = round(time.process_time() - start, 3)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            memory_mb = (status_kb("VmHWM") - memory_kb) // 1024
            facts = {"outcome": outcome, "text": text, "seconds": seconds, "memory_mb": memory_mb}
            print(json.dumps({"number": number, "format": kind, **facts}), flush=True)
            for left in folder.iterdir():
                if left.name != "good":
                    shutil.rmtree(left)


def status_kb(key: str) -> int:
    """A line of this process' status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def run_input(ct: Path, model: object, out: Path) -> tuple[str, str]:
    """``"read"``, ``"refused"`` or what else happened, and the message: the whole command but for its printing."""
    from fuzzing.inputs import TWO_SCANS
    from NLSTSegLib.cli.batch import SegmentJob, run_one
    from NLSTSegLib.cli.inputs import Case
    from NLSTSegLib.errors import NLSTSegError
    from NLSTSegLib.models.bundle import ModelFiles, find_model, load_model
    from NLSTSegLib.pipeline import SegmentOptions

    job = SegmentJob(out, "", SegmentOptions(device="cpu", threads=1))
    try:
        files = model if isinstance(model, ModelFiles) else find_model(str(model))
        result = run_one(Case(ct, "ct"), out, job, load_model(files))
    except NLSTSegError as error:
        text = str(error)
        if not text.isprintable() or len(text) > LONGEST_MESSAGE:
            return "refused at length", text
        return ("refused but written", text) if out.exists() else ("refused", text)
    except Exception as error:
        return "unexpected", f"{type(error).__name__}: {error}"
    if (ct / TWO_SCANS).exists() and len({int(value) % 2 for value in result.ct.hu.ravel()}) > 1:
        return "two scans in one volume", ""
    return faults_of(result, out)


def faults_of(result: object, out: Path) -> tuple[str, str]:
    """``"read"``, unless what was written is not on the grid of the CT."""
    import numpy as np
    import SimpleITK as sitk

    labels = sitk.ReadImage(str(out / "labels.nrrd"))
    ct = result.ct.to_image()
    if labels.GetSize() != ct.GetSize() or sitk.GetArrayFromImage(labels).max() != len(result.lesions):
        return "other voxels", f"{labels.GetSize()} and {ct.GetSize()}"
    for told, own in ((f(labels), f(ct)) for f in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection)):
        if not np.allclose(told, own, rtol=1e-6):
            return "another place", f"{told} and {own}"
    return "read", ""


def print_table(outcomes: list[dict]) -> None:
    print("| format | inputs | read | refused | anything else | slowest, s | memory, MB |")
    print("|---|---|---|---|---|---|---|")
    for name in [*dict.fromkeys(one["format"] for one in outcomes), "all"]:
        own = [one for one in outcomes if name in (one["format"], "all")]
        counts = Counter(one["outcome"] for one in own)
        other = sum(not as_it_should(one) for one in own)
        slowest, memory = (max(one[key] for one in own) for key in ("seconds", "memory_mb"))
        print(f"| {name} | {len(own)} | {counts['read']} | {counts['refused']} | {other} | {slowest:.1f} | {memory} |")


if __name__ == "__main__":
    sys.exit(main())
