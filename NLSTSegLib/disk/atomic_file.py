"""A file that is whole or not there: it is written under another name beside its place, synced, and renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from NLSTSegLib.errors import InputError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """The name under which the block writes what then becomes ``path``, whose folder is made if need be.

    It ends as ``path`` does, since libraries choose a format by it. Until the end of the block, and when it raises, ``path``
    stays as it is. Raises :class:`InputError` for a file that cannot be written; ``RuntimeError`` is how SimpleITK says that.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("r+b") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "perhaps the disk is full"
        raise InputError(f"'{path}' could not be written ({why}); make room, or choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """``text``, UTF-8, as the whole content of ``path``; raises as :func:`atomic_file` does."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
