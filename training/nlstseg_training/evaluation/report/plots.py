"""The curves and clouds of the report, as pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nlstseg_training.evaluation.metrics.froc import RATES
from nlstseg_training.evaluation.pooled import DIAMETERS_MM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE_COLOR, PREDICTED_COLOR, GREY = "#009e73", "#e66100", "#6b7280"
"""Told apart by the colour-blind too; the same for outlines and curves."""

CURVE_COLOR = "#1f5fa8"

PLOT_INCHES = (5.4, 3.9)


def froc_plot(froc: dict[str, Any]) -> str:
    """Sensitivity against marks outside the annotation per scan, with its interval."""
    figure, axes = _axes(f"marks outside the annotation per {froc['scan']}", "lesions found")
    rates = [each["outside_per_scan"] for each in froc["band"]]
    low, high = (_numbers(each[end] for each in froc["band"]) for end in ("low", "high"))
    if np.isfinite(low).any():
        axes.fill_between(rates, low, high, color=CURVE_COLOR, alpha=0.18, linewidth=0, label="95 % interval, by patient")
    curve = froc["curve"]
    outside, sensitivity = _numbers(curve["outside_per_scan"]), _numbers(curve["sensitivity"])
    # To the right edge: what is found at fewer marks is found at more too.
    outside, sensitivity = np.append(outside, 1e6), np.append(sensitivity, sensitivity[-1])
    axes.step(outside, sensitivity, where="post", color=CURVE_COLOR, linewidth=1.8)
    at_rates = _numbers(each["value"] for each in froc["sensitivity"])
    axes.plot(RATES, at_rates, "o", color=CURVE_COLOR, markersize=4, label="read for the CPM")
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set_xlim(RATES[0] / 1.1, RATES[-1] * 1.1)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(loc="best", fontsize=8, frameon=False)
    return _as_uri(figure)


def dice_plot(cases: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """Dice of every lesion against its diameter, with the mean of every bin."""
    figure, axes = _axes("diameter of the sphere of the lesion's volume, mm", "Dice of the lesion")
    lesions = [lesion for case in cases for lesion in case["lesions"]]
    for found, name, marker, color in ((True, "found", "o", CURVE_COLOR), (False, "missed", "x", PREDICTED_COLOR)):
        part = [lesion for lesion in lesions if lesion["found"] == found]
        where = [lesion["diameter_mm"] for lesion in part], [lesion["dice"] for lesion in part]
        axes.plot(*where, marker, color=color, markersize=4, alpha=0.6, label=f"{name} ({len(part)})")
    sizes = [lesion["diameter_mm"] for lesion in lesions]
    ends = min([4.0, *sizes]) / 1.1, max([30.0, *sizes]) * 1.1
    edges = [ends[0], *DIAMETERS_MM[1:-1], ends[1]]
    for row, low, high in zip(rows, edges[:-1], edges[1:], strict=True):
        mean = row["dice_all"]["value"]
        if mean is not None:
            axes.plot((low, high), (mean, mean), color="black", linewidth=1.4)
            place, box = ((low * high) ** 0.5, mean), {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
            axes.annotate(f"{mean:.2f}", place, (0, 4), textcoords="offset points", ha="center", fontsize=8, bbox=box)
    for edge in edges[1:-1]:
        axes.axvline(edge, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_xscale("log")
    ticks = [tick for tick in (2, 4, 6, 10, 20, 40, 80) if ends[0] <= tick <= ends[1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(ends)
    axes.set_ylim(-0.05, 1.05)
    # Above the plot: no place in it is free of lesions and means.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False)
    return _as_uri(figure)


def bland_altman_plot(cases: Sequence[dict[str, Any]], agreement: dict[str, Any]) -> str:
    """Difference of predicted and reference volume, in per cent of their mean, against that mean."""
    figure, axes = _axes("mean of predicted and reference volume, mm³", "predicted - reference, % of the mean")
    pairs = [(each["matched_volume_mm3"], each["volume_mm3"]) for case in cases for each in case["lesions"] if each["found"]]
    predicted, reference = np.array(pairs, float).reshape(-1, 2).T
    mean = (predicted + reference) / 2
    difference = 100 * (predicted - reference) / mean
    axes.plot(mean, difference, "o", markersize=4, alpha=0.6, color=CURVE_COLOR)
    axes.axhline(0, color=GREY, linewidth=0.6)
    for key, name, style in (("bias", "mean", "-"), ("lower", "-1.96 SD", "--"), ("upper", "+1.96 SD", "--")):
        if agreement[key] is not None:
            axes.axhline(agreement[key], color="black", linewidth=1.2, linestyle=style)
            place = (1, agreement[key])
            label = f"{name} {agreement[key]:+.0f} %"
            axes.annotate(label, place, (-3, 3), ("axes fraction", "data"), textcoords="offset points", ha="right", fontsize=8)
    if len(mean):
        axes.set_xscale("log")
    limits = [abs(agreement[key]) for key in ("lower", "upper") if agreement[key] is not None]
    most = 1.15 * max([50.0, *np.abs(difference), *limits])
    axes.set_ylim(-most, most)
    return _as_uri(figure)


def sweep_plot(sweep: Sequence[dict[str, Any]], chosen: float) -> str:
    """Dice, sensitivity and F1 against the threshold."""
    figure, axes = _axes("threshold", "mean over cases or lesions")
    thresholds = [row["threshold"] for row in sweep]
    styles = (("dice", "Dice per case", "-"), ("lesion_dice", "Dice per lesion", "--"), ("sensitivity", "lesions found", ":"))
    for key, name, style in (*styles, ("f1_strict", "strict F1", "-.")):
        axes.plot(thresholds, _numbers(row[key]["value"] for row in sweep), style, marker="o", markersize=3, label=name)
    axes.axvline(chosen, color="black", linewidth=0.8)
    axes.annotate(f"chosen: {chosen:g}", (chosen, 0.5), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_ylim(-0.02, 1.05)
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    return _as_uri(figure)


def png_uri(figure: Figure) -> str:
    """A figure with a photograph in it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=PLOT_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _numbers(values: Any) -> np.ndarray:
    """None becomes NaN, which matplotlib leaves out."""
    return np.array(list(values), float)


def _as_uri(figure: Figure) -> str:
    import matplotlib

    stream = io.BytesIO()
    # The same file for the same figures: no date, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "nlstseg"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()
