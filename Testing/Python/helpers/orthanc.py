"""A PACS for a test: Orthanc as a child process that ends with its parent, and files that tell of it."""

import base64
import ctypes
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest
import urllib.request
from collections.abc import Sequence
from pathlib import Path

PROGRAM = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

USER, PASSWORD, PASSWORD_VARIABLE = "nlstseg", "secret of the test", "NLSTSEG_TEST_PASSWORD"

AET, OWN_AET = "ORTHANC", "NLSTSEG"

LONGEST_START_S = 120
"""Far more than it takes, on the busiest machine."""


def needs_orthanc(test):
    has_libraries = all(importlib.util.find_spec(name) for name in ("pynetdicom", "dicomweb_client"))
    if not has_libraries:
        return unittest.skip("the extra dicom is not installed")(test)
    return unittest.skipUnless(PROGRAM and PLUGIN.exists(), "Orthanc is not installed (.ci/system-packages.sh)")(test)


class Orthanc:
    """One server with its storage in ``folder``. ``settings`` are of its configuration."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder, self.settings = folder, settings
        self.http_port = self.dicom_port = self.own_port = 0
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """With new ports the first time; another process may take one of them before Orthanc does, so it is tried again."""
        ports = (self.http_port, self.dicom_port, self.own_port)
        for _ in range(5):
            self.http_port, self.dicom_port, self.own_port = ports if ports[0] else free_ports(3)
            self._start()
            if self._is_ready():
                return
            self.kill()
        raise AssertionError((self.folder / "log.txt").read_text()[-2000:])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """It does nothing, and its connections stay, until :meth:`thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def ask(self, path: str, content: bytes | None = None, method: str | None = None):
        """The JSON at a path of its own interface, after ``content`` was posted to it."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=content, method=method)
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def add(self, files: Sequence[Path]) -> None:
        for file in files:
            self.ask("/instances", file.read_bytes())

    def clear(self) -> None:
        """Forget everything that was stored."""
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", method="DELETE")

    def _start(self) -> None:
        config = {
            "Name": "test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": AET,
            "DicomCheckCalledAet": True,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "RemoteAccessAllowed": False,
            "DefaultEncoding": "Utf8",
            "DicomModalities": {
                "own": {
                    **{"AET": OWN_AET, "Host": "127.0.0.1", "Port": self.own_port},
                    **{f"Allow{what}": True for what in ("Echo", "Find", "Get", "Move", "Store")},
                    "UseDicomTls": bool(self.settings.get("DicomTlsEnabled")),
                }
            },
            **self.settings,
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        command = [PROGRAM, str(self.folder / "config.json")]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_end_with_parent)

    def _is_ready(self) -> bool:
        end = time.monotonic() + LONGEST_START_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                self.ask("/system")
                socket.create_connection(("127.0.0.1", self.dicom_port), 1).close()
                return True
            except OSError:
                time.sleep(0.05)
        return False


def start_for(test: type[unittest.TestCase], folder: Path, **settings: object) -> Orthanc:
    """A server that runs until the tests of a class are done."""
    server = Orthanc(folder, **settings)
    server.start()
    test.addClassCleanup(lambda: server.kill())
    return server


def free_ports(count: int) -> list[int]:
    """All bound at the same time, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
