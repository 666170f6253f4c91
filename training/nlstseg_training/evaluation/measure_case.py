"""All figures of one case at one threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nlstseg_training.data.cache import Case, CaseEntry
from nlstseg_training.evaluation.metrics.froc import CandidateHits, match_candidates
from nlstseg_training.evaluation.metrics.matching import match_lenient, match_strict, shared_voxels, union_of_matches
from nlstseg_training.evaluation.metrics.overlap import count_voxels
from nlstseg_training.evaluation.metrics.published_protocol import slices_with_tumour
from nlstseg_training.evaluation.metrics.surfaces import SurfaceDistances, surface_distances
from nlstseg_training.evaluation.predictions import Prediction
from nlstseg_training.evaluation.records import CaseRecord, LesionRecord, MarkRecord
from NLSTSegLib.lesions.find import Lesion, find_lesions, label_map
from NLSTSegLib.lesions.measure import sphere_diameter_mm


def measure_case(
    case: Case,
    entry: CaseEntry,
    prediction: Prediction,
    lung_mask: np.ndarray | None,
    *,
    threshold: float,
    min_volume_mm3: float,
    surfaces: bool = True,
) -> CaseRecord:
    """Compare what ``segment`` would mark at ``threshold`` with the reference of ``case``.

    ``lung_mask`` is the lung field of :func:`.predictions.field_of`. Without ``surfaces`` their distances, which take longest,
    are left out.
    """
    marks = find_lesions(prediction.probability, case.ct, threshold=threshold, min_volume_mm3=min_volume_mm3, lung_mask=lung_mask)
    predicted = label_map(marks, case.labels.shape)
    reference, is_marked = case.labels > 0, predicted > 0
    voxels = count_voxels(reference, is_marked)
    distances = SurfaceDistances((math.nan, math.nan), math.nan, math.nan)
    if surfaces:
        distances = surface_distances(reference, is_marked, case.ct.spacing_ijk_mm[::-1])

    shared = shared_voxels(case.labels, predicted)
    lenient, strict = match_lenient(shared), match_strict(shared)
    union_voxels, dice = union_of_matches(shared)
    labels, volumes_mm3, candidates = _candidates(case, marks)
    kinds = {lesion.label: lesion.kind for lesion in entry.lesions}
    return CaseRecord(
        id=case.id,
        patient=case.patient,
        kind=entry.kind,
        complete=entry.complete,
        findings=prediction.findings,
        threshold=threshold,
        voxels=voxels,
        dice=_defined(voxels.dice),
        iou=_defined(voxels.iou),
        nsd_1mm=_defined(distances.nsd[0]),
        nsd_2mm=_defined(distances.nsd[1]),
        hd95_mm=_defined(distances.hd95_mm),
        assd_mm=_defined(distances.assd_mm),
        lesions=tuple(
            LesionRecord(
                label=label,
                kind=kinds.get(label, ""),
                volume_mm3=float(volumes_mm3[n]),
                diameter_mm=sphere_diameter_mm(volumes_mm3[n]),
                found=bool(lenient.found[label - 1]),
                found_strictly=bool(strict.found[label - 1]),
                dice=float(dice[label - 1]),
                matched_volume_mm3=float(union_voxels[label - 1] * case.ct.voxel_volume_mm3),
                froc_score=float(candidates.lesion_scores[n]),
            )
            for n, label in enumerate(labels.tolist())
        ),
        marks=tuple(
            MarkRecord(
                label=mark.label,
                volume_mm3=mark.measurements.volume_mm3,
                score=_highest(mark),
                outside=bool(lenient.outside[n]),
                outside_strictly=bool(strict.outside[n]),
                hits_nothing=bool(candidates.outside[n]),
            )
            for n, mark in enumerate(marks)
        ),
        slices=len(case.labels),
        tumour_slices=slices_with_tumour(prediction.probability, reference),
    )


def _candidates(case: Case, marks: Sequence[Lesion]) -> tuple[np.ndarray, np.ndarray, CandidateHits]:
    """Label values that the reference has, their volumes, and which marks hit them by the rule of the FROC."""
    where = np.array(case.labels.nonzero())
    labels, lesion_of, voxels = np.unique(case.labels[tuple(where)], return_inverse=True, return_counts=True)
    sums = [np.bincount(lesion_of, weights=axis, minlength=len(labels)) for axis in where]
    centres_kji = np.stack(sums, axis=1) / voxels[:, None]
    volumes_mm3 = voxels * case.ct.voxel_volume_mm3
    candidates = match_candidates(
        case.labels,
        np.array([_centre_kji(mark) for mark in marks]).reshape(-1, 3),
        np.array([_highest(mark) for mark in marks]),
        labels,
        centres_kji,
        volumes_mm3,
        case.ct.spacing_ijk_mm[::-1],
    )
    return labels, volumes_mm3, candidates


def _centre_kji(mark: Lesion) -> np.ndarray:
    return np.array(mark.mask.nonzero()).mean(axis=1) + [part.start for part in mark.box]


def _highest(mark: Lesion) -> float:
    return int(mark.probability[mark.mask].max()) / 255


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
