"""Files are read and written alike under every locale of the program that hosts the library."""

import locale
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.comma_locale import comma_locale
from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.reading.image_file import FORMATS
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.reading.write import write_image

SPACING, ORIGIN = (1.25, 1.5, 2.5), (-10.5, -20.25, 30.75)


class LocaleTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.image = sitk.GetImageFromArray(np.random.default_rng(1).integers(-1000, 100, (6, 7, 8)).astype(np.int16))
        self.image.SetSpacing(SPACING)
        self.image.SetOrigin(ORIGIN)
        for ending in FORMATS:
            sitk.WriteImage(self.image, str(self.folder / f"ct{ending}"))
        self.comma = self.enterContext(comma_locale())

    def assert_right(self, path: Path):
        ct = read_ct(path)
        self.assertEqual((ct.spacing_ijk_mm, ct.origin_lps_mm), (SPACING, ORIGIN), path.name)
        np.testing.assert_array_equal(ct.hu, sitk.GetArrayFromImage(self.image))

    def test_every_format_is_read_under_a_comma(self):
        locale.setlocale(locale.LC_ALL, self.comma)
        self.assertEqual(sitk.ReadImage(str(self.folder / "ct.nrrd")).GetSpacing(), (1.0, 1.0, 2.0), "ITK has no such fault")
        for ending in FORMATS:
            self.assert_right(self.folder / f"ct{ending}")
        self.assertEqual(locale.localeconv()["decimal_point"], ",")

    def test_what_is_written_under_a_comma_is_read_under_a_point(self):
        for ending in (".nrrd", ".nii.gz"):
            locale.setlocale(locale.LC_ALL, self.comma)
            write_image(self.image, self.folder / f"written{ending}")
            locale.setlocale(locale.LC_ALL, "C")
            self.assert_right(self.folder / f"written{ending}")

    def test_threads_read_rightly_while_another_changes_the_locale(self):
        found: list[tuple] = []

        def read() -> None:
            found.extend(read_ct(self.folder / "ct.nrrd").spacing_ijk_mm for _ in range(10))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            locale.setlocale(locale.LC_ALL, self.comma)
            locale.setlocale(locale.LC_ALL, "C")
        self.assertEqual(found, [SPACING] * 30)

    def test_an_error_in_the_block_gives_the_locale_back(self):
        locale.setlocale(locale.LC_ALL, self.comma)
        with self.assertRaises(KeyError), point_in_numbers():
            raise KeyError
        self.assertEqual(sitk.ReadImage(str(self.folder / "ct.nrrd")).GetSpacing(), (1.0, 1.0, 2.0))

    def test_a_qt_application_takes_the_comma_of_the_system_and_files_are_read(self):
        code = (
            "import sys, locale\n"
            "from PySide6.QtCore import QCoreApplication\n"
            "app = QCoreApplication([])\n"
            "from NLSTSegLib.reading.read import read_ct\n"
            "print(locale.localeconv()['decimal_point'], *read_ct(sys.argv[1]).spacing_ijk_mm)\n"
        )
        environment = {**os.environ, "LC_ALL": self.comma}
        command = [sys.executable, "-c", code, str(self.folder / "ct.nrrd")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if "No module named 'PySide6'" in done.stderr:
            self.skipTest("no Qt")
        self.assertEqual(done.stdout.split(), [",", "1.25", "1.5", "2.5"], done.stderr)
