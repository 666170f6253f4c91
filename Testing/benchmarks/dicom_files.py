"""Seconds, bytes and memory of DICOM SEG and SR: ``dicom_files.py [133|600]``, a minute or two each.

Every line is measured in a process of its own, which reads the CT's headers, writes both files and reads the SEG back; its
memory is that before they are written and at its highest. Of writing and reading the processor's seconds are given too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parent / "Python"))

from helpers.dicom_files import write_series  # noqa: E402
from helpers.dicom_lesions import found_in, series_at  # noqa: E402
from NLSTSegLib.dicom.codes import SegType  # noqa: E402
from NLSTSegLib.dicom.read_seg import read_seg  # noqa: E402
from NLSTSegLib.dicom.source import read_source  # noqa: E402
from NLSTSegLib.dicom.write import write_dicom  # noqa: E402

SPACING_IJK_MM = (0.7, 0.7, 1.25)

RADIUS_MM = 6.0

CASES = ((133, 1), (133, 10), (133, 60), (600, 1), (600, 10), (600, 60))
"""Slices of 512 x 512, and lesions of :data:`RADIUS_MM`."""


def main(only: Sequence[int]) -> None:
    """Measure all cases of so many slices and print a line for each."""
    cases = [case for case in CASES if not only or case[0] in only]
    with tempfile.TemporaryDirectory() as folder:
        for slices in sorted({slices for slices, _ in cases}):
            hu = np.full((slices, 512, 512), -850, np.int16)
            write_series(Path(folder, str(slices)), hu, SPACING_IJK_MM, FrameOfReferenceUID="1.2.3")
        for slices, lesions in cases:
            kinds = SegType if lesions == 60 else (SegType.BINARY,)
            for kind in kinds:
                command = [sys.executable, __file__, f"{folder}/{slices}", str(lesions), kind]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                print(f"{slices} slices, {lesions} lesions, {kind}: {done.stdout.strip()}", flush=True)


def measure(folder: Path, count: int, kind: SegType) -> dict[str, float]:
    """Of one case: seconds to read headers, write and read, bytes, and memory in MB."""
    start = time.perf_counter()
    series = series_at(folder)
    source = read_source(series)
    headers_s = time.perf_counter() - start
    labels = _labels(len(series.slices), count)
    found = found_in(labels)
    before_mb = _peak_mb()
    with tempfile.TemporaryDirectory() as out:
        start, start_cpu = time.perf_counter(), time.process_time()
        seg, report = write_dicom(Path(out), source, found, kind)
        write_s, write_cpu_s, write_mb = time.perf_counter() - start, time.process_time() - start_cpu, _peak_mb()
        start, start_cpu = time.perf_counter(), time.process_time()
        read = read_seg(seg, series)
        read_s, read_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
        if not np.array_equal(read.labels, labels):
            raise AssertionError("what is read differs from what was written")
        sizes = {"seg_kb": seg.stat().st_size / 1000, "sr_kb": report.stat().st_size / 1000}
    found_values = {"headers_s": headers_s, "write_s": write_s, "read_s": read_s, **sizes}
    found_values |= {"write_cpu_s": write_cpu_s, "read_cpu_s": read_cpu_s}
    found_values |= {"before_mb": before_mb, "write_mb": write_mb, "read_mb": _peak_mb()}
    return {name: round(value, 2 if name.endswith("_s") else 0) for name, value in found_values.items()}


def _labels(slices: int, count: int) -> np.ndarray:
    labels = np.zeros((slices, 512, 512), np.uint16)
    rng = np.random.default_rng(0)
    reach_kji = np.ceil(RADIUS_MM / np.array(SPACING_IJK_MM[::-1])).astype(int)
    offsets = np.indices(2 * reach_kji + 1).reshape(3, -1).T - reach_kji
    ball = offsets[(np.abs(offsets * SPACING_IJK_MM[::-1]) ** 2).sum(axis=1) <= RADIUS_MM**2]
    label = 0
    while label < count:
        at = rng.integers(reach_kji, np.array(labels.shape) - reach_kji)
        k, j, i = (ball + at).T
        if not labels[k, j, i].any():
            label += 1
            labels[k, j, i] = label
    return labels


def _peak_mb() -> float:
    # Linux alone; the number that getrusage gives begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), SegType(sys.argv[3]))))
    else:
        main([int(slices) for slices in sys.argv[1:]])
