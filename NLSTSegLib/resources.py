"""Where the files that come with the program are: one place for a source tree, a pip install and an installed extension."""

from __future__ import annotations

import os
from pathlib import Path

MODELS_VARIABLE = "NLSTSEG_MODELS"
"""Environment variable that names another folder for the user's own models."""


def resources_folder() -> Path:
    """``Resources/`` inside the installed package, else beside it (source tree, Slicer's build and install tree)."""
    package = Path(__file__).resolve().parent
    inside = package / "Resources"
    return inside if inside.is_dir() else package.parent / "Resources"


def user_models_folder() -> Path | None:
    """Folder of the models that the user added; it need not exist. ``None`` where neither the environment nor the system names
    a home."""
    if named := os.environ.get(MODELS_VARIABLE):
        return Path(named)
    try:
        return Path.home() / ".nlstseg" / "models"
    except RuntimeError:
        return None
