"""The cases that cut-outs are made of, whole and in memory: crops stay there, chests come in blocks, as they do not all fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from nlstseg_training.data.aerated import DEEP_SLICES, aerated
from nlstseg_training.data.cache import Case, CaseEntry, load_case


class LoadedCase:
    """A case with what places are drawn from."""

    def __init__(self, case: Case):
        self.case = case
        self.hu, self.target = case.ct.hu, case.target
        self.spacing_kji_mm = case.ct.spacing_ijk_mm[::-1]
        lungs = np.ones(self.hu.shape, bool) if case.lungs is None else case.lungs
        self.places = np.argwhere(lungs[:, ::4, ::4]) * (1, 4, 4)
        labels = [int(label) for label in np.unique(case.labels) if label]
        self.lesions = [np.argwhere(case.labels == label) for label in labels]

    @cached_property
    def air(self) -> np.ndarray | None:
        """Where there is lung to grow in; None where the case is not :attr:`is_deep`."""
        return aerated(self.hu, self.case.lungs, self.spacing_kji_mm) if self.is_deep and self.case.lungs is not None else None

    @property
    def is_deep(self) -> bool:
        """Whether it has a lung, of enough slices for a lesion."""
        return self.case.lungs is not None and len(self.hu) >= DEEP_SLICES


class CasePool:
    """``crops`` and ``chests`` (whole ones and backgrounds) by id; which chests depends on the block and the seed alone."""

    def __init__(self, cache: Path, entries: Sequence[CaseEntry], seed: int, block_cases: int) -> None:
        self.cache, self.seed, self.block_cases = cache, seed, block_cases
        self.crop_ids = [entry.id for entry in entries if entry.kind == "crop"]
        self.chest_ids = [entry.id for entry in entries if entry.kind != "crop"]
        # A patient with many slices gives more, but not in proportion: it is still one patient.
        self.weights = {entry.id: entry.shape_kji[0] ** 0.6 for entry in entries}
        self.crops: dict[str, LoadedCase] = {}
        self.chests: dict[str, LoadedCase] = {}
        self._block = -1

    def load(self, block: int) -> bool:
        """Load the chests of the block; False when they are there already."""
        if block == self._block:
            return False
        if not self.crops:
            self.crops = {case_id: self._load(case_id) for case_id in self.crop_ids}
        rng = np.random.default_rng((self.seed, block, 1))
        ids, most = self.chest_ids, self.block_cases
        if len(ids) > most:
            weights = np.array([self.weights[case_id] for case_id in ids])
            ids = [ids[n] for n in rng.choice(len(ids), most, replace=False, p=weights / weights.sum())]
        self.chests = {case_id: self.chests.get(case_id) or self._load(case_id) for case_id in ids}
        self._block = block
        return True

    def _load(self, case_id: str) -> LoadedCase:
        return LoadedCase(load_case(self.cache, case_id))
