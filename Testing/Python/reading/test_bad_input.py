"""What is no chest CT is refused in one line with exit code 2, or segmented rightly with a warning; never a huge allocation."""

import gzip
import os
import re
import struct
import subprocess
import sys
import unittest
import zlib

import numpy as np
import SimpleITK as sitk

from helpers.dicom_files import change, write_enhanced, write_series
from helpers.limited_process import can_limit_memory, run_limited
from helpers.marks import slow
from helpers.placed_chest import chest_ct
from helpers.threshold_model import THRESHOLD_HU
from helpers.whole_command import WholeCommandTest
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.image_file import FORMATS
from NLSTSegLib.reading.read import read_ct

ENDINGS = (".nii.gz", ".nrrd", ".mha")
"""One of each format."""


class BadInputTest(WholeCommandTest):
    def setUp(self):
        super().setUp()
        self.ct = chest_ct(np.eye(3))

    def write(self, name, hu=None, compress=False):
        hu = self.ct.hu if hu is None else hu
        image = sitk.GetImageFromArray(hu)
        if hu.ndim == 3:
            image.SetSpacing(self.ct.spacing_ijk_mm)
            image.SetOrigin(self.ct.origin_lps_mm)
        sitk.WriteImage(image, str(self.folder / name), compress)
        return self.folder / name


