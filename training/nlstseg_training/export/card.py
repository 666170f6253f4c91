"""The card of a trained model, filled from its run: data, figures, code; who and what for is told by who exports it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlstseg_training.data.cache import CaseEntry, Manifest, Split, training_cases
from nlstseg_training.fitting.run_folder import Run
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.card import ModelCard, TrainingCases

SOURCES = {
    "nlstseg": (
        "NLSTseg: Chen et al., Scientific Data 2025, doi 10.1038/s41597-025-05742-x, data 10.5281/zenodo.14838349, CC BY 4.0"
    ),
    "lidc": (
        "LIDC-IDRI: Armato et al., doi 10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0; where background slices were used, "
        "the TCIA collections they came from; Clark et al., J Digit Imaging 2013, doi 10.1007/s10278-013-9622-7"
    ),
    "marked-chests": (
        "chests without reader masks: the TCIA collections they came from; Clark et al., J Digit Imaging 2013, "
        "doi 10.1007/s10278-013-9622-7"
    ),
}
"""Attribution by reader, where the reader tells the data set."""

NOT_STATED = "not stated; ask who trained it"

KNOWN_QUANTILES = (0.05, 0.99)
"""Quantiles of the in-plane spacings; smaller pixels bring many more wrong marks, larger ones few."""

INTENDED_USE = "Research only; not for clinical use. A mark is no diagnosis: look at every one."


@dataclass(frozen=True)
class Texts:
    """What nothing in a run tells; empty: the default, or what the model says that the training started from."""

    name: str = ""
    version: str = ""
    licence: str = ""
    attribution: str = ""
    """Added to what is known of the data."""
    intended_use: str = ""


def make_card(
    run: Run, manifest: Manifest, split: Split, texts: Texts, *, threshold: float, min_volume_mm3: float, metrics: dict[str, Any]
) -> ModelCard:
    """The card without the hash of the weights; raises :class:`InputError` for a name and version that are the base's."""
    recipe, base = run.recipe, None if run.base is None else run.base.identity
    name = texts.name or (recipe.name if base is None else f"{base.name}-{recipe.name}")
    version = texts.version or "1"
    if base is not None and (name, version) == (base.name, base.version):
        raise InputError(f"the model it comes from is already '{name}' {version}; give another name or version")
    entries = [manifest.entry(case_id) for case_id in (*split.train, *split.validation)]
    train = [manifest.entry(case_id) for case_id in split.train]
    readers = sorted({entry.reader for entry in entries})
    known = [SOURCES.get(reader, f"{reader}: {NOT_STATED}") for reader in readers]
    own = {"recipe": recipe.name, "seed": run.seed, "made_with": run.made_with}
    if run.rate != 1:
        own["rate"] = run.rate
    description, data = recipe.description, describe_cases(train)
    licence, use = texts.licence, texts.intended_use
    if base is not None:
        own["derived_from"] = {key: getattr(base, key) for key in ("name", "version", "weights_sha256")}
        description = f"{description.rstrip('.')}, from {base.name} {base.version}: {base.description}"
        data = f"{data}; before that, as {base.name} {base.version}: {base.training_data}"
        known.append(base.attribution)
        licence, use = licence or base.licence, use or base.intended_use
    try:
        return ModelCard(
            format=1,
            name=name,
            version=version,
            description=description,
            architecture=recipe.architecture,
            input=recipe.input,
            orientation="LPS",
            spacing_note=describe_spacing(train),
            threshold=threshold,
            min_volume_mm3=min_volume_mm3,
            classes=("lesion",),
            training_data=data,
            attribution="; ".join([*([texts.attribution] if texts.attribution else []), *known]),
            licence=licence or NOT_STATED,
            intended_use=use or INTENDED_USE,
            metrics=metrics | own,
            training_cases=known_cases(run, manifest, split),
        )
    except ValueError as error:
        raise InputError(f"the model's card cannot be written: {error}; change the recipe or the option of that name") from error


def known_cases(run: Run, manifest: Manifest, split: Split) -> TrainingCases:
    """Hashes of the scans it was trained on, those of the base too: a card has one salt, so theirs is taken."""
    before = TrainingCases() if run.base is None else run.base.training_cases
    if not before.sha256:
        return training_cases(manifest, split)
    own = training_cases(manifest, dataclasses.replace(split, salt=before.salt))
    return TrainingCases(before.salt, tuple(sorted({*before.sha256, *own.sha256})))


def describe_cases(entries: Sequence[CaseEntry]) -> str:
    """Number of cases, patients and lesions by reader and kind."""
    parts = []
    for (reader, kind), number in sorted(Counter((entry.reader, entry.kind) for entry in entries).items()):
        of = [entry for entry in entries if (entry.reader, entry.kind) == (reader, kind)]
        patients, lesions = len({entry.patient for entry in of}), sum(len(entry.lesions) for entry in of)
        parts.append(f"{reader}: {number} x {kind}, {patients} patient(s), {lesions} lesion(s)")
    return "; ".join(parts)


def describe_spacing(entries: Sequence[CaseEntry]) -> str:
    """Voxel spacings and lesion diameters that were trained on."""
    plane = [step for entry in entries for step in entry.spacing_kji_mm[1:]]
    slices = [entry.spacing_kji_mm[0] for entry in entries]
    diameters = [lesion.diameter_mm for entry in entries for lesion in entry.lesions]
    sizes = f"; lesions {_range(diameters)} mm" if diameters else "; no lesion"
    return f"in-plane {_range(plane)} mm, slices {_range(slices)} mm{sizes}"


def known_pixels_mm(entries: Sequence[CaseEntry]) -> tuple[float, float]:
    """In-plane spacings that networks have seen enough of: most of those trained on, without the rare ones at the ends."""
    low, high = np.quantile([step for entry in entries for step in entry.spacing_kji_mm[1:]], KNOWN_QUANTILES)
    return round(float(low), 3), round(float(high), 3)


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.2f}".rstrip("0").rstrip(".") for value in (min(values), max(values)))
    return low if low == high else f"{low}-{high}"


def measured(content: dict[str, Any]) -> dict[str, Any]:
    """What the card holds of an ``evaluation.json``: figures with their 95 % intervals, three digits."""
    overlap, found = content["overlap"][0], content["detection"]["lenient"]
    estimates = {
        "dice": overlap["dice"],
        "iou": overlap["iou"],
        "surface_dice_1mm": overlap["nsd_1mm"],
        "lesions_found": found["sensitivity"],
        "dice_per_lesion": content["all_lesions"]["dice_all"],
        "marks_outside_per_case": found["outside_per_case"],
        "cpm": content["froc"]["cpm"],
        "published_protocol_iou": content["published_protocol"]["iou"],
    }
    numbers: dict[str, Any] = {name: content[name] for name in ("cases", "patients", "lesions")}
    numbers |= {"threshold": content["threshold"]["value"], "min_volume_mm3": content["min_volume_mm3"]}
    for name, estimate in estimates.items():
        values = {key: estimate[key] for key in ("value", "low", "high")}
        defined = {key: round(value, 3) for key, value in values.items() if value is not None and math.isfinite(value)}
        if defined:
            numbers[name] = defined
    return numbers
