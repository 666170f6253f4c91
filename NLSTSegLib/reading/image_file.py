"""A volume from a NIfTI, NRRD or MetaImage file, by SimpleITK: its header is looked at first, and refused in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError, is_utf8
from NLSTSegLib.progress import Fraction, part_of
from NLSTSegLib.reading.dicom_series import LARGEST_VOLUME_BYTES
from NLSTSegLib.reading.integrity import check_complete
from NLSTSegLib.reading.nifti import apply_sform, check_nifti_header, nonfinite_voxels, without_false_intercept
from NLSTSegLib.reading.text_headers import METAIMAGE_AXES, check_text_header, read_start, text_header
from NLSTSegLib.volume.ct import PADDING_HU, Acquisition, CtVolume

if TYPE_CHECKING:
    import SimpleITK as sitk

FORMATS = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
"""Reader of SimpleITK by file ending; a file is not tried with another reader than its ending's."""

SFORM_SWITCH = "ITK_NIFTI_SFORM_PERMISSIVE"
"""Environment variable with which ITK reads NIfTI files whose sform is sheared, making its axes right-angled."""

ORIENTED_NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las")
"""The NRRD spaces that say which way the axes run in the patient."""


def ending_of(path: Path) -> str | None:
    """Which of :data:`FORMATS` a file is by its name; ``None`` for none."""
    return next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)


def read_grid(path: Path | str) -> CtVolume:
    """A file of :data:`FORMATS` by its header alone: all voxels are 0 HU and take no memory. Raises :class:`InputError`."""
    path = Path(path)
    ending = ending_of(path)
    if ending is None:
        raise InputError(f"{path} is none of {', '.join(FORMATS)}")
    try:
        reader = _reader(path, ending)
        with _lenient_itk():
            _read_header(reader, path, ending)
    except (InputError, OSError, RuntimeError, ValueError, OverflowError) as error:
        why = error if isinstance(error, InputError) else f"it is damaged or not a {ending} file"
        raise InputError(f"{path} cannot be read: {why}") from error
    i, j, k = reader.GetSize()[:3]
    dimensions = reader.GetDimension()
    spacing, origin = tuple(reader.GetSpacing()[:3]), tuple(reader.GetOrigin()[:3])
    direction = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    hu = np.broadcast_to(np.int16(0), (k, j, i))
    known = _orientation_known(reader, path, ending)
    return CtVolume(hu, spacing, origin, tuple(direction.ravel().tolist()), Acquisition(format=ending, orientation_known=known))


def _reader(path: Path, ending: str) -> sitk.ImageFileReader:
    import SimpleITK as sitk

    if not is_utf8(path):
        raise InputError("its name is not in UTF-8, which its reader needs; rename it")
    reader = sitk.ImageFileReader()
    reader.SetImageIO(FORMATS[ending])
    reader.SetFileName(str(path))
    return reader


def _read_header(reader: sitk.ImageFileReader, path: Path, ending: str) -> int:
    """Bytes of one voxel."""
    (check_nifti_header if FORMATS[ending] == "NiftiImageIO" else check_text_header)(path)
    with point_in_numbers():
        reader.ReadImageInformation()
    return _check_header(reader)


def read_image_file(path: Path, ending: str, progress: Fraction) -> CtVolume:
    """A file of one of :data:`FORMATS`. Raises :class:`InputError`, which does not name the file, and ``MemoryError``."""
    import SimpleITK as sitk

    reader = _reader(path, ending)
    is_nifti = FORMATS[ending] == "NiftiImageIO"
    try:
        with _lenient_itk():
            voxel_bytes = _read_header(reader, path, ending)
            check_complete(path, _stored_bytes(reader, voxel_bytes), progress=part_of(progress, 0.0, 0.5))
            with point_in_numbers():
                image = reader.Execute()
        nonfinite = nonfinite_voxels(path, reader.GetSize()[2::-1]) if is_nifti else None
    except OSError as error:
        raise InputError(f"it cannot be opened ({error.strerror})") from error
    except (RuntimeError, ValueError, OverflowError) as error:  # the last two: header fields that are no numbers
        if "allocate memory" in str(error):
            raise MemoryError from error
        raise InputError(f"it is damaged or not a {ending} file") from error
    if image.GetDimension() > 3:
        image = image[(slice(None),) * 3 + (0,) * (image.GetDimension() - 3)]
    if "vector" in image.GetPixelIDTypeAsString():
        image = sitk.VectorIndexSelectionCast(image, 0)
    if is_nifti:
        apply_sform(reader, image)
        image = without_false_intercept(path, image)
    progress(1.0)
    ct = CtVolume.from_image(image, Acquisition(format=ending, orientation_known=_orientation_known(reader, path, ending)))
    if nonfinite is None:
        return ct
    ct.hu[nonfinite] = PADDING_HU
    return replace(ct, acquisition=replace(ct.acquisition, nonfinite_voxels=int(nonfinite.sum())))


@contextmanager
def _lenient_itk() -> Iterator[None]:
    """No warnings of ITK on stderr, and no refusal of a sheared sform; what both are about is checked here."""
    import SimpleITK as sitk

    shown, permissive = sitk.ProcessObject.GetGlobalWarningDisplay(), os.environ.get(SFORM_SWITCH)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    os.environ[SFORM_SWITCH] = "1"
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
        if permissive is None:
            del os.environ[SFORM_SWITCH]
        else:
            os.environ[SFORM_SWITCH] = permissive


def _check_header(reader: sitk.ImageFileReader) -> int:
    """Bytes of one voxel; raises :class:`InputError` unless the header tells of one volume of believable size."""
    import SimpleITK as sitk

    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"it holds {reader.GetNumberOfComponents()} values a voxel (colour or vectors), not one HU value")
    if len(size) < 3:
        raise InputError(f"it is a {len(size)}D image, not a volume")
    if any(n > 1 for n in size[3:]):
        raise InputError(f"it is a {len(size)}D series of volumes (size {'x'.join(map(str, size))}); give one volume of it")
    if not np.isfinite([*reader.GetOrigin(), *reader.GetSpacing(), *reader.GetDirection()]).all():
        raise InputError("its origin, spacing or directions are not finite numbers")
    voxel_bytes = int(sitk.Image([1, 1, 1], reader.GetPixelID(), 1).GetSizeOfPixelComponent())
    if (total := voxel_bytes * int(np.prod(size, dtype=object))) > LARGEST_VOLUME_BYTES:
        raise InputError(f"its header tells of {total / 2**30:.0f} GiB of voxels, too much for a chest CT")
    return voxel_bytes


def _stored_bytes(reader: sitk.ImageFileReader, voxel_bytes: int) -> int:
    """Bytes of all voxels as stored, with what precedes them in a NIfTI file (which may rescale smaller voxels)."""
    voxels = int(np.prod(reader.GetSize(), dtype=object))
    if reader.HasMetaDataKey("vox_offset"):
        return int(float(reader.GetMetaData("vox_offset"))) + voxels * int(reader.GetMetaData("bitpix")) // 8
    return voxels * voxel_bytes


def _orientation_known(reader: sitk.ImageFileReader, path: Path, ending: str) -> bool:
    if FORMATS[ending] == "NiftiImageIO":
        return any(int(reader.GetMetaData(code)) > 0 for code in ("qform_code", "sform_code"))
    if FORMATS[ending] == "NrrdImageIO":
        return reader.HasMetaDataKey("NRRD_space") and reader.GetMetaData("NRRD_space").lower() in ORIENTED_NRRD_SPACES
    return bool(METAIMAGE_AXES & text_header(read_start(path))[0].keys())
