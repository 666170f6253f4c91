"""How long a run takes on this computer: measured before the first one, corrected by every real one, and what is left."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib import __version__
from NLSTSegLib.errors import ModelError
from NLSTSegLib.inference.devices import DeviceRequest, choose_device
from NLSTSegLib.inference.slices import MAXIMUM_WORKERS
from NLSTSegLib.volume.ct import CtVolume

if TYPE_CHECKING:
    from NLSTSegLib.jobs.options import RunOptions

SLICE_PIXELS = 512 * 512
"""Times are those of a slice with as many pixels; others take longer or shorter by their pixels."""

SLICES_WITH_LUNG = 0.85
"""Share of the slices of a chest CT that show lung; the network skips the others."""

LUNGS_PX = ((256, 155), (256, 357), (112, 47))
"""Middles (row, column) and half axes of the two ellipses that stand for lungs: an eighth of a slice of 512 x 512."""

OTHER_STAGES_S = 0.012
"""Seconds a slice for the rest: reading, finding the lungs, measuring and writing, which depend
little on the computer (docs/performance.md)."""

LOOKS = 2.3
"""Factor by which the networks take longer with refinement and low resolution than the first alone, 1.8 and 2.8 in two
chests: what there is to see decides it, so synthetic tissue does not tell (docs/performance.md)."""

SURE = 0.999
"""A threshold that nothing passes: synthetic tissue shows lesions that no chest has."""

LEAST_SLICES = 20
"""A smaller CT tells nothing about the time of a slice: what is spent once is most of its time."""

NEW_SHARE = 0.5
"""Weight of the last real run against what was known before."""


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
        """Text for settings; :func:`run_time_of_text` reads it."""
        return json.dumps(dataclasses.asdict(self))


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


def measure_run_time(model_name: str, device: DeviceRequest, *, everywhere: bool = False) -> RunTime:
    """Time ``segment`` on slices of synthetic tissue, in synthetic lungs or everywhere, and tell from it what a run on a chest
    takes. What Python itself takes to start is left out. Of a refinement network a chest's usual share is taken, :data:`LOOKS`.

    Raises :class:`ModelError` and :class:`InputError` as a run does.
    """
    import time

    start = time.perf_counter()
    from NLSTSegLib.models.bundle import Model, find_model, load_model
    from NLSTSegLib.pipeline import SegmentOptions, segment

    files = find_model(model_name)
    if files.card.architecture.dimensions == 3:
        raise ModelError(f"the time of the 3D network '{files.card.name}' is not told by single slices; run it once")
    model = load_model(files)
    # Two batches on a graphics card, or two slices for each worker: the first to warm up.
    slices = 2 * max(MAXIMUM_WORKERS, choose_device(device.choice, device.threads).most_slices)
    hu = np.random.default_rng(0).integers(-1000, 200, (slices, 512, 512), dtype=np.int16)
    lungs = "none" if everywhere else np.stack([synthetic_lungs()] * slices)
    options = SegmentOptions(threshold=SURE, lung_field=lungs, device=device.choice, threads=device.threads)
    reports: list[tuple[float, float]] = []

    def note(fraction: float, stage: str) -> None:
        if stage == "network":
            reports.append((fraction, time.perf_counter()))

    first = dataclasses.replace(model.card, refinement=None)
    segment(CtVolume(hu, (0.7, 0.7, 2.0)), Model(first, model.network), options, note)
    (begun, _), (last, end_s) = reports[0], reports[-1]
    half, half_s = next(report for report in reports if report[0] >= (begun + last) / 2)
    slice_s = (end_s - half_s) / slices * (last - begun) / (last - half)
    # What the first slices take longer is spent once in a run.
    start_s = max(0.0, end_s - start - slices * slice_s)
    searched = 1.0 if everywhere else SLICES_WITH_LUNG
    looks = 1.0 if model.refinement is None else LOOKS
    return RunTime(round(start_s, 3), round(searched * looks * slice_s + OTHER_STAGES_S, 6))


def synthetic_lungs() -> np.ndarray:
    """bool ``[j, i]`` of 512 x 512 pixels: :data:`LUNGS_PX`."""
    j, i = np.ogrid[:512, :512]
    *middles, (half_j, half_i) = LUNGS_PX
    return np.logical_or.reduce([((j - row) / half_j) ** 2 + ((i - column) / half_i) ** 2 < 1 for row, column in middles])
