"""What a cache holds, in the numbers that decide about a network: spacings, sizes, lesions, their HU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.data.arrays import ENDING, open_array
from nlstseg_training.data.cache import CaseEntry, Manifest, by_id
from nlstseg_training.data.case_files import LESION_PLACES_FILE
from NLSTSegLib.errors import InputError

MOST_CASES = 120
"""Most cases of which HU are read; drawn over all."""

Quantiles = tuple[float, float, float]
"""5th, 50th and 95th percentile."""


@dataclass(frozen=True)
class Fingerprint:
    """Facts about the cases of a cache."""

    cases: int
    chests: int
    lesions: int
    spacing_kji_mm: tuple[Quantiles, Quantiles, Quantiles]
    size_kji: tuple[Quantiles, Quantiles, Quantiles]
    diameter_mm: Quantiles
    """Diameter of the spheres of the lesions' volumes."""
    lesion_hu: Quantiles
    """HU of the voxels of the lesions; NaN where only crops are marked."""
    incomplete: int
    """Cases in which not every lesion is annotated."""


def fingerprint(cache: Path, manifest: Manifest) -> Fingerprint:
    """Raises :class:`InputError` without a lesion, or for a case that cannot be read."""
    entries = manifest.cases
    diameters = [lesion.diameter_mm for entry in entries for lesion in entry.lesions]
    if not diameters:
        raise InputError(f"no case in '{cache}' has a lesion, so there is nothing to plan a training for; prepare other data")
    marked = [entry for entry in entries if entry.lesions and entry.kind != "crop"]
    if len(marked) > MOST_CASES:
        chosen = np.random.default_rng(0).choice(len(marked), MOST_CASES, replace=False)
        marked = list(by_id(marked[n] for n in chosen))
    hu = np.concatenate([np.zeros(0), *(_lesion_hu(cache, entry) for entry in marked)])
    return Fingerprint(
        cases=len(entries),
        chests=sum(entry.kind == "chest" for entry in entries),
        lesions=len(diameters),
        spacing_kji_mm=_by_axis([entry.spacing_kji_mm for entry in entries]),
        size_kji=_by_axis([entry.shape_kji for entry in entries]),
        diameter_mm=_quantiles(np.array(diameters)),
        lesion_hu=_quantiles(hu) if hu.size else (float("nan"),) * 3,
        incomplete=sum(not entry.complete for entry in entries),
    )


def _lesion_hu(cache: Path, entry: CaseEntry) -> np.ndarray:
    """HU of drawn voxels of its lesions; of each as many, whatever its size, where it has so many."""
    folder = cache / entry.id
    places = np.load(folder / LESION_PLACES_FILE)
    ct = open_array(folder / f"ct{ENDING}")
    found = []
    for label in np.unique(places[:, 0]):
        kji = places[places[:, 0] == label, 1:].astype(int)
        low, high = kji.min(axis=0), kji.max(axis=0) + 1
        box = ct[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        found.append(box[tuple((kji - low).T)][:: max(1, len(kji) // 500)].astype(float))
    return np.concatenate([np.zeros(0), *found])


def _quantiles(values: np.ndarray) -> Quantiles:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return float(low), float(middle), float(high)


def _by_axis(rows: list[tuple[float, float, float]] | list[tuple[int, int, int]]) -> tuple[Quantiles, Quantiles, Quantiles]:
    k, j, i = (_quantiles(np.array(column, float)) for column in zip(*rows, strict=True))
    return k, j, i
