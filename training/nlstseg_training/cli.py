"""``nlstseg-train``: from data to a model bundle. What takes long to import is imported when a command needs it."""

from __future__ import annotations

import typer

from nlstseg_training.commands.common import PROGRAM
from nlstseg_training.commands.data import plan, prepare, recipe, split
from nlstseg_training.commands.evaluation import evaluate, pool
from nlstseg_training.commands.fit import export, finetune, fit, reproduce
from nlstseg_training.commands.interchange import convert, ensemble, nnunet
from nlstseg_training.commands.refinement import refinement, shipped
from NLSTSegLib.cli.usage import add_command, new_app, run_app


def make_app() -> typer.Typer:
    """All commands; each is a function of a file of ``commands/``."""
    app = new_app("Training of lesion models for chest CT. Research only; not for clinical use.")
    data = (prepare, split, plan, recipe, nnunet)
    models = (fit, evaluate, pool, export, ensemble, convert, refinement, shipped, finetune, reproduce)
    for command in (*data, *models):
        add_command(app, command, PROGRAM)
    return app


def main() -> None:
    """Entry point of ``nlstseg-train`` and ``python -m nlstseg_training``."""
    from NLSTSegLib.cli.terminal import use_unfailing_streams

    use_unfailing_streams()
    run_app(make_app(), PROGRAM)
