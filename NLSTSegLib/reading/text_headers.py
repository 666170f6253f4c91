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

NRRD_MEANINGS = {
    "space units": {"mm", "millimeter", "millimeters"},
    "units": {"mm", "millimeter", "millimeters"},
    "sample units": {"hu", "hounsfield", "hounsfield units", "hounsfield unit"},
    "old min": {"nan"},
    "old max": {"nan"},
}
METAIMAGE_MEANINGS = {
    "DistanceUnits": {"mm", "?", "met_distance_units_mm", "met_distance_units_unknown"},
    "Modality": {"met_mod_ct", "met_mod_other", "met_mod_unknown"},
}
"""Fields that ITK's readers ignore, and their values that change nothing; others would make the CT smaller, larger or no CT."""

METAIMAGE_RESCALE = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}

MIRRORED_SPACES, RIGHT_SIMPLEITK = {"left-anterior-superior", "las"}, (2, 5, 6)
"""NRRD spaces of which ITK turned the wrong axis, so that left became right, and the version of SimpleITK that is mended."""

SPATIAL_KINDS = {"domain", "space", "none", "???"}
"""Kinds of the axes of a NRRD volume; others, such as time, are no third dimension of a patient."""

METAIMAGE_AXES = {"TransformMatrix", "Orientation", "Rotation"}
"""Names of the field that says which way the axes run."""

METAIMAGE_DIMENSIONS = re.compile(rb"NDims\s*[=:]\s*[234]\s*")
"""MetaIO writes past the end of its arrays when there are more than ten dimensions."""


def check_text_header(path: Path) -> None:
    """Raise :class:`InputError` when the header of ``path``, a NRRD or MetaImage file, would make its reader crash.

    Also when it does not tell the voxel spacing, for which the readers take 1 mm, or tells something that they ignore and that
    would give other sizes or values.
    """
    start = read_start(path)
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
    _check_meaning(fields)


def _check_meaning(fields: dict[str, str]) -> None:
    """Raise :class:`InputError` for a field that the readers ignore or mistake, and that means something."""
    import SimpleITK as sitk

    for name, harmless in {**NRRD_MEANINGS, **METAIMAGE_MEANINGS}.items():
        values = re.findall(r'"([^"]*)"', fields.get(name, "")) or [fields.get(name, "")]
        odd = [value for value in values if value.strip().lower() not in harmless | {"", "???", "none"}]
        if odd:
            raise InputError(f"its {name} is {odd[0][:40]}, which is not that of a CT in mm and HU; write it again")
    for name, harmless_number in METAIMAGE_RESCALE.items():
        if fields.get(name, "") and not _is_number(fields[name], harmless_number):
            raise InputError(f"its {name} is {fields[name][:40]}, so the stored values are no HU; write it again in HU")
    space, version = fields.get("space", "").lower(), sitk.Version.VersionString()
    if space in MIRRORED_SPACES and tuple(map(int, re.findall(r"\d+", version)[:3])) < RIGHT_SIMPLEITK:
        fix = "update it to 2.5.6 or newer, or write the file in left-posterior-superior"
        raise InputError(f"its space is {space}, which SimpleITK {version} reads mirrored; {fix}")
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) == 3 and not set(kinds) <= SPATIAL_KINDS:
        raise InputError(f"its kinds are {' '.join(kinds)[:60]}, so it is no volume in space; give the CT itself")


def _is_number(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def read_start(path: Path) -> bytes:
    """First bytes of ``path``, among which its header is."""
    with path.open("rb") as stream:
        return stream.read(LONGEST_HEADER_BYTES)


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
