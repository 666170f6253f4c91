"""What ``nlstseg pacs`` does and shows."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from NLSTSegLib.cli.show import progress_display, show_place
from NLSTSegLib.errors import InputError, PacsError
from NLSTSegLib.pacs.archive import Series, Study, StudyQuery
from NLSTSegLib.pacs.connect import archive_at
from NLSTSegLib.pacs.transfer import objects_in, pull_series, push_objects

DATE = re.compile(r"(\d{8})?(-\d{8}|\d{8}-)?")


def query(patient_id: str, patient_name: str, date: str, accession: str, study_uid: str) -> StudyQuery:
    """Raises :class:`InputError` for a date that a PACS would not understand."""
    if not DATE.fullmatch(date):
        raise InputError(f"'{date}' is no date; write YYYYMMDD, or YYYYMMDD-YYYYMMDD")
    return StudyQuery(patient_id, patient_name, date, accession, study_uid)


def show_studies(server: str, asked: StudyQuery, *, with_series: bool, as_json: bool) -> None:
    """Studies on stdout, one a line, or as one JSON list; they are whose they are."""
    archive = archive_at(server)
    found = [(study, archive.series(study.uid) if with_series else []) for study in archive.studies(asked)]
    if as_json:
        print(json.dumps([_facts(study, series, with_series) for study, series in found], ensure_ascii=False, indent=1))
    for study, series in [] if as_json else found:
        print("\t".join((study.uid, study.date, study.description, study.accession, study.patient_id, study.patient_name)))
        for one in series:
            count = "" if one.instances is None else f"{one.instances} images"
            print("\t".join(("", one.uid, one.modality, one.number, one.description, count)))
    if not found:
        print("no study with CT was found", file=sys.stderr)


def _facts(study: Study, series: Sequence[Series], with_series: bool) -> dict[str, object]:
    return {**asdict(study), **({"series": [asdict(one) for one in series]} if with_series else {})}


def pull_study(server: str, study_uid: str, series_uid: str, output: Path, *, as_json: bool, quiet: bool) -> None:
    """The CT series of a study, or the one called ``series_uid``, into ``output``."""
    archive = archive_at(server)
    there = archive.series(study_uid)
    wanted = [one for one in there if (one.uid == series_uid if series_uid else one.modality == "CT")]
    if not wanted:
        what = f"no series {series_uid}" if series_uid else "no CT series"
        raise PacsError(f"the PACS at {archive.place} has {what} in that study, but {len(there)} series; look with find --series")
    total = sum(one.instances or 0 for one in wanted)
    with counted("pull", total, as_json=as_json, quiet=quiet) as progress:
        pull_series(archive, wanted, output, progress)
    if not (as_json or quiet):
        show_place(output)


def push_files(server: str, files: Sequence[Path], *, as_json: bool, quiet: bool) -> None:
    """Store DICOM files, and ask whether they are there."""
    objects = objects_in(files)
    archive = archive_at(server)
    with counted("push", len(objects), as_json=as_json, quiet=quiet) as progress:
        push_objects(archive, objects, progress)
    if not (as_json or quiet):
        print(f"{len(objects)} object(s) are in the PACS", file=sys.stderr)


@contextmanager
def counted(stage: str, total: int, *, as_json: bool, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Progress in objects, of which there are ``total``, or 0 where nobody knows."""
    with progress_display("", (0, 1), as_json=as_json, quiet=quiet) as progress:
        yield lambda done: progress(min(1.0, done / total) if total else 0.0, f"{stage} {done}")
