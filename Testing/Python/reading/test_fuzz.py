"""A few hundred of the spoiled files of ``Testing/fuzzing/fuzz.py``: all are read or refused in one line, with little memory."""

import contextlib
import importlib.util
import json
import struct
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.limited_process import can_limit_memory
from helpers.threshold_model import CARD
from NLSTSegLib.errors import InputError, ModelError
from NLSTSegLib.models.bundle import CARD_FILE, ModelCard, read_card
from NLSTSegLib.reading.image_file import FORMATS
from NLSTSegLib.reading.read import read_ct

INPUTS = 450

DICOM = bytes(128) + b"DICM"


def fuzz_script():
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).resolve().parents[2] / "fuzzing" / "fuzz.py")
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    return fuzz


@contextlib.contextmanager
def temporary(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


class SpoiledFilesTest(unittest.TestCase):
    @unittest.skipUnless(can_limit_memory(), "the memory of a process is not known here")
    def test_spoiled_files_are_read_or_refused(self):
        fuzz = fuzz_script()
        # With seed 1 none of the 45 spoiled cards happens to stay readable; few do.
        outcomes = fuzz.run_all(0, INPUTS, seed=2)
        self.assertEqual(len(outcomes), INPUTS)
        self.assertEqual([one for one in outcomes if not fuzz.as_it_should(one)], [])
        # Not everything is refused, nor read.
        for name in ("NIfTI", "NRRD", "MetaImage", "DICOM series", "DICOM enhanced", "DICOM compressed", "model.json"):
            self.assertEqual({one["outcome"] for one in outcomes if one["format"] == name}, {"read", "refused"}, name)


class AnyBytesTest(unittest.TestCase):
    """Not spoiled good files, but whatever comes to hypothesis' mind."""

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([*FORMATS, "", ".dcm"]), st.binary(max_size=600))
    def test_bytes_that_are_no_image(self, ending, content):
        start = {"": DICOM, ".dcm": DICOM, ".nrrd": b"NRRD0004\n", ".nhdr": b"NRRD0004\n", ".nii": struct.pack("<i", 348)}
        with temporary(f"ct{ending}", start.get(ending, b"") + content) as path, self.assertRaises(InputError) as raised:
            read_ct(path)
        self.assertIn(str(path), str(raised.exception))
        self.assertTrue(str(raised.exception).isprintable())

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )

    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(st.sampled_from([*ModelCard.__dataclass_fields__]) | st.text(), json_values, max_size=5))
    def test_cards_of_any_json(self, changes):
        card = {"weights_sha256": "0" * 64, **json.loads(json.dumps(CARD, default=vars)), **changes}
        with temporary(CARD_FILE, json.dumps(card).encode("utf-8", "surrogatepass")) as path:
            try:
                read = read_card(path)
            except ModelError as error:
                self.assertIn(str(path), str(error))
                self.assertTrue(str(error).isprintable())
            else:
                self.assertTrue(0 < read.threshold < 1 and read.name.isprintable())
