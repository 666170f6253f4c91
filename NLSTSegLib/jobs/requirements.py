"""Which Python packages there are and which are missing, told from their metadata: none of them is imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence

from packaging.requirements import Requirement

from NLSTSegLib.resources import resources_folder

REQUIREMENTS_FILE = "requirements.txt"

MODULE_NAMES = {"pillow": "PIL", "dicomweb-client": "dicomweb_client"}
"""Where the module has another name than the package."""

TORCH = Requirement("torch>=2.6")
"""Installed by the PyTorch extension, never by pip alone: that chooses the build for the graphics card."""

HIGHDICOM = Requirement("highdicom>=0.27")
"""Writes DICOM SEG and SR; the only package of the extra ``dicom`` that is needed for that."""

PYNETDICOM, DICOMWEB_CLIENT = Requirement("pynetdicom>=3.0"), Requirement("dicomweb-client>=0.60")
"""Speak to a PACS, over DIMSE and DICOMweb."""

FROM_SLICER = (Requirement("numpy"), Requirement("SimpleITK"))
"""Come with Slicer; what has been loaded of them must not change under the feet of the program."""


def read_requirements() -> list[Requirement]:
    """The packages in Resources/requirements.txt, which leaves out torch and what comes with Slicer."""
    lines = (resources_folder() / REQUIREMENTS_FILE).read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def module_of(requirement: Requirement) -> str:
    """What is imported of the package."""
    return MODULE_NAMES.get(requirement.name.lower(), requirement.name)


def installed_version(requirement: Requirement) -> str:
    """The version that is there; ``"unknown"`` for a module without metadata, empty where there is none."""
    try:
        return importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown" if importlib.util.find_spec(module_of(requirement)) else ""


def unmet(requirements: Sequence[Requirement]) -> list[Requirement]:
    """Those that are missing or too old; what was installed since the start of Python is seen.

    A module without metadata, as Slicer builds some, is new enough.
    """
    importlib.invalidate_caches()
    there = {requirement: installed_version(requirement) for requirement in requirements}
    return [
        requirement
        for requirement, version in there.items()
        if not version or (version != "unknown" and not requirement.specifier.contains(version, prereleases=True))
    ]
