"""``nlstseg segment``: the options of what is done with every CT."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from NLSTSegLib.cli.options import (
    Debug,
    Device,
    Force,
    Inputs,
    MinVolume,
    Model,
    Quiet,
    SaveProbability,
    SegTypeName,
    Series,
    SkipUnreadable,
    Threads,
)
from NLSTSegLib.dicom.codes import SegType


class ImageFormat(StrEnum):
    """Values of ``--format``."""

    nrrd = "nrrd"
    nifti = "nifti"


def segment(
    inputs: Inputs,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the result; new, empty, or with --force an earlier result."),
    ] = None,
    labels_only: Annotated[
        Path | None, typer.Option("--labels-only", help="Write the label map alone to this .nrrd or .nii.gz file, and no folder.")
    ] = None,
    model: Model = "lidc-25d",
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which a voxel is lesion (default: the model's).")
    ] = None,
    min_volume: MinVolume = None,
    lung_field: Annotated[str, typer.Option(help="auto, none, or a mask file on the CT's grid: where to look.")] = "auto",
    series: Series = None,
    all_series: Annotated[
        bool, typer.Option("--all-series", help="Segment every CT series of a DICOM folder, each into a folder of its own.")
    ] = False,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
    threads: Threads = None,
    save_probability: SaveProbability = False,
    format: Annotated[ImageFormat, typer.Option(help="Of the label map and the probability.")] = ImageFormat.nrrd,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Keep results of the same voxels, model and options, and do only what is missing."),
    ] = False,
    force: Force = False,
    dicom_seg: Annotated[
        bool,
        typer.Option(
            "--dicom-seg",
            help="Write a DICOM SEG and SR too (lesions.seg.dcm, measurements.sr.dcm); these two carry the patient's identity.",
        ),
    ] = False,
    seg_type: SegTypeName = SegType.BINARY,
    keep_identity: Annotated[
        bool,
        typer.Option(
            "--keep-identity",
            help="Write path, patient ID, study and series UID into report.json; without it no file says whose CT it was.",
        ),
    ] = False,
    json_progress: Annotated[
        bool,
        typer.Option("--json-progress", help="Print progress as one JSON object a line; the last tells counts, paths, findings."),
    ] = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print model, device and seconds too.")] = False,
    debug: Debug = False,
) -> None:
    """Segment the lung nodules and masses of one or more CTs, and write masks, sizes, a preview and a report."""
    from NLSTSegLib.cli.batch import SegmentJob, Telling, run_jobs
    from NLSTSegLib.errors import InputError
    from NLSTSegLib.pipeline import SegmentOptions

    place = output or labels_only
    if place is None or (output and labels_only):
        raise InputError("name either a folder for the result with --output, or one file with --labels-only")
    job = SegmentJob(
        output=place,
        model=model,
        options=SegmentOptions(threshold, min_volume, device=device, threads=threads, accept_holes=skip_unreadable),
        lung_field=lung_field,
        series=series,
        all_series=all_series,
        skip_unreadable=skip_unreadable,
        save_probability=save_probability,
        image_format=format.value,
        labels_only=labels_only is not None,
        force=force,
        skip_existing=skip_existing,
        keep_identity=keep_identity,
        seg_type=seg_type if dicom_seg else None,
    )
    run_jobs(inputs, job, Telling(json_progress, quiet, verbose, debug))
