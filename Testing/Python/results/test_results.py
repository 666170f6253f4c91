"""The files of a result, and that a folder is written whole or not at all."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from helpers.child_processes import WAIT_S
from helpers.example_results import LESION_HU, ct_with_spheres, oblique_direction, result_for
from NLSTSegLib import __version__
from NLSTSegLib.checks.preflight import Finding
from NLSTSegLib.disk.atomic_folder import atomic_folder, held
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.coding import segment_color
from NLSTSegLib.lesions.rows import COLUMNS
from NLSTSegLib.phantom.folder import write_phantom
from NLSTSegLib.phantom.lesion import PhantomLesion
from NLSTSegLib.phantom.make import Phantom
from NLSTSegLib.pipeline import SegmentationResult
from NLSTSegLib.results import preview
from NLSTSegLib.results.folder import check_output, write_result
from NLSTSegLib.results.report import make_report
from NLSTSegLib.volume.ct import Acquisition, CtVolume

FILES = {"segmentation.seg.nrrd", "labels.nrrd", "lesions.csv", "preview.png", "report.json"}

IN_PATIENT = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
"""LPS axis and sign of a letter of an orientation."""


def direction(orientation: str, *, oblique: bool = False) -> tuple[float, ...]:
    """Directions of i, j, k that point to the sides named, exactly or nearly."""
    axes, signs = zip(*(IN_PATIENT[letter] for letter in orientation), strict=True)
    if oblique:
        return oblique_direction(axes, signs)
    return tuple((np.eye(3)[:, axes] * signs).ravel().tolist())


def result_of(boxes: list[tuple[slice, ...]], shape_kji=(40, 40, 40), spacing_ijk_mm=(1.0, 1.0, 1.0), orientation="LPS"):
    """A result whose lesions are boxes of voxels ``[k, j, i]`` of the source."""
    hu = np.full(shape_kji, -800, np.int16)
    for box in boxes:
        hu[box] = LESION_HU
    return result_for(CtVolume(hu, spacing_ijk_mm, (0.0, 0.0, 0.0), direction(orientation)))


def cube(k: int, j: int, i: int, size: int = 3) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start in (k, j, i))


class FolderTestCase(unittest.TestCase):
    def setUp(self):
        self.parent = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.folder = self.parent / "result"

    def hashes(self, folder: Path) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    def assert_only(self, *names: str):
        self.assertEqual(sorted(os.listdir(self.parent)), sorted(names))


class TestFiles(FolderTestCase):
    def test_folder_holds_exactly_the_files_of_a_result(self):
        result = result_for(ct_with_spheres())
        write_result(result, self.folder)
        self.assertEqual(set(os.listdir(self.folder)), FILES)
        write_result(result, self.folder, force=True, save_probability=True)
        self.assertEqual(set(os.listdir(self.folder)), FILES | {"probability.nrrd"})
        write_result(result, self.folder, force=True)
        self.assertEqual(set(os.listdir(self.folder)), FILES)
        self.assert_only("result")

    def test_masks_lie_on_the_voxels_of_the_source(self):
        for orientation in ("LPS", "LPI", "ASR"):
            ct = ct_with_spheres(direction_lps=direction(orientation, oblique=True))
            result = result_for(ct)
            write_result(result, self.folder, force=True, save_probability=True)
            expected = {"labels.nrrd": result.labels, "probability.nrrd": result.probability}
            # The lesions are the soft tissue of the CT, whatever way its axes run.
            np.testing.assert_array_equal(result.labels > 0, ct.hu == LESION_HU)
            for name, array in expected.items():
                image = sitk.ReadImage(str(self.folder / name))
                with self.subTest(orientation=orientation, name=name):
                    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
                    self.assertEqual(image.GetPixelID(), sitk.sitkUInt8)
                    self.assertEqual(image.GetSize(), ct.hu.shape[::-1])
                    np.testing.assert_allclose(image.GetSpacing(), ct.spacing_ijk_mm, rtol=1e-12)
                    np.testing.assert_allclose(image.GetOrigin(), ct.origin_lps_mm, rtol=1e-12)
                    np.testing.assert_allclose(image.GetDirection(), ct.direction_lps, atol=1e-12)

    def test_result_without_lesions_has_every_file(self):
        write_result(result_of([]), self.folder)
        self.assertEqual(set(os.listdir(self.folder)), FILES)
        self.assertEqual((self.folder / "lesions.csv").read_text().splitlines(), [",".join(COLUMNS)])
        self.assertEqual(json.loads((self.folder / "report.json").read_text())["lesions"], [])
        self.assertFalse(sitk.GetArrayFromImage(sitk.ReadImage(str(self.folder / "labels.nrrd"))).any())

    def test_progress_runs_up_and_may_stop_the_writing(self):
        seen = []
        write_result(result_of([cube(9, 9, 9)]), self.folder, progress=lambda done, stage: seen.append((done, stage)))
        self.assertEqual(seen, sorted(seen))
        self.assertEqual({stage for _, stage in seen}, {"write"})
        before = self.hashes(self.folder)

        def stop(done: float, stage: str) -> None:
            if done > 0.5:
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            write_result(result_of([]), self.folder, force=True, progress=stop)
        self.assertEqual(self.hashes(self.folder), before)
        self.assert_only("result")


class TestTable(FolderTestCase):
    def test_columns_are_those_of_the_issue_and_rows_go_by_volume(self):
        result = result_for(ct_with_spheres())
        write_result(result, self.folder)
        with open(self.folder / "lesions.csv", newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        self.assertEqual(
            ",".join(header),
            "lesion,score,volume_mm3,equivalent_diameter_mm,long_axis_mm,short_axis_mm,mean_diameter_mm,mean_hu,"
            "solid_volume_mm3,centroid_l_mm,centroid_p_mm,centroid_s_mm,slice,side,third",
        )
        self.assertEqual([row[0] for row in rows], ["Lesion 01", "Lesion 02", "Lesion 03"])
        volumes = [int(row[2]) for row in rows]
        self.assertEqual(volumes, sorted(volumes, reverse=True))
        voxels = np.bincount(result.labels.ravel())[1:] * 0.8 * 0.7 * 1.5
        np.testing.assert_allclose(volumes, voxels, atol=0.5)
        shown = [[str(value) for value in row.values()] for row in result.to_rows()]
        self.assertEqual(rows, shown)

    def test_halves_are_rounded_up(self):
        result = result_of([cube(9, 9, 9)])
        lesion = result.lesions[0]
        sizes = dataclasses.replace(
            lesion.measurements,
            volume_mm3=2.5,
            equivalent_diameter_mm=2.25,
            long_axis_mm=5.45,
            short_axis_mm=0.05,
            mean_diameter_mm=2.675,
            mean_hu=-0.4,
            solid_volume_mm3=0.49999,
            centroid_lps_mm=(-12.25, 0.25, -0.04),
        )
        row = result.row(dataclasses.replace(lesion, score=0.0625, measurements=sizes))
        self.assertEqual(
            ",".join(map(str, row.values())),
            "Lesion 01,0.063,3,2.3,5.5,0.1,2.7,0,0,-12.3,0.3,0.0,9,,",
        )

    def test_slice_counts_along_the_source_axis_that_runs_head_to_foot(self):
        for orientation in ("LPS", "LPI", "RAI", "PSL", "ASR", "PIR", "SLP", "IAR"):
            for oblique in (False, True):
                axis = next(n for n, letter in enumerate(orientation) if letter in "SI")
                hu = np.full((20, 24, 28), -800, np.int16)
                hu[6:15, 6:15, 6:15] = LESION_HU
                # One slice across that axis is larger than the others.
                wide = [slice(3, 18)] * 3
                wide[2 - axis] = slice(11, 12)
                hu[tuple(wide)] = LESION_HU
                ct = CtVolume(hu, (1.0, 1.1, 1.2), direction_lps=direction(orientation, oblique=oblique))
                with self.subTest(orientation=orientation, oblique=oblique):
                    self.assertEqual(ct.orientation, orientation)
                    (row,) = result_for(ct).to_rows()
                    self.assertEqual(row["slice"], 11)


class TestPreview(FolderTestCase):
    def pixels(self, result: SegmentationResult) -> np.ndarray:
        """``[row, column, RGB]``."""
        preview.write_preview(result, self.parent / "preview.png")
        with Image.open(self.parent / "preview.png") as image:
            self.assertEqual((image.format, image.mode), ("PNG", "RGB"))
            return np.asarray(image)

    def panels(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Axial, coronal and sagittal cut-out of the first lesion."""
        side = preview.PANEL_PX
        return [pixels[8 : 8 + side, 8 + n * (side + 4) : 8 + n * (side + 4) + side] for n in range(3)]

    def outline(self, pixels: np.ndarray, label: int) -> np.ndarray:
        """Whether a pixel has exactly the colour of the lesion's segment."""
        return (pixels == [round(255 * part) for part in segment_color(label)]).all(axis=-1)

    def test_outline_runs_around_the_lesion_at_the_scale_of_the_bar(self):
        # In pixels of the panel, which shows 50 mm: the outline lies one outside the lesion on each side.
        for spacing_ijk_mm in ((1.0, 1.0, 1.0), (0.7, 0.8, 5.0), (0.6, 0.6, 3.0)):
            result = result_of([(slice(16, 20), slice(30, 50), slice(40, 54))], (36, 80, 90), spacing_ijk_mm)
            size_mm = np.array([14, 20, 4]) * spacing_ijk_mm
            pixels = self.pixels(result)
            for n, (panel, across, along) in enumerate(zip(self.panels(pixels), (0, 0, 1), (1, 2, 2), strict=True)):
                outline = self.outline(panel, 1)
                with self.subTest(spacing=spacing_ijk_mm, panel=n):
                    rows, columns = outline.nonzero()
                    px = preview.PANEL_PX / max(preview.SMALLEST_VIEW_MM, 1.6 * size_mm.max())
                    self.assertAlmostEqual(np.ptp(columns) - 1, size_mm[across] * px, delta=1.01)
                    self.assertAlmostEqual(np.ptp(rows) - 1, size_mm[along] * px, delta=1.01)
                    # A closed line: every row and column between has it on both sides, and nothing is filled.
                    self.assertTrue((outline[rows.min() : rows.max() + 1].sum(axis=1) >= 2).all())
                    self.assertFalse(outline[rows.min() + 2 : rows.max() - 1, columns.min() + 2 : columns.max() - 1].any())

    def test_cuts_are_the_right_way_round_for_every_source(self):
        # Soft tissue left, posterior and superior of the lesion, and the way to it in the picture (row, column).
        wanted = {"L": (1, 0, 10), "P": (1, 10, 0), "S": (0, -10, 0)}
        for orientation in ("LPS", "RAI", "PSL"):
            for side in "LPS":
                hu = np.full((40, 40, 40), -800, np.int16)
                hu[cube(18, 18, 18, 4)] = LESION_HU
                axis = next(n for n, letter in enumerate(orientation) if IN_PATIENT[letter][0] == IN_PATIENT[side][0])
                mark = [slice(18, 22)] * 3
                start = 18 + 10 * IN_PATIENT[orientation[axis]][1]
                mark[2 - axis] = slice(start, start + 3)
                hu[tuple(mark)] = LESION_HU
                result = result_for(CtVolume(hu, (1.0, 1.0, 1.0), direction_lps=direction(orientation)), min_volume_mm3=50)
                axial, coronal, sagittal = self.panels(self.pixels(result))
                for panel in (axial, coronal) if side == "L" else (axial,) if side == "P" else (coronal, sagittal):
                    outline = self.outline(panel, 1)
                    rows, columns = outline.nonzero()
                    bright = (panel.min(axis=-1) > 200) & ~outline
                    bright[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = False
                    way = np.argwhere(bright).mean(axis=0) - (rows.mean(), columns.mean())
                    px = preview.PANEL_PX / preview.SMALLEST_VIEW_MM
                    with self.subTest(orientation=orientation, side=side):
                        np.testing.assert_allclose(way, np.array(wanted[side][1:]) * px, atol=1.6 * px)

    def test_picture_without_lesions_shows_a_slice_and_no_outline(self):
        pixels = self.pixels(result_of([]))
        self.assertEqual(pixels.shape, (264 + 16, 680 + 16, 3))
        self.assertFalse(any(self.outline(pixels, label).any() for label in range(1, 10)))
        self.assertEqual(len(np.unique(self.panels(pixels)[0][20:200, 20:200])), 1, "the slice is all lung")

    def test_size_of_the_picture_follows_the_number_of_lesions(self):
        places = [cube(k, j, i) for k in range(2, 38, 9) for j in range(2, 38, 9) for i in range(2, 38, 9)]
        for count, columns, rows in ((1, 1, 1), (2, 1, 2), (3, 2, 2), (30, 4, 8)):
            pixels = self.pixels(result_of(places[:count]))
            with self.subTest(count=count):
                self.assertEqual(pixels.shape, (rows * (264 + 8) + 8, columns * (680 + 8) + 8, 3))
                for n in range(count):
                    top, left = 8 + n // columns * 272, 8 + n % columns * 688
                    tile = pixels[top : top + 264, left : left + 680]
                    self.assertGreater(self.outline(tile, n + 1).sum(), 30, f"no outline of lesion {n + 1} in its place")

    def test_picture_shows_the_largest_of_very_many_lesions(self):
        result = result_of([cube(k, j, i) for k in range(2, 38, 9) for j in range(2, 38, 9) for i in range(2, 38, 9)])
        self.assertEqual(len(result.lesions), 64)
        pixels = self.pixels(result)
        self.assertEqual(pixels.shape, (15 * 272 + 8 + 24, 4 * 688 + 8, 3))
        self.assertGreater(pixels[-24:].max(), 200, "nothing says how many are not shown")


class TestReport(FolderTestCase):
    def test_report_tells_how_the_result_came_about(self):
        ct = ct_with_spheres(direction_lps=direction("LPI", oblique=True))
        result = dataclasses.replace(
            result_for(ct, threshold=0.4, min_volume_mm3=12.0),
            findings=(Finding("warning", "few_slices", "There are only 3 slices.", "Give all."),),
            seconds={"check": 1.25, "network": 2.5},
            device_note="CPU, 2 threads, float32",
        )
        write_result(result, self.folder, seconds={"read": 0.5})

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        report = json.loads((self.folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
        self.assertEqual(report["program"], {"name": "NLSTSeg", "version": __version__})
        self.assertIn("not for clinical use", report["notice"])
        self.assertEqual(
            report["model"],
            {
                "name": result.card.name,
                "version": result.card.version,
                "description": result.card.description,
                "licence": result.card.licence,
                "attribution": result.card.attribution,
                "training_data": result.card.training_data,
                "intended_use": result.card.intended_use,
                "weights_sha256": result.card.weights_sha256,
            },
        )
        geometry = report["geometry"]
        self.assertEqual(geometry["size_ijk"], [48, 56, 32])
        self.assertEqual(geometry["spacing_ijk_mm"], [0.8, 0.7, 1.5])
        self.assertEqual(geometry["origin_lps_mm"], list(ct.origin_lps_mm))
        self.assertEqual(geometry["direction_lps"], list(ct.direction_lps))
        self.assertEqual(geometry["orientation"], "LPI")
        self.assertEqual(
            report["findings"],
            [{"severity": "warning", "code": "few_slices", "message": "There are only 3 slices.", "fix": "Give all."}],
        )
        self.assertEqual(
            report["options"],
            {"threshold": 0.4, "min_volume_mm3": 12.0, "lung_field": "none", "device": "CPU, 2 threads, float32"},
        )
        self.assertEqual(list(report["seconds"]), ["read", "write", "check", "network", "total"])
        self.assertAlmostEqual(report["seconds"]["total"], 4.25 + report["seconds"]["write"], places=3)
        self.assertEqual(report["lesions"], result.to_rows())
        if sys.platform != "win32":
            self.assertGreater(report["peak_memory_mb"], 10)

    def test_report_knows_the_input_by_the_hash_of_its_voxels_alone(self):
        acquisition = Acquisition(format="DICOM", modality="CT", series_uid="1.2.840.99", series_description="Chest of J Doe")
        result = result_of([cube(9, 9, 9)])
        ct = dataclasses.replace(result.ct, acquisition=acquisition)
        report = make_report(dataclasses.replace(result, ct=ct), {})
        self.assertEqual(set(report["input"]), {"format", "modality", "voxels_sha256"})
        self.assertEqual(report["input"]["voxels_sha256"], hashlib.sha256(ct.hu.tobytes()).hexdigest())
        text = json.dumps(report)
        # Whoever tries the UIDs of a scanner would find the one with this hash.
        self.assertNotIn(hashlib.sha256(b"1.2.840.99").hexdigest(), text)
        self.assertNotIn("1.2.840.99", text)
        self.assertNotIn("Doe", text)
        # The same voxels in another memory order are the same voxels.
        turned = dataclasses.replace(ct, hu=np.asfortranarray(ct.hu))
        self.assertEqual(make_report(dataclasses.replace(result, ct=turned), {})["input"], report["input"])

    def test_report_does_not_name_the_folder(self):
        folder = self.parent / "Doe^Jane"
        write_result(result_for(ct_with_spheres()), folder)
        for path in folder.iterdir():
            self.assertNotIn(b"Doe", path.read_bytes(), path.name)


class TestPlace(FolderTestCase):
    """Where a result may go, and that what was there stays."""

    def setUp(self):
        super().setUp()
        self.result = result_of([cube(9, 9, 9)])

    def assert_refused(self, pattern: str, folder: Path | None = None, *, force: bool = True):
        folder = folder or self.folder
        with self.assertRaisesRegex(InputError, pattern):
            check_output(folder, force)
        with self.assertRaisesRegex(InputError, pattern):
            write_result(self.result, folder, force=force)

    def test_earlier_result_is_replaced_with_force_only(self):
        write_result(self.result, self.folder)
        before = self.hashes(self.folder)
        self.assert_refused("earlier result.*--force", force=False)
        self.assertEqual(self.hashes(self.folder), before)
        write_result(result_of([]), self.folder, force=True)
        self.assertNotEqual(self.hashes(self.folder)["labels.nrrd"], before["labels.nrrd"])
        self.assert_only("result")

    def test_folder_with_other_files_is_refused_even_with_force(self):
        self.folder.mkdir()
        (self.folder / "thesis.txt").write_text("years of work")
        for force in (False, True):
            self.assert_refused("holds other files.*thesis.txt", force=force)
        self.assertEqual((self.folder / "thesis.txt").read_text(), "years of work")

    def test_files_put_beside_a_result_are_not_lost(self):
        # Many programs write a report.json; it does not make everything beside it ours.
        write_result(self.result, self.folder)
        (self.folder / "notes.txt").write_text("mine")
        self.assert_refused("holds other files.*notes.txt")
        (self.folder / "notes.txt").unlink()
        (self.folder / ".git").mkdir()
        self.assert_refused("holds other files.*.git")

    def test_another_programs_report_and_folders_or_links_of_our_names_are_not_replaced(self):
        write_result(self.result, self.folder)
        report = (self.folder / "report.json").read_text()
        for other in ('{"program": {"name": "Other"}}', '{"report": 1}', "[]", "no JSON", "[" * 100_000):
            (self.folder / "report.json").write_text(other)
            self.assert_refused("holds other files.*report.json")
            self.assertEqual((self.folder / "report.json").read_text(), other)
        (self.folder / "report.json").write_text(report)
        preview = self.folder / "preview.png"
        preview.unlink()
        preview.mkdir()
        (preview / "precious").touch()
        self.assert_refused("holds other files.*preview.png")
        self.assertTrue((preview / "precious").exists())
        (preview / "precious").unlink()
        preview.rmdir()
        if sys.platform != "win32":
            preview.symlink_to(self.folder / "report.json")
            self.assert_refused("holds other files.*preview.png")
            preview.unlink()
        write_result(self.result, self.folder, force=True)

    def test_folder_somebody_has_looked_at_counts_as_empty(self):
        self.folder.mkdir()
        (self.folder / ".DS_Store").write_bytes(b"\0")
        write_result(self.result, self.folder)
        self.assertEqual(set(os.listdir(self.folder)), FILES)

    def test_empty_folder_and_missing_parents_are_fine(self):
        self.folder.mkdir()
        write_result(self.result, self.folder)
        write_result(self.result, self.parent / "a" / "b" / "c")
        self.assertEqual(set(os.listdir(self.folder)), FILES)
        self.assertEqual(set(os.listdir(self.parent / "a" / "b" / "c")), FILES)

    def test_current_folder_can_be_the_output(self):
        self.folder.mkdir()
        with contextlib.chdir(self.folder):
            write_result(self.result, Path("."))
        self.assertEqual(set(os.listdir(self.folder)), FILES)
        self.assert_only("result")

    def test_name_with_pattern_characters_is_only_a_name(self):
        folder = self.parent / "a[1]*"
        leftover = self.parent / f".a[1]*.partial-{os.getpid()}"
        leftover.mkdir()
        write_result(self.result, folder)
        self.assert_only("a[1]*")

    def test_file_in_place_of_the_folder_is_refused(self):
        self.folder.write_text("a file")
        self.assert_refused("is not a folder")
        self.assertEqual(self.folder.read_text(), "a file")
        self.assert_refused("is not a folder", self.folder / "below" / "it")
        self.assert_only("result")

    def test_link_to_a_folder_stands_for_it(self):
        (self.parent / "elsewhere").mkdir()
        try:
            self.folder.symlink_to(self.parent / "elsewhere", target_is_directory=True)
        except OSError:
            self.skipTest("no right to make links")
        for force in (False, True):
            write_result(self.result, self.folder, force=force)
            self.assertTrue(self.folder.is_symlink())
            self.assertIn("report.json", os.listdir(self.parent / "elsewhere"))
            self.assert_only("result", "elsewhere")

    def test_link_that_leads_nowhere_is_refused(self):
        try:
            self.folder.symlink_to(self.parent / "nowhere", target_is_directory=True)
        except OSError:
            self.skipTest("no right to make links")
        self.assert_refused("is not a folder")

    def test_disk_of_its_own_is_refused(self):
        self.assert_refused("mount point", Path(os.path.abspath(os.sep)))

    def test_name_that_no_file_can_have_is_refused(self):
        # The longer ones could be made, but not the folder that is filled before it takes the name.
        for name in ("n" * 300, "n" * 250, "ň" * 125):
            self.assert_refused("too long", self.parent / name)
        deep = self.parent.joinpath(*["d" * 200] * 20)
        self.assert_refused("too long", deep)
        if os.name != "nt":
            self.assert_refused("not in UTF-8", self.parent / os.fsdecode(b"M\xfcller"))

    @unittest.skipIf(os.name == "nt", "rights work otherwise on Windows")
    def test_parent_without_the_right_to_write_is_refused_before_the_work(self):
        self.parent.chmod(0o555)
        self.addCleanup(self.parent.chmod, 0o755)
        root = os.geteuid() == 0
        if root:
            # Root may write everywhere, so another real user asks; the effective one stays to go back.
            os.setreuid(65534, 0)
        try:
            with self.assertRaisesRegex(InputError, "no right to write"):
                check_output(self.folder, False)
        finally:
            if root:
                os.setreuid(0, 0)


class TestInterruptions(FolderTestCase):
    """A full disk, a killed process: the earlier result is whole, and what is left over goes with the next run."""

    def setUp(self):
        super().setUp()
        write_result(result_of([cube(9, 9, 9)]), self.folder)
        self.before = self.hashes(self.folder)

    def run_child(self, code: str) -> subprocess.CompletedProcess:
        with self.child(code) as process:
            stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def child(self, code: str, **streams: int) -> subprocess.Popen:
        lines = (
            "import os, signal, sys",
            "from pathlib import Path",
            "from helpers.example_results import ct_with_spheres, result_for",
            "from NLSTSegLib.errors import InputError",
            "from NLSTSegLib.results.folder import write_result",
            f"folder = Path({str(self.folder)!r})",
            code,
        )
        here = Path(__file__).resolve()
        paths = os.pathsep.join((str(here.parents[1]), str(here.parents[3])))
        environment = {**os.environ, "PYTHONPATH": paths}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen([sys.executable, "-c", "\n".join(lines)], env=environment, text=True, **streams)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.parent))

    @unittest.skipIf(os.name == "nt", "file sizes cannot be limited there")
    def test_full_disk_leaves_the_earlier_result(self):
        # The limits stop the first file, the segmentation, and the picture.
        done = self.run_child(
            "import resource\n"
            "result = result_for(ct_with_spheres())\n"
            "for limit in (100, 2000, 20000):\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
            "    try: write_result(result, folder, force=True)\n"
            "    except InputError as error: print(error)\n"
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        messages = done.stdout.splitlines()
        self.assertEqual(len(messages), 3)
        for message in messages:
            self.assertRegex(
                message,
                r"result' could not be written \(.*(disk is full|full disk|File too large)\), nothing was changed there; ",
            )
        self.assertEqual(self.hashes(self.folder), self.before)
        self.assert_only("result")

    @unittest.skipIf(os.name == "nt", "there is no such signal")
    def test_killed_process_leaves_the_earlier_result_and_the_next_run_cleans_up(self):
        done = self.run_child(
            "def die(done, stage):\n"
            "    if done > 0.5: os.kill(os.getpid(), signal.SIGKILL)\n"
            "write_result(result_for(ct_with_spheres()), folder, force=True, progress=die)\n"
        )
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        self.assertEqual(self.hashes(self.folder), self.before)
        partial = next(name for name in self.names() if ".partial-" in name)
        self.assertEqual(self.names(), [".result.lock", partial, "result"], "the process was killed while it wrote")
        with self.assertRaises(InputError):
            check_output(self.folder, False)
        self.assert_only("result")
        self.assertEqual(self.hashes(self.folder), self.before)

    def test_leftovers_go_whatever_process_has_their_number_now_and_those_of_another_folder_stay(self):
        for name in ("result.partial-1", f"result.partial-{os.getpid()}", "result.partial-999999", "other.partial-1"):
            (self.parent / f".{name}").mkdir()
            (self.parent / f".{name}" / "labels.nrrd").write_bytes(b"half")
        (self.parent / ".result.lock").touch()
        write_result(result_of([]), self.folder, force=True)
        self.assert_only(".other.partial-1", "result")

    def test_another_run_is_refused_and_its_files_stay(self):
        code = (
            "import sys\n"
            "from NLSTSegLib.disk.atomic_folder import atomic_folder\n"
            "with atomic_folder(folder) as partial:\n"
            "    (partial / 'report.json').write_text('new')\n"
            "    print('ready', flush=True)\n"
            "    sys.stdin.readline()\n"
        )
        with self.child(code, stdin=subprocess.PIPE) as alive:
            self.assertEqual(alive.stdout.readline(), "ready\n")
            there = self.names()
            self.assertEqual(there, [".result.lock", f".result.partial-{alive.pid}", "result"])
            with self.assertRaisesRegex(InputError, "another run is writing to '.*result'; wait"):
                check_output(self.folder, True)
            with self.assertRaisesRegex(InputError, "another run is writing to '.*result'; wait"):
                write_result(result_of([]), self.folder, force=True)
            self.assertEqual(self.names(), there)
            self.assertEqual(self.hashes(self.folder), self.before)
            alive.communicate("\n", timeout=WAIT_S)
        self.assertEqual(alive.returncode, 0)
        self.assertEqual((self.folder / "report.json").read_text(), "new")
        self.assert_only("result")

    def test_a_thread_may_hold_the_folder_twice_and_another_may_not(self):
        with held(self.folder), held(self.folder):
            write_result(result_of([]), self.folder, force=True)
            with ThreadPoolExecutor(1) as other:
                refused = other.submit(check_output, self.folder, True)
                self.assertIsInstance(refused.exception(), InputError)
            self.assertEqual(self.names(), [".result.lock", "result"])
        check_output(self.folder, True)
        self.assert_only("result")

    def test_folders_made_for_nothing_go_again(self):
        with self.assertRaises(InputError), held(self.parent / "a" / "b" / "c"):
            self.assertTrue((self.parent / "a" / "b").is_dir())
            raise InputError("no CT")
        self.assert_only("result")

    def test_run_killed_between_its_two_renames_gives_the_earlier_result_back(self):
        self.folder.rename(self.parent / ".result.replaced")
        # Without force nothing may be written over it, although it is not there under its name.
        with self.assertRaisesRegex(InputError, "earlier result"):
            write_result(result_of([]), self.folder)
        self.assertEqual(self.hashes(self.folder), self.before)
        self.assert_only("result")

    def test_run_killed_after_its_renames_leaves_the_new_result(self):
        replaced = self.parent / ".result.replaced"
        replaced.mkdir()
        (replaced / "report.json").write_text("old")
        with self.assertRaisesRegex(InputError, "earlier result"):
            check_output(self.folder, False)
        self.assertEqual(self.hashes(self.folder), self.before)
        self.assert_only("result")

    def test_earlier_content_comes_back_when_the_new_cannot_take_its_name(self):
        with self.assertRaisesRegex(InputError, "nothing was changed"), atomic_folder(self.folder) as partial:
            # Somebody tidies up the temporary folder.
            partial.rmdir()
        self.assertEqual(self.hashes(self.folder), self.before)
        self.assert_only("result")

    def test_errors_of_the_program_are_not_taken_for_those_of_the_disk(self):
        with self.assertRaisesRegex(RuntimeError, "^a bug$"), atomic_folder(self.folder) as partial:
            (partial / "file").write_text("half")
            raise RuntimeError("a bug")
        self.assertEqual(self.hashes(self.folder), self.before)
        self.assert_only("result")


class TestPhantomFiles(FolderTestCase):
    def phantom(self) -> Phantom:
        ct = ct_with_spheres(direction_lps=direction("LPS"))
        labels = (ct.hu == LESION_HU).astype(np.uint8)
        return Phantom(ct, labels, (PhantomLesion(1, "solid", 12.0, 12.0, (-20.25, 24.96, -93.9), 30.0),))

    def test_ct_and_truth_come_back_as_they_were(self):
        phantom = self.phantom()
        write_phantom(phantom, self.folder)
        self.assertEqual(set(os.listdir(self.folder)), {"ct.nrrd", "truth.nrrd", "lesions.csv"})
        for name, array in (("ct.nrrd", phantom.ct.hu), ("truth.nrrd", phantom.labels)):
            image = sitk.ReadImage(str(self.folder / name))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
            self.assertEqual(image.GetSpacing(), phantom.ct.spacing_ijk_mm)
            self.assertEqual(image.GetOrigin(), phantom.ct.origin_lps_mm)
        self.assertEqual(
            (self.folder / "lesions.csv").read_text().splitlines(),
            [
                "lesion,kind,diameter_mm,solid_diameter_mm,centre_l_mm,centre_p_mm,centre_s_mm,hu",
                "1,solid,12.0,12.0,-20.3,25.0,-93.9,30.0",
            ],
        )

    def test_same_phantom_gives_the_same_bytes(self):
        write_phantom(self.phantom(), self.folder)
        write_phantom(self.phantom(), self.parent / "again")
        self.assertEqual(self.hashes(self.folder), self.hashes(self.parent / "again"))

    def test_folder_that_holds_anything_is_refused(self):
        write_phantom(self.phantom(), self.folder)
        before = self.hashes(self.folder)
        with self.assertRaisesRegex(InputError, "not empty"):
            write_phantom(self.phantom(), self.folder)
        self.assertEqual(self.hashes(self.folder), before)
        self.assert_only("result")
