"""A PACS over DIMSE: C-ECHO, C-FIND, C-GET (or C-MOVE) and C-STORE."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.errors import PacsError, printable
from NLSTSegLib.pacs.archive import (
    INSTANCE_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    Series,
    StoredObject,
    StoreRefusedError,
    Study,
    StudyQuery,
    series_of,
    study_of,
    text_of,
    with_ct,
)
from NLSTSegLib.pacs.association import NothingAcceptedError, associated, broken, listening
from NLSTSegLib.pacs.server import Server

if TYPE_CHECKING:
    from pydicom import Dataset

VERIFICATION = "1.2.840.10008.1.1"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))
"""Classes of queries in the study root."""

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""Asked for where the PACS does not tell the classes of a series."""

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"

SYNTAXES = (
    *(EXPLICIT, IMPLICIT, DEFLATED, "1.2.840.10008.1.2.5"),
    *("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"),
)
"""Transfer syntaxes in which objects are received: uncompressed, RLE, and the JPEG family."""

MOST_CONTEXTS = 128

DONE, STILL_MORE = {0x0000}, {0xFF00, 0xFF01}
TAKEN = {0x0000, 0xB000, 0xB006, 0xB007, 0x0111}
"""Statuses; an object that is there already (0x0111) is taken too."""

OUT_OF_RESOURCES, NOT_ASKED_FOR = 0xA700, 0xA900


