"""Every file format is read with its values and geometry; every bad file is refused in one line that names it."""

import contextlib
import gzip
import os
import struct
import tempfile
import unittest
import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.dicom_files import change, small_chest, write_directory, write_enhanced, write_series
from helpers.placed_chest import leaning
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.image_file import FORMATS, SFORM_SWITCH
from NLSTSegLib.reading.nifti import NIFTI_UNITS_MM
from NLSTSegLib.reading.read import read_ct, read_mask
from NLSTSegLib.volume.ct import PADDING_HU, CtVolume

SPACING = (0.7, 0.8, 2.5)
ORIGIN = (-150.0, -160.5, 12.25)


def rotation(seed=5) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def with_sform(nifti: bytes, ras_from_ijk_mm: np.ndarray, codes: tuple[int, int], origin_ras_mm=None) -> bytes:
    """An uncompressed NIfTI file with another sform; ``codes`` are those of qform and sform."""
    content = bytearray(nifti)
    sform = np.array(np.frombuffer(bytes(content[280:328]), "<f4")).reshape(3, 4)
    sform[:, :3] = ras_from_ijk_mm
    if origin_ras_mm is not None:
        sform[:, 3] = origin_ras_mm
    content[280:328] = sform.tobytes()
    struct.pack_into("<2h", content, 252, *codes)
    return bytes(content)


class ReadingTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "Lékař 胸部"
        self.folder.mkdir()
        self.hu = small_chest()

    def image(self, array=None, direction=None) -> sitk.Image:
        image = sitk.GetImageFromArray(self.hu if array is None else array)
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
        image.SetDirection(np.ravel(rotation() if direction is None else direction).tolist())
        return image

    def write(self, name, image=None, compress=False) -> Path:
        sitk.WriteImage(self.image() if image is None else image, str(self.folder / name), compress)
        return self.folder / name

    def refused(self, path, *words, **options):
        with self.assertRaises(InputError) as raised:
            read_ct(path, **options)
        text = str(raised.exception)
        self.assertNotIn("\n", text)
        for word in (path, *words):
            self.assertIn(str(word), text)
        return raised.exception


