"""The extension as Slicer builds, installs and opens it: CMake lists, catalogue entry, both trees, a folder added by hand."""

import ast
import functools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "Testing" / "Python"
LIBRARY = ROOT / "NLSTSegLib"
INDEX_ENTRY = ROOT / "docs" / "extensions-index" / "NLSTSeg.json"

BUILT_MODULES = "lib/Slicer-5.12/qt-scripted-modules"
"""Where ``Testing/cmake`` puts the modules in a build and in an install tree."""

ENTRY_KEYS = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}
"""What the catalogue's schema 1.0.1 allows; the first three are required."""

SLICERS_OWN = {
    *("numpy", "SimpleITK", "scipy", "pydicom", "PIL", "requests", "packaging"),
    *("slicer", "vtk", "qt", "ctk", "qSlicerSegmentationsModuleWidgetsPythonQt"),
}
"""What a test may import inside Slicer besides the library, the bench and the helpers beside it."""

OUTSIDE_SLICER = {
    "test_slicer_stand_in.py": "is about the bench outside Slicer",
    "test_packaging.py": "builds the extension",
    "test_rooms.py": "needs the git checkout",
    "test_module_dicom.py": "writes into a database of DICOM files, and Slicer's own is the user's",
    "test_source_headers.py": "needs highdicom, which older versions of Slicer do not bring",
}
"""Tests that import nothing else, but cannot run inside Slicer."""

NOT_SLICERS_PYTHON = "[sys.executable"
"""Inside Slicer this is the application; a test that begins a command with it, as the Python to run, cannot run there."""


def cmake_text(path: Path) -> str:
    return re.sub(r"(?m)^\s*#.*$", "", path.read_text(encoding="utf-8"))


def cmake_lists(path: Path) -> dict[str, list[str]]:
    """The words of every ``set(name words...)``."""
    return {name: words.split() for name, words in re.findall(r"set\((\w+)\s+([^)]*)\)", cmake_text(path))}


def cmake_calls(path: Path, command: str) -> list[str]:
    """The arguments of every call, in one line."""
    return [" ".join(words.split()) for words in re.findall(rf"{command}\(([^)]*)\)", cmake_text(path))]


def extension_values() -> dict[str, str]:
    """``EXTENSION_...`` of the top CMake list as the catalogue's checks read them: one quoted string on one line."""
    return dict(re.findall(r'(?m)^set\(EXTENSION_(\w+) "([^"\n]*)"\)$', cmake_text(ROOT / "CMakeLists.txt")))


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "CMakeLists.txt"
    }


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Top names of the libraries that importing ``path`` imports, through the files of this repository too."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] + [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            homes = (TESTS, ROOT)
            own = [home.joinpath(*parts).with_suffix(".py") for home in homes]
            own += [home.joinpath(*parts) / "__init__.py" for home in homes]
            files = [file for file in own if file.is_file()]
            found.update(*(imported(file) for file in files), () if files else (parts[0],))
    return frozenset(found)


def runs_inside_slicer(path: Path) -> bool:
    foreign = imported(path) - sys.stdlib_module_names - SLICERS_OWN - {"NLSTSegLib", "slicer_stand_in", "helpers"}
    return not foreign and path.name not in OUTSIDE_SLICER and NOT_SLICERS_PYTHON not in path.read_text(encoding="utf-8")


