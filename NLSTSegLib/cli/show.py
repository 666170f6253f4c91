"""What the command line shows: progress, tables, findings, models."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.errors import printable
from NLSTSegLib.progress import Progress

if TYPE_CHECKING:
    from NLSTSegLib.checks.preflight import Finding
    from NLSTSegLib.models.bundle import BrokenModel, ModelFiles
    from NLSTSegLib.pipeline import SegmentationResult
    from NLSTSegLib.volume.ct import CtVolume

SEVERITY_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@contextlib.contextmanager
def progress_display(title: str, part: tuple[int, int], *, as_json: bool) -> Iterator[Progress]:
    """A bar on stderr with stage and remaining time, or JSON lines on stdout.

    ``part`` is the number, from 0, of this input and how many there are: each gets a bar, but the JSON fractions run from
    0 to 1 once.
    """
    if as_json:
        yield lambda fraction, stage: _print_json(title, (part[0] + fraction) / part[1], stage)
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


def show_lesions(result: SegmentationResult) -> None:
    """The lesion table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(result.lesions)} lesion(s), probability above {result.threshold:g}")
    headings = ("lesion", "score", "volume mm3", "long x short mm", "mean HU", "solid mm3", "slice")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "lesion" else "right")
    for row in result.to_rows():
        axes = f"{row['long_axis_mm']} x {row['short_axis_mm']}"
        shown = (row["lesion"], row["score"], row["volume_mm3"], axes, row["mean_hu"], row["solid_volume_mm3"], row["slice"])
        table.add_row(*(str(value) for value in shown))
    Console().print(table)


def show_place(folder: Path, what: str = "written to") -> None:
    """Where the files are; a name may hold anything, so it is shown as :func:`NLSTSegLib.errors.printable` makes it."""
    print(printable(f"{what} {folder}"))


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
    """Name, version, size and card of every model; on stderr, those that cannot be used and why."""
    if not models:
        print("no models are installed", file=sys.stderr)
    for model in models:
        card = model.card
        size_mb = model.weights.stat().st_size / 1e6 if model.weights.exists() else 0.0
        print(f"{card.name} {card.version} ({model.origin}, {size_mb:.1f} MB)")
        for heading, text in (
            ("what", card.description),
            ("trained on", card.training_data),
            ("spacing", card.spacing_note),
            ("use", card.intended_use),
            ("licence", card.licence),
            ("attribution", card.attribution),
        ):
            print(f"  {heading}: {text}")
        for name, value in card.metrics.items():
            print(printable(f"  {name}: {value}"))
    for each in broken:
        print(printable(f"{each.name} ({each.origin}) cannot be used: {each.reason}"), file=sys.stderr)
