"""How work reports how far it is, and is stopped."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the done fraction (0..1) and the name of the stage; it stops the work by raising."""

Fraction = Callable[[float], None]
"""Called with the done fraction (0..1) of one stage; it stops the work by raising."""


def silent(fraction: float, stage: str) -> None:
    """A :data:`Progress` that shows nothing."""


def stage_of(progress: Progress, stage: str, start: float, stop: float) -> Fraction:
    """Progress of one stage of a larger job: its own 0..1 become ``start..stop`` of the whole."""
    return part_of(lambda fraction: progress(fraction, stage), start, stop)


def part_of(progress: Fraction, start: float, stop: float) -> Fraction:
    """Progress of a part of a stage: its own 0..1 become ``start..stop`` of the stage."""
    return lambda fraction: progress(start + (stop - start) * fraction)
