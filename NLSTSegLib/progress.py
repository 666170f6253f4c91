"""How work reports how far it is, and is stopped."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the done fraction (0..1) and the name of the stage; it stops the work by raising."""


def silent(fraction: float, stage: str) -> None:
    """A :data:`Progress` that shows nothing."""


def stage_of(progress: Progress, stage: str, start: float, stop: float) -> Callable[[float], None]:
    """A callable for one stage of a larger job: its own 0..1 become ``start..stop`` of the whole."""

    def report(fraction: float) -> None:
        progress(start + (stop - start) * fraction, stage)

    return report
