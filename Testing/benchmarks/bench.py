"""How fast ``nlstseg segment`` is against the plain way, on this machine: ``make bench``, or ``bench.py --help``.

Everything is measured in processes of their own, one at a time. The plain way and ours take turns, so that what else the
machine does hits both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parent / "Python"))

from helpers.shared_data import shared_data  # noqa: E402
from NLSTSegLib.models.bundle import DEFAULT_MODEL  # noqa: E402

SAMPLED = 12
"""Slices of the plain way for the published network, without --all-slices: each takes seconds, all the same."""

GROWTH = (75, 150, 300, 600)
"""Slices of the same chest."""

NLSTSEG = (sys.executable, "-m", "NLSTSegLib")


def main() -> None:
    """Measure, print tables and write ``benchmark.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for benchmark.json")
    parser.add_argument("--rounds", type=int, default=2, help="how often plain way and ours take turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of both")
    parser.add_argument("--all-slices", action="store_true", help="the plain way of the published network on every slice")
    options = parser.parse_args()
    console = Console(width=130)
    with tempfile.TemporaryDirectory() as name:
        bench = Benchmark(Path(name), options, console)
        results = {"machine": bench.machine(), "start": bench.start()}
        for title, model in (("published network", bench.published), ("default model", DEFAULT_MODEL)):
            results[title] = bench.compare(title, model)
        results["growth"] = bench.growth()
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "benchmark.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    console.print(f"written to {options.output / 'benchmark.json'}")


