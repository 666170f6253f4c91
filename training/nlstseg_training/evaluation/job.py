"""One model on the cases of one part: what the evaluation and its report ask for probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nlstseg_training.data.cache import Case, CaseEntry
from nlstseg_training.evaluation.predictions import Prediction, predict, prediction_state
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.progress import Progress, silent


@dataclass(frozen=True)
class Job:
    """One model on the cases of one part; everything is kept in the folder ``out``, so an interrupted run goes on."""

    model: Model
    cache: Path
    entries: tuple[CaseEntry, ...]
    out: Path
    device: DeviceRequest = field(default_factory=DeviceRequest)

    def predict(self, case: Case, entry: CaseEntry, network: str, progress: Progress = silent) -> Prediction:
        """From the network, or as it was kept."""
        path = self.out / "probability" / f"{entry.id}.nrrd"
        state = prediction_state(network, entry)
        return predict(self.model, case, path, state, self.device, progress)
