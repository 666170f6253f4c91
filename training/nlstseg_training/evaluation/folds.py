"""A cross-validation as one evaluation: every case measured by the model that was not trained on it, intervals by patient."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlstseg_training.evaluation.evaluate import REPORT_FILE, make_folder, read_evaluation, summary, write_evaluation
from nlstseg_training.evaluation.records import CaseRecord
from NLSTSegLib.disk.atomic_file import write_text
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.disk.strict_json import read_strict
from NLSTSegLib.errors import InputError


def pool_folds(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Pool what the runs gave on their own validation parts, and write ``evaluation.json`` and ``report.html`` to ``out``.

    Each case is counted at the threshold and minimum volume of its own fold. Raises :class:`InputError` when a run is not
    measured yet or a case is in two of them.
    """
    from nlstseg_training.evaluation.report.page import make_report

    contents = [read_evaluation(run / "validation") for run in runs]
    records = [record for run, content in zip(runs, contents, strict=True) for record in _records(run, content)]
    ids = [record.id for record in records]
    twice = {case_id for case_id in ids if ids.count(case_id) > 1}
    if twice:
        raise InputError(f"the case '{min(twice)}' was validated in two of the runs, so they are no folds of one split")
    thresholds = [content["threshold"]["value"] for content in contents]
    volumes = [content["min_volume_mm3"] for content in contents]
    each = ", ".join(f"{threshold:g} from {volume:g} mm3" for threshold, volume in zip(thresholds, volumes, strict=True))
    pooled = summary(
        records,
        model={"name": f"{len(runs)} folds of {contents[0]['model']['name']}", "version": "", "weights_sha256": ""},
        part="validation",
        resampled_to_kji_mm=contents[0]["resampled_to_kji_mm"],
        threshold={"value": sorted(thresholds)[len(thresholds) // 2], "chosen_by": f"highest strict F1 of each fold: {each}"},
        min_volume_mm3=min(volumes),
        sweep=[],
    )
    with held(out):
        make_folder(out)
        write_evaluation(pooled, out)
        write_text(out / REPORT_FILE, make_report(pooled, {}))
    return pooled


def _records(run: Path, content: dict[str, Any]) -> list[CaseRecord]:
    try:
        return [read_strict(json.dumps(record).encode(), CaseRecord) for record in content["by_case"]]
    except (KeyError, ValueError) as error:
        raise InputError(f"the evaluation in '{run}' is of another version ({error}); export that run again") from error
