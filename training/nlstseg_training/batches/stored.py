"""Cases that patches are read from, on the disk: what no patch needs is not unpacked, and all processes share the file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlstseg_training.data.arrays import ENDING, open_array
from nlstseg_training.data.cache import CaseEntry, sure_target
from nlstseg_training.data.case_files import LESION_PLACES_FILE, LUNG_PLACES_FILE
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import blosc2

OPEN_CASES = 128
"""Kept open in a process, each with up to four files and some 100 kB of places."""


class StoredCase:
    """A case of the cache; crops, which are small, are read whole once."""

    def __init__(self, cache: Path, entry: CaseEntry) -> None:
        self.folder, self.entry = cache / entry.id, entry

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        return self.entry.spacing_kji_mm

    @cached_property
    def hu(self) -> np.ndarray | blosc2.NDArray:
        """int16 ``[k, j, i]``."""
        return self._open("ct")

    @cached_property
    def target(self) -> np.ndarray | blosc2.NDArray:
        """uint8, 255 is surely lesion; of a chest that one reader marked its labels, which say so by not being 0."""
        if self._is_soft:
            return self._open("target")
        labels = self._open("labels")
        return sure_target(labels) if isinstance(labels, np.ndarray) else labels

    @cached_property
    def air(self) -> np.ndarray | blosc2.NDArray:
        """bool, where a lesion can grow; of deep cases alone."""
        return self._open("air")

    @cached_property
    def lung_places(self) -> np.ndarray:
        """int16 ``[n, 3]``: voxels (k, j, i) in the lungs."""
        return np.load(self.folder / LUNG_PLACES_FILE)

    @cached_property
    def lesions(self) -> list[np.ndarray]:
        """Voxels (k, j, i) of each lesion that has any left at the cache's spacing."""
        places = np.load(self.folder / LESION_PLACES_FILE)
        return [places[places[:, 0] == label, 1:] for label in np.unique(places[:, 0])]

    def hu_at(self, slices: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 HU at these indices of each axis, which may be repeated."""
        return self._at(self.hu, slices, rows, columns).astype(np.float32)

    def target_at(self, slices: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 target, 0 to 1."""
        target = self._at(self.target, slices, rows, columns)
        return (target / np.float32(255) if self._is_soft or self.entry.kind == "crop" else target > 0).astype(np.float32)

    def air_at(self, slices: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """bool."""
        return self._at(self.air, slices, rows, columns)

    @property
    def _is_soft(self) -> bool:
        return f"target{ENDING}" in self.entry.files_sha256

    def _open(self, name: str) -> np.ndarray | blosc2.NDArray:
        volume = open_array(self.folder / (name + ENDING))
        return volume[:] if self.entry.kind == "crop" else volume

    def _at(self, volume: np.ndarray | blosc2.NDArray, *indices: np.ndarray) -> np.ndarray:
        first = [int(index.min()) for index in indices]
        box = tuple(slice(low, int(index.max()) + 1) for low, index in zip(first, indices, strict=True))
        try:
            read = volume[box]
        except RuntimeError as error:
            raise InputError(f"the case in '{self.folder}' cannot be read; prepare it again") from error
        return read[np.ix_(*(index - low for low, index in zip(first, indices, strict=True)))]


class Shelf:
    """The cases of a part by id: crops stay, of the chests the last ones that were asked for."""

    def __init__(self, cache: Path, entries: Sequence[CaseEntry]) -> None:
        self._cache, self._entries = cache, {entry.id: entry for entry in entries}
        self._crops: dict[str, StoredCase] = {}
        self._chests: dict[str, StoredCase] = {}

    def __getitem__(self, case_id: str) -> StoredCase:
        entry = self._entries[case_id]
        kept = self._crops if entry.kind == "crop" else self._chests
        # Taken out and put back, it is the last.
        kept[case_id] = kept.pop(case_id) if case_id in kept else StoredCase(self._cache, entry)
        if len(self._chests) > OPEN_CASES:
            del self._chests[next(iter(self._chests))]
        return kept[case_id]
