"""From a finished training to a model bundle: measured, described, compared with the training's own network, written whole."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

from nlstseg_training.data.cache import load_case, read_manifest, read_split
from nlstseg_training.evaluation.evaluate import Part, evaluate, measure
from nlstseg_training.evaluation.job import ModelJob
from nlstseg_training.evaluation.pooled import Pool, detection
from nlstseg_training.export.bundle import check_parity, packed_weights, write_bundle
from nlstseg_training.export.card import Texts, make_card, measured
from nlstseg_training.fitting.run_folder import SPLIT_FILE, cases_digest, read_run, smallest, trained_network
from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.card import ModelCard
from NLSTSegLib.models.specs import RefinementSpec
from NLSTSegLib.networks.refinement import RefinementNet
from NLSTSegLib.progress import Progress, silent

MIN_VOLUMES_MM3 = (0.0, 15.0, 30.0)
"""Tried on the validation part, beside the recipe's own: nothing dropped, and spheres below 3.1 and 3.9 mm."""


def export(
    run_folder: Path,
    folder: Path,
    texts: Texts,
    *,
    cache: Path | None = None,
    parts: tuple[Part, ...] = ("validation", "test"),
    device: DeviceRequest | None = None,
    second: tuple[RefinementSpec, RefinementNet] | None = None,
    progress: Progress = silent,
) -> tuple[ModelCard, dict[str, dict[str, Any]]]:
    """Measure a finished run on ``parts`` of its split and write its bundle to the new folder ``folder``.

    Threshold and minimum volume are chosen on the validation part. They stay the recipe's where that part has no lesion, and
    for a run that started from a model: that one's were chosen on more than a handful of cases. ``second`` is a refinement
    network that goes with it, with its entry of the card. ``cache`` is where the cases are now, if no longer where the run found
    them. Reports, and what they are made of, are kept in the run's folder, so nothing is measured twice. Returns the card, and
    by part what ``evaluation.json`` holds.

    Raises :class:`InputError` when the run is not finished, its cache is not there or another, ``folder`` is there already,
    or the bundle does not give the voxels of the training's network.
    """
    run, device = read_run(run_folder), device or DeviceRequest()
    cache, split = cache or Path(run.cache), read_split(run_folder / SPLIT_FILE)
    manifest, network = read_manifest(cache), trained_network(run_folder, run)
    if cases_digest(manifest, split) != run.cases_sha256:
        raise InputError(
            f"the cases in '{cache}' are not those that the run in '{run_folder}' was trained on; prepare them again"
        )
    threshold, minimum = run.recipe.threshold, run.recipe.min_volume_mm3
    look, second_network = (None, None) if second is None else second
    digest = hashlib.sha256(packed_weights(network, second_network)).hexdigest()

    def card_with(metrics: dict[str, Any]) -> ModelCard:
        chosen = {"threshold": threshold, "min_volume_mm3": minimum}
        card = make_card(run, manifest, split, texts, **chosen, metrics=metrics)
        return dataclasses.replace(card, weights_sha256=digest, refinement=look)

    with held(folder):
        if folder.exists():
            raise InputError(f"there is a folder '{folder}' already, and no model is overwritten; choose another name")
        contents: dict[str, dict[str, Any]] = {}
        entries = tuple(manifest.entry(case_id) for case_id in split.validation)
        choose = run.base is None and "validation" in parts and any(entry.lesions for entry in entries)
        if choose:
            job = ModelJob(Model(card_with({}), network, second_network), cache, entries, run_folder / "validation", device)
            minimum = best_min_volume_mm3(job, progress)
        for part in parts:
            if getattr(split, part):
                given = None if choose and part == "validation" else threshold
                model = Model(card_with({}), network, second_network)
                contents[part] = evaluate(
                    model,
                    cache,
                    run_folder / SPLIT_FILE,
                    part,
                    run_folder / part,
                    threshold=given,
                    device=device,
                    run_folder=run_folder,
                    progress=progress,
                )
                threshold = contents[part]["threshold"]["value"]
        card = card_with({part: measured(content) for part, content in contents.items()})
        with atomic_folder(folder) as partial:
            card = write_bundle(network, card, partial, second_network)
            case = smallest([manifest.entry(case_id) for case_id in split.validation or split.train])
            check_parity(Model(card, network, second_network), partial, load_case(cache, case.id), device)
    return card, contents


def best_min_volume_mm3(job: ModelJob, progress: Progress = silent) -> float:
    """The minimum volume with the highest F1 of the lesions (strict rule) at the card's threshold; the smallest of equals."""
    card = job.model.card
    scores = {}
    for volume_mm3 in sorted({*MIN_VOLUMES_MM3, card.min_volume_mm3}):
        tried = dataclasses.replace(
            job, model=dataclasses.replace(job.model, card=dataclasses.replace(card, min_volume_mm3=volume_mm3))
        )
        kept = measure(tried, (card.threshold,), folder=f"min_volume_{volume_mm3:g}", surfaces=False, progress=progress)
        f1 = detection(Pool([records[0] for records in kept]), "strict")["f1"]["value"]
        scores[volume_mm3] = 0.0 if math.isnan(f1) else f1
    return max(scores, key=lambda volume_mm3: (scores[volume_mm3], -volume_mm3))
