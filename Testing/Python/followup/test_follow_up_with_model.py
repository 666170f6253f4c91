"""``nlstseg follow-up`` from two CTs to the folder, with a model whose answer is known."""

import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from helpers.placed_chest import LESIONS, chest_ct
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.cli.app import make_app
from NLSTSegLib.followup.registration_files import read_registration
from NLSTSegLib.reading.write import write_image


class TestWithModel(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        write_threshold_bundle(self.folder / "model")
        for name, scale in (("old", 1.0), ("new", 1.05)):
            write_image(chest_ct(np.eye(3), scale=scale).to_image(), self.folder / f"{name}.nrrd")

    def call(self, *arguments):
        cts = [str(self.folder / f"{name}.nrrd") for name in ("old", "new")]
        common = ["--model", str(self.folder / "model"), "--device", "cpu", "--threads", "1", "--no-registration", "--quiet"]
        return CliRunner().invoke(make_app(), ["follow-up", *cts, *common, *map(str, arguments)])

    def test_cts_are_segmented_and_their_results_can_be_given_again(self):
        out, again = self.folder / "out", self.folder / "again"
        done = self.call("-o", out, "--days", 90)
        self.assertEqual(done.exit_code, 0, done.output)
        report = json.loads((out / "follow-up.json").read_text())
        self.assertEqual([ct["outlined_by"] for ct in report["cts"]], ["threshold 1"] * 2)
        self.assertEqual(len(report["pairs"]), 2 * len(LESIONS))
        for name in ("baseline", "followup"):
            self.assertTrue((out / name / "probability.nrrd").is_file())

        pairs = self.folder / "pairs.csv"
        pairs.write_text("earlier,later\nLesion 01,Lesion 01\n")
        results = ("--result", out / "baseline", "--result", out / "followup", "--pairs", pairs)
        done = self.call("-o", again, "--days", 90, *results)
        self.assertEqual(done.exit_code, 0, done.output)
        pair = next(row for row in json.loads((again / "follow-up.json").read_text())["pairs"] if row["kind"] == "same")
        self.assertEqual(pair["by"], "hand")
        self.assertAlmostEqual(pair["change_percent"], 100 * (1.05**3 - 1), delta=12)
        self.assertFalse((again / "baseline").exists())

        swapped = ("--result", out / "followup", "--result", out / "baseline")
        done = self.call("-o", self.folder / "third", "--days", 90, *swapped)
        self.assertEqual(done.exit_code, 2)
        self.assertFalse((self.folder / "third").exists())

    def test_two_cts_are_registered_or_it_is_said_why_not(self):
        cts, out = [str(self.folder / f"{name}.nrrd") for name in ("old", "new")], self.folder / "registration"
        done = CliRunner().invoke(make_app(), ["register", *cts, "-o", str(out), "--json-progress"])
        self.assertEqual(done.exit_code, 0, done.output)
        last = json.loads(done.output.splitlines()[-1])
        self.assertEqual((last["stage"], last["fraction"]), ("done", 1.0))
        found = read_registration(out)
        self.assertEqual(found.is_accepted, (out / "baseline-to-followup.h5").exists())
        self.assertEqual(CliRunner().invoke(make_app(), ["register", *cts, "-o", str(out)]).exit_code, 2)


if __name__ == "__main__":
    unittest.main()
