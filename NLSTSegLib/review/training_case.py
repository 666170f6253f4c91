"""A reviewed case as a training case in the layout of the NLSTseg data set (Chen et al. 2025)."""

from __future__ import annotations

from pathlib import Path

from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.disk.free_name import is_plain_name
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.write import write_image
from NLSTSegLib.review.case import ReviewedCase
from NLSTSegLib.review.folder import check_new_folder
from NLSTSegLib.review.state import Status


def check_training_case(case: ReviewedCase, case_id: str) -> None:
    """Raise :class:`InputError` unless ``case`` can be a training case called ``case_id``.

    Lesions that nobody has decided on would be taught as background; NIfTI cannot hold a CT whose axes are not at right
    angles; the name must be a file name.
    """
    if not is_plain_name(case_id):
        raise InputError(f"'{case_id}' cannot name a training case; use up to 64 letters, digits, '-' or '_'")
    undecided = [lesion.name for lesion in case.lesions if lesion.state.status == Status.NEW and lesion.is_counted]
    if undecided:
        raise InputError(
            f"{len(undecided)} lesion(s) of '{case.name}' are still new ('{undecided[0]}'); accept, edit or reject them first, "
            "since a training case teaches everything unmarked as background"
        )
    if not case.ct.is_orthogonal:
        raise InputError(
            f"the axes of the CT of '{case.name}' are not at right angles, which NIfTI cannot hold; "
            "resample a copy of the CT and review that"
        )


def write_training_case(case: ReviewedCase, parent: Path, case_id: str) -> Path:
    """Write ``<parent>/<case_id>/`` with ``<case_id>_CT.nii.gz`` (HU) and ``<case_id>_tumor.nii.gz``; returns that folder.

    The mask holds the accepted and the edited lesions as instances 1..k, uint8 or uint16, on the voxels of the CT; rejected
    ones are background, and without a lesion the mask is empty. The folder comes to be whole or not at all, and nothing is
    overwritten. The files hold no header but the grid.

    Raises :class:`InputError` as :func:`check_training_case` does, and for a folder that is there or cannot be made.
    """
    check_training_case(case, case_id)
    folder = parent / case_id
    with held(folder):
        if folder.exists():
            raise InputError(f"there is a training case '{folder}' already; choose another name or folder")
        check_new_folder(folder)
        ct, mask = case.ct.to_image(), case.ct.image_like(case.labels)
        with atomic_folder(folder) as partial:
            write_image(ct, partial / f"{case_id}_CT.nii.gz")
            write_image(mask, partial / f"{case_id}_tumor.nii.gz")
    return folder
