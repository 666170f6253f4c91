"""A plain folder of CTs and masks: ``images/<id>`` and ``labels/<id>`` with any file ending that NLSTSeg reads.

``images/<id>`` may also be a DICOM folder. A mask with several values has one lesion for each; where it has a single value,
every 26-connected component is a lesion. ``patients.csv`` beside the two folders, with the columns ``id`` and ``patient``,
tells which cases are of one patient; a case that is not in it is a patient of its own.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlstseg_training.data.cache import Refusal, natural
from nlstseg_training.data.readers.source import Found, RawCase, Source, file_states
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.image_file import FORMATS
from NLSTSegLib.reading.read import read_ct, read_labels
from NLSTSegLib.volume.components import component_labels

PATIENTS_FILE = "patients.csv"


@dataclass(frozen=True, kw_only=True)
class PairSource(Source):
    """A CT and a mask on its voxels."""

    ct: Path
    mask: Path

    def state(self) -> str:
        return f"{file_states([self.ct, self.mask])} {self.patient}"

    def read(self) -> RawCase:
        ct = read_ct(self.ct)
        labels = read_labels(self.mask, ct)
        notes: tuple[str, ...] = ()
        if len(np.unique(labels[labels > 0])) == 1:
            labels = component_labels(labels > 0)
            if labels.max() > 1:
                notes = ("its mask has a single value, so every connected component counts as a lesion",)
        return RawCase(ct, labels, "chest", complete=True, notes=notes)


def find_pairs(root: Path) -> Found:
    """The pairs in ``root``; a CT without a mask, or a mask without a CT, is listed."""
    folders = (root / "images", root / "labels")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder '{folder}'; CTs are in images/, masks of the same name in labels/")
    cts, masks = (_by_id(folder) for folder in folders)
    patients = _patients(root / PATIENTS_FILE)
    sources, refused = [], []
    for case_id in sorted(cts.keys() | masks.keys(), key=natural):
        if case_id not in cts or case_id not in masks:
            lacking = folders[0] if case_id not in cts else folders[1]
            refused.append(Refusal(case_id, "pairs", f"there is no file of that name in '{lacking}'"))
        elif len(cts[case_id]) + len(masks[case_id]) > 2:
            refused.append(Refusal(case_id, "pairs", f"there are two files of that name in '{root}'; keep one"))
        else:
            patient = patients.get(case_id, case_id)
            (ct,), (mask,) = cts[case_id], masks[case_id]
            sources.append(PairSource(id=case_id, patient=patient, reader="pairs", ct=ct, mask=mask))
    return Found(tuple(sources), tuple(refused))


def _by_id(folder: Path) -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)
        if path.name.startswith(".") or (ending is None and not path.is_dir()):
            continue
        paths.setdefault(path.name[: -len(ending)] if ending and path.is_file() else path.name, []).append(path)
    return paths


def _patients(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as table:
            rows = csv.DictReader(table)
            if not {"id", "patient"} <= set(rows.fieldnames or ()):
                raise InputError(f"'{path}' must have the columns id and patient; write it with these headings")
            return {row["id"]: row["patient"] or row["id"] for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        # Without it one patient might come into two parts of a split.
        raise InputError(f"'{path}' is no table in UTF-8 ({error}); write it again") from error
