"""Where the first network marks something in the training cases: lesions, and what it takes for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.data.cache import Case, CaseEntry, load_case
from NLSTSegLib.inference.candidates import Candidate, find_candidates
from NLSTSegLib.inference.devices import choose_device
from NLSTSegLib.inference.predict import predict_first
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.progress import silent


@dataclass(frozen=True)
class Place:
    """The middle of a candidate in a case."""

    case_id: str
    centre_kji: tuple[int, int, int]
    lesion: int
    """Label of the lesion that it lies on; 0 where no reader marked anything."""


@dataclass(frozen=True)
class Places:
    """All candidates of the cases, in the order of these."""

    format: int
    weights_sha256: str
    """Of the model that marks them."""
    cases_sha256: str
    places: tuple[Place, ...]


def find_places(
    model: Model, threshold: float, cache: Path, entries: Sequence[CaseEntry], progress: Callable[[float], None]
) -> tuple[Place, ...]:
    """The candidates of the first network of ``model`` in the cases."""
    found: list[Place] = []
    for n, entry in enumerate(entries):
        for candidate, label in candidates_of(model, threshold, load_case(cache, entry.id), entry):
            found.append(Place(entry.id, candidate.centre_kji, label))
        progress((n + 1) / len(entries))
    return tuple(found)


def candidates_of(model: Model, threshold: float, case: Case, entry: CaseEntry) -> list[tuple[Candidate, int]]:
    """The candidates in a case, each with the label of the lesion that it lies on, or 0.

    Those that only a minority of readers marked are neither, and left out; so are unmarked ones in chests where not every
    lesion is marked.
    """
    probability, _ = predict_first(choose_device(), case.ct, model, case.lungs, threshold, silent)
    found = []
    for candidate in find_candidates(probability, threshold, case.lungs):
        labels = case.labels[candidate.box][candidate.mask]
        label = int(np.bincount(labels[labels > 0]).argmax()) if labels.any() else 0
        doubtful = case.target[candidate.box][candidate.mask].any() or (entry.kind == "chest" and not entry.complete)
        if label or not doubtful:
            found.append((candidate, label))
    return found
