"""FROC: how many lesions are found at how many marks outside the annotation per scan.

A candidate is a predicted lesion; its score is the highest probability in it, its place its centre of mass. It hits a
lesion when that place lies in the lesion's mask, or within the radius of the sphere of the lesion's volume around the
lesion's own centre. A lesion has the score of the best candidate that hits it; further ones are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nlstseg_training.evaluation.metrics.bootstrap import Estimate, estimate_each

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Marks outside the annotation per scan at which the sensitivity is read; their mean is the CPM (LUNA16)."""


@dataclass(frozen=True)
class Scan:
    """What a scan adds to the curve."""

    lesion_scores: tuple[float, ...]
    """Score of the best candidate that hits each lesion; 0 for a lesion without one."""
    outside_scores: tuple[float, ...]
    """Score of each candidate that hits no lesion."""


@dataclass(frozen=True, eq=False)
class CandidateHits:
    """Which candidates hit what, in one scan."""

    lesion_scores: np.ndarray
    """float ``[lesions]``, as in :class:`Scan`."""
    outside: np.ndarray
    """bool ``[candidates]``."""


def match_candidates(
    labels: np.ndarray,
    centres_kji: np.ndarray,
    scores: np.ndarray,
    lesions: np.ndarray,
    lesion_centres_kji: np.ndarray,
    lesion_volumes_mm3: np.ndarray,
    spacing_kji_mm: tuple[float, float, float],
) -> CandidateHits:
    """Which candidates hit which lesions.

    ``labels`` is the reference ``[k, j, i]``, ``lesions`` the label values in it; ``centres_kji`` ``[candidates, 3]`` and
    ``lesion_centres_kji`` ``[lesions, 3]`` are centres of mass in voxels, ``scores`` ``[candidates]`` are above 0.
    """
    if not len(scores):
        return CandidateHits(np.zeros(len(lesions)), np.zeros(0, bool))
    # Half up, since numpy's rounding takes halves to the even neighbour.
    nearest = np.floor(centres_kji + 0.5).astype(int)
    inside = labels[tuple(nearest.T)][None, :] == lesions[:, None]
    steps_mm = (centres_kji[None, :, :] - lesion_centres_kji[:, None, :]) * np.array(spacing_kji_mm)
    radius_mm = np.cbrt(3 * lesion_volumes_mm3 / (4 * np.pi))
    hits = inside | (np.linalg.norm(steps_mm, axis=2) <= radius_mm[:, None])
    return CandidateHits(np.where(hits, scores, 0).max(axis=1), ~hits.any(axis=0))


@dataclass(frozen=True, eq=False)
class Curve:
    """Points of the FROC, by falling score: from nothing marked to every candidate."""

    scores: np.ndarray
    """Candidates of this score and more are marked."""
    outside_per_scan: np.ndarray
    sensitivity: np.ndarray


class Froc:
    """The curves of a set of scans in which each patient may count any number of times.

    ``patients`` gives the number, from 0, of each scan's patient.
    """

    def __init__(self, scans: list[Scan], patients: list[int]):
        self._scan_patients = np.array(patients, int)
        lesions = [(score, patient) for scan, patient in zip(scans, patients, strict=True) for score in scan.lesion_scores]
        outside = [(score, patient) for scan, patient in zip(scans, patients, strict=True) for score in scan.outside_scores]
        self._lesion_patients = np.array([patient for _, patient in lesions], int)
        marks = [(score, patient, True) for score, patient in lesions if score > 0]
        marks += [(score, patient, False) for score, patient in outside]
        marks.sort(key=lambda mark: -mark[0])
        self._scores = np.array([mark[0] for mark in marks], float)
        self._mark_patients = np.array([mark[1] for mark in marks], int)
        self._is_hit = np.array([mark[2] for mark in marks], bool)

    def curve(self, weights: np.ndarray | None = None) -> Curve:
        """``weights`` (``[patients]``): how often each counts; once without. NaN sensitivity without lesions."""
        if weights is None:
            weights = np.ones(int(self._scan_patients.max(initial=-1)) + 1, np.int64)
        lesions = weights[self._lesion_patients].sum()
        scans = weights[self._scan_patients].sum()
        counts = weights[self._mark_patients]
        # Marks of one score appear together.
        last = np.append(self._scores[1:] != self._scores[:-1], True)[: len(self._scores)]
        hits = np.append(0, np.cumsum(counts * self._is_hit)[last])
        outside = np.append(0, np.cumsum(counts * ~self._is_hit)[last])
        return Curve(
            np.append(np.inf, self._scores[last]),
            outside / scans if scans else np.full(len(outside), np.nan),
            hits / lesions if lesions else np.full(len(hits), np.nan),
        )

    def sensitivities(self, rates: tuple[float, ...] = RATES, weights: np.ndarray | None = None) -> np.ndarray:
        """The highest sensitivity at no more than each rate of marks outside the annotation per scan.

        That is what some threshold reaches. The evaluation script of LUNA16 and MONAI draw straight lines between the
        points, which gives the same for many scans and a little more for few.
        """
        curve = self.curve(weights)
        # Not curve.outside_per_scan <= rate alone: 0.30000000000000004 is 0.3.
        places = np.searchsorted(curve.outside_per_scan, np.array(rates) * (1 + 1e-9), side="right") - 1
        return curve.sensitivity[places]

    def estimates(self, rates: tuple[float, ...], draws: np.ndarray) -> list[Estimate]:
        """The sensitivity at each rate and last their mean (the CPM, at :data:`RATES`), with intervals over ``draws``."""

        def with_mean(weights: np.ndarray) -> np.ndarray:
            sensitivities = self.sensitivities(rates, weights)
            return np.append(sensitivities, sensitivities.mean())

        return estimate_each(with_mean, draws)
