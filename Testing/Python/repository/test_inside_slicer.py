"""How the tests are run inside 3D Slicer: the runner as a process of its own, and the workflow that starts it."""

import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

import yaml

from helpers.source_tree import ROOT

RUNNER = ROOT / "Testing" / "run_inside_slicer.py"
WORKFLOW = ROOT / ".github" / "workflows" / "slicer.yml"


def run_tests(*names: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, RUNNER, *names], cwd=Path(RUNNER.anchor), capture_output=True, text=True, check=False)


class RunnerTest(unittest.TestCase):
    def test_it_finds_a_test_and_its_helpers_from_any_folder(self):
        done = run_tests("review/test_worklist.py")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"Ran [1-9]\d* tests")

    def test_a_test_that_fails_or_is_not_there_is_an_error(self):
        self.assertNotEqual(run_tests("review/test_nothing.py").returncode, 0)

    def test_by_itself_it_runs_what_cmake_lists(self):
        sys.path.append(str(RUNNER.parent))
        from run_inside_slicer import listed_tests

        self.assertGreater(len(listed_tests()), 20)
        for name in listed_tests():
            self.assertTrue((RUNNER.parent / "Python" / name).is_file(), name)


class WorkflowTest(unittest.TestCase):
    def setUp(self):
        self.text = WORKFLOW.read_text(encoding="utf-8")
        self.job = yaml.safe_load(self.text)["jobs"]["inside-slicer"]

    def test_stable_and_preview_slicer_run_on_three_systems(self):
        matrix = self.job["strategy"]["matrix"]
        self.assertEqual(matrix["release"], ["stable", "preview"])
        self.assertEqual(matrix["system"], ["Linux", "Windows", "macOS"])
        self.assertEqual([each["system"] for each in matrix["include"]], matrix["system"])

    def test_the_files_it_names_are_there_and_its_scripts_can_be_read(self):
        for path in re.findall(r"\$PWD/([\w./]+)", self.text):
            self.assertTrue((ROOT / path).exists(), path)
        bash = shutil.which("bash")
        if bash is None:
            raise unittest.SkipTest("there is no bash")
        for step in self.job["steps"]:
            if "run" in step and step.get("shell") != "pwsh":
                read = subprocess.run([bash, "-n"], input=step["run"], capture_output=True, text=True, check=False)
                self.assertEqual((read.returncode, read.stderr), (0, ""), step["name"])

    def test_it_says_that_it_was_not_run(self):
        self.assertIn("has NOT been run yet", self.text)


if __name__ == "__main__":
    unittest.main()
