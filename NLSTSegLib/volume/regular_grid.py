"""A tilted, sheared or unevenly spaced stack of slices as a right-angled grid, and a mask on that grid back on the slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from NLSTSegLib.volume.ct import PADDING_HU, CtVolume

UNEVEN_SHARE, UNEVEN_MM = 0.1, 0.1
"""A slice may lie this share of the slice distance off the even grid, or this far if that is more: headers often round
positions to 0.1 mm."""

LEAN_PIXELS = 0.5
"""A stack that leans less than this from its first to its last slice is upright: no voxel comes to lie in another."""


@dataclass(frozen=True)
class SliceStack:
    """Where the slices of a CT lie.

    The plane's own coordinates have their origin in the first voxel, the first axis along i, the second at a right angle
    to it, towards j; heights run along the plane's normal, away from the first slice.
    """

    plane_lps: np.ndarray
    """3x3; columns are the directions of the plane's two axes and of the heights."""
    frame_mm: np.ndarray
    """2x2; columns are the steps of i and j in the plane."""
    shift_mm: np.ndarray
    """``[k, 2]``: how far every slice lies aside of the first, in the plane."""
    height_mm: np.ndarray
    """``[k]``, ascending from 0."""

    @property
    def step_mm(self) -> float:
        """Median distance of the slices."""
        return float(np.median(np.diff(self.height_mm)))

    @property
    def tilt_degrees(self) -> float:
        """Angle between the normal and the line from the first slice's origin to the last one's."""
        return float(np.degrees(np.arctan2(np.linalg.norm(self.shift_mm[-1]), self.height_mm[-1])))

    @property
    def is_sheared(self) -> bool:
        """Whether i and j are not at right angles, or the stack leans."""
        in_plane = abs(self.frame_mm[0, 1]) / np.linalg.norm(self.frame_mm[:, 1])
        return bool(in_plane > 1e-3 or np.abs(self.shift_mm).max() > LEAN_PIXELS * self.frame_mm.diagonal().min())

    @property
    def is_uneven(self) -> bool:
        """Whether slices are missing or lie off an even grid."""
        if len(self.height_mm) < 3:
            return False
        even_mm = np.linspace(0, self.height_mm[-1], len(self.height_mm))
        tolerance_mm = max(UNEVEN_SHARE * self.step_mm, UNEVEN_MM)
        gaps_mm = np.diff(self.height_mm)
        off_mm = np.abs(self.height_mm - even_mm).max()
        return bool(off_mm > tolerance_mm or np.abs(gaps_mm - self.step_mm).max() > 2 * tolerance_mm)

    @property
    def is_regular(self) -> bool:
        """Whether the CT's own grid is right-angled and even, so that nothing has to be resampled."""
        return not self.is_sheared and not self.is_uneven


def slice_stack(ct: CtVolume) -> SliceStack:
    """Where the slices of ``ct`` lie: by the positions in the DICOM headers where there are any, else by its grid."""
    i, j, k = ct.direction_matrix.T
    i = i / np.linalg.norm(i)
    across = j - (j @ i) * i
    across /= np.linalg.norm(across)
    normal = np.cross(i, across)
    normal *= np.sign(normal @ k)
    plane_lps = np.stack([i, across, normal], axis=1)
    origins = np.asarray(ct.acquisition.slice_origins_lps_mm, float).reshape(-1, 3)
    if len(origins) == len(ct.hu):
        offsets = (origins - origins[0]) @ plane_lps
    else:
        offsets = np.arange(len(ct.hu))[:, None] * ct.spacing_ijk_mm[2] * (k @ plane_lps)
    steps_mm = ct.direction_matrix[:, :2] * ct.spacing_ijk_mm[:2]
    return SliceStack(plane_lps, plane_lps[:, :2].T @ steps_mm, offsets[:, :2], offsets[:, 2])


def regular_shape(ct: CtVolume, stack: SliceStack) -> tuple[int, int, int]:
    """Shape ``[k, j, i]`` of the grid of :func:`to_regular`."""
    _, (size_i, size_j) = _extent(ct, stack)
    return round(stack.height_mm[-1] / stack.step_mm) + 1, size_j, size_i


