"""The voxels of a DICOM file as they are stored: decoded by pydicom, those of the JPEG family by SimpleITK (GDCM)."""

from __future__ import annotations

import io
import struct
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.dicom_headers import DicomSlice
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import pydicom

LARGEST_FILE_BYTES = 4 << 30
"""A larger file is not read."""

NATIVE_TO_PYDICOM = ("1.2.840.10008.1.2.5",)
"""Compressed transfer syntaxes that pydicom decodes without help: RLE."""

JPEG_2000_START = b"\xff\x4f\xff\x51"
"""Of an encoded frame: SOC and SIZ, the marker before its size (ISO/IEC 15444-1, annex A)."""

MOST_TILES = 256
"""A JPEG 2000 frame in more pieces is a damaged one; the decoder takes memory for every piece."""

_DESCRIPTION = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)


def read_stored(one: DicomSlice) -> np.ndarray:
    """All slices of the file of ``one`` as ``[frame, row, column]``, of whole numbers before any rescale.

    Raises :class:`InputError` when they do not fit the header or cannot be decoded.
    """
    import pydicom
    from pydicom.pixels import pixel_array

    damaged = f"{one.path} is damaged: its voxels do not fit its header; copy it again"
    try:
        # No memory is taken by what the header tells before the file is known to hold it.
        if not one.native_bytes <= one.path.stat().st_size <= LARGEST_FILE_BYTES or one.frames_stored != one.frames:
            raise InputError(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = io.BytesIO(one.path.read_bytes())
            dataset = pydicom.dcmread(content, specific_tags=[*_DESCRIPTION, "NumberOfFrames", "PixelData"])
            syntax = dataset.file_meta.TransferSyntaxUID
            if syntax.is_compressed and syntax not in NATIVE_TO_PYDICOM:
                stored = _decode_with_gdcm(dataset, one.frames)
            else:
                stored = pixel_array(dataset, raw=True)
        if stored.dtype.kind in "iu" and stored.size == one.frames * one.rows * one.columns:
            return stored.reshape(one.frames, one.rows, one.columns)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders let through whatever damaged data provoke
        encoding = pydicom.uid.UID(one.transfer_syntax).name or "unknown encoding"
        what = f"cannot be decoded ({encoding}): it is damaged or of a rare kind"
        raise InputError(f"{one.path} {what}; copy it again, or export it uncompressed") from error
    raise InputError(damaged)


def _decode_with_gdcm(dataset: pydicom.Dataset, frames: int) -> np.ndarray:
    """Frame by frame, from a file of nothing but the frame: GDCM takes memory by any length in a damaged header."""
    import pydicom
    import SimpleITK as sitk
    from pydicom.encaps import encapsulate, generate_frames

    clean = pydicom.Dataset()
    for keyword in _DESCRIPTION:
        setattr(clean, keyword, dataset[keyword].value)
    clean.SOPClassUID, clean.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    clean.file_meta = pydicom.dataset.FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    decoded = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.dcm"
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
            _check_jpeg_2000(frame, clean.Rows, clean.Columns)
            clean.PixelData = encapsulate([frame])
            clean.save_as(file, enforce_file_format=True)
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(file))
            decoded.append(sitk.GetArrayFromImage(reader.Execute()))
    return np.concatenate(decoded)


def _check_jpeg_2000(frame: bytes, rows: int, columns: int) -> None:
    """Raise :class:`ValueError` where a JPEG 2000 frame says that it is of another size: its decoder believes it."""
    at = frame.find(JPEG_2000_START)
    if at < 0:
        return
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">8I", frame, at + 8)
    if (bottom - top, right - left) != (rows, columns):
        raise ValueError("the encoded frame has another size")
    if -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height) > MOST_TILES:
        raise ValueError("the encoded frame is in too many pieces")
