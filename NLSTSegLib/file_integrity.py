"""Whether a volume file holds all the voxels its header promises: the readers of ITK do not always notice.

A truncated NIfTI file is read with whatever was in memory in place of the missing voxels, and a compressed MetaImage
with a damaged stream likewise; so sizes and checksums are looked at before the voxels are read.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from NLSTSegLib.errors import InputError

PIECE_BYTES = 1 << 20
"""Read, and inflated, at a time; about 5 ms each."""

LONGEST_HEADER_BYTES = 1 << 20
"""A text header is over after this."""

GZIP_MAGIC = b"\x1f\x8b"

GZIP_OR_ZLIB, RAW_DEFLATE = 47, -15
"""Kinds of stream, as zlib calls them."""

NIFTI_HEADER_BYTES = 348

NIFTI_FLOATS = {16: "f4", 64: "f8"}
"""Kinds of number by their code in a NIfTI header."""

SURPLUS_BYTES = 4096
"""A file may end with this much that is no voxel; more means that the header tells a wrong size."""


def check_metaimage_header(path: Path) -> None:
    """Raise :class:`InputError` unless the header says once, in its first part, that there are two to four dimensions.

    MetaIO writes past the end of its arrays when there are more than ten.
    """
    with path.open("rb") as stream:
        told = re.findall(rb"NDims[^\n]*", stream.read(LONGEST_HEADER_BYTES))
    if len(told) != 1 or not re.fullmatch(rb"NDims\s*[=:]\s*[234]\s*", told[0]):
        raise InputError("it is damaged or no MetaImage: its header does not tell the number of dimensions (NDims)")


def check_complete(path: Path, needed_bytes: int, *, progress: Callable[[float], None] | None = None) -> None:
    """Raise :class:`InputError` unless ``path`` stores ``needed_bytes`` of voxels whose checksum, if any, is right.

    For NIfTI they count from the start of the (unpacked) file, for NRRD and MetaImage from the start of the data, which
    may be in a file of its own. Data spread over several files, or written as text, are left to the reader.
    ``progress(fraction)`` is called for every piece of compressed data and may raise to stop.
    """
    with path.open("rb") as stream:
        start = stream.read(LONGEST_HEADER_BYTES)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        data, offset, compressed = path, 0, start.startswith(GZIP_MAGIC)
    else:
        fields, length = _text_header(start)
        name = next((fields[key] for key in ("data file", "datafile", "ElementDataFile") if key in fields), "LOCAL")
        skips = any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip", "HeaderSize"))
        encoding = fields.get("encoding", "raw").lower()
        as_text = encoding not in ("raw", "gz", "gzip") or fields.get("BinaryData", "").lower() == "false"
        if as_text or skips or name.startswith("LIST") or "%" in name:
            return
        data, offset = (path, length) if name.upper() == "LOCAL" else (path.parent / name, 0)
        compressed = encoding != "raw" or fields.get("CompressedData", "").lower() == "true"
        if not data.is_file():
            raise InputError(f"its data file {data.name[:100]} is missing")
        # MetaIO unpacks as much as the header says; where it does not say, right only for a data file of its own.
        told = fields.get("CompressedDataSize", "" if data == path else str(data.stat().st_size))
        if "CompressedData" in fields and compressed and told != str(data.stat().st_size - offset):
            raise InputError(f"its CompressedDataSize is not {data.stat().st_size - offset}, so it is damaged or truncated")
    most_bytes = needed_bytes + SURPLUS_BYTES
    found = inflated_bytes(data, offset, most_bytes, progress=progress) if compressed else data.stat().st_size - offset
    if found < needed_bytes:
        raise InputError(f"it is truncated: {found} of {needed_bytes} bytes are there")
    if found > most_bytes:
        raise InputError(f"it holds more than the {needed_bytes} bytes of voxels that its header tells of")


def nonfinite_nifti_voxels(path: Path, shape_kji: tuple[int, ...]) -> np.ndarray | None:
    """Where NaN and infinite voxels are stored in a NIfTI file, for which ITK gives 0: boolean ``[k, j, i]``, or ``None``.

    The file is known to be complete.
    """
    with path.open("rb") as start:
        packed = start.read(2) == GZIP_MAGIC
    with gzip.open(path) if packed else path.open("rb") as stream:
        header = stream.read(NIFTI_HEADER_BYTES)
        order = "<" if struct.unpack_from("<i", header)[0] == NIFTI_HEADER_BYTES else ">"
        (datatype,) = struct.unpack_from(f"{order}h", header, 70)
        if datatype not in NIFTI_FLOATS:
            return None
        stream.seek(max(NIFTI_HEADER_BYTES, int(struct.unpack_from(f"{order}f", header, 108)[0])))
        voxels = np.dtype(f"{order}{NIFTI_FLOATS[datatype]}")
        slice_bytes = shape_kji[1] * shape_kji[2] * voxels.itemsize
        slices = (np.frombuffer(stream.read(slice_bytes), voxels) for _ in range(shape_kji[0]))
        nonfinite = np.stack([~np.isfinite(values) for values in slices]).reshape(shape_kji)
    return nonfinite if nonfinite.any() else None


def _text_header(start: bytes) -> tuple[dict[str, str], int]:
    """Fields and length of a NRRD header (``key: value``, any case) or a MetaImage header (``Key = value``)."""
    is_nrrd = start.startswith(b"NRRD")
    fields: dict[str, str] = {}
    length = 0
    for line in start.splitlines(keepends=True):
        length += len(line)
        key, _, value = line.decode("latin-1").partition(":" if is_nrrd else "=")
        fields[key.strip().lower() if is_nrrd else key.strip()] = value.strip()
        if not line.strip() or key.strip() == "ElementDataFile":
            break
    return fields, length


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
