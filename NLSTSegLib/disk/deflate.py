"""Length and checksum of a compressed stream, without keeping what it holds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

from NLSTSegLib.errors import InputError

PIECE_BYTES = 1 << 20
"""Read, and inflated, at a time; about 5 ms each."""


GZIP_MAGIC = b"\x1f\x8b"


GZIP_OR_ZLIB, RAW_DEFLATE = 47, -15
"""Kinds of stream, as zlib calls them."""


def inflated_bytes(
    path: Path, offset: int, most_bytes: int, *, wbits: int = GZIP_OR_ZLIB, progress: Callable[[float], None] | None = None
) -> int:
    """Length of the compressed stream after ``offset``, its checksum verified, or something above ``most_bytes``.

    ``wbits`` is zlib's. Raises :class:`InputError` for a damaged or truncated stream.
    """
    total, size = 0, path.stat().st_size
    inflater = zlib.decompressobj(wbits)
    with path.open("rb") as stream:
        stream.seek(offset)
        try:
            while piece := stream.read(PIECE_BYTES):
                if progress:
                    progress(stream.tell() / size)
                while piece:
                    if inflater.eof:
                        # Parallel compressors write one member after another; anything else behind the data is not ours.
                        if not piece.startswith(GZIP_MAGIC):
                            return total
                        inflater = zlib.decompressobj(wbits)
                    total += len(inflater.decompress(piece, PIECE_BYTES))
                    piece = inflater.unused_data or inflater.unconsumed_tail
                    if total > most_bytes:
                        return total
        except zlib.error as error:
            raise InputError("its compressed data are damaged") from error
    if not inflater.eof:
        raise InputError(f"it is truncated: its compressed data end after {total} bytes")
    return total
