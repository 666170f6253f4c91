"""Spoiled files of every kind that the program reads, made from good small ones by a seeded generator."""

import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from dicom_files import small_chest, write_enhanced, write_series
from threshold_model import CARD, threshold_network, write_threshold_bundle

from NLSTSegLib.models import CARD_FILE, WEIGHTS_FILE, ModelFiles

Rng = np.random.Generator

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 255, 256, 1000, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 10**19, 10**40)
FLOATS = (0.0, -0.0, 1e-45, 1e-6, 0.5, -2.5, 1e4, 3.4e38, -3.4e38, float("nan"), float("inf"), float("-inf"))
WORDS = (
    *("", " ", "0", "-1", "nan", "inf", "-inf", "1e400", "1e-400", "0x10", "1 2", "(1,0,0)", "none", "?", "true", "%s%n", "\0"),
    *("LOCAL", "LIST", "ct.raw", "/dev/zero", "/dev/null", "../../etc/passwd", "%03d.raw 1 20 1", ".", "é", "\x1b[31m", "\n"),
    *("raw", "gzip", "hex", "ascii", "bzip2", "double", "float", "uchar", "block", "short", "MET_DOUBLE", "MET_UCHAR", "big"),
    *("left-posterior-superior", "scanner-xyz", "3D-right-handed", "9" * 400, "(" * 400, "\\", "CT", "MR", "MONOCHROME1", "RGB"),
)
LINES = (
    *("dimension: 16", "sizes: 28 24 20 1 1", "line skip: 1000000000", "byte skip: -1", "byte skip: 10", "encoding: hex"),
    *(
        "data file: LIST",
        "data file: ct.raw",
        "space dimension: 4",
        "space units: furlong",
        "measurement frame: none",
        "#x",
        "a:=b",
    ),
    *("NDims = 100", "HeaderSize = -1", "HeaderSize = 5", "ElementNumberOfChannels = 3", "CompressedData = True", "Comment = \0"),
    *("ElementToIntensityFunctionSlope = 0", "ElementDataFile = LIST", "BinaryDataByteOrderMSB = True", "ElementMin = nan", ""),
)
"""Lines that a header may have besides those of the good one."""

LARGEST_REPEAT = 200_000


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
        return pick(rng, (None, True, False, "unet", "published", "batch", "group", "LPS", 1.5, "x" * LARGEST_REPEAT))
    if kind == 4:
        return pick(rng, WORDS)
    if kind == 5:
        return {pick(rng, WORDS): json_value(rng, depth + 1) for _ in range(rng.integers(4))}
    return [json_value(rng, depth + 1) for _ in range(rng.integers(6))] * int(pick(rng, (1, 1, 1, 200)))


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


