"""What the refinement is trained on and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from nlstseg_training.recipe import Augmentation


@dataclass(frozen=True)
class Shares:
    """Shares of a batch; what is left of it are wrong marks in chests and backgrounds."""

    crops: float = 0.36
    transplants: float = 0.09
    synthetic: float = 0.04
    chests: float = 0.01
    wrong_in_crops: float = 0.12


@dataclass(frozen=True)
class Batch:
    """Cut-outs of one size."""

    count: int
    size_kji: tuple[int, int, int]
    downsampled: bool = False
    """Whether they are of chests at half their resolution, with masses grown into them."""


SMALL, LARGE = Batch(32, (16, 48, 48)), Batch(6, (24, 96, 96))
DOWNSAMPLED, LARGE_DOWNSAMPLED = Batch(32, (16, 48, 48), downsampled=True), Batch(6, (24, 96, 96), downsampled=True)


@dataclass(frozen=True)
class RefinementRecipe:
    """A training of :class:`~NLSTSegLib.networks.refinement.RefinementNet`."""

    channels: tuple[int, int, int, int] = (16, 32, 64, 96)
    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    """Calcified nodules stand out from contrast in vessels, as they do not where all from 400 HU is one."""
    candidate_threshold: float = 0.08
    outline_threshold: float = 0.5
    min_volume_mm3: float = 0.0
    """Smallest volume of the card: what is small is for the score to tell."""
    batches: tuple[Batch, ...] = (SMALL, LARGE_DOWNSAMPLED, SMALL, LARGE, SMALL, LARGE_DOWNSAMPLED, SMALL, DOWNSAMPLED)
    """Batches, which take turns."""
    shares: Shares = field(default_factory=Shares)
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(
            zoom=(0.75, 1.4), rotation_degrees=180.0, flips=True, shift_hu=25.0, contrast=0.08, noise_hu=15.0, blur_share=0.25
        )
    )
    own_pixels: float = 0.7
    """Share of the cut-outs that are neither scaled nor turned but by quarters, as a CT is."""
    mass_zoom: tuple[float, float] = (1.5, 5.0)
    """Zoom of the nodules that are transplanted in large cut-outs."""
    low_resolution_masses: float = 0.45
    """Share of masses in the batches at half the resolution; what is left of them are organs."""
    low_resolution_mass_mm: tuple[float, float] = (24.0, 110.0)
    thickest_mm: float = 8.0
    thicker: float = 0.4
    """Share of the chests of a block whose slices are averaged up to this thickness."""
    contrast: float = 0.4
    """Share of the chests of a block, and of the cut-outs of crops, that are shown with contrast in the blood."""
    continued: float = 0.5
    """Share of the crops that go on beyond their stack."""
    cut_short: float = 0.35
    """Share of all that is shown as if the CT ended near the candidate."""
    anywhere: float = 0.35
    """Share of what is no lesion that the first network did not mark: vessels and walls."""
    anywhere_in_organs: float = 0.6
    """The same at half the resolution."""
    off_middle_px: float = 4.0
    block_batches: int = 300
    block_cases: int = 40
    """Chests that are held in memory for a number of batches, before others take their place."""
    epochs: int = 12
    epoch_steps: int = 200
    validation_steps: int = 18
    learning_rate: float = 1e-3
    further_rate: float = 5e-4
    """Learning rate of a network that is trained already."""
    weight_decay: float = 1e-4
    average_decay: float = 0.995
    gradient_norm: float = 1.0
    """Longer gradients are cut to this."""
    score_weight: float = 1.0
