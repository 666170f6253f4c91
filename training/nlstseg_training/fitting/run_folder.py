"""What a training is made of, kept beside its checkpoints: so that it goes on as it began, and its bundle can say so.

The folder of a run holds ``run.json``, a copy of the split, a folder for each phase with checkpoints and logs, and later
what was measured (``validation/``, ``test/``) and the model (``bundle/``).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file

from nlstseg_training.data.cache import CaseEntry, Manifest, Split, read_json, read_manifest, read_split, write_json
from nlstseg_training.fitting.checkpoints import FINISHED
from nlstseg_training.fitting.curves import LoggerName
from nlstseg_training.fitting.fit import fit
from nlstseg_training.fitting.machine import Machine
from nlstseg_training.recipe import Recipe
from NLSTSegLib.disk.atomic_folder import NOT_COUNTED
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import Model, new_network
from NLSTSegLib.models.card import ModelIdentity, TrainingCases
from NLSTSegLib.networks.network import Network

RUN_FILE, SPLIT_FILE, BUNDLE_FOLDER = "run.json", "split.json", "bundle"

LIBRARIES = ("torch", "lightning", "monai", "numpy", "SimpleITK")
"""Whose versions are written down."""


@dataclass(frozen=True)
class Base:
    """The model that a training started from."""

    identity: ModelIdentity
    training_cases: TrainingCases


@dataclass(frozen=True)
class Run:
    """Everything that the weights depend on but the split, which is a file beside it."""

    format: Literal[1]
    recipe: Recipe
    seed: int
    cache: str
    cases_sha256: str
    """Hash of the scans and lesions of the training and validation cases."""
    base: Base | None = None
    rate: float = 1.0
    """Factor of the recipe's learning rates that it went on with when one was last given."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """Commit of the code and versions of the libraries."""


def new_run(recipe: Recipe, cache: Path, split: Split, *, seed: int, start: Model | None = None, rate: float = 1.0) -> Run:
    """Raises :class:`InputError` when a case is not in the cache, or the cache has another voxel spacing than the network."""
    manifest = read_manifest(cache)
    wanted = recipe.input.spacing_kji_mm
    if wanted is not None and manifest.spacing_kji_mm != wanted:
        numbers = " ".join(f"{step:g}" for step in wanted)
        raise InputError(f"the network wants voxels of another size than those of '{cache}'; prepare with --spacing {numbers}")
    base = None
    if start is not None:
        identity = ModelIdentity(**{each.name: getattr(start.card, each.name) for each in fields(ModelIdentity)})
        base = Base(identity, start.card.training_cases)
    return Run(1, recipe, seed, str(cache.absolute()), cases_digest(manifest, split), base, rate, made_with())


def begin_run(folder: Path, run: Run, split: Split) -> None:
    """Write ``run`` and the split to a new ``folder``; in one that is there already, check that it goes on with the same."""
    if (folder / RUN_FILE).exists():
        before = read_run(folder)
        for name, what in (("base", "start model"), ("recipe", "recipe"), ("seed", "seed"), ("cases_sha256", "cases")):
            if getattr(before, name) != getattr(run, name):
                raise InputError(f"the run in '{folder}' was begun with another {what}; choose another folder")
        if read_split(folder / SPLIT_FILE) != split:
            raise InputError(f"the run in '{folder}' was begun with another split; choose another folder")
        if (before.cache, before.rate) != (run.cache, run.rate):
            # The same cases in another place, or on at another rate.
            write_json(folder / RUN_FILE, replace(before, cache=run.cache, rate=run.rate))
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = {path.name for path in folder.iterdir()} - NOT_COUNTED - {SPLIT_FILE}
    except OSError as error:
        raise InputError(f"the folder '{folder}' cannot be used ({error.strerror}); choose another place") from error
    if others:
        raise InputError(f"'{folder}' is not empty and holds no run; choose a new folder")
    write_json(folder / SPLIT_FILE, split)
    write_json(folder / RUN_FILE, run)


def read_run(folder: Path) -> Run:
    """Raises :class:`InputError` when there is none or it is not valid."""
    return read_json(folder / RUN_FILE, Run, "name the folder that 'nlstseg-train fit' wrote to")


def rate_of(folder: Path, given: float | None) -> float:
    """``given``, else that of the run that is in ``folder`` already, else 1."""
    if given is not None:
        return given
    return read_run(folder).rate if (folder / RUN_FILE).exists() else 1.0


def fit_run(
    folder: Path,
    run: Run,
    split: Split,
    *,
    start: Model | None = None,
    machine: Machine | None = None,
    logger: LoggerName = "tensorboard",
) -> None:
    """Train, or go on; see :func:`nlstseg_training.fitting.fit.fit`."""
    manifest, cache = read_manifest(Path(run.cache)), Path(run.cache)
    train, validation = ([manifest.entry(case_id) for case_id in ids] for ids in (split.train, split.validation))
    network = None if start is None else start.network
    fit(run.recipe, cache, train, validation, folder, seed=run.seed, start=network, machine=machine, logger=logger, rate=run.rate)


def trained_network(folder: Path, run: Run) -> Network:
    """The network of a finished run, on the CPU, evaluating; raises :class:`InputError` when it is not finished."""
    weights = folder / run.recipe.phases[-1].name / FINISHED
    if not weights.exists():
        raise InputError(f"the training in '{folder}' is not finished; run the same 'fit' again, it goes on")
    network = new_network(run.recipe.architecture, run.recipe.input)
    network.load_state_dict(load_file(weights))
    return network.float().eval()


def cases_digest(manifest: Manifest, split: Split) -> str:
    """Hash of what the training and validation cases are."""
    entries = [manifest.entry(case_id) for part in (split.train, split.validation) for case_id in part]
    return hashlib.sha256(json.dumps([_facts(entry) for entry in entries]).encode()).hexdigest()


def smallest(entries: Sequence[CaseEntry]) -> CaseEntry:
    """The one with the fewest voxels."""
    return min(entries, key=lambda entry: (math.prod(entry.shape_kji), entry.id))


def _facts(entry: CaseEntry) -> list[Any]:
    return [entry.id, entry.kind, entry.scan_sha256, entry.spacing_kji_mm, [asdict(lesion) for lesion in entry.lesions]]


def made_with() -> dict[str, Any]:
    """Commit of the code, where it lies in its own repository, and versions."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    root = Path(__file__).resolve().parents[3]
    commit = _commit(root) if (root / ".git").exists() else ""
    return ({"commit": commit} if commit else {}) | {"python": platform.python_version()} | versions


def _commit(root: Path) -> str:
    """Commit as git names it, with ``-dirty`` where files were changed since; empty where git does not run."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
