"""``nlstseg pacs run``: the worklist, one study after another."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from NLSTSegLib.cli.batch import SegmentJob, Telling, run_one
from NLSTSegLib.cli.inputs import Case
from NLSTSegLib.cli.run import print_error
from NLSTSegLib.cli.show import progress_display, show_findings
from NLSTSegLib.errors import NLSTSegError, PacsError
from NLSTSegLib.models.bundle import find_model, load_model
from NLSTSegLib.pacs.archive import StoreRefusedError, StudyQuery
from NLSTSegLib.pacs.connect import archive_at
from NLSTSegLib.pacs.worklist import Worklist

if TYPE_CHECKING:
    from pathlib import Path

    from NLSTSegLib.models.bundle import Model
    from NLSTSegLib.pacs.archive import Series
    from NLSTSegLib.progress import Progress


def run_worklist(server: str, asked: StudyQuery, job: SegmentJob, telling: Telling, *, dry_run: bool, limit: int | None) -> None:
    """Do every study of ``asked`` that is not done; one that fails does not keep the others from being done.

    Lines of progress count the studies and do not name them. A PACS that does not answer any more ends the run. Raises
    :class:`typer.Exit` with the code of the first failure.
    """
    archive = archive_at(server)
    files = find_model(job.model)
    worklist = Worklist(archive, (files.card.name, files.card.version), job.output)
    model: Model | None = None
    tried, exit_codes = 0, []
    studies = archive.studies(asked)
    for n, study in enumerate(studies, start=1):
        if tried == limit:
            break
        if not (ct_series := worklist.open_series(study.uid)):
            continue
        tried += 1
        if dry_run:
            print(study.uid)
            continue
        model = model or load_model(files)
        try:
            with progress_display(
                f"{n} of {len(studies)}", (n - 1, len(studies)), as_json=telling.json_progress, quiet=telling.quiet
            ) as progress:
                _do(worklist, ct_series, job, model, progress)
        except NLSTSegError as error:
            print_error(error, telling.debug)
            exit_codes.append(error.exit_code)
            if isinstance(error, PacsError) and not isinstance(error, StoreRefusedError):
                # It was that study alone where the PACS still answers.
                archive.echo()
    if not telling.quiet:
        what = "to be done" if dry_run else "done now"
        print(f"{tried - len(exit_codes)} of {len(studies)} studies {what}", file=sys.stderr)
    if exit_codes:
        print(f"nlstseg: {len(exit_codes)} of {tried} studies failed; run it again to try them again", file=sys.stderr)
        raise typer.Exit(exit_codes[0])


def _do(worklist: Worklist, ct_series: list[Series], job: SegmentJob, model: Model, progress: Progress) -> None:
    def segment(ct: Path, result: Path) -> None:
        done = run_one(Case(ct, ""), result, job, model, progress)
        show_findings([finding for finding in done.findings if finding.severity != "info"])

    worklist.do(ct_series, segment, lambda images: progress(0.0, f"pull {images}"))
