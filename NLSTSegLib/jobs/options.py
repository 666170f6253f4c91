"""What a user may choose for a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from NLSTSegLib.inference.devices import DeviceChoice
from NLSTSegLib.models.bundle import DEFAULT_MODEL


@dataclass(frozen=True)
class RunOptions:
    """What a user may choose for a run; ``None`` stands for the model's own value."""

    model: str = DEFAULT_MODEL
    """Name of a model, or path of a bundle or a published checkpoint."""
    device: DeviceChoice = "auto"
    threshold: float | None = None
    min_volume_mm3: float | None = None
    lung_field: Literal["auto", "none"] = "auto"
    threads: int | None = None
    """CPU threads of torch."""

    def arguments(self) -> list[str]:
        """The options as the command line takes them."""
        arguments = ["--model", self.model, "--device", self.device, "--lung-field", self.lung_field]
        for name, value in (
            ("--threshold", self.threshold),
            ("--min-volume", self.min_volume_mm3),
            ("--threads", self.threads),
        ):
            if value is not None:
                arguments += [name, str(value)]
        return arguments
