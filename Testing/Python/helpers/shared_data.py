"""Where real CT for tests lies, if it is there."""

import os
from pathlib import Path


def shared_data() -> Path | None:
    """The folder ``NLSTSEG_DATA`` points to, by default ``../shared/data`` beside the repository; None when absent."""
    folder = Path(__file__).resolve().parents[3] / os.environ.get("NLSTSEG_DATA", "../shared/data")
    return folder if folder.is_dir() else None
