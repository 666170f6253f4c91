"""``report.json``: everything needed to know how a result came about, without the patient's identity.

Identity is what tells whose CT it was: name, ID, birth date, accession number, institution and physicians, which are never
even read but for the ID; the UIDs and descriptions of study and series, which lead back to the archive; and names of files
and folders, which often hold a name. None of it is in a file of a result, unless the user asks for it: then
:func:`patient_identity` is in the report, by which a researcher joins results with other tables.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from NLSTSegLib import __version__
from NLSTSegLib.models.card import ModelIdentity
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.volume.ct import CtVolume

PROGRAM = "NLSTSeg"
"""What every report names as its program."""


def write_report(
    result: SegmentationResult, path: Path, seconds: dict[str, float], identity: Mapping[str, str] | None = None
) -> None:
    """Write the report; ``seconds`` are the stages outside :func:`NLSTSegLib.pipeline.segment`, such as reading."""
    text = json.dumps(make_report(result, seconds, identity), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def make_report(
    result: SegmentationResult, seconds: dict[str, float], identity: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The report as plain values, with ``identity`` under that name if it is given."""
    card, stages = result.card, {**seconds, **result.seconds}
    return {
        "program": {"name": PROGRAM, "version": __version__},
        "notice": "Research only; not for clinical use.",
        "model": {field.name: getattr(card, field.name) for field in fields(ModelIdentity)},
        "input": input_facts(result.ct),
        **({} if identity is None else {"identity": dict(identity)}),
        "geometry": {
            **_grid(result.ct),
            "segmented_on": None if result.regular is result.ct else _grid(result.regular),
        },
        "findings": [{"severity": f.severity, "code": f.code, "message": f.message, "fix": f.fix} for f in result.findings],
        "options": {
            "threshold": result.threshold,
            "min_volume_mm3": result.min_volume_mm3,
            "lung_field": result.lung_field_note,
            "device": result.device_note,
        },
        "lungs": None if result.lungs is None else asdict(result.lungs),
        "seconds": {**stages, "total": round(sum(stages.values()), 3)},
        "peak_memory_mb": peak_memory_mb(),
        "lesions": result.to_rows(),
    }


def _grid(ct: CtVolume) -> dict[str, Any]:
    return {
        "size_ijk": list(ct.hu.shape[::-1]),
        "spacing_ijk_mm": list(ct.spacing_ijk_mm),
        "origin_lps_mm": list(ct.origin_lps_mm),
        "direction_lps": list(ct.direction_lps),
        "orientation": ct.orientation,
    }


def input_facts(ct: CtVolume) -> dict[str, str]:
    """What tells this CT from another without naming anyone: the hash of its voxels, as they were read.

    A hash of a UID would name it to whoever tries all that a scanner can have given: few millions.
    """
    return {
        "format": ct.acquisition.format,
        "modality": ct.acquisition.modality,
        "voxels_sha256": voxels_sha256(ct),
    }


def voxels_sha256(ct: CtVolume) -> str:
    """SHA-256 of the HU, ``[k, j, i]``, as they were read."""
    return hashlib.sha256(ct.hu.data if ct.hu.flags.c_contiguous else ct.hu.tobytes()).hexdigest()


def patient_identity(ct: CtVolume, path: Path) -> dict[str, str]:
    """Whose CT it is: where it was read from, patient ID, study and series UID; empty where the format does not tell."""
    facts = ct.acquisition
    return {
        # A name that is no text in the system's encoding is shown as far as it is.
        "path": os.fsencode(os.path.abspath(path)).decode("utf-8", "replace"),
        "patient_id": facts.patient_id,
        "study_uid": facts.study_uid,
        "series_uid": facts.series_uid,
    }


def peak_memory_mb() -> float | None:
    """Largest memory of this process so far in MB (10**6 bytes); ``None`` on Windows, which Python cannot ask."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
