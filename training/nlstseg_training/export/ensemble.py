"""The folds of a cross-validation as one model: a bundle whose networks' probabilities are averaged."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlstseg_training.data.cache import load_case, read_manifest
from nlstseg_training.evaluation.evaluate import read_evaluation
from nlstseg_training.evaluation.predictions import segment_options
from nlstseg_training.export.bundle import check_parity, write_bundle
from nlstseg_training.export.card import Texts, measured
from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER, read_run, smallest
from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import Model, find_model, load_model
from NLSTSegLib.models.card import ModelCard, TrainingCases
from NLSTSegLib.networks.ensemble import Ensemble
from NLSTSegLib.pipeline import segment


def write_ensemble(
    runs: Sequence[Path], folder: Path, texts: Texts, *, pooled: Path | None = None, device: DeviceRequest | None = None
) -> ModelCard:
    """Write the bundle of the networks of ``runs`` to the new ``folder``; threshold and minimum volume are the medians of theirs.

    What was measured of the folds, in the folder ``pooled`` of :func:`nlstseg_training.evaluation.folds.pool_folds`, goes into
    the card as what it is: figures of the single networks. So does the time that a case takes, beside that of one network.

    Raises :class:`InputError` when the networks differ in more than their weights, have refinement networks, or ``folder`` is
    there already.
    """
    device = device or DeviceRequest()
    models = [load_model(find_model(str(run / BUNDLE_FOLDER))) for run in runs]
    cards = [model.card for model in models]
    first = cards[0]
    if len(runs) < 2:
        raise InputError("an ensemble has two networks or more; name the folders of several runs")
    if any((card.architecture, card.input) != (first.architecture, first.input) for card in cards):
        raise InputError(
            "the runs have networks of different kinds or inputs, whose probabilities cannot be averaged in one bundle"
        )
    if any(card.refinement is not None for card in cards):
        raise InputError("a run has a refinement network, which an ensemble cannot hold; name runs without")
    network = Ensemble([model.network for model in models]).eval()
    card = dataclasses.replace(
        first,
        name=texts.name or f"{first.name}-ensemble",
        version=texts.version or "1",
        description=f"{first.description.rstrip('.')}; mean of {len(runs)} networks.",
        architecture=dataclasses.replace(first.architecture, members=len(runs)),
        threshold=sorted(card.threshold for card in cards)[len(cards) // 2],
        min_volume_mm3=sorted(card.min_volume_mm3 for card in cards)[len(cards) // 2],
        training_data="; ".join(dict.fromkeys(card.training_data for card in cards)),
        licence=texts.licence or first.licence,
        attribution="; ".join(filter(None, (texts.attribution, first.attribution))),
        intended_use=texts.intended_use or first.intended_use,
        training_cases=_all_cases(cards),
        metrics={},
    )
    run = read_run(runs[0])
    cache = Path(run.cache)
    case = load_case(cache, smallest(read_manifest(cache).cases).id)
    figures: dict[str, Any] = {
        "members": [{key: getattr(each, key) for key in ("name", "version", "weights_sha256")} for each in cards]
    }
    for name, model in (("one_network", models[0]), ("ensemble", Model(card, network))):
        began = time.monotonic()
        segment(case.ct, model, segment_options(case, device))
        figures[f"seconds_{name}"] = round(time.monotonic() - began, 2)
    figures["seconds_of"] = f"a case of {' x '.join(map(str, case.ct.hu.shape))} voxels"
    if pooled is not None:
        figures["single_networks_in_cross_validation"] = measured(read_evaluation(pooled))
    with held(folder):
        if folder.exists():
            raise InputError(f"there is a folder '{folder}' already, and no model is overwritten; choose another name")
        with atomic_folder(folder) as partial:
            card = write_bundle(network, dataclasses.replace(card, metrics=figures), partial)
            check_parity(Model(card, network), partial, case, device)
    return card


def _all_cases(cards: Sequence[ModelCard]) -> TrainingCases:
    salts = {card.training_cases.salt for card in cards}
    if len(salts) > 1:
        raise InputError("the runs are of different splits or data; an ensemble is made of the folds of one split")
    return TrainingCases(salts.pop(), tuple(sorted({digest for card in cards for digest in card.training_cases.sha256})))
