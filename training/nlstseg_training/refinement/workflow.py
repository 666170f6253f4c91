"""From a model to the same with a refinement network: candidates, training, calibration, bundle, measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlstseg_training.data.cache import CaseEntry, Manifest, Split, load_case, read_json, read_manifest, read_split, write_json
from nlstseg_training.evaluation.evaluate import evaluate
from nlstseg_training.export.bundle import check_parity, rounded, write_bundle
from nlstseg_training.export.card import Texts, describe_cases, known_pixels_mm, measured
from nlstseg_training.fitting.checkpoints import FINISHED
from nlstseg_training.fitting.machine import Machine
from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER, cases_digest, made_with, smallest
from nlstseg_training.refinement.calibration import calibrated, calibration_curve, scored_candidates
from nlstseg_training.refinement.candidates import LabelledCandidate, LabelledCandidates, labelled_candidates, with_logits
from nlstseg_training.refinement.fit import fit_refinement
from nlstseg_training.refinement.recipe import RefinementRecipe
from nlstseg_training.refinement.rewindow import seen_through
from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.models.card import ModelCard
from NLSTSegLib.models.specs import RefinementSpec
from NLSTSegLib.networks.refinement import RefinementNet
from NLSTSegLib.progress import Progress, silent, stage_of

PLACES_FILE, FIT_FOLDER = "places.json", "second"
"""Files in the folder of a refinement network: what the first network marks, and the training."""

WHAT_IT_DOES = "a 3D network judges and outlines what it finds."

TUNING: dict[str, Any] = {"epochs": 1, "learning_rate": 2e-4}
"""Changes of the recipe for a handful of cases."""


def add_refinement(
    base: Model,
    cache: Path,
    split_file: Path,
    out: Path,
    *,
    recipe: RefinementRecipe | None = None,
    further: bool = False,
    seed: int = 0,
    texts: Texts | None = None,
    machine: Machine | None = None,
    device: DeviceRequest | None = None,
    progress: Progress = silent,
) -> tuple[ModelCard, dict[str, Any]]:
    """Train a refinement network for ``base`` (in place of its own, if any) and write ``out/bundle``; what was stopped goes on.

    With ``further`` its own second network is trained further (by another seed, or it sees the cut-outs of its first training
    again). Scores and the card's threshold are set on the validation part, on which the result is measured too. Returns the card
    and what ``evaluation.json`` holds. Parameters are rounded to float16.

    Raises :class:`InputError` when there is no refinement to train further, when the bundle is there already or would have the
    base's name and version, for another base or cases than the folder was begun with, and as :func:`.fitting.fit.fit`
    does.
    """
    recipe, texts, device = recipe or RefinementRecipe(), texts or Texts(), device or DeviceRequest()
    start = None
    if further:
        spec, start = _second_of(base)
        start = seen_through(start, spec.window_hu, recipe.window_hu)
        recipe = dataclasses.replace(
            recipe,
            channels=spec.channels,
            candidate_threshold=spec.candidate_threshold,
            learning_rate=recipe.further_rate,
        )
    first = Model(dataclasses.replace(base.card, refinement=None), rounded(base.network))
    name, version = texts.name or base.card.name, texts.version or "1"
    if (name, version) == (base.card.name, base.card.version):
        raise InputError(f"the model it comes from is already '{name}' {version}; give another name or version")
    manifest, split = read_manifest(cache), read_split(split_file)
    entries = [[manifest.entry(case_id) for case_id in part] for part in (split.train, split.validation)]
    bundle = out / BUNDLE_FOLDER
    with held(out):
        if bundle.exists():
            raise InputError(f"the model is in '{bundle}' already; choose another folder for another one")
        places = _places(first, start, recipe, cache, manifest, split, entries[0] + entries[1], out, progress)
        parts = entries[0], entries[1]
        second = fit_refinement(recipe, cache, parts, places, out / FIT_FOLDER, seed=seed, start=start, machine=machine)
        rounded(second)
        report = stage_of(progress, "calibration", 0, 1)
        scored = scored_candidates(second, recipe, first, cache, entries[1], report)
        spec, threshold, sure = calibrated(scored, recipe)
        own: dict[str, Any] = {"seed": seed, "sure_threshold": sure, "calibration": calibration_curve(scored, spec)}
        own["made_with"] = made_with()
        slices = [entry.spacing_kji_mm[0] for entry in entries[0]]
        slices_mm = round(min(slices), 3), round(max(recipe.thickest_mm, *slices), 3)
        card = dataclasses.replace(
            base.card,
            name=name,
            version=version,
            description=base.card.description if further else f"{base.card.description.rstrip('.')}; {WHAT_IT_DOES}",
            threshold=threshold,
            min_volume_mm3=recipe.min_volume_mm3,
            refinement=spec,
            in_plane_range_mm=base.card.in_plane_range_mm or known_pixels_mm(entries[0]),
            slice_range_mm=slices_mm,
            training_data=_training_data(base.card, version, entries[0]),
            metrics={"refinement": own},
            licence=texts.licence or base.card.licence,
            attribution="; ".join(filter(None, (texts.attribution, base.card.attribution))),
            intended_use=texts.intended_use or base.card.intended_use,
        )
        model = Model(card, first.network, second)
        content = evaluate(
            model,
            cache,
            split_file,
            "validation",
            out / "validation",
            threshold=threshold,
            device=device,
            progress=progress,
        )
        card = dataclasses.replace(card, metrics={"validation": measured(content), "refinement": own})
        with atomic_folder(bundle) as partial:
            card = write_bundle(first.network, card, partial, second)
            case = smallest(entries[1] or entries[0])
            check_parity(Model(card, first.network, second), partial, load_case(cache, case.id), device)
    return card, content


def _training_data(card: ModelCard, version: str, entries: Sequence[CaseEntry]) -> str:
    """What the base says, and what the refinement of this version saw; told once when it is what it saw before."""
    seen = describe_cases(entries)
    return (
        card.training_data if seen in card.training_data else f"{card.training_data.rstrip('.')}. Refinement {version}: {seen}."
    )


def tune_refinement(
    tuned: Model,
    base: Model,
    cache: Path,
    parts: tuple[Sequence[CaseEntry], Sequence[CaseEntry]],
    out: Path,
    *,
    steps: int,
    seed: int = 0,
    machine: Machine | None = None,
    progress: Progress = silent,
) -> RefinementNet:
    """The second network of ``base``, trained further in ``out``, ``steps`` on what ``tuned`` marks in a handful of cases.

    How its numbers become scores stays as it was: a handful of cases is too few to set that by.
    """
    spec, start = _second_of(base)
    recipe = RefinementRecipe(
        channels=spec.channels,
        window_hu=spec.window_hu,
        candidate_threshold=spec.candidate_threshold,
        epoch_steps=steps,
        **TUNING,
    )
    entries = [entry for part in parts for entry in part]
    places = labelled_candidates(tuned, recipe.candidate_threshold, cache, entries, stage_of(progress, "candidates", 0, 1))
    return rounded(fit_refinement(recipe, cache, parts, places, out / FIT_FOLDER, seed=seed, start=start, machine=machine))


def _second_of(base: Model) -> tuple[RefinementSpec, RefinementNet]:
    """The refinement of ``base``; raises :class:`InputError` when there is none."""
    spec = base.card.refinement
    if spec is None or base.refinement is None:
        raise InputError(f"'{base.card.name}' {base.card.version} has no refinement to train further; leave out --further")
    return spec, base.refinement


def _places(
    first: Model,
    start: RefinementNet | None,
    recipe: RefinementRecipe,
    cache: Path,
    manifest: Manifest,
    split: Split,
    entries: list[CaseEntry],
    out: Path,
    progress: Progress,
) -> tuple[LabelledCandidate, ...]:
    """The candidates, scored by the network that is trained further, from ``out`` where they were found already."""
    path, cases = out / PLACES_FILE, cases_digest(manifest, split)
    if path.exists():
        kept = read_json(path, LabelledCandidates, "remove it")
        if (kept.weights_sha256, kept.cases_sha256) != (first.card.weights_sha256, cases):
            raise InputError(f"'{out}' was begun with another model or other cases; choose another folder")
        return kept.places
    if (out / FIT_FOLDER / FINISHED).exists():
        raise InputError(f"'{path}' is missing; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    report = stage_of(progress, "candidates", 0, 1)
    places = labelled_candidates(first, recipe.candidate_threshold, cache, entries, report)
    if start is not None:
        places = with_logits(places, start, recipe.window_hu, cache, stage_of(progress, "hard candidates", 0, 1))
    write_json(path, LabelledCandidates(1, first.card.weights_sha256, cases, places))
    return places
