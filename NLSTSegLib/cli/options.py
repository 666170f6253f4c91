"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from NLSTSegLib.dicom.codes import SegType

Inputs = Annotated[
    list[Path],
    typer.Argument(
        help="DICOM folder, a NIfTI, NRRD, MHA or MHD file, or a folder of such files; several give one folder each.",
        show_default=False,
    ),
]
Series = Annotated[str | None, typer.Option(help="SeriesInstanceUID, where a DICOM folder holds several.")]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable", help="Go on without DICOM files that cannot be read, and with slices missing in the lungs."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result.")]
Model = Annotated[str, typer.Option(help="Name of a model, or path of a bundle or published checkpoint.")]
Device = Annotated[str, typer.Option(help="Where the network runs: auto, cpu, gpu, gpu:1 (the second card), cuda or mps.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SegTypeName = Annotated[
    SegType,
    typer.Option("--seg-type", help="Of the SEG: binary (every reader), deflated (small), or labelmap (new, few readers)."),
]
JsonProgress = Annotated[bool, typer.Option("--json-progress", help="Print progress as one JSON object a line.")]
MinVolume = Annotated[float | None, typer.Option(help="Smallest lesion in mm3 (default: the model's).")]
SaveProbability = Annotated[bool, typer.Option("--save-probability", help="Write the probability too (0-255).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
