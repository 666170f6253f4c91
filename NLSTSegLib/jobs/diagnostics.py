"""What somebody needs who looks into a failed run, as text to copy: versions, CT, options, log, and nobody's name or path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from NLSTSegLib import __version__
from NLSTSegLib.checks.preflight import Finding
from NLSTSegLib.errors import ModelError, printable
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.models.bundle import find_model
from NLSTSegLib.volume.ct import CtVolume

PACKAGES = ("numpy", "SimpleITK", "pydicom", "torch", "safetensors", "pydantic", "typer", "slicer-core")
"""Packages whose versions matter; none is imported."""

QUOTED_PATH = re.compile(r"'[^'\n]*[/\\][^'\n]*'|\"[^\"\n]*[/\\][^\"\n]*\"")
"""A path in quotes, as in the program's own messages and in tracebacks."""

BARE_PATH = re.compile(r"(?<![\w<>.)/\\])(?:[A-Za-z]:[\\/]|\\\\|~?/)[^\s'\"][^\n'\"]*")
"""An absolute path elsewhere: where it ends among blanks nobody knows, so it goes to the end of the line."""

SHORT_NAME = 4
"""A name of fewer letters may be part of any word."""

OWN_FILE = re.compile(r"(['\"])<(?:program|python)>[\w./\\<>+-]*\1")
"""A file of the program or of Python, which tells nothing of its user."""


@dataclass(frozen=True)
class CtFacts:
    """Geometry and voxels of a CT; where it lies in space and whose it is are left out."""

    size_ijk: tuple[int, ...]
    spacing_ijk_mm: tuple[float, ...]
    orientation: str
    is_orthogonal: bool
    voxel_type: str
    range_hu: tuple[float, float]

    @classmethod
    def of(cls, ct: CtVolume) -> CtFacts:
        """Those of ``ct``."""
        return cls(
            size_ijk=ct.hu.shape[::-1],
            spacing_ijk_mm=tuple(round(step, 4) for step in ct.spacing_ijk_mm),
            orientation=ct.orientation,
            is_orthogonal=ct.is_orthogonal,
            voxel_type=str(ct.hu.dtype),
            range_hu=(float(ct.hu.min()), float(ct.hu.max())),
        )


def diagnostics_text(
    *,
    slicer_version: str,
    sentence: str,
    log: str,
    options: RunOptions | None = None,
    ct: CtFacts | None = None,
    findings: Iterable[Finding] = (),
    facts: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
) -> str:
    """Everything about the last run, under headings.

    ``sentence`` is what the user was told, ``log`` what the child wrote. ``facts`` are further lines, such as the model's
    hash. ``names`` (of nodes, for example, which often are a patient's) and all paths are taken out of every text.
    """

    def clean(text: str) -> str:
        return without_names(without_paths(text), names)

    chosen = asdict(options) if options else {}
    if options and os.path.basename(options.model) != options.model:
        names = [*names, options.model]
        chosen["model"] = "<path>"
    sections = {
        "NLSTSeg": {"version": __version__, "3D Slicer": slicer_version, "told": clean(sentence)},
        "Computer": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "CPUs": str(os.cpu_count()),
            "Python": sys.version.split()[0],
            **{name: _version_of(name) for name in PACKAGES},
        },
        "CT": {key: str(value) for key, value in asdict(ct).items()} if ct else {},
        "Options": {key: str(value) for key, value in chosen.items()},
        "Run": {key: clean(value) for key, value in (facts or {}).items()},
        "Findings": {f"{finding.severity} {finding.code}": clean(finding.message) for finding in findings},
    }
    lines = []
    for heading, values in sections.items():
        lines += [f"== {heading}", *(f"{key}: {printable(value)}" for key, value in values.items()), ""]
    return "\n".join([*lines, "== Log", clean(log).strip() or "(empty)", ""])


def model_facts(name_or_path: str) -> dict[str, str]:
    """Which model that is, or why it is none, for the ``facts`` of :func:`diagnostics_text`."""
    try:
        card = find_model(name_or_path).card
    except ModelError as error:
        return {"model": str(error)}
    return {"model": f"{card.name} {card.version}", "weights_sha256": card.weights_sha256}


def without_paths(text: str) -> str:
    """``text`` with every path replaced; files of the program and of Python keep their place within it."""
    for folder, name in _known_folders():
        text = text.replace(folder, name)
    text = QUOTED_PATH.sub(lambda found: found[0] if OWN_FILE.fullmatch(found[0]) else "'<path>'", text)
    return BARE_PATH.sub("<path>", text)


def without_names(text: str, names: Iterable[str]) -> str:
    """``text`` without these names, in whatever case; short ones, such as "CT", only where they stand in quotes."""
    for name in sorted({name.strip() for name in names if name.strip()}, key=len, reverse=True):
        shown = re.escape(name) if len(name) >= SHORT_NAME else f"(?<=['\"]){re.escape(name)}(?=['\"])"
        text = re.sub(shown, "<name>", text, flags=re.IGNORECASE)
    return text


def _known_folders() -> list[tuple[str, str]]:
    """Folders that tell nothing but where the program is, by the words that stand for them, the innermost first."""
    folders = {
        str(Path(__file__).resolve().parents[1]): "<program>",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
    }
    return sorted(((folder, name) for folder, name in folders.items() if len(folder) > 3), key=lambda each: -len(each[0]))


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
