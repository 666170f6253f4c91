"""The recipe of the bundled model, its card, and the one function that makes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nlstseg_training.bundle import write_bundle
from nlstseg_training.evaluate import evaluate_chest, evaluate_nodules, summary
from nlstseg_training.fit import FitOptions, fit
from nlstseg_training.patches import PatchRecipe
from nlstseg_training.sources import is_validation, load_background, load_chests, load_nodules
from NLSTSegLib.inference import InputSpec
from NLSTSegLib.models import DEFAULT_MODEL, Architecture, Model, ModelCard
from NLSTSegLib.networks.unet import UNet, UNetConfig

CONFIG = UNetConfig(dimensions=2, input_slices=5, channels=(16, 32, 64, 128, 160))
"""Full resolution is cheap and thin; the width sits where a vessel is told from a nodule."""

SPEC = InputSpec(window_hu=(-1000.0, 400.0), slices=5, slice_step_mm=2.0, margin_px=32)
"""Lung parenchyma to contrast-filled vessels; two neighbours each way, about 2 mm apart."""

CARD = ModelCard(
    format=1,
    name=DEFAULT_MODEL,
    version="1.0",
    description="2.5D U-Net (five slices in, one out) for lung nodules and masses in chest CT.",
    architecture=Architecture("unet", CONFIG.dimensions, CONFIG.channels, CONFIG.normalization, CONFIG.residual),  # type: ignore[arg-type]
    input=SPEC,
    orientation="LPS",
    spacing_note="in-plane 0.46-0.98 mm, slices 0.45-2.5 mm; lesions 3-32 mm, and larger ones by enlarging them",
    threshold=0.4,
    min_volume_mm3=15.0,
    classes=("lesion",),
    training_data=(
        "LIDC-IDRI nodule crops (80 % of 446 patients, target: share of up to four readers), one whole LIDC-IDRI chest, "
        "slices without evident lesions of TCGA-LUAD, TCGA-LUSC, CMB-CRC, CPTAC-PDA, Lung-Fused-CT-Pathology and "
        "StageII-Colorectal-CT. Not trained on NLST or NLSTseg."
    ),
    attribution=(
        "LIDC-IDRI: Armato et al., doi 10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0; TCIA collections TCGA-LUAD, TCGA-LUSC, "
        "CPTAC-PDA, Lung-Fused-CT-Pathology, StageII-Colorectal-CT (CC BY 3.0), CMB-CRC (CC BY 4.0); Clark et al., "
        "J Digit Imaging 2013, doi 10.1007/s10278-013-9622-7."
    ),
    licence="CC BY 4.0 for the weights, with the attribution of the data",
    intended_use=(
        "Research and teaching; not for clinical use. A mark says that something looks like a nodule, not that it is cancer; "
        "expect false marks on vessels, and check every one."
    ),
)
"""Card of the bundled model; ``train_default`` adds the figures and the hash."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the training; each starts from the weights of the one before and from the false positives they make."""

    name: str
    epochs: int
    learning_rate: float
    mine_every_epochs: int
    recipe: PatchRecipe


PHASES = (
    # What a nodule is and what a vessel is: every stack ends with slices free of the nodule.
    Phase("first", 16, 2e-3, 3, PatchRecipe()),
    # Then the same at stacks that end inside the nodule, where inference repeats the end slice.
    Phase("second", 5, 7e-4, 2, PatchRecipe(crops=0.5, transplants=0.2, repeated_ends=0.6)),
    Phase("third", 4, 5e-4, 2, PatchRecipe(crops=0.6, transplants=0.15, mined=0.15, repeated_ends=0.8)),
)
"""About 100 minutes on two idle cores with bfloat16."""


def train_default(data: Path, out: Path, *, seed: int) -> None:
    """Train on the training patients of ``data``, measure on the validation patients and write the bundle ``out/lidc-25d``.

    Each phase has a folder of its name in ``out``; a run that was stopped goes on.
    """
    nodules = load_nodules(data)
    stacks = load_chests(data) + load_background(data)
    train = [[stack for stack in part if not is_validation(stack.patient, seed)] for part in (nodules, stacks)]
    network: UNet | None = None
    for n, phase in enumerate(PHASES):
        options = FitOptions(
            epochs=phase.epochs,
            learning_rate=phase.learning_rate,
            mine_every_epochs=phase.mine_every_epochs,
            seed=seed + n,
        )
        network = fit(CONFIG, SPEC, *train, out / phase.name, options=options, recipe=phase.recipe, start=network)
    model = Model(CARD, network.float())
    results = evaluate_nodules(model, [stack for stack in nodules if is_validation(stack.patient, seed)])
    chests = [evaluate_chest(model, stack) for stack in stacks if is_validation(stack.patient, seed) and stack.votes.any()]
    metrics = {"validation": summary(results, chests), "seed": seed}
    write_bundle(network, dataclasses.replace(CARD, metrics=metrics), out / DEFAULT_MODEL)
