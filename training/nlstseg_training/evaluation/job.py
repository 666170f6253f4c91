"""Who marks the cases of one part: a model, or another tool whose masks lie in a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from nlstseg_training.data.cache import Case, CaseEntry
from nlstseg_training.data.readers.source import file_states
from nlstseg_training.evaluation.predictions import Prediction, field_of, network_digest, predict, prediction_state
from nlstseg_training.evaluation.records import digest
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.progress import Progress, silent
from NLSTSegLib.reading.read import read_labels

MASK_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings of another tool's masks, tried in this order."""


class Job(Protocol):
    """What the evaluation and its report ask of who marks; all is kept in the folder ``out``, so an interrupted run goes on."""

    @property
    def cache(self) -> Path: ...

    @property
    def entries(self) -> tuple[CaseEntry, ...]: ...

    @property
    def out(self) -> Path: ...

    @property
    def identity(self) -> dict[str, str]:
        """Name, version and hash of the weights, as ``evaluation.json`` holds them."""
        ...

    @property
    def threshold(self) -> float:
        """Where nobody chooses another."""
        ...

    @property
    def min_volume_mm3(self) -> float:
        """Smaller marks do not count."""
        ...

    def state(self, entry: CaseEntry) -> str:
        """Changes when anything does that the marks of the case depend on."""
        ...

    def predict(self, case: Case, entry: CaseEntry, progress: Progress = silent) -> Prediction:
        """Raises :class:`InputError` that names the case."""
        ...

    def lung_mask(self, case: Case) -> np.ndarray | None:
        """Where marks count; None: everywhere."""
        ...


@dataclass(frozen=True)
class ModelJob:
    """One model on the cases of one part."""

    model: Model
    cache: Path
    entries: tuple[CaseEntry, ...]
    out: Path
    device: DeviceRequest = field(default_factory=DeviceRequest)

    @property
    def identity(self) -> dict[str, str]:
        return {key: getattr(self.model.card, key) for key in ("name", "version", "weights_sha256")}

    @property
    def threshold(self) -> float:
        return self.model.card.threshold

    @property
    def min_volume_mm3(self) -> float:
        return self.model.card.min_volume_mm3

    @cached_property
    def network(self) -> str:
        """Hash of the weights and of what the network is shown."""
        return network_digest(self.model)

    def state(self, entry: CaseEntry) -> str:
        return prediction_state(self.network, entry)

    def predict(self, case: Case, entry: CaseEntry, progress: Progress = silent) -> Prediction:
        """Probability from the network, or as it was kept."""
        path = self.out / "probability" / f"{entry.id}.nrrd"
        return predict(self.model, case, path, self.state(entry), self.device, progress)

    def lung_mask(self, case: Case) -> np.ndarray | None:
        return field_of(case)


@dataclass(frozen=True)
class MasksJob:
    """Masks of any tool, ``<folder>/<id>.nii.gz`` or of another ending, as they are: no threshold, volume or lung takes away."""

    folder: Path
    cache: Path
    entries: tuple[CaseEntry, ...]
    out: Path
    threshold: float = field(init=False, default=0.5)
    min_volume_mm3: float = field(init=False, default=0.0)

    @property
    def identity(self) -> dict[str, str]:
        return {"name": self.folder.absolute().name, "version": "masks of another tool", "weights_sha256": ""}

    def state(self, entry: CaseEntry) -> str:
        return digest(prediction_state(file_states([self._path(entry)]), entry))

    def predict(self, case: Case, entry: CaseEntry, progress: Progress = silent) -> Prediction:
        labels = read_labels(self._path(entry), case.ct)
        return Prediction(np.where(labels > 0, np.uint8(255), np.uint8(0)), ())

    def lung_mask(self, case: Case) -> np.ndarray | None:
        return None

    def _path(self, entry: CaseEntry) -> Path:
        for ending in MASK_ENDINGS:
            path = self.folder / (entry.id + ending)
            if path.exists():
                return path
        raise InputError(
            f"there is no mask of the case '{entry.id}' in '{self.folder}'; it is called {entry.id}.nii.gz, empty where "
            "nothing was found"
        )
