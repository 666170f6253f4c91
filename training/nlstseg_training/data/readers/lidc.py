"""The LIDC-IDRI nodule crops, whole chests and background slices of one folder (its README describes them).

``lidc_nodules/<patient>_nodule-<n>.npz``, ``ct/<patient>/{dicom/ | ct.nrrd}`` with ``votes.nrrd``, and ``background.csv`` with
``background/<name>.npz``. Where several readers marked, the reference is what two or more of them marked, and the soft target
follows their number.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.data.cache import Refusal
from nlstseg_training.data.readers.source import Found, RawCase, Source, file_states
from nlstseg_training.data.readers.zip_files import DAMAGED
from NLSTSegLib.disk.free_name import is_plain_name
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.reading.read import read_ct, read_labels
from NLSTSegLib.volume.components import component_labels
from NLSTSegLib.volume.ct import CtVolume

TARGET_OF_VOTES = np.array([0.0, 0.3, 0.7, 0.9, 1.0], np.float32)
"""Soft target by number of readers: above one half where two or more agree, as the reference mask is defined."""

MOST_VOTES = 4

DAMAGED_FILE = (*DAMAGED, OSError, IndexError, TypeError)
"""What numpy raises for a damaged file, and reading on for one of another layout."""

LARGEST_UNPACKED_BYTES = 200_000_000
"""Size of a file of crops or background slices; the largest that ship have 1.6 and 17 MB. Packed, zeros take a thousandth."""

MOST_CROP_VOXELS = 50_000_000
"""Voxels with the slices that were dropped filled; the largest crop that ships has 0.8 million."""

EVEN_MM = 0.1
"""Background slices whose distances differ by more are not neighbours."""


@dataclass(frozen=True, kw_only=True)
class LidcSource(Source):
    """One file of crops, or the folder of a chest; ``run`` counts the evenly spaced parts of a background file."""

    place: Path
    run: int = 0

    def state(self) -> str:
        return file_states([self.place])

    def read(self) -> RawCase:
        if self.place.is_dir():
            return _raw(*read_chest(self.place), "chest")
        try:
            if self.id.startswith(f"{self.patient}_nodule"):
                return _raw(*read_nodule(self.place), "crop")
            hu, spacing_kji_mm, certain, _ = list(background_runs(self.place))[self.run]
        except DAMAGED_FILE as error:
            raise InputError(f"'{self.place}' is damaged or of another layout; get it again") from error
        ct = CtVolume(hu, spacing_kji_mm[::-1])
        lungs = lung_field(ct)
        if lungs is None:
            raise InputError(f"no lungs were found in part {self.run} of '{self.place}', so there is no background to learn from")
        labels = np.zeros(hu.shape, np.uint8)
        return RawCase(ct, labels, "background", complete=False, lungs=lungs & certain[:, None, None])


def find_lidc(root: Path) -> Found:
    """All three kinds of ``root``; a kind whose folder is not there has no cases."""
    crops = sorted((root / "lidc_nodules").glob("*.npz"))
    chests = sorted(path.parent for path in (root / "ct").glob("*/votes.nrrd"))
    sources = [LidcSource(id=file.stem, patient=file.stem.split("_")[0], reader="lidc", place=file) for file in crops]
    sources += [LidcSource(id=folder.name, patient=folder.name, reader="lidc", place=folder) for folder in chests]
    refused = []
    try:
        patients = background_patients(root)
    except DAMAGED_FILE as error:
        patients = {}
        refused.append(Refusal("background.csv", "lidc", f"it cannot be read ({error}), so no background is; get it again"))
    for name, patient in patients.items():
        if not is_plain_name(name):
            refused.append(Refusal(name, "lidc", "background.csv must name a file of background/; get it again"))
            continue
        path = root / "background" / name
        try:
            runs = len(list(background_runs(path)))
        except DAMAGED_FILE:
            refused.append(Refusal(path.stem, "lidc", f"'{path}' is damaged or of another layout; get it again"))
            continue
        for run in range(runs):
            case_id = f"{path.stem}_run-{run}"
            sources.append(LidcSource(id=case_id, patient=patient, reader="lidc", place=path, run=run))
    if not sources:
        raise InputError(f"there is neither lidc_nodules/, ct/ nor background.csv in '{root}'; name the folder that holds them")
    return Found(tuple(sources), tuple(refused))


def read_nodule(file: Path) -> tuple[CtVolume, np.ndarray]:
    """A crop and its votes, uint8 ``[k, j, i]``; a slice that was dropped is filled with its lower neighbour."""
    crop = _arrays(file)
    hu = crop["pixels"] * crop["hu_slope"][:, None, None] + crop["hu_intercept"][:, None, None]
    index = crop["slice_index"].astype(int) - int(crop["slice_index"][0])
    if (index[-1] + 1) * hu[0].size > MOST_CROP_VOXELS:
        raise ValueError(f"its slice numbers tell of {index[-1] + 1} slices")
    # So a step in k is a step in millimetres.
    filled = np.searchsorted(index, np.arange(index[-1] + 1), side="right") - 1
    k_mm, j_mm, i_mm = (float(s) for s in crop["spacing_zyx_mm"])
    return CtVolume(np.rint(hu).astype(np.int16)[filled], (i_mm, j_mm, k_mm)), crop["votes"][filled]


def read_chest(folder: Path) -> tuple[CtVolume, np.ndarray]:
    """A whole chest and its votes, uint8 ``[k, j, i]``; where only two readers marked at all, both agreeing counts as four."""
    ct = read_ct(folder / "dicom" if (folder / "dicom").is_dir() else folder / "ct.nrrd")
    votes = read_labels(folder / "votes.nrrd", ct).astype(np.uint8)
    return ct, votes * np.uint8(MOST_VOTES // max(1, int(votes.max())))


def background_patients(root: Path) -> dict[str, str]:
    """Patient by file name."""
    path = root / "background.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as table:
        return {row["file"]: row["patient"] for row in csv.DictReader(table)}


def background_runs(path: Path) -> Iterator[tuple[np.ndarray, tuple[float, float, float], np.ndarray, int]]:
    """Runs of evenly spaced slices: int16 HU ``[k, j, i]``, spacing (k, j, i) in mm, which slices surely hold no lesion, and
    the number of the first; uncertain slices at the ends are cut off, and runs of nothing else left out."""
    file = _arrays(path)
    hu = file["pixels"].astype(np.int16) * 6 - 1024
    z_mm, certain, thickness_mm = file["z_mm"], ~file["uncertain"], file["slice_thickness_mm"]
    j_mm, i_mm = (float(s) for s in file["spacing_yx_mm"])
    steps = np.diff(z_mm)
    usual = float(np.median(np.abs(steps))) if len(steps) else float(thickness_mm[0])
    breaks = (np.abs(np.abs(steps) - usual) > EVEN_MM).nonzero()[0] + 1
    for run in np.split(np.arange(len(z_mm)), breaks):
        keep = run[certain[run]]
        if len(keep):
            part = slice(keep[0], keep[-1] + 1)
            yield hu[part], (usual, j_mm, i_mm), certain[part], int(run[0])


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """What an ``.npz`` file holds; raises one of :data:`DAMAGED_FILE` when it is damaged, or would fill the memory."""
    with zipfile.ZipFile(path) as packed:
        if sum(member.file_size for member in packed.infolist()) > LARGEST_UNPACKED_BYTES:
            raise ValueError("it unpacks to more than a crop or some slices take")
    with np.load(path) as file:
        return dict(file)


def _raw(ct: CtVolume, votes: np.ndarray, kind: str) -> RawCase:
    agreed = votes >= 2
    # A crop is of one nodule; a chest's votes do not say which are of one.
    labels = agreed.astype(np.uint8) if kind == "crop" else component_labels(agreed)
    target = np.rint(255 * TARGET_OF_VOTES).astype(np.uint8)[votes]
    return RawCase(ct, labels, kind, complete=True, target=target)  # type: ignore[arg-type]
