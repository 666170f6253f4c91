"""From a model and a handful of corrected cases to a model that fits them better, measured before and after on others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlstseg_training.data.cache import read_manifest, read_split
from nlstseg_training.evaluation.evaluate import Part, evaluate, read_evaluation
from nlstseg_training.export.card import Texts, make_card
from nlstseg_training.export.export import export
from nlstseg_training.fitting.curves import LoggerName
from nlstseg_training.fitting.machine import Machine
from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER, begin_run, fit_run, new_run, rate_of, trained_network
from nlstseg_training.recipe import Recipe
from nlstseg_training.refinement.workflow import tune_refinement
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import Model, ModelCard, ModelFiles, find_model, load_model
from NLSTSegLib.progress import Progress, silent


@dataclass(frozen=True)
class FineTuned:
    """The new model's card, and what both models gave on the held-out part, as ``evaluation.json`` holds it."""

    card: ModelCard
    part: Part
    before: dict[str, Any]
    after: dict[str, Any]


def finetune(
    base: ModelFiles,
    cache: Path,
    split_file: Path,
    out: Path,
    *,
    recipe: Recipe,
    seed: int = 0,
    rate: float | None = None,
    logger: LoggerName = "tensorboard",
    refinement_steps: int = 100,
    texts: Texts | None = None,
    machine: Machine | None = None,
    device: DeviceRequest | None = None,
    progress: Progress = silent,
) -> FineTuned:
    """Train ``base`` further in the folder ``out`` and write the new bundle ``out/bundle``; what was stopped goes on.

    ``recipe`` is read with the base's card. Its refinement network is trained further too, ``refinement_steps`` on what the tuned
    first network marks; 0: it stays as it is. What is finished is read and returned again. Held out is the test part, or the
    part of a split without one. Threshold and minimum volume stay the base's: a handful of cases is too few to choose them by.

    Raises :class:`InputError` when the new model would take the place, or the name and version, of the base, when no case
    is held out, and as :func:`nlstseg_training.fitting.fit.fit` does.
    """
    texts = texts or Texts()
    bundle, of_base = out / BUNDLE_FOLDER, base.weights.parent.resolve()
    if of_base in (out.resolve(), bundle.resolve()):
        raise InputError(f"'{out}' holds the model that is to be fine-tuned, which is not overwritten; choose another folder")
    split, manifest = read_split(split_file), read_manifest(cache)
    part: Part = "test" if split.test else "validation"
    if not getattr(split, part):
        raise InputError(f"'{split_file}' keeps no case for testing or validation; split with shares for them")
    start = load_model(base)
    run = new_run(recipe, cache, split, seed=seed, start=start, rate=rate_of(out, rate))
    # Before the hours of training: the name may be taken.
    make_card(run, manifest, split, texts, threshold=recipe.threshold, min_volume_mm3=recipe.min_volume_mm3, metrics={})
    with held(out):
        begin_run(out, run, split)
        if bundle.exists():
            figures = [read_evaluation(out / name) for name in ("before", part)]
            return FineTuned(find_model(str(bundle)).card, part, figures[0], figures[1])
        before = evaluate(
            start,
            cache,
            split_file,
            part,
            out / "before",
            threshold=start.card.threshold,
            device=device,
            progress=progress,
        )
        fit_run(out, run, split, start=start, machine=machine, logger=logger)
        second = None
        if start.refinement is not None and start.card.refinement is not None:
            tuned = Model(dataclasses.replace(start.card, refinement=None), trained_network(out, run))
            train, validation = ([manifest.entry(case_id) for case_id in ids] for ids in (split.train, split.validation))
            network = start.refinement
            if refinement_steps:
                network = tune_refinement(
                    tuned,
                    start,
                    cache,
                    (train, validation),
                    out,
                    steps=refinement_steps,
                    seed=seed,
                    machine=machine,
                    progress=progress,
                )
            second = start.card.refinement, network
        card, contents = export(out, bundle, texts, parts=(part,), device=device, second=second, progress=progress)
    return FineTuned(card, part, before, contents[part])
