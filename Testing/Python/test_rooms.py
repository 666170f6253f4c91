"""The structure of the repository: who may import what, and what lies where (the rooms of the design)."""

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
import unittest
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "NLSTSegLib"

AT_FILE_SCOPE = {
    "": {"numpy"},
    "networks": {"numpy", "torch"},
    "cli": {"numpy", "typer"},
    "widgets": {"qt", "ctk", "slicer", "vtk", "qSlicerSegmentationsModuleWidgetsPythonQt"},
}
"""What the files of a room of NLSTSegLib may import besides the standard library and NLSTSegLib; others as ``""``."""

READERS = {"numpy", "SimpleITK", "torch", "pydicom", "safetensors", "pydantic"}

IN_FUNCTIONS = {
    "": READERS,
    "networks": {"numpy", "torch"},
    "export": {"numpy", "SimpleITK", "PIL", "pydicom"},
    "cli": {"numpy", "SimpleITK", "typer", "rich"},
    "scene": {"numpy", "SimpleITK", "slicer", "vtk"},
    "widgets": {"qt", "ctk", "slicer", "vtk", "qSlicerSegmentationsModuleWidgetsPythonQt", "PyTorchUtils"},
}

ROOMS_USED = {
    "": {""},
    "networks": {"", "networks"},
    "export": {"", "export"},
    "scene": {"", "scene"},
    "widgets": {"", "scene", "export", "widgets"},
    "cli": {"", "export", "cli"},
}
"""Which rooms of NLSTSegLib each may import from; the plain files also look into networks, inside functions."""

TRAINING = {
    *("numpy", "SimpleITK", "torch", "lightning", "monai", "safetensors", "typer", "rich", "matplotlib"),
    *("openpyxl", "PIL", "scipy", "NLSTSegLib", "nlstseg_training"),
}

LARGEST_FILE_BYTES = 12_000_000

MACHINE_PATH = re.compile(r"(?<![\w./~])/(?:home|root|work|tmp|Users|mnt|scratch|private)/[\w.]|[A-Za-z]:\\{1,2}Users\\")

CT_ENDINGS = (".dcm", ".ima", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".npy", ".npz")


def library_files() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


@functools.cache
def syntax_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def training_files() -> list[Path]:
    return sorted((ROOT / "training").rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(LIBRARY).parts
    return parts[0] if len(parts) > 1 else ""


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST, *, in_functions: bool = False) -> Iterator[tuple[str, bool]]:
    """Dotted name and whether it is inside a function, of every import that runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, in_functions) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # "from NLSTSegLib import scene" imports NLSTSegLib.scene.
            yield from ((f"{base}.{alias.name}", in_functions) for alias in node.names)
        elif not is_type_checking(node):
            inside = in_functions or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, in_functions=inside)


def in_git() -> list[Path]:
    """Files that are committed, or would be: untracked ones that git does not ignore."""
    if not (ROOT / ".git").exists():
        raise unittest.SkipTest("this is not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


class TestImports(unittest.TestCase):
    def test_library_files_import_only_what_their_room_may(self):
        faults = []
        for path in library_files():
            room = room_of(path)
            self.assertIn(room, IN_FUNCTIONS, f"{place(path)} is in a room that the design does not have")
            for name, in_function in imports(syntax_of(path)):
                top = name.split(".")[0]
                allowed = IN_FUNCTIONS[room] if in_function else AT_FILE_SCOPE.get(room, AT_FILE_SCOPE[""])
                if top not in sys.stdlib_module_names and top not in {"NLSTSegLib", *allowed}:
                    faults.append(f"{place(path)} imports {name} {'in a function' if in_function else 'at file scope'}")
        self.assertEqual(faults, [])

    def test_rooms_of_the_library_do_not_reach_up(self):
        faults = []
        for path in library_files():
            if path == LIBRARY / "__main__.py":
                continue
            room = room_of(path)
            for name, in_function in imports(syntax_of(path)):
                parts = name.split(".")
                used = parts[1] if len(parts) > 1 and parts[1] in ROOMS_USED else ""
                from_models = room == "" and in_function and used == "networks"
                if parts[0] == "NLSTSegLib" and used not in ROOMS_USED[room] and not from_models:
                    faults.append(f"{place(path)} imports {name}")
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
