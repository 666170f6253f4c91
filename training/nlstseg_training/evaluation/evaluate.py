"""A model on one part of a split: predicted, measured case by case, pooled, and written down."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from nlstseg_training.data.cache import CaseEntry, load_case, read_manifest, read_split, write_json
from nlstseg_training.evaluation.job import Job, MasksJob, ModelJob
from nlstseg_training.evaluation.measure_case import measure_case
from nlstseg_training.evaluation.pooled import pooled_figures
from nlstseg_training.evaluation.records import RECORD_FORMAT, CaseRecord, Kept, digest, read_kept
from NLSTSegLib.disk.atomic_file import write_text
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.progress import Progress, silent

Part = Literal["train", "validation", "test"]

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Tried on the validation part."""

EVALUATION_FILE = "evaluation.json"

REPORT_FILE = "report.html"


def evaluate(
    model: Model,
    cache: Path,
    split: Path,
    part: Part,
    out: Path,
    *,
    threshold: float | None = None,
    device: DeviceRequest | None = None,
    run_folder: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure ``model`` on a part of the split and write ``evaluation.json`` and ``report.html`` to ``out``.

    On the validation part the threshold with the highest F1 of the lesions by the strict rule is chosen among
    :data:`THRESHOLDS` (the higher one of equals), unless ``threshold`` is given; on the others it is ``threshold``, by
    default that of the model's card. The report shows the curves of the training in ``run_folder``. Returns what
    ``evaluation.json`` holds: ``None`` where a figure is not defined.

    Raises :class:`InputError` for an empty part, a case that cannot be read or segmented, a threshold out of range, or a
    folder that cannot be written or that another evaluation writes to.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"the threshold must lie between 0 and 1, not {threshold}")
    entries = entries_of(cache, split, part)
    with held(out):
        make_folder(out)
        job = ModelJob(model, cache, entries, out, device or DeviceRequest())
        sweep: list[dict[str, Any]] = []
        chosen_by = "given" if threshold is not None else "model card"
        if part == "validation" and threshold is None:
            sweep = sweep_rows(measure(job, THRESHOLDS, folder="sweep", surfaces=False, progress=progress))
            threshold, chosen_by = best_threshold(sweep), "highest strict F1 of the lesions of these cases"
        used = job.threshold if threshold is None else threshold
        return _evaluated(job, part, used, chosen_by, sweep, run_folder, progress)


def evaluate_masks(
    masks: Path, cache: Path, split: Path, part: Part, out: Path, *, progress: Progress = silent
) -> dict[str, Any]:
    """:func:`evaluate` of masks that another tool made of the cases, ``<masks>/<id>.nii.gz``: as they are."""
    if not masks.is_dir():
        raise InputError(f"there is no folder '{masks}'; name the one with a mask for each case, <id>.nii.gz")
    entries = entries_of(cache, split, part)
    with held(out):
        make_folder(out)
        job = MasksJob(masks, cache, entries, out)
        return _evaluated(job, part, job.threshold, "the masks themselves", [], None, progress)


def entries_of(cache: Path, split: Path, part: Part) -> tuple[CaseEntry, ...]:
    """The cases of a part; raises :class:`InputError` for an empty one."""
    manifest = read_manifest(cache)
    entries = tuple(manifest.entry(case_id) for case_id in getattr(read_split(split), part))
    if not entries:
        raise InputError(f"the part '{part}' of '{split}' has no cases; name another part, or make the split again")
    return entries


