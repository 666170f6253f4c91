"""The split that the bundled model ``lidc-25d`` was trained with, so that its figures can be had again."""

from __future__ import annotations

import hashlib

from nlstseg_training.data.cache import Manifest, Split, natural
from nlstseg_training.data.split import scans_salt

SEED = 0

VALIDATION_SHARE = 0.2

VALIDATION_CHESTS = ("LIDC-IDRI-0001",)
"""Whole chests never trained on."""


def is_validation(patient: str) -> bool:
    """By the hash of the patient's name alone: SHA-256 of ``0:<name>``, its first four bytes as a share of 2^32."""
    digest = hashlib.sha256(f"{SEED}:{patient}".encode()).digest()
    return patient in VALIDATION_CHESTS or int.from_bytes(digest[:4], "big") / 2**32 < VALIDATION_SHARE


def shipped_split(manifest: Manifest) -> Split:
    """Every case to training or validation; there was no test part."""
    ids: dict[bool, list[str]] = {True: [], False: []}
    for case in manifest.cases:
        ids[is_validation(case.patient)].append(case.id)
    train, validation = (tuple(sorted(ids[part], key=natural)) for part in (False, True))
    return Split(1, SEED, scans_salt(manifest, SEED), train, validation, ())
