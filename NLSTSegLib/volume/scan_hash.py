"""A hash by which the same scan is known again, whatever the format and the axes of its file."""

from __future__ import annotations

import hashlib

import numpy as np

from NLSTSegLib.volume.ct import PADDING_HU, CtVolume, to_canonical


def scan_sha256(ct: CtVolume) -> str:
    """Hash of the voxels that is the same for the same scan in another format, with other axes or other padding.

    It is taken of whole HU, not below :data:`PADDING_HU`, on the canonical axes as little-endian int16.
    """
    hu = to_canonical(ct).hu
    whole = np.rint(hu) if hu.dtype.kind == "f" else hu
    voxels = np.ascontiguousarray(np.clip(whole, PADDING_HU, np.iinfo(np.int16).max), "<i2")
    digest = hashlib.sha256(repr(voxels.shape).encode())
    digest.update(voxels.data)
    return digest.hexdigest()
