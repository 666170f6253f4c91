"""``lesions.csv``: the lesion table of a result."""

from __future__ import annotations

import csv
from pathlib import Path

from NLSTSegLib.lesions.rows import COLUMNS
from NLSTSegLib.pipeline import SegmentationResult


def write_csv(result: SegmentationResult, path: Path) -> None:
    """Write ``lesions.csv`` (UTF-8, comma, point as decimal sign)."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(result.to_rows())
