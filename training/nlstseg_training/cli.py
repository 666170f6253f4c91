"""``nlstseg-train``: from data to a model bundle. What takes long to import is imported when a command needs it."""

from __future__ import annotations

import typer

from nlstseg_training.commands import (
    data as commands_data,
)
from nlstseg_training.commands import (
    evaluation as commands_evaluation,
)
from nlstseg_training.commands import (
    fit as commands_fit,
)
from nlstseg_training.commands import (
    refinement as commands_second_look,
)


def make_app() -> typer.Typer:
    """All commands; each is a function of a file ``commands_*.py``."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        help="Training of lesion models for chest CT. Research only; not for clinical use.",
    )
    data, fitting = commands_data, commands_fit
    for command in (data.prepare, data.split, fitting.fit, commands_evaluation.evaluate, fitting.export):
        app.command()(command)
    for command in (commands_second_look.refinement, fitting.finetune, fitting.reproduce):
        app.command()(command)
    return app


def main() -> None:
    """Entry point of ``nlstseg-train`` and ``python -m nlstseg_training``."""
    from NLSTSegLib.cli.terminal import use_unfailing_streams

    use_unfailing_streams()
    make_app()(prog_name="nlstseg-train")
