"""``pairs.csv``: a row for every track and step in time, rounded once, here."""

from __future__ import annotations

import math

import numpy as np

from NLSTSegLib.followup.compare import Change, FollowUp
from NLSTSegLib.followup.growth import Growth
from NLSTSegLib.followup.matching import Kind
from NLSTSegLib.followup.time_point import FoundLesion
from NLSTSegLib.followup.tracks import Step, Track
from NLSTSegLib.lesions.measure import round_half_up

Row = dict[str, str | int | float]

COLUMNS = (
    *("track", "from", "to", "kind", "sure", "by", "baseline", "followup", "score_1", "score_2", "distance_mm"),
    *("volume_1_mm3", "volume_2_mm3", "cv_1", "cv_2", "change_percent", "change_low", "change_high"),
    *("mean_diameter_1_mm", "mean_diameter_2_mm", "diameter_change_mm", "mass_change_percent", "mass_low", "mass_high"),
    *("days", "verdict", "vdt_days", "vdt_low", "vdt_high", "halving_days", "halving_low", "halving_high"),
    *("not_faster_than_days", "look", "rules"),
    *("place_1_l", "place_1_p", "place_1_s", "place_2_l", "place_2_p", "place_2_s", "probability_at_place"),
)
"""Columns; empty where one does not apply."""

LARGE_CHANGE = 1.0
"""A volume that more than doubles, or halves, is often a wrong outline: the table says to look."""


def rows(follow_up: FollowUp) -> list[Row]:
    """Rows of every track: the steps from CT to CT, and for more than two CTs the change since the first that shows it."""
    found = []
    for track in follow_up.tracks:
        for t, step in enumerate(track.steps, start=1):
            if step is not None:
                found.append(row(follow_up, track, t - 1, t, step))
        seen = [t for t, members in enumerate(track.members) if members]
        if len(seen) > 1 and seen[-1] > seen[0] + 1:
            found.append(row(follow_up, track, seen[0], seen[-1], None))
    return found


def row(follow_up: FollowUp, track: Track, since: int, t: int, step: Step | None) -> Row:
    """One track from CT ``since`` to CT ``t`` (from 0); ``step`` is that between the two where they are neighbours."""
    first, second = follow_up.lesions(track, since), follow_up.lesions(track, t)
    change = follow_up.change(track, t, since)
    days = None if follow_up.days is None else follow_up.days[t] - follow_up.days[since]
    made: Row = {
        "track": track.number,
        "from": since + 1,
        "to": t + 1,
        "kind": str(step.kind) if step else str(Kind.SAME),
        "sure": "" if step is None or not (first and second) else "ambiguous" if step.ambiguous else "yes",
        "by": "hand" if step and step.by_hand else "program" if step and step.kind is not Kind.NOT_COMPARED else "",
        "baseline": _names(first),
        "followup": _names(second),
        "score_1": _score(first),
        "score_2": _score(second),
        "distance_mm": _round(step.distance_mm if step else None, 1),
        "volume_1_mm3": _volume(first),
        "volume_2_mm3": _volume(second),
        "days": _round(days, 0),
    }
    if change:
        made |= _change_row(change)
    missing = None if step is None else step.place_lps_mm
    for number, lesions in ((1, first), (2, second)):
        place = np.mean([one.sizes.centroid_lps_mm for one in lesions], axis=0) if lesions else missing
        for n, axis in enumerate("lps"):
            made[f"place_{number}_{axis}"] = "" if place is None else round_half_up(float(place[n]), 1)
    made["probability_at_place"] = _round(step.probability if step else None, 3)
    return {column: made.get(column, "") for column in COLUMNS}


def _change_row(change: Change) -> Row:
    grown = change.growth
    made: Row = {
        "cv_1": round_half_up(change.cvs[0], 3),
        "cv_2": round_half_up(change.cvs[1], 3),
        "change_percent": _percent(grown.change.value),
        "change_low": _percent(grown.change.low),
        "change_high": _percent(grown.change.high),
        "verdict": str(grown.verdict),
        "not_faster_than_days": _round(grown.not_faster_than_days, 0),
        "look": "outlines" if abs(math.log1p(grown.change.value)) > math.log1p(LARGE_CHANGE) else "",
        "rules": "; ".join(f"{rule.name}: {rule.says}" for rule in change.rules),
    }
    for name, interval in (("vdt", grown.doubling_days), ("halving", grown.halving_days)):
        if interval:
            made |= {f"{name}_days": _round(interval.value, 0), f"{name}_low": _round(interval.low, 0)}
            made[f"{name}_high"] = _round(interval.high, 0)
    if change.sizes:
        was, now = (sizes.mean_diameter_mm for sizes in change.sizes)
        made |= {"mean_diameter_1_mm": _round(was, 1), "mean_diameter_2_mm": _round(now, 1)}
        made["diameter_change_mm"] = _round(now - was, 1)
    if change.mass:
        mass = change.mass.change
        made |= {"mass_change_percent": _percent(mass.value), "mass_low": _percent(mass.low), "mass_high": _percent(mass.high)}
    return made


def growth_text(grown: Growth) -> str:
    """The change with its interval and what follows of it, in one line."""
    low, high = (_percent(end) for end in (grown.change.low, grown.change.high))
    text = f"{_percent(grown.change.value):+.1f} % ({low:+.1f} to {high:+.1f}): {grown.verdict}"
    if grown.doubling_days:
        return f"{text}, doubling in {_interval(grown.doubling_days.value, grown.doubling_days.low, grown.doubling_days.high)}"
    if grown.halving_days:
        return f"{text}, half in {_interval(grown.halving_days.value, grown.halving_days.low, grown.halving_days.high)}"
    if grown.not_faster_than_days is not None:
        return f"{text}; doubling not faster than {grown.not_faster_than_days:.0f} days"
    return text


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.0f} days ({low:.0f} to {high:.0f})"


def _percent(share: float) -> float:
    return round_half_up(100 * share, 1)


def _round(value: float | None, decimals: int) -> float | int | str:
    if value is None:
        return ""
    rounded = round_half_up(value, decimals)
    return rounded if decimals else int(rounded)


def _names(lesions: list[FoundLesion]) -> str:
    return " + ".join(one.name for one in lesions)


def _score(lesions: list[FoundLesion]) -> float | str:
    scores = [one.score for one in lesions if one.score is not None]
    return round_half_up(max(scores), 3) if scores else ""


def _volume(lesions: list[FoundLesion]) -> int | str:
    return int(round_half_up(sum(one.sizes.volume_mm3 for one in lesions), 0)) if lesions else ""
