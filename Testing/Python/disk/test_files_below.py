"""Files are found however deep they lie, and whatever links lead in circles."""

import sys
import tempfile
import unittest
from pathlib import Path

from NLSTSegLib.disk.files_below import files_below
from NLSTSegLib.errors import InputError


class FilesBelowTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def names(self, **options) -> list[str]:
        return [path.relative_to(self.folder).as_posix() for path in files_below(self.folder, **options)]

    def test_every_file_once_by_name_and_folder(self):
        for name in ("b/2", "b/1", "a/x/3", "c"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).touch()
        self.assertEqual(self.names(), ["c", "a/x/3", "b/1", "b/2"])
        self.assertEqual(self.names(recursive=False), ["c"])

    @unittest.skipIf(sys.platform == "win32", "links need rights there")
    def test_folders_behind_links_are_looked_into_once(self):
        (self.folder / "a").mkdir()
        (self.folder / "a" / "1").touch()
        (self.folder / "a" / "circle").symlink_to(self.folder)
        (self.folder / "b").symlink_to(self.folder / "a")
        (self.folder / "nowhere").symlink_to("/nonexistent")
        self.assertEqual(self.names(), ["nowhere", "a/1"])

    @unittest.skipIf(sys.platform == "win32", "paths are shorter there")
    def test_a_folder_1100_deep_is_no_end_of_the_program(self):
        deep = self.folder
        # Made and removed step by step, since what removes whole trees recurses.
        steps = [deep := deep / "d" for _ in range(1100)]
        for step in steps:
            step.mkdir()
        (deep / "file").touch()
        try:
            self.assertEqual([path.name for path in files_below(self.folder)], ["file"])
        finally:
            (deep / "file").unlink()
            for step in reversed(steps):
                step.rmdir()

    def test_what_cannot_be_looked_into_is_named(self):
        with self.assertRaisesRegex(InputError, f"'{self.folder / 'gone'}' cannot be looked into"):
            list(files_below(self.folder / "gone"))


if __name__ == "__main__":
    unittest.main()
