"""The bundled model on a made chest and on a real one: what the project promises to a newcomer."""

import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers.marks import real_data, slow
from helpers.shared_data import shared_data
from NLSTSegLib.cli.demo import found_lesions
from NLSTSegLib.models.bundle import DEFAULT_MODEL, find_model, load_model
from NLSTSegLib.phantom.make import Phantom, make_phantom
from NLSTSegLib.pipeline import segment
from NLSTSegLib.reading.read import read_ct

ATTRIBUTION = "10.7937/K9/TCIA.2015.LO9QL9SX"
"""DOI of LIDC-IDRI, which its licence asks to name."""


class BundledModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.files = find_model(DEFAULT_MODEL)
        cls.model = load_model(cls.files)

    @slow
    def test_all_six_phantom_lesions_are_found_and_outlined(self):
        self.assert_found(make_phantom(0))

    def test_all_six_are_found_and_outlined_in_coarser_voxels(self):
        self.assert_found(make_phantom(0, spacing_ijk_mm=(0.98, 0.98, 4.0)))

    def assert_found(self, phantom: Phantom):
        result = segment(phantom.ct, self.model)
        dice = found_lesions(phantom, result.labels)
        self.assertEqual(len(dice), 6)
        self.assertGreater(min(dice.values()), 0.5, dice)
        self.assertGreater(np.mean(list(dice.values())), 0.7, dice)
        # More than a few dozen marks in a chest with six lesions would bury them.
        self.assertLess(len(result.lesions), 40)

    @real_data
    def test_the_lesion_of_a_real_chest_is_found_on_the_exact_grid(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        import SimpleITK as sitk

        folder = data / "ct" / "LIDC-IDRI-0001"
        votes = sitk.ReadImage(str(folder / "votes.nrrd"))
        truth = sitk.GetArrayFromImage(votes) >= 2
        whole = read_ct(folder / "dicom")
        # The slices of the lesion and a few around it.
        (with_lesion,) = truth.any(axis=(1, 2)).nonzero()
        first, end = with_lesion.min() - 6, with_lesion.max() + 7
        ct = replace(
            whole,
            hu=whole.hu[first:end],
            origin_lps_mm=tuple(whole.lps_from_ijk_mm((0, 0, first)).tolist()),
            acquisition=replace(whole.acquisition, slice_origins_lps_mm=()),
        )
        votes, truth = votes[:, :, int(first) : int(end)], truth[first:end]
        result = segment(ct, self.model)
        grid = ct.image_like(result.labels)
        self.assertEqual(grid.GetSize(), votes.GetSize())
        for ours, theirs in (
            (grid.GetSpacing(), votes.GetSpacing()),
            (grid.GetOrigin(), votes.GetOrigin()),
            (grid.GetDirection(), votes.GetDirection()),
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        hit = np.unique(result.labels[truth])
        found = np.isin(result.labels, hit[hit > 0])
        self.assertGreater(2 * (found & truth).sum() / (found.sum() + truth.sum()), 0.7)

    def test_card_is_complete_and_the_weights_are_small(self):
        card = self.files.card
        self.assertIn(ATTRIBUTION, card.attribution)
        self.assertIn("not for clinical use", card.intended_use)
        self.assertIn("validation", card.metrics)
        self.assertLess(Path(self.files.weights).stat().st_size, 8_000_000)


if __name__ == "__main__":
    unittest.main()
