"""A CT as voxels in HU with their place in the patient, and the exact way to the canonical axes and back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk

PADDING_HU = -1024
"""Value that stands for 'no tissue measured here': air, the lower end of the HU scale."""

LUNG_WINDOW_HU = (-1350.0, 150.0)
"""What pictures show from black to white: centre -600, width 1500."""

FARTHEST_MM = 1e6
"""A volume further from the origin of its coordinates has a damaged header."""

Grid = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, ...]]
"""Spacing of i, j, k and origin in mm, and directions, all as in :class:`CtVolume`."""

UNIT_LENGTH = 1e-4
"""How far the length of an axis' direction may be from 1 by rounding."""


@dataclass(frozen=True)
class Acquisition:
    """What the file headers say about a CT beyond its voxel grid; empty where the format does not tell."""

    format: str = "memory"
    """``"DICOM"``, the file ending of a single file, ``"MRML"`` or ``"memory"``."""
    modality: str = ""
    """DICOM modality, for example ``"CT"``."""
    patient_id: str = ""
    """Written nowhere unless the user asks for it, as are the UIDs."""
    study_uid: str = ""
    series_uid: str = ""
    series_description: str = ""
    slice_origins_lps_mm: tuple[tuple[float, float, float], ...] = ()
    """Position of the first voxel of every slice k, as the DICOM headers give it; it may lie off the voxel grid."""
    rescale_missing: bool = False
    """Whether DICOM headers without slope and intercept left the stored values as they are."""
    orientation_known: bool = True
    """Whether the header says which way the axes run in the patient."""
    nonfinite_voxels: int = 0
    """How many NaN or infinite voxels were replaced by :data:`PADDING_HU` while reading."""
    slice_thickness_mm: float = 0.0
    """SliceThickness of DICOM, which is not the distance of the slices; 0 if not known."""
    kernel: str = ""
    """ConvolutionKernel of DICOM."""
    contrast: str = ""
    """ContrastBolusAgent of DICOM; empty where none was given, or none is told of."""
    date: str = field(default="", repr=False)
    """Date of the acquisition, YYYYMMDD; written nowhere, since it helps to tell whose CT it is."""
    derivation: str = ""
    """A word for how the images were calculated from others, for example ``"MIP"``."""
    doubled_slices: int = 0
    """How many slices were left out because another one lies at the same position."""
    unreadable_files: int = 0
    """How many files beside the slices could not be read and were left out."""


