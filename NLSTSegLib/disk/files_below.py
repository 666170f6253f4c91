"""All files below a folder, however deep they lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from NLSTSegLib.errors import InputError


def files_below(folder: Path, *, recursive: bool = True) -> Iterator[Path]:
    """Every file in ``folder``, and with ``recursive`` in the folders in it, by name, folder by folder.

    Links to folders are followed; a folder that is reached twice is looked into once. Not by recursion, of which Python has
    enough at a depth of a thousand. Raises :class:`InputError` for a folder that cannot be looked into.
    """
    waiting, known = [folder], set()
    while waiting:
        place = waiting.pop()
        try:
            facts = place.stat()
            entries = sorted(place.iterdir())
        except OSError as error:
            raise InputError(f"the folder '{place}' cannot be looked into ({error.strerror}); change its rights") from error
        if (facts.st_dev, facts.st_ino) in known:
            continue
        known.add((facts.st_dev, facts.st_ino))
        yield from (entry for entry in entries if not entry.is_dir())
        if recursive:
            waiting += [entry for entry in reversed(entries) if entry.is_dir()]
