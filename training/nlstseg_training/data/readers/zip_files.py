"""Zip archives that may be damaged or hostile: what is in them, and one member at a time."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from NLSTSegLib.errors import InputError

DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError)
"""What :mod:`zipfile` raises for archives that are damaged, encrypted, packed in a rare way or name members in no UTF-8."""


def members(archive: Path) -> list[zipfile.ZipInfo]:
    """The files in it; raises :class:`InputError` when it cannot be opened or is no whole zip archive."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return [member for member in packed.infolist() if not member.is_dir()]
    except (OSError, *DAMAGED) as error:
        raise InputError(f"'{archive}' is no whole zip archive ({error}); get it again") from error


def extract(archive: Path, name: str, to: IO[bytes], most_bytes: int) -> None:
    """Write the member to a file; raises :class:`InputError` when it is damaged or unpacks to more than ``most_bytes``."""
    try:
        with zipfile.ZipFile(archive) as packed:
            if packed.getinfo(name).file_size > most_bytes:
                raise InputError(f"'{name}' in '{archive}' has more than {most_bytes / 1e6:.0f} MB; get the archive again")
            with packed.open(name) as member:
                shutil.copyfileobj(member, to, 1 << 20)
    except DAMAGED as error:
        raise InputError(f"'{name}' in '{archive}' is damaged ({error}); get the archive again") from error
