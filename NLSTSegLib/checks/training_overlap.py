"""Whether a model was trained on the very scan it is shown: hashes of scans, which name nobody.

A result on such a scan says nothing about new patients, so hashes of the training scans' voxels travel with the model: who
does not have the voxels learns nothing from them, since they cannot all be tried. UIDs can, those of one scanner in seconds, and
the salt travels too; so no hash of a UID is in a card.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from NLSTSegLib.checks.preflight import Finding
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.scan_hash import scan_sha256

if TYPE_CHECKING:
    from NLSTSegLib.models.card import ModelCard

CODE = "trained_on"
"""Code of the finding (a warning), in ``report.json`` and on the command line."""


def salted(salt: str, digest: str) -> str:
    """What a model card holds of the hash of a scan."""
    return hashlib.sha256(f"{salt}:{digest}".encode()).hexdigest()


def check_trained_on(ct: CtVolume, card: ModelCard) -> list[Finding]:
    """The finding :data:`CODE` when the voxels of ``ct`` are among those the model was trained on."""
    known = card.training_cases
    if not known.sha256 or salted(known.salt, scan_sha256(ct)) not in known.sha256:
        return []
    message = f"The model '{card.name}' was trained on this very scan, so what it finds here is no measure of its quality."
    return [Finding("warning", CODE, message, "Judge the model on other patients.")]
