"""The cohort's panel: real clicks, cases read from files, reviews of two readers in one folder."""

import csv
import tempfile
import unittest
from pathlib import Path

import SimpleITK as sitk

from helpers.review_scene import LARGE, SMALL, ct_with_balls, soft_result
from NLSTSegLib.cohort.case import Found, Outcome, Settings
from NLSTSegLib.cohort.table import open_table
from NLSTSegLib.review.state import Status
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.volume.ct import CtVolume
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

ROOT = Path(__file__).resolve().parents[3]

SETTINGS = Settings("model", "ab" * 32, "results")

PLAIN = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
"""Right-handed axes, which a file keeps as they are."""


class TestCohortPanel(ModuleTestCase):
    """``sure`` has two lesions and its probability, ``unsure`` one of lower score and none, ``empty`` none, ``broken`` failed."""

    def setUp(self):
        super().setUp()
        from NLSTSegLib.results.folder import write_result

        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.cts = self.folder / "cts"
        self.cts.mkdir()
        with open_table(self.folder) as table:
            names = ("broken", "empty", "sure", "unsure")
            table.add_cases("cts", [Found((str(self.cts / f"{name}.nrrd"),), name=name) for name in names])
            table.note_results(str(self.folder))
            for name, balls, score in (("sure", (LARGE, SMALL), 0.9), ("unsure", (LARGE,), 0.6), ("empty", (), None)):
                ct: CtVolume = ct_with_balls(balls, PLAIN)
                sitk.WriteImage(ct.to_image(), str(self.cts / f"{name}.nrrd"))
                result = soft_result(ct, balls or (LARGE._replace(peak=0.1),))
                write_result(result, self.folder / name, save_probability=name == "sure", case=name)
                rows = [{**row, "score": score} for row in result.to_rows()]
                table.write(Outcome(name, "done", rows=tuple(rows)), SETTINGS)
            sitk.WriteImage(ct_with_balls((), PLAIN).to_image(), str(self.cts / "broken.nrrd"))
            table.write(Outcome("broken", "failed", "its worker died while it was under way"), SETTINGS)
        self.widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
        self.panel = self.widget.cohort
        self.ui = self.panel.ui
        self.read_as("Dr. A")
        self.panel.widget.parent().collapsed = False
        host.process_events()

    def read_as(self, name: str) -> None:
        from NLSTSegLib.widgets.lesion_panel import READER_KEY
        from NLSTSegLib.widgets.settings import save_setting

        save_setting(READER_KEY, name)

    def open_cohort(self) -> None:
        self.talk.answer(str(self.folder))
        host.click(self.ui.openButton)

    def listed(self) -> list[str]:
        return [self.ui.caseList.item(row).text() for row in range(self.ui.caseList.count)]

    def decide(self, status: Status, *segments: str) -> None:
        editor = LesionEditor(self.panel._segmentation)
        editor.decide(list(segments), status, "Dr. A")
        editor.close()

    def volumes(self) -> list[str]:
        import slicer

        count = self.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        nodes = [self.scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(count)]
        self.assertIs(self.scene, slicer.mrmlScene)
        return [node.GetName() for node in nodes if not node.GetHideFromEditors()]

    def reviews(self) -> list[str]:
        return sorted(path.parent.relative_to(self.folder / "reviews").as_posix() for path in self.folder.rglob("audit.csv"))

    def test_failed_and_least_sure_cases_come_first_and_next_goes_through_them(self):
        self.assertFalse(self.ui.nextButton.enabled)
        self.open_cohort()
        self.assertEqual(
            self.listed(),
            [
                "broken: failed: its worker died while it was under way",
                "unsure: 1 lesions, least sure 0.60",
                "sure: 2 lesions, least sure 0.90",
                "empty: no lesion",
            ],
        )
        shown = []
        for _ in range(4):
            host.click(self.ui.nextButton)
            shown.append(self.volumes())
        self.assertEqual(shown, [["broken"], ["unsure"], ["sure"], ["empty"]])
        self.assertEqual(self.ui.resultLabel.text, "empty is shown, 4 of 4.")
        # Nothing was decided on, so nothing was written.
        self.assertEqual(self.reviews(), [])

    def test_what_was_decided_on_goes_into_the_folder_and_comes_back(self):
        self.open_cohort()
        host.click(self.ui.nextButton)
        host.click(self.ui.nextButton)
        self.decide(Status.ACCEPTED, "Lesion_01")
        host.click(self.ui.nextButton)
        self.assertEqual(self.reviews(), ["unsure/Dr_ A"])
        self.assertIn("read by Dr_ A", self.listed()[1])
        with open(self.folder / "reviews/unsure/Dr_ A/audit.csv", newline="") as file:
            self.assertEqual([(row["status"], row["reader"]) for row in csv.DictReader(file)], [("accepted", "Dr. A")])
        self.panel._on_double_click(self.ui.caseList.item(1))
        self.assertEqual(self.volumes(), ["unsure"])
        self.decide(Status.REJECTED, "Lesion_01")
        host.click(self.ui.saveButton)
        # The first review is kept.
        self.assertEqual(self.reviews(), ["unsure/Dr_ A", "unsure/Dr_ A 2"])
        host.click(self.ui.nextButton)
        host.click(self.ui.nextButton)
        self.assertEqual(self.volumes(), ["empty"])

    def test_a_result_with_its_probability_has_proposals(self):
        self.open_cohort()
        for _ in range(3):
            host.click(self.ui.nextButton)
        self.decide(Status.ACCEPTED, "Lesion_01", "Lesion_02")
        host.click(self.ui.saveButton)
        with open(self.folder / "reviews/sure/Dr_ A/audit.csv", newline="") as file:
            self.assertEqual([row["dice"] for row in csv.DictReader(file)], ["1.0", "1.0"])

    def test_two_readers_keep_what_is_theirs(self):
        self.open_cohort()
        for reader in ("Dr. A", "Dr. B"):
            self.read_as(reader)
            self.panel._on_double_click(self.ui.caseList.item(1))
            states = [status for _, status, _ in self.panel._saved]
            # The second does not see what the first has decided.
            self.assertEqual(states, ["new"])
            self.decide(Status.ACCEPTED if reader == "Dr. A" else Status.REJECTED, "Lesion_01")
            host.click(self.ui.saveButton)
        self.assertEqual(self.reviews(), ["unsure/Dr_ A", "unsure/Dr_ B"])
        self.assertIn("read by Dr_ A, Dr_ B", self.listed()[1])

    def test_a_folder_that_is_no_cohort_and_a_ct_that_is_gone_are_said(self):
        self.talk.answer(str(self.cts))
        host.click(self.ui.openButton)
        self.assertIn("is no folder of a cohort", self.ui.resultLabel.text)
        self.open_cohort()
        (self.cts / "broken.nrrd").unlink()
        host.click(self.ui.nextButton)
        self.assertIn("There is no file or folder", self.ui.resultLabel.text)
        self.assertEqual(self.volumes(), [])


if __name__ == "__main__":
    unittest.main()
