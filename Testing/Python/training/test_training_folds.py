"""Cross-validation: every patient in one fold, figures pooled, one bundle of their networks; models and data for other tools."""

import dataclasses
import json
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from helpers.threshold_model import threshold_model
from helpers.tiny_run import ON_CPU, RECIPE, TinyRunTest
from nlstseg_training.data.cache import fold_of, load_case, read_split
from nlstseg_training.data.split import make_folds
from nlstseg_training.evaluation.folds import pool_folds
from nlstseg_training.export.interchange import PREFIX, write_onnx, write_pth
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import Model, find_model, load_model
from NLSTSegLib.models.card import published_card
from NLSTSegLib.networks.ensemble import Ensemble
from NLSTSegLib.networks.published import PublishedUNet
from NLSTSegLib.networks.unet import UNet, UNetConfig
from NLSTSegLib.pipeline import SegmentOptions, segment


class FoldsTest(TinyRunTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folds = cls.folder / "folds.json"
        cls.done("split", cls.cache.folder, "--out", cls.folds, "--folds", 2, "--test", 0)
        recipe = cls.write(
            "short.toml", RECIPE.replace("epochs = 3", "epochs = 2").replace("epoch_steps = 8", "epoch_steps = 12")
        )
        cls.runs = [cls.folder / f"fold{fold}" for fold in (0, 1)]
        where = ("--cache", cls.cache.folder, "--split", cls.folds)
        for fold, out in enumerate(cls.runs):
            cls.done("fit", "--recipe", recipe, *where, "--out", out, "--fold", fold, *ON_CPU)
        cls.pooled = cls.folder / "pooled"
        cls.done("pool", *cls.runs, "--out", cls.pooled)

    def read(self, folder: Path) -> dict:
        return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))

    def test_every_case_is_in_one_fold_and_validated_by_the_run_that_was_not_trained_on_it(self):
        split = read_split(self.folds)
        self.assertEqual(sorted(case_id for fold in split.folds for case_id in fold), sorted(split.train))
        self.assertEqual(len(split.train), 6)
        for fold, run in enumerate(self.runs):
            own = read_split(run / "split.json")
            self.assertEqual(own, fold_of(split, fold))
            self.assertFalse(set(own.train) & set(own.validation))
            self.assertEqual({row["id"] for row in self.read(run / "validation")["by_case"]}, set(own.validation))

    def test_pooled_figures_are_those_of_all_cases(self):
        pooled, single = self.read(self.pooled), [self.read(run / "validation") for run in self.runs]
        self.assertEqual((pooled["cases"], pooled["patients"]), (6, 6))
        dice = [row["dice"] for content in single for row in content["by_case"] if row["dice"] is not None]
        self.assertAlmostEqual(pooled["overlap"][0]["dice"]["value"], float(np.mean(dice)))
        self.assertIsNotNone(pooled["overlap"][0]["dice"]["low"])
        for content in single:
            self.assertIn(f"{content['threshold']['value']:g} from", pooled["threshold"]["chosen_by"])
        self.assertIn("2 folds of tiny", (self.pooled / "report.html").read_text(encoding="utf-8"))
        with self.assertRaisesRegex(InputError, "validated in two of the runs"):
            pool_folds([self.runs[0], self.runs[0]], self.folder / "twice")

    def test_the_ensemble_marks_by_the_mean_of_the_probabilities_and_says_its_time(self):
        out = self.folder / "together"
        done = self.done("ensemble", *self.runs, "--out", out, "--pooled", self.pooled, "--accelerator", "cpu")
        self.assertRegex(done.stdout, r"s by one network, [\d.]+ s by the ensemble")
        model = load_model(find_model(str(out)))
        self.assertEqual((model.card.architecture.members, model.card.name), (2, "tiny-ensemble"))
        self.assertIn("single_networks_in_cross_validation", model.card.metrics)
        options = SegmentOptions(lung_field="none", device="cpu")
        case = load_case(self.cache.folder, "crop1")
        singles = [load_model(find_model(str(run / "bundle"))) for run in self.runs]
        ours, *theirs = (segment(case.ct, each, options).canonical_probability.astype(float) for each in (model, *singles))
        self.assertLess(np.abs(ours - np.mean(theirs, axis=0)).max(), 4)
        self.assertEqual({*model.card.training_cases.sha256}, {d for each in singles for d in each.card.training_cases.sha256})
        self.assert_refused("ensemble", self.runs[0], "--out", self.folder / "one", words=("two networks or more",))

    def test_folds_have_to_be_named_and_be_there(self):
        where = ("--cache", self.cache.folder, "--out", self.folder / "new", *ON_CPU)
        self.assert_refused("fit", *where, "--split", self.folds, words=("--fold", "0 to 1"))
        self.assert_refused("fit", *where, "--split", self.folds, "--fold", 2, words=("--fold",))
        self.assert_refused("fit", *where, "--split", self.folder / "split.json", "--fold", 0, words=("no folds",))
        from nlstseg_training.data.cache import read_manifest

        with self.assertRaisesRegex(InputError, "too few for 9 folds"):
            make_folds(read_manifest(self.cache.folder), 9)


