"""The error of a volume, as its coefficient of variation: from one table, named in every report."""

from __future__ import annotations

import math

LARGE_MM, THIN_MM, THICK_MM = 10.0, 2.0, 4.0
"""Where the table's rows and columns end."""

CV = {"small": (0.15, 0.15, 0.15), "large": (0.10, 0.10, 0.10)}
"""Of one volume, of lesions below and from :data:`LARGE_MM` on; for slices up to :data:`THIN_MM`, to
:data:`THICK_MM`, and above."""

DIFFERENT_SLICES = 0.20
"""Coefficient of variation more where the slices or kernels of the two CTs differ, shared by both volumes."""

SOURCE = "estimates, not yet measured with this model"


def volume_cv(diameter_mm: float, slice_mm: float, differ: bool) -> float:
    """Coefficient of variation of one volume of a lesion whose volume is that of a sphere of ``diameter_mm``.

    ``differ``: whether slices or kernels of the CT that it is compared with are others.
    """
    column = 0 if slice_mm <= THIN_MM else 1 if slice_mm <= THICK_MM else 2
    own = CV["small" if diameter_mm < LARGE_MM else "large"][column]
    return math.hypot(own, DIFFERENT_SLICES / math.sqrt(2)) if differ else own


def source_text(cv: float | None) -> str:
    """Where the intervals are from."""
    if cv is None:
        return f"95 % intervals by the coefficient of variation of each volume: {SOURCE}"
    return f"95 % intervals by a coefficient of variation of {cv:g} for every volume, as the user gave it"
