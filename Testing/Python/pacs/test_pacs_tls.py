"""TLS to a PACS: DIMSE to a real Orthanc, DICOMweb to a TLS socket in front of one; only what is trusted is spoken to."""

import socket
import ssl
import threading
import unittest

from helpers.orthanc import needs_orthanc
from helpers.pacs import PacsTest, archive_for, objects_below, write_certificate, write_study
from NLSTSegLib.errors import InputError, PacsError
from NLSTSegLib.pacs.transfer import objects_in, pull_series, push_objects


@needs_orthanc
class TestTls(PacsTest):
    @classmethod
    def settings(cls):
        cls.certificate, cls.key = write_certificate(cls.root, "server")
        cls.other_certificate, cls.other_key = write_certificate(cls.root, "other")
        cls.named_certificate, cls.named_key = write_certificate(cls.root, "named", "DNS:pacs.invalid")
        own_certificate, own_key = write_certificate(cls.root, "own")
        cls.own = {"tls": True, "tls_ca": cls.certificate, "tls_certificate": own_certificate, "tls_key": own_key}
        return {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": cls.certificate,
            "DicomTlsPrivateKey": cls.key,
            "DicomTlsTrustedCertificates": own_certificate,
        }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pacs.add(write_study(cls.root / "study", 1))

    def in_front(self, certificate: str, key: str, ca: str | None = None) -> str:
        """URL of a TLS socket that hands on to the PACS, which itself dies of TLS in HTTP."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
        context.load_cert_chain(certificate, key)
        if ca:
            context.verify_mode = ssl.CERT_REQUIRED
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=hand_on, args=(plain,), daemon=True).start()

        def hand_on(plain: socket.socket) -> None:
            try:
                outside = context.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()
                return
            inside = socket.create_connection(("127.0.0.1", self.pacs.http_port))
            back = threading.Thread(target=copy, args=(inside, outside), daemon=True)
            back.start()
            copy(outside, inside)
            back.join()
            outside.close()
            inside.close()

        def copy(source: socket.socket, target: socket.socket) -> None:
            try:
                while piece := source.recv(1 << 16):
                    target.sendall(piece)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return f"https://127.0.0.1:{listener.getsockname()[1]}/dicom-web"

    def assert_from_pacs_to_pacs(self, way: str, **changes: object):
        archive, folder = archive_for(self.pacs, way, **changes), self.new_folder() / "ct"
        self.assertIn("answers", archive.echo())
        pull_series(archive, archive.series("1.2.3.1"), folder, lambda _: None)
        self.assertEqual(objects_below(folder), objects_below(self.root / "study"))
        push_objects(archive, objects_in([folder]), lambda _: None)

    def assert_not_trusted(self, way: str, words: str = "no TLS connection that can be trusted", **changes: object):
        with self.assertRaisesRegex(PacsError, words):
            archive_for(self.pacs, way, **changes).echo()

    def test_dimse_fetches_and_stores(self):
        for way in ("C-GET", "C-MOVE"):
            with self.subTest(way):
                # Orthanc is the client of the port that receives, and shows its own certificate there.
                self.assert_from_pacs_to_pacs(way, **self.own)

    def test_dicomweb_fetches_and_stores(self):
        url = self.in_front(self.certificate, self.key)
        self.assert_from_pacs_to_pacs("DICOMweb", url=url, tls_ca=self.certificate)
        client = {name: self.own[name] for name in ("tls_certificate", "tls_key")}
        url = self.in_front(self.certificate, self.key, client["tls_certificate"])
        self.assert_from_pacs_to_pacs("DICOMweb", url=url, tls_ca=self.certificate, **client)

    def test_nobody_else_is_spoken_to(self):
        self.assert_not_trusted("C-GET", **self.own | {"tls_ca": self.other_certificate})
        self.assert_not_trusted("C-GET", **self.own | {"tls_ca": ""})
        for certificate, key, ca in (
            (self.certificate, self.key, ""),
            (self.certificate, self.key, self.other_certificate),
            (self.named_certificate, self.named_key, self.named_certificate),
        ):
            self.assert_not_trusted("DICOMweb", url=self.in_front(certificate, key), tls_ca=ca)

    def test_a_server_that_does_not_trust_us_is_said(self):
        stranger = {"tls_certificate": self.other_certificate, "tls_key": self.other_key}
        self.assert_not_trusted("C-GET", "TLS|broke", **self.own | stranger)
        url = self.in_front(self.certificate, self.key, self.other_certificate)
        self.assert_not_trusted("DICOMweb", "TLS|cannot be reached", url=url, tls_ca=self.certificate)

    def test_one_side_without_tls_is_said(self):
        self.assert_not_trusted("C-GET", "may want TLS", **self.own | {"tls": False})
        self.assert_not_trusted("DICOMweb", "url", url=self.in_front(self.certificate, self.key).replace("https", "http"))
        self.assert_not_trusted("DICOMweb", url=self.pacs.url.replace("http", "https"))

    def test_files_that_are_no_certificates_are_said_with_what_to_look_at(self):
        wrong = self.root / "wrong.crt"
        wrong.write_text("no certificate")
        for way, more in (("C-GET", {"tls": True}), ("DICOMweb", {})):
            for setting in ("tls_ca", "tls_certificate"):
                for path in (wrong, self.root / "missing.crt"):
                    with self.subTest(way, setting=setting), self.assertRaisesRegex(InputError, "look at tls_ca"):
                        archive_for(self.pacs, way, **more | {setting: str(path)}).echo()


if __name__ == "__main__":
    unittest.main()
