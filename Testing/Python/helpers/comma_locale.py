"""A locale in which numbers have a comma, as on a German computer, for this process."""

import contextlib
import locale
import os
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def comma_locale() -> Iterator[str]:
    """Its name; in the block ``setlocale`` knows it, which is made if the system has none. Afterwards all is as before."""
    if shutil.which("localedef") is None:
        raise unittest.SkipTest("no localedef, which makes a locale")
    before = locale.setlocale(locale.LC_ALL)
    with tempfile.TemporaryDirectory() as folder:
        name = "de_DE.UTF-8"
        command = ["localedef", "--no-archive", "-i", "de_DE", "-f", "UTF-8", f"{folder}/{name}"]
        if subprocess.run(command, capture_output=True).returncode > 1:
            raise unittest.SkipTest("the system has no sources of locales")
        with mock.patch.dict(os.environ, LOCPATH=folder):
            try:
                yield name
            finally:
                locale.setlocale(locale.LC_ALL, before)
