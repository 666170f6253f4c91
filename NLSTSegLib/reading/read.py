"""A CT from a DICOM folder or file, NIfTI, NRRD or MetaImage: looked at by its header first, refused in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from NLSTSegLib.disk.archives import is_archive
from NLSTSegLib.errors import InputError
from NLSTSegLib.progress import Fraction, part_of
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_file import is_dicom
from NLSTSegLib.reading.dicom_folder import list_series, series_of_file
from NLSTSegLib.reading.dicom_series import DicomSeries, read_series
from NLSTSegLib.reading.image_file import FORMATS, ending_of, read_image_file
from NLSTSegLib.volume.ct import CtVolume

LABEL_ROUNDING = 1e-3
"""Files with a scale factor hold 1.00002 for 1."""

MOST_LABELS = 9999
"""Higher values of a label map are taken for a CT or another image."""


def read_ct(
    path: Path | str,
    *,
    series_uid: str | None = None,
    skip_unreadable: bool = False,
    progress: Fraction | None = None,
) -> CtVolume:
    """The CT at ``path`` in HU: a DICOM folder, one DICOM file (its whole series is read), or one of :data:`.image_file.FORMATS`.

    ``series_uid`` chooses among the DICOM series, see :func:`.dicom_choice.choose_chest_series`. DICOM files that cannot be
    read are an error, or left out with ``skip_unreadable``. ``progress(fraction)`` is called before every DICOM file and every
    piece of a compressed file, and may raise to stop. Raises :class:`InputError`, naming the file, for whatever is not one
    readable 3D volume of one value a voxel.
    """
    return read_with_series(path, series_uid=series_uid, skip_unreadable=skip_unreadable, progress=progress)[0]


def read_with_series(
    path: Path | str,
    *,
    series_uid: str | None = None,
    skip_unreadable: bool = False,
    progress: Fraction | None = None,
    tell: Callable[[list[DicomSeries], DicomSeries], None] | None = None,
) -> tuple[CtVolume, DicomSeries | None]:
    """The CT as :func:`read_ct` gives it, and its DICOM series; ``tell(series, chosen)`` is called with those in a DICOM folder
    and the one that is read, before it is."""
    path, progress = _folder_of_directory(Path(path)), progress or (lambda fraction: None)
    # Not the methods of Path, which raise on a name that is too long for a file; a pipe would be waited for.
    if not os.path.isdir(path) and not os.path.isfile(path):
        raise InputError(f"there is no file or folder {path}")
    ending = ending_of(path)
    try:
        if path.is_dir():
            series = list_series(path, skip_unreadable=skip_unreadable, progress=part_of(progress, 0.0, 0.3))
            chosen = choose_chest_series(series, series_uid)
            if tell:
                tell(series, chosen)
            return read_series(chosen, skip_unreadable=skip_unreadable, progress=part_of(progress, 0.3, 1.0)), chosen
        if ending is None and is_dicom(path):
            chosen = _series_at_file(path, series_uid, skip_unreadable=skip_unreadable)
            return read_series(chosen, skip_unreadable=skip_unreadable, progress=progress), chosen
        if ending is None and is_archive(path):
            raise InputError("it is an archive; unpack it and give the folder or file that was in it")
        if ending is None:
            raise InputError(f"it is neither DICOM nor one of {', '.join(FORMATS)}")
        if series_uid is not None:
            raise InputError(f"a {ending} file has no series {series_uid} to choose; leave the series out")
        return read_image_file(path, ending, progress), None
    except MemoryError as error:
        raise InputError(f"{path} does not fit into the memory; close other programs, or take a computer with more") from error
    except InputError as error:
        # The inner sentences name the file at fault, if it is another one.
        if str(path) in str(error):
            raise
        raise InputError(f"{path} cannot be read: {error}") from error


def _folder_of_directory(path: Path) -> Path:
    """The folder whose files a DICOMDIR lists, for its file; any other ``path`` as it is."""
    return path.parent if path.name.upper() == "DICOMDIR" and os.path.isfile(path) else path


def _series_at_file(file: Path, series_uid: str | None, *, skip_unreadable: bool) -> DicomSeries:
    if series_uid is None:
        return series_of_file(file, skip_unreadable=skip_unreadable)
    return choose_chest_series(list_series(file.parent, recursive=False, skip_unreadable=skip_unreadable), series_uid)


def read_mask(path: Path | str, ct: CtVolume) -> np.ndarray:
    """The mask at ``path`` (one of :data:`.image_file.FORMATS`): boolean ``[k, j, i]``, true where it is not 0.

    Raises :class:`InputError` when it cannot be read or does not lie on the voxels of ``ct``.
    """
    return values_on_voxels(read_ct(path), ct, path) != 0


def read_labels(path: Path | str, ct: CtVolume) -> np.ndarray:
    """The label map at ``path`` (one of :data:`.image_file.FORMATS`): int16 ``[k, j, i]``, 0 where nothing is marked.

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
