"""The files of the repository as syntax: what each imports, and in which room it lies."""

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


LIBRARY = ROOT / "NLSTSegLib"


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


PACKAGES = {"NLSTSegLib": LIBRARY, "nlstseg_training": ROOT / "training" / "nlstseg_training", "Testing": ROOT / "Testing"}


def rooms_of(package: str) -> set[str]:
    """Folders with Python files, and files of the root but ``__init__`` and ``__main__``."""
    return {room_named(module) for module in _files_of(package)}


@functools.cache
def _files_of(package: str) -> dict[str, Path]:
    """The files by dotted names; the folder ``Testing/Python`` is no part of them, as its folders stand beside the others."""
    return {
        ".".join((package, *(part for part in path.relative_to(folder).with_suffix("").parts if part != "Python"))): path
        for folder in (PACKAGES[package],)
        for path in folder.rglob("*.py")
        if not path.name.startswith("__") and "node_modules" not in path.parts
    }


def room_named(module: str) -> str:
    """The room of a dotted module name."""
    return module.split(".")[1]


@functools.cache
def import_graph(package: str) -> dict[str, frozenset[str]]:
    """Dotted names of the files of a package, and what of it each imports, also inside functions."""
    files, graph = _files_of(package), {}
    for module, path in files.items():
        used = set()
        for name, _ in imports(syntax_of(path)):
            # What tests share is imported without the name of the folder that holds it all.
            for whole in (name, f"{package}.{name}"):
                used |= {candidate for candidate in (whole, whole.rpartition(".")[0]) if candidate in files}
        graph[module] = frozenset(used - {module})
    return graph


def circles(graph: dict[str, frozenset[str]]) -> list[str]:
    """Files of which each imports the next and the last the first; ``graphlib`` names one at a time."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []
