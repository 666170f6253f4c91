"""What a PACS is asked for, in one vocabulary for DIMSE and DICOMweb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from NLSTSegLib.errors import PacsError, printable

if TYPE_CHECKING:
    from pydicom import Dataset

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""Time within which a connection stands, and an answer comes on it."""

STUDY_KEYS = (
    *("StudyInstanceUID", "StudyDate", "StudyDescription", "AccessionNumber", "PatientID", "PatientName", "ModalitiesInStudy"),
)
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "NumberOfSeriesRelatedInstances")
INSTANCE_KEYS = ("SOPInstanceUID", "SOPClassUID")
"""What a PACS is asked to tell of each study, series and instance."""


class StoreRefusedError(PacsError):
    """The PACS answered, and did not take an object."""


@dataclass(frozen=True)
class StudyQuery:
    """Which studies are looked for; empty stands for any. ``*`` and ``?`` may stand in names."""

    patient_id: str = ""
    patient_name: str = ""
    date: str = ""
    """YYYYMMDD, or YYYYMMDD-YYYYMMDD."""
    accession: str = ""
    study_uid: str = ""

    def keys(self) -> dict[str, str]:
        """What is asked for by DICOM keyword."""
        asked = {
            "StudyInstanceUID": self.study_uid,
            "StudyDate": self.date,
            "AccessionNumber": self.accession,
            "PatientID": self.patient_id,
            "PatientName": self.patient_name,
        }
        return {keyword: value for keyword, value in asked.items() if value}


@dataclass(frozen=True)
class Study:
    uid: str
    date: str
    description: str
    accession: str
    patient_id: str
    patient_name: str
    modalities: tuple[str, ...]
    """Empty where the PACS does not tell."""


@dataclass(frozen=True)
class Series:
    study_uid: str
    uid: str
    modality: str
    number: str
    description: str
    instances: int | None
    """How many the PACS says there are; ``None`` where it does not say."""


@dataclass(frozen=True)
class StoredObject:
    """A DICOM file that can be sent."""

    path: Path
    sop_class_uid: str
    sop_uid: str
    syntax_uid: str
    study_uid: str
    series_uid: str
    modality: str


class Archive(Protocol):
    """A PACS. All methods raise :class:`PacsError`."""

    place: str
    """Where it is, for sentences: its URL, or host and port."""

    def echo(self) -> str:
        """One line on what answered."""

    def studies(self, query: StudyQuery) -> list[Study]:
        """Those that hold CT, or of which the PACS does not tell, by date, then UID."""

    def series(self, study_uid: str) -> list[Series]: ...

    def instances(self, study_uid: str, series_uid: str) -> dict[str, str]:
        """SOPClassUID by SOPInstanceUID of what is there; an empty class where the PACS does not tell it."""

    def fetch(self, series: Series, classes: dict[str, str], folder: Path, progress: Callable[[int], None]) -> int:
        """Write instances of a series, as the PACS has them, to new files in ``folder``; how many came.

        ``classes`` are those that are wanted, as :meth:`instances` tells them. ``progress(instances)`` after each.
        """

    def store(self, objects: Sequence[StoredObject], progress: Callable[[int], None]) -> None:
        """Send the objects in this order; ``progress(objects)`` after each.

        Raises :class:`StoreRefusedError` at the first that is not taken.
        """


def study_of(answer: Dataset) -> Study:
    modalities = answer.get("ModalitiesInStudy") or ()
    uid, date, description, accession, patient_id, patient_name = (text_of(answer, keyword) for keyword in STUDY_KEYS[:-1])
    several = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    return Study(uid, date, description, accession, patient_id, patient_name, several)


def with_ct(studies: Sequence[Study]) -> list[Study]:
    """See :meth:`Archive.studies`. PACS differ in whether they can be asked for a modality, so it is looked at here."""
    found = [study for study in studies if not study.modalities or "CT" in study.modalities]
    return sorted(found, key=lambda study: (study.date, study.uid))


def series_of(study_uid: str, answer: Dataset) -> Series:
    uid, modality, number, description, count = (text_of(answer, keyword) for keyword in SERIES_KEYS)
    return Series(study_uid, uid, modality, number, description, int(count) if count.isdecimal() else None)


def text_of(answer: Dataset, keyword: str) -> str:
    value = answer.get(keyword)
    return "" if value is None else printable(str(value)).strip()