class TestCMakeLists(unittest.TestCase):
    def test_every_file_of_the_library_is_listed_and_no_other(self):
        path = LIBRARY / "CMakeLists.txt"
        self.assertEqual(
            cmake_calls(path, "slicerMacroBuildScriptedModule"),
            ["NAME NLSTSegLib SCRIPTS ${NLSTSegLib_PYTHON_SCRIPTS} RESOURCES ${NLSTSegLib_PYTHON_RESOURCES} WITH_SUBDIR"],
        )
        there = files_below(LIBRARY)
        scripts = {name for name in there if name.endswith(".py")}
        self.assert_lists(path, {"NLSTSegLib_PYTHON_SCRIPTS": scripts, "NLSTSegLib_PYTHON_RESOURCES": there - scripts})

    def test_module_folder_holds_the_module_alone(self):
        # Slicer takes every .py in a module path for a module.
        self.assertEqual(files_below(ROOT / "NLSTSeg"), {"NLSTSeg.py"})
        calls = cmake_calls(ROOT / "NLSTSeg" / "CMakeLists.txt", "slicerMacroBuildScriptedModule")
        self.assertEqual(calls, ["NAME NLSTSeg SCRIPTS NLSTSeg.py WITH_GENERIC_TESTS"])

    def test_everything_in_resources_is_copied(self):
        there = {path for path in (ROOT / "Resources").iterdir() if path.name != "CMakeLists.txt"}
        self.assert_lists(
            ROOT / "Resources" / "CMakeLists.txt",
            {
                "resource_folders": {path.name for path in there if path.is_dir()},
                "resource_files": {path.name for path in there if path.is_file()},
            },
        )

    def test_every_test_that_can_run_inside_slicer_is_listed(self):
        able = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py") if runs_inside_slicer(path)}
        self.assertIn("module/test_module_export.py", able)
        path = TESTS / "CMakeLists.txt"
        self.assert_lists(path, {"tests": able})

    def test_tests_of_the_module_run_inside_slicer(self):
        for path in TESTS.glob("module/test_module_*.py"):
            foreign = imported(path) - sys.stdlib_module_names - SLICERS_OWN - {"NLSTSegLib", "slicer_stand_in", "helpers"}
            self.assertEqual(foreign, set(), f"{path.name} imports at file scope what Slicer does not have")

    def test_tests_are_unittest_cases_without_pytest(self):
        for path in TESTS.rglob("*.py"):
            self.assertNotIn("pytest", imported(path), path.name)

    def assert_lists(self, path: Path, wanted: dict[str, set[str]]) -> None:
        lists = cmake_lists(path)
        for name, files in wanted.items():
            self.assertEqual(files - set(lists[name]), set(), f"not listed in {name} of {path}")
            self.assertEqual(set(lists[name]) - files, set(), f"listed in {name} of {path}, but not there")
            self.assertEqual(len(lists[name]), len(files), f"listed twice in {name} of {path}")


