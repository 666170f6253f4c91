"""The cache of prepared cases: what :mod:`nlstseg_training.data.prepare` writes, and everything else reads.

``manifest.json`` lists the cases; a case ``<id>`` is the folder ``<id>/`` with ``ct.b2nd`` (int16 HU), ``labels.b2nd``
(lesions 1..k), ``target.b2nd`` (only where readers disagreed), ``lungs.b2nd`` (not for crops), ``air.b2nd`` (of deep chests),
``lung_places.npy`` and ``lesion_places.npy`` (voxels that patches are drawn around), and ``case.json`` (its entry
of the manifest). All volumes of a case are on one grid with canonical axes, see :mod:`nlstseg_training.data.arrays`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from nlstseg_training.data.arrays import ENDING, read_array, read_ct_array
from NLSTSegLib.checks.training_overlap import salted
from NLSTSegLib.disk.atomic_file import write_text
from NLSTSegLib.disk.free_name import is_plain_name
from NLSTSegLib.disk.strict_json import read_strict
from NLSTSegLib.errors import InputError, printable
from NLSTSegLib.models.card import TrainingCases
from NLSTSegLib.volume.ct import CtVolume

MANIFEST_FILE = "manifest.json"

CASE_FILE = "case.json"

Kind = Literal["chest", "crop", "background"]
"""A whole chest; a stack around one nodule; slices of lung without an evident lesion."""

LesionKind = Literal["tumour", "nodule", ""]
"""Empty where nothing tells."""

T = TypeVar("T")

Entry = TypeVar("Entry", "CaseEntry", "Refusal")


@dataclass(frozen=True)
class LesionEntry:
    """One lesion as it was annotated, measured before any resampling."""

    label: int
    """Its value in ``labels.nrrd``."""
    volume_mm3: float
    """Voxel count times voxel volume."""
    diameter_mm: float
    """Diameter of the sphere of that volume."""
    kind: LesionKind = ""


@dataclass(frozen=True)
class CaseEntry:
    """What the manifest says of a case; shape and spacing are those of the cached volumes."""

    id: str
    patient: str
    reader: str
    """Name of the reader it came through."""
    kind: Kind
    complete: bool
    """Whether every lesion is marked; else a mark of the network may be a lesion that nobody annotated."""
    shape_kji: tuple[int, int, int]
    spacing_kji_mm: tuple[float, float, float]
    lesions: tuple[LesionEntry, ...]
    voxels_sha256: str
    """Hash of the CT as it was read, as in a result's ``report.json``."""
    scan_sha256: str
    """Hash of the CT whatever its format and axes, see :func:`NLSTSegLib.volume.scan_hash.scan_sha256`."""
    series_uid_sha256: str
    """Hash of the UID of the DICOM series, by which two cases of one scan are found; empty where it is not known. Not in a
    card."""
    source_state: str
    """Changes when the files it was read from do, or what is made of them: then it is prepared again."""
    given_part: Literal["", "train", "test"] = ""
    """Where the data came with a split of their own."""
    notes: tuple[str, ...] = ()
    """What is odd about it, in sentences."""
    files_sha256: dict[str, Any] = field(default_factory=dict)
    """Hash of each file of the case but ``case.json``, by name; empty in caches of earlier versions."""

    def __post_init__(self) -> None:
        # Files and folders are called so, and a cache may come from anywhere.
        if not is_plain_name(self.id):
            raise ValueError("id must be up to 64 letters, digits, '-', '_' or '.'")


@dataclass(frozen=True)
class Refusal:
    """A case that is not in the cache, and why."""

    id: str
    reader: str
    reason: str

    def __post_init__(self) -> None:
        # Names of files on the disk and in archives, which may be no text at all.
        for name in ("id", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))


@dataclass(frozen=True)
class Manifest:
    """The cases of a cache, sorted by id."""

    format: Literal[1]
    spacing_kji_mm: tuple[float, float, float] | None
    """What all cases were resampled to; their own spacing without."""
    cases: tuple[CaseEntry, ...]
    refused: tuple[Refusal, ...]

    def entry(self, case_id: str) -> CaseEntry:
        """Raises :class:`InputError` when there is no such case."""
        for entry in self.cases:
            if entry.id == case_id:
                return entry
        raise InputError(f"the cache has no case '{case_id}'; prepare its data, or make the split again")


@dataclass(frozen=True, eq=False)
class Case:
    """A case in memory; all arrays are ``[k, j, i]`` on the canonical axes of ``ct``."""

    id: str
    patient: str
    ct: CtVolume
    """int16 HU."""
    labels: np.ndarray
    """uint8 or uint16: 0 background, 1..k the lesions."""
    target: np.ndarray
    """uint8: 255 is surely lesion; the share of the readers where there were several."""
    lungs: np.ndarray | None
    """bool: where lesions are looked for, with every lesion inside; None for a crop, or where no lungs were found."""


