"""``nlstseg cohort``: many CTs on many workers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from NLSTSegLib.cli.options import Debug, MinVolume, SaveProbability

if TYPE_CHECKING:
    from distributed import Client

    from NLSTSegLib.cohort.case import Outcome, Settings
    from NLSTSegLib.cohort.clusters import Cluster, Workers
    from NLSTSegLib.cohort.table import CohortTable

SHOWN_REASONS = 8


class Retry(StrEnum):
    """Values of ``--retry``."""

    failed = "failed"
    all = "all"


def cohort(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Folder with DICOM or image files anywhere in it, or a CSV or Parquet file with id,path[,patient,date,series].",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="Folder or address (s3://...) for results and report; the same one goes on where it stopped."
        ),
    ],
    table: Annotated[
        Path | None, typer.Option(help="Folder of this computer for the table (default: --output, where that is a folder).")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers (default: by cores and memory; of SLURM 1).")] = None,
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler: use its workers.")] = "",
    slurm: Annotated[str, typer.Option(metavar="PARTITION", help="Start every worker as a SLURM job there.")] = "",
    memory: Annotated[float | None, typer.Option(min=0.1, help="Of a worker in GB; one that takes more is ended.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a worker's network.")] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds after which a case is given up.")] = 1800,
    model: Annotated[str, typer.Option(help="Name of a model, or path of a bundle, that every worker has.")] = "lidc-25d",
    threshold: Annotated[float | None, typer.Option(help="Probability above which a voxel is lesion.")] = None,
    min_volume: MinVolume = None,
    device: Annotated[str, typer.Option(help="Where the network runs: auto, cpu, gpu, gpu:1, cuda or mps.")] = "auto",
    retry: Annotated[
        Retry | None, typer.Option(help="Do failed cases again; 'all': those of another model, version or options too.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Do at most so many cases now.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make the catalogue, say what would be done, and stop.")] = False,
    save_probability: SaveProbability = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Write DICOM SEG and SR too, which say whose they are; for DICOM alone.")
    ] = False,
    keep_identity: Annotated[
        bool, typer.Option("--keep-identity", help="Write paths, patient IDs and UIDs into reports and tables.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Debug = False,
) -> None:
    """Segment thousands of CTs on many workers: catalogue first, every case a result folder, a table and a report."""
    from NLSTSegLib.cohort.case import Settings
    from NLSTSegLib.cohort.clusters import Workers, size_here
    from NLSTSegLib.cohort.places import is_address, plain_place
    from NLSTSegLib.errors import InputError
    from NLSTSegLib.models.bundle import find_model
    from NLSTSegLib.pipeline import SegmentOptions

    results = plain_place(output)
    if table is None and is_address(results):
        raise InputError("the table of a cohort is a file of this computer; beside an address, name a folder for it with --table")
    asked = Workers(workers, scheduler, slurm, None if memory is None else int(memory * 1e9), threads)
    if not scheduler and not slurm:
        threads = size_here(asked).threads
    SegmentOptions(threshold, min_volume, device=device, threads=threads)
    settings = Settings(
        model=str(Path(model).resolve()) if Path(model).exists() else model,
        weights_sha256=find_model(model).card.weights_sha256,
        results=results,
        threshold=threshold,
        min_volume_mm3=min_volume,
        device=device,
        threads=threads,
        save_probability=save_probability,
        dicom_seg=dicom_seg,
        keep_identity=keep_identity,
        time_limit_s=time_limit,
        force=retry == Retry.all,
    )
    _run(plain_place(source), table or Path(results), asked, settings, retry, limit, dry_run=dry_run, quiet=quiet)


def _run(
    source: str,
    folder: Path,
    workers: Workers,
    settings: Settings,
    retry: Retry | None,
    limit: int | None,
    *,
    dry_run: bool,
    quiet: bool,
) -> None:
    from NLSTSegLib.cohort.catalogue import look_through
    from NLSTSegLib.cohort.clusters import Cluster
    from NLSTSegLib.cohort.places import claim, is_address
    from NLSTSegLib.cohort.report import write_reports
    from NLSTSegLib.cohort.run import run_cases
    from NLSTSegLib.cohort.table import open_table
    from NLSTSegLib.disk.atomic_folder import held
    from NLSTSegLib.errors import STOPPED, InputError

    folders = {folder.absolute()} if is_address(settings.results) else {folder.absolute(), Path(settings.results)}
    with contextlib.ExitStack() as holding:
        for each in sorted(folders):
            holding.enter_context(held(each))
        folder.mkdir(parents=True, exist_ok=True)
        with open_table(folder) as table, _progress(quiet) as progress, Cluster(workers) as cluster:
            if table.source is None:
                table.add_cases(source, look_through(cluster.client(), source, progress.catalogue))
            elif table.source != source:
                raise InputError(f"the cohort in '{folder}' is of another input ({table.source}); choose another folder")
            elif str(folder.absolute()) != settings.results != (table.results or settings.results):
                raise InputError(f"the results of the cohort in '{folder}' lie in {table.results}; give that as --output")
            if retry is not None and not dry_run:
                table.open_again(settings, retry.value)
            elif outdated := table.outdated(settings):
                _say(f"{outdated} cases were done with another model, version or options and are kept (--retry all: again)")
            if dry_run:
                _show_catalogue(table, cluster, settings, quiet=quiet)
                return
            if is_address(settings.results):
                claim(settings.results, table.identifier)
            table.note_results(settings.results)
            stopped = run_cases(table, cluster, settings, limit=limit, tell=progress.tell, begin=progress.begin)
            write_reports(table, settings.results, keep_identity=settings.keep_identity)
            counts = table.counts()
    _say(", ".join(f"{number} {status}" for status, number in sorted(counts.items())))
    if not quiet:
        print(f"written to {settings.results}")
    if stopped:
        _say("stopped; what was under way is written, and the same command goes on")
        raise typer.Exit(STOPPED)
    if counts.get("open") and limit is None and not stopped:
        _say("cases that another run has under way are open; start the same command again")
    if counts.get("failed"):
        _say("cohort.csv says why cases failed; --retry failed does them again")
        raise typer.Exit(InputError.exit_code)


def _say(text: str) -> None:
    print(f"nlstseg: {text}", file=sys.stderr)


def _show_catalogue(table: CohortTable, cluster: Cluster, settings: Settings, *, quiet: bool) -> None:
    """How many chests, what is refused and why, what the headers tell, and how long the run would take."""
    from collections import Counter

    from NLSTSegLib.cohort.forecast import expected_s
    from NLSTSegLib.cohort.report import kind_of_reason

    counts = table.counts()
    lines = [f"{counts.get('open', 0)} chests to do, {counts.get('done', 0)} done, {counts.get('failed', 0)} failed"]
    reasons = Counter(kind_of_reason(row.reason) for row in table.rows("status = 'refused'"))
    lines.append(f"{counts.get('refused', 0)} will be refused" + (":" if reasons else ""))
    lines += [f"  {number} x {reason}" for reason, number in reasons.most_common(SHOWN_REASONS)]
    if counts.get("duplicate"):
        lines.append(f"{counts['duplicate']} are there twice and are done once")
    findings = Counter(code for row in table.rows("status = 'open'") for code in row.header_findings)
    lines += [f"  {number} x {code}" for code, number in findings.most_common()]
    if counts.get("open"):
        client = cluster.client()
        seconds = expected_s(client, table, settings)
        number = sum(client.nthreads().values())
        about = "cannot be told of this model" if seconds is None else f"about {_duration(seconds)}"
        lines.append(f"expected time with {number} workers: {about}")
    if not quiet:
        print("\n".join(lines))


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


class _Progress:
    """What is shown while it runs."""

    def __init__(self, bars: Any) -> None:
        self._bars, self._task = bars, None if bars is None else bars.add_task("", total=None)
        self._done = self._failed = 0

    def _show(self, **values: Any) -> None:
        if self._bars is not None:
            self._bars.update(self._task, **values)

    def catalogue(self, folders: int, cases: int) -> None:
        self._show(description=f"catalogue: {folders} folders, {cases} CTs")

    def begin(self, client: Client, cases: int) -> None:
        self._show(description="0 done, 0 failed", total=cases, completed=0)
        if self._bars is not None:
            self._bars.console.print(f"Dask's dashboard: {client.dashboard_link}", highlight=False, soft_wrap=True)

    def tell(self, outcome: Outcome, again: bool) -> None:
        if again:
            return
        self._done += outcome.status == "done"
        self._failed += outcome.status == "failed"
        self._show(description=f"{self._done} done, {self._failed} failed", completed=self._done + self._failed)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[_Progress]:
    """A bar with done, failed, rate and time left on stderr; with ``quiet`` nothing."""
    if quiet:
        yield _Progress(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    class Rate(TextColumn):
        """Cases an hour."""

        def render(self, task: Any) -> Any:
            from rich.text import Text

            return Text("" if not task.speed else f"{task.speed * 3600:.0f}/h")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""), TimeElapsedColumn())
    with Progress(*columns, TextColumn("remaining"), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        yield _Progress(bars)
