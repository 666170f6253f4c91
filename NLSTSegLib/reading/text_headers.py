"""Headers of NRRD and MetaImage files, which are lines of text: their fields, and whether ITK's readers survive them."""

from __future__ import annotations

import re
from pathlib import Path

from NLSTSegLib.errors import InputError

LONGEST_HEADER_BYTES = 1 << 20
"""A header is over after this."""

LONGEST_NRRD_FIELD = 800
"""The NRRD library writes a line it cannot read into a buffer of about 1000 bytes, of whatever length the line is."""

FREE_NRRD_LINE = re.compile(rb"#|(?:(?!: ).)*:=")
"""Comments, and what programs note with keys of their own: no fields, and of any length."""

METAIMAGE_TEXTS = (
    *("ElementDataFile", "Comment", "ObjectType", "ObjectSubType", "TransformType", "Name", "AcquisitionDate"),
    *("AnatomicalOrientation", "DistanceUnits", "Modality"),
)
LONG_METAIMAGE_TEXT = re.compile(rf"(?:^|\n)[^\S\n]*(?:{'|'.join(METAIMAGE_TEXTS)})[^\n]{{200,}}".encode())
"""MetaIO copies these texts into arrays of 255 bytes."""

SEVERAL_FILES = re.compile(rb"(?:^|\n)[^\S\n]*(?:data ?file|ElementDataFile)[^\S\n]*[=:](?:[^\S\n]*(?-i:LIST)|[^\n]*%)", re.I)
"""A list or a pattern of numbered files; both libraries give a pattern to ``sprintf``, which can write anywhere."""

METAIMAGE_DIMENSIONS = re.compile(rb"NDims\s*[=:]\s*[234]\s*")
"""MetaIO writes past the end of its arrays when there are more than ten dimensions."""


def check_text_header(path: Path) -> None:
    """Raise :class:`InputError` when the header of ``path``, a NRRD or MetaImage file, would make its reader crash.

    Also when it does not tell the voxel spacing, for which the readers take 1 mm.
    """
    with path.open("rb") as stream:
        start = stream.read(LONGEST_HEADER_BYTES)
    if SEVERAL_FILES.search(start):
        raise InputError("its header names its data by a list or a pattern of files (LIST or %); write it again as one file")
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        if not start.startswith(b"NRRD"):
            raise InputError("it is damaged or not a NRRD file: it does not start with NRRD")
        lines = start.replace(b"\r", b"").partition(b"\n\n")[0].split(b"\n")
        if any(len(line) > LONGEST_NRRD_FIELD and not FREE_NRRD_LINE.match(line) for line in lines):
            raise InputError("it is damaged: a line of its header is too long")
    else:
        told = re.findall(rb"NDims[^\n]*", start)
        if len(told) != 1 or not METAIMAGE_DIMENSIONS.fullmatch(told[0]):
            raise InputError("it is damaged or no MetaImage: its header does not tell the number of dimensions (NDims)")
        if LONG_METAIMAGE_TEXT.search(start):
            raise InputError("it is damaged: a line of its header is too long")
    fields, _ = text_header(start)
    spacings = fields.get("spacings", "nan").lower().split()[:3]
    if not fields.keys() & {"space directions", "ElementSpacing", "ElementSize"} and "nan" in spacings:
        raise InputError("its header does not tell the voxel spacing; write it again with it")


def text_header(start: bytes) -> tuple[dict[str, str], int]:
    """Fields and length of a NRRD header (``key: value``, any case) or a MetaImage header (``Key = value``)."""
    is_nrrd = start.startswith(b"NRRD")
    fields: dict[str, str] = {}
    length = 0
    for line in start.splitlines(keepends=True):
        length += len(line)
        # MetaIO takes a colon too.
        key, value = (*re.split(":" if is_nrrd else "[=:]", line.decode("latin-1"), maxsplit=1), "")[:2]
        fields[key.strip().lower() if is_nrrd else key.strip()] = value.strip()
        if not line.strip() or key.strip() == "ElementDataFile":
            break
    return fields, length
