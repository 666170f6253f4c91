"""Several CTs in one call of ``nlstseg segment`` or ``check``, the same call again, and other kinds of output."""

import json
import os
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.dicom_files import write_series
from helpers.placed_chest import LESIONS, chest_ct
from helpers.threshold_model import THRESHOLD_HU
from helpers.whole_command import WholeCommandTest
from NLSTSegLib.cli.inputs import find_cases
from NLSTSegLib.reading.read import read_ct

HEADS = ["case", *["a"] * len(LESIONS), *["b"] * len(LESIONS)]


class TestManyInputs(WholeCommandTest):
    def setUp(self):
        super().setUp()
        self.ct = chest_ct(np.diag([1.0, -1.0, 1.0]))

    def chest_in(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(self.ct.to_image(), str(path))
        return path

    def segment(self, *arguments: object, exit_code: int = 0):
        done = self.run_command("segment", *arguments, "--model", self.bundle, "--threads", 1)
        self.assertEqual(done.exit_code, exit_code, done.stderr)
        return done

    def cases(self, table: Path) -> list[str]:
        return [row.split(",")[0] for row in table.read_text(encoding="utf-8").splitlines()]

    def times(self, folder: Path) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    def test_seg_and_sr_that_are_missing_are_added_to_a_result_and_belong_to_no_single_file(self):
        ct = chest_ct(np.eye(3))
        orientation = ct.direction_matrix[:, :2].T.ravel().tolist()
        write_series(self.folder / "dicom", ct.hu, ct.spacing_ijk_mm, ct.origin_lps_mm, orientation)
        arguments = (self.folder / "dicom", "-o", self.out, "--skip-existing")
        self.segment(*arguments)
        before = self.times(self.out)
        self.segment(*arguments, "--dicom-seg")
        self.assertEqual(
            set(self.times(self.out)) - set(before), {self.out / "lesions.seg.dcm", self.out / "measurements.sr.dcm"}
        )
        after = self.times(self.out)
        self.segment(*arguments, "--dicom-seg")
        self.assertEqual(self.times(self.out), after)
        self.assertLessEqual(before.items(), after.items())
        done = self.segment(self.folder / "dicom", "--labels-only", self.folder / "x.nrrd", "--dicom-seg", exit_code=2)
        self.assertIn("--labels-only writes one file", done.stderr)

    def test_folder_of_files_is_done_and_goes_on_when_one_is_added(self):
        folder = self.folder / "cts"
        self.chest_in(folder / "a.nrrd")
        arguments = (folder, "-o", self.out, "--skip-existing", "--format", "nifti")
        self.segment(*arguments)
        self.assertEqual(sorted(os.listdir(self.out)), ["a", "lesions.csv"])
        self.assertIn("labels.nii.gz", os.listdir(self.out / "a"))
        before = self.times(self.out / "a")

        self.chest_in(folder / "b.nii.gz")
        done = self.segment(*arguments, "--json-progress", "--quiet")
        self.assertEqual(self.times(self.out / "a"), before)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([line["message"] for line in lines if line["stage"] == "skipped"], ["1 of 2 skipped, 50%"])
        self.assertEqual((lines[-1]["stage"], lines[-1]["message"]), ("end", "2 of 2 done"))
        self.assertEqual([(case["case"], case["count"]) for case in lines[-1]["cases"]], [("a", 3), ("b", 3)])
        self.assertEqual(self.cases(self.out / "lesions.csv"), HEADS)
        self.assertEqual(self.cases(self.out / "b" / "lesions.csv"), ["case", "b", "b", "b"])

        # What is there was made with other options, or of another CT: nothing is replaced unasked, and with --force it is.
        done = self.segment(*arguments, "--threshold", "0.7", exit_code=2)
        self.assertRegex(done.stderr, "result of another CT, model or options; only --force")
        self.ct.hu[self.ct.hu > THRESHOLD_HU] = -850
        self.chest_in(folder / "a.nrrd")
        done = self.segment(*arguments, exit_code=2)
        self.assertIn("1 of 2 inputs failed", done.stderr)
        self.assertEqual(self.times(self.out / "a"), before)
        self.segment(*arguments, "--force")
        self.assertEqual(self.cases(self.out / "a" / "lesions.csv"), ["case"])
        self.assertEqual(self.cases(self.out / "lesions.csv"), ["case", "b", "b", "b"])

        # A folder for several does not take the place of a single result, nor of another table.
        self.assertIn("single CT", self.segment(folder, "-o", self.out / "b", exit_code=2).stderr)
        (self.out / "lesions.csv").write_text("name,age\n")
        self.assertIn("not a table of results", self.segment(*arguments, exit_code=2).stderr)

    def test_folder_with_dicom_and_image_files_is_refused(self):
        write_series(self.folder / "mixed", np.full((3, 16, 16), -850, np.int16))
        self.chest_in(self.folder / "mixed" / "labels.nrrd")
        self.assert_refused(self.folder / "mixed", "holds DICOM and image files (labels.nrrd)")

    def test_several_patients_are_refused_or_all_are_done(self):
        dicom, every = self.folder / "dicom", self.out / "all"
        for n, patient in enumerate(("A-1", "B-2"), start=1):
            made = {"PatientID": patient, "SeriesInstanceUID": f"1.2.826.{n}"}
            write_series(dicom / patient, self.ct.hu, self.ct.spacing_ijk_mm, **made)
        done = self.segment(dicom, "-o", self.out / "one", exit_code=2)
        self.assertRegex(
            done.stderr,
            r"several patients; choose one with --series \(in Python .*, or all with --all-series: CT .*1.; CT .*2",
        )
        self.segment(dicom, "-o", self.out / "one", "--series", "1.2.826.1")
        done = self.segment(dicom, "-o", every, "--all-series", "--quiet")
        self.assertEqual(done.stdout, "")
        table, *names = sorted(os.listdir(every))
        self.assertEqual(table, "lesions.csv")
        self.assertRegex(" ".join(names), "^(series-001-[0-9a-f]{8}) \\1-2$", "the same voxels twice")
        one = sitk.GetArrayFromImage(sitk.ReadImage(str(self.out / "one" / "labels.nrrd")))
        self.assertEqual(one.max(), 3)
        for name in names:
            labels = sitk.GetArrayFromImage(sitk.ReadImage(str(every / name / "labels.nrrd")))
            np.testing.assert_array_equal(labels, one)
        for word in ("A-1", "B-2"):
            self.assertNotIn(word, done.stderr)

    def test_series_keep_their_names_whatever_else_comes_into_the_folder(self):
        def names() -> list[str]:
            return [case.name for case in find_cases([self.folder], all_series=True)[0]]

        before: list[str] = []
        for number in (3, 2, 1):
            write_series(self.folder / str(number), self.ct.hu[number:8] + np.int16(number), SeriesNumber=number)
            found = names()
            self.assertEqual(len(set(found)), 4 - number)
            self.assertEqual(found[1:], before)
            before = found
        self.assertRegex(found[0], "^series-001-[0-9a-f]{8}$")

    def test_label_map_alone_is_one_file(self):
        source, target = self.chest_in(self.folder / "chest.nrrd"), self.folder / "only" / "lesions.nii.gz"
        done = self.segment(source, "--labels-only", target, "--verbose")
        self.assertRegex(done.stdout, r"model threshold 1, lung field auto, CPU.*\n.*network \d")
        self.assertEqual(os.listdir(target.parent), [target.name])
        self.segment(source, "-o", self.out)
        whole = sitk.GetArrayFromImage(sitk.ReadImage(str(self.out / "labels.nrrd")))
        image = sitk.ReadImage(str(target))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), whole)
        np.testing.assert_allclose(image.GetDirection(), self.ct.direction_lps, atol=1e-6)
        done = self.segment(source, "--labels-only", target, exit_code=2)
        self.assertIn("is there already; only --force", done.stderr)

    def test_nifti_is_refused_for_a_grid_it_cannot_hold(self):
        sheared = tuple(np.array([[1, 0, 0.3], [0, 1, 0], [0, 0, np.sqrt(1 - 0.09)]]).ravel().tolist())
        image = self.ct.to_image()
        image.SetDirection(sheared)
        sitk.WriteImage(image, str(self.folder / "tilted.nrrd"))
        self.assertFalse(read_ct(self.folder / "tilted.nrrd").is_orthogonal)
        for options in (("-o", self.out / "x", "--format", "nifti"), ("--labels-only", self.out / "x.nii.gz")):
            done = self.segment(self.folder / "tilted.nrrd", *options, exit_code=2)
            self.assertIn("not at right angles, which NIfTI cannot hold", done.stderr)
        self.assertFalse((self.out / "x").exists() or (self.out / "x.nii.gz").exists())

    def test_several_are_checked_and_one_that_is_refused_does_not_stop_the_rest(self):
        (self.folder / "text.nrrd").write_text("no image")
        done = self.run_command("check", self.folder / "text.nrrd", self.chest_in(self.folder / "chest.nrrd"))
        self.assertEqual(done.exit_code, 2)
        self.assertIn("voxels of", done.stdout)
        self.assertRegex(done.stderr, "text.nrrd(?s:.*)1 of 2 inputs would be refused")


if __name__ == "__main__":
    unittest.main()
