"""The whole way of the data with a model whose answer is known: the mask lands on the lesion, on the input's own grid."""

import csv
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.dicom_files import change, write_enhanced, write_series
from helpers.marks import real_data
from helpers.mrml_nodes import (
    add_grid_transform,
    add_transform,
    add_volume,
    exported_labels,
    rigid_motion,
    world_centroid_ras_mm,
    world_from_node,
)
from helpers.placed_chest import (
    AXES,
    LESIONS,
    LUNG_HU,
    chest_ct,
    chest_of_slices,
    label_centroids_lps_mm,
    leaning,
    off_voxels,
    rotation,
    true_centres_lps_mm,
    voxel_places_lps_mm,
)
from helpers.shared_data import shared_data
from helpers.threshold_model import THRESHOLD_HU, threshold_model
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.find import find_lesions
from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions, segment
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.results.folder import LABELS_FILE, write_result
from NLSTSegLib.scene.segmentations import segmentation_from_result
from NLSTSegLib.scene.volumes import ct_from_volume_node
from NLSTSegLib.volume.ct import CtVolume
from slicer_stand_in.mrml_host import MrmlTestCase

ROTATIONS = [axes for axes in AXES if np.linalg.det(axes) > 0]
"""The 24 of :data:`placed_chest.AXES` whose k runs along i x j, as that of DICOM does."""

HALF_A_VOXEL = 0.5

RAS = np.array([-1.0, -1.0, 1.0])
"""LPS times this."""


def turn(n: int) -> np.ndarray:
    """A rotation by any angle, another for every ``n``."""
    return rotation(np.random.default_rng(n).normal(size=3))


class PlacedTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = threshold_model()

    def find(self, ct: CtVolume, lung_field: str | np.ndarray = "none") -> SegmentationResult:
        return segment(ct, self.model, SegmentOptions(lung_field=lung_field, device="cpu", threads=1))

    def assert_in_place(self, result: SegmentationResult, true_lps_mm: np.ndarray) -> None:
        """Lesions, largest first, and their labels lie where the truth is; with nothing resampled they are the dense voxels."""
        self.assertEqual(len(result.lesions), len(true_lps_mm))
        measured = [lesion.measurements.centroid_lps_mm for lesion in result.lesions]
        self.assertLess(off_voxels(measured, true_lps_mm, result.canonical), HALF_A_VOXEL)
        self.assertEqual(result.labels.shape, result.ct.hu.shape)
        places = voxel_places_lps_mm(result.ct)
        self.assertLess(off_voxels(label_centroids_lps_mm(result.labels, places), true_lps_mm, result.ct), HALF_A_VOXEL)
        if result.regular is result.ct:
            np.testing.assert_array_equal(result.labels > 0, result.ct.hu > THRESHOLD_HU)

    def assert_grid(self, result: SegmentationResult, reference: sitk.Image) -> None:
        """The label map lies on the very grid that SimpleITK reads the input with."""
        labels = result.ct.image_like(result.labels)
        self.assertEqual(labels.GetSize(), reference.GetSize())
        self.assertEqual(labels.GetSpacing(), reference.GetSpacing())
        self.assertEqual(labels.GetOrigin(), reference.GetOrigin())
        self.assertEqual(labels.GetDirection(), reference.GetDirection())


