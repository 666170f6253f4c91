"""A lesion in words, from its row: what the table and the panel show, and a line for the report."""

from __future__ import annotations

from NLSTSegLib.lesions.measure import round_half_up
from NLSTSegLib.review.worklist import Row

ML_FROM_MM3 = 1000
"""Volumes are told in ml from here on."""


def score_text(row: Row) -> str:
    """Score with two decimals."""
    return "-" if row["score"] == "" else f"{row['score']:.2f}"


def diameter_text(row: Row) -> str:
    """Mean of the long and the short axis, in mm."""
    return "-" if row["mean_diameter_mm"] == "" else f"{row['mean_diameter_mm']:.1f}"


def axes_text(row: Row) -> str:
    """Long and short axis, in mm."""
    return "-" if row["long_axis_mm"] == "" else f"{row['long_axis_mm']:.1f} x {row['short_axis_mm']:.1f}"


def density_text(row: Row) -> str:
    """Mean HU."""
    return "-" if row["mean_hu"] == "" else str(row["mean_hu"])


def volume_text(row: Row) -> str:
    """Volume in mm³, from :data:`ML_FROM_MM3` on in ml with one decimal."""
    volume_mm3 = float(row["volume_mm3"])
    return f"{volume_mm3:.0f} mm³" if volume_mm3 < ML_FROM_MM3 else f"{round_half_up(volume_mm3 / 1000, 1)} ml"


def place_text(row: Row) -> str:
    """Slice, side and third, as far as they are known: "57 R upper"."""
    parts = (str(row["slice"]), str(row["side"])[:1].upper(), str(row["third"]))
    return " ".join(part for part in parts if part) or "-"


def report_line(row: Row) -> str:
    """All of it in one line, as for a report."""
    where = " ".join(part for part in (str(row["side"]), f"{row['third']} third" if row["third"] else "") if part)
    parts = [str(row["lesion"]), where, f"slice {row['slice']}" if row["slice"] != "" else ""]
    if row["long_axis_mm"] != "":
        parts += [f"{axes_text(row)} mm (mean {diameter_text(row)} mm)", volume_text(row), f"{density_text(row)} HU"]
    parts += ["" if row["score"] == "" else f"score {score_text(row)}", str(row["status"])]
    return ", ".join(part for part in parts if part)
