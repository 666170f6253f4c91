"""From PACS to PACS: the worklist on a real Orthanc, run once, twice, killed in the middle and gone on."""

import os
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
from typer.testing import CliRunner

from helpers.dicom_files import change
from helpers.orthanc import AET, PASSWORD_VARIABLE, USER, needs_orthanc
from helpers.pacs import PacsTest, archive_for, objects_below
from helpers.placed_chest import chest_ct
from helpers.threshold_model import write_threshold_bundle
from NLSTSegLib.cli.app import app
from NLSTSegLib.errors import PacsError
from NLSTSegLib.pacs.archive import StudyQuery
from NLSTSegLib.pacs.transfer import pull_series
from NLSTSegLib.pacs.worklist import Worklist
from NLSTSegLib.phantom.dicom_series import write_dicom_series

MARK = "Secret"
"""In names and IDs, and nowhere in what is printed."""


@needs_orthanc
class TestWorklist(PacsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_threshold_bundle(cls.root / "model", min_volume_mm3=30.0)
        cls.servers = cls.root / "servers.toml"
        cls.servers.write_text(
            f'[dimse]\nhost = "127.0.0.1"\nport = {cls.pacs.dicom_port}\naet = "{AET}"\n'
            f'[web]\nurl = "{cls.pacs.url}"\nuser = "{USER}"\npassword_env = "{PASSWORD_VARIABLE}"\n'
        )
        cls.ct = chest_ct(np.eye(3), shape_kji=(20, 56, 60), spacing_ijk_mm=(3.0, 3.2, 8.0))
        cls.chest = cls.write_study("chest", cls.ct)
        # Lungs in which the threshold model finds nothing.
        cls.clear = cls.write_study("clear", replace(cls.ct, hu=np.minimum(cls.ct.hu, -400).astype(np.int16)))

    @classmethod
    def write_study(cls, name: str, ct) -> list[Path]:
        folder = cls.root / name
        write_dicom_series(ct, folder)
        number = 1 if name == "chest" else 2
        for file in folder.iterdir():
            change(
                file,
                **{"PatientName": f"{MARK}^{name}", "PatientID": f"{MARK}{number}", "StudyDate": f"2026010{number}"},
                **{"StudyInstanceUID": f"1.2.3.{number}", "SeriesInstanceUID": f"1.2.3.{number}.1"},
            )
        return sorted(folder.iterdir())

    def setUp(self):
        self.pacs.clear()
        self.work = self.new_folder() / "work"

    def run_worklist(self, *options: object, server: str = "web", code: int = 0):
        arguments = ["pacs", "run", "--server", server, "-o", self.work, "--model", self.root / "model", "--threads", 1, *options]
        with mock.patch.dict(os.environ, {"NLSTSEG_SERVERS": str(self.servers)}):
            done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        self.assertEqual(done.exit_code, code, done.stderr)
        self.assertNotIn(MARK, done.stdout + done.stderr)
        return done

    def stored(self, way: str = "DICOMweb") -> list[tuple[str, str, str]]:
        """Study, modality and description of all series in the PACS that are no CT."""
        archive = archive_for(self.pacs, way)
        series = [one for study in archive.studies(StudyQuery()) for one in archive.series(study.uid)]
        return sorted((one.study_uid, one.modality, one.description) for one in series if one.modality != "CT")

    def assert_work_is_empty(self):
        left = [path for path in self.work.iterdir() if path.is_dir()] if self.work.exists() else []
        self.assertEqual(left, [])

    def test_studies_are_done_once_and_one_by_one(self):
        self.pacs.add([*self.chest, *self.clear])
        done = self.run_worklist("--dry-run")
        self.assertEqual((done.stdout, self.stored()), ("1.2.3.1\n1.2.3.2\n", []))
        self.run_worklist("--limit", 1, server="dimse")
        ours = "Lung lesions (threshold 1)"
        first = [("1.2.3.1", "SEG", ours), ("1.2.3.1", "SR", ours)]
        self.assertEqual(self.stored(), first)
        self.assertIn("1 of 2 studies done now", self.run_worklist().stderr)
        # Where nothing is found there is a report alone.
        self.assertEqual(self.stored(), [*first, ("1.2.3.2", "SR", ours)])
        count = self.pacs.ask("/statistics")["CountInstances"]
        for server in ("dimse", "web"):
            self.assertIn("0 of 2 studies done now", self.run_worklist(server=server).stderr)
        self.assertEqual(self.pacs.ask("/statistics")["CountInstances"], count)
        self.assertEqual(self.run_worklist("--dry-run").stdout, "")
        self.assert_work_is_empty()

    def test_what_is_stored_belongs_to_the_study_and_the_report_to_the_segmentation(self):
        self.pacs.add(self.chest)
        self.run_worklist("-q")
        archive, folder = archive_for(self.pacs, "DICOMweb"), self.new_folder() / "back"
        pull_series(archive, [one for one in archive.series("1.2.3.1") if one.modality != "CT"], folder, lambda _: None)
        seg, report = sorted(objects_below(folder).values(), key=lambda one: one.Modality)
        self.assertEqual({str(one.PatientName) for one in (seg, report)}, {f"{MARK}^chest"})
        self.assertEqual(len(seg.SegmentSequence), 3)
        self.assertIn(seg.SOPInstanceUID, report.to_json())
        images = {pydicom.dcmread(file).SOPInstanceUID for file in self.chest}
        referenced = {one.ReferencedSOPInstanceUID for one in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
        self.assertEqual(referenced, images)

    def test_another_version_and_others_segmentations_do_not_count(self):
        self.pacs.add(self.chest)
        write_threshold_bundle(self.root / "next", version="2", min_volume_mm3=30.0)
        self.run_worklist("-q")
        self.run_worklist("-q", "--model", self.root / "next")
        texts = [text for _, _, text in self.stored()]
        self.assertEqual(texts, [*["Lung lesions (threshold 1)", "Lung lesions (threshold 2)"] * 2])

    def test_a_study_that_fails_is_said_and_the_others_are_done(self):
        bad = self.new_folder() / "bad"
        write_dicom_series(self.ct, bad)
        for file in bad.iterdir():
            change(file, StudyInstanceUID="1.2.3.0", StudyDate="20251231", RescaleSlope=None)
        self.pacs.add([*sorted(bad.iterdir()), *self.chest])
        done = self.run_worklist(code=2)
        self.assertIn("1 of 2 studies failed", done.stderr)
        self.assertEqual({study for study, _, _ in self.stored()}, {"1.2.3.1"})
        # The next run tries it again, with the files it has.
        self.assertIn("1 of 1 studies failed", self.run_worklist(code=2).stderr)

    def test_no_report_without_its_segmentation(self):
        self.pacs.add(self.chest)
        # Orthanc 1.10 takes no LABELMAP by C-STORE.
        done = self.run_worklist("--seg-type", "labelmap", server="dimse", code=4)
        self.assertIn("did not take", done.stderr)
        self.assertEqual(self.stored(), [])
        # The result is still there: over DICOMweb the same is taken, and nothing is segmented again.
        (result,) = self.work.glob("*/result/lesions.seg.dcm")
        uid = pydicom.dcmread(result).SOPInstanceUID
        self.run_worklist()
        self.assertEqual([modality for _, modality, _ in self.stored()], ["SEG", "SR"])
        archive = archive_for(self.pacs, "DICOMweb")
        (seg,) = [one for one in archive.series("1.2.3.1") if one.modality == "SEG"]
        self.assertEqual([*archive.instances(seg.study_uid, seg.uid)], [uid])

    def test_a_pacs_killed_in_the_middle_ends_the_run_and_the_next_goes_on(self):
        self.pacs.add([*self.chest, *self.clear])

        def killed_after(call):
            def segment(*arguments, **options):
                result = call(*arguments, **options)
                self.pacs.kill()
                return result

            return segment

        from NLSTSegLib.cli import pacs_run

        with mock.patch.object(pacs_run, "run_one", killed_after(pacs_run.run_one)):
            done = self.run_worklist(code=4)
        self.assertIn("cannot be reached", done.stderr)
        self.assertEqual(len([*self.work.glob("*/result/measurements.sr.dcm")]), 1)
        self.pacs.start()
        self.assertEqual(self.stored(), [])
        self.run_worklist()
        self.assertEqual([modality for _, modality, _ in self.stored()], ["SEG", "SR", "SR"])
        self.assert_work_is_empty()

    def test_a_segmentation_without_its_report_is_gone_on_with(self):
        self.pacs.add(self.chest)
        archive = archive_for(self.pacs, "DICOMweb")
        worklist = Worklist(archive, ("threshold", "1"), self.work)
        result = worklist.place("1.2.3.1") / "result"

        def segment(ct: Path, place: Path) -> None:
            arguments = ["segment", ct, "-o", place, "--model", self.root / "model", "--threads", 1, "--dicom-seg", "-q"]
            self.assertEqual(CliRunner().invoke(app, [str(one) for one in arguments]).exit_code, 0)
            # As killed between the two: one is in the PACS, and the other is not.
            self.pacs.add([place / "lesions.seg.dcm"])
            raise PacsError("killed")

        with self.assertRaisesRegex(PacsError, "killed"):
            worklist.do(worklist.open_series("1.2.3.1"), segment, lambda _: None)
        self.assertTrue(result.exists())
        self.assertEqual([modality for _, modality, _ in self.stored()], ["SEG"])
        self.run_worklist()
        self.assertEqual([modality for _, modality, _ in self.stored()], ["SEG", "SR"])

    def test_of_two_series_the_chest_is_taken_and_the_study_is_done_once(self):
        scout = self.new_folder() / "abdomen"
        write_dicom_series(replace(self.ct, hu=np.full_like(self.ct.hu, 40)), scout)
        for file in scout.iterdir():
            change(file, StudyInstanceUID="1.2.3.1", SeriesInstanceUID="1.2.3.1.2", PatientID=f"{MARK}1", StudyDate="20260101")
        self.pacs.add([*sorted(scout.iterdir()), *self.chest])
        self.run_worklist("-q")
        self.assertEqual([modality for _, modality, _ in self.stored()], ["SEG", "SR"])
        self.assertIn("0 of 1 studies", self.run_worklist().stderr)


if __name__ == "__main__":
    unittest.main()
