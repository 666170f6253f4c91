"""Errors of the volume of found lesions, and the agreement of predicted and reference volumes (Bland and Altman 1986)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIMITS_SD = 1.96
"""Standard deviations from the mean to the limits of agreement: 95 % of the differences, were they normal."""


@dataclass(frozen=True)
class BlandAltman:
    """Mean of the differences and limits of agreement."""

    bias: float
    lower: float
    upper: float
    pairs: int


def volume_errors(predicted_mm3: np.ndarray, reference_mm3: np.ndarray) -> np.ndarray:
    """``(Vp - Vr) / Vr`` of each lesion."""
    return (predicted_mm3 - reference_mm3) / reference_mm3


def percent_differences(predicted_mm3: np.ndarray, reference_mm3: np.ndarray) -> np.ndarray:
    """``100 (Vp - Vr) / ((Vp + Vr) / 2)``: the difference in per cent of the mean, since errors grow with the volume."""
    return 200 * (predicted_mm3 - reference_mm3) / (predicted_mm3 + reference_mm3)


def bland_altman(differences: np.ndarray) -> BlandAltman:
    """Bias and limits of agreement of the differences of pairs, in whatever unit;
    NaN limits below two pairs, all NaN without one."""
    pairs = len(differences)
    bias = float(np.mean(differences)) if pairs else float("nan")
    spread = LIMITS_SD * float(np.std(differences, ddof=1)) if pairs > 1 else float("nan")
    return BlandAltman(bias, bias - spread, bias + spread, pairs)


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; NaN without values."""
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    low, median, high = np.percentile(values, (25, 50, 75))
    return float(low), float(median), float(high)
