"""What a model says about itself: ``model.json``, and the same for a published checkpoint, which says nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from NLSTSegLib.disk.strict_json import FORMERLY, read_strict
from NLSTSegLib.errors import ModelError, printable
from NLSTSegLib.models.specs import LEAST_SPACING_MM, MAXIMUM_STEP_MM, PUBLISHED_WINDOW_HU, InputSpec, RefinementSpec

CARD_FILE = "model.json"

MAXIMUM_CARD_BYTES = 1_000_000
"""A larger ``model.json`` is not read."""

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Architecture:
    """Which network to build; ``published`` takes no further values, ``unet`` those of ``UNetConfig``."""

    kind: Literal["unet", "published"]
    dimensions: Literal[2, 3] = 2
    channels: tuple[int, ...] = ()
    normalization: Literal["batch", "none"] = "batch"
    residual: bool = True
    members: int = 1
    """Networks of this kind, whose probabilities are averaged; 2 or more are an ensemble."""


@dataclass(frozen=True)
class TrainingCases:
    """Scans the model was trained on, by their voxels, as :func:`.checks.training_overlap.salted` gives them. Cards of earlier
    versions also hold hashes of series, which nothing reads any more."""

    salt: str = ""
    sha256: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(SHA256.fullmatch(digest) for digest in self.sha256):
            raise ValueError("sha256 must be hashes of 64 hexadecimal digits")


@dataclass(frozen=True)
class ModelCard:
    """What ``model.json`` says; every field but those with a default must be there, and no other."""

    format: Literal[1]
    name: str
    version: str
    description: str
    architecture: Architecture
    input: InputSpec
    orientation: Literal["LPS"]
    spacing_note: str
    """Voxel spacings the model was trained on."""
    threshold: float
    min_volume_mm3: float
    classes: tuple[str, ...]
    training_data: str
    attribution: str
    licence: str
    intended_use: str
    metrics: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    """Hash of the weights file; empty only for a checkpoint that has no card."""
    training_cases: TrainingCases = field(default_factory=TrainingCases)
    in_plane_range_mm: tuple[float, float] | None = None
    """Pixels, row and column spacing, that the networks know; a CT of smaller or larger ones is resampled to the nearer end.
    None: they are shown every CT as it is."""
    slice_range_mm: tuple[float, float] | None = None
    """Distances of slices that they know."""
    title: str = ""
    """What a person calls the model, "Lung nodules and masses"; ``name`` and ``version`` tell it from others."""
    refinement: RefinementSpec | None = field(default=None, metadata={FORMERLY: "second_look"})
    """Second network of a model that has one, which scores and outlines what the first finds (false-positive reduction)."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {self.threshold}")
        if not 0 <= self.min_volume_mm3 < 1e9:
            raise ValueError(f"min_volume_mm3 must be 0 or more, not {self.min_volume_mm3}")
        for name in ("in_plane_range_mm", "slice_range_mm"):
            low, high = getattr(self, name) or (LEAST_SPACING_MM, MAXIMUM_STEP_MM)
            if not LEAST_SPACING_MM <= low <= high <= MAXIMUM_STEP_MM:
                raise ValueError(
                    f"{name} must rise and lie between {LEAST_SPACING_MM:g} and {MAXIMUM_STEP_MM:g} mm, not {low}, {high}"
                )
        for field_ in fields(self):
            text = getattr(self, field_.name)
            # These texts go to the terminal and into headers of files.
            if isinstance(text, str) and not text.isprintable():
                raise ValueError(f"{field_.name} must be one line without control characters")
        if self.architecture.kind == "published" and self.input.slices != 1:
            raise ValueError(f"the published network takes 1 input slice, not {self.input.slices}")
        if (self.architecture.dimensions == 3) != (self.input.patch_kji is not None):
            raise ValueError("a 3D network, and no other, needs the size of its patches (input.patch_kji)")
        multiple = 2 ** max(0, len(self.architecture.channels) - 1)
        if any(side % multiple for side in self.input.patch_kji or ()):
            raise ValueError(f"the sides of input.patch_kji must be multiples of {multiple}, not {self.input.patch_kji}")


@dataclass(frozen=True)
class ModelIdentity:
    """The fields of a :class:`ModelCard` that a result keeps: which model it came from, and what may be done with it."""

    name: str
    version: str
    description: str
    licence: str
    attribution: str
    training_data: str
    intended_use: str
    weights_sha256: str


def read_card(path: Path) -> ModelCard:
    """Read and check a ``model.json``; raises :class:`ModelError` that names the file and the field."""
    text = read_limited(path, MAXIMUM_CARD_BYTES)
    try:
        return read_strict(text, ModelCard)
    except ValueError as error:
        raise ModelError(f"'{path}' is not a valid model card: {error}") from error


def published_card(weights: Path) -> ModelCard:
    """The card of a checkpoint of the published U-Net, whose file says nothing about itself."""
    return ModelCard(
        format=1,
        name=printable(weights.stem),
        version="published",
        description="Checkpoint of the published NLSTseg 2D U-Net, supplied by the user.",
        architecture=Architecture("published"),
        # The procedure truncates to whole grey values.
        input=InputSpec(window_hu=PUBLISHED_WINDOW_HU, as_uint8=True, margin_px=44),
        orientation="LPS",
        spacing_note="native in-plane pixels, each axial slice alone",
        threshold=0.5,
        min_volume_mm3=0.0,
        classes=("lesion",),
        training_data="NLSTseg training slices (Chen et al., Scientific Data 2025, doi 10.1038/s41597-025-05742-x)",
        attribution="Chen et al. 2025, doi 10.1038/s41597-025-05742-x",
        licence="unknown: the publication's repository states none",
        intended_use="Research only; not for clinical use.",
    )


def read_limited(path: Path, most_bytes: int) -> bytes:
    """Content of a file of a model; raises :class:`ModelError` when it cannot be read or is larger."""
    try:
        # A pipe would be waited for, and a device may have no end.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"'{path}' is not a file; get the model again")
        if path.stat().st_size > most_bytes:
            raise ModelError(f"'{path}' is larger than {most_bytes / 1e6:.0f} MB, so it is damaged; get the model again")
        return path.read_bytes()
    except OSError as error:
        what = f"cannot be read ({error.strerror}): a bundle folder holds {CARD_FILE} and its weights; get the model again"
        raise ModelError(f"'{path}' {what}") from error
