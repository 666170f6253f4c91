"""Where the model fails, as pictures: an axial slice with the outlines of the reference and of what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nlstseg_training.evaluation.report.plots import PREDICTED_COLOR, REFERENCE_COLOR, png_uri
from NLSTSegLib.volume.ct import LUNG_WINDOW_HU

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST_LESIONS, OUTSIDE_MARKS = 12, 6
"""Pictures of each."""

SMALLEST_VIEW_MM = 50.0
"""A picture shows at least this; larger lesions get 1.6 times their size."""


@dataclass(frozen=True)
class Subject:
    """What a picture is of."""

    case: str
    label: int
    """Label of the reference lesion, or of the predicted one."""
    is_reference: bool
    caption: str


def worst_lesions(cases: Sequence[dict[str, Any]]) -> list[Subject]:
    """Reference lesions with the lowest Dice, of equal ones the largest first."""
    pairs = [(case["id"], lesion) for case in cases for lesion in case["lesions"]]
    pairs.sort(key=lambda pair: (pair[1]["dice"], -pair[1]["volume_mm3"]))
    return [
        Subject(case, lesion["label"], True, f"lesion {lesion['label']}, {lesion['diameter_mm']:.1f} mm: {_outcome(lesion)}")
        for case, lesion in pairs[:WORST_LESIONS]
    ]


def surest_outside(cases: Sequence[dict[str, Any]]) -> list[Subject]:
    """Marks outside the annotation with the highest score, of equal ones the largest first."""
    pairs = [(case["id"], mark) for case in cases for mark in case["marks"] if mark["outside"]]
    pairs.sort(key=lambda pair: (-pair[1]["score"], -pair[1]["volume_mm3"]))
    return [
        Subject(case, mark["label"], False, f"mark of {mark['volume_mm3']:.0f} mm³, highest probability {mark['score']:.3f}")
        for case, mark in pairs[:OUTSIDE_MARKS]
    ]


def picture(subject: Subject, hu: np.ndarray, labels: np.ndarray, predicted: np.ndarray, spacing_kji_mm: Sequence[float]) -> str:
    """PNG as data URI: the slice in which the subject is largest.

    ``hu`` and the label maps ``labels`` and ``predicted`` are ``[k, j, i]`` with canonical axes, so the patient's right is on
    the left.
    """
    from matplotlib.figure import Figure

    own = (labels if subject.is_reference else predicted) == subject.label
    k = int(own.sum(axis=(1, 2)).argmax())
    rows, columns = own[k].nonzero()
    spacing_j, spacing_i = spacing_kji_mm[1:]
    extent_mm = max((np.ptp(rows) + 1) * spacing_j, (np.ptp(columns) + 1) * spacing_i)
    half_mm = max(SMALLEST_VIEW_MM, 1.6 * extent_mm) / 2
    middle_mm = (rows.min() + rows.max()) / 2 * spacing_j, (columns.min() + columns.max()) / 2 * spacing_i

    figure = Figure(figsize=(2.4, 2.4), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    height, width = hu.shape[1:]
    edges_mm = (-spacing_i / 2, (width - 0.5) * spacing_i, (height - 0.5) * spacing_j, -spacing_j / 2)
    axes.imshow(hu[k], cmap="gray", vmin=LUNG_WINDOW_HU[0], vmax=LUNG_WINDOW_HU[1], extent=edges_mm, interpolation="bilinear")
    outlines = ((labels[k] > 0, REFERENCE_COLOR, "solid"), (predicted[k] > 0, PREDICTED_COLOR, "dashed"))
    for mask, color, style in outlines:
        if mask.any():
            grid = np.arange(width) * spacing_i, np.arange(height) * spacing_j
            axes.contour(*grid, mask, levels=[0.5], colors=color, linewidths=1.1, linestyles=style)
    axes.set_xlim(middle_mm[1] - half_mm, middle_mm[1] + half_mm)
    axes.set_ylim(middle_mm[0] + half_mm, middle_mm[0] - half_mm)
    axes.plot((middle_mm[1] - half_mm * 0.92,) * 2, (middle_mm[0] + half_mm * 0.9, middle_mm[0] + half_mm * 0.9 - 10), "w", lw=2)
    return png_uri(figure)


def panel(slices: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, Sequence[float]]]) -> Figure:
    """Slices side by side: name, HU, reference and prediction (bool) ``[j, i]``, and the spacing (k, j, i) in mm of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * max(1, len(slices)), 3.5), layout="constrained")
    for n, (name, hu, reference, predicted, spacing_kji_mm) in enumerate(slices, start=1):
        axes = figure.add_subplot(1, len(slices), n)
        axes.set_axis_off()
        axes.set_title(name, fontsize=9)
        axes.imshow(hu, cmap="gray", vmin=LUNG_WINDOW_HU[0], vmax=LUNG_WINDOW_HU[1], aspect=spacing_kji_mm[1] / spacing_kji_mm[2])
        for mask, color, style in ((reference, REFERENCE_COLOR, "solid"), (predicted, PREDICTED_COLOR, "dashed")):
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=color, linewidths=1.1, linestyles=style)
    figure.suptitle("reference solid, predicted dashed", fontsize=9)
    return figure


def _outcome(lesion: dict[str, Any]) -> str:
    return f"Dice {lesion['dice']:.2f}" if lesion["found"] else "missed"
