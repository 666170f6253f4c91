"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from NLSTSegLib.dicom.codes import SegType

Model = Annotated[str, typer.Option(help="Name of a model, or path of a bundle or published checkpoint.")]
Device = Annotated[str, typer.Option(help="Where the network runs: auto, cpu, gpu, gpu:1 (the second card), cuda or mps.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SegTypeName = Annotated[
    SegType,
    typer.Option("--seg-type", help="Of the SEG: binary (every reader), deflated (small), or labelmap (new, few readers)."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
