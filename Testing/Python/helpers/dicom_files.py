"""Writes small CT series as DICOM files, as scanners and their exporters do, rightly and wrongly."""

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def small_chest(shape_kji=(20, 24, 28), seed=0) -> np.ndarray:
    """int16 HU: air around a body with two lungs, with noise, so that every voxel differs from most others."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape_kji), indexing="ij")
    hu = np.where((i / 0.9) ** 2 + (j / 0.8) ** 2 < 1, 40.0, -1000.0)
    hu[((np.abs(i) - 0.4) / 0.3) ** 2 + (j / 0.5) ** 2 + (k / 0.9) ** 2 < 1] = -850
    return (hu + np.random.default_rng(seed).normal(0, 10, hu.shape)).astype(np.int16)


def write_series(
    folder: Path,
    hu_kji: np.ndarray,
    spacing_ijk_mm: Sequence[float] = (0.7, 0.8, 2.5),
    origin_lps_mm: Sequence[float] = (-150.0, -160.0, -300.0),
    orientation: Sequence[float] = AXIAL,
    *,
    slope: float | None = 1.0,
    intercept: float | None = -1024.0,
    skip: Collection[int] = (),
    shift_lps_mm: Sequence[float] = (0.0, 0.0, 0.0),
    encoding: str = "",
    dtype: type = np.int16,
    name: Callable[[int], str] = "{:04d}.dcm".format,
    **attributes,
) -> list[Path]:
    """One file for each slice that is not in ``skip``; k runs along the normal, each slice moved by ``shift_lps_mm`` more.

    ``encoding``: ``""``, ``"deflated"``, ``"RLE"``, ``"JPEG"`` (lossless) or ``"JPEG2000"`` (lossless). ``dtype`` is that of
    the stored values, an integer. ``attributes`` are DICOM attributes by keyword; ``None`` removes one. Without slope and
    intercept the HU themselves are stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.rint((hu_kji - (intercept or 0)) / (slope or 1)).astype(dtype)
    i, j = np.reshape(orientation, (2, 3)).astype(float)
    step = np.cross(i, j) * spacing_ijk_mm[2] + shift_lps_mm
    shared = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), **attributes}
    files = []
    for k in range(len(stored)):
        if k in skip:
            continue
        dataset = _image(stored[k], CTImageStorage)
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [f"{v:.8g}" for v in np.asarray(origin_lps_mm) + k * step]
        dataset.ImageOrientationPatient = [f"{v:.10g}" for v in orientation]
        dataset.PixelSpacing = [spacing_ijk_mm[1], spacing_ijk_mm[0]]
        dataset.SliceThickness = spacing_ijk_mm[2]
        if slope is not None:
            dataset.RescaleSlope = slope
        if intercept is not None:
            dataset.RescaleIntercept = intercept
        _encode(dataset, stored[k], encoding)
        _set(dataset, shared)
        files.append(folder / name(k))
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(
    file: Path,
    hu_kji: np.ndarray,
    spacing_ijk_mm: Sequence[float] = (0.7, 0.8, 2.5),
    origin_lps_mm: Sequence[float] = (-150.0, -160.0, -300.0),
    orientation: Sequence[float] = AXIAL,
    *,
    order: Sequence[int] | None = None,
    intercepts: Sequence[float] = (-1024.0,),
    encoding: str = "",
) -> None:
    """An enhanced multi-frame CT whose frame n is slice ``order[n]``; intercepts are taken in turn by the frames.

    ``encoding`` as for :func:`write_series`.
    """
    order = range(len(hu_kji)) if order is None else order
    frame_intercepts = [intercepts[n % len(intercepts)] for n in range(len(order))]
    stored = np.stack([hu_kji[k] - b for k, b in zip(order, frame_intercepts, strict=True)]).astype(np.int16)
    dataset = _image(stored, EnhancedCTImageStorage)
    dataset.NumberOfFrames = len(stored)
    _set(dataset, {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()})
    normal = np.cross(orientation[:3], orientation[3:])
    shared = Dataset()
    shared.PlaneOrientationSequence = [_with(ImageOrientationPatient=[f"{v:.10g}" for v in orientation])]
    shared.PixelMeasuresSequence = [_with(PixelSpacing=[spacing_ijk_mm[1], spacing_ijk_mm[0]], SliceThickness=spacing_ijk_mm[2])]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for k, intercept in zip(order, frame_intercepts, strict=True):
        position = np.asarray(origin_lps_mm) + k * spacing_ijk_mm[2] * normal
        frame = Dataset()
        frame.PlanePositionSequence = [_with(ImagePositionPatient=[f"{v:.8g}" for v in position])]
        frame.PixelValueTransformationSequence = [_with(RescaleSlope=1, RescaleIntercept=intercept, RescaleType="HU")]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    _encode(dataset, stored, encoding)
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)


def write_directory(file: Path) -> None:
    """A DICOMDIR, empty but for what makes it one: DICOM without an image."""
    dataset = _image(np.zeros((1, 1), np.int16), MediaStorageDirectoryStorage)
    _set(dataset, {"Rows": None, "Columns": None, "PixelData": None})
    dataset.save_as(file, enforce_file_format=True)


def change(file: Path, **attributes) -> None:
    """Set DICOM attributes by keyword in a written file; ``None`` removes one."""
    dataset = pydicom.dcmread(file)
    _set(dataset, attributes)
    dataset.save_as(file)


def _image(stored: np.ndarray, sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName, dataset.PatientID = "Test^Phantom", "0"
    dataset.SeriesNumber, dataset.AcquisitionNumber = 1, 1
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.itemsize
    dataset.HighBit, dataset.PixelRepresentation = 8 * stored.itemsize - 1, int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    return dataset


def _encode(dataset: FileDataset, stored: np.ndarray, encoding: str) -> None:
    if encoding == "RLE":
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    elif encoding == "deflated":
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    elif encoding:
        frames = []
        for frame in stored.reshape(-1, 1, *stored.shape[-2:]):
            syntax, encoded = _encoded_by_gdcm(frame, encoding)
            frames.append(encoded)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True


def _encoded_by_gdcm(frame: np.ndarray, encoding: str) -> tuple[str, bytes]:
    """Transfer syntax and data of one frame ``[1, j, i]``."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(encoding)
    with tempfile.TemporaryDirectory() as folder:
        writer.SetFileName(f"{folder}/encoded.dcm")
        writer.Execute(sitk.GetImageFromArray(frame))
        dataset = pydicom.dcmread(f"{folder}/encoded.dcm")
    return dataset.file_meta.TransferSyntaxUID, next(generate_frames(dataset.PixelData, number_of_frames=1))


def _set(dataset: Dataset, attributes: dict) -> None:
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _with(**attributes) -> Dataset:
    dataset = Dataset()
    _set(dataset, attributes)
    return dataset
