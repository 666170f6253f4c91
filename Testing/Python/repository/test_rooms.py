"""The structure of the repository: who may import what, and what lies where (the rooms of the design)."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.source_tree import (
    ROOT,
    circles,
    import_graph,
    imports,
    is_type_checking,
    library_files,
    place,
    room_named,
    room_of,
    rooms_of,
    syntax_of,
    training_files,
)

FLOORS = {
    "NLSTSegLib": (
        *("errors progress resources", "networks disk", "volume", "reading models lesions", "checks inference review phantom"),
        *("pipeline", "results", "jobs followup dicom", "pacs cohort", "cli scene", "widgets"),
    ),
    "nlstseg_training": (
        *("recipe", "data", "batches", "evaluation", "fitting", "export", "refinement", "workflows", "commands", "cli"),
    ),
    "Testing": (
        *("slicer_stand_in", "helpers", "benchmarks fuzzing run_inside_slicer"),
        "checks cli cohort dicom disk followup inference jobs lesions models pacs phantom reading results review scene volume "
        "module training repository",
    ),
}
"""Rooms (folders, or files of a package's root) of every package, floor by floor from the ground: a room imports from lower
floors and from itself, never from beside or above. A new room gets its place here and its line in docs/design.md."""

HEAVY_AT_FILE_SCOPE = {
    "networks": {"torch"},
    "cli": {"typer"},
    "jobs": {"packaging"},
    "widgets": {"qt", "ctk", "slicer", "vtk", "qSlicerSegmentationsModuleWidgetsPythonQt"},
}
"""What the files of a room of NLSTSegLib may import besides the standard library, numpy and NLSTSegLib."""

READERS = {"SimpleITK", "torch", "pydicom", "safetensors"}

IN_FUNCTIONS = {
    "networks": {"torch"},
    "results": {"SimpleITK", "PIL", "pydicom"},
    "followup": {"SimpleITK", "PIL"},
    "dicom": {"highdicom", "pydicom"},
    "pacs": {"pydicom", "pynetdicom", "dicomweb_client", "requests"},
    "cohort": {*READERS, "dask", "distributed", "dask_jobqueue", "fsspec", "pyarrow", "jinja2", "PIL"},
    "cli": {"SimpleITK", "typer", "rich"},
    "scene": {"SimpleITK", "slicer", "vtk"},
    "widgets": {"qt", "ctk", "slicer", "vtk", "qSlicerSegmentationsModuleWidgetsPythonQt", "PyTorchUtils"},
}
"""The same inside functions; the other rooms may import :data:`READERS`."""

TRAINING = {
    *("numpy", "SimpleITK", "torch", "lightning", "monai", "safetensors", "typer", "rich", "matplotlib"),
    *("blosc2", "onnx", "onnxruntime", "openpyxl", "PIL", "scipy", "skimage", "jinja2", "NLSTSegLib", "nlstseg_training"),
}

LARGEST_FILE_BYTES = 12_000_000

MACHINE_PATH = re.compile(r"(?<![\w./~])/(?:home|root|work|tmp|Users|mnt|scratch|private)/[\w.]|[A-Za-z]:\\{1,2}Users\\")

CT_ENDINGS = (".dcm", ".ima", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".npy", ".npz")


def in_git() -> list[Path]:
    """Files that are committed, or would be: untracked ones that git does not ignore."""
    if not (ROOT / ".git").exists():
        raise unittest.SkipTest("this is not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


class TestFloors(unittest.TestCase):
    def test_every_room_has_one_place_and_every_place_a_room(self):
        for package, floors in FLOORS.items():
            with self.subTest(package):
                rooms = [room for floor in floors for room in floor.split()]
                self.assertEqual(sorted(rooms), sorted(rooms_of(package)))

    def test_no_import_climbs(self):
        for package, floors in FLOORS.items():
            height = {room: n for n, floor in enumerate(floors) for room in floor.split()}
            climbing = [
                f"{one} imports {other}"
                for one, others in import_graph(package).items()
                for other in others
                if room_named(one) != room_named(other) and height[room_named(one)] <= height[room_named(other)]
            ]
            self.assertEqual(climbing, [], package)

    def test_no_files_import_each_other_in_a_circle(self):
        for package in FLOORS:
            self.assertEqual(circles(import_graph(package)), [], package)

    def test_folders_of_tests_mirror_the_rooms(self):
        others = {*FLOORS["Testing"][-1].split()} - rooms_of("NLSTSegLib")
        self.assertEqual(others, {"module", "training", "repository"})

    def test_no_test_imports_another(self):
        for path in sorted((ROOT / "Testing").rglob("*.py")):
            others = [name for name, _ in imports(syntax_of(path)) if re.search(r"(^|\.)test_", name.rpartition(".")[0])]
            self.assertEqual(others, [], place(path))


class TestImports(unittest.TestCase):
    def test_library_files_import_only_what_their_room_may(self):
        faults = []
        for path in library_files():
            room = room_of(path)
            for name, in_function in imports(syntax_of(path)):
                top = name.split(".")[0]
                allowed = IN_FUNCTIONS.get(room, READERS) if in_function else HEAVY_AT_FILE_SCOPE.get(room, set())
                if top not in sys.stdlib_module_names and top not in {"NLSTSegLib", "numpy", *allowed}:
                    faults.append(f"{place(path)} imports {name} {'in a function' if in_function else 'at file scope'}")
        self.assertEqual(faults, [])

    def test_imports_are_absolute(self):
        for path in library_files():
            relative = [name for name, _ in imports(syntax_of(path)) if name.startswith(".")]
            self.assertEqual(relative, [], place(path))

    def test_training_imports_no_slicer_and_only_its_own_libraries(self):
        for path in training_files():
            tops = {name.split(".")[0] for name, _ in imports(syntax_of(path))}
            self.assertLessEqual(tops - sys.stdlib_module_names, TRAINING, place(path))

    def test_every_module_but_networks_and_widgets_imports_without_any_heavy_library(self):
        modules = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in library_files()
            if room_of(path) not in ("networks", "widgets") and path.name != "__main__.py"
        ]
        code = (
            "import importlib, json, sys\n"
            "import NLSTSegLib\n"
            "first = sorted(sys.modules)\n"
            f"for name in {modules!r}: importlib.import_module(name)\n"
            "print(json.dumps([first, sorted(sys.modules)]))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
        package, everything = (set(names) for names in json.loads(done.stdout))
        heavy = {"torch", "slicer", "vtk", "qt", "SimpleITK", "pydicom", "PIL", "pydantic", "rich", "nlstseg_training"}
        heavy |= {"highdicom", "pynetdicom", "dicomweb_client"}
        heavy |= {"distributed"}
        self.assertEqual(package & (heavy | {"numpy"}), set(), "importing NLSTSegLib alone")
        # typer imports rich where it is installed.
        self.assertEqual(everything & (heavy - {"rich"}), set(), "importing every module of it")


class TestStyle(unittest.TestCase):
    def test_library_prints_nothing_outside_the_command_line(self):
        for path in library_files():
            if room_of(path) == "cli":
                continue
            calls = [node for node in ast.walk(syntax_of(path)) if isinstance(node, ast.Call)]
            lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
            self.assertEqual(lines, [], place(path))

    def test_no_code_runs_at_file_scope(self):
        definitions = (
            ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
        )
        faults = []
        for path in [*library_files(), *training_files()]:
            for node in syntax_of(path).body:
                text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
                start = path.name == "__main__.py" and isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__")
                if not (isinstance(node, definitions) or text or start or is_type_checking(node)):
                    faults.append(f"{place(path)}:{node.lineno} {ast.unparse(node)[:100]}")
        self.assertEqual(faults, [])

    def test_every_module_says_what_it_is_for(self):
        for path in [*library_files(), *training_files()]:
            self.assertTrue(ast.get_docstring(syntax_of(path)), place(path))


class TestRepository(unittest.TestCase):
    def test_no_python_file_in_the_root(self):
        # Slicer takes every .py in a module path for a module.
        self.assertEqual(list(ROOT.glob("*.py")), [])

    def test_no_file_is_large_or_a_ct(self):
        for path in in_git():
            self.assertLess(path.stat().st_size, LARGEST_FILE_BYTES, path)
            self.assertFalse(path.name.lower().endswith(CT_ENDINGS), f"{path} looks like image data")

    def test_no_file_names_a_path_of_one_computer(self):
        for path in in_git():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            lines = [f"{n}: {line.strip()[:100]}" for n, line in enumerate(text.splitlines(), 1) if MACHINE_PATH.search(line)]
            self.assertEqual(lines, [], place(path))

    def test_every_dependency_is_pinned_to_a_version_that_it_allows(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        wanted = list(project["dependencies"])
        for extra in project["optional-dependencies"].values():
            wanted += extra
        pins = {}
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
            if line.split("#")[0].strip():
                pin = Requirement(line.split("#")[0])
                (exact,) = pin.specifier
                self.assertEqual(exact.operator, "==", f"{line} is not pinned")
                pins[canonicalize_name(pin.name)] = exact.version
        for requirement in map(Requirement, wanted):
            with self.subTest(requirement=str(requirement)):
                self.assertIn(canonicalize_name(requirement.name), pins)
                version = pins[canonicalize_name(requirement.name)]
                self.assertTrue(requirement.specifier.contains(version, prereleases=True), f"pinned to {version}")


if __name__ == "__main__":
    for package_, floors_ in FLOORS.items():
        graph_ = import_graph(package_)
        print(f"{package_}: {len(graph_)} files, {len(floors_)} floors of rooms, {len(circles(graph_))} circles")
        for number_, floor_ in enumerate(floors_, start=1):
            print(f"  {number_}. {floor_}")
    unittest.main()