class DimseArchive:
    """See :class:`NLSTSegLib.pacs.archive.Archive`; every call is an association of its own, in one thread."""

    def __init__(self, server: Server) -> None:
        self.server, self.place = server, server.place

    def echo(self) -> str:
        with associated(self.server, [(VERIFICATION, EXPLICIT), (VERIFICATION, IMPLICIT)]) as association:
            self._check(association.send_c_echo(), "answer a C-ECHO", DONE)
        return f"{self.server.aet} at {self.place} answers a C-ECHO"

    def studies(self, query: StudyQuery) -> list[Study]:
        return with_ct([study_of(one) for one in self._find("STUDY", STUDY_KEYS, query.keys())])

    def series(self, study_uid: str) -> list[Series]:
        return [series_of(study_uid, one) for one in self._find("SERIES", SERIES_KEYS, {"StudyInstanceUID": study_uid})]

    def instances(self, study_uid: str, series_uid: str) -> dict[str, str]:
        known = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        found = self._find("IMAGE", INSTANCE_KEYS, known)
        return {text_of(one, "SOPInstanceUID"): text_of(one, "SOPClassUID") for one in found}

    def fetch(self, series: Series, classes: dict[str, str], folder: Path, progress: Callable[[int], None]) -> int:
        from pynetdicom import build_role, evt

        receiver = _Receiver(folder, {*classes}, progress)
        handlers = [(evt.EVT_C_STORE, receiver.take)]
        kinds = sorted({*classes.values()} - {""}) or CT_CLASSES
        contexts = [(kind, syntax) for kind in kinds for syntax in SYNTAXES][: MOST_CONTEXTS - 1]
        identifier = _identifier("SERIES", {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.uid})
        if self.server.listen_port:
            with listening(self.server, contexts, handlers), associated(self.server, [(MOVE, EXPLICIT)]) as association:
                self._receive(association.send_c_move(identifier, self.server.my_aet, MOVE), "C-MOVE", receiver)
        else:
            roles = [build_role(kind, scp_role=True) for kind in kinds]
            with associated(self.server, [(GET, EXPLICIT), *contexts], roles=roles, handlers=handlers) as association:
                if not any(one.abstract_syntax == GET for one in association.accepted_contexts):
                    fix = "set listen_port, and have the PACS know this computer by my_aet, for C-MOVE"
                    raise PacsError(f"the PACS at {self.place} has no C-GET; {fix}")
                self._receive(association.send_c_get(identifier, GET), "C-GET", receiver)
        return receiver.received

    def store(self, objects: Sequence[StoredObject], progress: Callable[[int], None]) -> None:
        import pydicom

        sent = 0
        for (kind, syntax), group in itertools.groupby(objects, key=lambda one: (one.sop_class_uid, one.syntax_uid)):
            # pynetdicom sends what is not compressed image by image in whichever of these the PACS takes.
            syntaxes = (syntax, EXPLICIT, IMPLICIT) if syntax in (EXPLICIT, IMPLICIT, DEFLATED) else (syntax,)
            same = [*group]
            try:
                with associated(self.server, [(kind, each) for each in dict.fromkeys(syntaxes)]) as association:
                    for one in same:
                        status = association.send_c_store(pydicom.dcmread(one.path))
                        if "Status" in status and status.Status not in TAKEN:
                            refused = f"did not take '{one.path}' (status 0x{status.Status:04X})"
                            raise StoreRefusedError(f"the PACS at {self.place} {refused}; look at its log")
                        self._check(status, "take an object", TAKEN)
                        sent += 1
                        progress(sent)
            except NothingAcceptedError as error:
                names = f"{pydicom.uid.UID(kind).name}, {pydicom.uid.UID(syntax).name}"
                refused = f"did not take '{same[0].path}': it takes none of its kind ({names})"
                raise StoreRefusedError(f"the PACS at {self.place} {refused}") from error

    def _find(self, level: str, asked: Sequence[str], known: dict[str, str]) -> list[Dataset]:
        found = []
        with associated(self.server, [(FIND, EXPLICIT), (FIND, IMPLICIT)]) as association:
            for status, one in association.send_c_find(_identifier(level, dict.fromkeys(asked, "") | known), FIND):
                self._check(status, "answer a C-FIND", DONE | STILL_MORE)
                if one is not None:
                    found.append(one)
        return found

    def _receive(self, answers: Iterator[tuple[Dataset, Dataset | None]], what: str, receiver: _Receiver) -> None:
        """What came is counted by the receiver, so a status that tells of failures of single images need not be read."""
        for status, _ in answers:
            if receiver.fault:
                why = receiver.fault.strerror
                raise PacsError(f"what came could not be written to '{receiver.folder}' ({why}); make room") from receiver.fault
            if "Status" not in status or not receiver.received:
                self._check(status, f"send a series by {what}", DONE | STILL_MORE)

    def _check(self, status: Dataset, what: str, good: set[int]) -> None:
        if "Status" not in status:
            raise broken(self.server)
        if status.Status not in good:
            comment = printable(f"status 0x{status.Status:04X} {status.get('ErrorComment') or ''}").strip()
            raise PacsError(f"the PACS at {self.place} did not {what} ({comment}); look at its log")


class _Receiver:
    """Writes what comes in as the bytes that came, to files numbered from 1."""

    def __init__(self, folder: Path, wanted: set[str], progress: Callable[[int], None]) -> None:
        self.folder, self.progress = folder, progress
        self.received = 0
        self.fault: OSError | None = None
        self._wanted = wanted

    def take(self, event: Any) -> int:
        """The status of a C-STORE."""
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid not in self._wanted:
            return NOT_ASKED_FOR
        try:
            (self.folder / f"{self.received + 1:05d}.dcm").write_bytes(event.encoded_dataset())
        except OSError as error:
            self.fault = error
            return OUT_OF_RESOURCES
        self._wanted.discard(uid)
        self.received += 1
        self.progress(self.received)
        return 0x0000


def _identifier(level: str, asked: dict[str, str]) -> Dataset:
    from pydicom import Dataset

    with quiet_dicom():
        identifier = Dataset()
        # Without it names in other letters than English find nothing.
        identifier.SpecificCharacterSet = "ISO_IR 192"
        identifier.QueryRetrieveLevel = level
        for keyword, value in asked.items():
            setattr(identifier, keyword, value)
    return identifier
