"""How long a run takes on this computer: measured before the first one, corrected by every real one, and what is left."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib import __version__
from NLSTSegLib.devices import DeviceChoice
from NLSTSegLib.errors import ModelError
from NLSTSegLib.volume import CtVolume

if TYPE_CHECKING:
    from NLSTSegLib.child_run import RunOptions

SLICE_PIXELS = 512 * 512
"""Times are those of a slice with as many pixels; others take longer or shorter by their pixels."""

MEASURED_SLICES = 2
"""Slices whose time is taken after one to warm up."""

SEARCHED_SHARE = 0.45
"""What a slice of a chest costs of one that is searched whole: the network sees 0.36 of its pixels, and reading, the lungs
and writing come on top."""

LEAST_SLICES = 20
"""A smaller CT tells nothing about the time of a slice: what is spent once is most of its time."""

NEW_SHARE = 0.5
"""Weight of the last real run against what was known before."""

FIRST_FRACTION, LEAST_FRACTION, LEAST_S = 0.1, 0.05, 1.0
"""Remaining time is told after the network has begun, has done this much of the whole and has run as long."""


@dataclass(frozen=True)
class RunTime:
    """Seconds to start, and seconds per slice of :data:`SLICE_PIXELS`."""

    start_s: float
    slice_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.start_s < 1e5 and 0 < self.slice_s < 1e5):
            raise ValueError(f"{self.start_s} s and {self.slice_s} s a slice are no times of a run")

    def estimate_s(self, size_ijk: tuple[int, ...]) -> float:
        """Seconds that a run of a CT with these voxels takes."""
        return self.start_s + self.slice_s * _slices(size_ijk)

    def as_text(self) -> str:
        """For settings; :func:`run_time_of_text` reads it."""
        return json.dumps(asdict(self))


def run_time_of_text(text: str) -> RunTime | None:
    """What :meth:`RunTime.as_text` wrote, or the command ``nlstseg time`` printed; ``None`` for anything else."""
    try:
        return RunTime(**json.loads(text))
    except (ValueError, TypeError):
        return None


def time_key(options: RunOptions) -> str:
    """Under which the time of such runs is kept in settings; it also tells the versions of the program apart."""
    what = (__version__, options.model, options.device, options.threads, options.lung_field)
    return f"RunTime/{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}"


def expected(measured: RunTime, options: RunOptions) -> RunTime:
    """The time of a real run from what :func:`measure_run_time` gave."""
    share = SEARCHED_SHARE if options.lung_field == "auto" else 1.0
    return RunTime(measured.start_s, measured.slice_s * share)


def refined(before: RunTime | None, elapsed_s: float, stages_s: float, size_ijk: tuple[int, ...]) -> RunTime | None:
    """What is known after a run of ``elapsed_s`` from start to end, of which the report's stages took ``stages_s``."""
    if _slices(size_ijk) < LEAST_SLICES:
        return before
    now = RunTime(max(0.0, elapsed_s - stages_s), max(1e-6, stages_s / _slices(size_ijk)))
    if before is None:
        return now
    return RunTime(
        NEW_SHARE * now.start_s + (1 - NEW_SHARE) * before.start_s,
        NEW_SHARE * now.slice_s + (1 - NEW_SHARE) * before.slice_s,
    )


def _slices(size_ijk: tuple[int, ...]) -> float:
    return float(np.prod(size_ijk)) / SLICE_PIXELS


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


def measure_run_time(model_name: str, device: DeviceChoice, threads: int | None = None) -> RunTime:
    """Time ``segment`` on slices of made-up tissue, searched whole; what Python itself takes to start is left out.

    Raises :class:`ModelError` and :class:`InputError` as a run does.
    """
    import time

    start = time.perf_counter()
    from NLSTSegLib.models import find_model, load_model
    from NLSTSegLib.pipeline import SegmentOptions, segment

    files = find_model(model_name)
    if files.card.architecture.dimensions == 3:
        raise ModelError(f"the time of the 3D network '{files.card.name}' is not told by single slices; run it once")
    model = load_model(files)
    options = SegmentOptions(lung_field="none", device=device, threads=threads)
    hu = np.random.default_rng(0).integers(-1000, 200, (1 + MEASURED_SLICES, 512, 512), dtype=np.int16)
    loaded = time.perf_counter()
    segment(CtVolume(hu[:1], (0.7, 0.7, 2.0)), model, options)
    warm = time.perf_counter()
    segment(CtVolume(hu[1:], (0.7, 0.7, 2.0)), model, options)
    slice_s = (time.perf_counter() - warm) / MEASURED_SLICES
    # What the first slice takes longer is spent once in a run.
    return RunTime(round(loaded - start + max(0.0, warm - loaded - slice_s), 3), round(slice_s, 6))


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
