"""The files of a case of the cache: written once, with what no training changes, and compared with their hashes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nlstseg_training.data.aerated import DEEP_SLICES, aerated
from nlstseg_training.data.arrays import ENDING, file_sha256, write_array
from nlstseg_training.data.cache import CASE_FILE, CaseEntry, write_json
from NLSTSegLib.errors import InputError
from NLSTSegLib.volume.ct import CtVolume

LUNG_PLACES_FILE, LESION_PLACES_FILE = "lung_places.npy", "lesion_places.npy"

MOST_LUNG_PLACES, MOST_LESION_PLACES = 20_000, 5_000
"""Drawn once, of a chest and of each lesion: enough for a whole training, and small enough to be kept in memory for all cases."""

CHECKING_THREADS = 4
"""Read and hash files side by side."""

PLACE_STEP_PX = 4
"""Places in the lungs are drawn from every fourth row and column."""


def write_case(
    folder: Path, entry: CaseEntry, ct: CtVolume, labels: np.ndarray, target: np.ndarray | None, lungs: np.ndarray | None
) -> CaseEntry:
    """Write the files of a case to its folder, which is there; returns ``entry`` with their hashes, as it is in ``case.json``.

    ``target`` is None where it is that of one reader (:func:`sure_target`).
    """
    volumes = {"ct": ct.hu, "labels": labels, "target": target, "lungs": lungs}
    if lungs is not None and len(ct.hu) >= DEEP_SLICES:
        volumes["air"] = aerated(ct.hu, lungs, ct.spacing_ijk_mm[::-1])
    for name, array in volumes.items():
        if array is not None:
            write_array(folder / (name + ENDING), array, ct if name == "ct" else None)
    if entry.kind != "crop":
        rng = np.random.default_rng(0)
        inside = np.ones(ct.hu.shape, bool) if lungs is None else lungs
        places = np.argwhere(inside[:, ::PLACE_STEP_PX, ::PLACE_STEP_PX]) * (1, PLACE_STEP_PX, PLACE_STEP_PX)
        np.save(folder / LUNG_PLACES_FILE, _drawn(places, MOST_LUNG_PLACES, rng).astype(np.int16))
        lesions = [np.argwhere(labels == lesion.label) for lesion in entry.lesions]
        of_labels = [
            np.insert(_drawn(voxels, MOST_LESION_PLACES, rng), 0, lesion.label, axis=1)
            for lesion, voxels in zip(entry.lesions, lesions, strict=True)
        ]
        np.save(folder / LESION_PLACES_FILE, np.concatenate([np.zeros((0, 4), int), *of_labels]).astype(np.int16))
    hashes = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != CASE_FILE}
    entry = dataclasses.replace(entry, files_sha256=hashes)
    write_json(folder / CASE_FILE, entry)
    return entry


def _drawn(places: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return places if len(places) <= most else places[np.sort(rng.choice(len(places), most, replace=False))]


def damaged_file(cache: Path, entry: CaseEntry) -> Path | None:
    """The first file of a case that is gone or is not what was prepared."""
    for name, sha256 in entry.files_sha256.items():
        path = cache / entry.id / name
        try:
            if file_sha256(path) != sha256:
                return path
        except OSError:
            return path
    return None


def check_files(cache: Path, entries: Sequence[CaseEntry]) -> None:
    """Compare every file of the cases with its hash; raises :class:`InputError` that names the first one that differs."""
    with ThreadPoolExecutor(CHECKING_THREADS) as pool:
        for entry, path in zip(entries, pool.map(lambda entry: damaged_file(cache, entry), entries), strict=True):
            if not entry.files_sha256:
                raise InputError(f"'{cache / entry.id}' was prepared by an earlier version; prepare the case again")
            if path is not None:
                raise InputError(f"'{path}' is not what was prepared: it is damaged or was changed; prepare the case again")
