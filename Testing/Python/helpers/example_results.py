"""Results without a network: lesions of known place on a CT of any geometry."""

from pathlib import Path

import numpy as np

from NLSTSegLib.lesions.find import find_lesions
from NLSTSegLib.models.bundle import published_card
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.volume.ct import CtVolume, to_canonical
from NLSTSegLib.volume.regular_grid import slice_stack, to_regular

Sphere = tuple[tuple[float, float, float], float]
"""Centre (i, j, k) in voxels and radius in mm."""

SPHERES: tuple[Sphere, ...] = (((14, 18, 8), 7.0), ((36, 40, 22), 5.0), ((12, 44, 26), 3.5))
"""Three lesions that do not touch, the largest first."""

BACKGROUND_HU, LESION_HU = -800, 40

ANGLES_DEGREES = (12.0, -7.0, 23.0)
"""Rotation about left, posterior, superior: oblique in every plane."""


def oblique_direction(axes: tuple[int, int, int] = (0, 1, 2), signs: tuple[int, int, int] = (1, 1, 1)) -> tuple[float, ...]:
    """Directions of i, j, k turned by :data:`ANGLES_DEGREES`; before that they run along LPS axis ``axes`` times ``signs``."""
    a, b, c = np.radians(ANGLES_DEGREES)
    about_l = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_p = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_s = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return tuple((about_s @ about_p @ about_l @ (np.eye(3)[:, axes] * signs)).ravel().tolist())


def ct_with_spheres(
    spheres: tuple[Sphere, ...] = SPHERES,
    *,
    shape_kji: tuple[int, int, int] = (32, 56, 48),
    spacing_ijk_mm: tuple[float, float, float] = (0.8, 0.7, 1.5),
    origin_lps_mm: tuple[float, float, float] = (-31.7, 12.3, -105.9),
    direction_lps: tuple[float, ...] | None = None,
) -> CtVolume:
    """An int16 CT of soft-tissue spheres in lung, oblique unless a direction is given.

    Each sphere bears a bud of half its radius towards +i, +j and +k, so that a mirrored or turned lesion is not itself.
    """
    ijk = np.indices(shape_kji)[::-1]
    hu = np.full(shape_kji, BACKGROUND_HU, np.int16)
    for centre_ijk, radius_mm in spheres:
        shift_mm = np.array([radius_mm * 0.8, radius_mm * 0.5, radius_mm * 0.65])
        for at, r in ((np.array(centre_ijk), radius_mm), (centre_ijk + shift_mm / spacing_ijk_mm, radius_mm / 2)):
            distance2 = sum(((n - a) * s) ** 2 for n, a, s in zip(ijk, at, spacing_ijk_mm, strict=True))
            hu[distance2 <= r**2] = LESION_HU
    return CtVolume(hu, spacing_ijk_mm, origin_lps_mm, direction_lps or oblique_direction())


def result_for(ct: CtVolume, *, threshold: float = 0.5, min_volume_mm3: float = 0.0) -> SegmentationResult:
    """What a perfect network finds in ``ct``: all soft tissue, less sure of it towards the end of axis k of the canonical CT."""
    regular = to_regular(ct, slice_stack(ct))
    canonical = to_canonical(regular)
    sure = np.linspace(250, 180, canonical.hu.shape[0]).astype(np.uint8)[:, None, None]
    probability = np.where(canonical.hu > (BACKGROUND_HU + LESION_HU) / 2, sure, np.uint8(3))
    lesions = find_lesions(probability, canonical, threshold=threshold, min_volume_mm3=min_volume_mm3)
    return SegmentationResult(
        ct=ct,
        regular=regular,
        canonical=canonical,
        canonical_probability=probability,
        lesions=tuple(lesions),
        findings=(),
        card=published_card(Path("x.pth")),
        threshold=threshold,
        min_volume_mm3=min_volume_mm3,
        lung_field_note="none",
        device_note="none",
    )
