"""A chest as a function of the place in the patient: written on any grid, its lesions lie where they are known to lie."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from helpers.threshold_model import THRESHOLD_HU
from NLSTSegLib.volume.ct import CtVolume

LESIONS: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((-38.0, 12.0, 20.0), 11.0),
    ((41.0, -18.0, -9.0), 8.5),
    ((36.0, 22.0, 31.0), 6.5),
)
"""Centre (left, posterior, superior of the chest's middle) and radius in mm, the largest first; no symmetry maps them on
themselves."""

ROOM_HU, BODY_HU, LUNG_HU, LESION_HU = -1000.0, -350.0, -850.0, 250.0
"""The body stays below, and the middle of a lesion's edge lies at, :data:`~threshold_model.THRESHOLD_HU`."""

APART_HU = 25.0
"""No voxel lies nearer to the threshold."""

EDGE_MM = 3.0
"""Over this width a lesion fades into the lung, half of it inside the radius."""

AXES = [
    np.eye(3)[:, list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
"""The 48 ways to lay three orthogonal axes along the patient's; half of them are left-handed."""


def rotation(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    """Rodrigues' rotation about ``vector`` by its length in radians."""
    angle = float(np.linalg.norm(vector))
    x, y, z = np.asarray(vector, float) / (angle or 1.0)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def leaning(aside_i: float = 0.0, aside_j: float = 0.0, in_plane: float = 0.0) -> np.ndarray:
    """Unit axes whose k leans towards i and j by these tangents and whose j leans towards i by ``in_plane``."""
    axes = np.array([[1.0, in_plane, aside_i], [0.0, 1.0, aside_j], [0.0, 0.0, 1.0]])
    return axes / np.linalg.norm(axes, axis=0)


def chest_hu(lps_mm: np.ndarray, middle_lps_mm: Sequence[float] = (0.0, 0.0, 0.0), scale: float = 1.0) -> np.ndarray:
    """HU (float) at the points ``[..., (l, p, s)]``; the whole chest is ``scale`` times as large as life."""
    place = (np.asarray(lps_mm, float) - middle_lps_mm) / scale
    left, posterior, superior = np.moveaxis(place, -1, 0)
    hu = np.where((left / 88) ** 2 + (posterior / 70) ** 2 < 1, BODY_HU, ROOM_HU)
    hu[((np.abs(left) - 39) / 34) ** 2 + (posterior / 52) ** 2 + (superior / 75) ** 2 < 1] = LUNG_HU
    for centre, radius_mm in LESIONS:
        inside_mm = radius_mm - np.linalg.norm(place - centre, axis=-1)
        share = np.clip(0.5 + inside_mm / EDGE_MM, 0, 1)
        hu += (LESION_HU - hu) * share
    return hu


def as_voxels(hu: np.ndarray) -> np.ndarray:
    """int16, none so near to the threshold that a network in bfloat16 could take it for the other side."""
    near = np.abs(hu - THRESHOLD_HU) < APART_HU
    apart = np.where(hu < THRESHOLD_HU, THRESHOLD_HU - APART_HU, THRESHOLD_HU + APART_HU)
    return np.rint(np.where(near, apart, hu)).astype(np.int16)


def chest_ct(
    direction: np.ndarray,
    *,
    shape_kji: tuple[int, int, int] = (40, 56, 60),
    spacing_ijk_mm: tuple[float, float, float] = (3.0, 3.2, 4.0),
    middle_lps_mm: Sequence[float] = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> CtVolume:
    """int16 CT of the chest whose middle is that of the grid; ``direction`` is 3x3 with unit columns."""
    last_mm = (np.array(shape_kji[::-1]) - 1) * spacing_ijk_mm
    origin_lps_mm = tuple((np.asarray(middle_lps_mm) - direction @ last_mm / 2).tolist())
    grid = CtVolume(np.zeros(shape_kji, np.int16), spacing_ijk_mm, origin_lps_mm, tuple(np.ravel(direction).tolist()))
    hu = chest_hu(voxel_places_lps_mm(grid), middle_lps_mm, scale)
    return replace(grid, hu=as_voxels(hu))


def placed(grid: CtVolume, heights_mm: np.ndarray, aside_ij_mm: np.ndarray | None = None) -> CtVolume:
    """``grid``, its slices moved to ``heights_mm`` along k and by ``aside_ij_mm`` (``[k, 2]``), as DICOM headers do."""
    moved = np.column_stack([np.zeros((len(heights_mm), 2)) if aside_ij_mm is None else aside_ij_mm, heights_mm])
    origins = grid.origin_lps_mm + moved @ grid.direction_matrix.T
    acquisition = replace(grid.acquisition, slice_origins_lps_mm=tuple(map(tuple, origins.tolist())))
    return replace(grid, hu=grid.hu[: len(heights_mm)], acquisition=acquisition)


def chest_of_slices(
    direction: np.ndarray, heights_mm: np.ndarray, aside_ij_mm: np.ndarray | None = None
) -> tuple[CtVolume, tuple]:
    """The chest in slices at the given places, and where its middle lies."""
    ct = placed(chest_ct(direction, shape_kji=(len(heights_mm), 56, 60)), heights_mm, aside_ij_mm)
    places = voxel_places_lps_mm(ct)
    middle = (places[0, 0, 0] + places[-1, -1, -1]) / 2
    return replace(ct, hu=as_voxels(chest_hu(places, middle))), tuple(middle.tolist())


def voxel_places_lps_mm(ct: CtVolume) -> np.ndarray:
    """``[k, j, i, (l, p, s)]``: where every voxel lies, by the slices' own positions where the headers gave them."""
    places = ct.lps_from_ijk_mm(np.moveaxis(np.indices(ct.hu.shape)[::-1], 0, -1))
    if ct.acquisition.slice_origins_lps_mm:
        places += (np.array(ct.acquisition.slice_origins_lps_mm) - places[:, 0, 0])[:, None, None]
    return places


def true_centres_lps_mm(middle_lps_mm: Sequence[float] = (0.0, 0.0, 0.0), scale: float = 1.0) -> np.ndarray:
    """``[lesion, (l, p, s)]``."""
    return np.array([centre for centre, _ in LESIONS]) * scale + middle_lps_mm


def off_voxels(found_lps_mm: np.ndarray, true_lps_mm: np.ndarray, ct: CtVolume) -> float:
    """How far the points lie apart along the axes of ``ct``, in voxels; the largest."""
    to_index = np.linalg.inv(ct.direction_matrix * ct.spacing_ijk_mm)
    return float(np.abs((np.asarray(found_lps_mm) - true_lps_mm) @ to_index.T).max())


def label_centroids_lps_mm(labels: np.ndarray, places_lps_mm: np.ndarray) -> np.ndarray:
    """``[lesion, (l, p, s)]``: mean place of the voxels of every label of ``labels`` ``[k, j, i]``."""
    return np.array([places_lps_mm[labels == label].mean(axis=0) for label in range(1, int(labels.max()) + 1)])