class DamagedFilesTest(BadInputTest):
    def test_empty_files_text_and_packed_folders_under_every_ending(self):
        for ending in FORMATS:
            for content in (b"", b"\0", b"This is a letter.\n" * 50, b"PK\x03\x04" + bytes(400), bytes(400)):
                with self.subTest(ending=ending, content=content[:4]):
                    path = self.folder / f"ct{ending}"
                    path.write_bytes(content)
                    self.assert_refused(path, path)

    def test_empty_and_text_files_that_should_be_dicom(self):
        for name, content in (("ct", b""), ("ct.dcm", b"This is a letter.\n" * 50), ("IM0", bytes(128) + b"DICM")):
            with self.subTest(name):
                (self.folder / name).write_bytes(content)
                self.assert_refused(self.folder / name, self.folder / name)

    def test_truncated_files_of_every_format(self):
        for ending in FORMATS:
            for compress in (False, True):
                path = self.write(f"ct{compress}{ending}", compress=compress)
                data = next((p for p in self.folder.glob(f"ct{compress}*raw*")), path)
                content = data.read_bytes()
                for length in (40, len(content) // 2, len(content) - 1):
                    with self.subTest(ending=ending, compress=compress, length=length):
                        data.write_bytes(content[:length])
                        self.assert_refused(path, path)
                data.unlink()

    def test_truncated_dicom_of_every_encoding(self):
        for encoding in ("", "RLE", "JPEG", "JPEG2000", "deflated"):
            file = write_series(self.folder / f"x{encoding}", self.ct.hu[:3], encoding=encoding)[1]
            content = file.read_bytes()
            # The last eight bytes of compressed voxels only say that they are over.
            for length in (140, 200, 600, len(content) // 2, len(content) - 60, len(content) - 12):
                with self.subTest(encoding=encoding, length=length):
                    file.write_bytes(content[:length])
                    self.assert_refused(file.parent, file)

    def test_flipped_bits_in_compressed_voxels(self):
        for ending in ENDINGS:
            path = self.write(f"ct{ending}", compress=True)
            content = path.read_bytes()
            for share in (0.3, 0.6, 0.9):
                with self.subTest(ending=ending, share=share):
                    damaged = bytearray(content)
                    damaged[int(share * len(content))] ^= 4
                    path.write_bytes(damaged)
                    self.assert_refused(path, path, "damaged")

    def test_a_flipped_bit_in_compressed_voxels_never_changes_them(self):
        rng = np.random.default_rng(9)
        for ending in ENDINGS:
            path = self.write(f"ct{ending}", compress=True)
            content = path.read_bytes()
            refused = 0
            for at in rng.integers(len(content) // 10, len(content), 60):
                damaged = bytearray(content)
                damaged[at] ^= 1 << rng.integers(8)
                path.write_bytes(damaged)
                try:
                    # Some bits only tell from which of two equal places the next voxels are copied.
                    np.testing.assert_array_equal(read_ct(path).hu, self.ct.hu)
                except InputError:
                    refused += 1
            self.assertGreater(refused, 50, ending)

    def test_one_line_though_the_libraries_of_the_formats_say_more(self):
        series = write_series(self.folder / "jpeg", self.ct.hu[:3], encoding="JPEG")
        content = bytearray(series[1].read_bytes())
        # The table of the Huffman code is in the first hundred bytes of the voxels.
        place = content.index(b"\xff\xc4") + 6
        content[place : place + 8] = b"\xff" * 8
        series[1].write_bytes(content)
        path = self.write("ct.mha")
        path.write_bytes(path.read_bytes().replace(b"DimSize = 60 56 40", b"DimSize = 60 56 4O"))
        for damaged in (series[1].parent, path):
            done = subprocess.run([sys.executable, "-m", "NLSTSegLib", "check", str(damaged)], capture_output=True, text=True)
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, r"^nlstseg: error: [^\n]*\n$")
            self.assertEqual(done.stdout, "")


class HostileHeaderTest(BadInputTest):
    """Headers with which the libraries of the formats write past the end of their memory."""

    def spoil(self, name, old, new, compress=False):
        path = self.write(name, compress=compress)
        content = path.read_bytes()
        self.assertIn(old, content)
        path.write_bytes(content.replace(old, new, 1))
        return path

    def test_metaimage_of_more_dimensions_than_its_reader_has_room_for(self):
        for value in (
            b"NDims = 11",
            b"NDims = 2147483647",
            b"NDims = -1",
            b"NDims = 3\nNDims = 99",
            b"NDims: 99",
            b"Comment = NDims 3",
        ):
            path = self.spoil("ct.mha", b"NDims = 3", value)
            self.assert_refused(path, path, "number of dimensions")

    def test_lines_that_are_too_long(self):
        for key in (b"Comment", b"Name", b"ObjectSubType", b"AnatomicalOrientation"):
            path = self.spoil("ct.mha", b"NDims = 3", b"NDims = 3\n" + key + b" = " + b"x" * 5000)
            self.assert_refused(path, path, "too long")
        for line in (b"x" * 5000, b"kinds: " + b"x" * 5000, b"kinds: x:=" + b"x" * 5000):
            path = self.spoil("ct.nrrd", b"dimension: 3", b"dimension: 3\n" + line)
            self.assert_refused(path, path, "too long")
        path = self.spoil("ct.nrrd", b"NRRD0004", b"x" * 5000)
        self.assert_refused(path, path, "does not start with NRRD")

    def test_data_spread_over_several_files(self):
        for ending in (".mhd", ".nhdr"):
            path = self.write(f"ct{ending}")
            content, raw = path.read_bytes(), next(self.folder.glob("ct*raw"))
            self.assertIn(b" " + raw.name.encode() + b"\n", content)
            for name in (
                b"slice%02d.raw 0 39 1",
                b"%s%n%n 0 39 1",
                b"%999999999d 0 39 1",
                b"%d.raw 1 9" + b"9" * 99 + b" 1",
                b"LIST",
            ):
                path.write_bytes(content.replace(raw.name.encode(), name))
                self.assert_refused(path, path, "write it again as one file")
            raw.unlink()

    def test_voxels_that_do_not_start_after_the_header(self):
        for compress in (False, True):
            for size in (b"10", b"100", b"1000000", b"-2"):
                path = self.spoil("ct.mha", b"NDims = 3", b"NDims = 3\nHeaderSize = " + size, compress)
                self.assert_refused(path, path, "HeaderSize does not fit")
        self.assert_in_place(self.spoil("ct.mha", b"NDims = 3", b"NDims = 3\nHeaderSize = -1"))
        path = self.write("ct.mhd")
        raw = self.folder / "ct.raw"
        raw.write_bytes(b"header" + raw.read_bytes())
        path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = 3\nHeaderSize = 6"))
        self.assert_in_place(path)
        raw.write_bytes(raw.read_bytes()[:-1])
        self.assert_refused(path, path)

    def test_voxels_as_text_and_after_a_gap(self):
        text = " ".join(map(str, self.ct.hu.ravel())).encode()
        content = self.write("ct.nrrd").read_bytes()
        header, voxels = content[: -self.ct.hu.nbytes], content[-self.ct.hu.nbytes :]
        old = b"encoding: raw\n"
        self.assertIn(old, header)
        path = self.folder / "ct.nrrd"
        for new, data in (
            (b"encoding: ascii\n", text),
            (b"encoding: hex\n", voxels.hex().encode()),
            (b"encoding: raw\nbyte skip: -1\n", b"abc" + voxels),
            (b"encoding: raw\nline skip: 2\n", b"a\nb\n" + voxels),
        ):
            with self.subTest(new):
                path.write_bytes(header.replace(old, new) + data)
                self.assert_in_place(path)
                for length in (len(data) // 2, len(data) - 40, 100):
                    path.write_bytes(header.replace(old, new) + data[:length])
                    self.assert_refused(path, path)
        # ITK does not read a MetaImage of text.
        path = self.spoil("ct.mha", b"BinaryData = True", b"BinaryData = False")
        path.write_bytes(path.read_bytes()[: -self.ct.hu.nbytes] + text)
        self.assert_refused(path, path)

    def test_fields_with_a_colon(self):
        self.assert_in_place(self.spoil("ct.mha", b"ElementDataFile = LOCAL", b"ElementDataFile: LOCAL", compress=True))
        path = self.spoil("ct.mha", b"NDims = 3", b"NDims = 3\nHeaderSize: 10")
        self.assert_refused(path, path, "HeaderSize does not fit")

    def test_voxels_a_thousand_times_as_long_as_wide(self):
        path = self.spoil("ct.mha", b"ElementSpacing = 3 3.2", b"ElementSpacing = 900 0.7")
        self.assertEqual(self.segmented(path).findings["odd_spacing"], "warning")

    def test_long_notes_that_other_programs_write_are_read(self):
        note = b"x" * 50_000
        self.assert_in_place(self.spoil("ct.nrrd", b"\n\n", b"\norg.example.properties:=" + note + b"\n# " + note + b"\n\n"))
        self.assert_in_place(self.spoil("ct.mha", b"NDims = 3", b"NDims = 3\n0008|103e = " + note[:15_000]))

    def test_places_where_no_patient_is(self):
        for value in (b"1e30", b"-3e38", b"1e7"):
            path = self.spoil("ct.nrrd", b"space origin: (", b"space origin: (" + value + b",0,0)\n#")
            self.assert_refused(path, path, "where no patient is")

    def test_directions_that_are_no_unit_vectors_are_part_of_the_spacing(self):
        path = self.spoil("ct.mha", b"TransformMatrix = 1 0 0 0 1 0 0 0 1", b"TransformMatrix = 2 0 0 0 1 0 0 0 0.5")
        path.write_bytes(
            path.read_bytes().replace(b"ElementSpacing = 3 3.2", b"ElementSpacing = 1.5 3.2").replace(b" 4\n", b" 8\n", 1)
        )
        self.assertEqual(read_ct(path).spacing_ijk_mm, self.ct.spacing_ijk_mm)
        self.assert_in_place(path)


class NoVolumeTest(BadInputTest):
    def test_one_voxel(self):
        for ending in ENDINGS:
            self.assert_refused(self.write(f"one{ending}", np.full((1, 1, 1), 40, np.int16)), "All voxels have the value 40")
        write_series(self.folder / "one", np.full((1, 1, 1), 40, np.int16))
        self.assert_refused(self.folder / "one", "All voxels have the value 40")

    def test_one_slice_is_told_to_be_no_chest(self):
        write_series(self.folder / "one", self.ct.hu[20:21], self.ct.spacing_ijk_mm)
        outcome = self.segmented(self.folder / "one")
        self.assertEqual(outcome.findings["few_slices"], "warning")

    def test_flat_images_series_of_volumes_and_colour(self):
        colour = np.zeros((4, 5, 6, 3), np.uint8)
        for ending in ENDINGS:
            with self.subTest(ending=ending):
                path = self.write(f"flat{ending}", self.ct.hu[20])
                self.assert_refused(path, path, "2D image, not a volume")
                path = self.folder / f"time{ending}"
                sitk.WriteImage(sitk.JoinSeries([self.ct.to_image()] * 2), str(path))
                self.assert_refused(path, path, "60x56x40x2", "give one volume")
                path = self.folder / f"colour{ending}"
                sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(path))
                self.assert_refused(path, path, "3 values a voxel")

    def test_constant_volumes(self):
        for value in (-1024, 0, 40):
            self.assert_refused(self.write("ct.nrrd", np.full((20, 30, 30), value, np.int16)), f"value {value}")
        self.assert_refused(self.write("ct.nrrd", np.full((20, 30, 30), np.nan, np.float32)), "All voxels")

    def test_things_that_are_no_files(self):
        os.mkfifo(self.folder / "pipe.nii.gz")
        for path in (self.folder / "pipe.nii.gz", "/dev/zero", self.folder / ("x" * 5000)):
            done = self.run_command("check", path)
            self.assertEqual(done.exit_code, 2)
            self.assertRegex(done.stderr, r"^nlstseg: error: there is no file or folder [^\n]*\n$")


class OtherImagesTest(BadInputTest):
    def test_scaled_images(self):
        unit = np.clip((self.ct.hu + 1000) / 1400, 0, 1)
        for name, values in (
            ("0 to 1", unit.astype(np.float32)),
            ("-1 to 1", (2 * unit - 1).astype(np.float32)),
            ("8 bit", (255 * unit).astype(np.uint8)),
            ("without intercept", (self.ct.hu + np.int16(1024)).astype(np.uint16)),
        ):
            for ending in ENDINGS:
                with self.subTest(name, ending=ending):
                    self.assert_refused(self.write(f"ct{ending}", values), "not HU", "rescale slope and intercept")

    def test_mr(self):
        rng = np.random.default_rng(7)
        tissue = np.interp(self.ct.hu, (-1000, -850, -350, 250), (0, 60, 500, 900))
        magnitude = np.hypot(tissue + rng.normal(0, 15, tissue.shape), rng.normal(0, 15, tissue.shape)).astype(np.int16)
        for ending in ENDINGS:
            self.assert_refused(self.write(f"mr{ending}", magnitude), "not HU")
        write_series(self.folder / "mr", magnitude, intercept=0.0, Modality="MR", SeriesDescription="T1")
        self.assert_refused(self.folder / "mr", self.folder / "mr", "is a CT volume", "MR 'T1'")

    def test_labels(self):
        chest = self.write("ct.nrrd")
        self.segmented(chest)
        for name in ("labels.nrrd", "segmentation.seg.nrrd"):
            self.assert_refused(self.out / "1" / name)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(self.out / "1" / "labels.nrrd")))
        for largest, dtype in ((1, np.uint8), (3, np.int16), (200, np.uint16), (30000, np.float32)):
            self.assert_refused(self.write("labels.nii.gz", (labels * (largest / labels.max())).astype(dtype)), "not HU")

    def test_a_head_has_no_lungs(self):
        k, j, i = np.ogrid[-1:1:48j, -1:1:60j, -1:1:60j]
        radius = np.sqrt((k / 0.9) ** 2 + (j / 0.85) ** 2 + (i / 0.7) ** 2)
        hu = np.select([radius < 0.9, radius < 1], [35.0, 900.0], -1000.0)
        # Sinuses and the airway are air too.
        hu[((k + 0.5) / 0.15) ** 2 + ((j + 0.6) / 0.12) ** 2 + ((np.abs(i) - 0.2) / 0.1) ** 2 < 1] = -1000
        hu[np.broadcast_to((j / 0.06) ** 2 + (i / 0.05) ** 2 < 1, hu.shape) & (k < -0.5)] = -1000
        hu += np.random.default_rng(8).normal(0, 8, hu.shape)
        self.ct = chest_ct(np.eye(3), spacing_ijk_mm=(4.0, 4.0, 4.0))
        outcome = self.segmented(self.write("head.nii.gz", hu.astype(np.int16)))
        self.assertEqual(outcome.findings["no_lungs"], "warning")
        self.assertIn("No lungs were found", outcome.stderr)

    def test_nan_and_infinity_are_taken_for_air(self):
        hu = self.ct.hu.astype(np.float32)
        hu[0, :5] = np.nan
        hu[-1, 0, :3] = (np.inf, -np.inf, 3e38)
        for ending in ENDINGS:
            with self.subTest(ending=ending):
                outcome = self.assert_in_place(self.write(f"ct{ending}", hu))
                self.assertEqual(outcome.findings["nonfinite"], "warning")
                self.assertIn("302 voxels", outcome.stderr)

    def test_other_number_types_with_the_same_values(self):
        for dtype in (np.int32, np.float32, np.float64):
            for ending in ENDINGS:
                with self.subTest(dtype=dtype, ending=ending):
                    self.assert_in_place(self.write(f"ct{ending}", self.ct.hu.astype(dtype)))