class FormatsTest(ReadingTest):
    def test_values_and_oblique_geometry_come_back_from_every_format(self):
        for ending in FORMATS:
            for compress in (False, True):
                with self.subTest(ending=ending, compress=compress):
                    ct = read_ct(self.write(f"ct{compress}{ending}", compress=compress))
                    np.testing.assert_array_equal(ct.hu, self.hu)
                    self.assertEqual(ct.hu.dtype, np.int16)
                    np.testing.assert_allclose(ct.spacing_ijk_mm, SPACING, rtol=1e-6)
                    np.testing.assert_allclose(ct.origin_lps_mm, ORIGIN, rtol=1e-6)
                    np.testing.assert_allclose(ct.direction_matrix, rotation(), atol=1e-6)
                    self.assertEqual(ct.acquisition.format, ending)
                    self.assertTrue(ct.acquisition.orientation_known)

    def test_every_number_type_keeps_hu(self):
        for dtype in (np.int16, np.int32, np.int64, np.float32, np.float64):
            for ending in (".nii.gz", ".nrrd", ".mha"):
                with self.subTest(dtype=dtype.__name__, ending=ending):
                    ct = read_ct(self.write(f"ct{ending}", self.image(self.hu.astype(dtype))))
                    np.testing.assert_array_equal(ct.hu, self.hu)

    def test_nifti_slope_and_intercept_are_applied(self):
        file = self.write("ct.nii", self.image((self.hu + 1024).astype(np.int16)))
        content = bytearray(file.read_bytes())
        struct.pack_into("<2f", content, 112, 1.0, -1024.0)
        file.write_bytes(content)
        np.testing.assert_array_equal(read_ct(file).hu, self.hu)

    def test_one_volume_with_a_fourth_axis_is_read(self):
        for ending in (".nii.gz", ".nrrd", ".mha"):
            with self.subTest(ending=ending):
                ct = read_ct(self.write(f"ct{ending}", sitk.JoinSeries([self.image()])))
                np.testing.assert_array_equal(ct.hu, self.hu)
                np.testing.assert_allclose(ct.direction_matrix, rotation(), atol=1e-6)

    def test_nan_and_infinite_voxels_become_air_and_are_counted(self):
        hu = self.hu.astype(np.float32)
        hu[3, 4, 5:8] = (np.nan, np.inf, -np.inf)
        ct = read_ct(self.write("ct.nrrd", self.image(hu)))
        self.assertEqual(ct.acquisition.nonfinite_voxels, 3)
        self.assertTrue((ct.hu[3, 4, 5:8] == PADDING_HU).all())
        self.assertEqual(np.count_nonzero(ct.hu != self.hu), 3)

    def test_endings_in_capitals_are_known(self):
        file = self.write("ct.nii.gz")
        np.testing.assert_array_equal(read_ct(file.rename(self.folder / "CT.NII.GZ")).hu, self.hu)

    def test_files_of_several_gzip_members_are_whole(self):
        content = self.write("ct.nii").read_bytes()
        file = self.folder / "ct.nii.gz"
        file.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
        np.testing.assert_array_equal(read_ct(file).hu, self.hu)

    def test_sheared_axes_come_back_from_every_format(self):
        for shear in (leaning(0.1, -0.3), leaning(in_plane=0.2), leaning(0.2, 0.1, 0.1)):
            direction = rotation() @ shear
            for ending in (".nrrd", ".nhdr", ".mha", ".mhd"):
                ct = read_ct(self.write(f"ct{ending}", self.image(direction=direction)))
                np.testing.assert_array_equal(ct.hu, self.hu)
                np.testing.assert_allclose(ct.direction_matrix, direction, atol=1e-12)
                np.testing.assert_allclose(ct.spacing_ijk_mm, SPACING, rtol=1e-12)
            content = self.write("ct.nii", self.image(direction=np.eye(3))).read_bytes()
            # With a qform that cannot say it, too.
            for codes in ((0, 1), (0, 2), (1, 1), (1, 2)):
                file = self.folder / "ct.nii.gz"
                steps = np.diag([-1, -1, 1]) @ direction * SPACING
                file.write_bytes(gzip.compress(with_sform(content, steps, codes)))
                ct = read_ct(file)
                np.testing.assert_array_equal(ct.hu, self.hu)
                np.testing.assert_allclose(ct.direction_matrix, direction, atol=1e-5)
                np.testing.assert_allclose(ct.spacing_ijk_mm, SPACING, rtol=1e-6)
                np.testing.assert_allclose(ct.origin_lps_mm, ORIGIN, rtol=1e-6)
        self.assertNotIn(SFORM_SWITCH, os.environ)

    def test_sheared_nifti_in_other_units(self):
        direction = rotation() @ leaning(0.1, -0.3)
        content = self.write("ct.nii", self.image(direction=np.eye(3))).read_bytes()
        for code, unit_mm in NIFTI_UNITS_MM.items():
            steps = np.diag([-1, -1, 1]) @ direction * SPACING / unit_mm
            changed = bytearray(with_sform(content, steps, (0, 1), np.array(ORIGIN) * (-1, -1, 1) / unit_mm))
            struct.pack_into("<3f", changed, 80, *np.array(SPACING) / unit_mm)
            changed[123] = code
            file = self.folder / "ct.nii"
            file.write_bytes(changed)
            ct = read_ct(file)
            np.testing.assert_allclose(ct.direction_matrix, direction, atol=1e-5)
            np.testing.assert_allclose(ct.origin_lps_mm, ORIGIN, rtol=1e-6)

    def test_negative_spacings_flip_the_axes(self):
        file = self.write("ct.mha", self.image(direction=np.eye(3)))
        file.write_bytes(file.read_bytes().replace(b"ElementSpacing = 0.6", b"ElementSpacing = -0.6"))
        nrrd = self.folder / "ct.nrrd"
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 28 24 20\nspace: left-posterior-superior\nendian: little\n"
        head += "encoding: raw\nspace directions: (-0.7,0,0) (0,0.8,0) (0,0,2.5)\nspace origin: (-150,-160.5,12.25)\n\n"
        nrrd.write_bytes(head.encode() + self.hu.tobytes())
        for path in (file, nrrd):
            ct = read_ct(path)
            np.testing.assert_array_equal(ct.hu, self.hu)
            np.testing.assert_allclose(ct.spacing_ijk_mm, SPACING, rtol=1e-12)
            np.testing.assert_allclose(ct.origin_lps_mm, ORIGIN, rtol=1e-12)
            np.testing.assert_allclose(ct.direction_matrix, np.diag([-1.0, 1.0, 1.0]), atol=1e-12)

    def test_orientation_that_the_header_does_not_tell_is_recorded(self):
        file = self.write("ct.nii", self.image(direction=np.eye(3)))
        content = bytearray(file.read_bytes())
        struct.pack_into("<2h", content, 252, 0, 0)
        file.write_bytes(content)
        self.assertFalse(read_ct(file).acquisition.orientation_known)
        file = self.folder / "ct.nrrd"
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 28 24 20\nspacings: 0.7 0.8 2.5\nendian: little\nencoding: raw\n\n"
        file.write_bytes(head.encode() + self.hu.tobytes())
        self.assertFalse(read_ct(file).acquisition.orientation_known)

    def test_reading_a_compressed_file_stops_when_progress_raises(self):
        file = self.write("ct.nii.gz")

        def progress(fraction):
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            read_ct(file, progress=progress)


