"""How far registrations are off, and what they take: ``registration.py FOLDER CT [CT ...]``, or ``registration.py --help``.

Every CT is deformed so that the truth is known: the diaphragm moves, all places move smoothly, the patient is turned and lies
elsewhere, on another grid with new noise. The pairs are kept in FOLDER, and each is registered in a process of its own. Kinder
than life: texture and contrast are the same in both. CTs of different patients are registered with each other too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from rich.console import Console
from rich.table import Table

from NLSTSegLib.followup.registration import register
from NLSTSegLib.inference.lung_field import find_lungs
from NLSTSegLib.phantom.second import Motion
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume, to_canonical

NOISE_HU = 15.0
FIELD_MM, FIELD_WAVE_MM = 2.5, 110.0
"""Amplitude and length of the waves by which all places move, along each axis."""

PLACES = 150


@dataclass(frozen=True)
class Case:
    """How the follow-up of a CT is made."""

    name: str
    breath_mm: float
    turn_degrees: float
    table_lps_mm: tuple[float, float, float]
    spacing_ijk_mm: tuple[float, float, float]
    upper_share: float = 1.0
    """Of the slices of the follow-up that are kept, from above."""
    slices: int | None = None
    """Both CTs are cut into so many slices of 512 x 512."""

    def back(self, second_lps_mm: np.ndarray) -> np.ndarray:
        """Places in the baseline of places in the follow-up; the middle of the lungs is at 0."""
        first = Motion(self.breath_mm, self.turn_degrees, self.table_lps_mm).back(second_lps_mm)
        turned = first[..., [1, 2, 0]] * (2 * np.pi / FIELD_WAVE_MM) + [0.3, 1.1, 2.0]
        return np.asarray(first + FIELD_MM * np.sin(turned))


CASES = (
    Case("10 mm, turned 3, 5 mm slices", 10, 3, (9, -14, 37), (0.8, 0.8, 5.0)),
    Case("20 mm, turned 5, 2 mm slices", 20, 5, (15, -10, 60), (0.8, 0.8, 2.0)),
    Case("30 mm, turned 4, upper 60 %", 30, -4, (-9, 20, -25), (0.75, 0.75, 1.25), upper_share=0.6),
    Case("20 mm, 300 slices of both", 20, 5, (9, -14, 37), (0.7, 0.7, 1.1), slices=300),
)


def main() -> None:
    """Make what is not there yet, register, show a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cts", type=Path, nargs="*")
    parser.add_argument("--case", help="only cases whose name holds this; 'other' are other patients")
    parser.add_argument("--child", nargs=2, type=Path, metavar=("BASELINE", "FOLLOWUP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(*options.child)))
        return
    table = Table()
    for heading in ("pair", "mean mm", "largest", "correlation", "folded", "refusal", "s", "CPU s", "MB", "stages"):
        table.add_column(heading)
    for name, baseline, followup in pairs(options):
        command = [sys.executable, __file__, str(options.folder), "--child", str(baseline), str(followup)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        table.add_row(name, *json.loads(done.stdout.splitlines()[-1]))
        print(name, done.stdout.splitlines()[-1], flush=True)
    Console(width=200).print(table)


def pairs(options: argparse.Namespace) -> list[tuple[str, Path, Path]]:
    """Name, baseline and follow-up of every pair."""
    found = []
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted = options.case or ""
    for path in options.cts:
        for number, case in enumerate(CASES):
            if wanted in case.name:
                place = options.folder / f"{path.parent.name}-{number}"
                if not (place / "case.json").exists():
                    make(path, case, number, place)
                found.append((f"{path.parent.name}: {case.name}", place / "baseline.nrrd", place / "followup.nrrd"))
    if wanted in "other patients":
        for one, other in itertools.combinations(options.cts, 2):
            found.append((f"{one.parent.name}, {other.parent.name}", one, other))
    return found


def make(path: Path, case: Case, number: int, place: Path) -> None:
    """Write the two CTs of a case."""
    baseline = to_canonical(read_ct(path))
    lungs = find_lungs(baseline)
    assert lungs is not None
    inside = np.argwhere(lungs.mask)[:, ::-1]
    middle = baseline.lps_from_ijk_mm((inside.min(axis=0) + inside.max(axis=0)) / 2)
    baseline = replace(baseline, origin_lps_mm=tuple((np.array(baseline.origin_lps_mm) - middle).tolist()))
    size_mm = np.array(baseline.hu.shape[::-1]) * baseline.spacing_ijk_mm
    if case.slices:
        size = (512, 512, case.slices)
        baseline = resampled(baseline, size, tuple((size_mm / size).tolist()), baseline.origin_lps_mm, sitk.Transform())
    spacing = tuple((size_mm / size).tolist()) if case.slices else case.spacing_ijk_mm
    if not case.slices:
        size = tuple(np.ceil(size_mm / spacing).astype(int).tolist())
    origin = np.add(baseline.origin_lps_mm, case.table_lps_mm)
    lowest = round(size[2] * (1 - case.upper_share))
    origin[2] += lowest * spacing[2]
    size = (size[0], size[1], size[2] - lowest)
    followup = resampled(baseline, size, spacing, tuple(origin.tolist()), field(case, size, spacing, origin))
    noise = np.random.default_rng(number).normal(0, NOISE_HU, followup.hu.shape)
    followup = replace(followup, hu=np.where(followup.hu > -1020, followup.hu + noise, followup.hu).astype(np.int16))
    place.mkdir(exist_ok=True)
    for name, ct in (("baseline", baseline), ("followup", followup)):
        sitk.WriteImage(ct.to_image(), str(place / f"{name}.nrrd"))
    (place / "case.json").write_text(json.dumps(number))


def field(case: Case, size: Sequence[int], spacing: Sequence[float], origin: np.ndarray) -> sitk.Transform:
    """The way back as a transform, sampled every 6 mm."""
    counts = [int(np.ceil(n * step / 6)) + 3 for n, step in zip(size, spacing, strict=True)]
    places = np.stack(np.meshgrid(*(np.arange(n) * 6.0 for n in counts), indexing="ij"), axis=-1) + (origin - 6)
    image = sitk.GetImageFromArray(np.ascontiguousarray((case.back(places) - places).transpose(2, 1, 0, 3)), isVector=True)
    image.SetSpacing([6.0] * 3)
    image.SetOrigin((origin - 6).tolist())
    return sitk.DisplacementFieldTransform(image)


def resampled(
    ct: CtVolume, size: Sequence[int], spacing: Sequence[float], origin: Sequence[float], transform: sitk.Transform
) -> CtVolume:
    """The CT on another grid; beyond it is air."""
    image = sitk.Resample(ct.to_image(), size, transform, sitk.sitkLinear, origin, spacing, ct.direction_lps, -1024.0)
    return CtVolume.from_image(image)


def own_largest_mb() -> float:
    """Largest memory of this process; that of getrusage counts what its parent had when it was started."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measured(baseline_file: Path, followup_file: Path) -> list[str]:
    """Cells of the table."""
    baseline, followup = (to_canonical(read_ct(path)) for path in (baseline_file, followup_file))
    starts: dict[str, float] = {}
    start, cpu = time.perf_counter(), time.process_time()
    found = register(baseline, followup, lambda done, stage: starts.setdefault(stage, time.perf_counter() - start))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    largest_mb = own_largest_mb()
    told = baseline_file.parent / "case.json"
    error = np.array([])
    if told.exists():
        case = CASES[json.loads(told.read_text())]
        lungs = find_lungs(followup)
        assert lungs is not None
        inside = np.argwhere(lungs.mask & (followup.hu < -500))[:, ::-1]
        places = followup.lps_from_ijk_mm(np.random.default_rng(0).permutation(inside)[:PLACES])
        error = np.linalg.norm([found.forward(case.back(place)) - place for place in places], axis=1)
    cells = [f"{error.mean():.2f}", f"{error.max():.1f}"] if len(error) else ["", ""]
    cells += [f"{found.correlation:.3f}", f"{found.folded_share:.4f}", found.refusal]
    stages = " ".join(f"{stage.split()[0]} {at:.1f}" for stage, at in starts.items())
    return [*cells, f"{seconds:.1f}", f"{cpu:.1f}", f"{largest_mb:.0f}", f"{stages} ({os.cpu_count()} cores)"]


if __name__ == "__main__":
    main()
