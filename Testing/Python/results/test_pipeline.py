"""From a CT to lesions on its voxels: right places in every orientation, options, findings, progress, and clean imports."""

import dataclasses
import itertools
import subprocess
import sys
import unittest
from unittest import mock

import numpy as np
import torch

from helpers.example_results import BACKGROUND_HU, LESION_HU, SPHERES, ct_with_spheres, oblique_direction
from helpers.threshold_model import CARD, expected_probability, threshold_model, threshold_network
from NLSTSegLib import pipeline
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import Device, choose_device
from NLSTSegLib.models.bundle import Architecture, Model
from NLSTSegLib.networks.network import Network
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume.ct import Acquisition, CtVolume

EVERYWHERE = SegmentOptions(lung_field="none", device="cpu")

COARSE_MM = (3.0, 3.0, 4.0)


def directions() -> dict[str, tuple[float, ...]]:
    """Every permutation with some flips, straight and turned."""
    found = {}
    signs = itertools.cycle([(1, 1, 1), (-1, 1, -1), (1, -1, 1), (-1, -1, -1)])
    for axes, sign in zip(itertools.permutations(range(3)), signs, strict=False):
        matrix = np.eye(3)[:, axes] * sign
        found[f"axes {axes} signs {sign}"] = tuple(matrix.ravel().tolist())
        found[f"oblique axes {axes} signs {sign}"] = oblique_direction(axes, sign)
    return found


class PipelineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        cls.model = threshold_model()

    def labels_at_centres(self, result) -> list[int]:
        return [int(result.labels[k, j, i]) for (i, j, k), _ in SPHERES]


class PlaceTest(PipelineTest):
    def test_lesions_are_marked_on_their_voxels_in_every_orientation(self):
        for name, direction in directions().items():
            with self.subTest(name):
                ct = ct_with_spheres(direction_lps=direction)
                result = segment(ct, self.model, EVERYWHERE)
                self.assertEqual(result.labels.shape, ct.hu.shape)
                np.testing.assert_array_equal(result.labels > 0, ct.hu == LESION_HU)
                # The spheres are listed by descending volume.
                self.assertEqual(self.labels_at_centres(result), [1, 2, 3])
                self.assertEqual(len(result.lesions), 3)
                np.testing.assert_allclose(result.probability.astype(int), expected_probability(ct.hu), atol=3)

    def test_measurements_are_those_of_the_patient_s_space(self):
        for name, direction in directions().items():
            with self.subTest(name):
                ct = ct_with_spheres(direction_lps=direction)
                result = segment(ct, self.model, EVERYWHERE)
                for lesion in result.lesions:
                    voxels_kji = np.argwhere(result.labels == lesion.label)
                    found = lesion.measurements
                    self.assertAlmostEqual(found.volume_mm3, len(voxels_kji) * ct.voxel_volume_mm3, places=3)
                    centroid = ct.lps_from_ijk_mm(voxels_kji[:, ::-1]).mean(axis=0)
                    np.testing.assert_allclose(found.centroid_lps_mm, centroid, atol=1e-3)

    def test_result_keeps_the_input_and_its_geometry(self):
        for direction in ((1.0, 0, 0, 0, 1, 0, 0, 0, 1), oblique_direction((2, 0, 1), (-1, 1, -1))):
            ct = ct_with_spheres(direction_lps=direction)
            before = ct.hu.copy()
            result = segment(ct, self.model, EVERYWHERE)
            self.assertIs(result.ct, ct)
            np.testing.assert_array_equal(ct.hu, before)
            image = ct.image_like(result.labels)
            self.assertEqual((image.GetOrigin(), image.GetSpacing()), (ct.origin_lps_mm, ct.spacing_ijk_mm))
            np.testing.assert_allclose(image.GetDirection(), ct.direction_lps, atol=1e-9)

    def test_lesion_at_the_very_border_of_the_volume(self):
        for corner in ((0, 0, 0), (31, 55, 47)):
            ct = ct_with_spheres(((corner[::-1], 5.0),), direction_lps=oblique_direction((1, 0, 2), (1, -1, 1)))
            result = segment(ct, self.model, EVERYWHERE)
            np.testing.assert_array_equal(result.labels > 0, ct.hu == LESION_HU)

    def test_float_voxels(self):
        ct = ct_with_spheres()
        ct = dataclasses.replace(ct, hu=ct.hu.astype(np.float32))
        np.testing.assert_array_equal(segment(ct, self.model, EVERYWHERE).labels > 0, ct.hu == LESION_HU)

    def test_no_lesion_is_a_result(self):
        ct = ct_with_spheres(())
        ct.hu[0, 0, 0] = BACKGROUND_HU - 100  # not all the same value
        result = segment(ct, self.model, EVERYWHERE)
        self.assertEqual(result.lesions, ())
        self.assertEqual((result.labels.dtype, result.labels.shape), (np.uint8, ct.hu.shape))
        self.assertFalse(result.labels.any())

    def test_the_same_twice_and_the_model_stays_as_it_was(self):
        torch.manual_seed(0)
        config = UNetConfig(channels=(2, 3), normalization="batch")
        card = dataclasses.replace(CARD, architecture=Architecture("unet", 2, (2, 3), "batch", True))
        model = Model(card, UNet(config).eval())
        before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        ct = ct_with_spheres()
        first, second = segment(ct, model, EVERYWHERE), segment(ct, model, EVERYWHERE)
        np.testing.assert_array_equal(first.probability, second.probability)
        after = model.network.state_dict()
        self.assertEqual(list(after), list(before))
        self.assertTrue(all(torch.equal(after[name], before[name]) for name in before))


