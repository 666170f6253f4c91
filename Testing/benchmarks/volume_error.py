"""How much a model's volume of the same nodule varies: ``volume_error.py OUT.csv``, or ``volume_error.py --help``.

One CT is resliced to several slice thicknesses (each new slice the mean of what it covers), each time with the slices shifted by
a part of a slice and with new noise; the model outlines every nodule anew, in a cut-out around it. Of the phantom, and of the
nodules that the model finds in the CTs given with ``--ct``. ``--table OUT.csv`` sums an earlier run up.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from NLSTSegLib.models.bundle import DEFAULT_MODEL, Model, find_model, load_model
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume, to_canonical

SLICES_MM = (1.0, 1.25, 2.0, 2.5, 3.0, 5.0)
SHIFTS = (0.0, 0.37, 0.71)
"""Shares of a slice."""

NOISE_HU = 20.0
"""Standard deviation of the noise that is added, per voxel of the CT itself; a thicker slice averages it."""

HALF_MM = (38.0, 38.0, 32.0)
"""Of the cut-out around a nodule, along i, j and k."""

COLUMNS = ("source", "nodule", "diameter_mm", "slice_mm", "shift", "volume_mm3")
BINS_MM = ((0, 6), (6, 10), (10, 40))


def main() -> None:
    """Measure, writing a row for every outline that OUT does not have yet, until all are done or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ct", type=Path, nargs="*", default=[], help="thin-slice chest CTs, each with --places")
    parser.add_argument("--places", type=Path, help="CSV with the columns case, l, p, s: places of nodules in LPS mm")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seconds", type=float, default=550)
    parser.add_argument("--table", action="store_true", help="only sum up OUT")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    show(list(csv.DictReader(options.out.open())))


def measure(options: argparse.Namespace) -> None:
    end = time.monotonic() + options.seconds
    model, rng = load_model(find_model(options.model)), np.random.default_rng(0)
    phantom = make_phantom(0, spacing_ijk_mm=(0.75, 0.75, 1.0))
    nodules = [("phantom", phantom.ct, np.array(lesion.centre_lps_mm)) for lesion in phantom.lesions]
    for path in options.ct:
        ct = to_canonical(read_ct(path))
        with options.places.open() as file:
            places = [row for row in csv.DictReader(file) if row["case"] in (path.parent.name, path.name)]
        nodules += [(path.parent.name, ct, np.array([float(row[axis]) for axis in "lps"])) for row in places]
    # Every nodule comes once before any comes twice, so that a run that ends early tells of all.
    jobs = [(n, thick, shift) for shift in SHIFTS[:2] for thick in reversed(SLICES_MM) for n in range(len(nodules))]
    jobs += [(n, thick, SHIFTS[2]) for thick in reversed(SLICES_MM) for n in range(len(nodules))]
    done = set()
    if options.out.exists():
        done = {(int(row["nodule"]), float(row["slice_mm"]), float(row["shift"])) for row in csv.DictReader(options.out.open())}
    with options.out.open("a", newline="") as file:
        table = csv.writer(file)
        if not done:
            table.writerow(COLUMNS)
        for n, thick, shift in jobs:
            source, ct, place = nodules[n]
            if (n, thick, shift) in done or thick < ct.spacing_ijk_mm[2] - 1e-6:
                continue
            if time.monotonic() > end:
                break
            volume_mm3 = outlined_mm3(resliced(around(ct, place), thick, shift, rng), place, model)
            diameter_mm = (6 * volume_mm3 / math.pi) ** (1 / 3)
            table.writerow([source, n, f"{diameter_mm:.2f}", thick, shift, f"{volume_mm3:.1f}"])
            file.flush()