class SizeTest(BadInputTest):
    @slow
    def test_three_thousand_thin_slices(self):
        hu = np.full((3000, 16, 16), -1000, np.int16)
        hu[:, 2:14, 2:14] = -850
        for n, k in enumerate(range(100, 3000, 500)):
            hu[k : k + 7 * n + 1, 3 + n : 6 + n, 4:9] = 40
        thin = self.folder / "thin.nrrd"
        image = sitk.GetImageFromArray(hu)
        image.SetSpacing((1.0, 1.0, 0.1))
        sitk.WriteImage(image, str(thin), True)
        write_enhanced(self.folder / "thin", hu, (1.0, 1.0, 0.1))
        for path in (thin, self.folder / "thin"):
            found = sitk.GetArrayFromImage(self.segmented(path, "--lung-field", "none", "--min-volume", 0).labels)
            np.testing.assert_array_equal(found > 0, hu > THRESHOLD_HU)

    @unittest.skipUnless(can_limit_memory(), "the memory of a process is not known here")
    def test_what_headers_promise_takes_no_memory(self):
        files = [*self.absurd_volumes(), *self.absurd_dicom()]
        outcomes = run_limited([["check", str(file)] for file in files], 1 << 30)
        for file, (code, text, taken_mb) in zip(files, outcomes, strict=True):
            with self.subTest(file.name):
                self.assertEqual(code, 2, text)
                self.assertRegex(text, r"^nlstseg: error: [^\n]*\n$")
                self.assertIn(file.name, text)
                self.assertLess(taken_mb, 60)

    @unittest.skipUnless(can_limit_memory(), "the memory of a process is not known here")
    def test_headers_that_would_keep_a_reader_busy_for_ever(self):
        files = [self.folder / name for name in ("lines.mha", "a.nii", "b.nii.gz", "c.nii")]
        content = self.write("ct.mha").read_bytes()
        files[0].write_bytes(b"\n" * 900_000 + content.replace(b"NDims = 3", b"NDims = 4"))
        content = self.write("ct.nii").read_bytes()
        # Two numbers of the matrix from voxels to millimetres, at their places in the header.
        changes = (((296, 1e19), (304, -np.inf)), ((312, 2.0), (324, np.inf)), ((296, 1.0), (300, -np.inf)))
        for file, places in zip(files[1:], changes, strict=True):
            spoiled = bytearray(content)
            for at, number in places:
                struct.pack_into("<f", spoiled, at, number)
            file.write_bytes(gzip.compress(spoiled) if file.suffix == ".gz" else spoiled)
        outcomes = run_limited([["check", str(file)] for file in files], 1 << 30)
        for file, (code, text, _) in zip(files, outcomes, strict=True):
            with self.subTest(file.name):
                self.assertEqual(code, 2, text)
                self.assertRegex(text, r"^nlstseg: error: [^\n]*\n$")

    @unittest.skipUnless(can_limit_memory(), "the memory of a process is not known here")
    def test_a_volume_that_does_not_fit_into_the_memory_is_told_of(self):
        image = sitk.Image(512, 512, 600, sitk.sitkInt16)
        for ending in ENDINGS:
            sitk.WriteImage(image, str(self.folder / f"large{ending}"), True, 1)
        write_enhanced(self.folder / "large", np.zeros((600, 64, 64), np.int16), encoding="RLE")
        change(self.folder / "large", Rows=512, Columns=512)
        files = sorted(self.folder.glob("large*"))
        for file, (code, text, _) in zip(files, run_limited([["check", str(f)] for f in files], 200 << 20), strict=True):
            with self.subTest(file.name):
                self.assertEqual(code, 2, text)
                self.assertRegex(text, rf"^nlstseg: error: {re.escape(str(file))} does not fit into the memory; [^\n]*\n$")

    def absurd_volumes(self):
        """Headers of 14 GiB, and of 1.5 GiB (3000 slices of 512 x 512), which is believed, with few voxels behind."""
        voxels = bytes(3000)
        for size, code, bits, kind, meta in ((1500, 64, 64, "double", "DOUBLE"), (512, 4, 16, "short", "SHORT")):
            sizes = (size, size, 800 if size == 1500 else 3000)
            header = bytearray(352)
            struct.pack_into("<i", header, 0, 348)
            struct.pack_into("<8h", header, 40, 3, *sizes, 1, 1, 1, 1)
            struct.pack_into("<2h8f", header, 70, code, bits, 1, 1, 1, 1, 1, 1, 1, 1)
            struct.pack_into("<f", header, 108, 352)
            header[344:347] = b"n+1"
            nrrd = f"NRRD0004\ntype: {kind}\ndimension: 3\nsizes: {'{} {} {}'.format(*sizes)}\nendian: little\nspacings: 1 1 1\n"
            mha = f"ObjectType = Image\nNDims = 3\nDimSize = {'{} {} {}'.format(*sizes)}\nElementType = MET_{meta}\n"
            mha += "ElementSpacing = 1 1 1\n"
            packed = gzip.compress(voxels)
            for name, content in (
                ("ct.nii", header + voxels),
                ("ct.nii.gz", gzip.compress(header + voxels)),
                ("ct.nrrd", f"{nrrd}encoding: raw\n\n".encode() + voxels),
                ("gz.nrrd", f"{nrrd}encoding: gzip\n\n".encode() + packed),
                ("skip.nrrd", f"{nrrd}encoding: raw\nbyte skip: -1\n\n".encode() + voxels),
                ("lines.nrrd", f"{nrrd}encoding: raw\nline skip: 1\n\n\n".encode() + voxels),
                ("lines gz.nrrd", f"{nrrd}encoding: gzip\nline skip: 1\n\n\n".encode() + packed),
                ("text.nrrd", f"{nrrd}encoding: ascii\n\n".encode() + b"1 " * 3000),
                ("hex.nrrd", f"{nrrd}encoding: hex\n\n".encode() + b"00" * 3000),
                ("end.mha", f"{mha}HeaderSize = -1\nElementDataFile = LOCAL\n".encode() + voxels),
                ("text.mha", f"{mha}BinaryData = False\nElementDataFile = LOCAL\n".encode() + b"1 " * 3000),
                ("ct.mha", f"{mha}ElementDataFile = LOCAL\n".encode() + voxels),
                (
                    "gz.mha",
                    f"{mha}CompressedData = True\nCompressedDataSize = {len(packed)}\nElementDataFile = LOCAL\n".encode()
                    + packed,
                ),
            ):
                path = self.folder / f"{size}{name}"
                path.write_bytes(content)
                yield path

    def absurd_dicom(self):
        for name, encoding, attributes in (
            ("native", "", {"Rows": 65535, "Columns": 65535}),
            ("rle", "RLE", {"Rows": 65535, "Columns": 65535}),
            ("wide", "JPEG", {"Rows": 4096, "Columns": 65535}),
            ("jpeg2000", "JPEG2000", {"Rows": 30000, "Columns": 30000}),
        ):
            file = write_series(self.folder / name, self.ct.hu[:1], encoding=encoding)[0]
            change(file, **attributes)
            yield file.parent
        # An encoded frame that is larger than the header says, in a thousand pieces, or of more bits than a voxel has.
        for name, encoding, marker, at, value in (
            ("frame", "JPEG2000", b"\xff\x4f\xff\x51", 8, struct.pack(">2I", 60000, 60000)),
            ("tiles", "JPEG2000", b"\xff\x4f\xff\x51", 24, struct.pack(">2I", 1, 1)),
            ("parts", "JPEG2000", b"\xff\x4f\xff\x51", 40, struct.pack(">H", 9000)),
            ("sides", "JPEG", b"\xff\xc3", 5, struct.pack(">2H", 65000, 65000)),
            ("bits", "JPEG", b"\xff\xc3", 4, b"\x14"),
        ):
            file = write_series(self.folder / name, self.ct.hu[:1], encoding=encoding)[0]
            content = bytearray(file.read_bytes())
            place = content.index(marker) + at
            content[place : place + len(value)] = value
            file.write_bytes(content)
            yield file.parent
        for name, frames in (("frames", 2_000_000_000), ("more", 41)):
            write_enhanced(self.folder / name, self.ct.hu)
            change(self.folder / name, NumberOfFrames=frames)
            yield self.folder / name
        file = write_series(self.folder / "bomb", self.ct.hu[:1], encoding="deflated")[0]
        file.write_bytes(deflated_bomb(file.read_bytes()))
        yield file.parent


def deflated_bomb(content: bytes) -> bytes:
    """A deflated DICOM file of 1 MB that would unpack to more than 1 GiB."""
    meta_end = 144 + struct.unpack_from("<I", content, 140)[0]
    packer = zlib.compressobj(wbits=-15)
    start = packer.compress(zlib.decompress(content[meta_end:], -15)) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the stream knows nothing of what came before, so that pieces can be repeated.
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return content[:meta_end] + start + piece * 1100 + packer.flush()
