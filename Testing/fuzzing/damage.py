"""Damage to the headers of files, by a seeded generator: each function changes one thing that matters to its format."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 255, 256, 1000, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 10**19, 10**40)
FLOATS = (0.0, -0.0, 1e-45, 1e-6, 0.5, -2.5, 1e4, 3.4e38, -3.4e38, float("nan"), float("inf"), float("-inf"))
WORDS = (
    *("", " ", "0", "-1", "nan", "inf", "-inf", "1e400", "1e-400", "0x10", "1 2", "(1,0,0)", "none", "?", "true", "%s%n", "\0"),
    *("LOCAL", "LIST", "ct.raw", "/dev/zero", "/dev/null", "../../etc/passwd", "%03d.raw 1 20 1", "%999d 1 2 1", "."),
    *("é", "\x1b[31m", "\n"),
    *("raw", "gzip", "hex", "ascii", "bzip2", "double", "float", "uchar", "block", "short", "MET_DOUBLE", "MET_UCHAR", "big"),
    *("left-posterior-superior", "scanner-xyz", "3D-right-handed", "9" * 400, "A" * 5000, "\\", "CT", "MR", "MONOCHROME1", "RGB"),
)
LINES = (
    *("dimension: 16", "sizes: 28 24 20 1 1", "line skip: 1000000000", "byte skip: -1", "byte skip: 10", "encoding: hex"),
    *("data file: LIST", "data file: ct.raw", "space dimension: 4", "space units: furlong", "a:=b", "# x"),
    *("NDims = 100", "HeaderSize = -1", "HeaderSize = 5", "ElementNumberOfChannels = 3", "CompressedData = True", "Comment = \0"),
    *("ElementToIntensityFunctionSlope = 0", "ElementDataFile = LIST", "BinaryDataByteOrderMSB = True", "ElementMin = nan", ""),
    *("kinds: x:=" + "A" * 5000, "a:=" + "A" * 5000, "\n" * 50_000, "NDims: 3", "HeaderSize: 10", "CompressedDataSize: 100"),
)
"""Lines that a header may have besides those of the good one."""

LONG = 20_000
"""Characters of a text or items of a list."""


def pick(rng: Rng, choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


def spoil_bytes(data: bytes, rng: Rng, end: int) -> bytes:
    """One damage somewhere before ``end``."""
    spoiled = bytearray(data)
    at = int(rng.integers(0, max(1, min(end, len(data)))))
    count = int(rng.integers(1, 9))
    kind = rng.integers(7)
    if kind <= 2:
        for place in rng.integers(0, max(1, min(end, len(data))), count):
            spoiled[place] ^= 1 << rng.integers(8)
    elif kind == 3:
        spoiled[at : at + count] = rng.bytes(count)
    elif kind == 4:
        del spoiled[at : at + count]
    elif kind == 5:
        spoiled[at:at] = rng.bytes(count) * int(pick(rng, (1, 1, 1, 1000)))
    else:
        del spoiled[at:]
    return bytes(spoiled)


def spoil_nifti(data: bytes, rng: Rng) -> bytes:
    """Another number in one field of the 348 bytes of the header, or any damage there."""
    if rng.random() < 0.3:
        return spoil_bytes(data, rng, 352)
    code, values = pick(rng, (("<h", NUMBERS), ("<i", NUMBERS), ("<f", FLOATS)))
    width = struct.calcsize(code)
    # Size, type, spacing, scale, form codes, quaternion and matrix lie between these.
    at = int(rng.integers(40 // width, 328 // width)) * width
    value = pick(rng, values)
    if code != "<f":
        value = (value + 2 ** (8 * width - 1)) % 2 ** (8 * width) - 2 ** (8 * width - 1)
    spoiled = bytearray(data)
    struct.pack_into(code, spoiled, at, np.float32(value) if code == "<f" else value)
    return bytes(spoiled)


def spoil_text(data: bytes, rng: Rng, end: int, mark: str) -> bytes:
    """A header of lines ``key<mark>value`` with one of them changed, doubled, moved, lost or new; or any damage there."""
    if rng.random() < 0.2:
        return spoil_bytes(data, rng, end)
    lines = data[:end].decode("latin-1").split("\n")
    at = int(rng.integers(len(lines)))
    kind = rng.integers(6)
    if kind <= 2 and mark in lines[at]:
        key, _, value = lines[at].partition(mark)
        parts = value.split(" ")
        place = int(rng.integers(len(parts)))
        parts[place] = str(pick(rng, (*NUMBERS, *FLOATS))) if rng.random() < 0.6 else pick(rng, WORDS)
        lines[at] = key + mark + " ".join(parts)
    elif kind == 3:
        lines.insert(at, pick(rng, (*LINES, *lines)))
    elif kind == 4:
        del lines[at]
    else:
        lines[at] = lines[at].replace(pick(rng, list(lines[at]) or ["x"]), pick(rng, WORDS))
    return "\n".join(lines).encode("utf-8") + data[end:]


def spoil_dicom(data: bytes, rng: Rng) -> bytes:
    """One element of an explicit little endian file changed, emptied, doubled, moved, lost or of another length."""
    elements = list(dicom_elements(data))
    if rng.random() < 0.25 or not elements:
        return spoil_bytes(data, rng, elements[-1][0] + 12 if elements else len(data))
    start, value, end = pick(rng, elements)
    header, content = data[start:value], data[value:end]
    kind = rng.integers(8)
    if kind <= 2:
        word = pick(rng, (*WORDS, *(str(n) for n in (*NUMBERS, *FLOATS)))).encode("utf-8")
        if rng.random() < 0.5:
            word = b"\\".join([word] * int(pick(rng, (2, 3, 6))))
        content = word + b" " * (len(word) % 2)
        header = with_length(header, len(content))
    elif kind == 3:
        content = struct.pack("<q", pick(rng, [n for n in NUMBERS if n < 2**63]))[: len(content)].ljust(len(content), b"\0")
    elif kind == 4:
        header = with_length(header, pick(rng, [n for n in NUMBERS if 0 <= n < 2**32]))
    elif kind == 5:
        content = content * 2
        header = with_length(header, len(content))
    elif kind == 6:
        return data[:start] + data[end:]
    else:
        other, _, other_end = pick(rng, elements)
        return data[:start] + data[other:other_end] + data[end:]
    return data[:start] + header + content + data[end:]


def dicom_elements(data: bytes) -> list[tuple[int, int, int]]:
    """Start, start of the value and end of every element before the voxels; those inside sequences too."""
    found, at = [], 132
    while at + 8 <= len(data):
        group, element, vr, length = struct.unpack_from("<HH2sH", data, at)
        if (group, element) == (0x7FE0, 0x0010):
            found.append((at, at + 12, at + 12))
            break
        if group == 0xFFFE:
            at += 8
            continue
        long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"UC", b"UR")
        value = at + (12 if long else 8)
        if long:
            length = struct.unpack_from("<I", data, at + 8)[0]
        # Of a sequence the header alone counts, so that its items are walked through.
        end = value if vr == b"SQ" else min(value + length, len(data))
        found.append((at, value, end))
        at = end
    return found


def with_length(header: bytes, length: int) -> bytes:
    return header[:8] + struct.pack("<I", length) if len(header) == 12 else header[:6] + struct.pack("<H", length % 2**16)


def spoil_json(text: bytes, rng: Rng) -> bytes:
    """A card with one value changed, lost, new or under another name; or any damage."""
    if rng.random() < 0.2:
        return spoil_bytes(text, rng, len(text))
    card = json.loads(text)
    place = card
    while isinstance(inner := pick(rng, list(place.values())), dict) and inner and rng.random() < 0.8:
        place = inner
    key = pick(rng, list(place))
    kind = rng.integers(6)
    if kind == 0:
        del place[key]
    elif kind == 1:
        place[pick(rng, WORDS)] = place.pop(key)
    elif kind == 2 and isinstance(place[key], list) and place[key]:
        place[key][rng.integers(len(place[key]))] = json_value(rng)
    else:
        place[key] = json_value(rng)
    return json.dumps(card).encode("utf-8")


def json_value(rng: Rng, depth: int = 0) -> Any:
    kind = rng.integers(8 if depth < 3 else 5)
    if kind <= 2:
        return pick(rng, (*NUMBERS, *FLOATS))
    if kind == 3:
        return pick(
            rng, (None, True, False, "unet", "published", "batch", "group", "LPS", 1.5, "x" * (LONG if depth == 0 else 5))
        )
    if kind == 4:
        return pick(rng, WORDS)
    if kind == 5:
        return {pick(rng, WORDS): json_value(rng, depth + 1) for _ in range(rng.integers(4))}
    if depth == 0 and rng.random() < 0.25:
        return [pick(rng, (*NUMBERS, *FLOATS))] * LONG
    return [json_value(rng, depth + 1) for _ in range(rng.integers(6))] * int(pick(rng, (1, 1, 1, 5)))


def spoil_safetensors(data: bytes, rng: Rng) -> bytes:
    """Another header length, another header, or any damage."""
    length = struct.unpack_from("<Q", data)[0]
    kind = rng.integers(3)
    if kind == 0:
        return spoil_bytes(data, rng, len(data))
    if kind == 1:
        return struct.pack("<Q", pick(rng, [n for n in NUMBERS if 0 <= n < 2**64])) + data[8:]
    header = spoil_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def several(spoil: Callable[[bytes], bytes], data: bytes, rng: Rng, most: int = 3) -> bytes:
    for _ in range(rng.integers(1, most + 1)):
        try:
            data = spoil(data)
        except (ValueError, KeyError, IndexError, struct.error, AttributeError):
            # What is too damaged to be understood here is not damaged further.
            break
    return data