def _evaluated(
    job: Job,
    part: Part,
    threshold: float,
    chosen_by: str,
    sweep: list[dict[str, Any]],
    run_folder: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    from nlstseg_training.evaluation.report.page import write_report

    records = [kept[0] for kept in measure(job, (threshold,), folder="cases", surfaces=True, progress=progress)]
    content = summary(
        records,
        model=job.identity,
        part=part,
        resampled_to_kji_mm=read_manifest(job.cache).spacing_kji_mm,
        threshold={"value": threshold, "chosen_by": chosen_by},
        min_volume_mm3=job.min_volume_mm3,
        sweep=sweep,
    )
    write_evaluation(content, job.out)
    write_report(content, job, job.out / REPORT_FILE, run_folder)
    progress(1.0, "done")
    return content


def summary(records: Sequence[CaseRecord], *, model: dict[str, str], part: str, **told: Any) -> dict[str, Any]:
    """What ``evaluation.json`` holds of the cases, with what is ``told`` of how they were marked."""
    content = {
        "format": RECORD_FORMAT,
        "notice": "Research only; not for clinical use.",
        "model": model,
        "part": part,
        "cases": len(records),
        "patients": len({record.patient for record in records}),
        "lesions": sum(len(record.lesions) for record in records),
        "incompletely_annotated_cases": sum(not record.complete for record in records),
        "cases_known_to_the_model": sum("trained_on" in record.findings for record in records),
        **told,
        **pooled_figures(records),
        "by_case": [dataclasses.asdict(record) for record in records],
    }
    plain_content: dict[str, Any] = plain(content)
    return plain_content


def write_evaluation(content: dict[str, Any], out: Path) -> None:
    """``evaluation.json`` in the folder ``out``."""
    write_text(out / EVALUATION_FILE, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_evaluation(folder: Path) -> dict[str, Any]:
    """``evaluation.json`` of a finished evaluation; raises :class:`InputError`."""
    path = folder / EVALUATION_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' cannot be read ({error}); remove the bundle that was made with it, and run it again"
        ) from error
    return content


def measure(
    job: Job, thresholds: Sequence[float], *, folder: str, surfaces: bool, progress: Progress = silent
) -> list[tuple[CaseRecord, ...]]:
    """Records of every case, one for each threshold, from ``out/<folder>`` where they are there already."""
    minimum = job.min_volume_mm3
    measured = []
    for n, entry in enumerate(job.entries):
        path = job.out / folder / f"{entry.id}.json"
        state = digest(RECORD_FORMAT, job.state(entry), list(thresholds), minimum, surfaces)
        records = read_kept(path, state)
        if records is None:

            def case_progress(fraction: float, stage: str, n: int = n) -> None:
                progress((n + fraction) / len(job.entries), f"case {n + 1} of {len(job.entries)}: {stage}")

            case_progress(0.0, "reading")
            case = load_case(job.cache, entry.id)
            prediction = job.predict(case, entry, case_progress)
            field = job.lung_mask(case)
            records = tuple(
                measure_case(case, entry, prediction, field, threshold=threshold, min_volume_mm3=minimum, surfaces=surfaces)
                for threshold in thresholds
            )
            make_folder(path.parent)
            write_json(path, Kept(state, records))
        measured.append(records)
    return measured


def sweep_rows(measured: Sequence[tuple[CaseRecord, ...]]) -> list[dict[str, Any]]:
    """What each threshold gives on all cases."""
    from nlstseg_training.evaluation.pooled import Pool, detection, overlap_row

    rows = []
    for records in zip(*measured, strict=True):
        pool = Pool(records)
        with_lesion = [record for record in records if record.lesions]
        lesions = [(record, lesion.dice) for record in records for lesion in record.lesions]
        found, strict = detection(pool, "lenient"), detection(pool, "strict")
        rows.append(
            {
                "threshold": records[0].threshold,
                "dice": overlap_row(pool, "with a lesion", with_lesion)["dice"],
                "lesion_dice": dataclasses.asdict(pool.mean(lesions)),
                "sensitivity": found["sensitivity"],
                "f1": found["f1"],
                "f1_strict": strict["f1"],
                "outside_per_case": found["outside_per_case"],
            }
        )
    return rows


def best_threshold(sweep: Sequence[dict[str, Any]]) -> float:
    """The one with the highest strict F1, the higher one of equals; raises :class:`InputError` without a lesion."""
    if all(math.isnan(row["dice"]["value"]) for row in sweep):
        raise InputError("no case of the validation part has a lesion to choose the threshold by; name one, or split again")
    return float(max(sweep, key=lambda row: (row["f1_strict"]["value"], row["threshold"]))["threshold"])


def plain(value: Any) -> Any:
    """Values for JSON, which knows no NaN and no infinity: they become None."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises :class:`InputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder '{folder}' cannot be made ({error.strerror}); choose another place") from error
