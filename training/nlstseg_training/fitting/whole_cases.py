"""Every few epochs a few whole validation cases: Dice, IoU, lesions found, false marks, and a picture of what is marked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from nlstseg_training.data.cache import Case, CaseEntry, load_case
from nlstseg_training.evaluation.measure_case import measure_case
from nlstseg_training.evaluation.predictions import Prediction, field_of
from nlstseg_training.evaluation.records import CaseRecord
from nlstseg_training.evaluation.report.pictures import panel
from nlstseg_training.fitting.curves import Curves
from nlstseg_training.recipe import Recipe
from NLSTSegLib.inference.devices import Device
from NLSTSegLib.inference.patches import predict_patches
from NLSTSegLib.inference.slices import predict_slices
from NLSTSegLib.lesions.find import find_lesions, label_map
from NLSTSegLib.networks.network import Network, fold_batch_norm

SHOWN_CASES = 6

PANEL = "validation_cases"


class WholeCases(lightning.Callback):
    """Measures the network, with averaged weights where there are such, as ``evaluate`` would at the recipe's threshold.

    It comes before the averaging among the callbacks, whose weights are in the network until the validation ends.
    """

    def __init__(self, cache: Path, validation: Sequence[CaseEntry], recipe: Recipe, epochs: int, curves: Curves) -> None:
        self.cache, self.recipe, self.epochs, self.curves = cache, recipe, epochs, curves
        self.entries = drawn_cases(validation, recipe.measure_cases)
        self._fields: dict[str, np.ndarray | None] = {}

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        every, done = self.recipe.measure_every_epochs, trainer.current_epoch + 1
        if not every or not self.entries or (done % every and done != self.epochs):
            return
        own = self.entries[trainer.global_rank :: trainer.world_size]
        records, shown = self._measured(pl_module.network, own)
        if trainer.world_size > 1:
            parts: list[list[CaseRecord]] = [[]] * trainer.world_size
            torch.distributed.all_gather_object(parts, records)
            records = [record for part in parts for record in part]
        self.curves.put(trainer, summary(records))
        self.curves.show(trainer, PANEL, panel(shown))

    def _measured(self, network: Network, entries: Sequence[CaseEntry]) -> tuple[list[CaseRecord], list]:
        spec = self.recipe.input
        device = Device(str(next(network.parameters()).device), "bfloat16", 1, "")
        frozen = fold_batch_norm(copy.deepcopy(network).eval()).to(torch.bfloat16)
        predict = predict_slices if spec.patch_kji is None else predict_patches
        limits = {"threshold": self.recipe.threshold, "min_volume_mm3": self.recipe.min_volume_mm3}
        records: list[CaseRecord] = []
        shown: list[tuple] = []
        for entry in entries:
            case = load_case(self.cache, entry.id)
            lung_mask = self._field(case)
            where = np.ones(case.ct.hu.shape, bool) if lung_mask is None else lung_mask
            probability = predict(frozen, spec, case.ct, where, device=device)
            prediction = Prediction(probability, ())
            records.append(measure_case(case, entry, prediction, lung_mask, **limits, surfaces=False))
            if len(shown) < SHOWN_CASES:
                marks = find_lesions(probability, case.ct, lung_mask=lung_mask, **limits)
                shown.append((entry.id, *telling_slice(case, label_map(marks, case.labels.shape))))
        return records, shown

    def _field(self, case: Case) -> np.ndarray | None:
        """The lung field that inference finds, which takes seconds, kept as bits."""
        if case.id not in self._fields:
            found = field_of(case)
            self._fields[case.id] = None if found is None else np.packbits(found)
        bits = self._fields[case.id]
        shape = case.ct.hu.shape
        return None if bits is None else np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def drawn_cases(entries: Sequence[CaseEntry], most: int) -> list[CaseEntry]:
    """The same ones every time, drawn over all that have a lesion, whole chests before crops."""
    chests = [entry for entry in entries if entry.lesions and entry.kind == "chest"]
    pool = chests or [entry for entry in entries if entry.lesions]
    if len(pool) <= most:
        return pool
    return [pool[n] for n in np.sort(np.random.default_rng(0).choice(len(pool), most, replace=False))]


def summary(records: Sequence[CaseRecord]) -> dict[str, float]:
    """Means over the cases; lesions found by the strict rule, of all."""
    lesions = [lesion for record in records for lesion in record.lesions]
    outside = [sum(mark.outside for mark in record.marks) for record in records]
    return {
        "case_dice": float(np.mean([record.dice or 0.0 for record in records])),
        "case_iou": float(np.mean([record.iou or 0.0 for record in records])),
        "lesions_found": float(np.mean([lesion.found_strictly for lesion in lesions])) if lesions else float("nan"),
        "marks_outside_per_case": float(np.mean(outside)),
    }


def telling_slice(case: Case, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, ...]]:
    """HU, reference, prediction and spacing (k, j, i) of the slice with most of the reference; without one, of the prediction."""
    of = case.labels if case.labels.any() else predicted
    k = int((of > 0).sum(axis=(1, 2)).argmax())
    return case.ct.hu[k], case.labels[k] > 0, predicted[k] > 0, case.ct.spacing_ijk_mm[::-1]
