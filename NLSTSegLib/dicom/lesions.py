"""The lesions of a result folder or an exported review, as SEG and SR need them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from NLSTSegLib.dicom.codes import MEASUREMENTS
from NLSTSegLib.disk.csv_table import read_table
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.coding import segment_id
from NLSTSegLib.reading.read import read_labels
from NLSTSegLib.results.folder import TABLE_FILE
from NLSTSegLib.results.report import voxels_sha256
from NLSTSegLib.results.saved import LABELS_FILE, LABELS_NIFTI, REPORT_FILE, SavedLesion, read_summary
from NLSTSegLib.review.case import ReviewedCase
from NLSTSegLib.review.folder import AUDIT_FILE, audit_rows, table_rows
from NLSTSegLib.review.state import FIRST_RUN, Origin, Status
from NLSTSegLib.volume.ct import CtVolume

NO_MODEL = ("NLSTSeg", "review")
"""Name and version that stand for the model where no lesion came from one."""

UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")

SAME_MEAN_HU = 1.0
"""A mean HU that was rounded differently is still that of the same voxels."""


@dataclass(frozen=True)
class FoundLesion:
    """One lesion; its label is its place in :attr:`FoundLesions.lesions`, from 1."""

    name: str
    algorithm_type: str
    """``AUTOMATIC``, ``SEMIAUTOMATIC`` or ``MANUAL``, as DICOM has it."""
    key: str
    """What its tracking UID is made of beside the series, the same for the same finding; or that UID itself."""
    numbers: Mapping[str, float]
    """Numbers by column of ``lesions.csv``, those of :data:`MEASUREMENTS`; without those that are empty there."""
    model: tuple[str, str] = NO_MODEL
    """Name and version of the model that proposed it."""
    weights_sha256: str = ""
    threshold: float | None = None
    side: str = ""
    """Side of the lung it lies in, "left" or "right"; empty where it cannot be told, or the table is of an older version."""

    @property
    def has_uid(self) -> bool:
        """Whether the lesion came with a tracking UID of its own, as those of a SEG do."""
        return bool(UID.fullmatch(self.key)) and len(self.key) <= 64


@dataclass(frozen=True, eq=False)
class FoundLesions:
    """What a result or a review says of a CT."""

    labels: np.ndarray
    """uint16 ``[k, j, i]`` on the voxels of the CT; 1 is the first of ``lesions``."""
    lesions: tuple[FoundLesion, ...]
    model: tuple[str, str]
    weights_sha256: str
    is_review: bool


def read_lesions(folder: Path, ct: CtVolume) -> FoundLesions:
    """The lesions in ``folder``: a result of ``nlstseg segment``, or a review that the module exported.

    Raises :class:`InputError` when it is neither, is not whole, or is not of ``ct``: told by the hash of its voxels in the
    report, in a review by the place of the label map and the mean HU of its lesions.
    """
    try:
        if (folder / REPORT_FILE).is_file():
            found = _result(folder, ct)
        elif (folder / AUDIT_FILE).is_file():
            found = _review(folder, ct)
        else:
            raise InputError(f"'{folder}' is neither a result (no {REPORT_FILE}) nor an exported review (no {AUDIT_FILE})")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{folder}' is not whole ({type(error).__name__}: {error}); make it anew") from error
    if set(np.unique(found.labels).tolist()) - {0} != set(range(1, len(found.lesions) + 1)):
        raise InputError(f"the label map and the lesions in '{folder}' do not belong together; make it anew")
    return found


def _result(folder: Path, ct: CtVolume) -> FoundLesions:
    report = read_summary(folder)
    if report.voxels_sha256 != voxels_sha256(ct):
        raise InputError(f"the result in '{folder}' is of another CT (its voxels differ); name the CT that was segmented")
    model, weights = (report.card.name, report.card.version), report.card.weights_sha256
    lesions = [
        FoundLesion(
            name=str(row["lesion"]),
            algorithm_type="AUTOMATIC",
            key=f"{weights}/{FIRST_RUN}/{segment_id(SavedLesion(label, str(row['lesion']), float(row['score'])))}",
            numbers=_numbers(row),
            model=model,
            weights_sha256=weights,
            threshold=report.threshold,
            side=str(row.get("side", "")),
        )
        for label, row in enumerate(report.rows, start=1)
    ]
    return FoundLesions(_labels(folder, ct), tuple(lesions), model, weights, is_review=False)


def _review(folder: Path, ct: CtVolume) -> FoundLesions:
    table, labels = read_table(folder / TABLE_FILE), _labels(folder, ct)
    _check_sizes([row for row in table if row["label"]], labels, ct, folder)
    return _reviewed(table, read_table(folder / AUDIT_FILE), labels)


def lesions_of_case(case: ReviewedCase) -> FoundLesions:
    """The lesions of a review as it stands, on the voxels of its CT; the same as from its exported folder.

    Raises :class:`InputError` where a lesion has no voxel of its own.
    """

    def texts(rows: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
        return [{column: str(value) for column, value in row.items()} for row in rows]

    return _reviewed(texts(table_rows(case)), texts(audit_rows(case)), case.labels.astype(np.uint16))


def _reviewed(table: Sequence[Mapping[str, str]], audit: Sequence[Mapping[str, str]], labels: np.ndarray) -> FoundLesions:
    # Proposals that are no longer there come last, and a later lesion may have taken the name of one.
    facts_of = {row["segment"]: row for row in reversed(audit)}
    rows = [row for row in table if row["label"]]
    lesions: list[FoundLesion] = []
    for label, row in enumerate(rows, start=1):
        facts = facts_of[row["segment"]]
        # What was added has no proposal; its voxels tell it from what another reader added.
        key = f"{facts['weights_sha256']}/{facts['proposals']}" if facts["proposals"] else _fingerprint(labels, label)
        if UID.fullmatch(facts["proposals"].removeprefix(f"{FIRST_RUN}/")):
            # Of a SEG that was opened, see scene.seg_review.
            key = facts["proposals"].removeprefix(f"{FIRST_RUN}/")
        if any(lesion.key == key for lesion in lesions):
            key = f"{key}/{row['segment']}"
        made = _algorithm_type(row, facts)
        lesions.append(
            FoundLesion(
                name=row["lesion"],
                algorithm_type=made,
                key=key,
                numbers=_numbers(row),
                model=_model(facts["model"]),
                weights_sha256=facts["weights_sha256"],
                threshold=float(facts["threshold"]) if facts["threshold"] else None,
                side=str(row.get("side", "")),
            )
        )
    first = next((row for row in audit if row["model"]), None)
    model, weights = (_model(first["model"]), first["weights_sha256"]) if first else (NO_MODEL, "")
    return FoundLesions(labels, tuple(lesions), model, weights, is_review=True)


def _labels(folder: Path, ct: CtVolume) -> np.ndarray:
    name = LABELS_NIFTI if (folder / LABELS_NIFTI).is_file() else LABELS_FILE
    return read_labels(folder / name, ct).astype(np.uint16)


def _numbers(row: Mapping[str, str | int | float]) -> dict[str, float]:
    return {one.column: float(row[one.column]) for one in MEASUREMENTS if row[one.column] != ""}


def _model(text: str) -> tuple[str, str]:
    name, _, version = text.rpartition(" ")
    if name:
        return name, version
    return (text, "unknown") if text else NO_MODEL


def _fingerprint(labels: np.ndarray, label: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, np.flatnonzero(labels == label).astype("<i8").tobytes().hex()))


def _algorithm_type(row: Mapping[str, str], facts: Mapping[str, str]) -> str:
    """A proposal whose voxels are still those of the model is automatic, accepted or not; what was painted is manual."""
    if row["origin"] == Origin.MANUAL or not facts["model"]:
        return "MANUAL"
    untouched = row["status"] != Status.EDITED and facts["dice"] == "1.0" and facts["volume_mm3"] == facts["proposed_mm3"]
    return "AUTOMATIC" if row["origin"] == Origin.MODEL and untouched else "SEMIAUTOMATIC"


def _check_sizes(rows: list[dict[str, str]], labels: np.ndarray, ct: CtVolume, folder: Path) -> None:
    """Raise :class:`InputError` where a lesion that has all its voxels in ``labels`` has another mean HU in ``ct``."""
    for label, row in enumerate(rows, start=1):
        hu = ct.hu[labels == label]
        whole = len(hu) and abs(len(hu) * ct.voxel_volume_mm3 - float(row["volume_mm3"] or 0)) < 1
        if whole and abs(float(hu.mean()) - float(row["mean_hu"])) > SAME_MEAN_HU:
            what = f"'{row['lesion']}' has {row['mean_hu']} HU there and {hu.mean():.0f} HU here"
            raise InputError(f"the review in '{folder}' is of another CT ({what}); name the CT that was reviewed")
