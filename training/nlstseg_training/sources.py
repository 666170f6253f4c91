"""The CT to learn from: LIDC-IDRI nodule crops, whole chests with votes, and background slices without lesions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.readers.lidc import background_patients, background_runs, read_chest, read_nodule
from NLSTSegLib.errors import InputError
from NLSTSegLib.lungs import lung_field
from NLSTSegLib.volume import CtVolume

VALIDATION_SHARE = 0.2
"""Part of the LIDC-IDRI patients kept for validation."""

VALIDATION_CHESTS = ("LIDC-IDRI-0001",)
"""Whole chests never trained on."""


@dataclass(frozen=True)
class Stack:
    """Neighbouring axial slices of one patient.

    ``hu`` int16 and ``votes`` uint8 (readers that marked the voxel, 0-4) have the shape ``[k, j, i]``. ``lungs`` is a
    boolean lung field for whole slices and ``None`` for nodule crops.
    """

    name: str
    patient: str
    hu: np.ndarray
    votes: np.ndarray
    spacing_kji_mm: tuple[float, float, float]
    lungs: np.ndarray | None = None


def is_validation(patient: str, seed: int = 0) -> bool:
    """Patient-level split that depends on nothing but the name and the seed."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return patient in VALIDATION_CHESTS or int.from_bytes(digest[:4], "big") / 2**32 < VALIDATION_SHARE


def load_nodules(data: Path) -> list[Stack]:
    """Every nodule crop of ``data/lidc_nodules``."""
    files = sorted((data / "lidc_nodules").glob("*.npz"))
    if not files:
        raise InputError(f"no nodule crops in '{data / 'lidc_nodules'}'; name the folder that holds lidc_nodules/ with --data")
    crops = ((file, *read_nodule(file)) for file in files)
    return [Stack(file.stem, file.stem.split("_")[0], ct.hu, votes, ct.spacing_ijk_mm[::-1]) for file, ct, votes in crops]


def load_chests(data: Path) -> list[Stack]:
    """The whole chests of ``data/ct`` with the readers' votes."""
    chests = ((folder.name, *read_chest(folder)) for folder in sorted((data / "ct").iterdir()))
    return [Stack(name, name, ct.hu, votes, ct.spacing_ijk_mm[::-1], lung_field(ct)) for name, ct, votes in chests]


def load_background(data: Path) -> list[Stack]:
    """Slices of ``data/background`` without an evident lesion; slices marked uncertain are left out."""
    stacks = []
    for name, patient in background_patients(data).items():
        for hu, spacing_kji_mm, certain, first in background_runs(data / "background" / name):
            lungs = lung_field(CtVolume(hu, spacing_kji_mm[::-1]))
            if lungs is not None:
                field, votes = lungs & certain[:, None, None], np.zeros(hu.shape, np.uint8)
                stacks.append(Stack(f"{Path(name).stem}:{first}", patient, hu, votes, spacing_kji_mm, field))
    return stacks
