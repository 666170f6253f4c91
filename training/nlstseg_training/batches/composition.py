"""What a batch is made of where a data set has not everything that the recipe names."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from nlstseg_training.data.aerated import DEEP_SLICES
from nlstseg_training.data.cache import CaseEntry
from nlstseg_training.recipe import Sampling
from NLSTSegLib.errors import InputError

LESION_SOURCES = ("lesions", "crops", "transplants", "synthetic")
"""Sources of patches with a lesion: what one has not to give, the first one that is there gives, real lesions first."""

LEAST_LESIONS = 1 / 3
"""Share of a batch: a network that hardly sees a lesion learns to mark nothing."""

SOURCE_NAMES = {
    "lesions": "lesions of chests",
    "crops": "crops of nodules",
    "transplants": "transplanted lesions",
    "synthetic": "synthetic lesions",
    "mined": "false positives (places in lungs until some are found)",
    "lung": "places in lungs",
}


def sources_of(entries: Sequence[CaseEntry]) -> set[str]:
    """What the cases can give, but false positives, which are found later."""
    chests = [entry for entry in entries if entry.kind != "crop"]
    has_crops = any(entry.kind == "crop" for entry in entries)
    has_deep = any(is_deep(entry) for entry in chests)
    there = {
        "lesions": any(has_lesions(entry) for entry in chests),
        "crops": has_crops,
        "transplants": has_crops and has_deep,
        "synthetic": has_deep,
        "lung": bool(chests),
    }
    return {source for source, is_there in there.items() if is_there}


def has_lesions(entry: CaseEntry) -> bool:
    """Whether it is a whole chest with a lesion; slices of background were chosen for having none."""
    return entry.kind == "chest" and bool(entry.lesions)


def is_deep(entry: CaseEntry) -> bool:
    """Whether it has a lung, of enough slices for a lesion."""
    return entry.shape_kji[0] >= DEEP_SLICES and "air.b2nd" in entry.files_sha256


def composition(sampling: Sampling, there: Collection[str]) -> dict[str, int]:
    """Patches of a batch from each source of ``there``, most of whose names are fields of :class:`Sampling`.

    The share of a lesion-bearing source that is not there goes to the first that is (:data:`LESION_SOURCES`), that of false
    positives to places in lungs, and that of those, where there is no chest, to lesions.
    """
    stand_in = next((source for source in LESION_SOURCES if source in there), "lung")
    lung = "lung" if "lung" in there else stand_in
    own = {source: getattr(sampling, source) for source in (*LESION_SOURCES, "mined")}
    own["lung"] = max(0.0, 1.0 - sum(own.values()))
    shares = dict.fromkeys(SOURCE_NAMES, 0.0)
    for source, share in own.items():
        shares[source if source in there else stand_in if source in LESION_SOURCES else lung] += share
    ends = np.cumsum(list(shares.values()))
    owners = np.searchsorted(ends / ends[-1], (np.arange(sampling.batch) + 0.5) / sampling.batch)
    return {source: int((owners == n).sum()) for n, source in enumerate(shares)}


def lesion_share(counts: dict[str, int]) -> float:
    """Share of the patches that hold a lesion."""
    return sum(counts[source] for source in LESION_SOURCES) / sum(counts.values())


def describe(sampling: Sampling, entries: Sequence[CaseEntry], phase: str) -> str:
    """A sentence for the user; raises :class:`InputError` when less than a third of a batch would hold a lesion."""
    counts = composition(sampling, sources_of(entries) | {"mined"})
    parts = ", ".join(f"{count} {SOURCE_NAMES[source]}" for source, count in counts.items() if count)
    if lesion_share(counts) < LEAST_LESIONS:
        raise InputError(
            f"of a batch of the phase '{phase}' less than a third would hold a lesion ({parts}), which teaches a network to mark "
            "nothing; give the recipe's sampling larger shares of lesions, or add cases with lesions"
        )
    return f"phase '{phase}': a batch of {sampling.batch} patches is {parts}"
