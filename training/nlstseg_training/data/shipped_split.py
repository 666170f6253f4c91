"""The split that the bundled model ``lidc-25d`` was trained with, so that its figures can be had again."""

from __future__ import annotations

import hashlib

from nlstseg_training.data.cache import Manifest, Split, natural
from nlstseg_training.data.split import scans_salt

SEED = 0

VALIDATION_SHARE = 0.2

VALIDATION_CHESTS = ("LIDC-IDRI-0001",)
"""Whole chests never trained on."""


CHEST_FOLDS = (
    ("ACRIN-FLT-Breast_001", "C3N-00247", "KiTS-00072", "LungFCP-01-0001"),
    ("ACRIN-FLT-Breast_013", "C3L-00189", "CMB-CRC-MSB-01068", "RIDER-0109", "RIDER-0117"),
)
"""Patients of the chests without reader masks. All are trained on in the shipped model; to know how it does on chests that it has
not seen, each fold is left out once."""


def is_validation(patient: str) -> bool:
    """Whether it is, by the hash of the patient's name alone: SHA-256 of ``0:<name>``, its first four bytes as a share of
    2^32."""
    digest = hashlib.sha256(f"{SEED}:{patient}".encode()).digest()
    return patient in VALIDATION_CHESTS or int.from_bytes(digest[:4], "big") / 2**32 < VALIDATION_SHARE


def shipped_split(manifest: Manifest, left_out: int | None = None) -> Split:
    """Every case to training or validation; to the test part only the chests of the fold that is ``left_out``."""
    chests = {patient for fold in CHEST_FOLDS for patient in fold}
    kept_aside = set() if left_out is None else set(CHEST_FOLDS[left_out])
    ids: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for case in manifest.cases:
        if case.patient in chests:
            part = "test" if case.patient in kept_aside else "train"
        else:
            part = "validation" if is_validation(case.patient) else "train"
        ids[part].append(case.id)
    train, validation, test = (tuple(sorted(part, key=natural)) for part in ids.values())
    return Split(1, SEED, scans_salt(manifest, SEED), train, validation, test)
