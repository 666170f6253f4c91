"""What is copied for a report: everything about the run, and nothing about the patient or the user."""

import re
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers.placed_chest import chest_ct
from NLSTSegLib import __version__
from NLSTSegLib.checks.preflight import Finding
from NLSTSegLib.jobs.diagnostics import CtFacts, diagnostics_text, model_facts, without_paths
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.volume.ct import Acquisition

ROOT = Path(__file__).resolve().parents[3]

MARK = "MARKED"
"""Stands for whatever must not get out; it is in every text that a patient's or user's name may be in."""


class TestDiagnostics(unittest.TestCase):
    def text(self, **changes) -> str:
        ct = chest_ct(np.eye(3))
        acquisition = Acquisition(series_uid=f"1.2.{MARK}", series_description=MARK, format="DICOM")
        values = {
            "slicer_version": "5.13.0 revision 33333",
            "sentence": "The run failed.",
            "log": "nlstseg: error: something",
            "options": RunOptions(threshold=0.4, device="cpu"),
            "ct": CtFacts.of(replace(ct, acquisition=acquisition)),
            "findings": [Finding("warning", "thick_slices", "The slices are 6.00 mm apart.", "")],
            "facts": {"weights_sha256": "ab" * 32},
        }
        return diagnostics_text(**values | changes)

    def test_what_is_needed_is_there(self):
        text = self.text()
        for part in (
            f"version: {__version__}",
            "3D Slicer: 5.13.0 revision 33333",
            "told: The run failed.",
            "Python: 3.",
            "CPUs: ",
            "size_ijk: (60, 56, 40)",
            "spacing_ijk_mm: (3.0, 3.2, 4.0)",
            "orientation: LPS",
            "voxel_type: int16",
            "range_hu: (-1000.0, ",
            "model: lidc-25d",
            "device: cpu",
            "threshold: 0.4",
            "warning thick_slices: The slices are 6.00 mm apart.",
            "weights_sha256: abab",
            "nlstseg: error: something",
        ):
            self.assertIn(part, text)
        self.assertRegex(text, r"torch: \d+\.\d+")

    def test_no_patient_and_no_user_is_in_it(self):
        home = str(Path.home())
        log = "\n".join(
            (
                f"nlstseg: error: '/data/{MARK} JANE/ct.nrrd' cannot be read; give another",
                f"cannot open /data/{MARK} JANE/scan {MARK}.nrrd",
                f"{home}/{MARK} {MARK}.dcm is damaged",
                rf"D:\People\{MARK} JANE\ct.nrrd, and \\server\share\{MARK}",
                rf"PermissionError: [WinError 5] 'D:\\People\\{MARK}\\x'",
                f'  File "/opt/other/{MARK}.py", line 3, in <module>',
                f"the volume '{MARK}^JANE' holds no voxels",
                f"file=/{MARK}",
                f"~/{MARK}/x",
                f"the volume named {MARK.lower()}^jane",
            )
        )
        text = self.text(
            log=log,
            sentence=f"The CT '{MARK}^JANE' is not there.",
            options=RunOptions(model=f"/data/{MARK}/model"),
            facts={"model": f"there is no model '/data/{MARK}/model'"},
            findings=[Finding("warning", "x", f"'{MARK}^JANE' is thick.")],
            names=[f"{MARK}^JANE"],
        )
        self.assertEqual(re.findall(f".*(?:{MARK}|JANE).*", text, re.IGNORECASE), [])
        self.assertNotIn(home + "/", text)
        self.assertIn("cannot be read; give another", text, "what is said about the file stays")
        self.assertIn("line 3, in <module>", text)

    def test_files_of_the_program_keep_their_place(self):
        here = ROOT / "NLSTSegLib" / "pipeline.py"
        self.assertEqual(without_paths(f'  File "{here}", line 7'), '  File "<program>/pipeline.py", line 7')
        library = f"{sys.prefix}/lib/site-packages/torch/x.py"
        self.assertEqual(without_paths(f'  File "{library}", line 7'), '  File "<python>/lib/site-packages/torch/x.py", line 7')

    def test_what_is_no_path_stays(self):
        for text in ("3 lesions and/or 512/2 at 0.7 mm3", "1/2", "CT 'a' has 3 values", "17:30 h"):
            self.assertEqual(without_paths(text), text)

    def test_short_names_leave_other_words_alone(self):
        text = self.text(sentence="The CT 'CT' is no CT.", names=["CT"])
        self.assertIn("told: The CT '<name>' is no CT.", text)

    def test_a_model_that_is_none_is_told(self):
        self.assertIn("there is no model 'x'", model_facts("x")["model"])
        self.assertRegex(model_facts("lidc-25d")["weights_sha256"], "^[0-9a-f]{64}$")

    def test_torch_is_not_imported_for_its_version(self):
        code = (
            "import sys; from NLSTSegLib.jobs.diagnostics import diagnostics_text; "
            "diagnostics_text(slicer_version='', sentence='', log=''); sys.exit('torch' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


if __name__ == "__main__":
    unittest.main()
