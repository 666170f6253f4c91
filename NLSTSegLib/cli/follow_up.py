"""``nlstseg follow-up``: read, outline or take lesions, compare, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from NLSTSegLib.cli.inputs import Case, load_case, stem
from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.compare import FollowUp, Options, days_of, follow_up
from NLSTSegLib.followup.folder import PICTURE_FILE, write_follow_up
from NLSTSegLib.followup.inputs import read_pairs, read_point
from NLSTSegLib.followup.registration import register
from NLSTSegLib.followup.registration_files import check_place, write_registration
from NLSTSegLib.followup.table import growth_text
from NLSTSegLib.followup.time_point import TimePoint, of_result
from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions, segment
from NLSTSegLib.progress import Progress
from NLSTSegLib.results.report import voxels_sha256
from NLSTSegLib.volume.ct import to_canonical
from NLSTSegLib.volume.regular_grid import slice_stack, to_regular

NO_RESULT = "-"
"""Stands in the place of a result: the CT is to be segmented."""


@dataclass(frozen=True)
class FollowUpJob:
    """What was asked for."""

    inputs: Sequence[Path]
    output: Path
    days: Sequence[float]
    dates: Sequence[str]
    results: Sequence[Path]
    pairs: Path | None
    model: str
    segment_options: SegmentOptions
    options: Options


def run_follow_up(job: FollowUpJob, *, as_json: bool, quiet: bool) -> None:
    """Do it and print what was found; raises :class:`InputError` for what cannot be used, before anything takes long."""
    from NLSTSegLib.cli.show import progress_display, show_findings, show_place

    count = len(job.inputs)
    if count < 2:
        raise InputError("a follow-up needs two CTs or more; name the baseline first, then the later ones")
    if job.results and len(job.results) != count:
        raise InputError(f"there are {count} CTs and {len(job.results)} --result; give one for each, '-' for a CT to segment")
    if job.days and job.dates:
        raise InputError("give either --days or --dates")
    check_place(job.output)
    given_days = _days(job, count)
    with progress_display("", (0, 1), as_json=as_json, quiet=quiet) as progress:
        points, results, hashes, dates = _points(job, progress)
        days = given_days or (None if given_days == [] else days_of(dates))
        by_hand = read_pairs(job.pairs, points) if job.pairs else ()
        compared = follow_up(points, days, job.options, by_hand, lambda done, stage: progress(0.6 + 0.3 * done, stage))
        write_follow_up(compared, job.output, hashes, results, lambda done, stage: progress(0.9 + 0.1 * done, stage))
    show_findings(compared.findings)
    if not as_json:
        if not quiet:
            _show_tracks(compared)
        show_place(job.output)
        show_place(job.output / PICTURE_FILE, "look at")


def run_register(baseline: Path, followup: Path, output: Path, *, as_json: bool, quiet: bool) -> None:
    """``nlstseg register``: two CTs, and the transform of places of the one to the other, or why there is none."""
    from NLSTSegLib.checks.preflight import check_ct, stop_on_errors
    from NLSTSegLib.cli.show import progress_display, show_place

    check_place(output)
    with progress_display("", (0, 1), as_json=as_json, quiet=quiet) as progress:
        cts = []
        for n, path in enumerate((baseline, followup)):
            progress(0.1 * n, f"read CT {n + 1}")
            ct, _series = load_case(Case(path, stem(path)))
            stop_on_errors(check_ct(ct))
            cts.append(to_canonical(to_regular(ct, slice_stack(ct))))
        found = register(cts[0], cts[1], lambda done, stage: progress(0.2 + 0.8 * done, stage))
        write_registration(found, output)
    if not as_json:
        show_place(output)
        print(f"not registered: {found.refusal}" if found.refusal else f"registered, correlation {found.correlation:.2f}")


def _days(job: FollowUpJob, count: int) -> list[float] | None:
    """Days of every CT since the first as they were asked for; ``None`` where the headers are to tell."""
    if job.dates:
        if len(job.dates) != count:
            raise InputError(f"there are {count} CTs and {len(job.dates)} --dates; give one for each")
        return days_of(job.dates)
    if job.days:
        if len(job.days) != count - 1:
            raise InputError(f"there are {count} CTs and {len(job.days)} --days; give {count - 1}: from every CT to the next")
        days = [0.0]
        for step in job.days:
            days.append(days[-1] + step)
        return days
    return None


def _points(job: FollowUpJob, progress: Progress) -> tuple[list[TimePoint], dict[int, SegmentationResult], list[str], list[str]]:
    from NLSTSegLib.checks.preflight import check_ct, stop_on_errors
    from NLSTSegLib.models.bundle import find_model, load_model

    wanted = [str(result) == NO_RESULT for result in job.results] or [True] * len(job.inputs)
    model = load_model(find_model(job.model)) if any(wanted) else None
    points, results, hashes, dates = [], {}, [], []
    share = 0.6 / len(job.inputs)
    for n, path in enumerate(job.inputs):
        start = share * n
        progress(start, f"read CT {n + 1}")
        ct, _series = load_case(Case(path, stem(path)))
        stop_on_errors(check_ct(ct))
        hashes.append(voxels_sha256(ct))
        dates.append(ct.acquisition.date)
        if model is not None and wanted[n]:

            def report(done: float, stage: str, n: int = n, start: float = start) -> None:
                progress(start + share * done, f"CT {n + 1} {stage}")

            results[n] = segment(ct, model, job.segment_options, report)
            points.append(of_result(results[n]))
        else:
            points.append(read_point(job.results[n], ct))
    if len(set(hashes)) == 1 and not (job.days or job.dates):
        # The same CT twice is a way to try the command; its date says nothing.
        dates = [""] * len(dates)
    return points, results, hashes, dates


def _show_tracks(compared: FollowUp) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(compared.tracks)} track(s)")
    for heading in ("track", "CTs", "what", "earlier", "later", "change of the volume"):
        table.add_column(heading)
    for track in compared.tracks:
        for t, step in enumerate(track.steps, start=1):
            if step is None:
                continue
            change = compared.change(track, t, t - 1)
            names = (" + ".join(one.name for one in compared.lesions(track, n)) for n in (t - 1, t))
            what = f"{step.kind}{' (by hand)' if step.by_hand else ''}{' (ambiguous)' if step.ambiguous else ''}"
            told = growth_text(change.growth) if change else ""
            if not change and step.probability is not None:
                told = f"probability at its place {step.probability:.2f}"
            table.add_row(str(track.number), f"{t}-{t + 1}", what, *names, told)
    Console().print(table)
