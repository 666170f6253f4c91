"""A PACS over DICOMweb: QIDO, WADO and STOW, plain or in TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.errors import PacsError, printable
from NLSTSegLib.pacs.archive import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
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
from NLSTSegLib.pacs.server import Server

if TYPE_CHECKING:
    from pydicom import Dataset

PAGE = 100
"""How many answers are asked for at a time."""

MOST_OBJECTS, MOST_BYTES = 50, 50_000_000
"""Largest request that stores: one by one, many small ones take Orthanc ten times as long."""

NOT_TAKEN = (400, 409, 415)
"""HTTP statuses of a server that looked at an object and does not want it."""


class DicomWebArchive:
    """See :class:`NLSTSegLib.pacs.archive.Archive`."""

    def __init__(self, server: Server, page: int = PAGE) -> None:
        self.server, self.place, self.page = server, server.place, page

    def echo(self) -> str:
        with self._client() as client:
            client.search_for_studies(limit=1)
        return f"{self.place} answers a QIDO query"

    def studies(self, query: StudyQuery) -> list[Study]:
        with self._client() as client:
            found = self._all(client.search_for_studies, "StudyInstanceUID", fields=STUDY_KEYS, search_filters=query.keys())
        return with_ct([study_of(one) for one in found])

    def series(self, study_uid: str) -> list[Series]:
        with self._client() as client:
            found = self._all(client.search_for_series, "SeriesInstanceUID", study_uid, fields=SERIES_KEYS)
        return [series_of(study_uid, one) for one in found]

    def instances(self, study_uid: str, series_uid: str) -> dict[str, str]:
        with self._client() as client:
            found = self._all(client.search_for_instances, "SOPInstanceUID", study_uid, series_uid)
        return {text_of(one, "SOPInstanceUID"): text_of(one, "SOPClassUID") for one in found}

    def fetch(self, series: Series, classes: dict[str, str], folder: Path, progress: Callable[[int], None]) -> int:
        wanted = {*classes}
        received = 0
        with self._client() as client:
            # As stored: without it Orthanc sends everything uncompressed.
            for one in client.iter_series(series.study_uid, series.uid, media_types=(("application/dicom", "*"),)):
                if one.SOPInstanceUID not in wanted:
                    continue
                wanted.discard(one.SOPInstanceUID)
                received += 1
                path = folder / f"{received:05d}.dcm"
                try:
                    one.save_as(path)
                except OSError as error:
                    raise PacsError(f"what came could not be written to '{folder}' ({error.strerror}); make room") from error
                progress(received)
        return received

    def store(self, objects: Sequence[StoredObject], progress: Callable[[int], None]) -> None:
        import pydicom
        import requests

        sent = 0
        with self._client() as client:
            for request in _requests(objects):
                refused = f"the PACS at {self.place} did not take '{request[0].path}'"
                try:
                    answer = client.store_instances([pydicom.dcmread(one.path) for one in request])
                except requests.HTTPError as error:
                    code, reason = _status(error)
                    if code not in NOT_TAKEN:
                        raise
                    raise StoreRefusedError(f"{refused} ({code} {reason}); look at its log") from error
                failed = {str(one.ReferencedSOPInstanceUID) for one in answer.get("FailedSOPSequence") or ()}
                for one in request:
                    if one.sop_uid in failed:
                        raise StoreRefusedError(f"the PACS at {self.place} did not take '{one.path}'; look at its log")
                    sent += 1
                    progress(sent)

    def _all(self, search: Callable[..., list[dict[str, Any]]], uid: str, *above: str, **how: object) -> list[Dataset]:
        """All answers, page by page. Paged here, and stopped at a page without news: Orthanc 1.10 repeats itself or ends early
        when the library pages."""
        from pydicom import Dataset

        found: dict[str, Dataset] = {}
        while True:
            try:
                page = [Dataset.from_json(one) for one in search(*above, limit=self.page, offset=len(found), **how)]
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise PacsError(f"the answer of the PACS at {self.place} is no DICOM JSON; look at url") from error
            news = {text_of(one, uid): one for one in page if text_of(one, uid) not in found}
            if not news:
                return list(found.values())
            found |= news

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A client; errors of the network as :class:`PacsError` with the reason."""
        import requests
        from dicomweb_client.api import DICOMwebClient

        class Session(requests.Session):
            """The library writes wildcards as %2A and %3F, which Orthanc 1.10 does not take for such."""

            def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
                request.url = str(request.url).replace("%2A", "*").replace("%3F", "?")
                return super().prepare_request(request)

        server, where = self.server, f"the PACS at {self.place}"
        session = Session()
        # Passwords and certificates from the file of servers alone, not from .netrc and variables.
        session.trust_env = False
        if server.user:
            session.auth = (server.user, server.password())
        ca, session.cert = server.tls_files()
        session.verify = ca or True
        with quiet_dicom(), session:
            client = DICOMwebClient(server.url.rstrip("/"), session=session, timeout=(CONNECT_SECONDS, ANSWER_SECONDS))
            # It would try a wrong certificate again for half a minute.
            client.set_http_retry_params(retry=False)
            try:
                yield client
            except requests.exceptions.SSLError as error:
                raise PacsError(f"{where} gave no TLS connection that can be trusted; look at tls_ca and the others") from error
            except requests.exceptions.ConnectTimeout as error:
                raise PacsError(f"{where} did not answer in {CONNECT_SECONDS} s; look at url") from error
            except requests.Timeout as error:
                raise PacsError(f"{where} did not answer in {ANSWER_SECONDS} s; try again") from error
            except requests.HTTPError as error:
                code, reason = _status(error)
                fix = "user and password" if code in (401, 403) else "url, and its log"
                raise PacsError(f"{where} did not do what it was asked for ({code} {reason}); look at {fix}") from error
            except (requests.RequestException, OSError) as error:
                raise PacsError(f"{where} cannot be reached, or the connection broke off; look at url, try again") from error


def _requests(objects: Sequence[StoredObject]) -> Iterator[list[StoredObject]]:
    """Objects that go together, of one class, so that no report goes with the segmentation that it refers to."""
    request: list[StoredObject] = []
    size = 0
    for one in objects:
        size += one.path.stat().st_size
        is_full = len(request) == MOST_OBJECTS or size > MOST_BYTES
        if request and (is_full or one.sop_class_uid != request[0].sop_class_uid):
            yield request
            request, size = [], one.path.stat().st_size
        request.append(one)
    if request:
        yield request


def _status(error: Any) -> tuple[int, str]:
    """Code and reason of a ``requests.HTTPError``."""
    return error.response.status_code, printable(error.response.reason)
