"""Writes docs/reference/command-line.md from the commands themselves; a test compares the two.

python docs/tools/command_line.py
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

PAGE = Path(__file__).resolve().parents[1] / "reference" / "command-line.md"

START = """# Command line

Made from the commands by `docs/tools/command_line.py`. `-h` after any command shows the same; `--install-completion` teaches your
shell the names. What the exit codes mean is on [exit codes and environment](exit-codes.md).
"""


def page() -> str:
    """The whole page."""
    from nlstseg_training.cli import make_app
    from NLSTSegLib.cli.app import app

    lines = [START]
    for name, commands in (("nlstseg", app), ("nlstseg-train", make_app())):
        lines += _commands(name, typer.main.get_command(commands))
    return "\n".join(lines)


def _commands(name: str, group: Any) -> Iterator[str]:
    for command_name, command in group.commands.items():
        whole_name = f"{name} {command_name}"
        yield from _commands(whole_name, command) if hasattr(command, "commands") else _command(whole_name, command)


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    call = [f"{each.name.upper()}{'...' if each.nargs == -1 else ''}" for each in arguments]
    yield f"## {name}\n"
    yield f"`{' '.join([name, *call, '[options]'])}`\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    yield "| argument or option | what | default |\n|---|---|---|"
    for each in arguments:
        yield f"| `{each.name.upper()}` | {_cell(each.help)} | {_default(each)} |"
    for each in sorted(options, key=lambda option: option.name == "help"):
        yield f"| {', '.join(f'`{opt}`' for opt in each.opts)} | {_cell(each.help)} | {_default(each)} |"
    yield ""


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "needed"
    if value is None or value is False or value == "" or value == [] or value == () or callable(value):
        return ""
    if isinstance(value, enum.Enum):
        value = value.value
    return f"`{' '.join(map(str, value)) if isinstance(value, tuple | list) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
