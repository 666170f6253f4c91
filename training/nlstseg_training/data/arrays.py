"""The files of a prepared case: compressed arrays of which a part is read without unpacking the rest (Blosc2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.volume.ct import CtVolume

if TYPE_CHECKING:
    import blosc2

ENDING = ".b2nd"

CHUNK_KJI, BLOCK_KJI = (16, 256, 256), (2, 64, 64)
"""What is compressed together, and what is unpacked together: small for the few slices of a patch, whole for a whole slice."""

ZSTD_LEVEL = 1
"""Files hardly larger than by level 5, written five times as fast."""

SPACING, ORIGIN, DIRECTION = "spacing_ijk_mm", "origin_lps_mm", "direction_lps"
"""Keys of the geometry in the CT's file."""


def write_array(path: Path, array: np.ndarray, ct: CtVolume | None = None) -> None:
    """An array ``[k, j, i]`` as a new file, with the geometry of ``ct``; raises :class:`OSError` or ``RuntimeError``."""
    import blosc2

    chunk, block = (
        tuple(min(most, size) for most, size in zip(wanted, array.shape, strict=True)) for wanted in (CHUNK_KJI, BLOCK_KJI)
    )
    compression = {"codec": blosc2.Codec.ZSTD, "clevel": ZSTD_LEVEL, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    packed = blosc2.asarray(np.ascontiguousarray(array), chunks=chunk, blocks=block, cparams=compression)
    if ct is not None:
        for name in (SPACING, ORIGIN, DIRECTION):
            packed.schunk.vlmeta[name] = [float(number) for number in getattr(ct, name)]
    path.write_bytes(packed.to_cframe())


def open_array(path: Path) -> blosc2.NDArray:
    """The array in ``path``: an index of slices reads what it needs. Raises :class:`InputError` when it is no such file."""
    import blosc2

    try:
        return blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read; prepare the case again") from error


def read_array(path: Path, sha256: str) -> np.ndarray:
    """The array in ``path``; raises :class:`InputError` unless it is what was written."""
    with _checked_array(path, sha256) as array:
        return array[:]


def read_ct_array(path: Path, sha256: str) -> CtVolume:
    """The CT in ``path``, written with its geometry; raises :class:`InputError` unless it is what was written."""
    with _checked_array(path, sha256) as array:
        spacing, origin, direction = (tuple(array.schunk.vlmeta[name]) for name in (SPACING, ORIGIN, DIRECTION))
        return CtVolume(array[:], spacing, origin, direction)


@contextmanager
def _checked_array(path: Path, sha256: str) -> Iterator[blosc2.NDArray]:
    """The array in memory. It reads from the content of the file, which older versions of Blosc2 do not hold on to."""
    import blosc2

    content = read_checked(path, sha256)
    try:
        yield blosc2.ndarray_from_cframe(content)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read; prepare the case again") from error


def read_checked(path: Path, sha256: str) -> bytes:
    """The content of ``path``; raises :class:`InputError` when it is gone, or another than that of this hash."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); prepare the case again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"'{path}' is not what was prepared: it is damaged or was changed; prepare the case again")
    return content


def file_sha256(path: Path) -> str:
    """Hash of a file's content, read in pieces; raises :class:`OSError`."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
