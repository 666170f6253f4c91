"""A tiny synthetic data set in the layout of NLSTseg: chests of :mod:`placed_chest` with their lesions as labels."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.placed_chest import LESIONS, chest_ct, voxel_places_lps_mm
from NLSTSegLib.volume.ct import CtVolume

COLUMNS = (
    "Mainfolder",
    "ID",
    "Stage",
    "Mark_labels",
    "Tumor_V(cm3)",
    "labels_type",
    "SizeX",
    "SizeY",
    "Slice",
    "Slice_thikness",
    "Lung_loc",
    "PixelspcingX",
    "PixelspacingY",
)
"""As shipped."""


def labelled_chest(seed: int = 0, *, direction: np.ndarray | None = None, lesions: int = 3) -> tuple[CtVolume, np.ndarray]:
    """A chest of 40x56x60 voxels with noise that no other seed has, and its first lesions as labels 1.. (uint8)."""
    ct = chest_ct(np.eye(3) if direction is None else direction)
    places = voxel_places_lps_mm(ct)
    labels = np.zeros(ct.hu.shape, np.uint8)
    for label, (centre, radius_mm) in enumerate(LESIONS[:lesions], start=1):
        labels[np.linalg.norm(places - centre, axis=-1) < radius_mm] = label
    noise = np.random.default_rng(seed).integers(-10, 11, ct.hu.shape, np.int16)
    return replace(ct, hu=ct.hu + noise), labels


def as_int32_with_padding(ct: CtVolume) -> sitk.Image:
    """As some CTs of NLSTseg are stored: int32, and -2048 outside of the scanner's circle."""
    hu = ct.hu.astype(np.int32)
    hu[:, [0, 0, -1, -1], [0, -1, 0, -1]] = -2048
    return ct.image_like(hu)


def write_case(folder: Path, case_id: str, ct: CtVolume, labels: np.ndarray | None, *, image: sitk.Image | None = None) -> Path:
    """``<folder>/<id>/<id>_CT.nii.gz`` (or ``image`` instead) and the mask, if there is one."""
    case = folder / case_id
    case.mkdir(parents=True)
    sitk.WriteImage(image or ct.to_image(), str(case / f"{case_id}_CT.nii.gz"), useCompression=True)
    if labels is not None:
        sitk.WriteImage(ct.image_like(labels), str(case / f"{case_id}_tumor.nii.gz"), useCompression=True)
    return case


def table_row(case_id: str, label: int, kind: str, ct: CtVolume, labels: np.ndarray, **changes: object) -> dict[str, object]:
    """A row of Label.xlsx that is right, but for ``changes``; spacings are negative, as shipped."""
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {"ID": int(case_id), "Mark_labels": label, "labels_type": kind}
    row["Tumor_V(cm3)"] = round(float((labels == label).sum() * ct.voxel_volume_mm3 / 1000), 3)
    row |= {"PixelspcingX": -ct.spacing_ijk_mm[0], "PixelspacingY": -ct.spacing_ijk_mm[1]}
    return row | changes


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """``Label.xlsx`` with these rows."""
    import openpyxl

    workbook = openpyxl.Workbook()
    workbook.active.append(COLUMNS)
    for row in rows:
        workbook.active.append([row[column] for column in COLUMNS])
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook.save(path)


def zip_folder(folder: Path) -> Path:
    """Pack ``<parent>/<folder>`` into ``<parent>/<folder without NLSTseg_>.zip``, as shipped, and remove it."""
    archive = folder.with_name(folder.name.removeprefix("NLSTseg_") + ".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder.parent).as_posix())
    shutil.rmtree(folder)
    return archive


def write_nlstseg(root: Path, ids: list[str], *, zipped: bool = False) -> None:
    """A whole data set with one chest for every id; the first two lesions of each are tumours, the third is a nodule."""
    rows = []
    for n, case_id in enumerate(ids):
        ct, labels = labelled_chest(int(case_id))
        write_case(root / f"NLSTseg_{2 + n % 2}_LungTumor", case_id, ct, labels)
        rows += [table_row(case_id, label, "Tumor" if label < 3 else "Nodule", ct, labels) for label in (1, 2, 3)]
    write_table(root / "NLSTseg_1_Table" / "Label.xlsx", rows)
    if zipped:
        for folder in sorted(root.glob("NLSTseg_*")):
            zip_folder(folder)
