"""What a cohort consists of and what becomes of it: a case, how it is segmented, and its outcome."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from NLSTSegLib import __version__
from NLSTSegLib.lesions.rows import Row

Status = Literal["open", "done", "failed", "refused", "duplicate"]
"""State of a case: still to do; with a result; without one, for a reason that the run met; known from the headers to be refused;
or the same series as an earlier case."""


@dataclass(frozen=True)
class Found:
    """A CT by its headers: a case, or why it is none. ``repr`` shows nothing that tells whose it is."""

    places: tuple[str, ...] = field(repr=False)
    """Folders of the slices, or the one file."""
    series: str = field(default="", repr=False)
    """:attr:`NLSTSegLib.reading.dicom_series.DicomSeries.key`; empty for a file."""
    patient: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    date: str = field(default="", repr=False)
    slices: int = 0
    rows: int = 0
    columns: int = 0
    findings: tuple[str, ...] = ()
    """Codes of the pre-flight, as far as the headers tell."""
    refused: str = ""
    """One sentence without names; empty for what can be segmented."""
    name: str = ""
    """Given by a list of the user's; empty where it gets a number."""


@dataclass(frozen=True)
class Case:
    """A CT to segment. ``repr``, which Dask shows in its logs, tells only its name."""

    name: str
    places: tuple[str, ...] = field(repr=False)
    series: str = field(repr=False)
    voxels: int = 0
    """By the headers; 0 where they do not tell."""


@dataclass(frozen=True)
class Settings:
    """What is done with every case; ``None`` stands for the model's own value."""

    model: str
    weights_sha256: str
    results: str
    """Folder or address that holds a folder for every case."""
    threshold: float | None = None
    min_volume_mm3: float | None = None
    device: str = "auto"
    threads: int | None = None
    save_probability: bool = False
    dicom_seg: bool = False
    keep_identity: bool = False
    time_limit_s: float = 1800.0
    force: bool = False

    @property
    def fingerprint(self) -> str:
        """The same where model, version of the program and options give the same result."""
        names = ("weights_sha256", "threshold", "min_volume_mm3", "save_probability")
        values = asdict(self)
        text = json.dumps([__version__, *(values[name] for name in names)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What a worker says of a case; nothing of it tells whose it is."""

    name: str
    status: Literal["done", "failed", "busy", "died"]
    """``busy``: another run writes to its folder just now; ``died``: its worker did."""
    reason: str = ""
    seconds: float = 0.0
    peak_mb: float | None = None
    worker: str = ""
    findings: tuple[str, ...] = ()
    """Severity and code of each, with a space between."""
    rows: tuple[Row, ...] = ()
