"""A CT from a DICOM folder or file, NIfTI, NRRD or MetaImage: looked at by its header first, refused in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.disk.archives import is_archive
from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError, is_utf8
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_folder import list_series, series_of_file
from NLSTSegLib.reading.dicom_headers import is_dicom
from NLSTSegLib.reading.dicom_series import LARGEST_VOLUME_BYTES, DicomSeries, read_series
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

LABEL_ROUNDING = 1e-3
"""Files with a scale factor hold 1.00002 for 1."""

MOST_LABELS = 9999
"""Higher values of a label map are taken for a CT or another image."""

ORIENTED_NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las")
"""The NRRD spaces that say which way the axes run in the patient."""


def read_ct(
    path: Path | str,
    *,
    series_uid: str | None = None,
    skip_unreadable: bool = False,
    progress: Callable[[float], None] | None = None,
) -> CtVolume:
    """The CT at ``path`` in HU: a DICOM folder, one DICOM file (its whole series is read), or one of :data:`FORMATS`.

    ``series_uid`` chooses among the DICOM series, see :func:`.dicom_choice.choose_chest_series`. DICOM files that cannot be
    read are an error, or left out with ``skip_unreadable``. ``progress(fraction)`` is called before every DICOM file and every
    piece of a compressed file, and may raise to stop. Raises :class:`InputError`, naming the file, for whatever is not one
    readable 3D volume of one value a voxel.
    """
    path = folder_of_directory(Path(path))
    # Not the methods of Path, which raise on a name that is too long for a file; a pipe would be waited for.
    if not os.path.isdir(path) and not os.path.isfile(path):
        raise InputError(f"there is no file or folder {path}")
    ending = next((e for e in FORMATS if path.name.lower().endswith(e)), None)
    try:
        if path.is_dir():
            series = list_series(path, skip_unreadable=skip_unreadable, progress=_part(progress, 0.0, 0.3))
            chosen = choose_chest_series(series, series_uid)
            return read_series(chosen, skip_unreadable=skip_unreadable, progress=_part(progress, 0.3, 1.0))
        if ending is None and is_dicom(path):
            chosen = series_at_file(path, series_uid, skip_unreadable=skip_unreadable)
            return read_series(chosen, skip_unreadable=skip_unreadable, progress=progress)
        if ending is None and is_archive(path):
            raise InputError("it is an archive; unpack it and give the folder or file that was in it")
        if ending is None:
            raise InputError(f"it is neither DICOM nor one of {', '.join(FORMATS)}")
        if series_uid is not None:
            raise InputError(f"a {ending} file has no series {series_uid} to choose; leave the series out")
        return _read_file(path, ending, progress)
    except MemoryError as error:
        raise InputError(f"{path} does not fit into the memory; close other programs, or take a computer with more") from error
    except InputError as error:
        # The inner sentences name the file at fault, if it is another one.
        if str(path) in str(error):
            raise
        raise InputError(f"{path} cannot be read: {error}") from error


def folder_of_directory(path: Path) -> Path:
    """The folder whose files a DICOMDIR lists, for its file; any other ``path`` as it is."""
    return path.parent if path.name.upper() == "DICOMDIR" and os.path.isfile(path) else path


def series_at_file(file: Path, series_uid: str | None = None, *, skip_unreadable: bool = False) -> DicomSeries:
    """The series that :func:`read_ct` reads at a DICOM file; raises :class:`InputError` where there is none."""
    if series_uid is None:
        return series_of_file(file, skip_unreadable=skip_unreadable)
    return choose_chest_series(list_series(file.parent, recursive=False, skip_unreadable=skip_unreadable), series_uid)


def read_mask(path: Path | str, ct: CtVolume) -> np.ndarray:
    """The mask at ``path`` (one of :data:`FORMATS`): boolean ``[k, j, i]``, true where it is not 0.

    Raises :class:`InputError` when it cannot be read or does not lie on the voxels of ``ct``.
    """
    return values_on_voxels(read_ct(path), ct, path) != 0


def read_labels(path: Path | str, ct: CtVolume) -> np.ndarray:
    """The label map at ``path`` (one of :data:`FORMATS`): int16 ``[k, j, i]``, 0 where nothing is marked.

    Raises :class:`InputError` when it cannot be read, does not lie on the voxels of ``ct``, or holds anything else than
    whole numbers from 0 to :data:`MOST_LABELS`, but for the rounding of scaled files (:data:`LABEL_ROUNDING`).
    """
    labels = values_on_voxels(read_ct(path), ct, path)
    whole = np.rint(labels) if labels.dtype.kind == "f" else labels
    odd = (whole < 0) | (whole > MOST_LABELS) | (np.abs(labels - whole) > LABEL_ROUNDING)
    if odd.any():
        what = f"holds the value {labels[odd][0]:g} where labels are whole numbers from 0 to {MOST_LABELS}"
        raise InputError(f"{path} {what}; give a label map")
    return whole.astype(np.int16, copy=False)


def values_on_voxels(volume: CtVolume, ct: CtVolume, name: Path | str) -> np.ndarray:
    """Values, int16 or float32 ``[k, j, i]``, of a ``volume`` on the voxels of ``ct``, whichever way its axes run.

    A part cut out of them, as 3D Slicer saves segmentations, stands for all: what lies outside of it is 0. Raises
    :class:`InputError`, with the ``name`` of the volume, where it does not lie on them.
    """
    part = _with_axes_of(volume, ct)
    corners_ijk = np.array(np.meshgrid(*((0, n - 1) for n in part.hu.shape[::-1]))).reshape(3, 8).T
    steps_mm = ct.direction_matrix * ct.spacing_ijk_mm
    start_ijk = np.rint(np.linalg.solve(steps_mm, part.lps_from_ijk_mm(np.zeros(3)) - ct.origin_lps_mm))
    room_ijk = np.array(ct.hu.shape[::-1]) - part.hu.shape[::-1]
    # One of another size that begins at the same voxel was not cut out, but lacks its place, or the CT does.
    if part.hu.shape != ct.hu.shape and ((room_ijk < 0).any() or not start_ijk.any()):
        raise InputError(f"{name} has {part.hu.shape} voxels [k, j, i] where the CT has {ct.hu.shape}; give a mask on its voxels")
    start_ijk = np.clip(start_ijk, 0, room_ijk).astype(int)
    off_mm = np.abs(part.lps_from_ijk_mm(corners_ijk) - ct.lps_from_ijk_mm(corners_ijk + start_ijk)).max()
    if off_mm > 0.1 * min(ct.spacing_ijk_mm):
        shapes = "" if part.hu.shape == ct.hu.shape else f" and has {part.hu.shape} of its {ct.hu.shape} [k, j, i]"
        raise InputError(f"{name} lies {off_mm:.2f} mm off the CT's voxels{shapes}; give a mask on its voxels")
    if part.hu.shape == ct.hu.shape:
        return part.hu
    whole = np.zeros(ct.hu.shape, part.hu.dtype)
    i, j, k = start_ijk
    whole[k:, j:, i:][tuple(slice(n) for n in part.hu.shape)] = part.hu
    return whole


def _with_axes_of(mask: CtVolume, ct: CtVolume) -> CtVolume:
    """``mask`` with its axes permuted and flipped to run like those of ``ct``, if they can; nothing is resampled."""
    same = ct.direction_matrix.T @ mask.direction_matrix
    order, signs = np.abs(same).argmax(axis=1), np.sign(same[range(3), np.abs(same).argmax(axis=1)])
    if sorted(order) != [0, 1, 2] or ((order == range(3)).all() and (signs > 0).all()):
        return mask
    flips_ijk = [slice(None, None, -1 if sign < 0 else 1) for sign in signs]
    hu = mask.hu.transpose([2 - order[2 - axis] for axis in range(3)])[tuple(flips_ijk[::-1])]
    first_ijk = np.zeros(3)
    first_ijk[order] = np.where(signs < 0, np.array(hu.shape[::-1]) - 1, 0)
    return replace(
        mask,
        hu=np.ascontiguousarray(hu),
        spacing_ijk_mm=(mask.spacing_ijk_mm[order[0]], mask.spacing_ijk_mm[order[1]], mask.spacing_ijk_mm[order[2]]),
        origin_lps_mm=tuple(mask.lps_from_ijk_mm(first_ijk).tolist()),
        direction_lps=tuple((mask.direction_matrix[:, order] * signs).ravel().tolist()),
    )


def _part(progress: Callable[[float], None] | None, start: float, end: float) -> Callable[[float], None] | None:
    return None if progress is None else lambda fraction: progress(start + (end - start) * fraction)


def read_grid(path: Path | str) -> CtVolume:
    """A file of :data:`FORMATS` by its header alone: all voxels are 0 HU and take no memory. Raises :class:`InputError`."""
    path = Path(path)
    ending = next((e for e in FORMATS if path.name.lower().endswith(e)), None)
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


def _read_file(path: Path, ending: str, progress: Callable[[float], None] | None) -> CtVolume:
    import SimpleITK as sitk

    reader = _reader(path, ending)
    is_nifti = FORMATS[ending] == "NiftiImageIO"
    try:
        with _lenient_itk():
            voxel_bytes = _read_header(reader, path, ending)
            check_complete(path, _stored_bytes(reader, voxel_bytes), progress=_part(progress, 0.0, 0.5))
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
    if progress:
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