class TestCatalogue(unittest.TestCase):
    def setUp(self):
        self.extension = extension_values()
        self.entry = json.loads(INDEX_ENTRY.read_text(encoding="utf-8"))

    def test_entry_has_the_keys_of_the_schema(self):
        self.assertLessEqual({"$schema", "category", "scm_url"}, set(self.entry))
        for key, value in self.entry.items():
            self.assertIsInstance(value, ENTRY_KEYS[key], key)
        self.assertTrue(self.entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json#"))
        self.assertEqual(self.entry["category"], "Segmentation")
        self.assertIn(self.entry["tier"], (1, 3, 5))
        self.assertNotIn(b"\r", INDEX_ENTRY.read_bytes())

    def test_entry_and_cmake_agree(self):
        project = cmake_calls(ROOT / "CMakeLists.txt", "project")
        self.assertEqual([INDEX_ENTRY.stem], project)
        self.assertFalse(INDEX_ENTRY.stem.startswith("Slicer"))
        self.assertEqual(self.entry["build_dependencies"], self.extension["DEPENDS"].split())
        self.assertEqual(self.entry["scm_url"], self.extension["HOMEPAGE"] + ".git")
        self.assertEqual(self.extension["HOMEPAGE"].rsplit("/", 1)[1], "Slicer" + INDEX_ENTRY.stem)

    def test_texts_are_one_value_for_cmake(self):
        for name, value in self.extension.items():
            # A semicolon would make a list of it.
            self.assertRegex(value, r"^[^;]+$", name)

    def test_pictures_are_files_of_this_repository(self):
        raw = self.extension["HOMEPAGE"].replace("//github.com", "//raw.githubusercontent.com")
        raw += f"/{self.entry['scm_revision']}/"
        for url in (self.extension["ICONURL"], *self.extension["SCREENSHOTURLS"].split()):
            self.assertTrue(url.startswith(raw), url)
            data = (ROOT / url.removeprefix(raw)).read_bytes()
            self.assertTrue(data.startswith(b"\x89PNG"), url)
            self.assertLess(len(data), 300_000, url)

    def test_icon_is_the_one_that_slicer_looks_for(self):
        icon = ROOT / "Resources" / "Icons" / "NLSTSeg.png"
        self.assertTrue(self.extension["ICONURL"].endswith("/Resources/Icons/NLSTSeg.png"))
        self.assertEqual(struct.unpack(">II", icon.read_bytes()[16:24]), (128, 128))

    def test_licence_has_a_name_that_the_catalogue_knows(self):
        pattern = r'set\(EXTENSION_(\w+_FILE) "\$\{CMAKE_CURRENT_SOURCE_DIR\}/([^"]*)"\)'
        values = dict(re.findall(pattern, cmake_text(ROOT / "CMakeLists.txt")))
        self.assertEqual(values, {"LICENSE_FILE": "LICENSE.txt", "README_FILE": "README.md"})
        for name in values.values():
            self.assertTrue((ROOT / name).is_file())

    def test_parts_come_in_the_order_that_slicer_wants(self):
        text = cmake_text(ROOT / "CMakeLists.txt")
        parts = [
            *("cmake_minimum_required(VERSION 3.16.3...3.28.0 FATAL_ERROR)", "project(", "set(EXTENSION_HOMEPAGE"),
            *("find_package(Slicer REQUIRED)", "include(${Slicer_USE_FILE})", "add_subdirectory(NLSTSegLib)"),
            *("include(${Slicer_EXTENSION_GENERATE_CONFIG})", "include(${Slicer_EXTENSION_CPACK})"),
        ]
        places = [text.index(part) for part in parts]
        self.assertEqual(places, sorted(places))


OPENED = """
import json, sys
from pathlib import Path

module, testing, hidden = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path[:] = [entry for entry in sys.path if str(Path(entry or ".").resolve()) not in hidden] + [testing]
import importlib.util
found = importlib.util.find_spec("NLSTSegLib")
# An editable installation leaves a bare folder of that name.
assert found is None or found.origin is None, "the library of the checkout is still in reach"
from slicer_stand_in import host

with host.application():
    widget = host.open_module(module)
    import slicer
    import NLSTSegLib.errors
    from NLSTSegLib.resources import resources_folder

    before = NLSTSegLib.errors.InputError
    told = {
        "library": NLSTSegLib.__file__,
        "resources": str(resources_folder()),
        "models": sorted(path.name for path in (resources_folder() / "Models").iterdir()),
        "icon": not slicer.modules.nlstseg.icon.isNull(),
        "added": [entry for entry in sys.path if entry in hidden],
        "buttons": [widget.export.ui.reviewButton.text],
    }
    widget.onReload()
    after = slicer.util.getModuleWidget("NLSTSeg")
    from NLSTSegLib.errors import InputError

    told["reloaded"] = after is not widget and InputError is not before
    told["buttons"].append(after.export.ui.reviewButton.text)
    host.close_module(after)
print(json.dumps(told))
"""
"""Opens the module in the bench, in a Python that does not reach the checkout; then presses Reload."""


def run(command: list[str], **arguments) -> str:
    """What the command prints. Raises :class:`AssertionError` with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **arguments)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def open_in_a_new_process(module: Path) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        hidden = [str(ROOT), str(ROOT / "training"), folder]
        command = [sys.executable, "-c", OPENED, str(module), str(ROOT / "Testing"), *hidden]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return json.loads(run(command, cwd=folder, env=environment).splitlines()[-1])


class TestDocs(unittest.TestCase):
    def test_files_that_are_linked_are_there(self):
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
            for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
                if "://" not in target:
                    self.assertTrue((page.parent / target).exists(), f"{page.name} links {target}")

    def test_pictures_of_the_module_are_small_and_all_are_shown_somewhere(self):
        pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
        for picture in (ROOT / "docs" / "pictures").iterdir():
            if picture.name.startswith(("module", "tutorial")):
                self.assertLess(picture.stat().st_size, 300_000, picture.name)
            self.assertIn(f"pictures/{picture.name})", pages)

    def test_tutorial_has_ten_steps(self):
        steps = re.findall(r"(?m)^## (\d+)\. ", (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
        self.assertEqual(steps, [str(number) for number in range(1, 11)])


def assert_opens(test: unittest.TestCase, module: Path, home: Path, added: list[str]) -> None:
    """The module opens with the library and the resources of ``home``, and again after Reload."""
    told = open_in_a_new_process(module)
    test.assertEqual(Path(told["library"]).resolve(), (home / "NLSTSegLib" / "__init__.py").resolve())
    test.assertEqual(Path(told["resources"]).resolve(), (home / "Resources").resolve())
    test.assertIn("lidc-25d", told["models"])
    test.assertEqual((told["icon"], told["added"], told["reloaded"]), (True, added, True))
    test.assertEqual(told["buttons"], ["Export review..."] * 2)


class TestSourceTree(unittest.TestCase):
    def test_a_source_folder_that_was_added_by_hand_opens(self):
        assert_opens(self, ROOT / "NLSTSeg" / "NLSTSeg.py", ROOT, [str(ROOT)])


class TestTrees(unittest.TestCase):
    """Configured, built and installed by the real cmake, with ``Testing/cmake`` in place of Slicer."""

    @classmethod
    def setUpClass(cls):
        cmake, compiler = shutil.which("cmake"), shutil.which("true")
        if cmake is None or compiler is None:
            raise unittest.SkipTest("cmake is not installed")
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.build, cls.installed = folder / "build", folder / "installed"
        # Nothing is compiled, so that no compiler need be there.
        languages = [
            f"-DCMAKE_{name}{value}" for name in ("C", "CXX") for value in (f"_COMPILER={compiler}", "_COMPILER_FORCED=1")
        ]
        slicer = f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake'}"
        run([cmake, "-S", str(ROOT), "-B", str(cls.build), "-G", "Unix Makefiles", slicer, *languages])
        run([cmake, "--build", str(cls.build)])
        run([cmake, "--install", str(cls.build), "--prefix", str(cls.installed)])

    def test_both_trees_hold_module_library_and_resources_side_by_side(self):
        library = {f"NLSTSegLib/{name}" for name in files_below(LIBRARY)}
        resources = {f"Resources/{name}" for name in files_below(ROOT / "Resources")}
        for tree in (self.build, self.installed):
            self.assertEqual(files_below(tree / BUILT_MODULES), {"NLSTSeg.py"} | library | resources)
            for name in ("NLSTSegLib/models/bundle.py", "Resources/Models/lidc-25d/weights.safetensors"):
                self.assertEqual((tree / BUILT_MODULES / name).read_bytes(), (ROOT / name).read_bytes())

    def test_nothing_else_is_installed(self):
        self.assertEqual({path.name for path in self.installed.iterdir()}, {"lib"})
        self.assertEqual([path.name for path in (self.installed / BUILT_MODULES).parent.iterdir()], ["qt-scripted-modules"])

    def test_module_opens_from_the_build_tree(self):
        home = self.build / BUILT_MODULES
        assert_opens(self, home / "NLSTSeg.py", home, [])

    def test_module_opens_from_the_install_tree(self):
        home = self.installed / BUILT_MODULES
        assert_opens(self, home / "NLSTSeg.py", home, [])

    def test_every_test_inside_slicer_is_one_of_ctest(self):
        listed = cmake_lists(TESTS / "CMakeLists.txt")["tests"]
        self.assertEqual([test for command in self.ctest_commands() for test in command if test in listed], listed)

    def test_tests_of_the_module_have_the_main_window_with_its_views_and_the_others_need_none(self):
        for command in self.ctest_commands():
            test = command[-1]
            if test.endswith(".py"):
                self.assertEqual("--no-main-window" not in command, test.startswith("module/"), command)

    def ctest_commands(self) -> list[list[str]]:
        listing = run([shutil.which("ctest"), "--test-dir", str(self.build), "--show-only=json-v1"])
        return [test["command"] for test in json.loads(listing)["tests"] if "command" in test]
