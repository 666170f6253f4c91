"""``lesions.csv``: the lesion table of a result."""

from __future__ import annotations

from pathlib import Path

from NLSTSegLib.disk.csv_table import write_table
from NLSTSegLib.lesions.rows import COLUMNS
from NLSTSegLib.pipeline import SegmentationResult


def write_csv(result: SegmentationResult, path: Path) -> None:
    """Write ``lesions.csv``."""
    write_table(path, COLUMNS, result.to_rows())
