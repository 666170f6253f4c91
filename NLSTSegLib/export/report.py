"""``report.json``: everything needed to know how a result came about, without the patient's identity."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from NLSTSegLib import __version__
from NLSTSegLib.export.tables import lesion_rows
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.volume import CtVolume


def write_report(result: SegmentationResult, path: Path, seconds: dict[str, float]) -> None:
    """Write the report; ``seconds`` are the stages outside :func:`NLSTSegLib.pipeline.segment`, such as reading."""
    path.write_text(json.dumps(make_report(result, seconds), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make_report(result: SegmentationResult, seconds: dict[str, float]) -> dict[str, Any]:
    """The report as plain values. File and folder names are left out: they often hold a patient's name."""
    card, stages = result.card, {**seconds, **result.seconds}
    return {
        "program": {"name": "NLSTSeg", "version": __version__},
        "notice": "Research only; not for clinical use.",
        "model": {
            "name": card.name,
            "version": card.version,
            "weights_sha256": card.weights_sha256,
            "licence": card.licence,
            "attribution": card.attribution,
        },
        "input": input_identity(result.ct),
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
        "seconds": {**stages, "total": round(sum(stages.values()), 3)},
        "peak_memory_mb": peak_memory_mb(),
        "lesions": lesion_rows(result),
    }


def _grid(ct: CtVolume) -> dict[str, Any]:
    return {
        "size_ijk": list(ct.hu.shape[::-1]),
        "spacing_ijk_mm": list(ct.spacing_ijk_mm),
        "origin_lps_mm": list(ct.origin_lps_mm),
        "direction_lps": list(ct.direction_lps),
        "orientation": ct.orientation,
    }


def input_identity(ct: CtVolume) -> dict[str, str]:
    """What tells this CT from another without naming anyone: hashes of the voxels and of the series UID."""
    uid = ct.acquisition.series_uid
    return {
        "format": ct.acquisition.format,
        "modality": ct.acquisition.modality,
        "voxels_sha256": hashlib.sha256(ct.hu.data if ct.hu.flags.c_contiguous else ct.hu.tobytes()).hexdigest(),
        "series_uid_sha256": hashlib.sha256(uid.encode()).hexdigest() if uid else "",
    }


def peak_memory_mb() -> float | None:
    """Largest memory of this process so far in MB (10**6 bytes); ``None`` on Windows, which Python cannot ask."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
