"""What the command line shows: progress, tables, findings, models."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NLSTSegLib.errors import printable
from NLSTSegLib.progress import Progress, silent

if TYPE_CHECKING:
    from NLSTSegLib.checks.preflight import Finding
    from NLSTSegLib.models.bundle import BrokenModel, ModelFiles
    from NLSTSegLib.pipeline import SegmentationResult
    from NLSTSegLib.results.saved import Summary
    from NLSTSegLib.volume.ct import CtVolume

SEVERITY_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@contextlib.contextmanager
def progress_display(title: str, part: tuple[int, int], *, as_json: bool, quiet: bool = False) -> Iterator[Progress]:
    """A bar on stderr with stage and remaining time, or JSON lines on stdout, or with ``quiet`` nothing.

    ``part`` is the number, from 0, of this input and how many there are: each gets a bar, but the JSON fractions run from
    0 to 1 once.
    """
    if as_json:
        yield lambda fraction, stage: _print_json(title, (part[0] + fraction) / part[1], stage)
        return
    if quiet:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
    with Bars(*columns, TextColumn("remaining"), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task("read", total=1.0)

        def show(fraction: float, stage: str) -> None:
            bars.update(task, completed=fraction, description=f"{title} {stage}".strip())

        yield show


def _print_json(title: str, fraction: float, stage: str) -> None:
    message = f"{title} {stage}, {fraction:.0%}".strip()
    print(json.dumps({"stage": stage, "fraction": round(fraction, 4), "message": message}), flush=True)


def print_end_line(cases: Sequence[dict[str, Any]]) -> None:
    """The last JSON line: for every case the number of lesions, paths of the result, findings, and the error or nothing."""
    failed = sum(bool(case["error"]) for case in cases)
    message = f"{len(cases) - failed} of {len(cases)} done"
    print(json.dumps({"stage": "end", "fraction": 1.0, "message": message, "cases": list(cases)}), flush=True)


def show_lesions(result: SegmentationResult | Summary) -> None:
    """The lesion table."""
    from rich.console import Console
    from rich.table import Table

    rows = result.to_rows()
    table = Table(title=f"{len(rows)} lesion(s), probability above {result.threshold:g}")
    headings = ("lesion", "score", "volume mm3", "long x short mm", "mean HU", "solid mm3", "slice")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "lesion" else "right")
    for row in rows:
        axes = f"{row['long_axis_mm']} x {row['short_axis_mm']}"
        shown = (row["lesion"], row["score"], row["volume_mm3"], axes, row["mean_hu"], row["solid_volume_mm3"], row["slice"])
        table.add_row(*(str(value) for value in shown))
    Console().print(table)


def show_place(folder: Path, what: str = "written to") -> None:
    """Where the files are; a name may hold anything, so it is shown as :func:`NLSTSegLib.errors.printable` makes it."""
    print(printable(f"{what} {folder}"))


def show_details(result: SegmentationResult | Summary) -> None:
    """Prints by which model, where, and in how many seconds a result was made."""
    print(f"model {result.card.name} {result.card.version}, lung field {result.lung_field_note}, {result.device_note}")
    print(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items()))


def show_findings(findings: Sequence[Finding]) -> None:
    """One line a finding on stderr."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    for finding in findings:
        style = SEVERITY_STYLE[finding.severity]
        fix = f" {escape(finding.fix)}" if finding.fix else ""
        console.print(
            f"[{style}]{finding.severity}[/] {finding.code}: {escape(finding.message)}{fix}", highlight=False, soft_wrap=True
        )


def show_volume(ct: CtVolume) -> None:
    """Size, spacing and orientation of a CT in a few lines, and nothing that says whose it is."""
    size = " x ".join(str(n) for n in ct.hu.shape[::-1])
    spacing = " x ".join(f"{step:.4g}" for step in ct.spacing_ijk_mm)
    facts = ct.acquisition
    print(f"{facts.format} {facts.modality}".strip())
    print(f"{size} voxels of {spacing} mm, orientation {ct.orientation}")


def show_models(models: Sequence[ModelFiles], broken: Sequence[BrokenModel]) -> None:
    """Name, version, size, card and figures of every model in words; on stderr, those that cannot be used and why."""
    from NLSTSegLib.models.figures import measured_lines

    if not models:
        print("no models are installed", file=sys.stderr)
    for model in models:
        card = model.card
        print(f"{card.name} {card.version} ({model.origin}, {_size_bytes(model) / 1e6:.1f} MB)")
        for heading, text in (
            ("what", card.description),
            ("trained on", card.training_data),
            ("spacing", card.spacing_note),
            ("use", card.intended_use),
            ("licence", card.licence),
            ("attribution", card.attribution),
        ):
            print(_wrapped(f"{heading}: {text}"))
        for line in measured_lines(card.metrics):
            print(_wrapped(f"measured: {line}"))
    for each in broken:
        print(printable(f"{each.name} ({each.origin}) cannot be used: {each.reason}"), file=sys.stderr)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, shutil.get_terminal_size().columns, initial_indent="  ", subsequent_indent="    ")


def print_models(models: Sequence[ModelFiles], broken: Sequence[BrokenModel]) -> None:
    """The same as one JSON object: the cards, without the hashes of training scans, and what cannot be used."""
    listed = []
    for model in models:
        card = dataclasses.asdict(model.card)
        del card["training_cases"]
        listed.append({"origin": model.origin, "bytes": _size_bytes(model), "card": card})
    refused = [{"origin": each.origin, "name": each.name, "reason": each.reason} for each in broken]
    print(json.dumps({"models": listed, "broken": refused}))


def _size_bytes(model: ModelFiles) -> int:
    return model.weights.stat().st_size if model.weights.exists() else 0