def to_regular(ct: CtVolume, stack: SliceStack) -> CtVolume:
    """``ct`` on a right-angled, even grid of about its own voxels that holds all of its slices, linearly interpolated.

    Where a slice is missing its neighbours are interpolated; what no slice covers is :data:`PADDING_HU`. It is ``ct``
    itself where that is regular; else it has two or more slices.
    """
    if stack.is_regular:
        return ct
    low_mm, size_ij = _extent(ct, stack)
    hu = np.empty(regular_shape(ct, stack), ct.hu.dtype)
    planes: dict[int, np.ndarray] = {}
    for n in range(len(hu)):
        # The last slice may lie up to half a step below its place on the even grid.
        at_mm = min(n * stack.step_mm, stack.height_mm[-1])
        above = int(np.clip(np.searchsorted(stack.height_mm, at_mm), 1, len(ct.hu) - 1))
        share = (at_mm - stack.height_mm[above - 1]) / (stack.height_mm[above] - stack.height_mm[above - 1])
        planes = {k: planes[k] if k in planes else _in_plane(ct, stack, k, low_mm, size_ij) for k in (above - 1, above)}
        values = (1 - share) * planes[above - 1] + share * planes[above]
        hu[n] = np.rint(values) if ct.hu.dtype == np.int16 else values
    origin = np.asarray(ct.origin_lps_mm) + stack.plane_lps[:, :2] @ low_mm
    return replace(
        ct,
        hu=hu,
        spacing_ijk_mm=(*ct.spacing_ijk_mm[:2], stack.step_mm),
        origin_lps_mm=tuple(origin.tolist()),
        direction_lps=tuple(stack.plane_lps.ravel().tolist()),
        acquisition=replace(ct.acquisition, slice_origins_lps_mm=()),
    )


def from_regular(array: np.ndarray, ct: CtVolume, stack: SliceStack) -> np.ndarray:
    """``array`` (``[k, j, i]`` on the grid of :func:`to_regular`) at the voxels of ``ct``, by the nearest neighbour."""
    import SimpleITK as sitk

    if stack.is_regular:
        return array
    low_mm, _ = _extent(ct, stack)
    nearest = np.rint(stack.height_mm / stack.step_mm).astype(int)
    result = np.empty(ct.hu.shape, array.dtype)
    for k, regular_k in enumerate(nearest):
        plane = sitk.GetImageFromArray(array[regular_k])
        plane.SetSpacing(ct.spacing_ijk_mm[:2])
        plane.SetOrigin(low_mm.tolist())
        # From the voxels of the slice, counted as they are, to millimetres in the plane.
        place = sitk.AffineTransform(stack.frame_mm.ravel().tolist(), stack.shift_mm[k].tolist())
        grid = sitk.Image(ct.hu.shape[2], ct.hu.shape[1], sitk.sitkUInt8)
        result[k] = sitk.GetArrayFromImage(sitk.Resample(plane, grid, place, sitk.sitkNearestNeighbor, 0))
    return result


def nearest_voxel(lps_mm: Sequence[float] | np.ndarray, ct: CtVolume, stack: SliceStack) -> tuple[int, int, int]:
    """Index (i, j, k) of the voxel of ``ct`` nearest to a point, in the nearest slice."""
    *plane_mm, height_mm = (np.asarray(lps_mm) - ct.origin_lps_mm) @ stack.plane_lps
    k = int(np.abs(stack.height_mm - height_mm).argmin())
    i, j = np.rint(np.linalg.inv(stack.frame_mm) @ (plane_mm - stack.shift_mm[k])).astype(int).tolist()
    _, rows, columns = ct.hu.shape
    return min(max(i, 0), columns - 1), min(max(j, 0), rows - 1), k


def _extent(ct: CtVolume, stack: SliceStack) -> tuple[np.ndarray, list[int]]:
    """Lowest corner in the plane's millimetres, and size in voxels (i, j), of a grid that holds every slice."""
    last_i, last_j = ct.hu.shape[2] - 1, ct.hu.shape[1] - 1
    corners_mm = np.array([[0, 0], [last_i, 0], [0, last_j], [last_i, last_j]]) @ stack.frame_mm.T
    places_mm = (corners_mm[:, None] + stack.shift_mm).reshape(-1, 2)
    low_mm = places_mm.min(axis=0)
    size = np.ceil((places_mm.max(axis=0) - low_mm) / ct.spacing_ijk_mm[:2] - 1e-6).astype(int) + 1
    return low_mm, size.tolist()


def _in_plane(ct: CtVolume, stack: SliceStack, k: int, low_mm: np.ndarray, size_ij: list[int]) -> np.ndarray:
    """Slice k on the regular grid's pixels, float32 ``[j, i]``."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(ct.hu[k].astype(np.float32))
    to_index = np.linalg.inv(stack.frame_mm)
    place = sitk.AffineTransform(to_index.ravel().tolist(), (-to_index @ stack.shift_mm[k]).tolist())
    return sitk.GetArrayFromImage(
        sitk.Resample(
            image,
            size_ij,
            place,
            sitk.sitkLinear,
            low_mm.tolist(),
            ct.spacing_ijk_mm[:2],
            (1.0, 0.0, 0.0, 1.0),
            PADDING_HU,
            sitk.sitkFloat32,
        )
    )
