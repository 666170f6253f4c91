"""The curves of a training, as the report shows them."""

from __future__ import annotations

import base64
import csv
from pathlib import Path

from NLSTSegLib.errors import InputError

LOG_FOLDER, CURVES_FILE, PANEL_FOLDER = "log", "metrics.csv", "panels"
"""Files in the folder of a run: the table of the curves, and the pictures of validation cases."""

PLOTS = (
    ("loss", (("loss", "training"), ("validation_loss", "validation"))),
    ("learning rate", (("learning_rate", ""),)),
    (
        "whole validation cases",
        (("case_dice", "Dice"), ("case_iou", "IoU"), ("lesions_found", "lesions found, strict")),
    ),
    ("marks outside per case", (("marks_outside_per_case", ""),)),
)
"""Title of each plot, and its columns with their names."""


def read_curves(path: Path) -> list[dict[str, float]]:
    """The rows of a table of curves, each with the ``step`` and what was measured then; none where there is no table.

    Raises :class:`InputError` when it is none of ours.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"'{path}' is no table of curves ({error}); remove it") from error


def curves_uri(run_folder: Path) -> str:
    """Picture of the curves as data URI; empty without any."""
    from matplotlib.figure import Figure

    from nlstseg_training.evaluation.report.plots import png_uri

    rows = read_curves(run_folder / LOG_FOLDER / CURVES_FILE)
    if not rows:
        return ""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    last_steps = {row["phase"]: row["step"] for row in rows if "phase" in row}
    for n, (title, columns) in enumerate(PLOTS, start=1):
        axes = figure.add_subplot(2, 2, n)
        axes.set_title(title, fontsize=10)
        for column, name in columns:
            points = [(row["step"], row[column]) for row in rows if column in row]
            axes.plot(
                [step for step, _ in points], [value for _, value in points], marker="." if len(points) < 40 else "", label=name
            )
        # Where a phase ends the next one begins, with another rate.
        for step in list(last_steps.values())[:-1]:
            axes.axvline(step, color="grey", linewidth=0.7, linestyle=":")
        if columns[0][1]:
            axes.legend(fontsize=8, frameon=False)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("steps", fontsize=8)
    return png_uri(figure)


def panel_uri(run_folder: Path) -> str:
    """The last picture of the validation cases as data URI; empty without any."""
    panels = sorted((run_folder / PANEL_FOLDER).glob("*.png"))
    return "data:image/png;base64," + base64.b64encode(panels[-1].read_bytes()).decode() if panels else ""
