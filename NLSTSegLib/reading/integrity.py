"""Whether a volume file holds all the voxels its header promises: the readers of ITK do not always notice.

A truncated NIfTI file is read with whatever was in memory in place of the missing voxels, and a compressed MetaImage
with a damaged stream likewise; so sizes and checksums are looked at before the voxels are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from NLSTSegLib.disk.deflate import GZIP_MAGIC, inflated_bytes
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.text_headers import read_start, text_header

SKIPS = ("line skip", "lineskip", "byte skip", "byteskip", "HeaderSize")
"""Fields of NRRD and MetaImage that tell how much lies before the voxels."""

MOST_BYTES_OF_ONE = 4
"""Bytes of voxels that one byte of text can stand for: a double in a digit and a space."""

SURPLUS_BYTES = 4096
"""A file may end with this much that is no voxel; more means that the header tells a wrong size."""


def check_complete(path: Path, needed_bytes: int, *, progress: Callable[[float], None] | None = None) -> None:
    """Raise :class:`InputError` unless ``path`` stores ``needed_bytes`` of voxels whose checksum, if any, is right.

    For NIfTI they count from the start of the (unpacked) file, for NRRD and MetaImage from the start of the data, which
    may be in a file of its own. Of voxels that are written as text only the size is looked at, roughly: their readers notice
    what is missing. ``progress(fraction)`` is called for every piece of compressed data and may raise to stop.
    """
    start = read_start(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        data = _Data(path, 0, "packed" if start.startswith(GZIP_MAGIC) else "plain")
    else:
        data = _data_of_text_header(path, start)
    most_bytes = needed_bytes + SURPLUS_BYTES
    if data.kind == "packed":
        found = inflated_bytes(data.path, data.offset, most_bytes, progress=progress)
    else:
        found = data.path.stat().st_size - data.offset
    if found < (needed_bytes // MOST_BYTES_OF_ONE if data.kind == "text" else needed_bytes):
        raise InputError(f"it is truncated: there are {found} bytes for {needed_bytes} bytes of voxels")
    if found > most_bytes and data.kind in ("packed", "plain"):
        raise InputError(f"it holds more than the {needed_bytes} bytes of voxels that its header tells of")


@dataclass(frozen=True)
class _Data:
    path: Path
    offset: int
    """The voxels start here or later."""
    kind: Literal["packed", "plain", "after a gap", "text"]


def _data_of_text_header(path: Path, start: bytes) -> _Data:
    """Where the voxels of ``path``, a NRRD or MetaImage file that starts with ``start``, are.

    Raises :class:`InputError` where there are none.
    """
    fields, length = text_header(start)
    name = next((fields[key] for key in ("data file", "datafile", "ElementDataFile") if key in fields), "LOCAL")
    # The bytes of the name are those of the system's names.
    name = os.fsdecode(name.encode("latin-1"))
    data, offset = (path, length) if name.upper() == "LOCAL" else (path.parent / name, 0)
    if not data.is_file():
        raise InputError(f"its data file {data.name[:100]} is missing")
    encoding = fields.get("encoding", "raw").lower()
    packed = encoding in ("gz", "gzip") or fields.get("CompressedData", "").lower() == "true"
    skips = [key for key in SKIPS if fields.get(key, "0") != "0"]
    # MetaIO would take any part of the file for voxels.
    if skips and (packed or (data == path and fields.get("HeaderSize", "0") not in ("0", "-1"))):
        raise InputError(f"its {skips[0]} does not fit its data; write it again without")
    if encoding not in ("raw", "gz", "gzip") or fields.get("BinaryData", "").lower() == "false":
        return _Data(data, offset, "text")
    if not packed:
        return _Data(data, offset, "after a gap" if skips else "plain")
    # MetaIO unpacks as much as the header says; where it does not say, right only for a data file of its own.
    told = fields.get("CompressedDataSize", "" if data == path else str(data.stat().st_size))
    if "CompressedData" in fields and told != str(data.stat().st_size - offset):
        raise InputError(f"its CompressedDataSize is not {data.stat().st_size - offset}, so it is damaged or truncated")
    return _Data(data, offset, "packed")
