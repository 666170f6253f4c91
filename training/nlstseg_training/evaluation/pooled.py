"""From the records of the cases to the figures of a model: pooled, by lesion diameter and by type, with intervals by patient."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nlstseg_training.evaluation.metrics import published_protocol
from nlstseg_training.evaluation.metrics.bootstrap import Estimate, draw_patients, estimate, estimate_ratio
from nlstseg_training.evaluation.metrics.froc import RATES, Froc, Scan
from nlstseg_training.evaluation.metrics.matching import Detection
from nlstseg_training.evaluation.metrics.overlap import VoxelCounts
from nlstseg_training.evaluation.metrics.volumes import bland_altman, percent_differences, quartiles, volume_errors
from nlstseg_training.evaluation.records import CaseRecord, LesionRecord

DIAMETERS_MM = (0.0, 6.0, 10.0, 20.0, math.inf)
"""Lesions are reported between these, by the diameter of the sphere of their volume; the lower one is included."""

KIND_NAMES = {"tumour": "tumour", "nodule": "nodule", "": "type not stated"}

BAND_RATES = tuple(float(rate) for rate in np.geomspace(RATES[0], RATES[-1], 25))
"""Where the interval of the FROC is drawn."""

MOST_POINTS = 400
"""Points of a curve in the report at most; those between are left out."""


Lesions = list[tuple[CaseRecord, LesionRecord]]
"""Lesions, each with the case it lies in."""


class Pool:
    """The records of a set of cases, and the resamples of their patients."""

    def __init__(self, records: Sequence[CaseRecord]):
        self.records = list(records)
        self._patients = {patient: n for n, patient in enumerate(sorted({record.patient for record in records}))}
        self.draws = draw_patients(len(self._patients))

    def patient_of(self, record: CaseRecord) -> int:
        """Number of its patient."""
        return self._patients[record.patient]

    def ratio(self, parts: Iterable[tuple[CaseRecord, float, float]]) -> Estimate:
        """Sum of the second over sum of the third."""
        sums = np.zeros((2, len(self._patients)))
        for record, part, whole in parts:
            sums[:, self.patient_of(record)] += part, whole
        return estimate_ratio(sums[0], sums[1], self.draws)

    def mean(self, values: Iterable[tuple[CaseRecord, float | None]]) -> Estimate:
        """Mean of what is defined."""
        return self.ratio((record, value, 1) for record, value in values if value is not None)

    def median(self, values: Sequence[tuple[CaseRecord, float]]) -> Estimate:
        """Median; no interval where all values are of one patient."""
        owners = np.array([self.patient_of(record) for record, _ in values], int)
        numbers = np.array([value for _, value in values], float)

        def of(weights: np.ndarray) -> float:
            repeated = np.repeat(numbers, weights[owners])
            return float(np.median(repeated)) if repeated.size else math.nan

        return estimate(of, self.draws if len(set(owners.tolist())) > 1 else self.draws[:0])


def pooled_figures(records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Every pooled figure, as plain values (NaN where one is not defined)."""
    pool = Pool(records)
    lesions = [(record, lesion) for record in records for lesion in record.lesions]
    return {
        "overlap": [overlap_row(pool, name, part) for name, part in _by_case_kind(records)],
        "detection": {rule: detection(pool, rule) for rule in ("lenient", "strict")},
        "all_lesions": group_row(pool, "all", lesions),
        "by_diameter": [group_row(pool, name, part) for name, part in _by_diameter(lesions)],
        "by_type": [group_row(pool, name, part) for name, part in _by_type(lesions)],
        "froc": froc_figures(records),
        "volume": volume_figures(lesions),
        "published_protocol": published_figures(pool),
    }


