"""From the second network's numbers to probabilities: Platt's scaling on the validation cases, and the threshold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from nlstseg_training.cases import CaseEntry, load_case
from nlstseg_training.second_look.places import candidates_of
from nlstseg_training.second_look.recipe import SecondLookRecipe
from NLSTSegLib.devices import choose_device
from NLSTSegLib.errors import InputError
from NLSTSegLib.models import Model
from NLSTSegLib.networks.second_look import SecondLookNet, fold_second_look
from NLSTSegLib.second_look import SecondLook, judge, score

LESIONS_PER_CHEST = 1.5
"""Assumed where the lesions come from crops: roughly the nodules of LIDC-IDRI that two or more of four readers marked, for
each of its chests (Armato et al., Med Phys 2011)."""

KEPT_SHARE = 0.97
"""Of the validation lesions that the first network finds, so many are above the threshold."""


THRESHOLD_RANGE = (0.02, 0.9)
"""Where nearly all lesions, or nearly none, are told apart."""

SCORES = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Scored:
    """A candidate of a validation case."""

    case_id: str
    kind: str
    logit: float
    is_lesion: bool
    diameter_mm: float
    """Of the lesion; 0 where there is none."""


def score_candidates(
    network: SecondLookNet,
    recipe: SecondLookRecipe,
    first: Model,
    cache: Path,
    entries: Sequence[CaseEntry],
    progress: Callable[[float], None],
) -> list[Scored]:
    """What the second network says of each candidate of the first in the cases."""
    device = choose_device("cpu")
    folded = device.place(fold_second_look(copy.deepcopy(network).eval()), 3)
    found = []
    for n, entry in enumerate(entries):
        case = load_case(cache, entry.id)
        candidates = candidates_of(first, recipe.candidate_threshold, case, entry)
        labels = {id(candidate): label for candidate, label in candidates}
        diameters = {lesion.label: lesion.diameter_mm for lesion in entry.lesions}
        judged = judge(folded, recipe.window_hu, case.ct, [each for each, _ in candidates], dtype=device.dtype)
        for candidate, look in judged:
            label = labels[id(candidate)]
            found.append(Scored(entry.id, entry.kind, look.logit, label > 0, diameters.get(label, 0.0)))
        progress((n + 1) / len(entries))
    return found


def calibrated(scored: Sequence[Scored], recipe: SecondLookRecipe) -> tuple[SecondLook, float]:
    """The card's entry and its threshold, which lets :data:`KEPT_SHARE` of the lesions through.

    Raises :class:`InputError` when the validation cases have no lesion, or no chest with something wrongly marked.
    """
    weights = weights_of(scored)
    lesions = [each.logit for each, weight in zip(scored, weights, strict=True) if each.is_lesion and weight]
    if not lesions or len(lesions) == np.count_nonzero(weights):
        raise InputError("the validation part needs lesions and a whole chest with wrong marks to set scores by; split again")
    logits, is_lesion = np.array([each.logit for each in scored]), np.array([each.is_lesion for each in scored])
    slope, shift = platt(logits, is_lesion, weights)
    least = float(np.quantile(lesions, 1 - KEPT_SHARE))
    spec = SecondLook(
        channels=recipe.channels,
        window_hu=recipe.window_hu,
        candidate_threshold=recipe.candidate_threshold,
        outline_threshold=recipe.outline_threshold,
        score_slope=round(slope, 4),
        score_shift=round(shift, 4),
    )
    return spec, round(float(np.clip(score(least, spec), *THRESHOLD_RANGE)), 3)


def weights_of(scored: Sequence[Scored]) -> np.ndarray:
    """For how many candidates of chests each stands.

    Counted are those of chests. Lesions of crops, which are more, stand for :data:`LESIONS_PER_CHEST` in each chest; what is
    wrongly marked in a crop says nothing about a chest.
    """
    chests = len({each.case_id for each in scored if each.kind == "chest"})
    in_crops = sum(each.is_lesion and each.kind == "crop" for each in scored)
    share = LESIONS_PER_CHEST * max(chests, 1) / max(in_crops, 1)
    return np.array([share * each.is_lesion if each.kind == "crop" else float(each.kind == "chest") for each in scored])


def calibration_curve(scored: Sequence[Scored], spec: SecondLook) -> dict[str, dict[str, float]]:
    """By fifth of the score: how many candidates of a chest (:func:`weights_of`), and which share of them are lesions."""
    weights = weights_of(scored)
    scores = np.array([score(each.logit, spec) for each in scored])
    lesions = np.array([each.is_lesion for each in scored])
    curve = {}
    for low in SCORES:
        inside = (scores >= low) & (scores < low + 0.2 + (low == SCORES[-1]))
        count = float(weights[inside].sum())
        if count:
            share = float(weights[inside & lesions].sum()) / count
            curve[f"score {low:g}-{low + 0.2:g}"] = {"candidates": round(count, 2), "share_of_lesions": round(share, 2)}
    return curve


def platt(logits: np.ndarray, is_lesion: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the logistic curve of least weighted cross entropy (Platt 1999), the slope above 0."""
    x, y, w = (torch.from_numpy(each.astype(np.float64)) for each in (logits, is_lesion, weights))
    values = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        # The exponential keeps the slope above 0; a little pull to 1 keeps it finite where both are apart.
        result = functional.binary_cross_entropy_with_logits(values[0].exp() * x + values[1], y, w, reduction="sum")
        result = result + 0.05 * values[0] ** 2
        result.backward()
        return result

    optimizer.step(loss)
    slope, shift = values.detach()
    return float(slope.exp()), float(shift)
