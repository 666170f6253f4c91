"""``nlstseg segment``: one CT after another, each written whole or not at all, and what is told of them at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from NLSTSegLib.cli.inputs import Case, find_cases, load_case
from NLSTSegLib.cli.run import print_error
from NLSTSegLib.errors import InputError, NLSTSegError, printable
from NLSTSegLib.progress import Progress, silent, stage_of

if TYPE_CHECKING:
    from NLSTSegLib.dicom.codes import SegType
    from NLSTSegLib.models.bundle import Model
    from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions
    from NLSTSegLib.results.saved import Summary

READ_SHARE = 0.05
"""Part of the progress bar before the segmentation."""

FILE_ENDINGS = (".nii", ".gz", ".nrrd", ".mha", ".mhd", ".csv", ".json", ".png", ".dcm", ".zip")
"""A name that ends so is meant for a file, and would become a folder."""


@dataclass(frozen=True)
class SegmentJob:
    """What ``nlstseg segment`` does with every input."""

    output: Path
    """Folder, or with ``labels_only`` the one file."""
    model: str
    options: SegmentOptions
    lung_field: str = "auto"
    series: str | None = None
    all_series: bool = False
    skip_unreadable: bool = False
    save_probability: bool = False
    image_format: Literal["nrrd", "nifti"] = "nrrd"
    labels_only: bool = False
    force: bool = False
    skip_existing: bool = False
    keep_identity: bool = False
    seg_type: SegType | None = None
    """Kind of the DICOM SEG that is written, with an SR, beside the other files; ``None`` for neither."""


@dataclass(frozen=True)
class Telling:
    """How much is said, and to whom."""

    json_progress: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


def run_jobs(inputs: Sequence[Path], job: SegmentJob, telling: Telling) -> None:
    """Segment every input; one that fails does not keep the others from being done.

    Lines of progress count the inputs and do not name them: they go into logs, and a name of a file is often a patient's.
    Raises :class:`InputError` for what is wrong before the work, and :class:`typer.Exit` with the code of the first failure.
    """
    from NLSTSegLib.cli.show import print_end_line, progress_display, show_details, show_findings, show_lesions, show_place
    from NLSTSegLib.disk.scratch import remove_dead_folders
    from NLSTSegLib.models.bundle import find_model, load_model
    from NLSTSegLib.results.overview import check_overview, write_overview

    remove_dead_folders()
    _check_output_name(job)
    cases, several = find_cases(inputs, all_series=job.all_series, skip_unreadable=job.skip_unreadable)
    if several and job.labels_only:
        raise InputError("--labels-only writes one file, so it takes one CT; for several use --output and a folder")
    if several and job.series:
        raise InputError("--series chooses in one DICOM folder, so it takes one input")
    folders = [job.output / case.name if several else job.output for case in cases]
    for folder in folders:
        _check_place(folder, job)
    if several:
        check_overview(job.output)
    model = load_model(find_model(job.model))
    told: list[dict[str, Any]] = []
    exit_codes = []
    for n, (case, folder) in enumerate(zip(cases, folders, strict=True)):
        title = f"{n + 1} of {len(cases)}" if several else ""
        try:
            with progress_display(title, (n, len(cases)), as_json=telling.json_progress, quiet=telling.quiet) as progress:
                result = run_one(case, folder, job, model, progress, several=several)
        except NLSTSegError as error:
            if not several and not telling.json_progress:
                raise
            print_error(error, telling.debug)
            # Not the error itself, whose traceback holds the CT in the memory.
            exit_codes.append(error.exit_code)
            told.append({"case": case.name if several else "", "count": None, "paths": [], "findings": [], "error": str(error)})
            continue
        told.append({"case": case.name if several else "", **_end_entry(result, folder), "error": ""})
        show_findings([f for f in result.findings if not telling.quiet or f.severity != "info"])
        if not (telling.json_progress or telling.quiet):
            show_lesions(result)
            if telling.verbose:
                show_details(result)
            show_place(folder)
        del result
    if several:
        write_overview(job.output)
    if exit_codes and several:
        print(f"nlstseg: {len(exit_codes)} of {len(cases)} inputs failed", file=sys.stderr)
    if telling.json_progress:
        print_end_line(told)
    if exit_codes:
        raise typer.Exit(exit_codes[0])


def _end_entry(result: SegmentationResult | Summary, folder: Path) -> dict[str, Any]:
    return {
        "count": len(result.to_rows()),
        "paths": [str(folder)] if folder.is_file() else sorted(str(path) for path in folder.iterdir()),
        "findings": [{"severity": f.severity, "code": f.code, "message": f.message} for f in result.findings],
    }


def run_one(
    case: Case, place: Path, job: SegmentJob, model: Model, progress: Progress = silent, *, several: bool = False
) -> SegmentationResult | Summary:
    """Read one CT, segment it and write the result to ``place``, to which no other run can write meanwhile.

    With ``skip_existing`` what an earlier run wrote there, of the same voxels, model and options, is what is returned.
    """
    from NLSTSegLib.cli.dicom import told_source
    from NLSTSegLib.dicom.write import dicom_writer
    from NLSTSegLib.disk.atomic_folder import held
    from NLSTSegLib.pipeline import segment
    from NLSTSegLib.reading.read import read_mask
    from NLSTSegLib.results.folder import check_format, write_labels
    from NLSTSegLib.results.report import patient_identity
    from NLSTSegLib.results.run import before_end, segment_to_folder

    with held(place):
        # Another run may have ended there since this one began.
        _check_place(place, job)
        start = time.perf_counter()
        ct, series = load_case(case, job.series, job.skip_unreadable, stage_of(progress, "read", 0.0, READ_SHARE))
        write_more = None if job.seg_type is None else dicom_writer(ct, told_source(case.path, series), job.seg_type)
        check_format(ct, place.name.endswith((".nii", ".nii.gz")) if job.labels_only else job.image_format == "nifti")
        options = job.options
        if job.lung_field in ("auto", "none"):
            options = replace(options, lung_field=job.lung_field)
        else:
            options = replace(options, lung_field=read_mask(Path(job.lung_field), ct))
        seconds = {"read": round(time.perf_counter() - start, 3)}

        def after_reading(done: float, stage: str) -> None:
            progress(READ_SHARE + (1 - READ_SHARE) * done, stage)

        if job.labels_only:
            result = segment(ct, model, options, before_end(after_reading))
            write_labels(result, place)
            progress(1.0, "done")
            return result
        return segment_to_folder(
            ct,
            place,
            model,
            options,
            reuse=job.skip_existing,
            force=job.force,
            save_probability=job.save_probability,
            image_format=job.image_format,
            case=case.name if several else None,
            seconds=seconds,
            identity=patient_identity(ct, case.path) if job.keep_identity else None,
            write_more=write_more,
            progress=after_reading,
        )


def _check_output_name(job: SegmentJob) -> None:
    """Refuse names that are meant for a file where a folder is written, and the other way round."""
    name = job.output.name.lower()
    if str(job.output) == "-":
        raise InputError("nothing can be written to stdout; name a folder with --output, or a file with --labels-only")
    if job.labels_only:
        if job.seg_type is not None:
            raise InputError("--labels-only writes one file; for a DICOM SEG and SR too use --output and a folder")
        if not name.endswith((".nrrd", ".nii.gz")):
            raise InputError(f"--labels-only writes .nrrd or .nii.gz, not '{job.output}'")
    elif name.endswith(FILE_ENDINGS):
        hint = f"for the label map alone use --labels-only '{job.output}'" if name.endswith((".nrrd", ".nii.gz")) else ""
        hint = hint or "its files have names of their own (--format nifti gives .nii.gz)"
        raise InputError(f"--output names a folder for several files, and '{job.output}' looks like a file; {hint}")


def _check_place(place: Path, job: SegmentJob) -> None:
    from NLSTSegLib.results.folder import check_output

    if not job.labels_only:
        check_output(place, job.force or job.skip_existing)
    elif place.is_dir() or (place.exists() and not job.force):
        what = "is a folder; name a file" if place.is_dir() else "is there already; only --force replaces it"
        raise InputError(f"'{place}' {what}")


def check_inputs(inputs: Sequence[Path], series_uid: str | None, *, skip_unreadable: bool, quiet: bool, debug: bool) -> None:
    """Print what each CT is and what was found in it; one that would be refused does not keep the others from being looked at.

    Raises :class:`InputError` for a single CT that would be refused, and :class:`typer.Exit` where one of several would.
    """
    cases, several = find_cases(inputs)
    exit_codes = []
    for case in cases:
        if several and not quiet:
            print(printable(f"{case.path}:"))
        try:
            _check(case, series_uid, skip_unreadable, quiet=quiet)
        except NLSTSegError as error:
            if not several:
                raise
            print_error(error, debug)
            exit_codes.append(error.exit_code)
    if exit_codes:
        print(f"nlstseg: {len(exit_codes)} of {len(cases)} inputs would be refused", file=sys.stderr)
        raise typer.Exit(exit_codes[0])


def _check(case: Case, series_uid: str | None, skip_unreadable: bool, *, quiet: bool) -> None:
    from NLSTSegLib.checks.holes import check_holes
    from NLSTSegLib.checks.preflight import check_ct, check_lungs, stop_on_errors
    from NLSTSegLib.cli.show import show_findings, show_volume
    from NLSTSegLib.inference.lung_field import lung_field
    from NLSTSegLib.volume.ct import from_canonical, to_canonical
    from NLSTSegLib.volume.regular_grid import slice_stack, to_regular

    ct, _ = load_case(case, series_uid, skip_unreadable)
    findings = check_ct(ct)
    if not any(finding.severity == "error" for finding in findings):
        stack = slice_stack(ct)
        regular = to_regular(ct, stack)
        canonical = to_canonical(regular)
        lung_mask = lung_field(canonical)
        findings += check_lungs(canonical, lung_mask)
        if lung_mask is not None:
            findings += check_holes(stack, regular, from_canonical(lung_mask, canonical, regular), accepted=skip_unreadable)
    if not quiet:
        show_volume(ct)
    show_findings([finding for finding in findings if not quiet or finding.severity != "info"])
    stop_on_errors(findings)