class FilesTestCase(PlacedTestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def written(self, ct: CtVolume, ending: str, voxels: np.ndarray | None = None) -> Path:
        path = self.folder / f"ct{ending}"
        sitk.WriteImage(ct.to_image() if voxels is None else ct.image_like(voxels), str(path), ending == ".nrrd")
        return path

    def written_series(self, ct: CtVolume, folder: str, **options) -> Path:
        """The series of a CT whose k runs along the normal."""
        i, j, _ = ct.direction_matrix.T
        write_series(self.folder / folder, ct.hu, ct.spacing_ijk_mm, ct.origin_lps_mm, (*i, *j), **options)
        for file, origin in zip(
            sorted((self.folder / folder).iterdir()), ct.acquisition.slice_origins_lps_mm or (), strict=False
        ):
            change(file, ImagePositionPatient=[f"{v:.8g}" for v in origin])
        return self.folder / folder


class EveryOrientationTest(FilesTestCase):
    def test_every_order_and_flip_of_the_axes_in_every_file_format(self):
        for n, axes in enumerate(AXES):
            # The axes as they are and turned, odd sizes and other voxels in turn.
            direction = axes if n % 3 == 0 else turn(n) @ axes
            shape, spacing = (((37, 51, 53), (3.1, 3.3, 4.2)), ((62, 29, 45), (3.5, 5.5, 2.5)))[n % 2]
            middle = (-120.0 + n, 77.7 * n, -1300.0)
            ct = chest_ct(direction, shape_kji=shape, spacing_ijk_mm=spacing, middle_lps_mm=middle)
            for ending in (".nrrd", ".nii.gz", ".mha"):
                with self.subTest(axes=axes.tolist(), ending=ending):
                    path = self.written(ct, ending)
                    result = self.find(read_ct(path))
                    self.assert_in_place(result, true_centres_lps_mm(middle))
                    self.assert_grid(result, sitk.ReadImage(str(path)))

    def test_every_direction_of_dicom_slices(self):
        for n, axes in enumerate(ROTATIONS):
            direction = axes if n % 3 == 0 else turn(n) @ axes
            ct = chest_ct(
                direction, shape_kji=(21, 31, 35), spacing_ijk_mm=(4.6, 5.2, 7.5), middle_lps_mm=(50.0, 8.0 * n, -900.0)
            )
            with self.subTest(axes=axes.tolist()):
                folder = self.written_series(ct, f"dicom{n}", name=lambda k, n=n: f"{(8 * k + n) % 21:02d}")
                result = self.find(read_ct(folder))
                self.assert_in_place(result, true_centres_lps_mm((50.0, 8.0 * n, -900.0)))
                np.testing.assert_array_equal(result.ct.hu, ct.hu)
                np.testing.assert_allclose(result.ct.lps_from_ijk_mm([34, 30, 20]), ct.lps_from_ijk_mm([34, 30, 20]), atol=1e-4)
                if n % 6 == 0:
                    reader = sitk.ImageSeriesReader()
                    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
                    image = reader.Execute()
                    labels = result.ct.image_like(result.labels)
                    self.assertEqual(labels.GetSize(), image.GetSize())
                    for part in ("GetSpacing", "GetOrigin", "GetDirection"):
                        np.testing.assert_allclose(getattr(labels, part)(), getattr(image, part)(), rtol=0, atol=1e-6)

    def test_enhanced_dicom_in_any_direction(self):
        for n in (0, 7, 13, 22):
            ct = chest_ct(rotation((0.2 * n, 0.3, -0.1 * n)) @ ROTATIONS[n], middle_lps_mm=(1.0, 2.0, 3.0))
            i, j, _ = ct.direction_matrix.T
            file = self.folder / f"enhanced{n}"
            order = np.random.default_rng(n).permutation(len(ct.hu))
            write_enhanced(file, ct.hu, ct.spacing_ijk_mm, ct.origin_lps_mm, (*i, *j), order=order)
            with self.subTest(n=n):
                self.assert_in_place(self.find(read_ct(file)), true_centres_lps_mm((1.0, 2.0, 3.0)))

    @settings(deadline=None, max_examples=25)
    @given(
        st.sampled_from(AXES),
        st.tuples(*[st.floats(-3, 3)] * 3),
        st.tuples(*[st.floats(2.0, 5.0)] * 3),
        st.tuples(*[st.integers(0, 9)] * 3),
        st.tuples(*[st.floats(-2000, 2000)] * 3),
        st.sampled_from((0.05, 0.3, 1.0, 4.0)),
    )
    def test_any_grid_with_a_tiny_or_large_field_of_view(self, axes, vector, spacing, more, middle, scale):
        spacing_mm = tuple(scale * s for s in spacing)
        shape = tuple(int(140 / s) + m for s, m in zip(spacing[::-1], more, strict=True))
        direction = rotation(vector) @ axes
        ct = chest_ct(direction, shape_kji=shape, spacing_ijk_mm=spacing_mm, middle_lps_mm=middle, scale=scale)
        self.assert_in_place(self.find(ct), true_centres_lps_mm(middle, scale))

    def test_tiny_and_large_fields_of_view_in_every_file_format(self):
        for n, scale in enumerate((0.05, 0.3, 4.0)):
            middle = (-70.0, 300.0 * scale, 5.0)
            spacing = tuple(scale * s for s in (3.0, 3.2, 4.0))
            ct = chest_ct(turn(n) @ AXES[17 * n], spacing_ijk_mm=spacing, middle_lps_mm=middle, scale=scale)
            for ending in (".nrrd", ".nii.gz", ".mha"):
                with self.subTest(scale=scale, ending=ending):
                    path = self.written(ct, ending)
                    result = self.find(read_ct(path))
                    self.assert_in_place(result, true_centres_lps_mm(middle, scale))
                    self.assert_grid(result, sitk.ReadImage(str(path)))
            straight = chest_ct(turn(n), spacing_ijk_mm=spacing, middle_lps_mm=middle, scale=scale)
            with self.subTest(scale=scale, ending="DICOM"):
                result = self.find(read_ct(self.written_series(straight, f"dicom{n}")))
                self.assert_in_place(result, true_centres_lps_mm(middle, scale))

    def test_negative_spacings(self):
        for axes in (np.eye(3), AXES[13]):
            ct = chest_ct(axes, middle_lps_mm=(20.0, -30.0, 400.0))
            for flipped in ((0,), (1, 2), (0, 1, 2)):
                signs = np.where(np.isin(range(3), flipped), -1.0, 1.0)
                # The same grid, told by the other sign of both the spacing and the direction.
                path = self.written(replace(ct, direction_lps=tuple((ct.direction_matrix * signs).ravel().tolist())), ".mha")
                told = "ElementSpacing = " + " ".join(f"{s:g}" for s in signs * ct.spacing_ijk_mm)
                content = path.read_bytes()
                self.assertEqual(content.count(b"ElementSpacing = 3 3.2000000000000002 4\n"), 1)
                path.write_bytes(content.replace(b"ElementSpacing = 3 3.2000000000000002 4", told.encode()))
                with self.subTest(axes=axes.tolist(), flipped=flipped):
                    result = self.find(read_ct(path))
                    self.assert_in_place(result, true_centres_lps_mm((20.0, -30.0, 400.0)))
                    np.testing.assert_allclose(result.ct.direction_matrix, axes, atol=1e-12)
                    self.assertEqual(result.ct.spacing_ijk_mm, ct.spacing_ijk_mm)

    def test_written_labels_lie_on_the_grid_of_the_file(self):
        ct = chest_ct(turn(3) @ AXES[29], shape_kji=(37, 51, 53))
        for ending in (".nrrd", ".nii.gz", ".mha", ".nhdr", ".mhd", ".nii"):
            path = self.written(ct, ending)
            write_result(self.find(read_ct(path)), self.folder / "out", force=True)
            image, labels = sitk.ReadImage(str(path)), sitk.ReadImage(str(self.folder / "out" / LABELS_FILE))
            self.assertEqual(labels.GetSize(), image.GetSize())
            for part in ("GetSpacing", "GetOrigin", "GetDirection"):
                np.testing.assert_allclose(getattr(labels, part)(), getattr(image, part)(), rtol=1e-14, atol=1e-14)

    def test_lungs_that_are_looked_for_in_any_orientation(self):
        for axes in AXES[::5]:
            ct = chest_ct(axes)
            result = self.find(ct, "auto")
            self.assertEqual(result.lung_field_note, "auto")
            self.assert_in_place(result, true_centres_lps_mm())

    @real_data
    def test_a_real_chest_in_other_orientations(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        whole = sitk.ReadImage(str(data / "ct" / "LIDC-IDRI-0002" / "ct.nrrd"))
        image = whole[:, :, 100:112]
        expected = self.find(CtVolume.from_image(image)).labels
        # Voxels whose probability rounds to the threshold may fall on either side.
        self.assertLess(np.mean((expected > 0) != (sitk.GetArrayFromImage(image) > THRESHOLD_HU)), 0.001)
        for orientation in ("RAI", "SPL", "AIR"):
            turned = sitk.DICOMOrient(image, orientation)
            path = self.folder / f"{orientation}.nrrd"
            sitk.WriteImage(turned, str(path))
            with self.subTest(orientation):
                result = self.find(read_ct(path))
                self.assertEqual(result.ct.orientation, orientation)
                self.assert_grid(result, turned)
                labels = result.ct.image_like(result.labels)
                back = sitk.DICOMOrient(labels, "LPS")
                np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-9)
                np.testing.assert_array_equal(sitk.GetArrayFromImage(back) > 0, expected > 0)


class NumbersTest(FilesTestCase):
    def setUp(self):
        super().setUp()
        self.ct = chest_ct(turn(5))

    def check(self, path: Path, off_hu: float = 0.0) -> None:
        result = self.find(read_ct(path))
        self.assert_in_place(result, true_centres_lps_mm())
        np.testing.assert_allclose(result.ct.hu, self.ct.hu, atol=off_hu)

    def test_every_number_type_that_holds_hu(self):
        for ending in (".nrrd", ".nii.gz", ".mha"):
            for dtype in (np.int16, np.int32, np.float32, np.float64):
                with self.subTest(ending=ending, dtype=dtype.__name__):
                    self.check(self.written(self.ct, ending, self.ct.hu.astype(dtype)))

    def test_nifti_with_slope_and_intercept(self):
        for dtype, slope, intercept in ((np.uint8, 6.0, -1024.0), (np.uint16, 1.0, -1024.0), (np.int16, 2.0, -1001.0)):
            with self.subTest(dtype=dtype.__name__):
                stored = np.rint((self.ct.hu - intercept) / slope).astype(dtype)
                path = self.written(self.ct, ".nii", stored)
                content = bytearray(path.read_bytes())
                content[112:120] = np.array([slope, intercept], "<f4").tobytes()
                path.write_bytes(content)
                self.check(path, slope / 2)

    def test_unsigned_numbers_without_a_rescale_are_refused(self):
        for ending in (".nrrd", ".mha", ".nii.gz"):
            for dtype, voxels in ((np.uint16, self.ct.hu + 1024), (np.uint8, (self.ct.hu + 1024) // 6)):
                path = self.written(self.ct, ending, voxels.astype(dtype))
                with self.subTest(ending=ending, dtype=dtype.__name__), self.assertRaisesRegex(InputError, "not HU"):
                    self.find(read_ct(path))

    def test_dicom_numbers_with_slope_and_intercept(self):
        for n, (dtype, slope, intercept) in enumerate(
            (
                (np.uint8, 6.0, -1024.0),
                (np.uint16, 1.0, -1024.0),
                (np.uint16, 0.5, -2000.25),
                (np.int16, 1.0, 0.0),
                (np.int16, 2.0, -1001.0),
                (np.int32, 1.0, -1024.0),
            )
        ):
            with self.subTest(dtype=dtype.__name__, slope=slope, intercept=intercept):
                self.check(self.written_series(self.ct, str(n), dtype=dtype, slope=slope, intercept=intercept), slope / 2)

    def test_padding_around_the_scan(self):
        whole = self.ct
        outside = np.linalg.norm(np.indices(whole.hu.shape[1:]) - np.reshape(whole.hu.shape[1:], (2, 1, 1)) / 2, axis=0) > 27
        for padding in (-2048, -3024):
            self.ct = replace(whole, hu=np.where(outside, np.int16(padding), whole.hu))
            for path in (
                self.written(self.ct, ".nrrd"),
                self.written(self.ct, ".mha", self.ct.hu.astype(np.float32)),
                self.written(self.ct, ".nii.gz"),
                self.written_series(self.ct, f"dicom{padding}"),
            ):
                with self.subTest(padding=padding, path=path.name):
                    self.check(path)


class BordersTest(PlacedTestCase):
    def small(self, shape_kji=(18, 22, 25)) -> CtVolume:
        hu = np.full(shape_kji, LUNG_HU, np.int16)
        return CtVolume(hu, (1.0, 1.2, 1.5), (40.0, -20.0, 7.0), tuple((turn(8) @ AXES[20]).ravel().tolist()))

    def test_a_lesion_cut_by_the_border_on_each_side(self):
        ct, radius_mm = self.small(), 7.5
        last = np.array(ct.hu.shape[::-1]) - 1
        for axis in range(3):
            for face, inwards in ((-0.5, 1), (last[axis] + 0.5, -1)):
                centre_ijk = last / 2
                centre_ijk[axis] = face
                centre = ct.lps_from_ijk_mm(centre_ijk)
                cut = replace(ct, hu=np.where(self.within(ct, centre, radius_mm), np.int16(100), ct.hu))
                with self.subTest(axis=axis, face=face):
                    result = self.find(cut)
                    # The centroid of half a ball lies three eighths of the radius from its middle.
                    true = centre + inwards * radius_mm * 3 / 8 * ct.direction_matrix[:, axis]
                    self.assert_in_place(result, true[None])
                    self.assertTrue(np.take(result.labels, 0 if inwards > 0 else -1, 2 - axis).any())

    def within(self, ct: CtVolume, centre_lps_mm: np.ndarray, radius_mm: float) -> np.ndarray:
        return np.linalg.norm(voxel_places_lps_mm(ct) - centre_lps_mm, axis=-1) < radius_mm

    def test_single_voxels_in_the_corners(self):
        ct = self.small()
        ct.hu[np.ix_((0, -1), (0, -1), (0, -1))] = 100
        result = self.find(ct)
        self.assertEqual(len(result.lesions), 8)
        np.testing.assert_array_equal(result.labels > 0, ct.hu == 100)
        corners = {ct.hu.shape[axis] - 1 for axis in range(3)} | {0}
        for lesion in result.lesions:
            ((k, j, i),) = np.argwhere(result.labels == lesion.label)
            self.assertLessEqual({int(k), int(j), int(i)}, corners)
            np.testing.assert_allclose(lesion.measurements.centroid_lps_mm, ct.lps_from_ijk_mm([i, j, k]), atol=1e-9)

    def test_a_frame_of_one_voxel_around_the_lesion_and_around_the_image(self):
        ct = self.small((9, 11, 10))
        ct.hu[1:-1, 1:-1, 1:-1] = 100
        np.testing.assert_array_equal(self.find(ct).labels, ct.hu == 100)
        framed = np.full(ct.hu.shape, -3024, np.int16)
        framed[1:-1, 1:-1, 1:-1] = LUNG_HU
        framed[1:4, 1:5, -6:-1] = 100
        np.testing.assert_array_equal(self.find(replace(ct, hu=framed)).labels, framed == 100)

    def test_images_of_one_voxel_along_an_axis(self):
        for shape in ((1, 22, 25), (18, 1, 25), (18, 22, 1)):
            ct = self.small(shape)
            box = tuple(slice(0, 1) if size == 1 else slice(3, 9) for size in shape)
            ct.hu[box] = 100
            with self.subTest(shape=shape):
                np.testing.assert_array_equal(self.find(ct).labels, ct.hu == 100)


class IrregularTest(FilesTestCase):
    """Leaning, sheared and uneven stacks from files: resampled, segmented, brought back, and said."""

    def assert_resampled(self, result: SegmentationResult, true_lps_mm: np.ndarray, *codes: str) -> None:
        self.assert_in_place(result, true_lps_mm)
        self.assertIsNot(result.regular, result.ct)
        found = {finding.code: finding for finding in result.findings}
        for code in codes:
            self.assertEqual(found[code].severity, "warning")
            self.assertIn("brought back to its own voxels", found[code].fix)
        self.assertNotIn("error", {finding.severity for finding in result.findings})
        back = result.labels > 0
        dense = result.ct.hu > THRESHOLD_HU
        self.assertGreater(2 * np.count_nonzero(back & dense) / (np.count_nonzero(back) + np.count_nonzero(dense)), 0.8)

    def test_sheared_files(self):
        middle = (13.0, -41.0, 812.0)
        for n, shear in enumerate((leaning(0.0, 0.3), leaning(-0.2, 0.1), leaning(in_plane=0.2), leaning(0.1, 0.2, -0.1))):
            ct = chest_ct(turn(n) @ AXES[11 * n] @ shear, middle_lps_mm=middle)
            for ending in (".nrrd", ".mha", ".nii"):
                with self.subTest(n=n, ending=ending):
                    path = self.written(ct, ending) if ending != ".nii" else self.sheared_nifti(ct)
                    result = self.find(read_ct(path))
                    self.assert_resampled(result, true_centres_lps_mm(middle), "sheared")
                    if ending != ".nii":  # SimpleITK does not read its axes rightly
                        self.assert_grid(result, sitk.ReadImage(str(path)))

    def sheared_nifti(self, ct: CtVolume) -> Path:
        path = self.written(replace(ct, direction_lps=tuple(np.eye(3).ravel())), ".nii")
        sform = np.column_stack([ct.direction_matrix * ct.spacing_ijk_mm, ct.origin_lps_mm]) * RAS[:, None]
        content = bytearray(path.read_bytes())
        content[280:328] = sform.astype("<f4").tobytes()
        path.write_bytes(content)
        return path

    def test_dicom_of_a_tilted_gantry(self):
        for degrees in (-20.0, 12.0, 25.0):
            for direction in (np.eye(3), rotation((0.3, 0.2, -0.4)) @ ROTATIONS[9]):
                aside = np.outer(4.0 * np.arange(40) * np.tan(np.radians(degrees)), (0, 1))
                ct, middle = chest_of_slices(direction, 4.0 * np.arange(40), aside)
                with self.subTest(degrees=degrees):
                    folder = self.written_series(ct, f"{degrees}{direction[0, 0]:.3f}")
                    self.assert_resampled(self.find(read_ct(folder)), true_centres_lps_mm(middle), "sheared")

    def test_dicom_with_slices_missing_or_uneven(self):
        direction, even_mm = rotation((0.3, 0.2, -0.4)), 4.0 * np.arange(44)
        # Slices that no lesion reaches, so that no part of its centroid's truth goes missing.
        off_mm = np.abs(even_mm[:, None] - even_mm.mean() - true_centres_lps_mm() @ direction[:, 2])
        free = (off_mm > [radius_mm + 2 for _, radius_mm in LESIONS]).all(axis=1).nonzero()[0]
        missing = [free[2], free[-5], free[-4]]
        for name, heights_mm, aside_per_mm, codes in (
            ("missing", np.delete(even_mm, missing), 0.0, ["missing_slices"]),
            ("missing and tilted", np.delete(even_mm, missing), 0.2, ["missing_slices", "sheared"]),
            ("gap", even_mm[:40] + 3.0 * (np.arange(40) >= 30), 0.0, ["uneven_spacing"]),
            ("drifting", np.append(0, np.cumsum(np.linspace(3.2, 4.8, 39))), 0.0, ["uneven_spacing"]),
        ):
            ct, middle = chest_of_slices(direction, heights_mm, np.outer(heights_mm * aside_per_mm, (0, 1)))
            with self.subTest(name):
                result = self.find(read_ct(self.written_series(ct, name)))
                self.assert_resampled(result, true_centres_lps_mm(middle), *codes)

    def test_given_lung_field_is_that_of_the_source(self):
        ct, middle = chest_of_slices(np.eye(3), 4.0 * np.arange(40), np.outer(np.arange(40), (0, 1.5)))
        truth = true_centres_lps_mm(middle)
        one = np.linalg.norm(voxel_places_lps_mm(ct) - truth[1], axis=-1) < 12
        result = self.find(ct, one)
        self.assert_in_place_alone(result, truth[1])
        for grid in (chest_ct(turn(2) @ leaning(0.2, 0.2, 0.1)), chest_ct(turn(2))):
            truth = true_centres_lps_mm()
            one = np.linalg.norm(voxel_places_lps_mm(grid) - truth[2], axis=-1) < 12
            self.assert_in_place_alone(self.find(grid, one), truth[2])

    def assert_in_place_alone(self, result: SegmentationResult, true_lps_mm: np.ndarray) -> None:
        (lesion,) = result.lesions
        self.assertLess(off_voxels(lesion.measurements.centroid_lps_mm, true_lps_mm, result.canonical), HALF_A_VOXEL)

    def test_a_lesion_within_a_gap_keeps_the_nearest_voxel(self):
        # A network may find one in the slice that was interpolated, and no voxel of the source is nearest to that.
        ct, _ = chest_of_slices(np.eye(3), np.delete(4.0 * np.arange(40), 12), np.zeros((39, 2)))
        empty = self.find(replace(ct, hu=np.where(ct.hu > THRESHOLD_HU, np.int16(LUNG_HU), ct.hu)))
        probability = empty.canonical_probability.copy()
        probability[12, 20, 30] = probability[12, 40:43, 50] = probability[25, 5, 6] = 255
        lesions = find_lesions(probability, empty.canonical, threshold=0.5, min_volume_mm3=0)
        labels = replace(empty, lesions=tuple(lesions)).labels
        self.assertEqual(np.argwhere(labels == 1).tolist(), [[11, 41, 50]])
        self.assertEqual(np.argwhere(labels == 2).tolist(), [[11, 20, 30]])
        self.assertEqual(np.argwhere(labels == 3).tolist(), [[24, 5, 6]])

    def test_report_and_table_tell_it(self):
        # Its j runs along the body, and the table's slice counts there; k leans towards it.
        grid = chest_ct(AXES[8] @ leaning(0.1, 0.3))
        by_slices, _ = chest_of_slices(np.eye(3), np.delete(4.0 * np.arange(42), [3, 4]), np.zeros((40, 2)))
        for ct, orientation in ((grid, "LSP"), (by_slices, "LPS")):
            self.assertEqual(ct.orientation, orientation)
            result = self.find(ct)
            write_result(result, self.folder / "out", force=True)
            report = json.loads((self.folder / "out" / "report.json").read_text(encoding="utf-8"))
            self.assertEqual(report["geometry"]["size_ijk"], list(ct.hu.shape[::-1]))
            self.assertEqual(report["geometry"]["segmented_on"]["size_ijk"], list(result.regular.hu.shape[::-1]))
            self.assertIn(report["findings"][0]["code"], ("sheared", "missing_slices"))
            axis = orientation.index("S")
            with open(self.folder / "out" / "lesions.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self.assertEqual(len(rows), len(LESIONS))
            for label, row in enumerate(rows, start=1):
                indices = np.argwhere(result.labels == label)[:, 2 - axis]
                self.assertTrue(indices.min() <= int(row["slice"]) <= indices.max(), (axis, row["slice"], indices))


class NodesTest(PlacedTestCase, MrmlTestCase):
    def setUp(self):
        MrmlTestCase.setUp(self)

    def check(self, volume_node, true_world_lps_mm: np.ndarray) -> SegmentationResult:
        """Lesions and segments lie, in the world, where the truth is; the segments hold the labels on the volume's grid."""
        result = self.find(ct_from_volume_node(volume_node))
        world, ct = world_from_node(volume_node), result.ct
        steps_mm = world[:3, :3] @ (RAS[:, None] * ct.direction_matrix * ct.spacing_ijk_mm)
        segmentation_node = segmentation_from_result(result, volume_node)
        np.testing.assert_array_equal(exported_labels(segmentation_node), result.labels)
        self.assertEqual(len(result.lesions), len(true_world_lps_mm))
        for lesion, true in zip(result.lesions, true_world_lps_mm * RAS, strict=True):
            measured = (world @ [*(RAS * lesion.measurements.centroid_lps_mm), 1])[:3]
            shown = world_centroid_ras_mm(segmentation_node, f"Lesion_{lesion.label:02d}")
            for place in (measured, shown):
                self.assertLess(np.abs(np.linalg.solve(steps_mm, place - true)).max(), HALF_A_VOXEL)
        return result

    def moved(self, true_lps_mm: np.ndarray, world_from_node_ras: np.ndarray) -> np.ndarray:
        return ((true_lps_mm * RAS) @ world_from_node_ras[:3, :3].T + world_from_node_ras[:3, 3]) * RAS

    def test_every_order_and_flip_of_the_axes_under_every_kind_of_parent(self):
        for n, axes in enumerate(AXES):
            ct = chest_ct(turn(n) @ axes, shape_kji=(37, 51, 53), middle_lps_mm=(5.0 * n, -60.0, 700.0))
            node = add_volume(ct)
            true = true_centres_lps_mm((5.0 * n, -60.0, 700.0))
            if n % 3:
                node.SetAndObserveTransformNodeID(add_transform(self.scene, rigid_motion()).GetID())
                true = self.moved(true, rigid_motion())
            if n % 3 == 2:
                node.HardenTransform()
            with self.subTest(axes=axes.tolist(), parent=n % 3):
                self.assertEqual(node.GetParentTransformNode() is not None, n % 3 == 1)
                self.check(node, true)
            self.scene.Clear()

    def test_parents_one_above_the_other_and_mirrors(self):
        mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
        for n, (upper, lower) in enumerate(
            ((rigid_motion(), rigid_motion()), (mirror, rigid_motion()), (rigid_motion(), mirror))
        ):
            ct = chest_ct(turn(n) @ AXES[11 * n])
            parent = add_transform(self.scene, lower)
            parent.SetAndObserveTransformNodeID(add_transform(self.scene, upper).GetID())
            node = add_volume(ct)
            node.SetAndObserveTransformNodeID(parent.GetID())
            true = self.moved(true_centres_lps_mm(), upper @ lower)
            self.check(node, true)
            node.HardenTransform()
            self.assertIsNone(node.GetParentTransformNode())
            self.check(node, true)
            self.scene.Clear()

    def test_negative_spacings_of_nodes(self):
        import slicer

        ct = chest_ct(turn(4) @ AXES[30])
        for signs in ((-1, 1, 1), (1, -1, -1), (-1, -1, -1)):
            node = add_volume(ct)
            # The same grid, told by the other sign of both.
            directions = np.eye(4)
            directions[:3, :3] = RAS[:, None] * ct.direction_matrix * signs
            node.SetSpacing(*np.multiply(signs, ct.spacing_ijk_mm))
            node.SetIJKToRASDirectionMatrix(slicer.util.vtkMatrixFromArray(directions))
            with self.subTest(signs=signs):
                result = self.check(node, true_centres_lps_mm())
                np.testing.assert_allclose(result.ct.spacing_ijk_mm, ct.spacing_ijk_mm)

    def test_number_types_of_nodes(self):
        ct = chest_ct(turn(2) @ AXES[9])
        for dtype in (np.int16, np.int32, np.float32, np.float64):
            with self.subTest(dtype=dtype.__name__):
                self.check(add_volume(ct, voxels=ct.hu.astype(dtype)), true_centres_lps_mm())

    def test_hardened_shear_and_scaling(self):
        shear = np.eye(4)
        shear[:3, :3] = rotation((0.3, 0.1, -0.2)) @ [[1.1, 0.0, 0.1], [0.0, 0.9, 0.25], [0.0, 0.0, 1.0]]
        shear[:3, 3] = (7.0, -8.0, 9.0)
        for n in (0, 17, 44):
            node = add_volume(chest_ct(turn(n) @ AXES[n]))
            node.SetAndObserveTransformNodeID(add_transform(self.scene, shear).GetID())
            with self.assertRaisesRegex(InputError, "harden the transform on a copy"):
                ct_from_volume_node(node)
            node.HardenTransform()
            result = self.check(node, self.moved(true_centres_lps_mm(), shear))
            self.assertFalse(result.ct.is_orthogonal)
            self.assertIn("sheared", {finding.code for finding in result.findings})

    def test_acquisition_transform_of_a_tilted_gantry_is_hardened_on_a_copy(self):
        import slicer

        heights_mm = 4.0 * np.arange(40)
        for direction in (np.eye(3), rotation((0.3, 0.2, -0.4))):
            ct, middle = chest_of_slices(direction, heights_mm, np.outer(heights_mm * np.tan(np.radians(12)), (0, 1)))
            # As Slicer loads it: an upright volume, and its slices moved to their places by the parent transform.
            node = add_volume(ct, "Tilted")
            node.SetAndObserveTransformNodeID(add_grid_transform(self.scene, ct).GetID())
            with self.assertRaisesRegex(InputError, "'Tilted'.*non-linear.*harden the transform on a copy"):
                ct_from_volume_node(node)
            copy = slicer.modules.volumes.logic().CloneVolume(self.scene, node, "Copy")
            copy.HardenTransform()
            self.check(copy, true_centres_lps_mm(middle))
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), ct.hu)


if __name__ == "__main__":
    unittest.main()