class Inputs:
    """Good files in ``folder``; :meth:`make` spoils one of them. The same number gives the same bytes each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hu = small_chest()
        image = sitk.GetImageFromArray(hu)
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-150.0, -160.0, -300.0))
        for name in ("ct.nii", "ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd"):
            sitk.WriteImage(image, str(folder / name))
        for name in ("packed.nii.gz", "packed.nrrd", "packed.mha"):
            sitk.WriteImage(image, str(folder / name), useCompression=True)
        uid = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4"}
        for encoding in ("", "RLE", "JPEG", "JPEG2000"):
            write_series(folder / f"series{encoding}", hu[:5], encoding=encoding, **uid)
        write_enhanced(folder / "enhanced", hu[:5])
        write_threshold_bundle(folder / "model")
        self.card = (folder / "model" / CARD_FILE).read_bytes()
        self.weights = (folder / "model" / WEIGHTS_FILE).read_bytes()
        stream = io.BytesIO()
        torch.save({"epoch": 3, "model_state_dict": threshold_network().state_dict()}, stream)
        self.checkpoint = stream.getvalue()
        stream = io.BytesIO()
        torch.save(threshold_network().state_dict(), stream, _use_new_zipfile_serialization=False)
        self.old_checkpoint = stream.getvalue()
        self.makers: dict[str, Callable[[Rng, Path], tuple[Path, ModelFiles | Path]]] = {
            "NIfTI": self.nifti,
            "NRRD": self.nrrd,
            "MetaImage": self.metaimage,
            "DICOM series": self.series,
            "DICOM enhanced": self.enhanced,
            "DICOM compressed": self.compressed,
            "model.json": self.model_card,
            "safetensors": self.safetensors,
            "checkpoint": self.pickled,
        }

    def make(self, number: int, seed: int, folder: Path) -> tuple[str, Path, ModelFiles | Path]:
        """Format, the CT and the model (a bundle's folder, or its parts) of an input, written into the new ``folder``."""
        names = list(self.makers)
        name = names[number % len(names)]
        folder.mkdir()
        ct, model = self.makers[name](np.random.default_rng([seed, number]), folder)
        return name, ct, model

    def nifti(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        data = (self.folder / "ct.nii").read_bytes()
        data = several(lambda d: spoil_nifti(d, rng), data, rng)
        if rng.random() < 0.5:
            return self.written(folder / "ct.nii", data)
        import gzip

        packed = gzip.compress(data, 1, mtime=0)
        return self.written(folder / "ct.nii.gz", spoil_bytes(packed, rng, len(packed)) if rng.random() < 0.2 else packed)

    def nrrd(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.text(rng, folder, ("ct.nrrd", "packed.nrrd", "ct.nhdr"), ":", b"\n\n")

    def metaimage(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.text(rng, folder, ("ct.mha", "packed.mha", "ct.mhd"), "=", b"LOCAL\n")

    def text(self, rng: Rng, folder: Path, names: tuple[str, ...], mark: str, ending: bytes) -> tuple[Path, Path]:
        name = pick(rng, names)
        data = (self.folder / name).read_bytes()
        (folder / "ct.raw").write_bytes(small_chest().tobytes())

        def spoil(spoiled: bytes) -> bytes:
            end = spoiled.find(ending)
            return spoil_text(spoiled, rng, len(spoiled) if end < 0 else end + len(ending) - 1, mark)

        data = several(spoil, data, rng)
        return self.written(folder / f"ct{Path(name).suffix}", data)

    def series(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.spoiled_series(rng, folder, "series")

    def compressed(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.spoiled_series(rng, folder, f"series{pick(rng, ('RLE', 'JPEG', 'JPEG2000'))}")

    def spoiled_series(self, rng: Rng, folder: Path, name: str) -> tuple[Path, Path]:
        (folder / "ct").mkdir()
        files = sorted((self.folder / name).iterdir())
        hit = rng.permutation(len(files))[: rng.integers(1, 3)]
        for n, file in enumerate(files):
            data = file.read_bytes()
            if n in hit and name != "series" and rng.random() < 0.5:
                data = spoil_bytes(data, rng, len(data))
            elif n in hit:
                data = several(lambda d: spoil_dicom(d, rng), data, rng)
            (folder / "ct" / file.name).write_bytes(data)
        return folder / "ct", self.folder / "model"

    def enhanced(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        data = (self.folder / "enhanced").read_bytes()
        return self.written(folder / "ct", several(lambda d: spoil_dicom(d, rng), data, rng))

    def model_card(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        card = spoil_json(self.card, rng)
        return self.bundle(folder, card, self.weights)

    def safetensors(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        weights = several(lambda d: spoil_safetensors(d, rng), self.weights, rng, 2)
        card = json.loads(self.card)
        card["weights_sha256"] = hashlib.sha256(weights).hexdigest()
        return self.bundle(folder, json.dumps(card).encode("utf-8"), weights)

    def pickled(self, rng: Rng, folder: Path) -> tuple[Path, ModelFiles]:
        data = pick(rng, (self.checkpoint, self.old_checkpoint))
        data = several(lambda d: spoil_bytes(d, rng, len(d)), data, rng)
        (folder / "model.pth").write_bytes(data)
        return self.folder / "ct.nii", ModelFiles(CARD, folder / "model.pth", "file")

    def bundle(self, folder: Path, card: bytes, weights: bytes) -> tuple[Path, Path]:
        (folder / "model").mkdir()
        (folder / "model" / CARD_FILE).write_bytes(card)
        (folder / "model" / WEIGHTS_FILE).write_bytes(weights)
        return self.folder / "ct.nii", folder / "model"

    def written(self, path: Path, data: bytes) -> tuple[Path, Path]:
        path.write_bytes(data)
        return path, self.folder / "model"


def several(spoil: Callable[[bytes], bytes], data: bytes, rng: Rng, most: int = 3) -> bytes:
    for _ in range(rng.integers(1, most + 1)):
        try:
            data = spoil(data)
        except (ValueError, KeyError, IndexError, struct.error, AttributeError):
            # What is too damaged to be understood here is not damaged further.
            break
    return data
