"""Images as compressed NRRD and NIfTI files that are known to be whole."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.disk.deflate import inflated_bytes
from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk


def write_image(image: sitk.Image, path: Path) -> None:
    """Write ``image`` as the ending of ``path`` says, ``.nrrd`` or ``.nii.gz``.

    Raises :class:`RuntimeError` of SimpleITK or :class:`OSError` when it cannot be written as a whole.
    """
    import SimpleITK as sitk

    with point_in_numbers():
        sitk.WriteImage(image, str(path), useCompression=True)
    check_written(path)


def check_written(path: Path) -> None:
    """Raise :class:`OSError` when the end of a NRRD or NIfTI file with compressed voxels is missing or damaged.

    A full disk escapes the libraries: the NIfTI writer never looks, the NRRD writer not when it closes the file.
    """
    offset = 0
    if path.name.endswith(".nrrd"):
        header, end, _ = path.read_bytes().partition(b"\n\n")
        if end and b"\nencoding: gzip" not in header:
            return
        offset = len(header + end)
    try:
        inflated_bytes(path, offset, sys.maxsize)
    except InputError as error:
        raise OSError(errno.ENOSPC, "only a part of a file was kept, as on a full disk") from error
