"""Which Python packages there are and which are missing, told from their metadata: nothing is imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from NLSTSegLib.resources import resources_folder

REQUIREMENTS_FILE = "requirements.txt"

PIP_LINE = re.compile(r"([A-Za-z0-9._-]+)(?:>=([0-9.]+))?")
"""What a line of the file may be: a name and, at most, the oldest version."""

MODULE_NAMES = {"pillow": "PIL", "dicomweb-client": "dicomweb_client"}
"""Where the module has another name than the package."""


@dataclass(frozen=True)
class Requirement:
    """A package and the oldest version that will do; empty for any."""

    name: str
    oldest: str = ""

    def __str__(self) -> str:
        return self.name + self.specifier

    @property
    def specifier(self) -> str:
        """As pip takes it."""
        return f">={self.oldest}" if self.oldest else ""

    @property
    def module(self) -> str:
        """What is imported."""
        return MODULE_NAMES.get(self.name.lower(), self.name)

    @property
    def installed(self) -> str:
        """The version that is there; ``"unknown"`` for a module without metadata, empty where there is none."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return "unknown" if importlib.util.find_spec(self.module) else ""

    @property
    def is_met(self) -> bool:
        """Whether it is there and new enough; a module without metadata, as Slicer builds some, is."""
        installed = self.installed
        return installed == "unknown" or (installed != "" and _numbers(installed) >= _numbers(self.oldest))


TORCH = Requirement("torch", "2.6")
"""Installed by the PyTorch extension, never by pip alone: that chooses the build for the graphics card."""

HIGHDICOM = Requirement("highdicom", "0.27")
"""Writes DICOM SEG and SR; the only package of the extra ``dicom`` that is needed for that."""

PYNETDICOM, DICOMWEB_CLIENT = Requirement("pynetdicom", "3.0"), Requirement("dicomweb-client", "0.60")
"""Speak to a PACS, over DIMSE and DICOMweb."""


def read_requirements(path: Path | None = None) -> list[Requirement]:
    """The packages in Resources/requirements.txt, or another such file, without torch."""
    lines = (path or resources_folder() / REQUIREMENTS_FILE).read_text("utf-8").splitlines()
    found = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            match = PIP_LINE.fullmatch(line.strip())
            if match is None:
                raise ValueError(f"'{line}' in {REQUIREMENTS_FILE} is no name with >= and the oldest version")
            found.append(Requirement(match[1], match[2] or ""))
    return found


def unmet(requirements: Sequence[Requirement]) -> list[Requirement]:
    """Those that are missing or too old; what was installed since the start of Python is seen."""
    importlib.invalidate_caches()
    return [requirement for requirement in requirements if not requirement.is_met]


def _numbers(version: str) -> tuple[int, ...]:
    """``"2.6.0+cpu"`` is (2, 6, 0): enough to compare releases."""
    release = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(int(number) for number in release[0].split(".")) if release else ()
