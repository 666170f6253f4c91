"""Folders for the tests of training data: a source and a cache."""

import dataclasses
import os
import tempfile
import unittest
from pathlib import Path

from helpers.small_nlstseg import labelled_chest, write_case
from nlstseg_training.data.cache import Manifest, read_manifest
from nlstseg_training.data.prepare import prepare
from nlstseg_training.data.readers.nlstseg import find_nlstseg
from nlstseg_training.data.readers.source import Found, RawCase, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class FallingSource(Source):
    """Whatever a library may do with a damaged file: raise anything, or take the process with it."""

    dies: bool = False

    def state(self) -> str:
        return ""

    def read(self) -> RawCase:
        if self.dies:
            os._exit(9)
        raise ZeroDivisionError("float\ndivision")


class DataTest(unittest.TestCase):
    """Folders of its own for the source and for the cache."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name) / "Données NLST"
        self.root.mkdir()
        self.cache = Path(folder.name) / "cache"

    def prepared(self, found: Found | None = None, **options) -> Manifest:
        manifest = prepare(found or find_nlstseg(self.root), self.cache, **options)
        self.assertEqual(manifest, read_manifest(self.cache))
        return manifest

    def ids(self, manifest: Manifest) -> list[str]:
        return [entry.id for entry in manifest.cases]

    def only_refusal(self, manifest: Manifest, case_id: str, *words: str) -> str:
        (refusal,) = manifest.refused
        self.assertEqual(refusal.id, case_id)
        for word in words:
            self.assertIn(word, refusal.reason)
        self.assertNotIn("\n", refusal.reason)
        self.assertFalse((self.cache / case_id).exists())
        return refusal.reason

    def one(self, case_id: str = "100012", **changes):
        """Write one good case; ``changes`` go to :func:`write_case`."""
        ct, labels = labelled_chest(1)
        values = {"ct": ct, "labels": labels} | changes
        return write_case(self.root / "NLSTseg_2_LungTumor", case_id, **values), ct, labels
