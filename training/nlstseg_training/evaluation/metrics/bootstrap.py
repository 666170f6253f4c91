"""Intervals by resampling patients: the cases and lesions of one patient are no independent observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
"""The ends of the 95 % interval of the mean Dice of 121 patients (SD 0.27) lay within 0.003 of each other in 20 sets of draws;
with 1000 draws within 0.009. All figures of 121 cases take eight seconds with it."""

SEED = 0
"""The same resamples every time, so that a report can be had again."""

PERCENTILES = (2.5, 97.5)
"""Ends of the interval among the resamples: 95 % lie between."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; NaN what cannot be told."""

    value: float
    low: float
    high: float


def draw_patients(patients: int) -> np.ndarray:
    """How often each patient is in each resample (drawn with replacement): int64 ``[RESAMPLES, patients]``."""
    if not patients:
        return np.zeros((RESAMPLES, 0), np.int64)
    return np.random.default_rng(SEED).multinomial(patients, np.full(patients, 1 / patients), size=RESAMPLES)


def estimate(statistic: Callable[[np.ndarray], float], draws: np.ndarray) -> Estimate:
    """``statistic(weights)``, where ``weights`` says how often each patient counts: with 1 for each, and over ``draws``.

    Resamples in which it is NaN (none with a lesion of that size, say) are left out. One patient tells nothing of others,
    so then the interval is NaN.
    """
    return estimate_each(lambda weights: np.array([statistic(weights)]), draws)[0]


def estimate_each(statistics: Callable[[np.ndarray], np.ndarray], draws: np.ndarray) -> list[Estimate]:
    """:func:`estimate` of every element of what ``statistics(weights)`` gives, from one set of resamples."""
    values = statistics(np.ones(draws.shape[1], np.int64))
    several = draws.shape[1] > 1
    # Of few patients many resamples are the same.
    different, which = np.unique(draws, axis=0, return_inverse=True) if several else (draws[:0], np.zeros(0, int))
    resampled = np.array([statistics(weights) for weights in different]).reshape(-1, len(values))[which.ravel()]
    return [_with_interval(float(value), column) for value, column in zip(values, resampled.T, strict=True)]


def estimate_ratio(parts: np.ndarray, wholes: np.ndarray, draws: np.ndarray) -> Estimate:
    """The sum of ``parts`` over that of ``wholes`` (each ``[patients]``): a mean, a sensitivity, an F1.

    The same as :func:`estimate` of it, for all resamples at once. No interval where one patient alone adds to ``wholes``.
    """
    value = _ratios(np.sum(parts), np.sum(wholes))
    several = np.count_nonzero(wholes) > 1
    return _with_interval(float(value), _ratios(draws @ parts, draws @ wholes) if several else np.array([]))


def _ratios(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.full(np.shape(wholes), np.nan), where=np.asarray(wholes) > 0)


def _with_interval(value: float, resampled: np.ndarray) -> Estimate:
    resampled = resampled[np.isfinite(resampled)]
    if not resampled.size:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(resampled, PERCENTILES)
    return Estimate(value, float(low), float(high))
