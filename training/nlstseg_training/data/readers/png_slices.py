"""The slices of the published procedure: ``<id>/ct/<k>.png``, ``<id>/tumor/<k>.png``, ``train.txt`` and ``test.txt``.

Slices are axial in radiological picture order (rows to the back, columns to the patient's left), k runs upwards. The grey
values are those of the window -1200..200 HU, cut off to whole numbers. PNG files hold no geometry, so the voxel spacing has
to be told.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nlstseg_training.data.cache import Refusal, natural
from nlstseg_training.data.readers.source import Found, RawCase, Source, file_states
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.specs import PUBLISHED_WINDOW_HU
from NLSTSegLib.reading.dicom_series import LARGEST_SIDE, LARGEST_VOLUME_BYTES
from NLSTSegLib.volume.components import component_labels
from NLSTSegLib.volume.ct import CtVolume

MEDIAN_SPACING_KJI_MM = (2.0, 0.664, 0.664)
"""Median voxel spacing of NLSTseg, for where nothing else is known."""


@dataclass(frozen=True, kw_only=True)
class PngSource(Source):
    """A folder with ``ct/`` and ``tumor/``."""

    folder: Path
    spacing_kji_mm: tuple[float, float, float]

    def state(self) -> str:
        return f"{file_states([self.folder / 'ct', self.folder / 'tumor'])} {self.spacing_kji_mm}"

    def read(self) -> RawCase:
        numbers = _numbers(self.folder / "ct")
        if numbers != _numbers(self.folder / "tumor"):
            raise InputError(f"the slices in '{self.folder}/ct' and '{self.folder}/tumor' have other numbers; write both again")
        missing = set(range(numbers[0], numbers[-1] + 1)) - set(numbers)
        if missing:
            raise InputError(f"slice {min(missing)} is missing in '{self.folder}'; write the slices again")
        grey, marks = _stack(self.folder / "ct", numbers), _stack(self.folder / "tumor", numbers)
        if grey.shape != marks.shape:
            raise InputError(f"the CT in '{self.folder}' has {grey.shape} pixels, the mask {marks.shape}; write both again")
        notes = [f"its spacing {self.spacing_kji_mm} mm (k, j, i) was told, not read"]
        labels = marks.astype(np.int32)
        if set(np.unique(marks)) <= {0, 255}:
            labels = component_labels(marks > 0)
            notes.append("its mask has no label values, so every connected component counts as a lesion")
        ct = CtVolume(hu_of_grey(grey), self.spacing_kji_mm[::-1])
        return RawCase(ct, labels, "chest", complete=False, notes=tuple(notes))


def find_png_slices(root: Path, spacing_kji_mm: tuple[float, float, float] = MEDIAN_SPACING_KJI_MM) -> Found:
    """The cases in ``root``; where there are lists of ids, ``test.txt`` says which ones were kept for testing."""
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}'; name the folder with <id>/ct and <id>/tumor")
    parts = {part: _ids(root / f"{part}.txt") for part in ("train", "test")}
    folders = {folder.name: folder for folder in root.iterdir() if (folder / "ct").is_dir()}
    sources, refused = [], []
    for case_id in sorted(folders.keys() | parts["train"] | parts["test"], key=natural):
        if case_id not in folders:
            refused.append(Refusal(case_id, "png", f"it is in a list of '{root}', but there is no '{root / case_id}/ct'"))
        elif case_id in parts["train"] & parts["test"]:
            refused.append(Refusal(case_id, "png", f"it is in train.txt and in test.txt of '{root}'; take it out of one"))
        else:
            given: Literal["", "train", "test"] = "test" if case_id in parts["test"] else ""
            given = "train" if case_id in parts["train"] else given
            source = PngSource(
                id=case_id,
                patient=case_id,
                reader="png",
                given_part=given,
                folder=folders[case_id],
                spacing_kji_mm=spacing_kji_mm,
            )
            sources.append(source)
    return Found(tuple(sources), tuple(refused))


def hu_of_grey(grey: np.ndarray) -> np.ndarray:
    """int16 HU in the middle of what was cut off to the grey value (uint8, any shape); windowed again it is the same grey."""
    low, high = PUBLISHED_WINDOW_HU
    return np.rint(np.minimum(low + (grey.astype(np.float32) + 0.5) * (high - low) / 255, high)).astype(np.int16)


def _ids(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is no list of ids in UTF-8 ({error}); write it again") from error


def _numbers(folder: Path) -> list[int]:
    """Slice numbers in their order; directory listings have none, and ``10`` comes before ``9`` in the alphabet's."""
    files = list(folder.glob("*.png"))
    odd = [file.name for file in files if not file.stem.isdecimal()]
    if odd or not files:
        what = f"'{folder}' holds '{min(odd)}'" if odd else f"there are no slices in '{folder}'"
        raise InputError(f"{what}; slices are called <k>.png, k a whole number")
    numbers = sorted(int(file.stem) for file in files)
    if len(set(numbers)) < len(numbers):
        raise InputError(f"'{folder}' holds two slices of one number, as 7.png and 07.png; write the slices again")
    return numbers


def _stack(folder: Path, numbers: list[int]) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    paths = {int(path.stem): path for path in folder.glob("*.png")}
    slices = []
    for number in numbers:
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(paths[number]) as image:
                # By the header: a file of some kB may unpack to any size.
                if max(image.size) > LARGEST_SIDE or len(numbers) * image.width * image.height * 2 > LARGEST_VOLUME_BYTES:
                    size = f"{image.height}x{image.width} pixels, {len(numbers)} slices of which are too much for a chest CT"
                    raise InputError(f"'{paths[number]}' has {size}; write the slices again")
                if image.mode not in ("L", "1"):
                    raise InputError(f"'{paths[number]}' is not an 8-bit grey image; write the slices again")
                slices.append(np.asarray(image.convert("L")))
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            raise InputError(f"'{paths[number]}' cannot be read, it is damaged or no PNG; write the slices again") from error
        if slices[-1].shape != slices[0].shape:
            raise InputError(f"'{paths[number]}' is of another size than the first slice; write the slices again")
    return np.stack(slices)
