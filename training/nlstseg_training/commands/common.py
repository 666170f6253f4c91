"""What commands share: their options, a bar for what is measured, and how one that is stopped goes on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from NLSTSegLib.inference.devices import DeviceRequest
    from NLSTSegLib.models.card import ModelCard
    from NLSTSegLib.progress import Progress


PROGRAM = "nlstseg-train"
"""Begins the sentences of errors."""


class Accelerator(StrEnum):
    """Values of ``--accelerator``."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class LoggerKind(StrEnum):
    """Values of ``--logger``; the last two need packages of their own."""

    tensorboard = "tensorboard"
    csv = "csv"
    mlflow = "mlflow"
    wandb = "wandb"


Cache = Annotated[Path, typer.Option(help="Folder of the prepared cases.")]
SplitFile = Annotated[Path, typer.Option(help="File that 'nlstseg-train split' made.")]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for checkpoints, logs and model; a run that was stopped there goes on.")
]
Seed = Annotated[int, typer.Option(help="Of first weights and batches.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value of the recipe, as epoch_steps=100 or phases.first.epochs=4."),
]
Rate = Annotated[
    float | None,
    typer.Option(min=0.0001, max=10, help="Go on at this part of the recipe's learning rates, after a loss that is no number."),
]
Logger = Annotated[LoggerKind, typer.Option(help="Where the curves go, beside OUT/log/metrics.csv.")]
Kind = Annotated[Accelerator, typer.Option(help="Where the training runs.")]
Workers = Annotated[int, typer.Option(min=0, max=64, help="Processes that make batches ahead, for each that trains.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads for measuring (default: all cores).")]
Name = Annotated[str, typer.Option(help="Name of the model (default: after the recipe).")]
Version = Annotated[str, typer.Option(help="Version of the model (default: 1).")]
Licence = Annotated[str, typer.Option(help="Licence of the weights.")]
Attribution = Annotated[str, typer.Option(help="Whom to name, added to what is known of the data.")]
IntendedUse = Annotated[str, typer.Option(help="What the model is for (default: research only).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    """A bar for each thing that is measured; between them the terminal is Lightning's."""
    from NLSTSegLib.cli.show import progress_display

    with contextlib.ExitStack() as stack:
        bars: list[Progress] = []

        def show(fraction: float, stage: str) -> None:
            if not bars:
                bars.append(stack.enter_context(progress_display("", (0, 1), as_json=False)))
            bars[0](fraction, stage)
            if fraction >= 1:
                bars.clear()
                stack.close()

        yield show


@contextlib.contextmanager
def going_on(folder: Path) -> Iterator[None]:
    """Whoever stops the command is told how it goes on (exit code 130)."""
    from nlstseg_training.fitting.machine import is_first_process
    from NLSTSegLib.errors import STOPPED

    try:
        yield
    except KeyboardInterrupt:
        if is_first_process():
            print(f"{PROGRAM}: stopped; what is done is in '{folder}', the same command goes on from there", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # A network's thread may be inside a long call, and Python would wait for it.
        os._exit(STOPPED)


def measuring_on(accelerator: Accelerator, threads: int | None) -> DeviceRequest:
    """Where what was trained is measured: a training asked for on the CPU leaves the graphics card alone then too."""
    from NLSTSegLib.inference.devices import DeviceRequest

    return DeviceRequest("cpu" if accelerator is Accelerator.cpu else "auto", threads)


def show_alarms(content: dict[str, Any]) -> None:
    """Prints in red that a model is worse than marking nothing."""
    from rich.console import Console

    from nlstseg_training.evaluation.alarms import alarms

    for sentence in alarms(content):
        Console(stderr=True).print(sentence, style="bold red", highlight=False)


def show_card(card: ModelCard) -> None:
    from NLSTSegLib.models.figures import measured_lines

    print(f"{card.name} {card.version}: probability above {card.threshold:g}, lesions from {card.min_volume_mm3:g} mm3")
    for line in measured_lines(card.metrics):
        print(line)