class DicomPathTest(ReadingTest):
    def test_folder_file_and_dicomdir_give_the_series(self):
        files = write_series(self.folder / "a", self.hu, name="{}".format)
        write_directory(self.folder / "a" / "DICOMDIR")
        for path in (self.folder, self.folder / "a", files[3], self.folder / "a" / "DICOMDIR"):
            with self.subTest(path=path.name):
                np.testing.assert_array_equal(read_ct(path).hu, self.hu)

    def test_series_uid_chooses(self):
        write_series(self.folder, self.hu)
        file = write_series(self.folder, self.hu[:5], name="b{}".format, SeriesInstanceUID="1.2.3")[0]
        for path in (self.folder, file):
            self.assertEqual(read_ct(path, series_uid="1.2.3").hu.shape[0], 5)
        self.refused(self.folder, "no series 9.9", series_uid="9.9")
        self.refused(self.write("ct.nrrd"), "no series", series_uid="9.9")

    def test_progress_runs_from_zero_to_one(self):
        write_series(self.folder, self.hu)
        for path in (self.folder, self.write("ct.nii.gz"), self.write("ct.mha")):
            done = []
            read_ct(path, progress=done.append)
            self.assertEqual(done, sorted(done))
            self.assertEqual(done[-1], 1)

    def test_bad_dicom_names_the_file_at_fault(self):
        files = write_series(self.folder, self.hu)
        change(files[4], PhotometricInterpretation="MONOCHROME1")
        self.assertIn(str(files[4]), str(self.refused(self.folder)))


