"""Where the first network marks something in the training cases: lesions, and what it takes for them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.data.cache import Case, CaseEntry, load_case
from nlstseg_training.refinement.variants import downsampled_case
from NLSTSegLib.inference.candidates import LEAST_VOXELS, Candidate, cut_out, find_candidates, slice_step
from NLSTSegLib.inference.devices import choose_device
from NLSTSegLib.inference.low_resolution import can_be_downsampled, least_voxels
from NLSTSegLib.inference.predict import predict_first
from NLSTSegLib.inference.refinement import network_input
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.networks.network import fold_batch_norm
from NLSTSegLib.networks.refinement import RefinementNet

PARTS_THRESHOLDS = (0.3, 0.6, 0.9)
"""Thresholds at half the resolution, where heart, aorta and hila are one candidate: its parts above these are candidates too."""

SCORED_SIZES = ((16, 48, 48), (24, 96, 96))
"""Slices, rows and columns of the cut-outs that a place is scored in."""

DOUBTFUL_SHARE = 0.05
"""A heart of which less is a nodule that one reader saw beside it is a heart all the same."""


@dataclass(frozen=True)
class LabelledCandidate:
    """The middle of a candidate in a case."""

    case_id: str
    centre_kji: tuple[int, int, int]
    lesion: int
    """Label of the lesion that it lies on; 0 where no reader marked anything."""
    downsampled: bool = False
    """Whether it counts voxels of the case at half its resolution."""
    logits: tuple[float, float] = (0.0, 0.0)
    """That it is a lesion, by the network that is trained further, in a small and a large cut-out; 0 for a new one."""


@dataclass(frozen=True)
class LabelledCandidates:
    """All candidates of the cases, in the order of these."""

    format: int
    weights_sha256: str
    """Hash of the model that marks them."""
    cases_sha256: str
    places: tuple[LabelledCandidate, ...]


def labelled_candidates(
    model: Model, threshold: float, cache: Path, entries: Sequence[CaseEntry], progress: Callable[[float], None]
) -> tuple[LabelledCandidate, ...]:
    """The candidates of the first network of ``model`` in the cases."""
    found: list[LabelledCandidate] = []
    for n, entry in enumerate(entries):
        case = load_case(cache, entry.id)
        found += [
            LabelledCandidate(entry.id, at.centre_kji, label)
            for at, label in candidates_of(model, (threshold,), case, entry.complete)
        ]
        if entry.kind == "chest" and can_be_downsampled(case.ct):
            thresholds, least = (threshold, *PARTS_THRESHOLDS), least_voxels(case.ct) // 2
            masses = candidates_of(model, thresholds, downsampled_case(case), entry.complete, least)
            found += [LabelledCandidate(entry.id, at.centre_kji, label, downsampled=True) for at, label in masses]
        progress((n + 1) / len(entries))
    return tuple(found)


def with_logits(
    places: Sequence[LabelledCandidate],
    network: RefinementNet,
    window_hu: tuple[float, float],
    cache: Path,
    progress: Callable[[float], None],
) -> tuple[LabelledCandidate, ...]:
    """``places`` with what ``network`` says of each that is no lesion, in cut-outs of both :data:`SCORED_SIZES`."""
    device = choose_device("cpu")
    scorer = device.place(fold_batch_norm(copy.deepcopy(network).eval()), 3)
    scored = list(places)
    wrong = [(place.case_id, place.downsampled, n) for n, place in enumerate(places) if not place.lesion]
    groups = {key: [n for *_, n in group] for key, group in itertools.groupby(sorted(wrong), key=lambda each: each[:2])}
    for done, ((case_id, downsampled), numbers) in enumerate(groups.items(), start=1):
        case = load_case(cache, case_id)
        ct = downsampled_case(case).ct if downsampled else case.ct
        step = slice_step(ct.spacing_ijk_mm[2])
        logits = []
        for size in SCORED_SIZES:
            cuts = [cut_out(ct.hu, places[n].centre_kji, size, step) for n in numbers]
            shown = [
                torch.from_numpy(network_input(cut.values, cut.inside_volume, window_hu))[None].to(device.dtype) for cut in cuts
            ]
            with torch.inference_mode():
                logits.append([float(scorer.encoded(each)[1]) for each in shown])
        for n, small, large in zip(numbers, *logits, strict=True):
            scored[n] = replace(places[n], logits=(round(small, 2), round(large, 2)))
        progress(done / len(groups))
    return tuple(scored)


def candidates_of(
    model: Model, thresholds: Sequence[float], case: Case, complete: bool, least: int = LEAST_VOXELS
) -> list[tuple[Candidate, int]]:
    """The candidates of ``least`` voxels or more in a case, above each threshold (the lowest first); each with the label of the
    lesion that it lies on, or 0.

    Those of which a minority of readers marked :data:`DOUBTFUL_SHARE` are neither, and left out; so are unmarked ones in chests
    where not every lesion is marked (``complete``).
    """
    probability, _ = predict_first(choose_device(), case.ct, model, case.lungs, thresholds[0], lambda _: None)
    found = []
    for candidate in [
        each for least_p in thresholds for each in find_candidates(probability, least_p, case.lungs, least_voxels=least)
    ]:
        labels = case.labels[candidate.box][candidate.mask]
        label = int(np.bincount(labels[labels > 0]).argmax()) if labels.any() else 0
        doubtful = (case.target[candidate.box][candidate.mask] > 0).mean() >= DOUBTFUL_SHARE
        if label or not (doubtful or not complete):
            found.append((candidate, label))
    return found
