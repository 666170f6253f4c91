"""What is known to go wrong with a CT, looked for before and after the lungs are found: a list of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.volume import CtVolume

THICK_SLICE_MM = 5.0
"""Small lesions vanish between thicker slices."""

IN_PLANE_SPACING_MM = (0.2, 3.0)
"""Spacings the model may have seen; chest CT has 0.5-1 mm."""

FEWEST_SLICES = 16
"""A stack of fewer slices is not a chest."""

TILT_DEGREES = 0.1
"""A larger gantry tilt moves the mask by more than half a millimetre over 300 mm."""

SLICE_TOLERANCE = 0.1
"""A slice may lie this share of the slice distance, or :data:`SLICE_TOLERANCE_MM` if more, off the even grid."""

SLICE_TOLERANCE_MM = 0.1
"""Headers often round positions to 0.1 mm."""

AIR_RANGE_HU = (-1100, -300)
"""Air and lung, with noise; a CT of a chest has them, and what lies below is padding."""

FEWEST_AIR = 0.001
"""Share of the voxels; a CT with less has no air in HU."""

DENSE_HU = 700
"""Denser than all but bone, contrast and metal; soft tissue lies above when the intercept of about -1024 is missing."""

MOST_DENSE = 0.15
"""Share of the voxels; real chests have below 0.01."""

SMALLEST_RANGE = 20
"""Values that span less are scaled (0 to 1, z-scores) or labels."""

SAMPLE_VOXELS = 1_000_000
"""About how many voxels stand for all where shares are looked at."""

LUNG_BELOW_HU = -500
"""Aerated lung; the lung field alone is wider than the lungs."""

CUT_AREA_MM2 = 500.0
"""Lungs that reach the image's border with a larger cross-section are cut; whole ones have below 50 mm2 there."""


@dataclass(frozen=True)
class Finding:
    """One thing to know about a CT before its result is trusted."""

    severity: Literal["error", "warning", "info"]
    """An error stops the run."""
    code: str
    """Fixed word for programs, for example ``"not_hu"``."""
    message: str
    """One sentence: what was found, with the value."""
    fix: str = ""
    """One sentence: what the user can do; may be empty."""


def check_ct(ct: CtVolume) -> list[Finding]:
    """Findings about the grid and the voxels of ``ct``, on its source axes; errors first."""
    checks: Iterable[Callable[[CtVolume], Iterable[Finding]]] = (_header, _slice_distances, _grid, _values)
    findings = [finding for check in checks for finding in check(ct)]
    return sorted(findings, key=lambda f: ("error", "warning", "info").index(f.severity))


def check_lungs(ct: CtVolume, field: np.ndarray | None) -> list[Finding]:
    """Findings about the lung field (boolean ``[k, j, i]`` on ``ct``, which has canonical axes), ``None`` if not found."""
    if field is None:
        return [
            Finding(
                "warning",
                "no_lungs",
                "No lungs were found, so the whole image is searched and more of what is found will be false.",
                "Check that this is a chest CT in HU, or give a lung field.",
            )
        ]
    spacing_kji = np.array(ct.spacing_ijk_mm[::-1])
    cut = []
    for axis, names in enumerate((("bottom", "top"), ("front", "back"), ("right", "left"))):
        area_mm2 = np.prod(np.delete(spacing_kji, axis))
        for index, name in zip((0, -1), names, strict=True):
            lung = np.take(field, index, axis) & (np.take(ct.hu, index, axis) < LUNG_BELOW_HU)
            if lung.sum() * area_mm2 > CUT_AREA_MM2:
                cut.append(name)
    if not cut:
        return []
    message = f"The lungs are cut by the image's border ({', '.join(cut)}), so lesions beyond it cannot be found."
    return [Finding("warning", "lungs_cut", message, "Give the series that covers the whole chest, if there is one.")]


def stop_on_errors(findings: Iterable[Finding]) -> None:
    """Raise :class:`InputError` with the message and the fix of the first error, if there is one."""
    for finding in findings:
        if finding.severity == "error":
            raise InputError(f"{finding.message} {finding.fix}".strip())


def _header(ct: CtVolume) -> Iterable[Finding]:
    acquisition = ct.acquisition
    if acquisition.modality not in ("", "CT"):
        yield Finding("error", "modality", f"The DICOM modality is {acquisition.modality}, not CT.", "Give a CT series.")
    if not acquisition.orientation_known:
        yield Finding(
            "warning",
            "orientation_unknown",
            "The header does not say which way the axes run in the patient; left, posterior, superior is assumed.",
            "Convert the CT from DICOM again so that its orientation is kept.",
        )
    if acquisition.rescale_missing:
        yield Finding(
            "warning",
            "no_rescale",
            "The DICOM headers have no rescale slope and intercept, so the stored values are taken as HU.",
            "Compare the HU of air (-1000) and of muscle (about 50) before trusting the result.",
        )
    if acquisition.nonfinite_voxels:
        message = f"{acquisition.nonfinite_voxels} voxels are NaN or infinite and are treated as air."
        yield Finding("warning", "nonfinite", message, "Find out what wrote them.")


