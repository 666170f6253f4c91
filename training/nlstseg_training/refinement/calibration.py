"""From the second network's numbers to probabilities: Platt's scaling on the validation cases, and the threshold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from nlstseg_training.data.cache import CaseEntry, load_case
from nlstseg_training.refinement.candidates import candidates_of
from nlstseg_training.refinement.recipe import RefinementRecipe
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import choose_device
from NLSTSegLib.inference.refinement import score, score_candidates
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.specs import RefinementSpec
from NLSTSegLib.networks.network import fold_batch_norm
from NLSTSegLib.networks.refinement import RefinementNet

KEPT_SHARE, SURE_SHARE = 0.99, 0.85
"""Shares of the validation candidates on lesions that are above the card's threshold, and above the one of which the card
says that a user who wants few wrong marks may take it. A lesion that the first network finds in pieces counts with each."""

THRESHOLD_RANGE = (0.2, 0.9)
"""Range of the card's threshold: marks of which fewer than one in five is a lesion are not shown, whatever share of the lesions
that costs, and outlines fill the range between it and 1."""

SCORES = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Scored:
    """A candidate of a validation case."""

    logit: float
    is_lesion: bool


def scored_candidates(
    network: RefinementNet,
    recipe: RefinementRecipe,
    first: Model,
    cache: Path,
    entries: Sequence[CaseEntry],
    progress: Callable[[float], None],
) -> list[Scored]:
    """What the second network says of each candidate of the first in the cases."""
    device = choose_device("cpu")
    folded = device.place(fold_batch_norm(copy.deepcopy(network).eval()), 3)
    found = []
    for n, entry in enumerate(entries):
        case = load_case(cache, entry.id)
        candidates = candidates_of(first, (recipe.candidate_threshold,), case, entry.complete)
        labels = {id(candidate): label for candidate, label in candidates}
        scored = score_candidates(folded, recipe.window_hu, case.ct, [each for each, _ in candidates], device)
        found += [Scored(look.logit, labels[id(candidate)] > 0) for candidate, look in scored]
        progress((n + 1) / len(entries))
    return found


def calibrated(scored: Sequence[Scored], recipe: RefinementRecipe) -> tuple[RefinementSpec, float, float]:
    """The card's entry, its threshold, which lets :data:`KEPT_SHARE` of the lesions through where :data:`THRESHOLD_RANGE` allows,
    and that of :data:`SURE_SHARE`.

    A score is the share of lesions among the validation candidates that look like it, so it depends on how many of these are
    lesions. Raises :class:`InputError` when all or none of them are.
    """
    logits, is_lesion = np.array([each.logit for each in scored]), np.array([each.is_lesion for each in scored], bool)
    if not is_lesion.any() or is_lesion.all():
        raise InputError("the validation part needs lesions, and marks that are none, to set scores by; split again")
    slope, shift = platt(logits, is_lesion)
    spec = RefinementSpec(
        channels=recipe.channels,
        window_hu=recipe.window_hu,
        candidate_threshold=recipe.candidate_threshold,
        outline_threshold=recipe.outline_threshold,
        score_slope=round(slope, 4),
        score_shift=round(shift, 4),
    )
    kept, sure = (score(float(np.quantile(logits[is_lesion], 1 - share)), spec) for share in (KEPT_SHARE, SURE_SHARE))
    return spec, round(float(np.clip(kept, *THRESHOLD_RANGE)), 3), round(sure, 3)


def calibration_curve(scored: Sequence[Scored], spec: RefinementSpec) -> dict[str, dict[str, float]]:
    """Calibration by fifth of the score: how many candidates, and which share of them are lesions."""
    scores = np.array([score(each.logit, spec) for each in scored])
    lesions = np.array([each.is_lesion for each in scored])
    curve = {}
    for low in SCORES:
        inside = (scores >= low) & (scores < low + 0.2 + (low == SCORES[-1]))
        if inside.any():
            row = {"candidates": int(inside.sum()), "share_of_lesions": round(float(lesions[inside].mean()), 2)}
            curve[f"score {low:g}-{low + 0.2:g}"] = row
    return curve


def platt(logits: np.ndarray, is_lesion: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the logistic curve of least cross entropy (Platt 1999), the slope above 0."""
    x, y = (torch.from_numpy(each.astype(np.float64)) for each in (logits, is_lesion))
    values = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        # The exponential keeps the slope above 0; a little pull to 1 keeps it finite where both are apart.
        result = functional.binary_cross_entropy_with_logits(values[0].exp() * x + values[1], y, reduction="sum")
        result = result + 0.05 * values[0] ** 2
        result.backward()
        return result

    optimizer.step(loss)
    slope, shift = values.detach()
    return float(slope.exp()), float(shift)
