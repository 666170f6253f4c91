"""The PACS in the module: clicks, a real Orthanc, a child process in between; Slicer's database of DICOM files is a stand-in."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from helpers.dicom_files import write_series
from helpers.forked_command import forked_jobs
from helpers.orthanc import AET, needs_orthanc, start_for
from helpers.pacs import archive_for, objects_below
from helpers.review_scene import begin, ct_with_balls, soft_result, voxels_of
from NLSTSegLib.pacs.transfer import pull_series
from NLSTSegLib.reading.dicom_folder import list_series
from NLSTSegLib.scene.volumes import ct_from_volume_node
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase
from slicer_stand_in.dicom_database import dicom_database

ROOT = Path(__file__).resolve().parents[3]

SERIES = "1.2.3.1.1"


@needs_orthanc
@unittest.skipIf(host.inside_slicer(), "writes into a database of DICOM files, and Slicer's own is the user's")
class TestPacsPanel(ModuleTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.pacs = start_for(cls, cls.root / "orthanc", AuthenticationEnabled=False)
        cls.ct = ct_with_balls(direction_lps=(1, 0, 0, 0, 1, 0, 0, 0, 1))
        place = (cls.ct.spacing_ijk_mm, cls.ct.origin_lps_mm)
        facts = {"PatientName": "Doe^Jane", "PatientID": "ID1", "StudyDate": "20260101", "SeriesDescription": "Thorax"}
        uids = {"StudyInstanceUID": "1.2.3.1", "SeriesInstanceUID": SERIES, "FrameOfReferenceUID": "1.2.3"}
        cls.pacs.add(write_series(cls.root / "study", cls.ct.hu, *place, **facts, **uids))
        servers = cls.root / "servers.toml"
        servers.write_text(
            f'[web]\nurl = "{cls.pacs.url}"\n[dimse]\nhost = "127.0.0.1"\nport = {cls.pacs.dicom_port}\naet = "{AET}"\n'
            '[off]\nhost = "127.0.0.1"\nport = 1\naet = "A"\n'
        )
        cls.enterClassContext(mock.patch.dict(os.environ, {"NLSTSEG_SERVERS": str(servers)}))

    def setUp(self):
        super().setUp()
        self.enterContext(forked_jobs())
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "database").mkdir()
        self.database = self.enterContext(dicom_database(self.folder / "database"))
        self.widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
        self.panel, self.ui = self.widget.pacs, self.widget.pacs.ui
        self.widget.pacs.widget.parent().collapsed = False
        self.widget.enter()

    def click(self, button: str, *answers: object) -> str:
        """Click, wait for the child, and return what is said."""
        self.talk.answer(*answers)
        host.click(getattr(self.ui, button))
        host.process_events(until=lambda: not self.ui.stopButton.visible)
        self.assertEqual(self.talk.answers, [])
        return self.ui.resultLabel.text

    def choose_server(self, name: str) -> None:
        self.ui.serverComboBox.currentIndex = self.ui.serverComboBox.findText(name)

    def search(self, server: str) -> None:
        self.choose_server(server)
        self.ui.patientIdEdit.text = "ID*"
        self.assertEqual(self.click("searchButton"), "")

    def load(self):
        self.ui.studyTable.selectRow(0)
        self.assertEqual(self.click("loadButton"), f"The CT 'Thorax' (slices: {len(self.ct.hu)}) was loaded.")
        return self.widget.input.volume_node

    def test_a_ct_comes_and_its_review_goes_back(self):
        for server in ("dimse", "web"):
            self.search(server)
            cells = [self.ui.studyTable.item(0, column).text() for column in range(4)]
            self.assertEqual((self.ui.studyTable.rowCount, cells), (1, ["20260101", "Doe^Jane", "ID1", ""]))
        volume = self.load()
        ct = ct_from_volume_node(volume)
        np.testing.assert_array_equal(ct.hu, self.ct.hu)
        np.testing.assert_allclose(ct.origin_lps_mm, self.ct.origin_lps_mm)
        self.assertEqual((ct.acquisition.series_uid, ct.acquisition.modality), (SERIES, "CT"))
        node = begin(soft_result(ct), volume)
        self.widget.segmentations.widget.setCurrentNode(node)
        # Undecided lesions are asked about; whose CT it is, is not.
        self.assertIn("SEG and SR (lesions: 3) are in the PACS 'web'.", self.click("sendButton", True))
        self.check_stored(node)

    def check_stored(self, node) -> None:
        from NLSTSegLib.dicom.read_seg import read_seg

        archive = archive_for(self.pacs, "DICOMweb", user="", password_env="")
        stored = [one for one in archive.series("1.2.3.1") if one.modality in ("SEG", "SR")]
        self.assertEqual({one.description for one in stored}, {"Lung lesions, reviewed (x published)"})
        place = Path(tempfile.mkdtemp(dir=self.folder)) / "back"
        pull_series(archive, [one for one in stored if one.modality == "SEG"], place, lambda _: None)
        self.assertEqual({str(one.PatientName) for one in objects_below(place).values()}, {"Doe^Jane"})
        (series,) = list_series(self.root / "study")
        voxels = voxels_of(node, self.ct.hu.shape)
        for file in place.rglob("*.dcm"):
            labels = read_seg(file, series).labels
            for label, segment in enumerate(("Lesion_01", "Lesion_02", "Lesion_03"), start=1):
                np.testing.assert_array_equal(labels == label, voxels[segment])

    def test_buttons_say_what_is_missing(self):
        for button, words in (("searchButton", "whom or when"), ("loadButton", "choose a study"), ("sendButton", "segmentation")):
            self.assertFalse(getattr(self.ui, button).enabled)
            self.assertIn(words, getattr(self.ui, button).toolTip)
        self.assertIn("usual way", self.ui.noteLabel.text)
        with mock.patch.dict(os.environ, {"NLSTSEG_SERVERS": str(self.folder / "none.toml")}):
            self.widget.enter()
            self.assertIn("First name a server in", self.ui.searchButton.toolTip)

    def test_what_goes_wrong_is_said_and_the_scene_stays(self):
        self.choose_server("off")
        self.ui.dateEdit.text = "20260101"
        self.assertRegex(self.click("searchButton"), r"^The PACS at 127.0.0.1:1 cannot be reached")
        self.ui.dateEdit.text = "today"
        self.assertIn("'today' is no date", self.click("searchButton"))
        self.choose_server("web")
        self.ui.dateEdit.text = "19990101"
        self.assertEqual(self.click("searchButton"), "No study with CT was found.")
        self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), 0)

    def test_it_can_be_stopped_and_leaves_nothing(self):
        self.choose_server("web")
        self.ui.patientIdEdit.text = "ID*"
        host.click(self.ui.searchButton)
        folder = self.panel._job.folder
        self.assertFalse(self.ui.searchButton.enabled)
        host.click(self.ui.stopButton)
        self.assertEqual((self.ui.resultLabel.text, folder.exists()), ("It was stopped.", False))
        host.click(self.ui.searchButton)
        folder = self.panel._job.folder
        self.panel.close()
        self.assertFalse(folder.exists())

    def test_it_can_be_stopped_while_a_ct_is_read(self):
        self.search("web")
        seen = []

        def stop(value: int) -> None:
            seen.append(value)
            if "is read" in self.ui.resultLabel.text and value >= 10:
                host.click(self.ui.stopButton)

        self.ui.progressBar.connect("valueChanged(int)", stop)
        self.ui.studyTable.selectRow(0)
        self.assertEqual(self.click("loadButton"), "It was stopped.")
        self.assertLess(max(seen[-3:]), 50)
        self.assertEqual(self.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), 0)
        self.assertEqual(self.database.files, {})


if __name__ == "__main__":
    unittest.main()
