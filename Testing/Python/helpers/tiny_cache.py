"""A cache of prepared cases, made in memory's time: crops with balls, and small chests with balls in noisy lung."""

from pathlib import Path

import numpy as np

from nlstseg_training.data.cache import MANIFEST_FILE, CaseEntry, LesionEntry, Manifest, write_json
from nlstseg_training.data.case_files import write_case
from NLSTSegLib.volume.ct import CtVolume

SPACING_KJI_MM = (2.0, 1.0, 1.0)


def ball(shape_kji, centre_kji, radius_mm) -> np.ndarray:
    axes = [(np.arange(n) - c) * step for n, c, step in zip(shape_kji, centre_kji, SPACING_KJI_MM, strict=True)]
    k, j, i = np.meshgrid(*axes, indexing="ij")
    return np.sqrt(k**2 + j**2 + i**2) < radius_mm


def crop_hu_and_labels(radius_mm: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball in noisy lung, as a crop of nodule slices only."""
    shape = (int(radius_mm / 2) * 2 + 1, 64, 64)
    labels = ball(shape, (shape[0] // 2, 32, 32), radius_mm).astype(np.uint8)
    return noisy_lung(shape, seed, labels), labels


def chest_hu_and_labels(seed: int, balls=((6, 50, 60, 6.0),)) -> tuple[np.ndarray, np.ndarray]:
    """Lung with a wall on one side, twelve slices; balls are (k, j, i, radius in mm)."""
    shape = (12, 96, 96)
    labels = np.zeros(shape, np.uint8)
    for label, (k, j, i, radius_mm) in enumerate(balls, start=1):
        labels[ball(shape, (k, j, i), radius_mm)] = label
    hu = noisy_lung(shape, seed, labels)
    hu[:, :, :20] = 40
    return hu, labels


def noisy_lung(shape, seed, labels) -> np.ndarray:
    return (np.random.default_rng(seed).normal(-850, 30, shape) + 900 * (labels > 0)).astype(np.int16)


class TinyCache:
    """Writes cases into ``folder`` and keeps the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[CaseEntry] = []

    def add(
        self, case_id: str, hu, labels, *, kind: str, complete: bool = True, spacing_kji_mm=SPACING_KJI_MM, target=None
    ) -> CaseEntry:
        place = self.folder / case_id
        place.mkdir(parents=True)
        ct = CtVolume(hu, spacing_kji_mm[::-1])
        lesions = tuple(
            LesionEntry(int(n), float((labels == n).sum() * ct.voxel_volume_mm3), 2.0) for n in np.unique(labels) if n
        )
        entry = CaseEntry(
            id=case_id,
            patient=case_id,
            reader="tiny",
            kind=kind,
            complete=complete,
            shape_kji=hu.shape,
            spacing_kji_mm=spacing_kji_mm,
            lesions=lesions,
            voxels_sha256=case_id,
            scan_sha256=case_id,
            series_uid_sha256="",
            source_state="",
        )
        lungs = None if kind == "crop" else np.ones(hu.shape, bool)
        entry = write_case(place, entry, ct, labels, target, lungs)
        self.entries.append(entry)
        write_json(self.folder / MANIFEST_FILE, Manifest(1, None, tuple(self.entries), ()))
        return entry

    def add_usual(self) -> "TinyCache":
        """Four crops, a chest with two lesions and one without."""
        for n in range(4):
            self.add(f"crop{n}", *crop_hu_and_labels(4 + n, n), kind="crop")
        self.add("chest0", *chest_hu_and_labels(10, ((6, 50, 60, 6.0), (4, 20, 70, 4.0))), kind="chest")
        self.add("chest1", *chest_hu_and_labels(11, ()), kind="background")
        return self