def overlap_row(pool: Pool, name: str, records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Overlap per case; cases in which both masks are empty are left out and counted."""
    row: dict[str, Any] = {
        "cases": name,
        "number": len(records),
        "both_empty": sum(record.dice is None for record in records),
        "one_empty": sum(record.dice == 0 and _one_is_empty(record.voxels) for record in records),
    }
    for metric in ("dice", "iou", "nsd_1mm", "nsd_2mm", "hd95_mm", "assd_mm"):
        values = [(record, getattr(record, metric)) for record in records]
        defined = np.array([value for _, value in values if value is not None])
        row[metric] = {**dataclasses.asdict(pool.mean(values)), "quartiles": quartiles(defined)}
    for metric in ("precision", "recall", "iou"):
        counts = [(record, *_voxel_share(record.voxels, metric)) for record in records]
        row[f"pooled_voxel_{metric}"] = dataclasses.asdict(pool.ratio(counts))
    return row


def detection(pool: Pool, rule: str) -> dict[str, Any]:
    """Lesions found and marks outside the annotation by the ``"lenient"`` or the ``"strict"`` rule, pooled over the cases."""
    counts = [(record, _detection(record, rule)) for record in pool.records]
    total = Detection(*(sum(getattr(each, field) for _, each in counts) for field in ("lesions", "found", "outside")))
    return {
        **dataclasses.asdict(total),
        "marks": sum(len(record.marks) for record in pool.records),
        "outside_per_case": dataclasses.asdict(pool.mean((record, each.outside) for record, each in counts)),
        "sensitivity": dataclasses.asdict(pool.ratio((record, each.found, each.lesions) for record, each in counts)),
        "ppv": dataclasses.asdict(pool.ratio((record, each.found, each.found + each.outside) for record, each in counts)),
        "f1": dataclasses.asdict(
            pool.ratio((record, 2 * each.found, each.found + each.outside + each.lesions) for record, each in counts)
        ),
    }


def group_row(pool: Pool, name: str, lesions: Lesions) -> dict[str, Any]:
    """Detection, overlap and volume of one group of lesions."""
    found = [(record, lesion) for record, lesion in lesions if lesion.found]
    predicted, reference = _volumes_mm3(found)
    errors = volume_errors(predicted, reference)
    owners = [record for record, _ in found]
    return {
        "lesions": name,
        "number": len(lesions),
        "found": len(found),
        "found_strictly": sum(lesion.found_strictly for _, lesion in lesions),
        "sensitivity": dataclasses.asdict(pool.mean((record, lesion.found) for record, lesion in lesions)),
        "sensitivity_strict": dataclasses.asdict(pool.mean((record, lesion.found_strictly) for record, lesion in lesions)),
        "dice_found": dataclasses.asdict(pool.mean((record, lesion.dice) for record, lesion in found)),
        "dice_all": dataclasses.asdict(pool.mean((record, lesion.dice) for record, lesion in lesions)),
        "volume_error": _median_row(pool, owners, errors),
        "absolute_volume_error": _median_row(pool, owners, np.abs(errors)),
    }


def froc_figures(records: Sequence[CaseRecord]) -> dict[str, Any]:
    """The FROC of the whole chests; where there are none, of all cases, whose marks per case mean less."""
    chests = [record for record in records if record.kind == "chest"]
    used = chests or list(records)
    pool = Pool(used)
    scans = [
        Scan(
            tuple(lesion.froc_score for lesion in record.lesions),
            tuple(mark.score for mark in record.marks if mark.hits_nothing),
        )
        for record in used
    ]
    froc = Froc(scans, [pool.patient_of(record) for record in used])
    curve = froc.curve()
    shown = np.unique(np.linspace(0, len(curve.scores) - 1, MOST_POINTS).round().astype(int))
    *at_rates, cpm = froc.estimates(RATES, pool.draws)
    return {
        "scans": len(used),
        "scan": "chest" if chests else "case",
        "lesions": sum(len(record.lesions) for record in used),
        "candidates_hit_nothing": sum(len(scan.outside_scores) for scan in scans),
        "cpm": dataclasses.asdict(cpm),
        "sensitivity": [
            {"outside_per_scan": rate, **dataclasses.asdict(each)} for rate, each in zip(RATES, at_rates, strict=True)
        ],
        "band": [
            {"outside_per_scan": rate, **dataclasses.asdict(each)}
            for rate, each in zip(BAND_RATES, froc.estimates(BAND_RATES, pool.draws), strict=False)
        ],
        "curve": {
            "score": curve.scores[shown].tolist(),
            "outside_per_scan": curve.outside_per_scan[shown].tolist(),
            "sensitivity": curve.sensitivity[shown].tolist(),
        },
    }


def volume_figures(lesions: Lesions) -> dict[str, Any]:
    """Bland-Altman of the volumes of the found lesions, in per cent of the mean of both and in mm3."""
    predicted, reference = _volumes_mm3([(record, lesion) for record, lesion in lesions if lesion.found])
    return {
        "percent_of_mean": dataclasses.asdict(bland_altman(percent_differences(predicted, reference))),
        "mm3": dataclasses.asdict(bland_altman(predicted - reference)),
    }


def published_figures(pool: Pool) -> dict[str, Any]:
    """The IoU of the published protocol, to be read beside the published 0.42 and for nothing else."""
    ordered = sorted(pool.records, key=lambda record: record.id)
    protocol = published_protocol.PublishedProtocol([(record.slices, record.tumour_slices) for record in ordered])
    owners = np.array([pool.patient_of(record) for record in ordered], int)
    return {
        "iou": dataclasses.asdict(estimate(lambda weights: protocol.iou(weights[owners]), pool.draws)),
        "slices_counted": sum(len(record.tumour_slices) for record in ordered),
        "slices_left_out": sum(record.slices - len(record.tumour_slices) for record in ordered),
        "published_iou": published_protocol.PUBLISHED_IOU,
    }


def _detection(record: CaseRecord, rule: str) -> Detection:
    if rule == "lenient":
        return Detection(
            len(record.lesions), sum(lesion.found for lesion in record.lesions), sum(mark.outside for mark in record.marks)
        )
    return Detection(
        len(record.lesions),
        sum(lesion.found_strictly for lesion in record.lesions),
        sum(mark.outside_strictly for mark in record.marks),
    )


def _voxel_share(voxels: VoxelCounts, metric: str) -> tuple[int, int]:
    wrong = {
        "precision": voxels.false_positive,
        "recall": voxels.false_negative,
        "iou": voxels.false_positive + voxels.false_negative,
    }
    return voxels.true_positive, voxels.true_positive + wrong[metric]


def _one_is_empty(voxels: VoxelCounts) -> bool:
    return 0 in (voxels.true_positive + voxels.false_positive, voxels.true_positive + voxels.false_negative)


def _median_row(pool: Pool, owners: Sequence[CaseRecord], values: np.ndarray) -> dict[str, Any]:
    paired = list(zip(owners, values.tolist(), strict=True))
    return {**dataclasses.asdict(pool.median(paired)), "quartiles": quartiles(values)}


def _volumes_mm3(lesions: Lesions) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and reference."""
    volumes = np.array([(lesion.matched_volume_mm3, lesion.volume_mm3) for _, lesion in lesions], float).reshape(-1, 2)
    return volumes[:, 0], volumes[:, 1]


def _by_case_kind(records: Sequence[CaseRecord]) -> list[tuple[str, list[CaseRecord]]]:
    kinds = sorted({record.kind for record in records})
    groups = [("all", list(records))]
    if len(kinds) > 1:
        groups += [(kind, [record for record in records if record.kind == kind]) for kind in kinds]
    return groups


def _by_diameter(lesions: Lesions) -> list[tuple[str, Lesions]]:
    groups = []
    for low, high in itertools.pairwise(DIAMETERS_MM):
        name = f"< {high:g} mm" if not low else f"{low:g}-{high:g} mm" if high < math.inf else f"> {low:g} mm"
        groups.append((name, [pair for pair in lesions if low <= pair[1].diameter_mm < high]))
    return groups


def _by_type(lesions: Lesions) -> list[tuple[str, Lesions]]:
    return [(name, part) for kind, name in KIND_NAMES.items() if (part := [pair for pair in lesions if pair[1].kind == kind])]
