"""The silence of the DICOM libraries while several threads ask for it."""

import logging
import unittest
import warnings

from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.reading.quiet import quiet_pydicom

LOGGERS = ("pydicom", "highdicom", "pynetdicom")


def heard(names: tuple[str, ...]) -> set[str]:
    """Which of the loggers, and of warnings, get through."""
    loud = {
        name for name in names if not logging.getLogger(name).disabled and logging.getLogger(name).isEnabledFor(logging.ERROR)
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("of a value", stacklevel=1)
    return loud | ({"warnings"} if caught else set())


class TestQuiet(unittest.TestCase):
    def setUp(self):
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("always")

    def test_it_lasts_from_the_first_thread_in_to_the_last_out_whatever_their_order(self):
        for quiet, names in ((quiet_pydicom, ("pydicom",)), (quiet_dicom, LOGGERS)):
            for order in ((0, 1), (1, 0)):
                with self.subTest(names=names, order=order):
                    everything = {*names, "warnings"}
                    self.assertEqual(heard(names), everything)
                    threads = (quiet(), quiet())
                    for each in threads:
                        each.__enter__()
                        self.assertEqual(heard(names), set())
                    threads[order[0]].__exit__(None, None, None)
                    self.assertEqual(heard(names), set())
                    threads[order[1]].__exit__(None, None, None)
                    self.assertEqual(heard(names), everything)

    def test_an_error_ends_it(self):
        with self.assertRaises(KeyError), quiet_pydicom():
            raise KeyError
        self.assertEqual(heard(("pydicom",)), {"pydicom", "warnings"})


if __name__ == "__main__":
    unittest.main()
