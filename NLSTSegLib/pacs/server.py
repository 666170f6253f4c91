"""The PACS that a user may name: one small file of servers."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from NLSTSegLib.disk.strict_json import as_strict
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import ssl

SERVERS_VARIABLE = "NLSTSEG_SERVERS"
"""Environment variable with the path of the file of servers."""

SERVERS_FILE = Path(".nlstseg", "servers.toml")
"""Where the file lies in the user's home folder, if the variable is not set."""

LONGEST_AET = 16


@dataclass(frozen=True)
class Server:
    """One section of the file: DICOMweb where it has a ``url``, else DIMSE."""

    url: str = ""
    user: str = ""
    password_env: str = ""
    password_file: str = ""
    host: str = ""
    port: int = 104
    aet: str = ""
    my_aet: str = "NLSTSEG"
    listen_port: int = 0
    """Where a C-MOVE is received; 0 for C-GET, which needs no open port."""
    tls: bool = False
    """Whether DIMSE is encrypted; DICOMweb says it by ``https``."""
    tls_ca: str = ""
    """Certificates that are trusted; empty for the well-known ones."""
    tls_certificate: str = ""
    tls_key: str = ""

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.host):
            raise ValueError("it must name either url, for DICOMweb, or host, port and aet")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if "@" in self.url:
            raise ValueError("url must not hold a password; name the user with user, and password_env or password_file")
        if self.host and not (0 < len(self.aet) <= LONGEST_AET and 0 < len(self.my_aet) <= LONGEST_AET):
            raise ValueError(f"aet and my_aet must be there and have at most {LONGEST_AET} characters")
        if self.user and bool(self.password_env) == bool(self.password_file):
            raise ValueError("of a user it must name either password_env or password_file")
        if self.listen_port and self.tls and not self.tls_certificate:
            raise ValueError("C-MOVE in TLS needs a tls_certificate that the PACS trusts")

    @property
    def place(self) -> str:
        return self.url or f"{self.host}:{self.port}"

    def password(self) -> str:
        """Password from the environment or a file, never from the file of servers. Raises :class:`InputError` where it is
        missing."""
        if self.password_file:
            try:
                return Path(self.password_file).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is not text"
                raise InputError(f"the password file '{self.password_file}' cannot be read ({why}); look after it") from error
        if self.password_env not in os.environ:
            raise InputError(f"the password for {self.place} is not in the variable {self.password_env}; set it")
        return os.environ[self.password_env]

    def tls_context(self, *, listening: bool = False) -> ssl.SSLContext:
        """Context of a connection to the server, whose certificate and name are checked; with ``listening`` for one from it.

        Raises :class:`InputError` for a file that cannot be used.
        """
        import ssl

        purpose = ssl.Purpose.CLIENT_AUTH if listening else ssl.Purpose.SERVER_AUTH
        try:
            context = ssl.create_default_context(purpose, cafile=_path(self.tls_ca))
            if self.tls_certificate:
                context.load_cert_chain(str(_path(self.tls_certificate)), _path(self.tls_key))
        except OSError as error:
            names = "tls_ca, tls_certificate and tls_key"
            raise InputError(f"a TLS file for {self.place} cannot be used ({error}); look at {names}") from error
        return context

    def tls_files(self) -> tuple[str | None, tuple[str, str] | str | None]:
        """What is trusted, and own certificate and key, as DICOMweb's library takes them, which says nothing of wrong ones."""
        self.tls_context()
        certificate, key = _path(self.tls_certificate), _path(self.tls_key)
        return _path(self.tls_ca), (certificate, key) if certificate and key else certificate


def _path(text: str) -> str | None:
    return str(Path(text).expanduser()) if text else None


def servers_file() -> Path:
    """The file of servers, which need not be there."""
    named = os.environ.get(SERVERS_VARIABLE)
    # Where the system names no home, the path stays as it is, of a file that is not there.
    return Path(named) if named else Path(os.path.expanduser("~")) / SERVERS_FILE


def server_names() -> list[str]:
    """The servers in the file, in its order; none where there is no file. Raises :class:`InputError` as :func:`read_server`."""
    return [*_sections(servers_file())] if servers_file().exists() else []


def read_server(name: str) -> Server:
    """The server called ``name``; raises :class:`InputError` when there is none or its section is wrong."""
    path = servers_file()
    sections = _sections(path)
    if name not in sections:
        raise InputError(f"there is no server '{name}' in '{path}', only: {', '.join(sections) or 'none'}")
    try:
        return as_strict(Server, sections[name], name)
    except ValueError as error:
        raise InputError(f"in the file of servers '{path}' {error}") from error


def _sections(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no file of servers '{path}'; write one, as docs/how-to/pacs.md shows") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"the file of servers '{path}' cannot be read ({why}); mend it") from error
