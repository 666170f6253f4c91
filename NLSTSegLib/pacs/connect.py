"""From a server in the file to the archive behind it."""

from __future__ import annotations

from NLSTSegLib.pacs.archive import Archive
from NLSTSegLib.pacs.dicomweb import DicomWebArchive
from NLSTSegLib.pacs.dimse import DimseArchive
from NLSTSegLib.pacs.server import Server, read_server


def archive_at(name: str) -> Archive:
    """The PACS that the file of servers calls ``name``; nothing is sent yet. Raises what :func:`read_server` does."""
    return open_archive(read_server(name))


def open_archive(server: Server) -> Archive:
    """The PACS behind ``server``; nothing is sent yet."""
    return DicomWebArchive(server) if server.url else DimseArchive(server)
