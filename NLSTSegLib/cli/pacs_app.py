"""``nlstseg pacs``: the commands that speak to a PACS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from NLSTSegLib.cli.options import AsJson, Debug, Device, JsonProgress, Model, Quiet, SegTypeName, Threads
from NLSTSegLib.cli.usage import add_command, new_app
from NLSTSegLib.dicom.codes import SegType

ServerName = Annotated[
    str, typer.Option("--server", help="Name of a server in servers.toml (~/.nlstseg, or NLSTSEG_SERVERS).", show_default=False)
]
PatientId = Annotated[str, typer.Option(help="Of the patient; * and ? stand for any letters.", show_default=False)]
PatientName = Annotated[str, typer.Option(help="As 'Family^Given'; * and ? stand for any letters.", show_default=False)]
Date = Annotated[str, typer.Option(help="Of the study: YYYYMMDD, or YYYYMMDD-YYYYMMDD.", show_default=False)]
Accession = Annotated[str, typer.Option(help="Accession number.", show_default=False)]
StudyUid = Annotated[str, typer.Option("--study", help="StudyInstanceUID.", show_default=False)]


def echo(server: ServerName, debug: Debug = False) -> None:
    """Ask a PACS whether it answers, by C-ECHO or a query."""
    from NLSTSegLib.pacs.connect import archive_at

    typer.echo(archive_at(server).echo())


def find(
    server: ServerName,
    patient_id: PatientId = "",
    patient_name: PatientName = "",
    date: Date = "",
    accession: Accession = "",
    study: StudyUid = "",
    series: Annotated[bool, typer.Option("--series", help="List the series of each study too.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List studies with CT: UID, date, description, accession number, patient's ID and name."""
    from NLSTSegLib.cli.pacs import query, show_studies

    show_studies(server, query(patient_id, patient_name, date, accession, study), with_series=series, as_json=as_json)


def pull(
    server: ServerName,
    study: StudyUid,
    output: Annotated[Path, typer.Option("--output", "-o", help="New or empty folder, one folder a series.", show_default=False)],
    series: Annotated[
        str, typer.Option(help="SeriesInstanceUID of the one to fetch, of any kind (default: all CT series).", show_default=False)
    ] = "",
    json_progress: JsonProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fetch the CT series of a study, or one series, into a folder."""
    from NLSTSegLib.cli.pacs import pull_study

    pull_study(server, study, series, output, as_json=json_progress, quiet=quiet)


def push(
    server: ServerName,
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders with such.", show_default=False)],
    json_progress: JsonProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Store DICOM files, images before SEG before SR, and ask whether all are there; it may be repeated."""
    from NLSTSegLib.cli.pacs import push_files

    push_files(server, files, as_json=json_progress, quiet=quiet)


def run(
    server: ServerName,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder in which studies are kept until they are done; the same for the next run."),
    ],
    patient_id: PatientId = "",
    patient_name: PatientName = "",
    date: Date = "",
    accession: Accession = "",
    study: StudyUid = "",
    model: Model = "lidc-25d",
    seg_type: SegTypeName = SegType.BINARY,
    device: Device = "auto",
    threads: Threads = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Do at most so many studies.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the studies that would be done, and do nothing.")] = False,
    json_progress: JsonProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Do a worklist: fetch each study with CT that has no SEG or SR of this model, segment it, store both, and look.

    A study that fails does not keep the others from being done. Run it again, it goes on where it was.
    """
    from NLSTSegLib.cli.batch import SegmentJob, Telling
    from NLSTSegLib.cli.pacs import query
    from NLSTSegLib.cli.pacs_run import run_worklist
    from NLSTSegLib.pipeline import SegmentOptions

    options = SegmentOptions(device=device, threads=threads)
    job = SegmentJob(output=output, model=model, options=options, seg_type=seg_type)
    asked = query(patient_id, patient_name, date, accession, study)
    run_worklist(server, asked, job, Telling(json_progress, quiet, debug=debug), dry_run=dry_run, limit=limit)


def _group() -> None:
    """A PACS, over DIMSE or DICOMweb: find studies, fetch them, store SEG and SR, do a worklist."""


def make_pacs_app() -> typer.Typer:
    """The commands below ``nlstseg pacs``."""
    made = new_app(_group.__doc__ or "")
    for command in (echo, find, pull, push, run):
        add_command(made, command)
    return made
