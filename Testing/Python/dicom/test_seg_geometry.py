"""A SEG lies where its lesions lie, in every geometry of the CT, for our reader, highdicom's and dcmqi's."""

import tempfile
import unittest
from pathlib import Path

import highdicom
import numpy as np

from helpers.dicom_lesions import (
    GEOMETRIES,
    NOT_IN_DCMQI,
    at_slices,
    has_tool,
    labels_on,
    read_by_dcmqi,
    save_seg,
    series_at,
)
from helpers.ohif import needs_ohif, read_by_ohif
from NLSTSegLib.dicom.codes import SegType
from NLSTSegLib.dicom.read_seg import read_seg
from NLSTSegLib.reading.dicom_series import DicomSeries


def read_by_highdicom(seg: highdicom.seg.Segmentation, series: DicomSeries) -> np.ndarray:
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    if series.slices[0].frames > 1:
        frames = [one.frame + 1 for one in series.slices]
        return seg.get_pixels_by_source_frame(series.slices[0].sop_uid, frames, **options)
    return seg.get_pixels_by_source_instance([one.sop_uid for one in series.slices], **options)


class TestGeometry(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def assert_read_by_all(self, file: Path, series: DicomSeries, labels: np.ndarray, name: str = "axial") -> None:
        read = read_seg(file, series)
        np.testing.assert_array_equal(read.labels, labels)
        self.assertEqual(read.notes, ())
        seg = highdicom.seg.segread(file)
        np.testing.assert_array_equal(read_by_highdicom(seg, series), labels)
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        # Rounded positions shift both ends by 0.05 mm at the most.
        step_mm = 2.5 if name == "two slice distances" else 1.25
        self.assertAlmostEqual(float(measures.SpacingBetweenSlices), step_mm, delta=0.012)
        if name not in NOT_IN_DCMQI and has_tool("segimage2itkimage"):
            image = read_by_dcmqi(file, file.with_suffix(".dcmqi"))
            np.testing.assert_array_equal(at_slices(image, series), labels)

    def test_every_voxel_is_where_it_lies_and_the_slice_distance_is_told(self):
        for name, write in GEOMETRIES.items():
            with self.subTest(name):
                write(self.folder / name)
                series = series_at(self.folder / name)
                labels = labels_on(len(series.slices))
                file = save_seg(series, labels, self.folder / f"{name}.dcm")
                self.assert_read_by_all(file, series, labels, name)

    def test_deflated_and_labelmap_say_the_same(self):
        GEOMETRIES["oblique"](self.folder / "ct")
        series = series_at(self.folder / "ct")
        labels = labels_on(len(series.slices))
        for seg_type in (SegType.DEFLATED, SegType.LABELMAP):
            with self.subTest(seg_type):
                self.assert_read_by_all(save_seg(series, labels, self.folder / f"{seg_type}.dcm", seg_type), series, labels)

    def test_300_lesions_keep_their_numbers(self):
        GEOMETRIES["axial"](self.folder / "ct")
        series = series_at(self.folder / "ct")
        labels = np.zeros_like(labels_on(len(series.slices)))
        labels[5].flat[:240] = np.arange(1, 241)
        labels[6].flat[:60] = np.arange(241, 301)
        self.assert_read_by_all(save_seg(series, labels, self.folder / "seg.dcm"), series, labels)

    @needs_ohif
    def test_ohif_shows_every_voxel_and_segment_of_every_geometry_and_kind(self):
        cases = []
        for name, write in GEOMETRIES.items():
            write(self.folder / name)
            series = series_at(self.folder / name)
            for seg_type in SegType if name in ("oblique", "enhanced") else (SegType.BINARY,):
                file = self.folder / f"{name} {seg_type}.dcm"
                cases.append((save_seg(series, labels_on(len(series.slices)), file, seg_type), series))
        for (file, series), (segments, labels) in zip(cases, read_by_ohif(cases), strict=True):
            with self.subTest(file.stem):
                np.testing.assert_array_equal(labels, labels_on(len(series.slices)))
                lesions = segments[-4:]
                self.assertEqual([one["SegmentLabel"] for one in lesions], [f"Lesion {n:02d}" for n in range(1, 5)])
                self.assertEqual([one["SegmentNumber"] for one in lesions], [1, 2, 3, 4])
                self.assertEqual({one["SegmentAlgorithmType"] for one in lesions}, {"AUTOMATIC"})


if __name__ == "__main__":
    unittest.main()
