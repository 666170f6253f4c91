"""A PACS over C-GET, C-MOVE and DICOMweb, with a real Orthanc: found, fetched, stored, and every fault said with its reason."""

import json
import os
import socket
import threading
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from pynetdicom.transport import AssociationSocket
from typer.testing import CliRunner

from helpers.child_processes import wait_until
from helpers.dicom_files import change
from helpers.orthanc import AET, OWN_AET, PASSWORD, PASSWORD_VARIABLE, USER, free_ports, needs_orthanc
from helpers.pacs import WAYS, PacsTest, archive_for, objects_below, write_study
from NLSTSegLib.cli.app import app
from NLSTSegLib.errors import InputError, PacsError
from NLSTSegLib.pacs.archive import Series, StoreRefusedError, StudyQuery
from NLSTSegLib.pacs.association import associated
from NLSTSegLib.pacs.dimse import IMPLICIT, VERIFICATION
from NLSTSegLib.pacs.transfer import objects_in, pull_series, push_objects
from NLSTSegLib.reading.read import read_ct

FIRST, SECOND = "1.2.3.1", "1.2.3.2"

RAW_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""The class of LABELMAP segmentations, which Orthanc 1.10 does not take by C-STORE."""


class _SeenLate(threading.Event):
    """An event whose waiting thread comes to it only when ``happened()``, as on a busy computer."""

    def __init__(self, happened):
        super().__init__()
        self.happened = happened

    def wait(self, timeout=None):
        is_set = super().wait(timeout)
        wait_until(self.happened, "the connection is closed")
        return is_set


def nothing(_: int) -> None:
    """Progress that nobody looks at."""


@needs_orthanc
class TestFindAndPull(PacsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for n in range(1, 8):
            cls.pacs.add(write_study(cls.root / f"study {n}", n, encoding={2: "JPEG", 3: "RLE", 4: "deflated"}.get(n, "")))
        # A study with a second CT, and one without any.
        cls.pacs.add(write_study(cls.root / "second CT", 1, SeriesInstanceUID="1.2.3.1.2", SeriesNumber=2))
        cls.pacs.add(write_study(cls.root / "MR", 8, Modality="MR"))

    def archives(self):
        for way in WAYS:
            with self.subTest(way):
                archive = archive_for(self.pacs, way)
                if way == "DICOMweb":
                    archive.page = 3
                yield archive

    def test_it_answers(self):
        for archive in self.archives():
            self.assertIn("answers", archive.echo())

    def test_all_studies_with_ct_are_found_page_by_page(self):
        for archive in self.archives():
            self.assertEqual([study.uid for study in archive.studies(StudyQuery())], [f"1.2.3.{n}" for n in range(1, 8)])

    def test_every_key_finds_its_study_and_tells_whose_it_is(self):
        for archive in self.archives():
            for asked in ({"patient_id": "ID3"}, {"date": "20260103"}, {"accession": "A3"}, {"study_uid": "1.2.3.3"}):
                (study,) = archive.studies(StudyQuery(**asked))
                found = (study.uid, study.patient_name, study.patient_id, study.date, study.accession, study.modalities)
                self.assertEqual(found, ("1.2.3.3", "Müller^3", "ID3", "20260103", "A3", ("CT",)))
            self.assertEqual(len(archive.studies(StudyQuery(date="20260103-20260105"))), 3)
            self.assertEqual(archive.studies(StudyQuery(patient_id="ID99")), [])
            for asked in ({"patient_id": "I*"}, {"patient_id": "ID?"}, {"patient_name": "M*"}):
                self.assertEqual(len(archive.studies(StudyQuery(**asked))), 7, asked)

    def test_dimse_finds_names_in_other_letters_than_english(self):
        self.assertEqual(len(archive_for(self.pacs, "C-GET").studies(StudyQuery(patient_name="Müller*"))), 7)

    def test_series_tell_kind_and_number_of_images(self):
        for archive in self.archives():
            series = sorted(archive.series(FIRST), key=lambda one: one.uid)
            told = [(one.uid, one.modality, one.number, one.instances) for one in series]
            self.assertEqual(told, [("1.2.3.1.1", "CT", "1", 5), ("1.2.3.1.2", "CT", "2", 5)])
            self.assertEqual(archive.series("1.2.9"), [])

    def test_what_comes_is_what_is_stored_in_every_syntax(self):
        for archive in self.archives():
            for n in range(1, 5):
                folder, seen = self.new_folder() / "ct", []
                series = [one for one in archive.series(f"1.2.3.{n}") if one.uid.endswith(".1")]
                pull_series(archive, series, folder, seen.append)
                self.assertEqual(seen, [1, 2, 3, 4, 5])
                came, stored = objects_below(folder), objects_below(self.root / f"study {n}")
                self.assertEqual(came, stored)
                for uid, one in came.items():
                    self.assertEqual(one.file_meta.TransferSyntaxUID, stored[uid].file_meta.TransferSyntaxUID)
                np.testing.assert_array_equal(read_ct(folder).hu, np.full((5, 12, 14), n))

    def test_two_series_come_into_folders_of_their_own(self):
        for archive in self.archives():
            folder, seen = self.new_folder() / "ct", []
            pull_series(archive, archive.series(FIRST), folder, seen.append)
            self.assertEqual({path.name: len([*path.iterdir()]) for path in folder.iterdir()}, {"series-001": 5, "series-002": 5})
            self.assertEqual(seen, [*range(1, 11)])

    def test_a_series_that_is_not_there_is_said_and_leaves_nothing(self):
        for archive in self.archives():
            folder = self.new_folder() / "ct"
            with self.assertRaisesRegex(PacsError, "has no images of a series"):
                pull_series(archive, [Series(FIRST, "1.2.9", "CT", "", "", None)], folder, nothing)
            self.assertEqual([*folder.parent.iterdir()], [])

    def test_a_folder_that_holds_something_is_not_touched(self):
        folder = self.new_folder()
        (folder / "mine.txt").write_text("kept")
        with self.assertRaisesRegex(InputError, r"holds 'mine.txt' already"):
            pull_series(archive_for(self.pacs, "C-GET"), [], folder, nothing)

    def test_what_cannot_be_written_is_said_and_leaves_nothing(self):
        for archive in self.archives():
            folder = self.new_folder() / "ct"

            def blocked(done: int, folder: Path = folder) -> None:
                if done == 2:
                    (partial,) = (path for path in folder.parent.iterdir() if path.is_dir())
                    place = partial / "series-001" / "00003.dcm"
                    place.symlink_to("/dev/full") if os.path.exists("/dev/full") else place.mkdir()

            # As of a disk that is full.
            with self.assertRaisesRegex(PacsError, "could not be written"):
                pull_series(archive, archive.series(SECOND), folder, blocked)
            self.assertEqual([path for path in folder.parent.iterdir() if path.is_dir()], [])


@needs_orthanc
class TestPush(PacsTest):
    def setUp(self):
        self.pacs.clear()

    def count(self) -> int:
        return self.pacs.ask("/statistics")["CountInstances"]

    def test_files_are_stored_and_stored_again(self):
        for n, way in enumerate(WAYS[::2], start=1):
            with self.subTest(way):
                self.pacs.clear()
                archive, seen = archive_for(self.pacs, way), []
                for encoding in ("", "deflated", "JPEG"):
                    folder = self.new_folder()
                    write_study(folder, n, 2, encoding=encoding)
                    (folder / "notes.txt").write_text("no DICOM")
                    push_objects(archive, objects_in([folder]), seen.append)
                    push_objects(archive, objects_in([folder]), nothing)
                    back = self.new_folder() / "ct"
                    pull_series(archive, archive.series(f"1.2.3.{n}"), back, nothing)
                    for uid, one in objects_below(folder).items():
                        self.assertEqual(objects_below(back)[uid].PixelData, one.PixelData)
                self.assertEqual(self.count(), 6)
                self.assertEqual(seen, [1, 2] * 3)

    def test_reports_go_last_and_none_goes_after_a_refused_segmentation(self):
        folder = self.new_folder()
        report, seg, image = write_study(folder, 1, 3)
        change(seg, SOPClassUID=RAW_STORAGE, Modality="SEG")
        change(report, Modality="SR")
        objects = objects_in([report, seg, image])
        self.assertEqual([one.path for one in objects], [image, seg, report])
        with self.assertRaisesRegex(StoreRefusedError, f"did not take '{seg}'"):
            push_objects(archive_for(self.pacs, "C-GET"), objects, nothing)
        (left,) = self.pacs.ask("/instances")
        self.assertEqual(self.pacs.ask(f"/instances/{left}/tags?simplify")["Modality"], "CT")

    def test_a_file_that_is_no_dicom_object_is_refused_before_anything_is_sent(self):
        folder = self.new_folder()
        files = write_study(folder, 1, 2)
        files[1].write_bytes(b"no DICOM")
        with self.assertRaisesRegex(InputError, f"'{files[1]}' is no DICOM object"):
            objects_in(files)
        with self.assertRaisesRegex(InputError, "no DICOM file in the folder"):
            objects_in([self.new_folder()])

    def test_an_object_that_is_taken_and_not_there_is_said(self):
        folder = self.new_folder()
        write_study(folder, 1, 1)
        for way in WAYS[::2]:
            archive = archive_for(self.pacs, way)
            with self.subTest(way), self.assertRaisesRegex(PacsError, "but does not have it"):
                # As an archive that loses it right after it has said that it took it.
                push_objects(archive, objects_in([folder]), lambda _: self.pacs.clear())


@needs_orthanc
class TestFaults(PacsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pacs.add(write_study(cls.root / "study", 1, 20))

    def assert_said(self, way: str, words: str, **changes: object):
        with self.assertRaisesRegex(PacsError, words) as caught:
            archive_for(self.pacs, way, **changes).echo()
        self.assertEqual(caught.exception.exit_code, 4)
        self.assertNotIn(PASSWORD, str(caught.exception))

    def test_nobody_listens(self):
        (port,) = free_ports(1)
        self.assert_said("C-GET", f"127.0.0.1:{port} cannot be reached.*refused", port=port)
        self.assert_said("DICOMweb", "cannot be reached", url=f"http://127.0.0.1:{port}/dicom-web")

    def test_the_name_is_not_known(self):
        self.assert_said("C-GET", "cannot be reached", host="no-such-host.invalid")
        self.assert_said("DICOMweb", "cannot be reached", url="http://no-such-host.invalid/dicom-web")

    def test_a_host_that_says_nothing(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with mock.patch("NLSTSegLib.pacs.association.CONNECT_SECONDS", 0.5):
                self.assert_said("C-GET", "broke the association off", port=port)
            with mock.patch("NLSTSegLib.pacs.dicomweb.ANSWER_SECONDS", 0.5):
                self.assert_said("DICOMweb", "did not answer in 0.5 s", url=f"http://127.0.0.1:{port}")

    def test_wrong_ae_title(self):
        self.assert_said("C-GET", r"rejected the association \(Called AE title not recognised\)", aet="OTHER")

    def test_a_rejection_that_is_seen_after_the_connection_was_closed_keeps_its_reason(self):
        real = AssociationSocket.__init__

        def begin(self, *arguments, **options):
            real(self, *arguments, **options)
            self._ready = _SeenLate(lambda: not self._is_connected)

        with mock.patch.object(AssociationSocket, "__init__", begin):
            self.assert_said("C-GET", r"rejected the association \(Called AE title not recognised\)", aet="OTHER")

    def test_an_ae_title_that_the_pacs_does_not_know(self):
        # Orthanc answers everybody's C-ECHO.
        with self.assertRaisesRegex(PacsError, "broke off.*my_aet"):
            archive_for(self.pacs, "C-GET", my_aet="STRANGER").series(FIRST)

    def test_a_port_that_speaks_something_else(self):
        self.assert_said("C-GET", "be no PACS", port=self.pacs.http_port)
        self.assert_said("C-GET", "no TLS connection that can be trusted", tls=True)
        self.assert_said("DICOMweb", "look at url", url=f"http://127.0.0.1:{self.pacs.dicom_port}")
        self.assert_said("DICOMweb", "404", url=self.pacs.url + "/none")
        self.assert_said("DICOMweb", "look at url", url=self.pacs.url.replace("dicom-web", "system"))

    def test_wrong_password(self):
        with mock.patch.dict(os.environ, {PASSWORD_VARIABLE: "guessed"}):
            self.assert_said("DICOMweb", "401.*look at user and password")
        with self.assertRaisesRegex(InputError, "not in the variable NOT_SET_ANYWHERE"):
            archive_for(self.pacs, "DICOMweb", password_env="NOT_SET_ANYWHERE").echo()
        file = self.root / "password"
        file.write_text(PASSWORD + "\n")
        archive_for(self.pacs, "DICOMweb", password_env="", password_file=str(file)).echo()

    def test_a_port_that_is_taken_cannot_receive(self):
        with socket.create_server(("", 0)) as other:
            archive = archive_for(self.pacs, "C-MOVE", listen_port=other.getsockname()[1])
            with self.assertRaisesRegex(PacsError, "cannot be opened"):
                pull_series(archive, archive.series(FIRST), self.new_folder() / "ct", nothing)

    def test_killed_in_the_middle_and_gone_on(self):
        for way in WAYS:
            with self.subTest(way):
                archive, folder, stop_at = archive_for(self.pacs, way), self.new_folder() / "ct", 3
                series = archive.series(FIRST)

                def kill(done: int, stop_at: int = stop_at) -> None:
                    if done == stop_at:
                        self.pacs.kill()

                if way == "DICOMweb":
                    # Twenty small images come in one piece, so it is killed before the first.
                    classes = archive.instances(FIRST, series[0].uid)
                    self.pacs.kill()
                    with self.assertRaises(PacsError):
                        archive.fetch(series[0], classes, self.new_folder(), nothing)
                else:
                    with self.assertRaisesRegex(PacsError, "broke off|sent .* of 20"):
                        pull_series(archive, series, folder, kill)
                self.assertEqual([path for path in folder.parent.iterdir() if path.is_dir()], [])
                self.pacs.start()
                pull_series(archive, series, folder, nothing)
                self.assertEqual(len(objects_below(folder)), 20)

    def test_frozen_in_the_middle_and_gone_on(self):
        self.addCleanup(self.pacs.thaw)
        for way in WAYS:
            with self.subTest(way):
                archive, folder = archive_for(self.pacs, way), self.new_folder() / "ct"
                series = archive.series(FIRST)
                classes = archive.instances(FIRST, series[0].uid)
                patches = [mock.patch(f"NLSTSegLib.pacs.{name}.ANSWER_SECONDS", 1.0) for name in ("association", "dicomweb")]
                with patches[0], patches[1], self.assertRaisesRegex(PacsError, r"did not answer in 1\.0 s"):
                    if way == "DICOMweb":
                        # As above: small images come in one piece.
                        self.pacs.freeze()
                    archive.fetch(series[0], classes, self.new_folder(), lambda done: self.pacs.freeze() if done == 3 else None)
                self.pacs.thaw()
                pull_series(archive, series, folder, nothing)
                self.assertEqual(len(objects_below(folder)), 20)

    def test_a_connection_that_is_gone_before_a_request_broke_off(self):
        server = archive_for(self.pacs, "C-GET").server
        self.addCleanup(self.pacs.start)
        with self.assertRaisesRegex(PacsError, "broke off"), associated(server, [(VERIFICATION, IMPLICIT)]) as association:
            self.pacs.kill()
            association.join()
            association.send_c_echo()

    def test_killed_while_storing_and_gone_on(self):
        for n, way in enumerate(WAYS[::2], start=2):
            with self.subTest(way):
                archive, folder = archive_for(self.pacs, way), self.new_folder()
                write_study(folder, n, 4)
                with self.assertRaisesRegex(PacsError, "broke off|cannot be reached"):
                    push_objects(archive, objects_in([folder]), lambda done: self.pacs.kill() if done == 2 else None)
                self.pacs.start()
                push_objects(archive, objects_in([folder]), nothing)


@needs_orthanc
class TestCommands(PacsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pacs.add(write_study(cls.root / "study", 1))
        cls.servers = cls.root / "servers.toml"
        cls.servers.write_text(
            f'[dimse]\nhost = "127.0.0.1"\nport = {cls.pacs.dicom_port}\naet = "{AET}"\nmy_aet = "{OWN_AET}"\n'
            f'[web]\nurl = "{cls.pacs.url}/"\nuser = "{USER}"\npassword_env = "{PASSWORD_VARIABLE}"\n'
            '[typo]\nhost = "here"\nprot = 104\n[number]\nhost = "here"\naet = "A"\nport = "104"\n[both]\nhost = "a"\nurl = "http://b"\n'
            '[open]\nurl = "http://me:secret@here"\n[off]\nhost = "127.0.0.1"\nport = 1\naet = "A"\n'
        )

    def nlstseg(self, *arguments: object, code: int = 0):
        with mock.patch.dict(os.environ, {"NLSTSEG_SERVERS": str(self.servers)}):
            done = CliRunner().invoke(app, ["pacs", *map(str, arguments)])
        self.assertEqual(done.exit_code, code, done.stderr)
        return done

    def test_from_pacs_to_pacs(self):
        for name in ("dimse", "web"):
            with self.subTest(name):
                self.assertIn("answers", self.nlstseg("echo", "--server", name).stdout)
                line = self.nlstseg("find", "--server", name, "--date", "20260101-").stdout
                self.assertEqual(line, "1.2.3.1\t20260101\t\tA1\tID1\tMüller^1\n")
                (study,) = json.loads(self.nlstseg("find", "--server", name, "--json", "--series").stdout)
                (series,) = study["series"]
                folder = self.new_folder() / "ct"
                done = self.nlstseg("pull", "--server", name, "--study", study["uid"], "-o", folder)
                self.assertEqual(objects_below(folder), objects_below(self.root / "study"))
                # Progress and place, and nothing of whose CT it is.
                self.assertNotIn("ller", done.stdout + done.stderr)
                one = self.new_folder() / "one"
                self.nlstseg("pull", "--server", name, "--study", study["uid"], "--series", series["uid"], "-o", one, "-q")
                done = self.nlstseg("push", "--server", name, one, "--json-progress")
                self.assertEqual(
                    json.loads(done.stdout.splitlines()[-1]), {"stage": "push 5", "fraction": 1.0, "message": "push 5, 100%"}
                )

    def test_what_is_not_there_is_said(self):
        done = self.nlstseg("find", "--server", "web", "--patient-id", "none")
        self.assertEqual((done.stdout, done.stderr), ("", "no study with CT was found\n"))
        done = self.nlstseg("pull", "--server", "web", "--study", "1.2.9", "-o", self.root / "none", code=4)
        self.assertIn("no CT series", done.stderr)
        self.assertIn("cannot be reached", self.nlstseg("echo", "--server", "off", code=4).stderr)

    def test_the_file_of_servers_is_read_strictly(self):
        for name, words in (
            ("none", "there is no server 'none'"),
            ("typo", "typo.prot: there is no such field"),
            ("number", "number.port: it must be a whole number"),
            ("both", "both: it must name either url"),
            ("open", "must not hold a password"),
        ):
            stderr = self.nlstseg("echo", "--server", name, code=2).stderr
            self.assertIn(words, stderr)
            self.assertNotIn("secret", stderr)
        with mock.patch.object(type(self), "servers", self.root / "missing.toml"):
            self.assertIn("there is no file of servers", self.nlstseg("echo", "--server", "web", code=2).stderr)
        self.assertIn("no date", self.nlstseg("find", "--server", "web", "--date", "today", code=2).stderr)


if __name__ == "__main__":
    unittest.main()
