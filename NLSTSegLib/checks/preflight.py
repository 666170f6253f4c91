"""What is known to go wrong with a CT, looked for before and after the lungs are found: a list of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regular_grid import UNEVEN_MM, UNEVEN_SHARE, SliceStack, regular_shape, slice_stack

THICK_SLICE_MM = 5.0
"""Small lesions vanish between thicker slices."""

THICK_SLAB_MM, OVERLAP = 4.0, 2.0
"""Reconstructions overlap by half at the most; thicker slices nearer together are slabs (MIP, averages)."""

IN_PLANE_SPACING_MM = (0.4, 3.0)
"""Spacings that a model may have seen, where its card does not tell; chest CT has 0.5-1 mm."""

FEWEST_SLICES = 16
"""A stack of fewer slices is not a chest."""

RESAMPLED = "The CT is resampled to a regular grid for the search, and the mask is brought back to its own voxels."
"""Said wherever :mod:`NLSTSegLib.volume.regular_grid` comes in."""

MOST_GROWTH = 4.0
"""A regular grid with more times the voxels of the CT is not made: slices that far apart, or leaning so, are no chest."""

KNOWN_SHARE = 0.05
"""Share by which voxels may lie outside the range of a card and still count as known."""

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

BODY_HU = (-200, 2000)
"""Fat, muscle and bone."""

LUNG_SAMPLE_MM = 3.0
"""Voxels this far apart are enough to tell the lungs' volume."""

CUT_AREA_MM2 = 500.0
"""Lungs that reach the image's border with a larger cross-section are cut; whole ones have below 50 mm2 there."""

ADULT_LUNGS_L = (1.0, 10.0)
"""Air in the lungs of an adult who breathes in for a CT: 2 to 8 litres; less or more was found wrongly or is diseased."""

SMALLER_LUNG = 0.25
"""Share of the larger lung's air; in health the smaller one has 0.6 or more."""


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
    return _found(ct, (_header, _slices, _grid, _values))


def check_ct_grid(ct: CtVolume) -> list[Finding]:
    """Those of :func:`check_ct` that the voxels of ``ct`` take no part in."""
    return _found(ct, (_header, _slices, _grid))


def _found(ct: CtVolume, checks: Iterable[Callable[[CtVolume], Iterable[Finding]]]) -> list[Finding]:
    findings = [finding for check in checks for finding in check(ct)]
    return sorted(findings, key=lambda f: ("error", "warning", "info").index(f.severity))


def check_lungs(ct: CtVolume, lung_mask: np.ndarray | None) -> list[Finding]:
    """Findings about the lung field (boolean ``[k, j, i]`` on ``ct``, which has canonical axes), ``None`` if not found."""
    if lung_mask is None:
        return [
            Finding(
                "warning",
                "no_lungs",
                "No lungs were found, so the whole image is searched and more of what is found will be false.",
                "Check that this is a chest CT in HU, or give a lung field.",
            )
        ]
    cut = _cut_sides(ct, lung_mask)
    findings = []
    if cut:
        message = f"The lungs are cut by the image's border ({', '.join(cut)}), so lesions beyond it cannot be found."
        findings.append(Finding("warning", "lungs_cut", message, "Give the series that covers the whole chest, if there is one."))
    right_l, left_l = _lung_air_l(ct, lung_mask)
    if right_l + left_l > ADULT_LUNGS_L[1] or (right_l + left_l < ADULT_LUNGS_L[0] and not cut):
        message = f"The lungs that were found hold {right_l + left_l:.1f} litres of air, where an adult's hold 2 to 8."
        fix = "Look whether they are the lungs, and whether a part of them holds fluid or is collapsed, which is not searched."
        findings.append(Finding("warning", "lung_volume", message, fix))
    if min(right_l, left_l) < SMALLER_LUNG * max(right_l, left_l):
        message = f"The right lung holds {right_l:.1f} litres of air and the left one {left_l:.1f}."
        fix = "What of a lung is filled with fluid, collapsed or removed is not searched; look there yourself."
        findings.append(Finding("warning", "one_lung", message, fix))
    return findings


