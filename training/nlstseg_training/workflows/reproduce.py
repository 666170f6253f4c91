"""From the NLSTseg zips to the published table: cases, split, training, bundle, and what others got beside what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlstseg_training.data.cache import Manifest, Split, read_split, write_json
from nlstseg_training.data.split import make_split
from nlstseg_training.evaluation.evaluate import read_evaluation
from nlstseg_training.evaluation.metrics.published_protocol import PUBLISHED_IOU
from nlstseg_training.export.card import Texts
from nlstseg_training.export.export import export
from nlstseg_training.fitting.curves import LoggerName
from nlstseg_training.fitting.machine import Machine
from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER, SPLIT_FILE, begin_run, fit_run, new_run, rate_of
from nlstseg_training.recipe import Recipe
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.progress import Progress, silent

CACHE_FOLDER, FIT_FOLDER = "cache", "fit"
"""Folders in that of a reproduction."""

PUBLISHED_PROTOCOL = "published protocol: slices with tumour only, logit above 0.5"

PER_CASE = "per case, 3D"


@dataclass(frozen=True)
class Row:
    """A figure, whose it is, how it was measured, and where it stands."""

    system: str
    protocol: str
    figures: str
    source: str


PUBLISHED_ROWS = (
    Row(
        "published 2D U-Net", f"{PUBLISHED_PROTOCOL}; epoch chosen on the same slices", f"IoU {PUBLISHED_IOU}", "Chen et al. 2025"
    ),
    Row(
        "nnU-Net v2 3d_fullres, trained on NLSTseg",
        f"{PER_CASE}; 121 cases of another split",
        "Dice 0.612, IoU 0.499, pooled precision 0.57, recall 0.73",
        "Lab-Rasool/CLN-Segmenter, fold 0",
    ),
    Row(
        "the same, MSD Task06 added",
        f"{PER_CASE}; 121 cases of another split",
        "Dice 0.617, IoU 0.512",
        "Lab-Rasool/CLN-Segmenter, fold 0",
    ),
)
"""What is published of NLSTseg. Nobody's split is known, so no two rows were measured on the same cases."""


def reproduce(
    out: Path,
    manifest: Manifest,
    recipe: Recipe,
    *,
    seed: int = 0,
    rate: float | None = None,
    logger: LoggerName = "tensorboard",
    machine: Machine | None = None,
    device: DeviceRequest | None = None,
    on_split: Callable[[Split], None] = lambda split: None,
    progress: Progress = silent,
) -> list[Row]:
    """Split the cases of ``out/cache``, train, measure, write ``out/bundle``; what is done already is not done again.

    Returns the rows of the table, those of the new model first. Raises :class:`InputError` when other cases, another seed
    or another recipe were begun with, and as the steps do.
    """
    run_folder, bundle = out / FIT_FOLDER, out / BUNDLE_FOLDER
    with held(run_folder):
        split = make_split(manifest, seed=seed)
        if (out / SPLIT_FILE).exists() and read_split(out / SPLIT_FILE) != split:
            raise InputError(f"'{out / SPLIT_FILE}' was made of other cases or with another seed; choose another folder")
        write_json(out / SPLIT_FILE, split)
        on_split(split)
        run = new_run(recipe, out / CACHE_FOLDER, split, seed=seed, rate=rate_of(run_folder, rate))
        begin_run(run_folder, run, split)
        if bundle.exists():
            return [*own_rows(read_evaluation(run_folder / "test")), *PUBLISHED_ROWS]
        fit_run(run_folder, run, split, machine=machine, logger=logger)
        _, contents = export(run_folder, bundle, Texts(), device=device, progress=progress)
    return [*own_rows(contents["test"]), *PUBLISHED_ROWS]


def own_rows(content: dict[str, Any]) -> list[Row]:
    """The new model's, of its ``evaluation.json`` on the test part."""
    overlap, cases = content["overlap"][0], f"{content['cases']} test cases"
    figures = {
        "Dice": overlap["dice"],
        "IoU": overlap["iou"],
        "pooled precision": overlap["pooled_voxel_precision"],
        "recall": overlap["pooled_voxel_recall"],
    }
    told = ", ".join(f"{name} {_shown(estimate)}" for name, estimate in figures.items())
    return [
        Row("this model", PUBLISHED_PROTOCOL, f"IoU {_shown(content['published_protocol']['iou'])}", cases),
        Row("this model", PER_CASE, told, cases),
    ]


def _shown(estimate: dict[str, float | None]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return "n/a" if value is None else f"{value:.3f}{interval}"
