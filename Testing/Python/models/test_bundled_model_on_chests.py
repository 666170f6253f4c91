"""The bundled model on chests of other collections: no organ is taken for a tumour, and the lesions stay found.

The model was trained on these chests (docs/models/lidc-25d.md has figures of chests left out): the tests keep what was reached.
"""

import csv
import functools
import unittest
from dataclasses import dataclass, replace

import numpy as np

from helpers.marks import real_data, slow
from helpers.shared_data import shared_data
from NLSTSegLib.inference.in_plane import resized
from NLSTSegLib.lesions.find import Lesion
from NLSTSegLib.models.bundle import DEFAULT_MODEL, find_model, load_model
from NLSTSegLib.pipeline import segment
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.ct import CtVolume

ORGAN_MM3, SURE = 10_000, 0.5

MOST_IN_C3N = 12
"""Reached in the chest with contrast and a sharp kernel (11, some with scores just above the threshold; 17 by version 2.4); 4 are
wanted, but five of them look like lesions."""

NEAR_MM = 4.0
"""A mark and one of the table are the same when their middles lie so near, or within the radius of the larger."""


@dataclass(frozen=True)
class Mark:
    """A mark of version 2.4, and what it is by eye."""

    centroid_lps_mm: np.ndarray
    volume_mm3: float
    label: str
    what: str

    def is_same(self, lesion: Lesion) -> bool:
        radius_mm = np.cbrt(max(self.volume_mm3, lesion.measurements.volume_mm3) * 3 / (4 * np.pi))
        away_mm = np.linalg.norm(self.centroid_lps_mm - lesion.measurements.centroid_lps_mm)
        return bool(away_mm <= max(NEAR_MM, radius_mm))


@functools.cache
def chest(name: str) -> CtVolume:
    return read_ct(shared_data() / "chests" / name / "ct.nrrd")


@functools.cache
def lesions_of(name: str) -> tuple[Lesion, ...]:
    return segment(chest(name), load_model(find_model(DEFAULT_MODEL))).lesions


def marks_of(name: str) -> list[Mark]:
    with open(shared_data() / "chests" / "marks.csv", newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["chest"] == name]
    return [
        Mark(
            np.array([float(row[f"centroid_{axis}_mm"]) for axis in "lps"]),
            float(row["volume_mm3"]),
            row["label"],
            row["what"],
        )
        for row in rows
    ]


@slow
@real_data
@unittest.skipIf(shared_data() is None, "no shared data beside the repository")
class ChestsTest(unittest.TestCase):
    def assert_no_organ(self, *names: str) -> None:
        for name in names:
            with self.subTest(name):
                large = [
                    f"{lesion.measurements.volume_mm3 / 1000:.0f} ml, score {lesion.score:.2f}"
                    for lesion in lesions_of(name)
                    if lesion.measurements.volume_mm3 >= ORGAN_MM3
                ]
                self.assertEqual(large, [])

    def test_heart_dome_and_mediastinum_without_contrast(self):
        self.assert_no_organ("ACRIN-FLT-Breast_001a", "ACRIN-FLT-Breast_001c", "LungFCP-01-0001")

    def test_stomach_spleen_and_bowel_with_gas(self):
        self.assert_no_organ("ACRIN-FLT-Breast_001b", "ACRIN-FLT-Breast_013", "C3L-00189")
        for name in ("ACRIN-FLT-Breast_001b", "C3L-00189"):
            with self.subTest(name):
                self.assertEqual([lesion.score for lesion in lesions_of(name) if lesion.score > SURE], [])

    def test_heart_aorta_and_consolidated_lung_with_contrast(self):
        self.assert_no_organ("RIDER-0109", "KiTS-00072", "CMB-CRC-MSB-01068")

    def test_hilar_vessels_with_contrast(self):
        self.assert_no_organ("C3N-00247")
        self.assertLessEqual(len(lesions_of("C3N-00247")), MOST_IN_C3N)
        hilar = [mark for mark in marks_of("C3N-00247") if mark.label == "anatomy"]
        sure = [lesion for lesion in lesions_of("C3N-00247") if lesion.score > SURE]
        self.assertEqual([mark.what for mark in hilar for lesion in sure if mark.is_same(lesion)], [])

    def test_what_looks_like_a_lesion_is_still_found(self):
        for name in ("C3N-00247", "CMB-CRC-MSB-01068", "LungFCP-01-0001", "RIDER-0117"):
            with self.subTest(name):
                lost = [
                    f"{mark.what}, {mark.volume_mm3:.0f} mm3"
                    for mark in marks_of(name)
                    if mark.label == "lesion-like" and not any(mark.is_same(lesion) for lesion in lesions_of(name))
                ]
                self.assertEqual(lost, [])

    def test_a_nodule_on_a_fissure_and_a_mass_are_found_in_slices_of_7_5_mm(self):
        name, slices = "CMB-CRC-MSB-01068", 3
        ct = chest(name)
        i_mm, j_mm, k_mm = ct.spacing_ijk_mm
        blocks = ct.hu[: len(ct.hu) // slices * slices].reshape(-1, slices, *ct.hu.shape[1:])
        hu = np.round(blocks.mean(axis=1, dtype=np.float32)).astype(np.int16)
        middle_mm = np.add(ct.origin_lps_mm, ct.direction_matrix @ (0, 0, k_mm * (slices - 1) / 2))
        thick = replace(ct, hu=hu, spacing_ijk_mm=(i_mm, j_mm, k_mm * slices), origin_lps_mm=tuple(middle_mm.tolist()))
        found = segment(thick, load_model(find_model(DEFAULT_MODEL))).lesions
        self.assertLessEqual(len(found), 6)
        lesions = [mark for mark in marks_of(name) if mark.label == "lesion-like"]
        self.assertEqual([mark.what for mark in lesions if not any(mark.is_same(lesion) for lesion in found)], [])

    def test_the_same_chest_with_pixels_of_a_small_field_of_view(self):
        ct = chest("LungFCP-01-0001")
        _, rows, columns = ct.hu.shape
        i_mm, j_mm, k_mm = ct.spacing_ijk_mm
        # Its first voxel lies a quarter of a millimetre further out, which matters to nothing here.
        hu = resized(ct.hu, (rows * 5 // 2, columns * 5 // 2))
        fine = replace(ct, hu=hu, spacing_ijk_mm=(i_mm * 0.4, j_mm * 0.4, k_mm))
        found = segment(fine, load_model(find_model(DEFAULT_MODEL))).lesions
        own = lesions_of("LungFCP-01-0001")
        self.assertLessEqual(len(found), max(1.2 * len(own), len(own) + 1))
        lesions = [mark for mark in marks_of("LungFCP-01-0001") if mark.label == "lesion-like"]
        self.assertEqual([mark.what for mark in lesions if not any(mark.is_same(lesion) for lesion in found)], [])


if __name__ == "__main__":
    unittest.main()
