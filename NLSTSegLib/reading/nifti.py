"""What ITK does not survive, or reads wrongly, of NIfTI files."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from NLSTSegLib.disk.deflate import GZIP_MAGIC
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk

HEADER_BYTES = 348

MAGIC = (b"n+1\0", b"ni1\0")

FLOATS = {16: "f4", 64: "f8"}
"""Kinds of number by their code in a header."""

LARGEST_NUMBER = 1e12
"""A larger one in a geometry, in whatever unit, is damage."""

SFORM_ROUNDING = 0.5
"""A sform that places every voxel within this share of a voxel of where ITK has read it is no other geometry."""

NIFTI_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres in the unit of a NIfTI header's lengths (metre, millimetre, micrometre) by its code."""


def check_nifti_header(path: Path) -> None:
    """Raise :class:`InputError` for a geometry with numbers with which ITK calculates for ever, or without voxel sizes, and for
    units and a rescale that it does not understand.

    Raises :class:`ValueError` for what is no NIfTI file.
    """
    header, order = _header(path)
    (dimensions,) = struct.unpack_from(f"{order}h", header, 40)
    qform_code, sform_code = struct.unpack_from(f"{order}2h", header, 252)
    if header[344:348] not in MAGIC:
        raise InputError("it is no NIfTI file but Analyze by its magic, so its orientation is in doubt; convert the CT again")
    if (unit := header[123] & 7) not in (0, *NIFTI_UNITS_MM):
        raise InputError(f"its xyzt_units has the unknown unit of length {unit}, so its size is in doubt; write it again")
    slope, intercept = struct.unpack_from(f"{order}2f", header, 112)
    if np.isinf(slope) or (slope and not np.isnan(slope) and not np.isfinite(intercept)):
        raise InputError(f"its scl_slope and scl_inter ({slope:g}, {intercept:g}) give no HU; write it again")
    numbers = struct.unpack_from(f"{order}4f", header, 76)
    # ITK takes 1 mm for a size of 0, and others take an axis with a negative one to be flipped.
    if dimensions > 2 and min(numbers[1:]) <= 0:
        raise InputError("it has a voxel size that is not positive, so its size or direction is in doubt; write it again")
    numbers += struct.unpack_from(f"{order}6f", header, 256) if qform_code > 0 else ()
    numbers += struct.unpack_from(f"{order}12f", header, 280) if sform_code > 0 else ()
    if not all(abs(number) < LARGEST_NUMBER for number in numbers):
        raise InputError("its origin, spacing or directions (pixdim, qform, sform) are not finite numbers, so it is damaged")


def without_false_intercept(path: Path, image: sitk.Image) -> sitk.Image:
    """``image`` as it is stored where scl_slope is 0 or NaN: nothing is scaled then, but ITK applies scl_inter."""
    header, order = _header(path)
    slope, intercept = struct.unpack_from(f"{order}2f", header, 112)
    return image if (slope and not np.isnan(slope)) or not np.isfinite(intercept) else image - intercept


def nonfinite_voxels(path: Path, shape_kji: tuple[int, ...]) -> np.ndarray | None:
    """Where NaN and infinite voxels are stored, for which ITK gives 0: boolean ``[k, j, i]``, or ``None``.

    The file is known to be complete.
    """
    header, order = _header(path)
    (datatype,) = struct.unpack_from(f"{order}h", header, 70)
    if datatype not in FLOATS:
        return None
    with _opened(path) as stream:
        stream.seek(max(HEADER_BYTES, int(struct.unpack_from(f"{order}f", header, 108)[0])))
        voxels = np.dtype(f"{order}{FLOATS[datatype]}")
        slice_bytes = shape_kji[1] * shape_kji[2] * voxels.itemsize
        slices = (np.frombuffer(stream.read(slice_bytes), voxels) for _ in range(shape_kji[0]))
        nonfinite = np.stack([~np.isfinite(values) for values in slices]).reshape(shape_kji)
    return nonfinite if nonfinite.any() else None


def apply_sform(reader: sitk.ImageFileReader, image: sitk.Image) -> None:
    """Give ``image`` the axes of a sheared sform, for which ITK took the nearest right-angled ones or the qform.

    Raises :class:`InputError` where the header contradicts itself.
    """
    if int(reader.GetMetaData("sform_code")) <= 0:
        return
    mm = NIFTI_UNITS_MM.get(int(reader.GetMetaData("xyzt_units")) & 7, 1.0)
    sform = np.array([reader.GetMetaData(f"srow_{axis}").split() for axis in "xyz"], float) * [[-mm], [-mm], [mm]]
    steps_mm, origin_mm = sform[:, :3], sform[:, 3]
    spacing_mm = np.array(image.GetSpacing())
    read_mm = np.array(image.GetDirection()).reshape(3, 3) * spacing_mm
    off_mm = np.abs((steps_mm - read_mm) @ image.GetSize()).max() + np.abs(origin_mm - image.GetOrigin()).max()
    if off_mm < SFORM_ROUNDING * spacing_mm.min():
        return
    axes = steps_mm / spacing_mm
    same_size = np.allclose(np.linalg.norm(axes, axis=0), 1, atol=1e-3) and abs(np.linalg.det(axes)) > 1e-3
    if reader.GetMetaData("ITK_sform_corrected") != "YES" or not same_size:
        raise InputError("it has two geometries that differ (qform, sform and voxel size); write it again with one")
    image.SetDirection((axes / np.linalg.norm(axes, axis=0)).ravel().tolist())


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        packed = stream.read(2) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def _header(path: Path) -> tuple[bytes, str]:
    """The first bytes, unpacked, and the byte order as :mod:`struct` calls it. Raises :class:`ValueError`."""
    try:
        with _opened(path) as stream:
            header = stream.read(HEADER_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError("its compressed data are damaged") from error
    for order in "<>":
        if len(header) == HEADER_BYTES and struct.unpack_from(f"{order}i", header)[0] == HEADER_BYTES:
            return header, order
    raise ValueError("it has no NIfTI header")
