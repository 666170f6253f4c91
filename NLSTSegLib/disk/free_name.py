"""Names for files and folders: which ones are plain, and one for a folder that is not there yet."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

NOT_IN_NAMES = re.compile(r"[^\w ()+-]")
"""What some file system refuses, or reads as something else, in a name."""

LONGEST_NAME = 80
"""Characters; with the folders above it a path stays below the 260 of Windows."""


PLAIN_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is that of a file in a folder on every system, and leads to no other folder."""
    return PLAIN_NAME.fullmatch(name) is not None


def plain_name(name: str) -> str:
    """``name`` without what some file system does not take, as the name of a folder."""
    return NOT_IN_NAMES.sub("_", name)[:LONGEST_NAME].strip() or "_"


def new_folder(parent: Path, name: str) -> Path:
    """A folder of ``parent`` that is not there: the plain ``name``, or ``name 2`` and so on where that is taken."""
    plain = plain_name(name)
    numbered = itertools.chain([plain], (f"{plain} {number}" for number in itertools.count(2)))
    return next(parent / each for each in numbered if not (parent / each).exists())
