"""From the collected CTs to the bundled model, with its split, seeds and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nlstseg_training.data.cache import Split, write_json
from nlstseg_training.export.card import Texts
from nlstseg_training.export.export import export
from nlstseg_training.fitting.machine import Machine
from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER, SPLIT_FILE, begin_run, fit_run, new_run
from nlstseg_training.recipe import read_recipe
from nlstseg_training.refinement.recipe import DOWNSAMPLED, LARGE, LARGE_DOWNSAMPLED, SMALL, Batch, RefinementRecipe
from nlstseg_training.refinement.workflow import add_refinement
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import find_model, load_model
from NLSTSegLib.models.card import ModelCard
from NLSTSegLib.progress import Progress, silent

NAME, CACHE_FOLDER = "lidc-25d", "cache"

ATTRIBUTION = (
    "TCIA collections CMB-CRC, RIDER Pilot, CPTAC-LSCC (CC BY 4.0), Lung-Fused-CT-Pathology, ACRIN-FLT-Breast, CPTAC-PDA, "
    "C4KC-KiTS (CC BY 3.0; Heller et al. 2019, doi 10.7937/TCIA.2019.IX49E8NX)"
)
"""Sources of the chests without reader masks."""


@dataclass(frozen=True)
class Cycle:
    """One training of the refinement network, from the result of the one before."""

    version: str
    seed: int
    steps: int
    rate: float
    batches: tuple[Batch, ...]


FIRST = Cycle("2.0", 0, 2400, 1e-3, (SMALL, SMALL, SMALL, LARGE))

HALF_OF_MASSES = (SMALL, LARGE_DOWNSAMPLED, SMALL, LARGE, SMALL, LARGE_DOWNSAMPLED, SMALL, DOWNSAMPLED)

FURTHER = (
    Cycle("2.5-first", 5, 600, 4e-4, HALF_OF_MASSES),
    Cycle("2.5-second", 6, 500, 4e-4, HALF_OF_MASSES),
    Cycle("2.5", 7, 200, 3e-4, (SMALL, LARGE_DOWNSAMPLED, SMALL, LARGE, SMALL, LARGE)),
)


def make_shipped(
    out: Path,
    split: Split,
    base: str | None,
    *,
    cycles: Sequence[Cycle] = FURTHER,
    recipe: RefinementRecipe | None = None,
    machine: Machine | None = None,
    device: DeviceRequest | None = None,
    progress: Progress = silent,
) -> ModelCard:
    """Train on the cases of ``out/cache``: further from the bundle ``base`` (2.4 for the shipped weights), or from nothing.

    The model is in the bundle of the last cycle's folder in ``out``. What is done already is not done again. Raises as the
    trainings do.
    """
    write_json(out / SPLIT_FILE, split)
    model = base or str(_first_network(out, split, machine, progress))
    for cycle in cycles if base else (FIRST, *cycles):
        folder = out / cycle.version
        if not (folder / BUNDLE_FOLDER).exists():
            rates: dict[str, Any] = {"learning_rate": cycle.rate, "further_rate": cycle.rate}
            add_refinement(
                load_model(find_model(model)),
                out / CACHE_FOLDER,
                out / SPLIT_FILE,
                folder,
                recipe=replace(recipe or RefinementRecipe(), epochs=1, epoch_steps=cycle.steps, batches=cycle.batches, **rates),
                further=cycle is not FIRST,
                seed=cycle.seed,
                texts=Texts(NAME, cycle.version, attribution=ATTRIBUTION if cycle is cycles[0] else ""),
                machine=machine,
                device=device,
                progress=progress,
            )
        model = str(folder / BUNDLE_FOLDER)
    return find_model(model).card


def _first_network(out: Path, split: Split, machine: Machine | None, progress: Progress) -> Path:
    folder = out / "first"
    bundle = folder / BUNDLE_FOLDER
    if not bundle.exists():
        run = new_run(read_recipe("default"), out / CACHE_FOLDER, split, seed=0)
        begin_run(folder, run, split)
        fit_run(folder, run, split, machine=machine)
        export(folder, bundle, Texts(NAME, "1.0"), progress=progress)
    return bundle