def _cut_sides(ct: CtVolume, lung_mask: np.ndarray) -> list[str]:
    """Sides of the image at which the lungs are cut."""
    spacing_kji = np.array(ct.spacing_ijk_mm[::-1])
    cut = []
    for axis, names in enumerate((("bottom", "top"), ("front", "back"), ("right", "left"))):
        area_mm2 = np.prod(np.delete(spacing_kji, axis))
        for index, name in zip((0, -1), names, strict=True):
            lung = np.take(lung_mask, index, axis) & (np.take(ct.hu, index, axis) < LUNG_BELOW_HU)
            if lung.sum() * area_mm2 > CUT_AREA_MM2:
                cut.append(name)
    return cut


def _lung_air_l(ct: CtVolume, lung_mask: np.ndarray) -> tuple[float, float]:
    """Litres of aerated voxels in the field, to the right and to the left of the middle of the body's tissue."""
    steps = [max(1, int(LUNG_SAMPLE_MM / step_mm)) for step_mm in ct.spacing_ijk_mm[::-1]]
    sample = tuple(slice(None, None, step) for step in steps)
    hu, lungs = ct.hu[sample], lung_mask[sample]
    levels = np.flatnonzero(np.any(lungs, axis=(1, 2)))
    columns = ((hu[levels] > BODY_HU[0]) & (hu[levels] < BODY_HU[1])).sum(axis=(0, 1)).cumsum()
    middle = int(np.searchsorted(columns, columns[-1] / 2))
    air = (lungs & (hu < LUNG_BELOW_HU)).sum(axis=(0, 1)) * ct.voxel_volume_mm3 * float(np.prod(steps)) / 1e6
    return float(air[:middle].sum()), float(air[middle:].sum())


def check_known_voxels(
    ct: CtVolume, in_plane_range_mm: tuple[float, float] | None, slice_range_mm: tuple[float, float] | None
) -> list[Finding]:
    """A warning where the voxels of ``ct`` (canonical axes) are smaller or larger than those that a model's card names."""
    i_mm, j_mm, k_mm = ct.spacing_ijk_mm
    findings = []
    for what, steps_mm, known in (("pixels are", (i_mm, j_mm), in_plane_range_mm), ("slices lie", (k_mm,), slice_range_mm)):
        if known and not known[0] * (1 - KNOWN_SHARE) <= min(steps_mm) <= max(steps_mm) <= known[1] * (1 + KNOWN_SHARE):
            told = " x ".join(f"{step:.3g}" for step in steps_mm)
            message = f"The {what} {told} mm {'large' if len(steps_mm) > 1 else 'apart'}, where the model knows {known[0]:g} to"
            fix = "Expect more false marks and more missed lesions."
            code = "odd_spacing" if len(steps_mm) > 1 else "unknown_slice_distance"
            findings.append(Finding("warning", code, f"{message} {known[1]:g} mm.", fix))
    return findings


def check_candidates(left_out: int) -> list[Finding]:
    """A warning where so many candidates of the first network were not looked at by the second."""
    if not left_out:
        return []
    message = f"The network marked so many places that the {left_out} least sure were not looked at again, and count as none."
    return [
        Finding("warning", "many_candidates", message, "Check that this is a chest CT in HU; look for lesions that it missed.")
    ]


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
    if acquisition.derivation:
        message = f"The images were calculated from others ({acquisition.derivation}), where vessels can look like nodules."
        yield Finding("warning", "derived_images", message, "Give the axial reconstruction itself.")
    if acquisition.doubled_slices:
        message = (
            f"{acquisition.doubled_slices} slices lie where another lies, as acquisitions that continue each other have them."
        )
        yield Finding("info", "doubled_slices", message, "Each place is taken once.")
    if acquisition.unreadable_files:
        message = f"{acquisition.unreadable_files} files beside the slices cannot be read and were left out."
        yield Finding("warning", "unreadable_files", message, "A part of the chest may be missing; copy the folder again.")
    if acquisition.nonfinite_voxels:
        message = f"{acquisition.nonfinite_voxels} voxels are NaN or infinite and are treated as air."
        yield Finding("warning", "nonfinite", message, "Find out what wrote them.")


