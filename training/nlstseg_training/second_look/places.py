"""Where the first network marks something in the training cases: lesions, and what it takes for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.cases import CaseEntry, load_case
from NLSTSegLib.candidates import find_candidates
from NLSTSegLib.devices import choose_device
from NLSTSegLib.models import Model
from NLSTSegLib.pipeline import first_look
from NLSTSegLib.progress import silent


@dataclass(frozen=True)
class Place:
    """A candidate in a case."""

    case_id: str
    centre_kji: tuple[int, int, int]
    lesion: int
    """Label of the lesion that it lies on; 0 where no reader marked anything."""


@dataclass(frozen=True)
class Places:
    """All candidates of the cases, in order of their ids."""

    places: tuple[Place, ...]


def find_places(
    model: Model, threshold: float, cache: Path, entries: Sequence[CaseEntry], progress: Callable[[float], None]
) -> Places:
    """The candidates of ``model`` in the cases. Those that only a minority of readers marked are neither, and left out;
    so are unmarked ones in chests where not every lesion is marked, unless they are background looked through for lesions."""
    device = choose_device()
    found: list[Place] = []
    for n, entry in enumerate(entries):
        case = load_case(cache, entry.id)
        probability, _ = first_look(device, case.ct, model, case.lungs, threshold, silent)
        for candidate in find_candidates(probability, threshold, case.lungs):
            labels = case.labels[candidate.box][candidate.mask]
            label = int(np.bincount(labels[labels > 0]).argmax()) if labels.any() else 0
            marked = case.target[candidate.box][candidate.mask].any()
            if not label and (marked or (entry.kind == "chest" and not entry.complete)):
                continue
            found.append(Place(entry.id, candidate.centre_kji, label))
        progress((n + 1) / len(entries))
    return Places(tuple(found))
