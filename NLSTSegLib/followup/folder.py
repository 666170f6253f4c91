"""A follow-up as a folder of files, whole or not at all, without anything that says whose CTs they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from NLSTSegLib import __version__
from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.disk.csv_table import write_table
from NLSTSegLib.followup.compare import FollowUp
from NLSTSegLib.followup.page import html_of
from NLSTSegLib.followup.picture import page_of
from NLSTSegLib.followup.registration_files import RegistrationFacts, check_place
from NLSTSegLib.followup.table import COLUMNS, rows
from NLSTSegLib.followup.volume_error import source_text
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.progress import Progress, silent
from NLSTSegLib.results.folder import write_result
from NLSTSegLib.results.report import PROGRAM

PAIRS_FILE, REPORT_FILE, PICTURE_FILE, PAGE_FILE = "pairs.csv", "follow-up.json", "follow-up.png", "follow-up.html"

SCHEMA = 1
"""Version of the form of ``follow-up.json``."""


def folder_names(count: int) -> list[str]:
    """Names of the results of ``count`` CTs."""
    return ["baseline", "followup", *(f"followup-{n}" for n in range(2, count))]


def write_follow_up(
    follow_up: FollowUp,
    folder: Path,
    hashes: Sequence[str],
    results: Mapping[int, SegmentationResult],
    progress: Progress = silent,
) -> None:
    """Write the follow-up into a new or empty folder.

    ``hashes`` are those of the voxels of every CT; ``results`` the runs, by the number of the CT from 0, that were made for it.
    Raises :class:`InputError` when the folder holds anything or cannot be written.
    """
    import SimpleITK as sitk

    names = folder_names(len(follow_up.points))
    with held(folder):
        check_place(folder)
        with atomic_folder(folder) as partial:
            for done, (n, result) in enumerate(results.items()):
                progress(0.6 * done / len(results), "write results")
                write_result(result, partial / names[n], save_probability=True)
            progress(0.6, "write pictures")
            write_table(partial / PAIRS_FILE, COLUMNS, rows(follow_up))
            page_of(follow_up).save(partial / PICTURE_FILE, format="PNG")
            (partial / PAGE_FILE).write_text(html_of(follow_up), encoding="utf-8")
            progress(0.9, "write report")
            for n, registration in enumerate(follow_up.registrations):
                if registration is not None and registration.is_accepted:
                    sitk.WriteTransform(registration.transform, str(partial / f"{names[n]}-to-{names[n + 1]}.h5"))
            text = json.dumps(report_of(follow_up, hashes), indent=2, ensure_ascii=False)
            (partial / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    progress(1.0, "done")


def report_of(follow_up: FollowUp, hashes: Sequence[str]) -> dict[str, Any]:
    """``follow-up.json`` as plain values; days and no dates, since dates help to tell whose CTs they are."""
    points = [
        {
            "voxels_sha256": sha256,
            "outlined_by": point.by,
            "lesions": len(point.lesions),
            "size_ijk": list(point.ct.hu.shape[::-1]),
            "spacing_ijk_mm": list(point.ct.spacing_ijk_mm),
            "slice_mm": point.slice_mm,
            "kernel": point.ct.acquisition.kernel,
        }
        for point, sha256 in zip(follow_up.points, hashes, strict=True)
    ]
    registrations = [None if one is None else asdict(RegistrationFacts.of(one)) for one in follow_up.registrations]
    recist = [follow_up.recist(t) for t in range(1, len(follow_up.points))]
    return {
        "schema": SCHEMA,
        "program": {"name": PROGRAM, "version": __version__},
        "notice": "Research only; not for clinical use.",
        "days": None if follow_up.days is None else list(follow_up.days),
        "cts": points,
        "registrations": registrations,
        "volume_error": source_text(follow_up.options.cv),
        "gate_mm": follow_up.options.gate_mm,
        "findings": [asdict(finding) for finding in follow_up.findings],
        "recist": [None if rule is None else asdict(rule) for rule in recist],
        "tracks": [
            {
                "track": track.number,
                "lesions": [[one.name for one in follow_up.lesions(track, t)] for t in range(len(follow_up.points))],
                "steps": [None if step is None else str(step.kind) for step in track.steps],
            }
            for track in follow_up.tracks
        ],
        "pairs": rows(follow_up),
    }
