"""The measured figures of a model's card in words: what a reader is told, without what is for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from NLSTSegLib.errors import printable

FOR_PROGRAMS = frozenset({"made_with", "recipe", "seed", "commit", "protocol", "calibration"})
"""Groups and values that say how a model came about, to make it again."""

DEEPEST = 3
"""Levels that are shown; groups that go deeper are for programs."""

COUNTED = ("cases", "patients", "lesions", "candidates")
"""Numbers that stand before their name."""

WORDS = {
    "dice": "Dice of all that is marked in a case",
    "dice_per_lesion": "Dice per lesion, 0 for a missed one",
    "iou": "IoU of all that is marked in a case",
    "surface_dice_1mm": "surface Dice at 1 mm",
    "lesions_found": "share of the lesions found",
    "marks_outside_per_case": "false marks a case",
    "cpm": "mean sensitivity of the FROC curve (CPM)",
    "published_protocol_iou": "IoU of slices by the published protocol",
    "min_volume_mm3": "smallest volume in mm3",
    "second_look": "refinement",
    "sure_threshold": "score above which a mark is nearly always a lesion",
}
"""Names whose words alone do not say enough."""


def measured_lines(metrics: dict[str, Any]) -> list[str]:
    """One line for each figure with an interval, and one for every group of plain numbers; each is printable."""
    return [printable(line) for line in _lines(metrics, ())]


def _lines(metrics: dict[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    heading = f"{', '.join(place)}: " if place else ""
    shown = {name: value for name, value in metrics.items() if name not in FOR_PROGRAMS}
    numbers = [_plain(name, value) for name, value in shown.items() if not isinstance(value, dict | list)]
    if numbers:
        yield heading + ", ".join(numbers)
    for name, value in shown.items():
        if isinstance(value, dict) and "value" in value:
            has_interval = isinstance(value.get("low"), int | float) and isinstance(value.get("high"), int | float)
            interval = f" (95 % interval {value['low']} to {value['high']})" if has_interval else ""
            yield f"{heading}{_words(name)} {value['value']}{interval}"
    for name, value in shown.items():
        if isinstance(value, dict) and "value" not in value and len(place) < DEEPEST:
            yield from _lines(value, (*place, _words(name)))


def _plain(name: str, value: Any) -> str:
    return f"{value} {_words(name)}" if name in COUNTED else f"{_words(name)} {value}"


def _words(name: str) -> str:
    return WORDS.get(name, name.replace("_", " "))
