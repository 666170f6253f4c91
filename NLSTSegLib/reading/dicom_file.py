"""What of a file is DICOM, and its data set by pydicom: without its warnings, and within a bound of memory."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from NLSTSegLib.disk.deflate import RAW_DEFLATE, inflated_bytes
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import pydicom

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of files that are compressed from the header on."""

LARGEST_INFLATED_BYTES = 1 << 30
"""A deflated file that holds more is taken for damaged."""

BARE_START = re.compile(rb"[\x02\x08]\0[\0-\x18]\0(?:[A-Z]{2}[\0-\x7f]\0|[\0-\x7f]\0\0\0)")
"""First attribute of group 2 or 8, with a length below 128, of a file without the mark of DICOM."""

LONGEST_META_BYTES = 4096
"""The transfer syntax is told within these."""


def read_dataset(stream: BinaryIO, tags: Sequence[str] | None, *, stop_before_pixels: bool = False) -> pydicom.Dataset:
    """The attributes ``tags`` of a DICOM file, or with ``None`` all; it always gets a transfer syntax.

    Raises whatever pydicom does.
    """
    import pydicom

    dataset = pydicom.dcmread(
        stream, stop_before_pixels=stop_before_pixels, specific_tags=None if tags is None else list(tags), force=True
    )
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little = dataset.original_encoding
        explicit = pydicom.uid.ExplicitVRLittleEndian if is_little else pydicom.uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if is_implicit else explicit
    return dataset


def check_deflated(file: Path, stream: BinaryIO) -> None:
    """Raise :class:`ValueError` where a deflated file would fill the memory: pydicom unpacks it as a whole."""
    start = stream.read(LONGEST_META_BYTES)
    stream.seek(0)
    if DEFLATED.encode() in start:
        (meta_bytes,) = struct.unpack_from("<I", start, 140)
        if inflated_bytes(file, 144 + meta_bytes, LARGEST_INFLATED_BYTES, wbits=RAW_DEFLATE) > LARGEST_INFLATED_BYTES:
            raise ValueError("the deflated file is too large")


def is_dicom(file: Path) -> bool:
    """Whether ``file`` starts like DICOM: ``DICM`` after 128 bytes, or, as some programs export it, at once with attributes.

    Raises :class:`InputError` when it cannot be opened.
    """
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise InputError(f"{file} cannot be opened ({error.strerror})") from error
    return start[128:] == b"DICM" or BARE_START.match(start) is not None
