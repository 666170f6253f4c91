"""SEGs of other programs are read on the voxels of the CT, or refused with the reason."""

import copy
import tempfile
import unittest
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.uid import RLELossless, generate_uid

from helpers.dicom_files import small_chest, write_series
from helpers.dicom_lesions import GEOMETRIES, SHAPE_KJI, SPACING_IJK_MM, found_in, labels_on, save_seg, series_at
from NLSTSegLib.dicom.codes import SegType
from NLSTSegLib.dicom.read_seg import read_seg
from NLSTSegLib.dicom.seg import make_seg
from NLSTSegLib.dicom.source import read_source
from NLSTSegLib.errors import InputError


class TestForeignSeg(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        GEOMETRIES["axial"](cls.folder / "ct")
        cls.series = series_at(cls.folder / "ct")
        cls.source = read_source(cls.series)
        cls.labels = labels_on(len(cls.series.slices))
        cls.seg = make_seg(cls.source, found_in(cls.labels), SegType.BINARY)

    def read(self, seg: pydicom.Dataset, name: str = "seg.dcm"):
        seg.save_as(self.folder / name, enforce_file_format=True)
        return read_seg(self.folder / name, self.series)

    def changed(self) -> pydicom.Dataset:
        return copy.deepcopy(self.seg)

    def assert_refused(self, seg: pydicom.Dataset, *words: str) -> None:
        with self.assertRaises(InputError) as caught:
            self.read(seg)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_numbers_with_gaps_become_labels_in_their_order(self):
        seg = self.changed()
        for item in seg.SegmentSequence:
            item.SegmentNumber *= 10
        for frame in seg.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber *= 10
        read = self.read(seg)
        self.assertEqual([segment.number for segment in read.segments], [10, 20, 30, 40])
        self.assertEqual(read.segments[0].tracking_uid, seg.SegmentSequence[0].TrackingUID)
        np.testing.assert_array_equal(read.labels, self.labels)

    def test_without_references_to_images_the_place_decides(self):
        seg = self.changed()
        del seg.ReferencedSeriesSequence
        for frame in seg.PerFrameFunctionalGroupsSequence:
            del frame.DerivationImageSequence
        np.testing.assert_array_equal(self.read(seg).labels, self.labels)

    def test_fractional_counts_from_half_of_its_maximum(self):
        fraction = np.where(self.labels == 1, 0.6, np.where(self.labels == 2, 0.4, 0.0))
        seg = highdicom.seg.Segmentation(
            source_images=list(self.source.images),
            pixel_array=np.stack([fraction, fraction * 0], axis=-1),
            segmentation_type="FRACTIONAL",
            segment_descriptions=self.seg.SegmentSequence[:2],
            **{"series_instance_uid": generate_uid(), "series_number": 1, "sop_instance_uid": generate_uid()},
            **{"instance_number": 1, "manufacturer": "x", "manufacturer_model_name": "x"},
            **{"software_versions": "x", "device_serial_number": "x"},
        )
        read = self.read(seg)
        np.testing.assert_array_equal(read.labels, self.labels == 1)
        self.assertIn("FRACTIONAL", read.notes[0])
        self.assertIn("no voxel of the CT is of segment 2", read.notes[1])

    def test_files_without_the_mark_of_dicom_are_read(self):
        bare = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for file in sorted((self.folder / "ct").iterdir()):
            (bare / file.name).write_bytes(file.read_bytes()[132:])
        self.seg.save_as(self.folder / "whole.dcm", enforce_file_format=True)
        (self.folder / "bare").write_bytes((self.folder / "whole.dcm").read_bytes()[132:])
        read = read_seg(self.folder / "bare", series_at(bare))
        np.testing.assert_array_equal(read.labels, self.labels)
        self.assertEqual(read_source(series_at(bare)).series_uid, self.series.uid)

    def test_a_label_map_with_gaps_in_its_numbers(self):
        seg = make_seg(self.source, found_in(self.labels), SegType.LABELMAP)
        pixels = seg.pixel_array
        seg.PixelData = np.where(pixels > 1, pixels + 6, pixels).astype(pixels.dtype).tobytes()
        for item in seg.SegmentSequence:
            item.SegmentNumber += 6 if item.SegmentNumber > 1 else 0
        read = self.read(seg)
        self.assertEqual([segment.number for segment in read.segments], [1, 8, 9, 10])
        np.testing.assert_array_equal(read.labels, self.labels)

    def test_what_a_segment_is_and_who_made_it(self):
        first = self.read(self.changed()).segments[0]
        self.assertEqual((first.algorithm_type, first.algorithm, first.description), ("AUTOMATIC", "threshold 1", "score 0.875"))
        self.assertEqual(
            first.terminology,
            "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Abnormal Structure"
            "~SCT^27925004^Nodule~^^~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^",
        )
        self.assertIn("weights sha256 " + "ab" * 32, first.parameters)
        seg = self.changed()
        del seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
        self.assertEqual(self.read(seg).segments[0].terminology, "")

    def test_compressed_labelmap(self):
        seg = make_seg(self.source, found_in(self.labels), SegType.LABELMAP)
        seg.compress(RLELossless, generate_instance_uid=False)
        np.testing.assert_array_equal(self.read(seg).labels, self.labels)

    def test_overlapping_voxels_belong_to_the_first_segment_and_are_counted(self):
        masks = np.stack([self.labels == n for n in (1, 2)], axis=-1)
        masks[3, 9, 11, 0] = True
        seg = highdicom.seg.Segmentation(
            source_images=list(self.source.images),
            pixel_array=masks,
            segmentation_type="BINARY",
            segment_descriptions=self.seg.SegmentSequence[:2],
            **{"series_instance_uid": generate_uid(), "series_number": 1, "sop_instance_uid": generate_uid()},
            **{"instance_number": 1, "manufacturer": "x", "manufacturer_model_name": "x"},
            **{"software_versions": "x", "device_serial_number": "x"},
        )
        read = self.read(seg)
        self.assertEqual((read.labels[3, 9, 11], read.labels[3, 9, 12]), (1, 2))
        self.assertIn("1 voxels belong to several segments", read.notes[0])

    def test_another_grid_is_resampled_by_the_nearest_voxel_and_said_so(self):
        # The same chest at twice the resolution in all directions: every voxel of the CT is in the middle of eight.
        fine_mm = np.array(SPACING_IJK_MM) / 2
        facts = {name: getattr(self.seg, name) for name in ("StudyInstanceUID", "FrameOfReferenceUID")}
        write_series(
            self.folder / "fine",
            np.repeat(np.repeat(np.repeat(small_chest(SHAPE_KJI), 2, 0), 2, 1), 2, 2),
            fine_mm,
            np.array([-150.0, -160.0, -300.0]) - fine_mm * 0.4,
            **facts,
        )
        fine = series_at(self.folder / "fine")
        labels = np.repeat(np.repeat(np.repeat(self.labels, 2, 0), 2, 1), 2, 2)
        save_seg(fine, labels, self.folder / "fine.dcm")
        # The frame of reference of the small series was made up; the SEG of the fine one has it.
        read = read_seg(self.folder / "fine.dcm", self.series)
        np.testing.assert_array_equal(read.labels, self.labels)
        self.assertIn("another grid", read.notes[0])

    def test_refusals_say_why(self):
        seg = self.changed()
        del seg.ReferencedSeriesSequence
        seg.StudyInstanceUID = "1.2.3"
        self.assert_refused(seg, "another study")
        seg = self.changed()
        seg.SegmentSequence[1].SegmentNumber = 1
        self.assert_refused(seg, "breaks the standard", "not unique")
        seg = self.changed()
        del seg.SegmentSequence[3]
        self.assert_refused(seg, "not described")
        seg = self.changed()
        del seg.PerFrameFunctionalGroupsSequence[0]
        self.assert_refused(seg, "frames")
        seg = self.changed()
        seg.PixelData = seg.PixelData[:10]
        self.assert_refused(seg, "breaks the standard")
        with self.assertRaisesRegex(InputError, "not a DICOM SEG but of modality 'CT'"):
            read_seg(self.series.slices[0].path, self.series)
        (self.folder / "text.dcm").write_text("no DICOM")
        with self.assertRaisesRegex(InputError, "not DICOM"):
            read_seg(self.folder / "text.dcm", self.series)
        with self.assertRaisesRegex(InputError, "no file"):
            read_seg(self.folder / "none.dcm", self.series)


if __name__ == "__main__":
    unittest.main()