@dataclass(frozen=True)
class Split:
    """Ids of the cases by what they are for; no patient and no scan is in two parts."""

    format: Literal[1]
    seed: int
    salt: str
    """Salt of the hashes in a model card, see :func:`training_cases`."""
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...] = ()
    """Folds of a cross-validation: the cases of ``train``, each in one of them; ``validation`` is empty then."""


def read_manifest(cache: Path) -> Manifest:
    """Raises :class:`InputError` when there is none or it is not valid."""
    return read_json(cache / MANIFEST_FILE, Manifest, "make the cache with 'nlstseg-train prepare'")


def load_case(cache: Path, case_id: str) -> Case:
    """The case from its files, each compared with its hash; raises :class:`InputError` that names the damaged one."""
    folder = cache / case_id
    entry = read_json(folder / CASE_FILE, CaseEntry, "prepare the case again")
    if not entry.files_sha256:
        raise InputError(f"'{folder}' was prepared by an earlier version; prepare the case again")

    def read(name: str) -> np.ndarray | None:
        sha256 = entry.files_sha256.get(name + ENDING)
        return None if sha256 is None else read_array(folder / (name + ENDING), sha256)

    ct = read_ct_array(folder / f"ct{ENDING}", entry.files_sha256[f"ct{ENDING}"])
    labels, target, lungs = read("labels"), read("target"), read("lungs")
    assert labels is not None
    return Case(entry.id, entry.patient, ct, labels, sure_target(labels) if target is None else target, lungs)


def sure_target(labels: np.ndarray) -> np.ndarray:
    """What one reader marked, as ``target`` of a :class:`Case`."""
    return np.where(labels > 0, np.uint8(255), np.uint8(0))


def read_split(path: Path) -> Split:
    """Raises :class:`InputError` when there is none, it is not valid, or an id is in two parts."""
    split = read_json(path, Split, "make it with 'nlstseg-train split'")
    ids = [*split.train, *split.validation, *split.test]
    twice = {case_id for case_id in ids if ids.count(case_id) > 1}
    if twice:
        raise InputError(f"'{path}' names '{min(twice)}' twice, so one part would be measured on another; make it again")
    in_folds = sorted(case_id for fold in split.folds for case_id in fold)
    if split.folds and (in_folds != sorted(split.train) or split.validation):
        raise InputError(f"the folds of '{path}' are not the cases of its training part; make it again")
    return split


def fold_of(split: Split, fold: int | None) -> Split:
    """The split in which one fold is the validation part and the others are trained on; without folds the split itself.

    Raises :class:`InputError` when there is no such fold, or a split with folds is asked for none.
    """
    if fold is None and not split.folds:
        return split
    if not split.folds:
        raise InputError("the split has no folds; make one with 'nlstseg-train split --folds 5'")
    if fold is None or fold >= len(split.folds):
        raise InputError(f"the split has folds: name one with --fold, 0 to {len(split.folds) - 1}")
    validation = split.folds[fold]
    train = tuple(case_id for case_id in split.train if case_id not in set(validation))
    return dataclasses.replace(split, train=train, validation=validation, folds=())


def training_cases(manifest: Manifest, split: Split) -> TrainingCases:
    """What the model card holds of the scans that the weights, or their thresholds and epochs, were chosen on."""
    entries = [manifest.entry(case_id) for case_id in (*split.train, *split.validation)]
    return TrainingCases(split.salt, tuple(sorted({salted(split.salt, entry.scan_sha256) for entry in entries})))


def read_json(path: Path, kind: type[T], fix: str) -> T:
    """The file as the dataclass ``kind``; raises :class:`InputError` with ``fix`` when it is missing or not valid."""
    try:
        return read_strict(path.read_bytes(), kind)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); {fix}") from error
    except ValueError as error:
        raise InputError(f"'{path}' is not valid: {error}; {fix}") from error


def write_json(path: Path, content: Any) -> None:
    """A dataclass as a file that is whole or not there; raises :class:`InputError` when it cannot be written."""
    write_text(path, json.dumps(dataclasses.asdict(content), indent=1, ensure_ascii=False) + "\n")


def by_id(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Sorted as people number things: 9 before 10."""
    return tuple(sorted(entries, key=lambda entry: natural(entry.id)))


def natural(name: str) -> tuple[int, str]:
    """Sorts whole numbers by their value, other names after them."""
    return (int(name), name) if name.isdecimal() and len(name) < 19 else (10**19, name)
