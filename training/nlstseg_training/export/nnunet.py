"""The cases of a cache as nnU-Net's raw data set, so that both are trained and measured on the same cases and parts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlstseg_training.data.cache import Case, Split, load_case
from NLSTSegLib.disk.atomic_file import write_text
from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError
from NLSTSegLib.progress import Progress, silent

DATASET_NAME = re.compile(r"Dataset\d{3}_\w+")

SPLITS_FILE = "splits_final.json"
"""Read by nnU-Net from the folder of the preprocessed data set."""


def write_nnunet(cache: Path, split: Split, folder: Path, *, progress: Progress = silent) -> int:
    """Write the data set to the new ``folder`` (nnU-Net v2: ``nnUNet_raw/Dataset501_NLSTseg``); returns the number of cases.

    Training and validation cases go to ``imagesTr``, those of the test part to ``imagesTs`` with their masks in ``labelsTs``.
    All lesions of a case have the value 1. ``splits_final.json`` holds the folds, or the one division of a split without.
    Raises :class:`InputError` for another name of the folder, one that is there already, and a case that cannot be read.
    """
    if not DATASET_NAME.fullmatch(folder.name):
        raise InputError(
            f"nnU-Net wants a folder called Dataset<three digits>_<name>, as Dataset501_NLSTseg, not '{folder.name}'"
        )
    training = [*split.train, *split.validation]
    parts = [*((case_id, "Tr") for case_id in training), *((case_id, "Ts") for case_id in split.test)]
    with held(folder):
        if folder.exists():
            raise InputError(f"there is a folder '{folder}' already, and nothing is overwritten; choose another name")
        with atomic_folder(folder) as partial:
            for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                (partial / name).mkdir()
            for n, (case_id, part) in enumerate(parts):
                progress(n / len(parts), f"case {n + 1} of {len(parts)}")
                _write_case(load_case(cache, case_id), partial, part)
            dataset = {
                "channel_names": {"0": "CT"},
                "labels": {"background": 0, "lesion": 1},
                "numTraining": len(training),
                "file_ending": ".nii.gz",
            }
            write_text(partial / "dataset.json", json.dumps(dataset, indent=1) + "\n")
            write_text(partial / SPLITS_FILE, json.dumps(_divisions(split), indent=1) + "\n")
    progress(1.0, "done")
    return len(parts)


def _divisions(split: Split) -> list[dict[str, Sequence[str]]]:
    if not split.folds:
        return [{"train": split.train, "val": split.validation}]
    return [{"train": [case_id for case_id in split.train if case_id not in set(fold)], "val": fold} for fold in split.folds]


def _write_case(case: Case, folder: Path, part: str) -> None:
    import SimpleITK as sitk

    volumes = ((f"images{part}", f"{case.id}_0000", case.ct.hu), (f"labels{part}", case.id, (case.labels > 0).astype(np.uint8)))
    for place, name, array in volumes:
        with point_in_numbers():
            sitk.WriteImage(case.ct.image_like(array), str(folder / place / f"{name}.nii.gz"), useCompression=True)