class FieldTest(PipelineTest):
    def test_given_mask_keeps_whole_the_lesions_it_touches(self):
        for direction in (None, oblique_direction((2, 0, 1), (-1, 1, -1)), (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)):
            for n, ((i, j, k), _) in enumerate(SPHERES):
                ct = ct_with_spheres(direction_lps=direction)
                mask = np.zeros(ct.hu.shape, bool)
                mask[k, j, i] = True
                # The crop's margin must show the whole lesion, here 10 pixels and its bud.
                card = dataclasses.replace(CARD, input=dataclasses.replace(CARD.input, margin_px=32))
                for given in (mask, mask.astype(np.uint8) * 255, mask.astype(np.float32)):
                    grown = _along_slices(given, ct)
                    result = segment(ct, Model(card, self.model.network), SegmentOptions(lung_field=grown, device="cpu"))
                    self.assertEqual(len(result.lesions), 1)
                    whole = segment(ct, self.model, EVERYWHERE).labels == n + 1
                    np.testing.assert_array_equal(result.labels > 0, whole)
                    self.assertEqual(result.lung_field_note, "given")

    def test_mask_of_another_grid_is_refused(self):
        ct = ct_with_spheres()
        for shape in ((32, 56, 47), (48, 56, 32), (32, 56)):
            with self.assertRaisesRegex(InputError, "lung field.*32, 56, 48"):
                segment(ct, self.model, SegmentOptions(lung_field=np.ones(shape, bool)))

    def test_empty_mask_is_refused(self):
        ct = ct_with_spheres()
        with self.assertRaisesRegex(InputError, "empty"):
            segment(ct, self.model, SegmentOptions(lung_field=np.zeros(ct.hu.shape, bool)))

    def test_auto_looks_in_the_lungs_alone(self):
        phantom = make_phantom(0, spacing_ijk_mm=COARSE_MM)
        result = segment(phantom.ct, self.model, SegmentOptions(device="cpu"))
        self.assertEqual(result.lung_field_note, "auto")
        self.assertNotIn("no_lungs", [finding.code for finding in result.findings])
        # The belly's lowest slice and the room in front of the patient are not looked at; solid lesions are marked.
        self.assertFalse(result.probability[:, 0].any())
        self.assertTrue(segment(phantom.ct, self.model, EVERYWHERE).probability[0].any())
        self.assertGreater((result.labels[phantom.labels == 6] > 0).mean(), 0.9)

    def test_without_lungs_everything_is_searched_and_said(self):
        ct = ct_with_spheres()
        result = segment(ct, self.model, SegmentOptions(device="cpu"))
        self.assertIn("no lungs", result.lung_field_note)
        self.assertIn(("warning", "no_lungs"), [(finding.severity, finding.code) for finding in result.findings])
        np.testing.assert_array_equal(result.labels > 0, ct.hu == LESION_HU)