def _slices(ct: CtVolume) -> Iterable[Finding]:
    stack = slice_stack(ct)
    if len(ct.hu) < 2:
        if stack.is_sheared:
            message = "The axes of this single slice are not at right angles, so it cannot be resampled."
            yield Finding("error", "sheared", message, "Give the whole series.")
        return
    if not (np.diff(stack.height_mm) > 0).all():
        message = "Slices lie at the same position or out of order."
        yield Finding("error", "uneven_spacing", message, "Keep one acquisition in the folder.")
        return
    if stack.is_regular:
        return
    growth = np.prod(regular_shape(ct, stack), dtype=float) / ct.hu.size
    if growth > MOST_GROWTH:
        message = (
            f"The slices lie up to {np.diff(stack.height_mm).max():.0f} mm apart and lean by {stack.tilt_degrees:.0f} degrees, "
            f"so a regular grid would have {growth:.0f} times their voxels."
        )
        yield Finding("error", "scattered", message, "Take out the slices that do not belong to the scan.")
        return
    if stack.is_uneven:
        yield _uneven(stack)
    if stack.is_sheared:
        message = f"The slices lean by {stack.tilt_degrees:.1f} degrees or have axes that are not at right angles (gantry tilt)."
        yield Finding("warning", "sheared", message, RESAMPLED)


def _uneven(stack: SliceStack) -> Finding:
    gaps_mm, step_mm = np.diff(stack.height_mm), stack.step_mm
    missing = np.rint(gaps_mm / step_mm).astype(int) - 1
    tolerance_mm = max(UNEVEN_SHARE * step_mm, UNEVEN_MM)
    only_missing = missing.any() and (np.abs(gaps_mm - step_mm * (missing + 1)) <= tolerance_mm).all()
    at = int(missing.nonzero()[0][0]) if only_missing else int(np.abs(gaps_mm - step_mm).argmax())
    place = f"{gaps_mm[at]:.2f} mm between slices {at + 1} and {at + 2} instead of {step_mm:.2f} mm"
    if only_missing:
        message = f"Slices are missing ({missing.sum()}): {place}."
        return Finding("warning", "missing_slices", message, f"{RESAMPLED} Copy the series again, if it was complete once.")
    return Finding("warning", "uneven_spacing", f"The slices are unevenly spaced: {place}.", RESAMPLED)


def _grid(ct: CtVolume) -> Iterable[Finding]:
    along = int(np.abs(ct.direction_matrix[2]).argmax())
    step_mm = ct.spacing_ijk_mm[along]
    thickness_mm = ct.acquisition.slice_thickness_mm
    if max(step_mm, thickness_mm) > THICK_SLICE_MM + 1e-3:
        told = f"{thickness_mm:.4g} mm thick and " if thickness_mm else ""
        message = f"The slices are {told}{step_mm:.2f} mm apart, so small lesions can be missed and volumes are coarse."
        yield Finding("warning", "thick_slices", message, "Give the thin-slice reconstruction, if there is one.")
    if thickness_mm >= THICK_SLAB_MM and thickness_mm > OVERLAP * step_mm:
        message = f"The slices are {thickness_mm:.4g} mm thick and {step_mm:.2f} mm apart, as slabs calculated from others are."
        yield Finding("warning", "overlapping_slabs", message, "Give the thin-slice reconstruction itself.")
    if thickness_mm and step_mm > OVERLAP * thickness_mm:
        message = f"The slices are {thickness_mm:.4g} mm thick and {step_mm:.2f} mm apart, so what lies between was not scanned."
        yield Finding("warning", "gaps", message, "Give a series without gaps, if there is one.")
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