def _slice_distances(ct: CtVolume) -> Iterable[Finding]:
    offsets_mm = np.asarray(ct.acquisition.slice_offsets_mm, float)
    if len(offsets_mm) < 3:
        return
    gaps_mm = np.diff(offsets_mm)
    step_mm = float(np.median(gaps_mm))
    tolerance_mm = max(SLICE_TOLERANCE * step_mm, SLICE_TOLERANCE_MM)
    missing = np.rint(gaps_mm / step_mm).astype(int) - 1
    whole = np.abs(gaps_mm - step_mm * (missing + 1)) <= tolerance_mm
    if missing.any() and whole.all():
        at = int(missing.nonzero()[0][0])
        yield Finding(
            "error",
            "missing_slices",
            f"Slices are missing ({missing.sum()}): the first gap is between slices {at + 1} and {at + 2} "
            f"(at {offsets_mm[at]:.1f} mm along the slice normal), {gaps_mm[at]:.2f} mm instead of {step_mm:.2f} mm, "
            "and the mask would lie wrong.",
            "Copy the series again, completely.",
        )
        return
    off_mm = np.abs(offsets_mm - np.linspace(offsets_mm[0], offsets_mm[-1], len(offsets_mm)))
    if off_mm.max() > tolerance_mm or np.abs(gaps_mm - step_mm).max() > 2 * tolerance_mm:
        at = int(np.abs(gaps_mm - step_mm).argmax())
        yield Finding(
            "error",
            "uneven_spacing",
            f"The slices are unevenly spaced: {gaps_mm[at]:.2f} mm between slices {at + 1} and {at + 2} "
            f"(at {offsets_mm[at]:.1f} mm along the slice normal) instead of {step_mm:.2f} mm, so the mask would lie wrong.",
            "Give a series with even slices.",
        )


def _grid(ct: CtVolume) -> Iterable[Finding]:
    if not ct.is_orthogonal:
        message = "The voxel axes are not at right angles (a sheared grid), and the network needs a box."
        yield Finding("error", "sheared", message, "Resample the CT to an orthogonal grid first.")
    if ct.acquisition.tilt_degrees > TILT_DEGREES:
        message = f"The gantry was tilted by {ct.acquisition.tilt_degrees:.1f} degrees, so the slices are not stacked upright."
        yield Finding("error", "tilted", message, "Resample the CT to an orthogonal grid first.")
    along = int(np.abs(ct.direction_matrix[2]).argmax())
    step_mm = ct.spacing_ijk_mm[along]
    if step_mm > THICK_SLICE_MM + 1e-3:
        message = f"The slices are {step_mm:.2f} mm apart, so small lesions can be missed and volumes are coarse."
        yield Finding("warning", "thick_slices", message, "Give the thin-slice reconstruction, if there is one.")
    if (count := ct.hu.shape[2 - along]) < FEWEST_SLICES:
        message = f"There are only {count} slices, not a whole chest."
        yield Finding("warning", "few_slices", message, "Give the whole series, if there is one.")
    in_plane_mm = [s for axis, s in enumerate(ct.spacing_ijk_mm) if axis != along]
    if not all(IN_PLANE_SPACING_MM[0] <= s <= IN_PLANE_SPACING_MM[1] for s in in_plane_mm):
        message = (
            f"The pixels of an axial slice are {in_plane_mm[0]:.3g} x {in_plane_mm[1]:.3g} mm, unlike any the model has seen."
        )
        yield Finding("warning", "odd_spacing", message, "Check the spacing in the header.")


def _values(ct: CtVolume) -> Iterable[Finding]:
    low, high = float(ct.hu.min()), float(ct.hu.max())
    if low == high:
        yield Finding("error", "constant", f"All voxels have the value {low:g}.", "Give the CT itself.")
        return
    if low < AIR_RANGE_HU[0]:
        message = f"Voxels below {AIR_RANGE_HU[0]} HU (down to {low:g}), as padding outside the scan has, are treated as air."
        yield Finding("info", "padding", message)
    if reason := _not_hu(ct.hu, low, high):
        message = f"The values run from {low:g} to {high:g} {reason}, so they are not HU."
        yield Finding("error", "not_hu", message, "Give the CT with rescale slope and intercept applied and nothing else.")


def _not_hu(hu: np.ndarray, low: float, high: float) -> str:
    """Why the values cannot be HU; empty when they look like it."""
    if high - low <= SMALLEST_RANGE:
        return "like a scaled image or a label map"
    if low >= 0 and high <= 255:
        return "like 8-bit grey values"
    step = max(1, round((hu.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = hu[::step, ::step, ::step]
    if np.mean((sample >= AIR_RANGE_HU[0]) & (sample <= AIR_RANGE_HU[1])) < FEWEST_AIR:
        return "with no voxel like air or lung (-1000 to -300)"
    if np.mean(sample > DENSE_HU) > MOST_DENSE:
        return f"with {np.mean(sample > DENSE_HU):.0%} of them above {DENSE_HU}, denser than soft tissue"
    return ""