def around(ct: CtVolume, place: np.ndarray) -> CtVolume:
    middle = (place - np.array(ct.origin_lps_mm)) / ct.spacing_ijk_mm
    half = np.array(HALF_MM) / ct.spacing_ijk_mm
    low = np.maximum(0, np.floor(middle - half)).astype(int)
    high = np.minimum(np.array(ct.hu.shape[::-1]), np.ceil(middle + half).astype(int))
    hu = ct.hu[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    origin = tuple((np.array(ct.origin_lps_mm) + low * ct.spacing_ijk_mm).tolist())
    return CtVolume(np.ascontiguousarray(hu), ct.spacing_ijk_mm, origin)


def resliced(ct: CtVolume, slice_mm: float, shift: float, rng: np.random.Generator) -> CtVolume:
    """New slices, as thick as they lie apart: each the mean of what it covers, begun ``shift`` of a slice further up."""
    step = ct.spacing_ijk_mm[2]
    noisy = ct.hu + rng.normal(0, NOISE_HU, ct.hu.shape)
    sums = np.concatenate([np.zeros((1, *ct.hu.shape[1:])), np.cumsum(noisy, axis=0)])
    edges = np.arange(shift * slice_mm / step, len(ct.hu), slice_mm / step)
    whole = np.minimum(edges.astype(int), len(ct.hu) - 1)
    at_edges = sums[whole] + (edges - whole)[:, None, None] * (sums[whole + 1] - sums[whole])
    hu = np.diff(at_edges, axis=0) / (slice_mm / step)
    z = ct.origin_lps_mm[2] + ((edges[0] + edges[1]) / 2 - 0.5) * step
    origin = (*ct.origin_lps_mm[:2], z)
    return replace(ct, hu=np.rint(hu).astype(np.int16), spacing_ijk_mm=(*ct.spacing_ijk_mm[:2], slice_mm), origin_lps_mm=origin)


def outlined_mm3(ct: CtVolume, place: np.ndarray, model: Model) -> float:
    """Volume of the lesion nearest to the place, 0 where none is within 12 mm or its own radius."""
    result = segment(ct, model, SegmentOptions(lung_field=np.ones(ct.hu.shape, bool), device="cpu", threads=1))
    best, volume_mm3 = math.inf, 0.0
    for lesion in result.lesions:
        sizes = lesion.measurements
        distance = float(np.linalg.norm(np.array(sizes.centroid_lps_mm) - place))
        if distance < min(best, max(12.0, sizes.equivalent_diameter_mm / 2)):
            best, volume_mm3 = distance, sizes.volume_mm3
    return volume_mm3


def show(rows: list[dict[str, str]]) -> None:
    """Per diameter and thickness: the coefficient of variation of one volume, and how the mean differs from thin slices."""
    volumes: dict[tuple[str, float], list[float]] = {}
    missed: dict[float, int] = {}
    for row in rows:
        thick = float(row["slice_mm"])
        volumes.setdefault((row["nodule"], thick), [])
        if float(row["volume_mm3"]) > 0:
            volumes[row["nodule"], thick].append(math.log(float(row["volume_mm3"])))
        else:
            missed[thick] = missed.get(thick, 0) + 1
    thin = {}
    for (nodule, thick), logs in sorted(volumes.items(), key=lambda item: item[0][1]):
        if logs and nodule not in thin:
            thin[nodule] = (thick, float(np.mean(logs)))
    table = Table("diameter mm", "slices mm", "nodules", "outlines", "CV of one volume", "SD of ln(V / V thin)", "mean of it")
    for low, high in BINS_MM:
        for thick in SLICES_MM:
            groups, biases = [], []
            for (nodule, own), logs in volumes.items():
                if own == thick and logs and low <= (6 / math.pi * math.exp(thin[nodule][1])) ** (1 / 3) < high:
                    groups.append(logs)
                    if thin[nodule][0] < thick:
                        biases.append(float(np.mean(logs)) - thin[nodule][1])
            free = sum(len(logs) - 1 for logs in groups)
            if not free:
                continue
            variance = sum(float(np.var(logs)) * len(logs) for logs in groups) / free
            cv = math.sqrt(math.expm1(variance))
            spread = f"{np.sqrt(np.mean(np.square(biases))):.3f}" if biases else ""
            table.add_row(
                f"{low}-{high}", f"{thick:g}", str(len(groups)), str(sum(map(len, groups))), f"{cv:.3f}", spread,
                f"{np.mean(biases):+.3f}" if biases else "",
            )  # fmt: skip
    console = Console(width=150)
    console.print(table)
    console.print(f"not outlined, by slices: {missed}")


if __name__ == "__main__":
    main()
