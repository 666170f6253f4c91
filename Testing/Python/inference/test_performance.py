"""Ours against the plain way: operations, which are counted and not timed; and memory that does not grow."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.marks import slow
from helpers.networks import SingleThreadTest, published_with_formula_weights
from NLSTSegLib.inference.devices import choose_device
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.models.card import published_card
from NLSTSegLib.networks.published_sparse import SparsePublishedUNet
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.volume.ct import to_canonical

CHILD = Path(__file__).resolve().parents[2] / "benchmarks" / "child.py"


@slow
class PublishedSpeedTest(SingleThreadTest):
    """On slices of half the usual side, where the surroundings of the lungs weigh more; benchmarks measure whole chests."""

    def test_the_field_alone_takes_less_work_than_the_plain_way_with_the_same_mask(self):
        ct = to_canonical(make_phantom(spacing_ijk_mm=(1.4, 1.4, 4.0)).ct)
        spec, dtype = published_card(Path("x.pth")).input, choose_device("cpu").dtype
        lung_mask = lung_field(ct)
        plain = published_with_formula_weights()
        ours = SparsePublishedUNet(plain, dtype)
        flops, equal = np.zeros(2), []
        middle = len(ct.hu) // 2
        with torch.inference_mode():
            for k in (middle - 5, middle + 5):
                x = torch.from_numpy(spec.scale(ct.hu[k]))[None, None]
                with FlopCounterMode(display=False) as of_plain:
                    expected = plain(x)[0, 0].numpy()[lung_mask[k]]
                with FlopCounterMode(display=False) as of_ours:
                    found = ours(x, lung_mask[k])[0, 0].numpy()[lung_mask[k]]
                flops += of_plain.get_total_flops(), of_ours.get_total_flops()
                equal.append(np.mean((found > 0) == (expected > 0)))
        self.assertGreater(np.mean(equal), 0.995)
        self.assertGreater(flops[0] / flops[1], 1.6)


@slow
@unittest.skipIf(sys.platform == "win32", "the largest memory of a process is not told here")
class MemoryTest(unittest.TestCase):
    def network_mb(self, slices: int, model: str) -> float:
        arguments = json.dumps({"slices": slices, "model": model})
        command = [sys.executable, str(CHILD), "network_memory", arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["mb"]

    def test_memory_of_the_network_does_not_grow_with_the_slices(self):
        with tempfile.TemporaryDirectory() as folder:
            published = str(Path(folder) / "published.pth")
            torch.save(published_with_formula_weights().state_dict(), published)
            for model, few, many in ((published, 3, 8), ("lidc-25d", 10, 50)):
                with self.subTest(model=model):
                    # One layer's values of a slice take 8 to 33 MB.
                    self.assertLess(self.network_mb(many, model) - self.network_mb(few, model), 4 * (many - few))
