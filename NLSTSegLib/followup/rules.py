"""What published rules say of one lesion's change, each for itself: they disagree, and no verdict is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

YEAR_DAYS = 366
"""Lung-RADS speaks of 12 months."""

GROWTH_SHARE = 0.25
"""BTS and NELSON: a smaller change of the volume is no growth."""

FAST_DAYS, SLOW_DAYS = 400, 600
"""NELSON's classes of the volume doubling time."""

NELSON_SMALL_MM3, NELSON_LARGE_MM3 = 50, 500

LUNG_RADS_MM, FLEISCHNER_MM = 1.5, 2.0
"""Growth of the mean diameter: more than the first, at least the second."""

RECIST_MEASURABLE_MM, RECIST_TARGETS = 10.0, 2
"""Longest diameter of a target at least; targets in one organ at most, and the lungs are one."""

RECIST_SMALLER, RECIST_LARGER, RECIST_LARGER_MM = -0.30, 0.20, 5.0

BTS = "British Thoracic Society 2015, Thorax 70 Suppl 2"
NELSON = "NELSON trial, as in J Thorac Dis 2018 (Kakinuma); classes of doubling time as in PMC9347663"
LUNG_RADS = "ACR Lung-RADS v2022"
FLEISCHNER = "Fleischner Society 2017"
RECIST = "RECIST 1.1, PMC2755245 table 3"


@dataclass(frozen=True)
class Rule:
    """One rule that applies to what was measured."""

    name: str
    says: str
    """What it says, with the numbers that it rests on."""
    source: str


@dataclass(frozen=True)
class Sizes:
    """One lesion at one time, unrounded: differences are taken before anything is rounded."""

    volume_mm3: float
    mean_diameter_mm: float
    long_axis_mm: float


def rules(first: Sizes, second: Sizes, days: float | None) -> list[Rule]:
    """The rules that say something about the change from ``first`` to ``second``, ``days`` later (``None``: not known).

    They take the measured sizes as exact, as readers do; the error of a volume is told beside them, not in them.
    """
    change = second.volume_mm3 / first.volume_mm3 - 1
    grown_mm = second.mean_diameter_mm - first.mean_diameter_mm
    percent = f"{round(100 * change):+d} %"
    doubling = days * math.log(2) / math.log1p(change) if days is not None and change >= GROWTH_SHARE else None
    found = []
    if change < GROWTH_SHARE:
        found.append(Rule("BTS", f"no growth: volume {percent}, below 25 %", BTS))
    elif doubling is None:
        found.append(Rule("BTS", f"growth: volume {percent}, 25 % or more", BTS))
    else:
        slow = f", over {FAST_DAYS}: after 3 months, again at 12 months" if doubling > FAST_DAYS else ""
        found.append(Rule("BTS", f"growth: volume {percent}, 25 % or more; doubling in {doubling:.0f} days{slow}", BTS))
    found.append(Rule("NELSON", _nelson(second.volume_mm3, change, percent, doubling), NELSON))
    if grown_mm > LUNG_RADS_MM and days is not None and days <= YEAR_DAYS:
        found.append(Rule("Lung-RADS", f"growth: mean diameter {grown_mm:+.1f} mm within 12 months, over 1.5 mm", LUNG_RADS))
    elif grown_mm > LUNG_RADS_MM:
        when = "no dates" if days is None else f"{days:.0f} days, longer than the rule's 12 months"
        found.append(Rule("Lung-RADS", f"not decided: mean diameter {grown_mm:+.1f} mm, but {when}", LUNG_RADS))
    if grown_mm >= FLEISCHNER_MM:
        found.append(Rule("Fleischner", f"growth: mean diameter {grown_mm:+.1f} mm, 2 mm or more", FLEISCHNER))
    return found


def _nelson(volume_mm3: float, change: float, percent: str, doubling: float | None) -> str:
    if change < GROWTH_SHARE:
        if volume_mm3 > NELSON_LARGE_MM3:
            return f"positive by size: {volume_mm3:.0f} mm3, above 500; no growth: volume {percent}, below 25 %"
        size = "below 50 mm3: negative" if volume_mm3 < NELSON_SMALL_MM3 else "50 to 500 mm3: indeterminate by size"
        return f"no growth: volume {percent}, below 25 %; {size}"
    if doubling is None:
        return f"growth: volume {percent}, 25 % or more; its class needs the days between the CTs"
    fast = f"below {FAST_DAYS}: positive"
    kind = (
        fast if doubling < FAST_DAYS else f"above {SLOW_DAYS}: negative" if doubling > SLOW_DAYS else "400 to 600: indeterminate"
    )
    return f"growth: volume {percent}, 25 % or more; doubling in {doubling:.0f} days, {kind}"


def recist(lengths_mm: Sequence[Sequence[float]], new_lesions: int) -> Rule | None:
    """What RECIST 1.1 would say of the lungs alone, now; ``None`` where no lesion is a target and none is new.

    ``lengths_mm`` has, for every lesion of the baseline, its longest diameter at the baseline, at every CT since, and now; 0
    where it was not found, which is not taken for gone: such a lesion is no target. Targets are the two longest of 10 mm or
    more.
    """
    targets = [row for row in lengths_mm if row[0] >= RECIST_MEASURABLE_MM and row[-1] > 0]
    targets = sorted(targets, key=lambda row: -row[0])[:RECIST_TARGETS]
    new = f"{new_lesions} lesion{'s' if new_lesions != 1 else ''} without a counterpart before; if new: progression"
    if not targets:
        return Rule("RECIST", f"no target of 10 mm or more in both CTs; {new}", RECIST) if new_lesions else None
    sums = [sum(column) for column in zip(*targets, strict=True) if min(column) > 0]
    first_sum, now_sum, smallest = sums[0], sums[-1], min(sums[:-1])
    told = f"sum of {len(targets)} longest diameter{'s' if len(targets) > 1 else ''} {first_sum:.1f} to {now_sum:.1f} mm"
    if now_sum / smallest - 1 >= RECIST_LARGER and now_sum - smallest >= RECIST_LARGER_MM:
        said = f"progression by size: {told}, +20 % and +5 mm or more over the smallest sum {smallest:.1f} mm"
    elif now_sum / first_sum - 1 <= RECIST_SMALLER:
        said = f"partial response by size: {told}, -30 % or more"
    else:
        said = f"neither progression nor response by size: {told}"
    return Rule("RECIST", f"lungs alone, {said}{'; ' + new if new_lesions else ''}", RECIST)
