"""The CT to learn from: LIDC-IDRI nodule crops, whole chests with votes, and background slices without lesions."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    """Every nodule crop of ``data/lidc_nodules``, dropped slices filled with their lower neighbour."""
    files = sorted((data / "lidc_nodules").glob("*.npz"))
    if not files:
        raise InputError(f"no nodule crops in '{data / 'lidc_nodules'}'; name the folder that holds lidc_nodules/ with --data")
    stacks = []
    for file in files:
        with np.load(file) as crop:
            hu = crop["pixels"] * crop["hu_slope"][:, None, None] + crop["hu_intercept"][:, None, None]
            index = crop["slice_index"] - crop["slice_index"][0]
            # Where slices were dropped the one below stands in, so a step in k is a step in millimetres.
            filled = np.searchsorted(index, np.arange(index[-1] + 1), side="right") - 1
            spacing = tuple(float(s) for s in crop["spacing_zyx_mm"])
            stacks.append(
                Stack(file.stem, file.stem.split("_")[0], np.rint(hu).astype(np.int16)[filled], crop["votes"][filled], spacing)
            )
    return stacks


def load_chests(data: Path) -> list[Stack]:
    """The whole chests of ``data/ct`` with the readers' votes."""
    import SimpleITK as sitk

    from NLSTSegLib.reading import read_ct

    stacks = []
    for folder in sorted((data / "ct").iterdir()):
        ct = read_ct(folder / "dicom" if (folder / "dicom").is_dir() else folder / "ct.nrrd")
        votes = sitk.GetArrayFromImage(sitk.ReadImage(folder / "votes.nrrd"))
        # Where only two readers marked at all, both of them agreeing counts as all.
        votes = votes * (4 // max(1, int(votes.max())))
        stacks.append(Stack(folder.name, folder.name, ct.hu, votes, ct.spacing_ijk_mm[::-1], lung_field(ct)))
    return stacks


def load_background(data: Path) -> list[Stack]:
    """Slices of ``data/background`` without an evident lesion, cut into runs of evenly spaced slices.

    Slices marked uncertain are left out.
    """
    with open(data / "background.csv", newline="") as table:
        patients = {row["file"]: row["patient"] for row in csv.DictReader(table)}
    stacks = []
    for name, patient in patients.items():
        with np.load(data / "background" / name) as file:
            hu = file["pixels"].astype(np.int16) * 6 - 1024
            z_mm, certain, thickness_mm = file["z_mm"], ~file["uncertain"], file["slice_thickness_mm"]
            spacing_ji = tuple(float(s) for s in file["spacing_yx_mm"])
        steps = np.diff(z_mm)
        usual = float(np.median(np.abs(steps))) if len(steps) else float(thickness_mm[0])
        breaks = (np.abs(np.abs(steps) - usual) > 0.1).nonzero()[0] + 1
        for run in np.split(np.arange(len(z_mm)), breaks):
            keep = run[certain[run]]
            if len(keep) == 0:
                continue
            part = slice(keep[0], keep[-1] + 1)
            ct = CtVolume(hu[part], (spacing_ji[1], spacing_ji[0], usual))
            lungs = lung_field(ct)
            if lungs is not None:
                lungs = lungs & certain[part][:, None, None]
                stacks.append(
                    Stack(
                        f"{Path(name).stem}:{run[0]}",
                        patient,
                        ct.hu,
                        np.zeros(ct.hu.shape, np.uint8),
                        ct.spacing_ijk_mm[::-1],
                        lungs,
                    )
                )
    return stacks