class FindingsTest(PipelineTest):
    def test_an_error_of_the_preflight_stops_before_the_network(self):
        whole = ct_with_spheres()
        for ct, word in (
            (dataclasses.replace(whole, acquisition=Acquisition(modality="MR")), "MR"),
            (dataclasses.replace(whole, hu=np.clip(whole.hu, 0, 255)), "HU"),
            (dataclasses.replace(whole, hu=np.full_like(whole.hu, -1000)), "-1000"),
        ):
            stages = []
            with self.subTest(word), self.assertRaisesRegex(InputError, word):
                segment(ct, self.model, EVERYWHERE, lambda fraction, stage, stages=stages: stages.append(stage))
            self.assertEqual(stages, ["check"])

    def test_two_slices_are_segmented_with_a_warning(self):
        whole = ct_with_spheres(direction_lps=(1.0, 0, 0, 0, 1, 0, 0, 0, 1))
        ct = dataclasses.replace(whole, hu=whole.hu[7:9])
        result = segment(ct, self.model, EVERYWHERE)
        self.assertIn(("warning", "few_slices"), [(finding.severity, finding.code) for finding in result.findings])
        np.testing.assert_array_equal(result.labels > 0, ct.hu == LESION_HU)
        self.assertGreater(len(result.lesions), 0)

    def test_one_slice(self):
        whole = ct_with_spheres(direction_lps=(1.0, 0, 0, 0, 1, 0, 0, 0, 1))
        ct = dataclasses.replace(whole, hu=whole.hu[8:9])
        np.testing.assert_array_equal(segment(ct, self.model, EVERYWHERE).labels > 0, ct.hu == LESION_HU)


class ThresholdTest(PipelineTest):
    """Another threshold on a result is what a run with it gives."""

    def test_another_threshold_is_as_a_run_with_it(self):
        ct = ct_with_spheres()
        ct.hu[8:11, 20:24, 10:20] = -320  # probability 0.31
        lungs = np.ones(ct.hu.shape, bool)
        lungs[:, :, 30:] = False  # the second sphere lies there
        options = SegmentOptions(lung_field=lungs, device="cpu")
        result = segment(ct, self.model, options)
        self.assertEqual(len(result.lesions), 2)
        for threshold, minimum in ((0.2, None), (0.6, None), (0.2, 500.0)):
            with self.subTest(threshold=threshold, minimum=minimum):
                again = dataclasses.replace(options, threshold=threshold, min_volume_mm3=minimum)
                wanted, given = segment(ct, self.model, again), result.at_threshold(threshold, minimum)
                np.testing.assert_array_equal(given.labels, wanted.labels)
                self.assertEqual(given.to_rows(), wanted.to_rows())
                self.assertEqual((given.threshold, given.min_volume_mm3), (wanted.threshold, wanted.min_volume_mm3))
        self.assertNotEqual(result.at_threshold(0.2).labels.sum(), result.labels.sum())
        np.testing.assert_array_equal(result.probability_float(), result.probability / np.float32(255))

    def test_impossible_thresholds_are_refused(self):
        result = segment(ct_with_spheres(), self.model, EVERYWHERE)
        for threshold, minimum in ((0.0, None), (1.0, None), (float("nan"), None), (0.5, -1.0)):
            with self.assertRaisesRegex(InputError, "threshold|minimum volume"):
                result.at_threshold(threshold, minimum)
        published = dataclasses.replace(result, card=dataclasses.replace(result.card, architecture=Architecture("published")))
        with self.assertRaisesRegex(InputError, "run segment again with threshold=0.3"):
            published.at_threshold(0.3)
        self.assertEqual(published.at_threshold(0.7).threshold, 0.7)


