"""A reviewed case as a folder of files: label map, lesion table and audit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from NLSTSegLib.disk.atomic_folder import atomic_folder, held, prepare_place
from NLSTSegLib.disk.csv_table import write_table
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.measure import round_half_up
from NLSTSegLib.progress import Progress, silent
from NLSTSegLib.reading.write import check_written, write_image
from NLSTSegLib.review.case import ReviewedCase, review_row
from NLSTSegLib.review.state import Status
from NLSTSegLib.volume.scan_hash import scan_sha256

SEGMENTATION_FILE = "segmentation.seg.nrrd"
TABLE_FILE = "lesions.csv"
AUDIT_FILE = "audit.csv"

TABLE_COLUMNS = (
    *("label", "lesion", "segment", "status", "counted", "origin", "score", "slice", "side", "third", "volume_mm3"),
    *("equivalent_diameter_mm", "long_axis_mm", "short_axis_mm", "mean_diameter_mm", "mean_hu", "solid_volume_mm3"),
    *("reader", "seconds"),
)
"""Columns of ``lesions.csv``: ``label`` is the value in the label map, empty for a lesion that is not ``counted`` (1 or 0)."""

AUDIT_COLUMNS = (
    *("lesion", "segment", "status", "origin", "reader", "seconds", "dice", "proposed_mm3", "volume_mm3"),
    *("volume_change_percent", "threshold", "score", "model", "weights_sha256", "proposals", "ct_sha256"),
)
"""Columns of ``audit.csv``; sizes count voxels. What has no proposal has no ``dice`` and no change; ``ct_sha256``: the CT."""


def labels_file(case: ReviewedCase) -> str:
    """Name of the label map: NIfTI, but NRRD for a CT whose axes are not at right angles, which NIfTI cannot hold."""
    return "labels.nii.gz" if case.ct.is_orthogonal else "labels.nrrd"


NOTES = "ITK_FileNotes"
"""Where an image file keeps a remark: ``descrip`` of NIfTI, a field of NRRD."""


def write_review(
    case: ReviewedCase, folder: Path, write_segmentation: Callable[[Path], None], progress: Progress = silent
) -> None:
    """Write the case into ``folder``, new or empty: whole or not at all.

    ``write_segmentation(path)`` writes ``segmentation.seg.nrrd`` with every lesion and its state
    (:func:`NLSTSegLib.scene.segmentation_file.write_segmentation_node`). The label map holds the lesions that are counted:
    rejected ones are in the tables, but not counted. Every file tells the status: the label map in its header, in numbers
    (:func:`status_note`), the others of each lesion.

    Raises :class:`InputError` when the folder holds something or cannot be written, or a lesion lies wholly in another.
    """
    with held(folder):
        check_new_folder(folder)
        labels = case.ct.image_like(case.labels)
        with atomic_folder(folder) as partial:
            labels.SetMetaData(NOTES, status_note(case))
            progress(0.0, "label map")
            write_image(labels, partial / labels_file(case))
            progress(0.4, "tables")
            write_table(partial / TABLE_FILE, TABLE_COLUMNS, table_rows(case))
            write_table(partial / AUDIT_FILE, AUDIT_COLUMNS, audit_rows(case))
            progress(0.5, "segmentation")
            write_segmentation(partial / SEGMENTATION_FILE)
            check_written(partial / SEGMENTATION_FILE)
            progress(1.0, "done")


def status_note(case: ReviewedCase) -> str:
    """How many lesions have each status: "2 new (undecided), 1 accepted"; no longer than NIfTI's 79 characters."""
    words = {Status.NEW: "new (undecided)", Status.ACCEPTED: "accepted", Status.EDITED: "edited", Status.REJECTED: "rejected"}
    numbers = {status: sum(lesion.state.status == status for lesion in case.lesions) for status in words}
    return ", ".join(f"{number} {words[status]}" for status, number in numbers.items() if number) or "no lesions"


def check_new_folder(folder: Path) -> None:
    """Raise :class:`InputError` unless ``folder`` can be made, or is there and empty."""
    names = prepare_place(folder)
    if names:
        raise InputError(f"the output folder '{folder}' holds '{sorted(names)[0]}' already; choose a new folder")


def table_rows(case: ReviewedCase) -> list[dict[str, str | int | float]]:
    """A row of :data:`TABLE_COLUMNS` for every lesion, in the order of the segments."""
    labels = {lesion.segment_id: label for label, lesion in enumerate(case.counted, start=1)}
    return [{"label": labels.get(lesion.segment_id, ""), **review_row(lesion)} for lesion in case.lesions]


def audit_rows(case: ReviewedCase) -> list[dict[str, str | int | float]]:
    """A row of :data:`AUDIT_COLUMNS` for every lesion, against the first proposal.

    A lesion that was split or merged is compared with all that it came from. Then come the proposals that are no longer
    there: ``deleted``, or ``replaced`` by a lesion of a later run.
    """
    voxel_mm3, ct_sha256 = case.ct.voxel_volume_mm3, scan_sha256(case.ct)
    rows: list[dict[str, str | int | float]] = []
    for lesion in case.lesions:
        state, proposal = lesion.state, lesion.proposal
        proposed = proposal.voxels if proposal else 0
        rows.append(
            {
                "lesion": lesion.name,
                "segment": lesion.segment_id,
                "status": state.status.value,
                "origin": state.origin.value,
                "reader": state.reader,
                "seconds": int(round_half_up(state.seconds, 0)),
                "dice": round_half_up(lesion.region.dice(proposal), 4) if proposal else "",
                "proposed_mm3": round_half_up(proposed * voxel_mm3, 1) if proposal else "",
                "volume_mm3": round_half_up(lesion.region.voxels * voxel_mm3, 1),
                "volume_change_percent": round_half_up(100 * (lesion.region.voxels / proposed - 1), 1) if proposed else "",
                "threshold": "" if state.threshold is None else round_half_up(state.threshold, 4),
                "score": "" if state.score is None else round_half_up(state.score, 3),
                "model": state.model,
                "weights_sha256": state.weights_sha256,
                "proposals": " ".join(state.proposals),
                "ct_sha256": ct_sha256,
            }
        )
    for lost in case.lost:
        rows.append(
            {
                **dict.fromkeys(AUDIT_COLUMNS, ""),
                "lesion": lost.name,
                "segment": lost.segment_id,
                "status": "replaced" if lost.replaced else "deleted",
                "origin": lost.state.origin.value,
                "dice": 0.0,
                "proposed_mm3": round_half_up(lost.region.voxels * voxel_mm3, 1),
                "volume_mm3": 0.0,
                "volume_change_percent": -100.0,
                "score": "" if lost.state.score is None else round_half_up(lost.state.score, 3),
                "model": lost.state.model,
                "weights_sha256": lost.state.weights_sha256,
                "proposals": " ".join(lost.state.proposals),
                "ct_sha256": ct_sha256,
            }
        )
    return rows
