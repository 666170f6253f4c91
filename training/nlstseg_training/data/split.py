"""Divides the cases of a cache into training, validation and test: by patient, by size of lesion, by a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nlstseg_training.data.cache import CaseEntry, Manifest, Split, natural
from NLSTSegLib.errors import InputError

DIAMETER_BINS_MM = (6.0, 10.0, 20.0)
"""Lesions below, between and above these are found, and matter, differently."""

PARTS = ("train", "validation", "test")

KINDS = ("chest", "crop", "background")


@dataclass(frozen=True)
class Group:
    """Cases that must not be parted: of one patient, or of patients that share a scan."""

    cases: tuple[CaseEntry, ...]

    @property
    def stratum(self) -> tuple[int, int]:
        """Kind of the cases, and class of the largest lesion's diameter; 0 without lesions."""
        diameters_mm = [lesion.diameter_mm for case in self.cases for lesion in case.lesions]
        size = 1 + int(np.searchsorted(DIAMETER_BINS_MM, max(diameters_mm), side="right")) if diameters_mm else 0
        return min(KINDS.index(case.kind) for case in self.cases), size

    @property
    def given_part(self) -> str:
        """Test when any of its cases was kept for testing."""
        return max((case.given_part for case in self.cases), key=("", "train", "test").index)

    def order(self, seed: int) -> bytes:
        """A place among others that depends on the seed and the patients alone."""
        patients = sorted({case.patient for case in self.cases})
        return hashlib.sha256(f"{seed}:{':'.join(patients)}".encode()).digest()


def make_split(manifest: Manifest, *, validation: float = 0.15, test: float = 0.15, seed: int = 0) -> Split:
    """A split in which every size of lesion has nearly these shares of the patients in validation and test.

    Where the data came with a test part of their own, that is the test part, and the others are divided. The same manifest
    and seed give the same split. Raises :class:`InputError` for shares that leave nothing to train on, or when there are
    too few patients for a part.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise InputError(
            f"validation ({validation:g}) and test ({test:g}) must be shares of 0 or more that leave some to train on"
        )
    groups = _groups(manifest.cases)
    given = {part: [group for group in groups if group.given_part == part] for part in ("", "train", "test")}
    parts: dict[str, list[Group]] = {part: [] for part in PARTS}
    parts["test"] += given["test"]
    _share_out(given["train"], {"train": 1 - validation, "validation": validation}, parts, seed)
    _share_out(given[""], {"train": 1 - validation - test, "validation": validation, "test": test}, parts, seed)
    wanted = {"train": True, "validation": validation > 0, "test": test > 0}
    for part, groups_of_part in parts.items():
        if wanted[part] and not groups_of_part:
            what = f"the {part} part would be empty: {len(groups)} patients are too few for these shares"
            raise InputError(f"{what}; give larger shares, or a share of 0 for a part that is not needed")
    ids = {part: tuple(sorted((case.id for g in chosen for case in g.cases), key=natural)) for part, chosen in parts.items()}
    return Split(1, seed, scans_salt(manifest, seed), ids["train"], ids["validation"], ids["test"])


def make_folds(manifest: Manifest, folds: int, *, test: float = 0.15, seed: int = 0) -> Split:
    """A split for a cross-validation: a test part, and every other patient in one of so many folds, lesions of all sizes in each.

    Where the data came with a test part of their own, that is the test part. Raises :class:`InputError` for shares that leave
    nothing, or when there are fewer patients than folds.
    """
    if not (folds >= 2 and 0 <= test < 1):
        raise InputError(f"there must be 2 folds or more and a share for testing below 1, not {folds} and {test:g}")
    names = [str(fold) for fold in range(folds)]
    groups = _groups(manifest.cases)
    parts: dict[str, list[Group]] = {part: [] for part in ("train", "test", *names)}
    given = any(group.given_part for group in groups)
    parts["test"] += [group for group in groups if group.given_part == "test"]
    others = [group for group in groups if group.given_part != "test"]
    _share_out(others, {"train": 1.0} if given else {"train": 1 - test, "test": test}, parts, seed)
    _share_out(parts["train"], dict.fromkeys(names, 1 / folds), parts, seed)
    if not all(parts[name] for name in names) or (test and not parts["test"]):
        raise InputError(f"{len(groups)} patients are too few for {folds} folds and a test part; ask for fewer, or for --test 0")
    ids = {part: tuple(sorted((case.id for g in chosen for case in g.cases), key=natural)) for part, chosen in parts.items()}
    folded = tuple(ids[name] for name in names)
    return Split(1, seed, scans_salt(manifest, seed), ids["train"], (), ids["test"], folded)


def _groups(cases: Sequence[CaseEntry]) -> list[Group]:
    """Cases that share a patient, a scan or a series, directly or through others, together."""
    group_of: dict[str, list[CaseEntry]] = {}
    for case in cases:
        marks = [f"patient {case.patient}", f"scan {case.scan_sha256}"]
        if case.series_uid_sha256:
            marks.append(f"series {case.series_uid_sha256}")
        joined = [case]
        for members in {id(group_of[mark]): group_of[mark] for mark in marks if mark in group_of}.values():
            joined += members
        group_of |= dict.fromkeys([mark for mark, members in group_of.items() if members[0] in joined] + marks, joined)
    return [Group(tuple(members)) for members in {id(members): members for members in group_of.values()}.values()]


def _share_out(groups: Sequence[Group], shares: dict[str, float], parts: dict[str, list[Group]], seed: int) -> None:
    """Stratum by stratum, every group to the part that is furthest behind its share: so each stratum is divided nearly alike."""
    counts = dict.fromkeys(shares, 0)
    for n, group in enumerate(sorted(groups, key=lambda group: (group.stratum, group.order(seed))), start=1):
        behind = {part: share * n - counts[part] for part, share in shares.items() if share > 0}
        part = max(behind, key=lambda part: behind[part])
        counts[part] += 1
        parts[part].append(group)


def scans_salt(manifest: Manifest, seed: int) -> str:
    """The same for the same data and seed, and not to be guessed without the data."""
    scans = sorted(case.scan_sha256 for case in manifest.cases)
    return hashlib.sha256(f"{seed}:{':'.join(scans)}".encode()).hexdigest()[:32]