class OtherToolsTest(TinyRunTest):
    def test_masks_of_another_tool_are_measured_as_they_are(self):
        masks = self.folder / "masks"
        masks.mkdir()
        where = ("--cache", self.cache.folder, "--split", self.folder / "split.json", "--out", self.folder / "measured")
        for case_id in ("crop3", "chest0"):
            case = load_case(self.cache.folder, case_id)
            marked = (case.labels > 0).astype(np.uint8)
            marked[:, :, 30:] *= case_id == "crop3"
            sitk.WriteImage(case.ct.image_like(marked), str(masks / f"{case_id}.nii.gz"))
        self.done("evaluate", "--predictions", masks, *where)
        content = json.loads((self.folder / "measured" / "evaluation.json").read_text(encoding="utf-8"))
        dice = {row["id"]: row["dice"] for row in content["by_case"]}
        self.assertEqual(dice["crop3"], 1.0)
        case = load_case(self.cache.folder, "chest0")
        reference, marked = case.labels > 0, (case.labels > 0) & (np.arange(96) < 30)
        self.assertAlmostEqual(dice["chest0"], 2 * (reference & marked).sum() / (reference.sum() + marked.sum()))
        self.assertEqual((content["model"]["name"], content["threshold"]["chosen_by"]), ("masks", "the masks themselves"))
        # Changed masks are measured anew.
        sitk.WriteImage(case.ct.image_like(reference.astype(np.uint8)), str(masks / "chest0.nii.gz"))
        self.done("evaluate", "--predictions", masks, *where)
        content = json.loads((self.folder / "measured" / "evaluation.json").read_text(encoding="utf-8"))
        self.assertEqual({row["dice"] for row in content["by_case"]}, {1.0})
        (masks / "crop3.nii.gz").unlink()
        refused = self.run_command("evaluate", "--predictions", masks, *where)
        self.assertEqual(refused.exit_code, 2)
        self.assertIn("no mask of the case 'crop3'", refused.stderr)
        self.assert_refused("evaluate", *where, words=("--bundle", "--predictions"))

    def test_the_data_set_of_nnunet_has_the_cases_and_parts(self):
        out = self.folder / "nnUNet_raw" / "Dataset501_Tiny"
        self.done("nnunet", *self.of_cases, "--out", out)
        split = read_split(self.folder / "split.json")
        images = {part: sorted(path.name for path in (out / f"images{part}").iterdir()) for part in ("Tr", "Ts")}
        self.assertEqual(images["Tr"], sorted(f"{case_id}_0000.nii.gz" for case_id in (*split.train, *split.validation)))
        self.assertEqual(images["Ts"], sorted(f"{case_id}_0000.nii.gz" for case_id in split.test))
        dataset = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
        self.assertEqual((dataset["numTraining"], dataset["file_ending"]), (4, ".nii.gz"))
        (division,) = json.loads((out / "splits_final.json").read_text(encoding="utf-8"))
        self.assertEqual((division["train"], division["val"]), (list(split.train), list(split.validation)))
        case = load_case(self.cache.folder, "chest0")
        image = sitk.ReadImage(str(out / "imagesTs" / "chest0_0000.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), case.ct.hu)
        np.testing.assert_allclose(image.GetSpacing(), case.ct.spacing_ijk_mm, atol=1e-6)
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "labelsTs" / "chest0.nii.gz")))
        np.testing.assert_array_equal(mask, case.labels > 0)
        # Its masks come back by the same names.
        where = ("--cache", self.cache.folder, "--split", self.folder / "split.json", "--out", self.folder / "of-nnunet")
        self.done("evaluate", "--predictions", out / "labelsTs", *where)
        self.assert_refused("nnunet", *self.of_cases, "--out", out, words=("nothing is overwritten",))
        self.assert_refused("nnunet", *self.of_cases, "--out", self.folder / "Tiny", words=("Dataset501",))


class InterchangeTest(TinyRunTest):
    def test_a_checkpoint_for_the_published_code_has_its_names_and_loads_again(self):
        torch.manual_seed(1)
        network = PublishedUNet().eval()
        path = self.folder / "checkpoint.pth"
        write_pth(Model(published_card(Path("own.pth")), network), path)
        state = torch.load(path, weights_only=True)
        # Names of the published state dict, as its description gives them.
        for name in ("time_embedding.1.weight", "init_conv.weight", "downblocks.2.downsample.weight", "mid.1.layer2.2.bias",
                     "upblocks.3.upsample.1.weight", "upblocks.4.shortcut.weight", "last_layer.1.bias"):  # fmt: skip
            self.assertIn(PREFIX + name, state)
        self.assertEqual(sum(tensor.numel() for tensor in state.values()), 3_586_177)
        again = load_model(find_model(str(path))).network
        x = torch.rand(1, 1, 16, 24) * 2 - 1
        with torch.no_grad():
            torch.testing.assert_close(again(x), network(x), rtol=0, atol=0)
        with self.assertRaisesRegex(InputError, "is not the published network"):
            write_pth(threshold_model(), self.folder / "other.pth")
        with self.assertRaisesRegex(InputError, "already"):
            write_pth(Model(published_card(Path("own.pth")), network), path)

    def test_onnx_gives_the_same_probabilities_in_2d_and_3d(self):
        try:
            import onnxruntime  # noqa: F401
        except ModuleNotFoundError:
            self.skipTest("ONNX Runtime is not installed")
        card = threshold_model().card
        for dimensions, spec in (
            (2, dataclasses.replace(card.input, slices=3)),
            (3, dataclasses.replace(card.input, slices=1, patch_kji=(8, 32, 32))),
        ):
            torch.manual_seed(dimensions)
            network = UNet(UNetConfig(dimensions, spec.slices, (4, 8), "batch", True)).eval()
            path = self.folder / f"{dimensions}d.onnx"
            architecture = dataclasses.replace(card.architecture, dimensions=dimensions)
            different = write_onnx(Model(dataclasses.replace(card, architecture=architecture, input=spec), network), path)
            self.assertLess(different, 1e-5)
            self.assertGreater(path.stat().st_size, 1000)

    def test_the_ensemble_of_a_network_with_itself_is_the_network(self):
        torch.manual_seed(0)
        network = UNet(UNetConfig(2, 1, (4, 8), "batch", True)).eval()
        x = torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(Ensemble([network, network]).eval()(x), network(x), rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    unittest.main()
