"""What it takes to group slices grows with their number, not with its square."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from helpers.dicom_files import small_chest, write_series
from NLSTSegLib.reading import dicom_folder
from NLSTSegLib.reading.dicom_headers import DicomSlice, read_headers


class GroupingTest(unittest.TestCase):
    def test_acquisitions_at_the_same_places_take_a_look_at_each_slice_a_few_times(self):
        with tempfile.TemporaryDirectory() as folder:
            write_series(Path(folder), small_chest()[:1])
            one = next(read_headers(next(Path(folder).iterdir())))
        looks = []
        for count in (50, 200):
            slices = tuple(
                replace(one, sop_uid=str(n), position_lps_mm=(0.0, 0.0, float(n // 2)), parts=(str(n), *one.parts[1:]))
                for n in range(count)
            )
            with mock.patch.object(DicomSlice, "is_placed", new_callable=mock.PropertyMock, return_value=True) as looked:
                dicom_folder._split_parts(slices)
            looks.append(looked.call_count)
        self.assertLess(looks[1], 5 * looks[0])


if __name__ == "__main__":
    unittest.main()
