"""How a command line is started: what was typed wrongly is said in one sentence, and the help cuts none."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import typer

OWN_WORDS = (
    (r".*(?:valid number|valid float).*", "it must be a number"),
    (r".*(?:valid integer|valid int).*", "it must be a whole number"),
    (r".*greater than or equal to (\S+).*", r"it must be at least \1"),
    (r".*less than or equal to (\S+).*", r"it must be at most \1"),
    (r"(.*) is not in the range (\S+?)\.?", r"\1 is not allowed: \2"),
    (r"(?:Value error, )?(.*) is not one of (.*?)\.?", r"\1 is none of \2"),
    (r"No such command (.*?)\.?", r"there is no command \1"),
    (r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", r"there is one argument too many: \1"),
    (r"Option '(.*)' requires an argument\.?", r"\1 needs a value"),
)
"""Sentences of the libraries that read the arguments (click, pydantic, by the version of typer), and ours for them."""


def new_app(help: str) -> typer.Typer:
    """An empty command line with ``-h`` beside ``--help``, and completion for the shell."""
    return typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}, help=help
    )


def add_command(app: typer.Typer, function: Callable[..., None], program: str = "nlstseg") -> None:
    """``function`` as a command of ``program``, whose errors end it as :func:`.run.exit_on_errors` does.

    Its argument ``debug`` shows their traceback. The list of commands shows the first sentence of its docstring whole.
    """

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        from NLSTSegLib.cli.run import exit_on_errors

        with exit_on_errors(arguments["debug"], program):
            function(**arguments)

    first_paragraph = inspect.cleandoc(function.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    app.command(short_help=first_paragraph)(command)


def run_app(app: typer.Typer, name: str) -> None:
    """Run what was typed and end the process, with exit code 2 after a wrong call."""
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        sys.exit(app(prog_name=name, standalone_mode=False))
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.ctx.get_help())  # type: ignore[attr-defined]
        else:
            print(f"{name}: error: {usage_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)


def usage_sentence(error: Any) -> str:
    """What is wrong with the arguments, and how to see what can be given."""
    parameter, kind = getattr(error, "param", None), type(error).__name__
    name = ""
    if parameter is not None:
        name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else str(parameter.name).upper()
    if kind == "MissingParameter":
        sentence = f"{name} is missing"
    elif kind == "NoSuchOption":
        nearest = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        sentence = f"there is no option {error.option_name}{nearest}"
    else:
        message = error.message
        for theirs, ours in OWN_WORDS:
            if found := re.fullmatch(theirs, message, flags=re.S):
                message = found.expand(ours)
                break
        sentence = f"{name}: {message}" if name else message
    where = f"; see '{error.ctx.command_path} --help'" if error.ctx is not None else ""
    return " ".join(sentence.split()).rstrip(".") + where
