"""Runs tests inside 3D Slicer: ``Slicer --testing --python-script run_inside_slicer.py module/test_module.py ...``

The names are below ``Testing/Python``; without any, all that its CMakeLists.txt lists are run. Raises :class:`RuntimeError`
where a test fails, on which Slicer ends with exit code 1.
"""

import re
import sys
import unittest
from pathlib import Path

TESTING = Path(__file__).resolve().parent


def listed_tests() -> list[str]:
    return re.findall(r"(?m)^  (\w+/test_\w+\.py)$", (TESTING / "Python" / "CMakeLists.txt").read_text(encoding="utf-8"))


def main(names: list[str]) -> None:
    sys.path[:0] = [str(TESTING / "Python"), str(TESTING)]
    modules = [name.removesuffix(".py").replace("/", ".") for name in names or listed_tests()]
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestLoader().loadTestsFromNames(modules))
    if not result.wasSuccessful() or not result.testsRun:
        raise RuntimeError(f"of {result.testsRun} tests, {len(result.errors) + len(result.failures)} failed")


if __name__ == "__main__":
    main(sys.argv[1:])
