"""The voxels of a DICOM file as they are stored: decoded by pydicom, those of the JPEG family by SimpleITK (GDCM)."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.disk.scratch import scratch_folder
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_file import read_dataset
from NLSTSegLib.reading.dicom_headers import DicomSlice
from NLSTSegLib.reading.quiet import quiet_pydicom

if TYPE_CHECKING:
    import pydicom

LARGEST_FILE_BYTES = 4 << 30
"""A larger file is not read."""

NATIVE_TO_PYDICOM = ("1.2.840.10008.1.2.5",)
"""Compressed transfer syntaxes that pydicom decodes without help: RLE."""

JPEG_START = b"\xff\xd8"
"""First bytes of a JPEG or JPEG-LS frame."""

JPEG_2000_START = b"\xff\x4f\xff\x51"
"""SOC and SIZ, the marker before the size of a frame; a file header may come before."""

JPEG_FRAME_MARKERS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
"""Second bytes of the markers before the size of a JPEG (SOF) or JPEG-LS (SOF 55) frame."""

MOST_BITS = 16
"""Most bits of a JPEG pixel; the decoder fails badly on more."""

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
        with quiet_pydicom():
            content = io.BytesIO(one.path.read_bytes())
            dataset = read_dataset(content, [*_DESCRIPTION, "NumberOfFrames", "PixelData"])
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
        if isinstance(error, OSError) and error.errno:
            fix = "make room on the disk for temporary files, or look after the disk that it is on"
            raise InputError(f"{one.path} cannot be read ({error.strerror}); {fix}") from error
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
    with scratch_folder() as folder:
        file = folder / "frame.dcm"
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
            _check_frame(frame, clean.Rows, clean.Columns)
            clean.PixelData = encapsulate([frame])
            clean.save_as(file, enforce_file_format=True)
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(file))
            decoded.append(sitk.GetArrayFromImage(reader.Execute()))
    return np.concatenate(decoded)


def _check_frame(frame: bytes, rows: int, columns: int) -> None:
    """Raise :class:`ValueError` where an encoded frame tells another size, or too much detail: its decoder believes it."""
    told = _jpeg_size(frame) if frame.startswith(JPEG_START) else _jpeg_2000_size(frame)
    if told != (rows, columns, 1):
        raise ValueError(f"the encoded frame has {told} rows, columns and values a pixel")


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and values a pixel of a JPEG or JPEG-LS frame, by its frame header (ISO/IEC 10918-1, annex B)."""
    at = len(JPEG_START)
    while at + 10 <= len(frame):
        mark, length, precision, rows, columns, components = struct.unpack_from(">2sHBHHB", frame, at)
        if mark == b"\xff\xff":
            # Markers may have any number of these before them.
            at += 1
            continue
        if mark[1] in JPEG_FRAME_MARKERS:
            if precision > MOST_BITS:
                raise ValueError(f"the encoded frame has {precision} bits a pixel")
            return rows, columns, components
        at += 2 + length
    raise ValueError("the encoded frame has no frame header")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and values a pixel of a JPEG 2000 frame, by its SIZ marker (ISO/IEC 15444-1, annex A)."""
    at = frame.index(JPEG_2000_START) + 8
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = struct.unpack_from(">8IH", frame, at)
    if -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height) > MOST_TILES:
        raise ValueError("the encoded frame is in too many pieces")
    return bottom - top, right - left, components
