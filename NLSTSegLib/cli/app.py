"""The command line. What takes long to import is imported when a command needs it, so that ``--help`` is there at once."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Lung cancer lesions in chest CT. Research only; not for clinical use.",
)


class DeviceName(StrEnum):
    """Values of ``--device``."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


Inputs = Annotated[
    list[Path], typer.Argument(help="DICOM folder, or a NIfTI, NRRD, MHA or MHD file; several give one folder each.")
]
Series = Annotated[str | None, typer.Option(help="SeriesInstanceUID, where a DICOM folder holds several.")]
SkipUnreadable = Annotated[
    bool,
    typer.Option("--skip-unreadable", help="Go on without DICOM files that cannot be read; a part of the chest may be missing."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def segment(
    inputs: Inputs,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the result; new, empty, or with --force an earlier result.")
    ],
    model: Annotated[str, typer.Option(help="Name of a model, or path of a bundle or published checkpoint.")] = "lidc-25d",
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which a voxel is lesion (default: the model's).")
    ] = None,
    min_volume: Annotated[float | None, typer.Option(help="Smallest lesion in mm3 (default: the model's).")] = None,
    lung_field: Annotated[str, typer.Option(help="auto, none, or a mask file on the CT's grid: where to look.")] = "auto",
    series: Series = None,
    skip_unreadable: SkipUnreadable = False,
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.")] = DeviceName.auto,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")] = None,
    save_probability: Annotated[bool, typer.Option("--save-probability", help="Write probability.nrrd too (0-255).")] = False,
    json_progress: Annotated[bool, typer.Option("--json-progress", help="Print progress as one JSON object a line.")] = False,
    keep_identity: Annotated[
        bool,
        typer.Option(
            "--keep-identity",
            help="Write path, patient ID, study and series UID into report.json; without it no file says whose CT it was.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
    debug: Debug = False,
) -> None:
    """Segment the lesions of one or more CTs and write masks, sizes, a preview and a report."""
    from NLSTSegLib.cli.run import exit_on_errors

    with exit_on_errors(debug):
        from NLSTSegLib.cli.run import SegmentJob, run_jobs
        from NLSTSegLib.pipeline import SegmentOptions

        options = SegmentOptions(threshold=threshold, min_volume_mm3=min_volume, device=device.value, threads=threads)
        job = SegmentJob(output, model, options, lung_field, series, save_probability, force, keep_identity, skip_unreadable)
        run_jobs(inputs, job, json_progress=json_progress, debug=debug)


@app.command()
def check(
    input: Annotated[Path, typer.Argument(help="DICOM folder or image file.")],
    series: Series = None,
    skip_unreadable: SkipUnreadable = False,
    debug: Debug = False,
) -> None:
    """Look at a CT before it is segmented and print what was found; exit code 2 when it would be refused."""
    from NLSTSegLib.cli.run import exit_on_errors

    with exit_on_errors(debug):
        from NLSTSegLib.checks.preflight import check_ct, check_lungs, stop_on_errors
        from NLSTSegLib.cli.run import load_input
        from NLSTSegLib.cli.show import show_findings, show_volume
        from NLSTSegLib.inference.lung_field import lung_field
        from NLSTSegLib.volume.ct import to_canonical
        from NLSTSegLib.volume.regular_grid import slice_stack, to_regular

        ct = load_input(input, series, skip_unreadable)
        findings = check_ct(ct)
        if not any(finding.severity == "error" for finding in findings):
            canonical = to_canonical(to_regular(ct, slice_stack(ct)))
            findings += check_lungs(canonical, lung_field(canonical))
        show_volume(ct)
        show_findings(findings)
        stop_on_errors(findings)


@app.command()
def time(
    model: Annotated[str, typer.Option(help="Name of a model, or path of a bundle or published checkpoint.")] = "lidc-25d",
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.")] = DeviceName.auto,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")] = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Of a run that does not look in the lungs alone.")] = False,
    debug: Debug = False,
) -> None:
    """Measure how long a run takes here: prints seconds to start, and per slice of 512 x 512, as JSON."""
    from NLSTSegLib.cli.run import exit_on_errors

    with exit_on_errors(debug):
        from NLSTSegLib.inference.devices import DeviceRequest
        from NLSTSegLib.jobs.learned_duration import measure_run_time

        typer.echo(measure_run_time(model, DeviceRequest(device.value, threads), everywhere=everywhere).as_text())


@app.command()
def models(debug: Debug = False) -> None:
    """List the bundled and installed models with card, licence and size."""
    from NLSTSegLib.cli.run import exit_on_errors

    with exit_on_errors(debug):
        from NLSTSegLib.cli.show import show_models
        from NLSTSegLib.models.bundle import broken_models, list_models

        show_models(list_models(), broken_models())


@app.command()
def devices(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """List where the network can run on this computer, for --device."""
    from NLSTSegLib.cli.run import exit_on_errors

    with exit_on_errors(debug):
        import json

        from NLSTSegLib.inference.devices import device_notes

        notes = device_notes()
        typer.echo(json.dumps(notes) if as_json else "\n".join(f"{choice}: {note}" for choice, note in notes.items()))


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="New folder for ct.nrrd, truth.nrrd and lesions.csv.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another chest.")] = 0,
    debug: Debug = False,
) -> None:
    """Write a synthetic chest CT with six lesions of known size."""
    from NLSTSegLib.cli.run import exit_on_errors

    with exit_on_errors(debug):
        from NLSTSegLib.cli.show import show_place
        from NLSTSegLib.phantom.folder import check_phantom_folder, write_phantom
        from NLSTSegLib.phantom.make import make_phantom

        check_phantom_folder(out)
        write_phantom(make_phantom(seed), out)
        show_place(out, f"phantom with seed {seed} written to")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for phantom and result.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    debug: Debug = False,
) -> None:
    """Make a chest phantom, segment it with the bundled model and compare with what was put in."""
    from NLSTSegLib.cli.run import exit_on_errors

    with exit_on_errors(debug):
        from NLSTSegLib.cli.demo import run_demo

        run_demo(output, seed)


@app.command()
def version() -> None:
    """Print the version."""
    from NLSTSegLib import __version__

    typer.echo(__version__)


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
    app(prog_name="nlstseg")
