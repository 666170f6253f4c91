"""DICOM series are found, chosen and read rightly, or refused in one line that names the file."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from helpers.dicom_files import change, small_chest, write_directory, write_enhanced, write_series
from helpers.marks import real_data
from helpers.shared_data import shared_data
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.dicom_choice import choose_chest_series
from NLSTSegLib.reading.dicom_folder import list_series, series_of_file
from NLSTSegLib.reading.dicom_series import read_series
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.volume.regular_grid import slice_stack

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


class DicomTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "Lékař 胸部"
        self.hu = small_chest()

    def read(self, **options):
        return read_series(choose_chest_series(list_series(self.folder), **options))

    def refused(self, *words):
        """The one line with which the folder is refused; ``words`` must be in it."""
        with self.assertRaises(InputError) as raised:
            self.read()
        text = str(raised.exception)
        self.assertNotIn("\n", text)
        for word in words:
            self.assertIn(str(word), text)
        return text


class ReadTest(DicomTest):
    def test_values_are_hu_and_geometry_is_the_headers(self):
        write_series(self.folder, self.hu, (0.7, 0.8, 2.5), (-150.0, -160.0, -300.0), SeriesDescription="Lunge dünn")
        ct = self.read()
        np.testing.assert_array_equal(ct.hu, self.hu)
        self.assertEqual(ct.hu.dtype, np.int16)
        np.testing.assert_allclose(ct.spacing_ijk_mm, (0.7, 0.8, 2.5), atol=1e-9)
        self.assertEqual(ct.origin_lps_mm, (-150.0, -160.0, -300.0))
        np.testing.assert_array_equal(ct.direction_matrix, np.eye(3))
        self.assertEqual(ct.acquisition.modality, "CT")
        self.assertEqual(ct.acquisition.series_description, "Lunge dünn")
        self.assertEqual(ct.acquisition.format, "DICOM")
        origins = [(-150.0, -160.0, -300 + 2.5 * k) for k in range(20)]
        np.testing.assert_allclose(ct.acquisition.slice_origins_lps_mm, origins)
        self.assertTrue(slice_stack(ct).is_regular)
        self.assertFalse(ct.acquisition.rescale_missing)

    def test_file_names_and_endings_do_not_matter(self):
        shuffled = np.random.default_rng(1).permutation(len(self.hu))
        write_series(self.folder, self.hu, name=lambda k: f"IM{shuffled[k]}")
        np.testing.assert_array_equal(self.read().hu, self.hu)

    def test_oblique_and_flipped_slices_are_where_the_headers_say(self):
        rng = np.random.default_rng(2)
        for case in range(4):
            i, j, _ = np.linalg.qr(rng.normal(size=(3, 3)))[0].T
            with self.subTest(case=case):
                write_series(self.folder / str(case), self.hu, (0.7, 0.8, 2.5), (1.0, 2.0, 3.0), (*i, *j))
                ct = read_series(list_series(self.folder / str(case))[0])
                np.testing.assert_array_equal(ct.hu, self.hu)
                voxel = np.array([5, 7, 11])
                expected = np.array([1, 2, 3]) + 5 * 0.7 * i + 7 * 0.8 * j + 11 * 2.5 * np.cross(i, j)
                np.testing.assert_allclose(ct.lps_from_ijk_mm(voxel), expected, atol=1e-5)

    def test_rescale_is_applied_to_every_slice_by_its_own_header(self):
        files = write_series(self.folder, self.hu, slope=1.0, intercept=-1024)
        change(files[3], RescaleSlope=2, RescaleIntercept=-2000)
        ct = self.read()
        np.testing.assert_array_equal(ct.hu[3], (self.hu[3].astype(int) + 1024) * 2 - 2000)
        np.testing.assert_array_equal(np.delete(ct.hu, 3, axis=0), np.delete(self.hu, 3, axis=0))

    def test_rescale_that_is_not_whole_gives_float_hu(self):
        write_series(self.folder, self.hu, slope=0.5, intercept=-1000.25)
        ct = self.read()
        self.assertEqual(ct.hu.dtype, np.float32)
        np.testing.assert_allclose(ct.hu, self.hu, atol=0.25)
        self.assertEqual(float(ct.hu[0, 0, 0] * 4 % 1), 0)

    def test_missing_rescale_is_recorded(self):
        write_series(self.folder, self.hu, slope=None, intercept=None)
        ct = self.read()
        np.testing.assert_array_equal(ct.hu, self.hu)
        self.assertTrue(ct.acquisition.rescale_missing)

    def test_compressed_voxels_are_read(self):
        for encoding in ("deflated", "RLE", "JPEG", "JPEG2000"):
            with self.subTest(encoding=encoding):
                write_series(self.folder / encoding, self.hu, encoding=encoding)
                series = list_series(self.folder / encoding)[0]
                self.assertNotEqual(series.transfer_syntax, pydicom.uid.ExplicitVRLittleEndian)
                np.testing.assert_array_equal(read_series(series).hu, self.hu)

    def test_frames_of_an_enhanced_ct_are_sorted_by_position(self):
        order = np.random.default_rng(3).permutation(len(self.hu))
        i, j, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0].T
        write_enhanced(self.folder / "enhanced", self.hu, (0.7, 0.8, 2.5), (1, 2, 3), (*i, *j), order=order)
        ct = self.read()
        np.testing.assert_array_equal(ct.hu, self.hu)
        np.testing.assert_allclose(ct.spacing_ijk_mm, (0.7, 0.8, 2.5), atol=1e-5)
        np.testing.assert_allclose(ct.origin_lps_mm, (1, 2, 3), atol=1e-5)
        np.testing.assert_allclose(ct.direction_matrix, np.stack([i, j, np.cross(i, j)], axis=1), atol=1e-8)

    def test_frames_of_an_enhanced_ct_with_a_rescale_each(self):
        write_enhanced(self.folder / "enhanced", self.hu, intercepts=(-1024, -1000))
        np.testing.assert_array_equal(self.read().hu, self.hu)

    def test_kernel_contrast_and_the_day_of_the_acquisition_are_kept_and_the_day_is_not_shown(self):
        told = {
            "ConvolutionKernel": "B31f",
            "ContrastBolusAgent": "Iomeprol",
            "AcquisitionDate": "20240131",
            "StudyDate": "20240201",
        }
        write_series(self.folder, self.hu[:3], **told)
        acquisition = read_ct(self.folder).acquisition
        self.assertEqual((acquisition.kernel, acquisition.contrast, acquisition.date), ("B31f", "Iomeprol", "20240131"))
        self.assertNotIn("20240131", repr(acquisition))

    def test_the_day_of_the_study_stands_for_a_missing_day_of_the_acquisition(self):
        write_series(self.folder, self.hu[:3], StudyDate="20240201")
        self.assertEqual(read_ct(self.folder).acquisition.date, "20240201")

    def test_slices_are_where_the_headers_say_when_some_are_missing(self):
        write_series(self.folder, self.hu, skip=[7, 8])
        ct = self.read()
        there = np.delete(np.arange(20), [7, 8])
        np.testing.assert_array_equal(ct.hu, self.hu[there])
        np.testing.assert_allclose(ct.acquisition.slice_origins_lps_mm, [(-150.0, -160.0, -300 + 2.5 * k) for k in there])
        self.assertTrue(slice_stack(ct).is_uneven)
        self.assertFalse(slice_stack(ct).is_sheared)

    def test_slices_of_a_tilted_gantry_are_where_the_headers_say(self):
        i, j, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0].T
        for case, orientation in enumerate(((1.0, 0, 0, 0, 1, 0), (*i, *j))):
            with self.subTest(case=case):
                axes = np.reshape(orientation, (2, 3))
                normal, aside = np.cross(*axes), axes[1] * 2.5 * np.tan(np.radians(12))
                files = write_series(self.folder / str(case), self.hu, orientation=orientation, shift_lps_mm=aside)
                ct = read_series(series_of_file(files[3]))
                np.testing.assert_array_equal(ct.hu, self.hu)
                expected = np.array([-150, -160, -300]) + np.arange(20)[:, None] * (2.5 * normal + aside)
                np.testing.assert_allclose(ct.acquisition.slice_origins_lps_mm, expected, atol=1e-4)
                # The grid itself is upright: files of slices have no other.
                np.testing.assert_allclose(ct.direction_matrix, np.stack([*axes, normal], axis=1), atol=1e-8)
                self.assertAlmostEqual(ct.spacing_ijk_mm[2], 2.5, places=5)
                stack = slice_stack(ct)
                self.assertAlmostEqual(stack.tilt_degrees, 12, places=3)
                self.assertTrue(stack.is_sheared)
                self.assertFalse(stack.is_uneven)

    def test_one_slice_takes_its_thickness_as_spacing(self):
        write_series(self.folder, self.hu[:1])
        self.assertEqual(self.read().spacing_ijk_mm, (0.7, 0.8, 2.5))

    def test_reading_stops_when_progress_raises(self):
        write_series(self.folder, self.hu)
        done = []

        def progress(fraction):
            done.append(fraction)
            if fraction > 0.3:
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            read_series(list_series(self.folder)[0], progress=progress)
        np.testing.assert_allclose(done, np.arange(8) / 20)

    @real_data
    def test_real_series_lies_on_the_grid_of_its_votes(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        series = list_series(data / "ct" / "LIDC-IDRI-0001" / "dicom")
        self.assertEqual([len(s.slices) for s in series], [133])
        ct = read_series(series[0])
        votes = sitk.ReadImage(str(data / "ct" / "LIDC-IDRI-0001" / "votes.nrrd"))
        self.assertEqual(ct.to_image().GetSize(), votes.GetSize())
        self.assertEqual(ct.spacing_ijk_mm, votes.GetSpacing())
        self.assertEqual(ct.origin_lps_mm, votes.GetOrigin())
        self.assertEqual(ct.direction_lps, votes.GetDirection())
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(s.path) for s in series[0].slices])
        np.testing.assert_array_equal(ct.hu, sitk.GetArrayFromImage(reader.Execute()))


class ChooseTest(DicomTest):
    def test_the_longest_ct_is_taken_and_not_the_localizer(self):
        write_series(
            self.folder / "scout", self.hu[:2], (1, 1, 900), SeriesNumber=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
        )
        write_series(self.folder / "a", self.hu[:9], SeriesNumber=2)
        write_series(self.folder / "a", self.hu, SeriesNumber=3, SeriesDescription="chest", name="x{}".format)
        write_series(self.folder / "mr", self.hu, (1, 1, 9), SeriesNumber=4, Modality="MR")
        series = list_series(self.folder)
        self.assertEqual([len(s.slices) for s in series], [2, 9, 20, 20])
        self.assertEqual([s.is_localizer for s in series], [True, False, False, False])
        self.assertAlmostEqual(series[2].coverage_mm, 47.5)
        self.assertIs(choose_chest_series(series), series[2])
        self.assertIs(choose_chest_series(series, series[1].uid), series[1])
        self.assertIs(choose_chest_series(series, series[3].uid), series[3])

    def test_thin_slices_are_preferred_where_coverage_is_alike(self):
        write_series(self.folder / "thick", self.hu[:11], (0.7, 0.8, 5.0), SeriesNumber=1)
        write_series(self.folder / "thin", self.hu, (0.7, 0.8, 2.5), SeriesNumber=2)
        self.assertEqual(len(choose_chest_series(list_series(self.folder)).slices), 20)

    def test_axial_is_preferred_to_a_longer_reformat(self):
        write_series(self.folder / "coronal", self.hu, (1, 1, 20.0), orientation=CORONAL)
        write_series(self.folder / "axial", self.hu[:10])
        chosen = choose_chest_series(list_series(self.folder))
        self.assertTrue(chosen.is_axial)
        self.assertEqual(len(chosen.slices), 10)

    def test_unknown_uid_is_refused_with_what_is_there(self):
        write_series(self.folder, self.hu, SeriesDescription="chest")
        series = list_series(self.folder)
        with self.assertRaisesRegex(InputError, f"no series 1.2.3.*'chest' \\(20 slices, 48 mm, {series[0].uid}\\)"):
            choose_chest_series(series, "1.2.3")

    def test_a_folder_without_ct_is_refused_with_what_is_there(self):
        write_series(self.folder, self.hu, Modality="MR", SeriesDescription="T1")
        self.refused(self.folder, "MR 'T1' (20 slices")

    def test_copies_count_once(self):
        files = write_series(self.folder, self.hu)
        for file in files[::2]:
            (self.folder / "copy").mkdir(exist_ok=True)
            (self.folder / "copy" / f"{file.name}.bak").write_bytes(file.read_bytes())
        np.testing.assert_array_equal(self.read().hu, self.hu)

    def test_slices_that_share_one_instance_uid_are_all_kept(self):
        write_series(self.folder, self.hu, SOPInstanceUID="1.2.3.4")
        np.testing.assert_array_equal(self.read().hu, self.hu)

    def test_other_files_are_passed_over(self):
        write_series(self.folder, self.hu)
        (self.folder / "readme.txt").write_text("not DICOM")
        (self.folder / "empty").write_bytes(b"")
        write_directory(self.folder / "DICOMDIR")
        self.assertEqual([len(s.slices) for s in list_series(self.folder)], [20])

    def test_a_file_gives_the_series_it_belongs_to(self):
        write_series(self.folder, self.hu[:9])
        file = write_series(self.folder, self.hu[:5], name="b{}".format)[2]
        write_series(self.folder / "below", self.hu)
        self.assertEqual(len(series_of_file(file).slices), 5)


class AcquisitionsTest(DicomTest):
    def write(self, number, hu, start_mm, name):
        origin = (-150.0, -160.0, start_mm)
        uids = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
        write_series(self.folder, hu, origin_lps_mm=origin, **uids, AcquisitionNumber=number, name=name)

    def test_acquisitions_at_the_same_positions_are_split(self):
        self.write(2, self.hu + 5, -300.0, "b{}".format)
        self.write(1, self.hu, -300.0, "a{}".format)
        series = list_series(self.folder)
        self.assertEqual([s.key for s in series], ["1.2.3/1", "1.2.3/2"])
        np.testing.assert_array_equal(self.read().hu, self.hu)
        np.testing.assert_array_equal(self.read(uid="1.2.3/2").hu, self.hu + 5)

    def test_acquisitions_between_one_another_are_split(self):
        self.write(1, self.hu, -300.0, "a{}".format)
        self.write(2, self.hu + 5, -298.75, "b{}".format)
        np.testing.assert_array_equal(self.read(uid="1.2.3/1").hu, self.hu)
        np.testing.assert_array_equal(self.read(uid="1.2.3/2").hu, self.hu + 5)

    def test_stations_one_after_the_other_are_one_volume(self):
        self.write(1, self.hu[:8], -300.0, "b{}".format)
        self.write(2, self.hu[8:], -280.0, "a{}".format)
        np.testing.assert_array_equal(self.read().hu, self.hu)

    def test_stations_that_overlap_are_refused(self):
        self.write(1, self.hu[:12], -300.0, "a{}".format)
        self.write(2, self.hu[10:], -275.0, "b{}".format)
        self.refused(self.folder, "same position")

    def test_positions_repeated_within_one_acquisition_are_refused(self):
        self.write(1, self.hu, -300.0, "a{}".format)
        self.write(1, self.hu, -300.0, "b{}".format)
        self.refused(self.folder / "a0", self.folder / "b0", "same position")


class RefusedTest(DicomTest):
    def test_values_whose_hu_are_in_doubt(self):
        for attributes, word in (
            ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
            ({"RescaleSlope": 0}, "slope 0"),
            ({"RescaleIntercept": None}, "lacks a rescale"),
            ({"RescaleIntercept": None, "RescaleSlope": None}, "lacks a rescale"),
        ):
            with self.subTest(attributes=attributes):
                files = write_series(self.folder, self.hu)
                change(files[4], **attributes)
                self.refused(files[4], word)

    def test_slices_that_do_not_fit_their_series(self):
        for attributes, word in (
            ({"ImageOrientationPatient": list(CORONAL)}, "orientation"),
            ({"PixelSpacing": [0.9, 0.9]}, "spacing"),
            ({"ImagePositionPatient": None}, "no position"),
            ({"ImagePositionPatient": [-150, -150, -290]}, "aside"),
        ):
            with self.subTest(attributes=attributes):
                files = write_series(self.folder, self.hu)
                change(files[4], **attributes)
                self.refused(files[4], word)
        files = write_series(self.folder, self.hu)
        smaller = write_series(self.folder / "b", self.hu[4:5, :20, :20])[0]
        first = pydicom.dcmread(files[4])
        shared = ("StudyInstanceUID", "SeriesInstanceUID", "ImagePositionPatient")
        change(smaller, **{keyword: first[keyword].value for keyword in shared})
        files[4].unlink()
        self.refused(smaller, "20x20")

    def test_axes_that_are_not_at_right_angles(self):
        write_series(self.folder, self.hu, ImageOrientationPatient=[1, 0, 0, 0.3, 1, 0])
        self.refused(self.folder, "right angles")

    def test_damaged_files(self):
        for name, damage in (
            ("voxels cut", lambda b: b[:-100]),
            ("header cut", lambda b: b[:700]),
            ("meta only", lambda b: b[:200]),
            ("length that leads past the end", lambda b: b.replace(b"\x20\x00\x11\x00IS\x02\x00", b"\x20\x00\x11\x00IS\xff\xff")),
            ("half", lambda b: b[: len(b) // 2]),
            ("number that is none", lambda b: b.replace(b"-1024", b"-1O24")),
            (
                "more rows than voxels",
                lambda b: b.replace(b"\x28\x00\x10\x00US\x02\x00\x18\x00", b"\x28\x00\x10\x00US\x02\x00\x00\x04"),
            ),
        ):
            with self.subTest(name):
                file = write_series(self.folder, self.hu[:1])[0]
                damaged = damage(file.read_bytes())
                self.assertNotEqual(damaged, file.read_bytes())
                file.write_bytes(damaged)
                self.refused(file, "damaged")

    def test_sizes_that_no_chest_ct_has(self):
        write_series(self.folder, self.hu[:3], Rows=65535, Columns=65535)
        self.refused(self.folder, "24 GiB")

    def test_multi_frame_images_without_positions(self):
        write_series(self.folder, self.hu[:1], PixelData=self.hu.tobytes(), NumberOfFrames=20)
        self.refused(self.folder, "damaged")

    def test_folders_without_dicom(self):
        self.folder.mkdir()
        self.refused(self.folder, "no DICOM")
        with self.assertRaisesRegex(InputError, "no folder"):
            list_series(self.folder / "absent")
