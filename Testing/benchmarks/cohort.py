"""Times of ``nlstseg cohort``; prints JSON.

    python Testing/benchmarks/cohort.py chests CT [CT ...]    # one process against 1 and 2 workers, twice each, cases an hour
    python Testing/benchmarks/cohort.py fetching CT [CT ...]  # files that come at 20 MB/s, without and with room to read ahead
    python Testing/benchmarks/cohort.py scheduling [CASES]    # cost of a case, and memory, with cases that take no time
    python Testing/benchmarks/cohort.py sleeping              # efficiency of 2 to 16 workers whose cases sleep
    python Testing/benchmarks/cohort.py page [CASES]          # the report of made-up cases, and how soon Chromium shows it

``chests`` copies the CTs, so that each command finds nothing that another has read in memory alone.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from NLSTSegLib.cohort.case import Found, Outcome, Settings
from NLSTSegLib.cohort.clusters import CASE_BYTES, Cluster, Workers
from NLSTSegLib.cohort.dask_map import each_done
from NLSTSegLib.cohort.headers import case_of_file
from NLSTSegLib.cohort.report import COHORT_PAGE, write_reports
from NLSTSegLib.cohort.run import run_cases
from NLSTSegLib.cohort.table import open_table
from NLSTSegLib.lesions.rows import COLUMNS as LESION_COLUMNS
from NLSTSegLib.models.bundle import DEFAULT_MODEL, find_model, load_model
from NLSTSegLib.results.folder import PREVIEW_FILE

SLEEP_S, SLEEPS = 1.0, 10
"""Of a sleeping case, and how many each worker does."""

SAMPLES = 10


def chests(files: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "cts"
        for n, file in enumerate(files):
            copy = shutil.copytree if Path(file).is_dir() else shutil.copy
            tree.mkdir(exist_ok=True)
            copy(file, tree / (f"{n}" if Path(file).is_dir() else f"{n}-{Path(file).name}"))
        program = [sys.executable, "-m", "NLSTSegLib"]
        inputs = [str(path) for path in sorted(tree.iterdir())]
        commands = {"segment": [*program, "segment", *inputs, "-o", f"{folder}/one-by-one", "--quiet"]}
        for count in (1, 2):
            commands[f"{count} workers"] = [
                *program,
                "cohort",
                str(tree),
                "-o",
                f"{folder}/{count}",
                "--workers",
                f"{count}",
                "--quiet",
            ]
        found: dict[str, list] = {name: [] for name in commands}
        # There and back, so that what changes meanwhile is seen.
        for name in [*commands, *reversed(commands)]:
            found[name].append(_timed(commands[name], len(files)))
            print(name, found[name][-1], file=sys.stderr, flush=True)
            for written in Path(folder).glob("[!c]*"):
                shutil.rmtree(written)
        return {"cases": len(files), **found}


def _timed(command: list[str], cases: int) -> dict:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"s": round(seconds, 1), "processor_s": round(processor_s, 1), "cases_an_hour": round(3600 * cases / seconds)}


def fetching(files: list[str]) -> dict:
    weights = load_model(find_model(DEFAULT_MODEL)).card.weights_sha256
    found: dict[str, list] = {"without": [], "with": []}
    cases = [replace(case_of_file(file), places=(f"slow://{Path(file).resolve()}",)) for file in files]
    for name in ("without", "with", "with", "without"):
        memory_bytes = CASE_BYTES if name == "without" else 2 * CASE_BYTES
        with tempfile.TemporaryDirectory() as folder, open_table(Path(folder)) as table, _preloaded("cohort_slow_address"):
            table.add_cases("made-up", cases)
            settings = Settings(DEFAULT_MODEL, weights, folder, threads=1)
            ended: list[Outcome] = []
            began: list[float] = []
            with Cluster(Workers(2, memory_bytes=memory_bytes)) as cluster:
                run_cases(
                    table,
                    cluster,
                    settings,
                    limit=None,
                    tell=lambda outcome, again, ended=ended: ended.append(outcome),
                    begin=lambda client, number, began=began: began.append(time.perf_counter()),
                )
            seconds = time.perf_counter() - began[0]
            if [outcome.status for outcome in ended] != ["done"] * len(files):
                raise RuntimeError(f"not all cases were done: {ended}")
            found[name].append({"s": round(seconds, 1), "cases_an_hour": round(3600 * len(files) / seconds)})
            print(name, found[name][-1], file=sys.stderr, flush=True)
    return {"cases": len(files), "mb": round(sum(os.path.getsize(file) for file in files) / 1e6), **found}


@contextlib.contextmanager
def _preloaded(module: str) -> Iterator[None]:
    """Workers that are started in the block load a module of this folder."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    import dask
    import distributed  # noqa: F401 - its defaults would go with the block

    with dask.config.set({"distributed.worker.preload": [module]}):
        yield


