"""How well ``segment()`` outlines masses that are put into the lungs of a CT: ``masses.py CT``, or ``masses.py --help``.

Each is a lobed ellipsoid of soft tissue somewhere in the lungs, cut off where the lungs end, so that some lie on the wall, the
mediastinum or the diaphragm. They are made by another formula than those of the training package.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from rich.console import Console
from rich.table import Table

from NLSTSegLib.inference.lung_field import MARGIN_MM, lung_field
from NLSTSegLib.models.bundle import DEFAULT_MODEL, find_model, load_model
from NLSTSegLib.pipeline import segment
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume, to_canonical

DIAMETERS_MM = (46.0, 88.0)
"""50 to 350 ml, before what lies beyond the lungs is cut off."""

LEAST_ML = 40.0
"""Of one that too little is left of another is made."""

DEPTH = (0.2, 1.0)
"""Of the middle below the lung's surface, as a share of the radius."""

SOFT_HU, GRAIN_HU = (0.0, 60.0), 12.0
"""Mean of a mass, and its texture."""


def main() -> None:
    """Print a line for each mass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ct", type=Path, help="file or DICOM folder of a chest CT")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or bundle")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ct, model = to_canonical(read_ct(options.ct)), load_model(find_model(options.model))
    depth_mm = depth_below_surface(ct)
    rng = np.random.default_rng(options.seed)
    table = Table("ml", "middle k j i", "in the lung", "Dice", "score", "other marks", "s")
    dices = []
    for _ in range(options.count):
        mass, hu, middle, within = mass_in(ct, depth_mm, rng)
        start = time.perf_counter()
        result = segment(dataclasses.replace(ct, hu=hu), model)
        seconds = time.perf_counter() - start
        shared = {lesion.label: np.count_nonzero(mass & (result.labels == lesion.label)) for lesion in result.lesions}
        best = max(result.lesions, key=lambda lesion: shared[lesion.label], default=None)
        found = np.zeros(mass.shape, bool) if best is None or not shared[best.label] else result.labels == best.label
        dices.append(2 * np.count_nonzero(mass & found) / (np.count_nonzero(mass) + np.count_nonzero(found)))
        score = f"{best.score:.2f}" if best is not None and found.any() else ""
        others = len(result.lesions) - bool(found.any())
        volume_ml = np.count_nonzero(mass) * ct.voxel_volume_mm3 / 1000
        place = " ".join(str(n) for n in middle)
        table.add_row(f"{volume_ml:.0f}", place, f"{within:.0%}", f"{dices[-1]:.2f}", score, str(others), f"{seconds:.0f}")
    console = Console(width=120)
    console.print(table)
    console.print(f"{model.card.name} {model.card.version}: mean Dice {np.mean(dices):.3f}")


def depth_below_surface(ct: CtVolume) -> np.ndarray:
    """float32 ``[k, j, i]`` in mm: how deep in the lungs, with their vessels and hila; below 0 outside."""
    lung_mask = lung_field(ct)
    if lung_mask is None:
        raise SystemExit("no lungs were found in the CT; give one of a whole chest")
    image = sitk.GetImageFromArray(lung_mask.astype(np.uint8))
    image.SetSpacing(ct.spacing_ijk_mm)
    inside = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(inside) - MARGIN_MM


def mass_in(ct: CtVolume, depth_mm: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Its voxels (bool), the CT with it (int16), its middle (k, j, i), and the share of it that was not cut off."""
    spacing_kji = np.array(ct.spacing_ijk_mm[::-1])
    while True:
        radius_mm = np.exp(rng.uniform(*np.log(DIAMETERS_MM))) / 2
        low, high = (share * radius_mm for share in DEPTH)
        possible = np.argwhere((depth_mm > low) & (depth_mm < high))
        if not len(possible):
            continue
        middle = possible[rng.integers(len(possible))]
        share = _share(ct.hu.shape, middle, spacing_kji, radius_mm, rng)
        whole = np.count_nonzero(share >= 0.5)
        share *= np.clip(depth_mm / spacing_kji[2] + 0.5, 0, 1)
        mass = share >= 0.5
        if np.count_nonzero(mass) * ct.voxel_volume_mm3 >= LEAST_ML * 1000:
            break
    grain = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(rng.standard_normal(mass.shape).astype(np.float32)), 1.0)
    texture = sitk.GetArrayFromImage(grain)
    lesion_hu = rng.uniform(*SOFT_HU) + texture * (GRAIN_HU / texture.std())
    hu = np.round(ct.hu * (1 - share) + share * np.maximum(lesion_hu, ct.hu)).astype(np.int16)
    return mass, hu, middle, np.count_nonzero(mass) / whole


def _share(
    shape: tuple[int, ...], middle: np.ndarray, spacing_kji: np.ndarray, radius_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """float32 ``[k, j, i]``, 0..1: the ellipsoid with waves over its surface."""
    axes = [((np.arange(side) - at) * mm).astype(np.float32) for side, at, mm in zip(shape, middle, spacing_kji, strict=True)]
    away = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) / np.float32(rng.uniform(0.8, 1.25, 3))
    distance = np.linalg.norm(away, axis=-1)
    direction = away / np.maximum(distance, 1e-3)[..., None]
    surface = np.ones(shape, np.float32)
    for _ in range(5):
        surface += rng.uniform(0.02, 0.07) * np.cos(
            direction @ rng.normal(0, 3, 3).astype(np.float32) + rng.uniform(0, 2 * np.pi)
        )
    return np.clip((radius_mm * surface - distance) / spacing_kji[2] + 0.5, 0, 1).astype(np.float32)


if __name__ == "__main__":
    main()