class Benchmark:
    """The CT, the published network with synthetic weights, and what is measured on them."""

    def __init__(self, folder: Path, options: argparse.Namespace, console: Console):
        import torch

        from helpers.networks import published_with_formula_weights

        self.folder, self.console = folder, console
        self.rounds, self.threads, self.all_slices = options.rounds, options.threads, options.all_slices
        self.published = str(folder / "published.pth")
        torch.save(published_with_formula_weights().state_dict(), self.published)
        data = shared_data()
        if data is None:
            subprocess.run([*NLSTSEG, "phantom", folder / "phantom"], check=True, stdout=subprocess.DEVNULL)
        self.ct = folder / "phantom" / "ct.nrrd" if data is None else data / "ct" / "LIDC-IDRI-0001" / "dicom"
        self.ct_name = "phantom" if data is None else "LIDC-IDRI-0001"

    def machine(self) -> dict[str, Any]:
        """What the figures hold for."""
        from NLSTSegLib.inference.devices import choose_device
        from NLSTSegLib.reading.read import read_ct

        ct = read_ct(self.ct)
        machine = {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "threads": self.threads,
            "load before": round(os.getloadavg()[0], 2),
            "ours": choose_device("cpu", self.threads).note,
            "ct": f"{self.ct_name}, {ct.hu.shape[0]} slices of {ct.hu.shape[1]} x {ct.hu.shape[2]}",
            "versions": f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "SimpleITK", "nlstseg")),
        }
        self._table("Machine", ("", ""), machine.items())
        return machine

    def start(self) -> dict[str, float]:
        """Seconds until ``--help`` is there, and until the first slice runs."""
        helps = [_run([*NLSTSEG, "--help"])["wall_s"] for _ in range(5)]
        begin = time.perf_counter()
        command = [*NLSTSEG, "segment", self.ct, "--output", self.folder / "start", "--device", "cpu", "--json-progress"]
        firsts = []
        for _ in range(self.rounds):
            begin = time.perf_counter()
            with subprocess.Popen([*map(str, command), "--force"], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                stages = {}
                for line in process.stdout:
                    stages.setdefault(json.loads(line)["stage"], time.perf_counter() - begin)
                    if "network" in stages:
                        break
                process.kill()
            firsts.append(stages)
        start = {
            "help": min(helps),
            "reading begins": min(stages["read"] for stages in firsts),
            "first slice begins": min(stages["network"] for stages in firsts),
        }
        self._table("Start, s (best of several)", ("until", "s"), start.items())
        return start

    def compare(self, title: str, model: str) -> dict[str, Any]:
        """The plain way and ours by turns."""
        slices, sample = self._child("slices_with_lung", ct=self.ct), None
        if model == self.published and not self.all_slices:
            sample = [slices["with_lung"][n * len(slices["with_lung"]) // SAMPLED] for n in range(SAMPLED)]
        operations = self._child("operations", ct=self.ct, model=model)
        rounds, keeps = [], []
        for n in range(self.rounds):
            keep = self.folder / f"plain-{n}.npz"
            # Every slice is too slow to be repeated.
            if n == 0 or sample or model != self.published:
                chosen = sample[n :: self.rounds] if sample else None
                plain = self._child("plain", ct=self.ct, model=model, slices=chosen, keep=keep, threads=self.threads)
                plain["peak"] = self._child("peak", precision="float32", threads=self.threads)["gflop_per_s"]
                keeps = [*keeps, keep] if sample else [keep]
            ours = self._segment(self.ct, model)
            ours["peak"] = self._child("peak", precision=_precision(), threads=self.threads)["gflop_per_s"]
            rounds.append({"plain": plain, "ours": ours, "load": os.getloadavg()[0]})
        agreement = self._child(
            "agreement", ct=self.ct, model=model, plain=keeps, probability=self.folder / "out" / "probability.nrrd"
        )
        del agreement["rss_mb"]
        result = {"operations": operations, "agreement": agreement, "rounds": rounds, "sampled": sample is not None}
        result["summary"] = self._summary(title, result, slices["all"])
        return result

    def growth(self) -> dict[str, list[dict[str, Any]]]:
        """The whole command on the same chest cut into more and more slices, and what the first or only network alone takes."""
        self._child("write_cts", ct=self.ct, counts=GROWTH, folder=self.folder)
        results: dict[str, list[dict[str, Any]]] = {}
        for title, model in (("default model", DEFAULT_MODEL), ("published network", self.published)):
            rows = results[title] = []
            for count in GROWTH:
                run = self._segment(self.folder / f"{count}.nrrd", model)
                alone = self._child("network_memory", slices=count // 5, model=model)["mb"]
                rows.append({"slices": count, **run, "network alone, MB": alone})
            self._columns(
                f"Growth, {title}; and the memory of its first or only network alone, on a fifth of the slices",
                "slices",
                [row["slices"] for row in rows],
                {
                    "whole command, s": [row["wall_s"] for row in rows],
                    "CPU s": [row["cpu_s"] for row in rows],
                    "largest memory, MB": [row["rss_mb"] for row in rows],
                    **{stage: [row["seconds"][stage] for row in rows] for stage in STAGES},
                    "network alone, MB": [row["network alone, MB"] for row in rows],
                },
            )
        return results

    def _summary(self, title: str, result: dict[str, Any], slices: int) -> dict[str, Any]:
        operations, agreement, rounds = result["operations"], result["agreement"], result["rounds"]
        plain_s = [r["plain"]["slice_s"] * slices + r["plain"]["looks_s"] for r in rounds]
        network_s = [r["ours"]["seconds"]["network"] for r in rounds]
        faster = [a / b for a, b in zip(plain_s, network_s, strict=True)]
        middle = statistics.median
        summary = {
            "times faster": middle(faster),
            "in each round": faster,
            "CPU time, times less": middle(
                (r["plain"]["slice_cpu_s"] * slices + r["plain"]["looks_cpu_s"]) / r["ours"]["cpu_s"] for r in rounds
            ),
            "plain network s": middle(plain_s),
            "our network s": middle(network_s),
            "plain GFLOP/s": middle(operations["plain_gflop"] / s for s in plain_s),
            "our GFLOP/s": middle(operations["ours_gflop"] / s for s in network_s),
            "of the plain operations": operations["ours_gflop"] / operations["plain_gflop"],
            "of the peak, plain": middle(
                operations["plain_gflop"] / s / r["plain"]["peak"] for r, s in zip(rounds, plain_s, strict=True)
            ),
            "of the peak, ours": middle(
                operations["ours_gflop"] / r["ours"]["seconds"]["network"] / r["ours"]["peak"] for r in rounds
            ),
            **agreement,
        }
        how = f"{agreement['slices']} slices" if result["sampled"] else "all slices"
        self._columns(
            f"{title}: plain way (float32, {how}, whole and one by one) against ours (the whole command)",
            "round",
            list(range(1, len(rounds) + 1)),
            {
                "plain: s a slice": [r["plain"]["slice_s"] for r in rounds],
                "plain: CPU s a slice": [r["plain"]["slice_cpu_s"] for r in rounds],
                "plain: refinement and half resolution, s": [r["plain"]["looks_s"] for r in rounds],
                "plain: largest memory, MB": [r["plain"]["rss_mb"] for r in rounds],
                "peak in float32, GFLOP/s": [r["plain"]["peak"] for r in rounds],
                "ours: s": [r["ours"]["wall_s"] for r in rounds],
                "ours: CPU s": [r["ours"]["cpu_s"] for r in rounds],
                "ours: largest memory, MB": [r["ours"]["rss_mb"] for r in rounds],
                f"peak in {_precision()}, GFLOP/s": [r["ours"]["peak"] for r in rounds],
                **{f"ours: {stage}, s": [r["ours"]["seconds"][stage] for r in rounds] for stage in STAGES},
                "network times faster": faster,
                "load": [r["load"] for r in rounds],
            },
        )
        shown = {name: value for name, value in summary.items() if name != "in each round"}
        self._table(f"{title}: median of the rounds, and how far the masks agree", ("", ""), shown.items())
        return summary

    def _segment(self, ct: Path, model: str) -> dict[str, Any]:
        """The whole command."""
        out = self.folder / "out"
        options = ["--threads", self.threads, "--device", "cpu", "--force", "--json-progress", "--save-probability"]
        run = _run([*NLSTSEG, "segment", ct, "--output", out, "--model", model, *options])
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        return {**run, "seconds": report["seconds"], "lesions": len(report["lesions"])}

    def _child(self, task: str, **arguments: Any) -> dict[str, Any]:
        output = self.folder / "child.json"
        run = _run([sys.executable, FOLDER / "child.py", task, json.dumps(arguments, default=str)], output)
        return {**json.loads(output.read_text(encoding="utf-8")), "rss_mb": run["rss_mb"]}

    def _columns(self, title: str, head: str, columns: list[int], rows: dict[str, list[float]]) -> None:
        self._table(title, (head, *map(str, columns)), ((name, *values) for name, values in rows.items()))

    def _table(self, title: str, heads: tuple[str, ...], rows: Any) -> None:
        table = Table(*heads, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(_text(value) for value in row))
        self.console.print(table)


STAGES = ("read", "check", "lung field", "network", "lesions", "measurements", "write")
"""Of the report."""


def _run(command: list[Any], output: Path | None = None) -> dict[str, float]:
    """Wall and CPU seconds and the largest memory of a process that must succeed."""
    start = time.perf_counter()
    with open(output or os.devnull, "w", encoding="utf-8") as stdout:
        process = subprocess.Popen([str(part) for part in command], stdout=stdout)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    rss = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return {"wall_s": time.perf_counter() - start, "cpu_s": usage.ru_utime + usage.ru_stime, "rss_mb": rss / 1e6}


def _precision() -> str:
    from NLSTSegLib.inference.devices import choose_device

    return str(choose_device("cpu").dtype).removeprefix("torch.")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _text(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float) and value < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


if __name__ == "__main__":
    main()
