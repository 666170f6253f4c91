"""DIMSE connections: associations with a PACS, and an open port for its C-MOVE, plain or in TLS; what failed is said."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.errors import PacsError
from NLSTSegLib.pacs.archive import ANSWER_SECONDS, CONNECT_SECONDS
from NLSTSegLib.pacs.server import Server

if TYPE_CHECKING:
    import ssl

    from pynetdicom.association import Association

Context = tuple[str, str]
"""Class of objects, and transfer syntax. One each: the PACS chooses one syntax of a context."""


class NothingAcceptedError(PacsError):
    """The PACS takes none of the contexts that it was offered."""


@contextmanager
def associated(
    server: Server, contexts: Sequence[Context], *, roles: Sequence[Any] = (), handlers: Sequence[Any] = ()
) -> Iterator[Association]:
    """An association with the PACS, in one thread. Raises :class:`PacsError` with the reason where there is none to be had."""
    from pynetdicom import AE, evt
    from pynetdicom.pdu import A_ASSOCIATE_RJ
    from pynetdicom.presentation import build_context

    rejections: list[str] = []

    def note_rejection(event: Any) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu.reason_str)

    tls = server.tls_context() if server.tls else None
    _probe(server, tls)
    with quiet_dicom():
        ae = AE(ae_title=server.my_aet)
        ae.connection_timeout, ae.acse_timeout = CONNECT_SECONDS, CONNECT_SECONDS
        ae.dimse_timeout, ae.network_timeout = ANSWER_SECONDS, ANSWER_SECONDS
        association = ae.associate(
            server.host,
            server.port,
            contexts=[build_context(kind, syntax) for kind, syntax in contexts],
            ae_title=server.aet,
            ext_neg=list(roles) or None,
            evt_handlers=[*handlers, (evt.EVT_PDU_RECV, note_rejection)],
            tls_args=(tls, server.host) if tls else None,
        )
        association.unbind(evt.EVT_PDU_RECV, note_rejection)
        # `is_rejected` stays false where the connection is closed again before pynetdicom has seen that it was open.
        if rejections:
            reason = rejections[0]
            raise PacsError(f"the PACS at {server.place} rejected the association ({reason}); look at aet and my_aet")
        if association.rejected_contexts and not association.accepted_contexts:
            raise NothingAcceptedError(f"the PACS at {server.place} does not offer what is asked for; look at its configuration")
        if not association.is_established:
            what = "broke the association off (it may want TLS, or be no PACS)"
            raise PacsError(f"the PACS at {server.place} {what}; look at port and tls")
        try:
            yield association
        except BaseException as error:
            # pynetdicom's word for a request on a connection that is gone.
            is_lost = isinstance(error, RuntimeError) and not association.is_established
            # A release would wait for what is still on its way.
            association.abort()
            if is_lost:
                raise broken(server) from error
            raise
        if association.is_established:
            association.release()


def broken(server: Server) -> PacsError:
    """What is said where an answer does not come."""
    why = f"broke off, or it did not answer in {ANSWER_SECONDS} s"
    return PacsError(f"the connection to the PACS at {server.place} {why}; look at my_aet, and try again")


def _probe(server: Server, tls: ssl.SSLContext | None) -> None:
    """Raise :class:`PacsError` where no connection is to be had; pynetdicom says of every reason that it was aborted."""
    where = f"the PACS at {server.place}"
    try:
        plain = socket.create_connection((server.host, server.port), timeout=CONNECT_SECONDS)
    except OSError as error:
        raise PacsError(f"{where} cannot be reached ({error.strerror or error}); look at host and port") from error
    with plain:
        try:
            if tls:
                tls.wrap_socket(plain, server_hostname=server.host).close()
        except OSError as error:
            why = getattr(error, "verify_message", "") or error.strerror or error
            what = f"gave no TLS connection that can be trusted ({why})"
            raise PacsError(f"{where} {what}; look at tls_ca and the others") from error


@contextmanager
def listening(server: Server, contexts: Sequence[Context], handlers: Sequence[Any]) -> Iterator[None]:
    """An open port at which the PACS alone, by its AE title, may deliver. Raises :class:`PacsError` if it cannot be opened."""
    from pynetdicom import AE

    ae = AE(ae_title=server.my_aet)
    ae.require_called_aet, ae.require_calling_aet = True, [server.aet]
    for kind, syntax in contexts:
        ae.add_supported_context(kind, syntax)
    tls = server.tls_context(listening=True) if server.tls else None
    try:
        listener: Any = ae.start_server(("", server.listen_port), block=False, ssl_context=tls, evt_handlers=list(handlers))
    except OSError as error:
        what = f"port {server.listen_port} cannot be opened ({error.strerror})"
        raise PacsError(f"{what}; choose another listen_port, and tell the PACS") from error
    try:
        yield
    finally:
        listener.shutdown()
