"""Archives for tests: the same server over C-GET, C-MOVE and DICOMweb, small studies, and certificates."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom

from helpers.dicom_files import write_series
from helpers.orthanc import AET, OWN_AET, PASSWORD, PASSWORD_VARIABLE, USER, Orthanc, start_for
from NLSTSegLib.pacs.archive import Archive
from NLSTSegLib.pacs.connect import open_archive
from NLSTSegLib.pacs.server import Server

WAYS = ("C-GET", "C-MOVE", "DICOMweb")


class PacsTest(unittest.TestCase):
    """A server that runs for the whole class."""

    @classmethod
    def settings(cls) -> dict[str, object]:
        """Of its configuration."""
        return {}

    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.enterClassContext(mock.patch.dict(os.environ, {PASSWORD_VARIABLE: PASSWORD}))
        cls.pacs = start_for(cls, cls.root / "orthanc", **cls.settings())

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root))


def server_for(pacs: Orthanc, way: str, **changes: object) -> Server:
    """How ``pacs`` is spoken to over one of :data:`WAYS`."""
    if way == "DICOMweb":
        return Server(**{"url": pacs.url, "user": USER, "password_env": PASSWORD_VARIABLE} | changes)
    settings = {"host": "127.0.0.1", "port": pacs.dicom_port, "aet": AET, "my_aet": OWN_AET}
    return Server(**settings | {"listen_port": pacs.own_port if way == "C-MOVE" else 0} | changes)


def archive_for(pacs: Orthanc, way: str, **changes: object) -> Archive:
    return open_archive(server_for(pacs, way, **changes))


def write_study(folder: Path, n: int, slices: int = 5, **attributes: object) -> list[Path]:
    """A CT of ``slices`` small slices of ``n`` HU; names, dates and UIDs tell the studies apart."""
    facts = {
        **{"PatientName": f"Müller^{n}", "PatientID": f"ID{n}", "StudyDate": f"2026010{n}", "AccessionNumber": f"A{n}"},
        **{"StudyInstanceUID": f"1.2.3.{n}", "SeriesInstanceUID": f"1.2.3.{n}.1", "FrameOfReferenceUID": "1.2.3.4"},
    }
    return write_series(folder, np.full((slices, 12, 14), n, np.int16), **facts | attributes)


def objects_below(folder: Path) -> dict[str, pydicom.Dataset]:
    """All DICOM files below a folder by SOPInstanceUID."""
    found = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    return {one.SOPInstanceUID: one for one in found}


def write_certificate(folder: Path, name: str, address: str = "IP:127.0.0.1") -> tuple[str, str]:
    """A certificate that signs itself, and its key, for the server at ``address``."""
    certificate, key = (str(folder / f"{name}.{ending}") for ending in ("crt", "key"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={address}", "-out", certificate, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