class OptionsTest(PipelineTest):
    def test_values_out_of_range_are_refused(self):
        nan = float("nan")
        for changes, word in (
            ({"threshold": 0.0}, "threshold"),
            ({"threshold": 1.0}, "threshold"),
            ({"threshold": 50}, "threshold"),
            ({"threshold": nan}, "threshold"),
            ({"min_volume_mm3": -1.0}, "volume"),
            ({"min_volume_mm3": nan}, "volume"),
            ({"min_volume_mm3": float("inf")}, "volume"),
            ({"threads": 0}, "threads"),
            ({"threads": -2}, "threads"),
            ({"threads": 10**9}, "threads"),
            ({"lung_field": "lungs"}, "lung field"),
            ({"lung_field": None}, "lung field"),
            ({"device": "tpu"}, "device.*auto, cpu, gpu, .*cuda and mps"),
            ({"device": ""}, "device"),
        ):
            with self.subTest(**changes), self.assertRaisesRegex(InputError, word):
                SegmentOptions(**changes)

    def test_threshold_and_smallest_volume_come_from_the_model_unless_given(self):
        ct = ct_with_spheres()
        ct.hu[ct.hu == LESION_HU] = -275  # probability 0.73
        found = {
            options: len(segment(ct, threshold_model(threshold=0.6, min_volume_mm3=400.0), options).lesions)
            for options in (
                EVERYWHERE,
                dataclasses.replace(EVERYWHERE, min_volume_mm3=0.0),
                dataclasses.replace(EVERYWHERE, threshold=0.8),
            )
        }
        self.assertEqual(list(found.values()), [2, 3, 0])
        result = segment(ct, threshold_model(threshold=0.8), EVERYWHERE)
        self.assertEqual((result.threshold, result.min_volume_mm3, result.lesions), (0.8, 0.0, ()))

    def test_threads_are_torch_s(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        for threads in (2, 1):
            result = segment(ct_with_spheres(), self.model, dataclasses.replace(EVERYWHERE, threads=threads))
            self.assertEqual(torch.get_num_threads(), threads)
            self.assertIn(f"CPU, {threads} threads", result.device_note)

    def test_a_device_that_is_not_there_is_refused(self):
        for device, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
            if not there:
                with self.assertRaisesRegex(InputError, device):
                    choose_device(device)
        self.assertEqual(choose_device("cpu").name, "cpu")
        self.assertIn(choose_device("cpu").dtype, (torch.float32, torch.bfloat16))

    def test_what_a_graphics_card_does_not_manage_is_done_on_the_cpu_and_said(self):
        class Card(Network):
            """Fails as long as it is asked for on the card, whose name is another one of the CPU."""

            def __init__(self, network, error):
                super().__init__()
                self.network, self.error = network, error

            def forward(self, x):
                if asked[-1] == "auto":
                    raise self.error
                return self.network(x)

        asked = []

        def choose(choice, threads):
            asked.append(choice)
            return choose_device("cpu") if choice == "cpu" else Device("cpu:0", "float32", 1, "synthetic card")

        expected = segment(ct_with_spheres(), self.model, EVERYWHERE).labels
        for error, words in (
            (torch.OutOfMemoryError("CUDA out of memory."), "synthetic card has too little memory"),
            (NotImplementedError("aten::x is not implemented for MPS"), "synthetic card lacks an operation of this network"),
        ):
            asked.clear()
            model = dataclasses.replace(self.model, network=Card(self.model.network, error))
            with mock.patch.object(pipeline, "choose_device", choose):
                result = segment(ct_with_spheres(), model, dataclasses.replace(EVERYWHERE, device="auto"))
            self.assertEqual(asked, ["auto", "cpu"])
            self.assertIn(words, result.device_note)
            np.testing.assert_array_equal(result.labels, expected)
        with mock.patch.object(pipeline, "choose_device", choose), self.assertRaisesRegex(RuntimeError, "other"):
            asked.clear()
            model = dataclasses.replace(self.model, network=Card(self.model.network, RuntimeError("other")))
            segment(ct_with_spheres(), model, dataclasses.replace(EVERYWHERE, device="auto"))

    def test_a_3d_model_finds_the_same_lesions_as_the_same_function_of_a_voxel_in_2d(self):
        network = UNet(UNetConfig(3, 1, (1,), "none", False)).eval()
        for name, weights in threshold_network().state_dict().items():
            target = network.state_dict()[name]
            if target.dim() == 5:
                # The middle plane of the kernel.
                target.zero_()[:, :, target.shape[2] // 2] = weights
            else:
                target.copy_(weights)
        architecture = Architecture("unet", 3, (1,), "none", False)
        card = dataclasses.replace(CARD, architecture=architecture, input=dataclasses.replace(CARD.input, patch_kji=(16, 32, 32)))
        found = segment(ct_with_spheres(), Model(card, network), EVERYWHERE)
        self.assertTrue(found.labels.any())
        np.testing.assert_array_equal(found.labels, segment(ct_with_spheres(), self.model, EVERYWHERE).labels)


class ProgressTest(PipelineTest):
    def test_fractions_rise_from_0_to_1_through_the_stages(self):
        calls = []
        result = segment(ct_with_spheres(), self.model, EVERYWHERE, lambda fraction, stage: calls.append((fraction, stage)))
        fractions = [fraction for fraction, _ in calls]
        self.assertEqual((fractions[0], fractions[-1]), (0.0, 1.0))
        self.assertEqual(fractions, sorted(fractions))
        stages = [stage for stage, _ in itertools.groupby(stage for _, stage in calls)]
        self.assertEqual(stages, ["check", "lung field", "network", "lesions", "done"])
        # A step for every slice, and one when the stage begins.
        self.assertGreater(sum(stage == "network" for _, stage in calls), min(ct_with_spheres().hu.shape) - 2)
        self.assertEqual(list(result.seconds), ["check", "lung field", "network", "lesions", "measurements"])
        self.assertTrue(all(seconds >= 0 for seconds in result.seconds.values()))

    def test_raising_stops_in_every_stage(self):
        class StoppedError(Exception):
            pass

        for stop in ("check", "lung field", "network", "lesions", "done"):
            seen = []
            # The network's first call comes before it runs; the second, from amid its slices.
            nth = 2 if stop == "network" else 1

            def progress(fraction, stage, seen=seen, stop=stop, nth=nth):
                seen.append(stage)
                if seen.count(stop) == nth:
                    raise StoppedError

            with self.subTest(stop), self.assertRaises(StoppedError):
                segment(ct_with_spheres(), self.model, EVERYWHERE, progress)
            self.assertEqual((seen[-1], seen.count(stop)), (stop, nth))


class ImportTest(unittest.TestCase):
    def test_library_and_pipeline_import_neither_torch_nor_slicer(self):
        for module in ("NLSTSegLib", "NLSTSegLib.pipeline"):
            script = f"import {module}, sys; print(sorted(set(sys.modules) & {{'torch', 'slicer', 'vtk', 'qt', 'lightning'}}))"
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
            self.assertEqual(done.stdout.strip(), "[]")


def _along_slices(mask: np.ndarray, ct: CtVolume) -> np.ndarray:
    """``mask`` drawn out along the axis that runs head to foot, 12 voxels either way; only slices with field are run."""
    axis = 2 - int(np.abs(ct.direction_matrix[2]).argmax())
    grown = mask.copy()
    for shift in range(1, 13):
        for way in (shift, -shift):
            moved = np.roll(mask, way, axis)
            np.maximum(grown, moved, out=grown)
    return grown
