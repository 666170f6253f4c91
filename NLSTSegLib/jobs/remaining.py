"""How long a run still takes, from its own pace, and durations as words."""

from __future__ import annotations

FIRST_FRACTION, LEAST_FRACTION, LEAST_S = 0.1, 0.05, 1.0
"""Remaining time is told after the network has begun, has done this much of the whole and has run as long."""


def duration_text(seconds: float) -> str:
    """Rounded as an estimate deserves: ``"5 s"``, ``"40 s"``, ``"3 min"``, ``"1 h 20 min"``."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"{5 * round(seconds / 5)} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, tens = divmod(round(minutes / 10), 6)
    return f"{hours} h {10 * tens} min" if tens else f"{hours} h"


class RemainingTime:
    """A steady estimate of what is left, from the pace of the network alone: what comes before it goes at another pace."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._end_s: float | None = None

    def add(self, fraction: float, at_s: float) -> None:
        """The run is at ``fraction`` (0 to 1) ``at_s`` seconds after its start."""
        if fraction < FIRST_FRACTION:
            return
        if self._first is None:
            self._first = fraction, at_s
            return
        done, took_s = fraction - self._first[0], at_s - self._first[1]
        if done >= LEAST_FRACTION and took_s >= LEAST_S:
            self._end_s = at_s + took_s / done * (1 - fraction)

    def at(self, at_s: float) -> float | None:
        """Seconds left; ``None`` as long as nobody can tell. Between two reports they count down."""
        return None if self._end_s is None else max(0.0, self._end_s - at_s)
