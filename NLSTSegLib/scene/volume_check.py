"""The pre-flight card of a volume: what is good and what is wrong about it, in sentences, and what would mend it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from NLSTSegLib.checks.preflight import Finding, check_ct
from NLSTSegLib.errors import InputError, as_sentence
from NLSTSegLib.scene.fixes import Fix, fix_of_finding, fix_of_refused
from NLSTSegLib.scene.volumes import ct_from_volume_node
from NLSTSegLib.volume.ct import CtVolume

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

ABOUT_VALUES = frozenset({"constant", "not_hu", "no_rescale", "nonfinite"})
"""Codes of findings after which nothing good is said about the values."""

ABOUT_GRID = frozenset({"sheared", "uneven_spacing", "missing_slices", "scattered", "thick_slices", "few_slices", "odd_spacing"})
"""Codes of findings after which nothing good is said about the grid."""


@dataclass(frozen=True)
class CheckedLine:
    """One line of the card; an ``error`` stops the run."""

    level: Literal["error", "warning", "info", "good"]
    sentence: str
    advice: str = ""
    """One sentence on what to do, or nothing."""
    fix: Fix | None = None


def check_volume(node: vtkMRMLScalarVolumeNode) -> list[CheckedLine]:
    """Look at a volume before it is segmented: errors first, then warnings, then what is good."""
    try:
        ct = ct_from_volume_node(node, copy=False)
    except InputError as error:
        return [CheckedLine("error", as_sentence(str(error)), fix=fix_of_refused(node))]
    findings = check_ct(ct)
    lines = [CheckedLine(f.severity, f.message, f.fix, fix_of_finding(f.code, ct)) for f in findings]
    return lines + list(_good(ct, findings))


def _good(ct: CtVolume, findings: Iterable[Finding]) -> Iterator[CheckedLine]:
    codes = {finding.code for finding in findings}
    if not codes & ABOUT_GRID:
        slices, rows, columns = ct.hu.shape
        i_mm, j_mm, k_mm = ct.spacing_ijk_mm
        size = f"{columns} x {rows} x {slices} voxels of {i_mm:.2f} x {j_mm:.2f} x {k_mm:.2f} mm"
        yield CheckedLine("good", f"The grid is even and right-angled: {size}.")
    if not codes & ABOUT_VALUES:
        yield CheckedLine("good", f"The values look like HU: {float(ct.hu.min()):g} to {float(ct.hu.max()):g}.")
