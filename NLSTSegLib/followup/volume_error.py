"""The error of a volume, as its coefficient of variation: from tables with their sources, named in every report.

It is put together of what the bundled model's outline of one acquisition varies by, and of what two acquisitions differ by.
"""

from __future__ import annotations

import math

LARGE_MM, SMALLEST_MM = 10.0, 6.0
"""Diameters where the table's rows part, and below which nothing was measured."""

THIN_MM, THICK_MM = 2.5, 4.0
"""Slices up to the first, up to the second, and above: the table's columns."""

OUTLINE_CV = {"small": (0.044, 0.044, 0.229), "large": (0.056, 0.056, 0.070)}
"""Coefficients of variation of the bundled model's volumes of one acquisition with other noise, slices and shifts
(Testing/benchmarks/volume_error.py)."""

SLICES_CV = (0.0, 0.12, 0.24)
"""Standard deviation of ln(V thick / V thin) of the same acquisition, by the thicker slices; from the same run."""

KERNELS_CV = 0.16
"""Mean change of volumes by all parameters of the reconstruction together (PMID 17161571)."""

SCANS_CV = 0.10
"""Two scans of one patient at 1 mm, one reader: 95 % of changes from -25 to +29 % (PMC3043750)."""

SOURCE = (
    "outlines of model lidc-25d 2.5, 18 nodules of 6 to 38 mm (6 of a phantom, 12 of 2 patients), one acquisition each "
    "resliced to 1 to 5 mm with new noise: 0.044 to 0.229; other slices up to 0.24; two scans of one patient 0.10 "
    "(PMC3043750); other kernels 0.16 (PMID 17161571); below 6 mm extrapolated"
)


def volume_cv(diameter_mm: float, slice_mm: float, other_slice_mm: float, *, kernels_differ: bool = False) -> float:
    """Coefficient of variation of one volume of a lesion whose volume is that of a sphere of ``diameter_mm``.

    ``other_slice_mm`` are the slices of the CT that it is compared with. What the two CTs differ by is shared by both volumes.
    """
    own = OUTLINE_CV["small" if diameter_mm < LARGE_MM else "large"][_column(slice_mm)]
    if diameter_mm < SMALLEST_MM:
        own *= (SMALLEST_MM / max(diameter_mm, 1.0)) ** 1.5
    # Slices that are as thick in both CTs shift both volumes alike.
    differ = abs(math.log(other_slice_mm / slice_mm)) > math.log(1.1)
    slices = SLICES_CV[_column(max(slice_mm, other_slice_mm))] if differ else 0.0
    shared = math.hypot(slices, KERNELS_CV if kernels_differ else 0.0) / math.sqrt(2)
    return min(1.0, math.hypot(own, SCANS_CV, shared))


def _column(slice_mm: float) -> int:
    return 0 if slice_mm <= THIN_MM else 1 if slice_mm <= THICK_MM else 2


def source_text(cv: float | None) -> str:
    """Where the intervals are from."""
    if cv is None:
        return f"95 % intervals by the coefficient of variation of each volume: {SOURCE}"
    return f"95 % intervals by a coefficient of variation of {cv:g} for every volume, as the user gave it"
