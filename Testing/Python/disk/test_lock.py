"""Locks and scratch folders in places where others can put things: nothing foreign is followed, waited for, or removed."""

import os
import secrets
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from helpers.child_processes import can_be_without_rights, own_temporary_folder, without_overriding_rights
from helpers.source_tree import ROOT
from NLSTSegLib.disk.atomic_folder import held, prepare_place
from NLSTSegLib.disk.lock import give_lock_back, take_lock
from NLSTSegLib.disk.scratch import PREFIX, is_scratch_lock, remove_dead_folder, remove_dead_folders, scratch_folder
from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.parent_watch import OWNER_VARIABLE


@unittest.skipIf(sys.platform == "win32", "Windows has neither these links nor these pipes")
class LockTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.lock = self.folder / ".result.lock"

    def assert_refused(self):
        with self.assertRaisesRegex(InputError, rf"'{self.lock}'.*remove it"):
            take_lock(self.lock)
        with self.assertRaisesRegex(InputError, rf"'{self.lock}'.*remove it"), held(self.folder / "result"):
            self.fail("the folder is held")

    def test_a_dangling_link_is_named_and_makes_nothing(self):
        self.lock.symlink_to(self.folder / "made by the link")
        self.assert_refused()
        self.assertEqual(os.listdir(self.folder), [self.lock.name])

    def test_a_link_to_a_file_is_named_and_the_file_stays(self):
        precious = self.folder / "precious"
        precious.write_text("mine")
        self.lock.symlink_to(precious)
        self.assert_refused()
        self.assertEqual(precious.read_text(), "mine")

    def test_a_pipe_and_a_folder_are_named(self):
        os.mkfifo(self.lock)
        self.assert_refused()
        self.lock.unlink()
        self.lock.mkdir()
        self.assert_refused()

    @unittest.skipUnless(can_be_without_rights(), "root may open any file here")
    def test_the_lock_of_another_user_is_named(self):
        self.lock.touch(mode=0)
        place = str(self.folder / "result")
        code = f"import pathlib; from NLSTSegLib.disk.atomic_folder import prepare_place; prepare_place(pathlib.Path({place!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            preexec_fn=without_overriding_rights,
        )
        self.assertIn(f"InputError: the lock '{self.lock}' is another user's; remove it", done.stderr)

    def test_a_lock_that_comes_and_goes_is_not_waited_for_without_end(self):
        with (
            mock.patch("NLSTSegLib.disk.lock._is_in_place", return_value=False),
            self.assertRaisesRegex(InputError, "without end"),
        ):
            take_lock(self.lock)

    def test_a_leftover_lock_is_taken(self):
        self.lock.touch()
        descriptor = take_lock(self.lock)
        self.assertIsNone(take_lock(self.lock))
        give_lock_back(self.lock, descriptor)
        self.assertEqual(os.listdir(self.folder), [])

    def test_folders_beside_an_output_that_no_run_made_stay(self):
        (self.folder / "precious").mkdir()
        (self.folder / ".result.partial-1").symlink_to(self.folder / "precious")
        (self.folder / ".result.partial-notes").mkdir()
        (self.folder / ".result.partial-2").mkdir()
        prepare_place(self.folder / "result")
        self.assertEqual(sorted(os.listdir(self.folder)), [".result.partial-1", ".result.partial-notes", "precious"])


@unittest.skipIf(sys.platform == "win32", "Windows has no such links")
class ScratchTest(unittest.TestCase):
    def setUp(self):
        self.elsewhere = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.place = own_temporary_folder(self)
        (self.elsewhere / "precious").mkdir()
        (self.elsewhere / "precious" / "file").touch()
        remove_dead_folders.cache_clear()

    def dead(self) -> Path:
        """The lock of a folder that a killed process has left."""
        lock = self.place / f"{PREFIX}{secrets.token_hex(8)}.lock"
        lock.touch()
        lock.with_suffix("").mkdir()
        return lock

    def test_links_in_the_temporary_folder_hold_no_run_up(self):
        links = [self.place / f"{PREFIX}a.lock", self.place / f"{PREFIX}{'0' * 16}.lock"]
        for link in links:
            link.symlink_to("/nonexistent/lock")
        dead = self.dead()
        with scratch_folder() as folder:
            self.assertEqual(folder.parent, self.place)
        self.assertFalse(dead.exists())
        self.assertEqual(sorted(self.place.iterdir()), sorted(links))

    def test_without_a_folder_for_temporary_files_one_sentence_says_so_and_what_needs_none_works(self):
        with mock.patch.object(tempfile, "gettempdir", side_effect=FileNotFoundError("No usable temporary directory found")):
            remove_dead_folders()
            with self.assertRaisesRegex(InputError, "no folder for temporary files .* TMPDIR"), scratch_folder():
                self.fail("there is a folder")

    def test_a_link_in_place_of_a_dead_folder_leads_to_no_removal(self):
        lock = self.dead()
        lock.with_suffix("").rmdir()
        lock.with_suffix("").symlink_to(self.elsewhere / "precious")
        remove_dead_folders()
        self.assertTrue((self.elsewhere / "precious" / "file").exists())

    def test_only_names_and_places_of_the_program_are_of_dead_folders(self):
        foreign = [
            self.elsewhere / "precious.lock",
            self.elsewhere / f"{PREFIX}{'0' * 16}.lock",
            self.place / f"{PREFIX}mine.lock",
        ]
        for lock in foreign:
            lock.touch()
            lock.with_suffix("").mkdir(exist_ok=True)
            self.assertFalse(is_scratch_lock(lock))
            self.assertFalse(remove_dead_folder(lock))
            self.assertTrue(lock.exists() and lock.with_suffix("").is_dir(), lock)
        self.assertTrue(remove_dead_folder(self.dead()))

    def test_a_variable_that_names_a_foreign_lock_is_refused_and_removes_nothing(self):
        lock = self.elsewhere / "precious.lock"
        lock.touch()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), OWNER_VARIABLE: str(lock)}
        command = [sys.executable, "-m", "NLSTSegLib", "version"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, rf"^nlstseg: error: {OWNER_VARIABLE} is set to '{lock}'.*unset it\n$")
        self.assertTrue(lock.exists() and (self.elsewhere / "precious" / "file").exists())


if __name__ == "__main__":
    unittest.main()
