"""How the command line runs a segmentation: inputs, errors, exit codes, stopping."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from NLSTSegLib.cli.terminal import UnfailingStream
from NLSTSegLib.errors import STOPPED, UNEXPECTED, InputError, NLSTSegError, is_out_of_memory, printable
from NLSTSegLib.progress import Progress, silent, stage_of

if TYPE_CHECKING:
    from NLSTSegLib.models.bundle import Model
    from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions
    from NLSTSegLib.volume.ct import CtVolume

READ_SHARE, WRITE_SHARE = 0.05, 0.05
"""Parts of the progress bar before and after the segmentation itself."""


@dataclass(frozen=True)
class SegmentJob:
    """What ``nlstseg segment`` does with every input."""

    output: Path
    model: str
    options: SegmentOptions
    lung_field: str
    series: str | None
    save_probability: bool
    force: bool
    keep_identity: bool = False
    skip_unreadable: bool = False


@contextlib.contextmanager
def exit_on_errors(debug: bool) -> Iterator[None]:
    """Turn errors into one line on stderr and an exit code, and Ctrl-C or SIGTERM into exit code 130 at once."""

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    decoders = contextlib.nullcontext() if debug else quiet_decoders()
    try:
        with decoders:
            yield
    except NLSTSegError as error:
        print_error(error, debug)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        print("nlstseg: stopped; nothing half written was left", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # The network's thread may be inside a long call, and Python would wait for it.
        os._exit(STOPPED)
    except typer.Exit:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            print_error(InputError("there is too little memory; close other programs, or take a computer with more"), debug)
            raise typer.Exit(InputError.exit_code) from error
        if debug:
            traceback.print_exception(error)
        what = printable(" ".join(f"{type(error).__name__}: {error}".split()))
        print(f"nlstseg: unexpected {what}; run it with --debug and report what that shows", file=sys.stderr)
        raise typer.Exit(UNEXPECTED) from error


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """What the C libraries that decode images print on stderr goes nowhere; what Python prints there still appears.

    They complain of a damaged file in many lines, for which there is one of ours.
    """
    shown = sys.stderr
    if sys.__stderr__ is None:
        yield
        return
    kept = os.dup(2)
    try:
        if shown is sys.__stderr__:
            sys.stderr = UnfailingStream(
                os.fdopen(os.dup(kept), "wb"), encoding=shown.encoding, errors=shown.errors, line_buffering=True
            )
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if sys.stderr is not shown:
            sys.stderr.close()
            sys.stderr = shown


def print_error(error: Exception, debug: bool) -> None:
    """One line; the traceback too with ``debug``."""
    if debug:
        traceback.print_exception(error)
    print(f"nlstseg: error: {error}", file=sys.stderr)


def run_jobs(inputs: Sequence[Path], job: SegmentJob, *, json_progress: bool, debug: bool) -> None:
    """Segment every input; one that fails does not keep the others from being done.

    Lines of progress count the inputs and do not name them: they go into logs, and a name of a file is often a patient's.
    Raises :class:`typer.Exit` with the code of the first failure.
    """
    from NLSTSegLib.cli.show import progress_display, show_findings, show_lesions, show_place
    from NLSTSegLib.disk.scratch import remove_dead_folders
    from NLSTSegLib.models.bundle import find_model, load_model
    from NLSTSegLib.results.folder import check_output

    remove_dead_folders()
    folders = output_folders(inputs, job.output)
    for path, folder in zip(inputs, folders, strict=True):
        if not os.path.exists(path):
            raise InputError(f"the input '{path}' does not exist; name a DICOM folder or an image file")
        check_output(folder, job.force)
    model = load_model(find_model(job.model))
    exit_codes = []
    for n, (path, folder) in enumerate(zip(inputs, folders, strict=True)):
        title = f"{n + 1} of {len(inputs)}" if len(inputs) > 1 else ""
        try:
            with progress_display(title, (n, len(inputs)), as_json=json_progress) as progress:
                result = run_one(path, folder, job, model, progress)
        except NLSTSegError as error:
            if len(inputs) == 1:
                raise
            print_error(error, debug)
            # Not the error itself, whose traceback holds the CT in the memory.
            exit_codes.append(error.exit_code)
        else:
            show_findings(result.findings)
            if not json_progress:
                show_lesions(result)
                show_place(folder)
    if exit_codes:
        print(f"nlstseg: {len(exit_codes)} of {len(inputs)} inputs failed", file=sys.stderr)
        raise typer.Exit(exit_codes[0])


def run_one(path: Path, folder: Path, job: SegmentJob, model: Model, progress: Progress = silent) -> SegmentationResult:
    """Read one CT, segment it and write the result to ``folder``, to which no other run can write meanwhile."""
    from NLSTSegLib.disk.atomic_folder import held
    from NLSTSegLib.pipeline import segment
    from NLSTSegLib.reading.read import read_mask
    from NLSTSegLib.results.folder import check_output, write_result
    from NLSTSegLib.results.report import patient_identity

    with held(folder):
        # Another run may have ended there since this one began.
        check_output(folder, job.force)
        start = time.perf_counter()
        ct = load_input(path, job.series, job.skip_unreadable, stage_of(progress, "read", 0.0, READ_SHARE))
        options = job.options
        if job.lung_field in ("auto", "none"):
            options = replace(options, lung_field=job.lung_field)
        else:
            options = replace(options, lung_field=read_mask(Path(job.lung_field), ct))
        seconds = {"read": round(time.perf_counter() - start, 3)}

        def segmenting(done: float, stage: str) -> None:
            # The end of the segmentation is not yet that of the run.
            if done < 1:
                progress(READ_SHARE + (1 - READ_SHARE - WRITE_SHARE) * done, stage)

        result = segment(ct, model, options, segmenting)
        write_result(
            result,
            folder,
            force=job.force,
            save_probability=job.save_probability,
            seconds=seconds,
            identity=patient_identity(ct, path) if job.keep_identity else None,
            progress=lambda done, stage: progress(1 - WRITE_SHARE + WRITE_SHARE * done, stage),
        )
        progress(1.0, "done")
        return result


def load_input(
    path: Path, series_uid: str | None, skip_unreadable: bool = False, progress: Callable[[float], None] | None = None
) -> CtVolume:
    """Read a CT; of a DICOM folder, say on stderr which series there are, which is taken, and which files are left out."""
    from NLSTSegLib.reading.dicom_choice import choose_chest_series
    from NLSTSegLib.reading.dicom_folder import list_series
    from NLSTSegLib.reading.dicom_series import read_series
    from NLSTSegLib.reading.read import read_ct

    if not os.path.isdir(path):
        return read_ct(path, series_uid=series_uid, skip_unreadable=skip_unreadable, progress=progress)
    series = list_series(path, skip_unreadable=skip_unreadable)
    chosen = choose_chest_series(series, series_uid)
    if len(series) > 1:
        for one in series:
            print(f"{'taken' if one is chosen else 'there'}: {one}", file=sys.stderr)
    if skip_unreadable:
        for file in chosen.unreadable:
            print(f"left out: {printable(file.name)}", file=sys.stderr)
    return read_series(chosen, skip_unreadable=skip_unreadable, progress=progress)


def output_folders(inputs: Sequence[Path], output: Path) -> list[Path]:
    """``output`` itself for one input, else one sub-folder each, named after the input.

    Inputs of the same name get their parent folder's name in front. Raises :class:`InputError` when that does not tell
    them apart either.
    """
    if len(inputs) == 1:
        return [output]
    names = [_stem(path) for path in inputs]
    names = [
        f"{path.resolve().parent.name}_{name}" if _is_shared(name, names) else name
        for path, name in zip(inputs, names, strict=True)
    ]
    for name in names:
        if _is_shared(name, names):
            raise InputError(f"two inputs would both be written to '{output / name}'; run them one by one")
    return [output / name for name in names]


def _is_shared(name: str, names: Sequence[str]) -> bool:
    """Also where a file system takes upper and lower case for the same."""
    return [other.casefold() for other in names].count(name.casefold()) > 1


def _stem(path: Path) -> str:
    # A name that is not in UTF-8 cannot be written to.
    name = path.resolve().name.encode("utf-8", "replace").decode("utf-8").replace("?", "_")
    for ending in (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm"):
        if name.lower().endswith(ending) and path.is_file():
            return name[: -len(ending)]
    return name