def scheduling(cases: int) -> dict:
    with tempfile.TemporaryDirectory() as folder, open_table(Path(folder)) as table, _preloaded("cohort_stub"):
        table.add_cases("made-up", [Found((f"/made-up/{n}",)) for n in range(cases)])
        times, memory_mb = [], []

        def tell(outcome: object, again: bool) -> None:
            times.append(time.perf_counter())
            if len(times) % max(1, cases // SAMPLES) == 0:
                memory_mb.append(_memory_mb())
                print(f"{len(times)} in {times[-1] - times[0]:.1f} s, {memory_mb[-1]} MB", file=sys.stderr, flush=True)

        start_cpu = time.process_time()
        with Cluster(Workers(2)) as cluster:
            run_cases(table, cluster, Settings("none", "", folder), limit=None, tell=tell, begin=lambda client, number: None)
        spent = time.process_time() - start_cpu
        return {
            "cases": cases,
            "done": len(times),
            "ms_a_case": round(1000 * (times[-1] - times[0]) / (len(times) - 1), 2),
            "client_and_scheduler_processor_ms_a_case": round(1000 * spent / len(times), 2),
            "client_and_scheduler_mb": memory_mb,
            "table_mb": round((Path(folder) / "cohort.sqlite").stat().st_size / 1e6, 1),
        }


def page(cases: int) -> dict:
    with tempfile.TemporaryDirectory() as name, open_table(Path(name)) as table:
        folder = Path(name)
        # They are made up, and need not survive anything.
        table._connection.execute("PRAGMA synchronous = OFF")
        table.add_cases("made-up", [Found((f"/made-up/{n}",), slices=300, rows=512, columns=512) for n in range(cases)])
        settings, rng = Settings("none", "0" * 64, name), np.random.default_rng(0)
        picture = folder / "preview.png"
        Image.fromarray(rng.integers(0, 256, (900, 1200, 3), np.uint8)).save(picture)
        for row in [*table.rows()]:
            (folder / row.name).mkdir()
            os.link(picture, folder / row.name / PREVIEW_FILE)
            if rng.random() < 0.02:
                table.write(Outcome(row.name, "failed", f"slice {rng.integers(300)} cannot be read"), settings)
                continue
            lesions = [_made_up(n, rng) for n in range(rng.poisson(2))]
            table.write(Outcome(row.name, "done", "", 20.0, 1200.0, "1", ("warning lungs_cut",), tuple(lesions)), settings)
        start = time.perf_counter()
        write_reports(table, name, keep_identity=False)
        written_s, html = time.perf_counter() - start, folder / COHORT_PAGE
        found = {"cases": cases, "reports_s": round(written_s, 1), "page_mb": round(html.stat().st_size / 1e6, 2)}
        # Time since the navigation began, at the event that says that all of the page is there.
        html.write_text(html.read_text() + "<script>onload = () => { document.title = `loaded ${performance.now()}` }</script>")
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser:
            command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", html.as_uri()]
            shown = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
            found["load_event_s"] = [round(float(re.search(r"loaded ([\d.]+)", text)[1]) / 1000, 2) for text in shown]
        return found


def _made_up(number: int, rng: np.random.Generator) -> dict:
    sizes = {column: round(float(rng.gamma(3, 3)), 1) for column in LESION_COLUMNS}
    return {**sizes, "lesion": f"Lesion {number + 1:02d}", "score": round(float(rng.uniform(0.2, 1)), 3), "mean_hu": -100.0}


def _memory_mb() -> float:
    import psutil

    return round(psutil.Process().memory_info().rss / 1e6, 1)


def sleeping() -> dict:
    from distributed import Client

    shares = {}
    for workers in (2, 4, 8, 16):
        with Client(processes=False, n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
            client.wait_for_workers(workers)
            start = time.perf_counter()
            done = sum(1 for _ in each_done(client, lambda item, _: (time.sleep, item), deque([SLEEP_S] * workers * SLEEPS)))
            shares[workers] = round(done * SLEEP_S / workers / (time.perf_counter() - start), 3)
    return {"efficiency_by_workers": shares}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["chests"] and arguments[1:]:
        found = chests(arguments[1:])
    elif arguments[:1] == ["fetching"] and arguments[1:]:
        found = fetching(arguments[1:])
    elif arguments[:1] == ["scheduling"]:
        found = scheduling(int(*arguments[1:]) if arguments[1:] else 10_000)
    elif arguments[:1] == ["page"]:
        found = page(int(*arguments[1:]) if arguments[1:] else 10_000)
    elif arguments == ["sleeping"]:
        found = sleeping()
    else:
        print(__doc__)
        return 2
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