class RefusedTest(ReadingTest):
    def test_missing_unknown_and_empty(self):
        self.refused(self.folder / "absent.nii.gz", "no file")
        self.refused(self.folder, "no DICOM")
        for name in ("ct.zip", "ct", "ct.png", "ct.dcm"):
            (self.folder / name).write_bytes(b"PK")
            self.refused(self.folder / name, "neither DICOM nor")
        for ending in FORMATS:
            for content in (b"", b"This is a letter.\n" * 50):
                (self.folder / f"x{ending}").write_bytes(content)
                self.assertIsInstance(self.refused(self.folder / f"x{ending}").__cause__, Exception)

    def test_truncated_files_of_every_format(self):
        for ending in FORMATS:
            for compress in (False, True):
                file = self.write(f"ct{ending}", compress=compress)
                data = file
                if ending in (".nhdr", ".mhd"):
                    data = max(self.folder.glob("ct.*raw*"), key=lambda p: p.stat().st_mtime_ns)
                content = data.read_bytes()
                for length in (0, len(content) // 3, len(content) - 9, len(content) - 1):
                    with self.subTest(ending=ending, compress=compress, length=length):
                        data.write_bytes(content[:length])
                        self.refused(file)
                data.unlink()
                self.refused(file)

    def test_damaged_compressed_data_are_noticed_wherever_the_damage_is(self):
        for ending in (".nii.gz", ".nrrd", ".mha"):
            file = self.write(f"ct{ending}", compress=True)
            content = file.read_bytes()
            for at in np.linspace(len(content) * 0.2, len(content) - 1, 12).astype(int):
                with self.subTest(ending=ending, at=at):
                    damaged = bytearray(content)
                    damaged[at] ^= 0x10
                    file.write_bytes(damaged)
                    self.refused(file)

    def test_headers_that_tell_another_size_than_is_stored(self):
        large = np.zeros((20, 64, 64), np.int16)
        for ending, size, other in ((".nrrd", b"64 64 20", b"64 64 10"), (".mha", b"64 64 20", b"64 32 20")):
            for compress in (False, True):
                with self.subTest(ending=ending, compress=compress):
                    file = self.write(f"ct{ending}", self.image(large), compress)
                    file.write_bytes(file.read_bytes().replace(size, other))
                    self.refused(file, "holds more")
        file = self.write("ct.mha", compress=True)
        for name in (b"CompressedDataSiz_ =", b"CompressedDataSize = 1"):
            content = file.read_bytes()
            file.write_bytes(content.replace(b"CompressedDataSize =", name))
            self.refused(file, "CompressedDataSize")

    def test_headers_of_absurd_size(self):
        file = self.write("ct.nii")
        content = bytearray(file.read_bytes())
        struct.pack_into("<4h", content, 40, 3, 32000, 32000, 32000)
        file.write_bytes(content)
        self.refused(file, "GiB")
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: {}\nspacings: 1 1 1\nendian: little\nencoding: gzip\n\n"
        (self.folder / "ct.nrrd").write_bytes(head.format("100000 100000 100000").encode())
        self.refused(self.folder / "ct.nrrd", "GiB")
        (self.folder / "ct.nrrd").write_bytes(head.format("1000 1000 1000").encode())
        self.refused(self.folder / "ct.nrrd", "truncated")

    def test_images_that_are_no_single_volume(self):
        colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
        for ending in (".nii.gz", ".nrrd", ".mha"):
            with self.subTest(ending=ending):
                self.refused(self.write(f"flat{ending}", sitk.GetImageFromArray(self.hu[0])), "2D")
                self.refused(self.write(f"time{ending}", sitk.JoinSeries([self.image()] * 2)), "4D", "28x24x20x2")
                self.refused(self.write(f"colour{ending}", colour), "3 values")

    def test_nifti_with_two_geometries(self):
        file = self.write("ct.nii", self.image(direction=np.eye(3)))
        content = file.read_bytes()
        ras_from_ijk = np.diag([-0.7, -0.8, 2.5])
        turned = rotation() @ ras_from_ijk
        # Codes: 1 is the scanner's space, 2 aligned to it, 4 a template's.
        for name, steps, codes in (
            ("turned", turned, (1, 2)),
            ("larger", 1.1 * ras_from_ijk, (1, 1)),
            ("larger, alone", 1.1 * ras_from_ijk, (0, 2)),
            ("to a template", ras_from_ijk @ [[1.1, 0.1, 0], [0, 0.9, 0.1], [0.1, 0, 1]], (1, 4)),
            ("flat", ras_from_ijk @ [[1, 1, 0], [0, 0, 0], [0, 0, 1]], (0, 1)),
            ("nothing", np.zeros((3, 3)), (0, 1)),
            ("no numbers", ras_from_ijk * np.nan, (1, 1)),
        ):
            with self.subTest(name):
                file.write_bytes(with_sform(content, steps, codes))
                self.refused(file)

    def test_nifti_with_voxel_sizes_that_are_not_positive(self):
        file = self.write("ct.nii", self.image(direction=np.eye(3)))
        for axis in (1, 2, 3):
            for size in (-SPACING[axis - 1], 0.0):
                for codes in ((1, 1), (1, 0), (0, 0)):
                    content = bytearray(file.read_bytes())
                    struct.pack_into("<f", content, 76 + 4 * axis, size)
                    struct.pack_into("<2h", content, 252, *codes)
                    changed = file.with_name("changed.nii")
                    changed.write_bytes(content)
                    self.refused(changed, "voxel size that is not positive")

    def test_headers_without_spacing(self):
        for ending, told in ((".nrrd", "space directions: "), (".mha", "ElementSpacing = ")):
            file = self.write(f"ct{ending}")
            lines = file.read_bytes().split(b"\n")
            kept = [line for line in lines if not line.startswith(told.encode())]
            self.assertEqual(len(kept), len(lines) - 1)
            file.write_bytes(b"\n".join(kept))
            self.refused(file, "voxel spacing")
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 28 24 20\nspacings: {}\nendian: little\nencoding: raw\n\n"
        for spacings in ("nan 0.8 2.5", "0.7 0.8 NaN"):
            (self.folder / "ct.nrrd").write_bytes(head.format(spacings).encode() + self.hu.tobytes())
            self.refused(self.folder / "ct.nrrd", "voxel spacing")

    def test_nifti_2_which_itk_cannot_read(self):
        header = bytearray(544)
        struct.pack_into("<i8s2h8q", header, 0, 540, b"n+2\0\r\n\x1a\n", 4, 16, 3, *self.hu.shape[::-1], 1, 1, 1, 1)
        file = self.folder / "ct.nii"
        file.write_bytes(bytes(header) + self.hu.tobytes())
        self.refused(file, "not a .nii file")

    def test_geometry_that_is_no_number(self):
        file = self.write("ct.nii", self.image(direction=np.eye(3)))
        content = bytearray(file.read_bytes())
        struct.pack_into("<3f", content, 268, np.nan, 0, 0)
        struct.pack_into("<f", content, 292, np.nan)
        file.write_bytes(content)
        self.refused(file)


class DamagedHeaderTest(ReadingTest):
    def test_flipped_bits_in_any_header_give_a_volume_or_an_input_error(self):
        rng = np.random.default_rng(6)
        files = [self.write(f"ct{ending}", compress=True) for ending in FORMATS]
        files.append(write_series(self.folder / "series", self.hu[:3])[1])
        write_enhanced(self.folder / "enhanced" / "ct", self.hu[:3])
        files.append(self.folder / "enhanced" / "ct")
        for file in files:
            content = file.read_bytes()
            for trial in range(25):
                with self.subTest(file=file.name, trial=trial):
                    damaged = bytearray(content)
                    for at in rng.integers(0, min(len(content), 900), 2):
                        damaged[at] ^= 1 << rng.integers(0, 8)
                    file.write_bytes(damaged)
                    with contextlib.suppress(InputError):
                        self.assertEqual(read_ct(file.parent if "." not in file.name else file).hu.ndim, 3)
            file.write_bytes(content)


class MaskTest(ReadingTest):
    def test_mask_on_the_voxels_of_the_ct(self):
        mask = (self.hu < -500).astype(np.uint8)
        ct = CtVolume.from_image(self.image())
        read = read_mask(self.write("mask.nii.gz", self.image(mask * 3)), ct)
        self.assertEqual(read.dtype, bool)
        np.testing.assert_array_equal(read, mask == 1)

    def test_mask_elsewhere_is_refused(self):
        ct = CtVolume.from_image(self.image())
        moved = self.image()
        moved.SetOrigin((-150.0, -160.5, 12.75))
        with self.assertRaisesRegex(InputError, "mask.nrrd lies 0.50 mm off"):
            read_mask(self.write("mask.nrrd", moved), ct)
        with self.assertRaisesRegex(InputError, "mask.nrrd has"):
            read_mask(self.write("mask.nrrd", self.image(self.hu[1:])), ct)


class QuietTest(ReadingTest):
    def test_reading_warns_of_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write_series(self.folder, self.hu)
            read_ct(self.folder)
            read_ct(self.write("ct.nii.gz"))
