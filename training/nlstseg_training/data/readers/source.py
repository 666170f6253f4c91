"""What a reader finds, and what it reads of a case."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from nlstseg_training.data.cache import Kind, LesionKind, Refusal
from NLSTSegLib.disk.files_below import files_below
from NLSTSegLib.volume.ct import CtVolume


@dataclass(frozen=True, eq=False)
class RawCase:
    """A case as it was read; arrays are ``[k, j, i]`` on the voxels of ``ct``, whatever its axes."""

    ct: CtVolume
    labels: np.ndarray
    """Whole numbers: 0 background, every other value one lesion."""
    kind: Kind
    complete: bool
    """Whether every lesion is marked."""
    target: np.ndarray | None = None
    """uint8, 255 is surely lesion; None where one reader marked."""
    lungs: np.ndarray | None = None
    """bool, where to look, if the reader knows better than the lung field."""
    lesion_kinds: Mapping[int, LesionKind] = field(default_factory=dict)
    """Kinds by the value in ``labels``."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A case that can be read, in any process."""

    id: str
    patient: str
    reader: str
    given_part: Literal["", "train", "test"] = ""

    @abstractmethod
    def state(self) -> str:
        """Text that changes when the files do."""

    @abstractmethod
    def read(self) -> RawCase:
        """Raises :class:`NLSTSegLib.errors.InputError` for whatever is wrong with the case."""


@dataclass(frozen=True)
class Found:
    """The cases that can be tried, and what is known already not to be one."""

    sources: tuple[Source, ...]
    refused: tuple[Refusal, ...] = ()

    def __add__(self, other: Found) -> Found:
        return Found(self.sources + other.sources, self.refused + other.refused)


def file_states(paths: Iterable[Path]) -> str:
    """Names, sizes and times of files; of folders their files'."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(files_below(path)) if path.is_dir() else [path]:
            if file.is_file():
                facts = file.stat()
                digest.update(f"{file.name}:{facts.st_size}:{facts.st_mtime_ns};".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
