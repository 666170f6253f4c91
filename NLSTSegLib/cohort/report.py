"""What a cohort leaves to look at: ``cohort.csv``, ``lesions.csv`` and ``cohort.html``, without identity unless it is wanted."""

from __future__ import annotations

import base64
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from typing import Any

from NLSTSegLib.cohort.places import fetched, written_to
from NLSTSegLib.cohort.table import CohortTable, Recorded
from NLSTSegLib.disk.atomic_file import atomic_file, write_text
from NLSTSegLib.disk.csv_table import write_table
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.rows import COLUMNS as LESION_COLUMNS
from NLSTSegLib.results.folder import PREVIEW_FILE, TABLE_FILE
from NLSTSegLib.results.preview import cut_out_box
from NLSTSegLib.results.tables import CASE_COLUMN

COHORT_TABLE, COHORT_PAGE = "cohort.csv", "cohort.html"

COLUMNS = (
    *("case", "status", "reason", "lesions", "largest_mm", "least_score", "findings", "slices", "seconds", "peak_memory_mb"),
    *("worker", "weights_sha256", "version", "finished"),
)
"""Columns of ``cohort.csv``."""

IDENTITY_COLUMNS = ("path", "patient", "study", "series", "date")
"""The same with identity."""

SHOWN, SHOWN_FAILURES = 24, 100
"""Cut-outs of a contact sheet, and failures named."""

THUMBNAIL_PX, THUMBNAIL_QUALITY = 150, 75

HISTOGRAMS = (
    ("Lesions of a case", "lesions", 1.0, 20),
    ("Mean diameter, mm", "mean_diameter_mm", 2.0, 20),
    ("Score", "score", 0.05, 20),
    ("Mean HU", "mean_hu", 50.0, 24),
)
"""Heading, column, width of a bar, and most bars: the last takes what lies above."""


def write_reports(table: CohortTable, results: str, *, keep_identity: bool) -> None:
    """Write the three files beside the results, into the folder or to the address ``results``."""
    columns = (*COLUMNS, *IDENTITY_COLUMNS) if keep_identity else COLUMNS
    with written_to(results) as folder:
        with atomic_file(folder / COHORT_TABLE) as partial:
            write_table(partial, columns, (_row(one) for one in table.rows()))
        with atomic_file(folder / TABLE_FILE) as partial:
            done = table.rows("status = 'done'")
            lesions = ({CASE_COLUMN: one.name, **lesion} for one in done for lesion in one.lesions)
            write_table(partial, (CASE_COLUMN, *LESION_COLUMNS), lesions)
        write_text(folder / COHORT_PAGE, make_page(table, results))


def _row(one: Recorded) -> dict[str, str | int | float]:
    return {
        "case": one.name,
        "status": one.status,
        "reason": one.reason,
        "lesions": len(one.lesions) if one.status == "done" else "",
        "largest_mm": largest_mm(one) or "",
        "least_score": "" if (score := least_score(one)) is None else score,
        "findings": " ".join(finding.partition(" ")[2] for finding in one.findings),
        "slices": one.slices,
        "seconds": "" if one.seconds is None else one.seconds,
        "peak_memory_mb": "" if one.peak_mb is None else one.peak_mb,
        **{name: getattr(one, name) for name in ("worker", "weights_sha256", "version", "finished")},
        **{name: getattr(one, name) for name in ("patient", "study", "series", "date")},
        "path": " ".join(one.places),
    }


def largest_mm(one: Recorded) -> float:
    """Mean diameter of the largest lesion; 0 without one."""
    return max((float(lesion["mean_diameter_mm"]) for lesion in one.lesions), default=0.0)


def least_score(one: Recorded) -> float | None:
    """Score of the least sure lesion; ``None`` without one."""
    return min((float(lesion["score"]) for lesion in one.lesions), default=None)


def kind_of_reason(reason: str) -> str:
    """The same for reasons that differ in numbers alone."""
    return re.sub(r"\d+(?:\.\d+)?", "#", reason)


def make_page(table: CohortTable, results: str) -> str:
    """The page: one file, which needs neither a network nor another file, with links to the results beside it."""
    import jinja2

    reasons, findings = Counter[str](), Counter[str]()
    values: dict[str, list[float]] = {column: [] for _, column, _, _ in HISTOGRAMS}
    seconds = []
    names, largest, unsure = [], [], []
    failures: list[tuple[str, str, str]] = []
    versions = set()
    for one in table.rows():
        if one.status in ("failed", "refused"):
            reasons[kind_of_reason(one.reason)] += 1
            if len(failures) < SHOWN_FAILURES:
                failures.append((one.name, one.status, one.reason))
        if one.status != "done":
            continue
        names.append(one.name)
        versions.add((one.weights_sha256[:12], one.version))
        seconds.append(one.seconds or 0.0)
        findings.update(one.findings)
        values["lesions"].append(len(one.lesions))
        for _, column, _, _ in HISTOGRAMS[1:]:
            values[column] += [float(lesion[column]) for lesion in one.lesions]
        if one.lesions:
            sizes = [float(lesion["mean_diameter_mm"]) for lesion in one.lesions]
            scores = [float(lesion["score"]) for lesion in one.lesions]
            largest.append((-max(sizes), one.name, sizes.index(max(sizes)), len(sizes)))
            unsure.append((min(scores), one.name, scores.index(min(scores)), len(sizes)))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files(__package__) / "page.html").read_text(encoding="utf-8"))
    return template.render(
        counts=table.counts(),
        versions=sorted(versions),
        hours=sum(seconds) / 3600,
        median_s=sorted(seconds)[len(seconds) // 2] if seconds else 0.0,
        reasons=reasons.most_common(),
        failures=failures,
        findings=findings.most_common(),
        histograms=[(heading, _bars(values[column], width, most)) for heading, column, width, most in HISTOGRAMS],
        largest=_sheet(((f"{-size:.0f} mm", *rest) for size, *rest in sorted(largest)[:SHOWN]), results),
        unsure=_sheet(((f"score {score:.2f}", *rest) for score, *rest in sorted(unsure)[:SHOWN]), results),
        names=names,
        preview=PREVIEW_FILE,
    )


def _bars(values: Sequence[float], width: float, most: int) -> list[tuple[str, int, float]]:
    """Text, number and share of the highest for every bar, from the lowest value to the highest."""
    if not values:
        return []
    # 0.5 is ten times 0.05, whatever the computer thinks of it.
    numbers = [math.floor(value / width + 1e-9) for value in values]
    first = min(numbers)
    counts = Counter(min(number - first, most - 1) for number in numbers)
    highest = max(counts.values())
    texts = [f"{(first + n) * width:g}{'+' if n == most - 1 else ''}" for n in range(max(counts) + 1)]
    return [(text, counts[n], counts[n] / highest) for n, text in enumerate(texts)]


def _sheet(subjects: Iterable[tuple[Any, ...]], results: str) -> Iterator[tuple[str, str, str]]:
    """Name, caption and picture (a data URI; empty where there is none) of every subject."""
    for caption, name, lesion, lesions in subjects:
        yield name, caption, _thumbnail(f"{results}/{name}/{PREVIEW_FILE}", cut_out_box(lesion, lesions))


def _thumbnail(preview: str, box: tuple[int, int, int, int]) -> str:
    from PIL import Image

    try:
        with fetched([preview]) as (path,), Image.open(path) as page:
            picture = page.crop(box).resize((THUMBNAIL_PX, THUMBNAIL_PX)).convert("RGB")
    except (OSError, InputError):
        # Somebody has taken the result away; the table still tells of it.
        return ""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=THUMBNAIL_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
