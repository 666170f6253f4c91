"""A registration as a folder of files: what was found, and the transform where it is accepted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from NLSTSegLib.disk.atomic_folder import atomic_folder, held, prepare_place
from NLSTSegLib.disk.strict_json import read_strict
from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.registration import Registration

FACTS_FILE, TRANSFORM_FILE = "registration.json", "baseline-to-followup.h5"

METHOD = "shift by correlation of all overlaps, affine and B-spline by mutual information"


@dataclass(frozen=True)
class RegistrationFacts:
    """What the files say of a :class:`Registration`, beside its transform."""

    method: str
    accepted: bool
    refusal: str
    correlation: float
    seen_share: float
    seen_share_back: float
    folded_share: float
    lungs_ml: tuple[float, float]

    @classmethod
    def of(cls, found: Registration) -> RegistrationFacts:
        """Rounded."""
        shares = round(found.seen_share, 4), round(found.seen_share_back, 4), round(found.folded_share, 6)
        first_ml, second_ml = (round(ml) for ml in found.lungs_ml)
        return cls(METHOD, found.is_accepted, found.refusal, round(found.correlation, 4), *shares, (first_ml, second_ml))


def check_place(folder: Path) -> None:
    """Raise :class:`InputError` unless a registration can go to ``folder``: new or empty."""
    if prepare_place(folder):
        raise InputError(f"the output folder '{folder}' is there already and not empty; choose another name")


def write_registration(found: Registration, folder: Path) -> None:
    """Write it into a new or empty folder; raises :class:`InputError` where it holds anything."""
    import SimpleITK as sitk

    with held(folder):
        check_place(folder)
        with atomic_folder(folder) as partial:
            if found.is_accepted:
                sitk.WriteTransform(found.transform, str(partial / TRANSFORM_FILE))
            text = json.dumps(asdict(RegistrationFacts.of(found)), indent=2, ensure_ascii=False)
            (partial / FACTS_FILE).write_text(text + "\n", encoding="utf-8")


def read_registration(folder: Path) -> Registration:
    """What :func:`write_registration` wrote; a refused one has the identity for a transform.

    Raises :class:`InputError` for a folder that holds none.
    """
    import SimpleITK as sitk

    try:
        facts = read_strict((folder / FACTS_FILE).read_bytes(), RegistrationFacts)
        transform = sitk.ReadTransform(str(folder / TRANSFORM_FILE)) if facts.accepted else sitk.Transform(3, sitk.sitkIdentity)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"'{folder}' holds no whole registration; register the CTs again") from error
    return Registration(
        transform=transform,
        correlation=facts.correlation,
        seen_share=facts.seen_share,
        folded_share=facts.folded_share,
        seen_share_back=facts.seen_share_back,
        lungs_ml=facts.lungs_ml,
        refusal=facts.refusal,
    )