@dataclass(frozen=True)
class CtVolume:
    """A CT: HU values with axis order ``[k, j, i]`` and SimpleITK's geometry in LPS millimetres.

    ``hu`` is int16 or float32. ``direction_lps`` holds nine numbers row by row; its columns are the directions of the
    i, j and k axes. Raises :class:`InputError` for anything else than three dimensions or a singular geometry.
    """

    hu: np.ndarray
    spacing_ijk_mm: tuple[float, float, float]
    origin_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction_lps: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    acquisition: Acquisition = field(default_factory=Acquisition)

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or 0 in self.hu.shape:
            raise InputError(f"the CT must have three dimensions, not an array of shape {self.hu.shape}")
        if self.hu.dtype not in (np.int16, np.float32):
            raise InputError(f"the CT must hold int16 or float32 HU values, not {self.hu.dtype}")
        if not all(1e-3 <= s < 1e4 for s in self.spacing_ijk_mm):
            raise InputError(f"the voxel spacing {self.spacing_ijk_mm} mm is not that of a patient's CT")
        if not all(abs(x) <= FARTHEST_MM for x in self.origin_lps_mm):
            raise InputError(f"the first voxel lies at {self.origin_lps_mm} mm, where no patient is")
        if len(self.direction_lps) != 9 or not abs(np.linalg.det(self.direction_matrix)) > 1e-3:
            raise InputError(f"the axis directions {self.direction_lps} do not span three dimensions")

    @property
    def direction_matrix(self) -> np.ndarray:
        """3x3; columns are the unit directions of i, j, k in LPS."""
        return np.asarray(self.direction_lps, float).reshape(3, 3)

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return self.spacing_ijk_mm, self.origin_lps_mm, self.direction_lps

    @property
    def voxel_volume_mm3(self) -> float:
        """Spacing product times the determinant of the axis directions, so a sheared grid counts right."""
        return float(np.prod(self.spacing_ijk_mm) * abs(np.linalg.det(self.direction_matrix)))

    @property
    def is_orthogonal(self) -> bool:
        """Whether the three axes are at right angles (to 1e-3)."""
        d = self.direction_matrix
        return bool(np.allclose(d.T @ d, np.eye(3), atol=1e-3))

    @property
    def orientation(self) -> str:
        """Three letters: the anatomical side each of i, j, k points to most, for example ``"LPS"``."""
        import SimpleITK as sitk

        return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(self.direction_lps))

    @classmethod
    def from_image(cls, image: sitk.Image, acquisition: Acquisition | None = None) -> CtVolume:
        """The CT of a scalar 3D SimpleITK image holding HU.

        Integers become int16 (clipped to its range), floats float32; NaN and infinite voxels become air and are counted.
        """
        import SimpleITK as sitk

        acquisition = acquisition or Acquisition()
        array = sitk.GetArrayFromImage(image)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = array.astype(np.float32, copy=False)
            bad = ~np.isfinite(array)
            if bad.any():
                array[bad] = PADDING_HU
                acquisition = replace(acquisition, nonfinite_voxels=int(bad.sum()))
        elif array.dtype != np.int16:
            array = as_int16(array, out=array)
        direction = np.array(image.GetDirection()).reshape(3, 3)
        lengths = np.linalg.norm(direction, axis=0)
        if np.abs(lengths - 1).max() < UNIT_LENGTH:
            return cls(array, image.GetSpacing(), image.GetOrigin(), image.GetDirection(), acquisition)
        # The lengths of the directions are part of the spacing.
        spacing = tuple((image.GetSpacing() * lengths).tolist())
        return cls(array, spacing, image.GetOrigin(), tuple((direction / lengths).ravel().tolist()), acquisition)

    def image_like(self, array: np.ndarray) -> sitk.Image:
        """A SimpleITK image of ``array`` (``[k, j, i]``, this volume's shape) on this volume's grid."""
        import SimpleITK as sitk

        if array.shape != self.hu.shape:
            raise ValueError(f"array of shape {array.shape} does not fit the CT's {self.hu.shape}")
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing_ijk_mm)
        image.SetOrigin(self.origin_lps_mm)
        image.SetDirection(self.direction_lps)
        return image

    def to_image(self) -> sitk.Image:
        """The CT as a SimpleITK image."""
        return self.image_like(self.hu)

    def lps_from_ijk_mm(self, ijk: np.ndarray) -> np.ndarray:
        """Patient coordinates (LPS, mm) of continuous voxel indices ``[..., (i, j, k)]``."""
        steps = np.asarray(self.spacing_ijk_mm) * np.asarray(ijk, float)
        return steps @ self.direction_matrix.T + np.asarray(self.origin_lps_mm)


def to_canonical(ct: CtVolume) -> CtVolume:
    """The same CT with its axes permuted and flipped to run nearest to left, posterior, superior; nothing is resampled."""
    import SimpleITK as sitk

    if ct.orientation == "LPS":
        return ct
    # The first voxels of the slices are others now.
    acquisition = replace(ct.acquisition, slice_origins_lps_mm=())
    return CtVolume.from_image(sitk.DICOMOrient(ct.to_image(), "LPS"), acquisition)


def from_canonical(array: np.ndarray, canonical: CtVolume, source: CtVolume) -> np.ndarray:
    """Bring ``array`` (``[k, j, i]`` on ``canonical``) back to the voxels of ``source``; the inverse of :func:`to_canonical`."""
    import SimpleITK as sitk

    if canonical is source:
        return array
    # The axes that DICOMOrient took, undone one by one: asked for the source's letters instead, it may choose others where
    # an axis lies halfway between two.
    orient = sitk.DICOMOrientImageFilter()
    orient.SetDesiredCoordinateOrientation("LPS")
    single = sitk.Image(1, 1, 1, sitk.sitkUInt8)
    single.SetDirection(source.direction_lps)
    orient.Execute(single)
    flips_kji, order_ijk = orient.GetFlipAxes()[::-1], orient.GetPermuteOrder()
    unflipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in flips_kji)]
    source_axes = [2 - order_ijk.index(axis) for axis in (2, 1, 0)]
    return np.ascontiguousarray(unflipped.transpose(source_axes))


def as_int16(voxels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Whole numbers of any integer type as int16, those beyond its range at its ends; ``out=voxels`` saves a copy."""
    own, short = np.iinfo(voxels.dtype), np.iinfo(np.int16)
    # NumPy before 2.1 refuses a limit that the type of the voxels cannot hold.
    return np.clip(voxels, max(own.min, short.min), min(own.max, short.max), out=out).astype(np.int16, copy=False)
