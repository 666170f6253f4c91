"""The worklist of a PACS: studies with CT that have no SEG or SR of this model and version yet, done one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from NLSTSegLib.dicom.seg import series_description
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.disk.scratch import remove_own_folder
from NLSTSegLib.errors import PacsError
from NLSTSegLib.pacs.archive import Archive, Series
from NLSTSegLib.pacs.transfer import objects_in, pull_series, push_objects
from NLSTSegLib.results.folder import SR_FILE

CT_FOLDER, RESULT_FOLDER = "ct", "result"


@dataclass(frozen=True)
class Worklist:
    """What is to be done by ``model``, its name and version, and where a study's files are kept until it is done."""

    archive: Archive
    model: tuple[str, str]
    folder: Path

    def place(self, study_uid: str) -> Path:
        """Folder of a study. Neither its name nor that of its files says whose it is."""
        return self.folder / hashlib.sha256("/".join((study_uid, *self.model)).encode()).hexdigest()[:16]

    def open_series(self, study_uid: str) -> list[Series]:
        """The CT series of a study that is to be done; none if it is done, or has no CT.

        A study whose result is at hand is not done, though its SEG be in the PACS already.
        """
        series = self.archive.series(study_uid)
        if self._is_done(series) and not self._has_result(study_uid):
            return []
        return [one for one in series if one.modality == "CT"]

    def do(self, ct_series: Sequence[Series], segment: Callable[[Path, Path], object], progress: Callable[[int], None]) -> None:
        """Fetch the CT series of a study, segment it, store SEG and SR, and see that they are there; its files then go.

        ``segment(ct_folder, result_folder)`` writes a result with SEG and SR, which keep their UIDs: what an earlier run got done
        is not done again, and what it stored in part is stored whole. ``progress(images)`` while images come.
        """
        study_uid = ct_series[0].study_uid
        place = self.place(study_uid)
        with held(place):
            if not self._has_result(study_uid):
                if not (place / CT_FOLDER).exists():
                    pull_series(self.archive, ct_series, place / CT_FOLDER, progress)
                segment(place / CT_FOLDER, place / RESULT_FOLDER)
            push_objects(self.archive, objects_in([place / RESULT_FOLDER]), lambda _: None)
            if not self._is_done(self.archive.series(study_uid)):
                what = "does not tell the SeriesDescription of what it was sent"
                raise PacsError(f"the PACS at {self.archive.place} {what}; without it no study can be known to be done")
            remove_own_folder(place)

    def _has_result(self, study_uid: str) -> bool:
        return (self.place(study_uid) / RESULT_FOLDER / SR_FILE).exists()

    def _is_done(self, series: Sequence[Series]) -> bool:
        ours = {series_description(self.model, is_review=is_review) for is_review in (False, True)}
        return any(one.modality in ("SEG", "SR") and one.description in ours for one in series)
