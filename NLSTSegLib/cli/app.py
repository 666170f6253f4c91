"""The command line. What takes long to import is imported when a command needs it, so that ``--help`` is there at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from NLSTSegLib.cli.cohort import cohort
from NLSTSegLib.cli.options import (
    AsJson,
    Debug,
    Device,
    Force,
    Inputs,
    JsonProgress,
    Model,
    Quiet,
    SegTypeName,
    Series,
    SkipUnreadable,
    Threads,
)
from NLSTSegLib.cli.pacs_app import make_pacs_app
from NLSTSegLib.cli.segment import segment
from NLSTSegLib.cli.usage import add_command, new_app, run_app
from NLSTSegLib.dicom.codes import SegType

DicomInput = Annotated[Path, typer.Argument(help="The DICOM folder or file of its CT.", show_default=False)]


def follow_up(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASELINE FOLLOWUP...",
            help="Two CTs or more of one patient, each as for segment, the earliest first.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="New folder for pairs.csv, follow-up.html, pictures and results.")
    ],
    days: Annotated[
        list[float] | None, typer.Option(help="Days from one CT to the next; once for every CT after the first.")
    ] = None,
    dates: Annotated[list[str] | None, typer.Option(help="Date of a CT, YYYY-MM-DD; once for every CT.")] = None,
    result: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a result or of a reviewed export; once for every CT, - for one that is to be segmented."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns ct, earlier, later: lesions that are the same, whatever the program finds."),
    ] = None,
    cv: Annotated[float | None, typer.Option(help="Coefficient of variation of a volume (default: as measured).")] = None,
    gate_mm: Annotated[float, typer.Option("--gate-mm", help="So far from its place a lesion is looked for.")] = 15.0,
    no_registration: Annotated[
        bool, typer.Option("--no-registration", help="Do not register the CTs: only pairs of --pairs are made.")
    ] = False,
    model: Model = "lidc-25d",
    device: Device = "auto",
    threads: Threads = None,
    json_progress: JsonProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the lesions of one patient again in later CTs, and measure their growth with its error."""
    from NLSTSegLib.cli.follow_up import FollowUpJob, run_follow_up
    from NLSTSegLib.followup.compare import Options
    from NLSTSegLib.pipeline import SegmentOptions

    job = FollowUpJob(
        inputs=inputs,
        output=output,
        days=days or (),
        dates=dates or (),
        results=result or (),
        pairs=pairs,
        model=model,
        segment_options=SegmentOptions(device=device, threads=threads),
        options=Options(gate_mm=gate_mm, cv=cv, register=not no_registration),
    )
    run_follow_up(job, as_json=json_progress, quiet=quiet)


