"""How much a lesion has grown between two CTs, and how much of that can be told from the error of its volume.

Volumes err by a factor, so everything is done in logarithms: with the coefficient of variation c of one volume,
s = sqrt(ln(1 + c^2)); x = ln(V2 / V1); e = 1.95996 sqrt(s1^2 + s2^2). The change lies between exp(x - e) - 1 and
exp(x + e) - 1 in 95 of 100 cases. The volume doubling time is t ln 2 / x (Schwartz 1961).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from NLSTSegLib.errors import InputError

TWO_SIDED_95 = 1.959964
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""


class Verdict(StrEnum):
    """What the interval of the change alone says, by no guideline."""

    GROWN = "grown"
    SHRUNK = "shrunk"
    NOT_MEASURABLE = "not measurable"
    """No change and the change that was measured are both within the error."""


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Growth:
    """The change from one volume to a later one, unrounded."""

    change: Interval
    """V2 / V1 - 1: 1 is twice the volume, -0.5 half of it."""
    verdict: Verdict
    days: float | None
    """Days between the acquisitions; ``None`` where a date is missing."""
    doubling_days: Interval | None
    """Only of what has grown, with dates."""
    halving_days: Interval | None
    """Only of what has shrunk, with dates."""
    not_faster_than_days: float | None
    """Only where nothing can be measured, with dates: it may grow, but does not double faster than this. ``None`` too where
    nothing above no change is left."""


def growth(
    volume_1_mm3: float, volume_2_mm3: float, days: float | None, cv_1: float, cv_2: float, *, what: str = "volume"
) -> Growth:
    """The growth from ``volume_1_mm3`` to ``volume_2_mm3``, measured ``days`` later, each with its coefficient of variation.

    Serves for a mass in mg as well; ``what`` names the quantity in errors. Raises :class:`InputError` for a quantity or a
    number of days that is not positive, and for a coefficient of variation outside 0 to 1.
    """
    if not (volume_1_mm3 > 0 and volume_2_mm3 > 0):
        raise InputError(f"growth needs two positive values of the {what}, not {volume_1_mm3} and {volume_2_mm3}")
    if days is not None and not days > 0:
        raise InputError(f"the second CT must be later than the first, not {days:g} days: give them in the order of their dates")
    for cv in (cv_1, cv_2):
        if not 0 <= cv <= 1:
            raise InputError(f"the coefficient of variation {cv} cannot be used: give a number from 0 to 1")
    x = math.log(volume_2_mm3 / volume_1_mm3)
    error = TWO_SIDED_95 * math.sqrt(math.log1p(cv_1**2) + math.log1p(cv_2**2))
    low, high = x - error, x + error
    verdict = Verdict.GROWN if low > 0 else Verdict.SHRUNK if high < 0 else Verdict.NOT_MEASURABLE
    doubling = halving = bound = None
    if days is not None:
        scale = days * math.log(2)
        if verdict is Verdict.GROWN:
            doubling = Interval(scale / x, scale / high, scale / low)
        elif verdict is Verdict.SHRUNK:
            halving = Interval(-scale / x, -scale / low, -scale / high)
        elif high > 0:
            bound = scale / high
    return Growth(Interval(math.expm1(x), math.expm1(low), math.expm1(high)), verdict, days, doubling, halving, bound)


def mass_mg(volume_mm3: float, mean_hu: float) -> float:
    """Mass of a lesion: its volume in ml times (mean HU + 1000), in mg, at least 0 (air weighs nothing)."""
    return max(0.0, volume_mm3 / 1000 * (mean_hu + 1000))