def register(
    baseline: Annotated[Path, typer.Argument(help="The earlier CT, as for segment.", show_default=False)],
    followup: Annotated[Path, typer.Argument(help="The later CT of the same patient.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="New folder for registration.json and, if accepted, the transform.")
    ],
    json_progress: JsonProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find where the places of a CT lie in a later one of the same patient; no lesion is looked for."""
    from NLSTSegLib.cli.follow_up import run_register

    run_register(baseline, followup, output, as_json=json_progress, quiet=quiet)


def check(
    inputs: Inputs,
    series: Series = None,
    skip_unreadable: SkipUnreadable = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look at CTs before they are segmented and print what was found; exit code 2 when one would be refused."""
    from NLSTSegLib.cli.batch import check_inputs

    check_inputs(inputs, series, skip_unreadable=skip_unreadable, quiet=quiet, debug=debug)


def dicom(
    result: Annotated[
        Path, typer.Argument(help="Folder of a result, or of a review exported from 3D Slicer.", show_default=False)
    ],
    ct: DicomInput,
    reader: Annotated[str, typer.Option(help="Name of who reviewed the lesions, for the SR.")] = "",
    seg_type: SegTypeName = SegType.BINARY,
    series: Series = None,
    skip_unreadable: SkipUnreadable = False,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Write lesions.seg.dcm and measurements.sr.dcm of a result into its folder; these two carry the patient's identity."""
    from NLSTSegLib.cli.dicom import write_dicom_of

    write_dicom_of(result, ct, series, seg_type, reader, skip_unreadable=skip_unreadable, force=force)


def labels(
    seg: Annotated[Path, typer.Argument(help="A DICOM SEG file, of this program or of another.", show_default=False)],
    ct: DicomInput,
    output: Annotated[Path, typer.Option("--output", "-o", help="Label map to write: .nrrd or .nii.gz.", show_default=False)],
    series: Series = None,
    skip_unreadable: SkipUnreadable = False,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Write the segments of a DICOM SEG as a label map on the voxels of its CT, and print which label is which."""
    from NLSTSegLib.cli.dicom import write_labels_of

    write_labels_of(seg, ct, series, output, skip_unreadable=skip_unreadable, force=force)


def time(
    model: Model = "lidc-25d",
    device: Device = "auto",
    threads: Threads = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Of a run that does not look in the lungs alone.")] = False,
    debug: Debug = False,
) -> None:
    """Measure how long a run takes here: prints seconds to start, and per slice of 512 x 512, as JSON."""
    from NLSTSegLib.inference.devices import DeviceRequest
    from NLSTSegLib.jobs.learned_duration import measure_run_time

    typer.echo(measure_run_time(model, DeviceRequest(device, threads), everywhere=everywhere).as_text())


def models(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the bundled and installed models with card, licence, size and what was measured."""
    from NLSTSegLib.cli.show import print_models, show_models
    from NLSTSegLib.models.bundle import broken_models, list_models

    (print_models if as_json else show_models)(list_models(), broken_models())


def devices(as_json: AsJson = False, debug: Debug = False) -> None:
    """List where the network can run on this computer, for --device."""
    import json

    from NLSTSegLib.inference.devices import device_notes

    notes = device_notes()
    typer.echo(json.dumps(notes) if as_json else "\n".join(f"{choice}: {note}" for choice, note in notes.items()))


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder for ct.nrrd, truth.nrrd and lesions.csv.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another chest.")] = 0,
    follow_up: Annotated[
        bool,
        typer.Option(
            "--follow-up",
            help="Write the patient's later CT too, into baseline/ and followup/: a lesion grown, one gone, one new.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Write a synthetic chest CT with six lesions of known size."""
    from NLSTSegLib.cli.show import show_place
    from NLSTSegLib.phantom.folder import check_phantom_folder, write_follow_up, write_phantom
    from NLSTSegLib.phantom.make import make_phantom

    check_phantom_folder(out)
    if follow_up:
        from NLSTSegLib.phantom.second import make_follow_up

        write_follow_up(make_phantom(seed), make_follow_up(seed), out)
    else:
        write_phantom(make_phantom(seed), out)
    show_place(out, f"phantom with seed {seed} written to")


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for phantom and result.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another chest.")] = 0,
    debug: Debug = False,
) -> None:
    """Make a chest phantom, segment it with the bundled model and compare with what was put in."""
    from NLSTSegLib.cli.demo import run_demo

    run_demo(output, seed)


def _print_version(wanted: bool) -> None:
    from NLSTSegLib import __version__

    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Lung nodules and masses in chest CT. Research only; not for clinical use."""


def make_app() -> typer.Typer:
    """All commands."""
    made = new_app(_options.__doc__ or "")
    made.callback()(_options)
    for command in (segment, follow_up, register, cohort, check, dicom, labels, models, devices, time, phantom, demo):
        add_command(made, command)
    made.add_typer(make_pacs_app(), name="pacs", short_help="Find, fetch and store studies in a PACS.")
    return made


app = make_app()


def main() -> None:
    """Entry point of ``nlstseg`` and ``python -m NLSTSegLib``."""
    from NLSTSegLib.cli.terminal import use_unfailing_streams
    from NLSTSegLib.errors import InputError
    from NLSTSegLib.jobs.parent_watch import end_without_owner

    use_unfailing_streams()
    try:
        end_without_owner()
    except InputError as error:
        print(f"nlstseg: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    run_app(app, "nlstseg")
