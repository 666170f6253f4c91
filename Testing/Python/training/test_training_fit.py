"""Fitting: it learns, stops and goes on as if it had not stopped, and says which case spoils it."""

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from helpers.marks import slow
from helpers.threshold_model import CARD, threshold_network
from helpers.tiny_cache import TinyCache, crop_hu_and_labels
from helpers.training_recipes import CPU, SHARES, SPEC, short_recipe
from nlstseg_training.batches.patches import Batches
from nlstseg_training.data.cache import load_case
from nlstseg_training.evaluation.report.curves import read_curves
from nlstseg_training.fitting import mining
from nlstseg_training.fitting.averaging import averaging
from nlstseg_training.fitting.checkpoints import BEFORE_LAST, BEST, FINISHED, LAST, SafeCheckpoints
from nlstseg_training.fitting.fit import Machine, fit
from nlstseg_training.recipe import Augmentation, Phase, Sampling
from NLSTSegLib.errors import InputError
from NLSTSegLib.models.bundle import Model, new_network
from NLSTSegLib.models.card import Architecture
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.pipeline import SegmentOptions, segment

ROOT = Path(__file__).resolve().parents[3]


class FitTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.cache = TinyCache(cls.folder / "cache").add_usual()
        torch.set_num_threads(1)

    def setUp(self):
        self.out = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def fit(self, recipe, out=None, machine=CPU, **options):
        validation = [entry for entry in self.cache.entries if entry.id in ("crop3", "chest1")]
        train = [entry for entry in self.cache.entries if entry not in validation]
        return fit(recipe, self.cache.folder, train, validation, out or self.out, seed=5, machine=machine, **options)

    def stop_at(self, recipe, step: int, number: int) -> dict:
        """Fit until the signal comes while the batch of ``step`` is made; returns the checkpoint that is left."""
        make = Batches.__getitem__

        def make_and_stop(batches, n):
            if n == step and batches.augmenter.options != Augmentation():
                os.kill(os.getpid(), number)
            return make(batches, n)

        with unittest.mock.patch.object(Batches, "__getitem__", make_and_stop), self.assertRaises(KeyboardInterrupt):
            self.fit(recipe, self.out / "stopped")
        return torch.load(self.out / "stopped" / "only" / LAST, weights_only=True)

    def assert_same_weights(self, one, other):
        for (name, ours), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)


class LearningTest(FitTest):
    def test_the_loss_falls_and_an_unseen_lesion_is_found(self):
        phases = (Phase("only", 3, 1e-2, Sampling(batch=8, side_px=32, lesions=0.3, crops=0.5)),)
        recipe = short_recipe(phases=phases, steps=30, precision="bf16-mixed")
        network = self.fit(recipe)
        rows = read_curves(self.out / "log" / "metrics.csv")
        for column in ("dice_loss", "validation_dice_loss"):
            losses = [row[column] for row in rows if column in row]
            self.assertEqual(len(losses), 3)
            self.assertLess(losses[-1], 0.8 * losses[0])
        rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
        self.assertEqual(len(rates), 3)
        self.assertTrue(all(0 < rate <= 1e-2 for rate in rates))
        (measured,) = [row for row in rows if "case_dice" in row]
        self.assertEqual(measured["step"], 90)
        self.assertGreater(measured["case_dice"], 0.5)
        self.assertEqual(measured["lesions_found"], 1.0)
        self.assertTrue(list((self.out / "tensorboard").glob("events*")))
        (panel,) = (self.out / "panels").iterdir()
        self.assertGreater(panel.stat().st_size, 5000)

        from NLSTSegLib.volume.ct import CtVolume

        hu, labels = crop_hu_and_labels(6, 99)
        card = dataclasses.replace(CARD, input=recipe.input, architecture=recipe.architecture)
        found = segment(CtVolume(hu, (1.0, 1.0, 2.0)), Model(card, network), SegmentOptions(lung_field="none", device="cpu"))
        overlap = ((found.labels > 0) & (labels > 0)).sum()
        self.assertGreater(2 * overlap / ((found.labels > 0).sum() + (labels > 0).sum()), 0.6)

    def test_a_3d_network_learns_too(self):
        recipe = short_recipe(
            phases=(Phase("only", 1, 1e-2, Sampling(batch=2, side_px=32, lesions=0.5)),),
            steps=12,
            architecture=Architecture("unet", 3, (4, 8), "batch", True),
            input=InputSpec(window_hu=SPEC.window_hu, patch_kji=(8, 32, 32)),
        )
        network = self.fit(recipe)
        self.assertTrue(all(bool(value.isfinite().all()) for value in network.state_dict().values()))

    def test_each_phase_starts_from_the_one_before_and_is_not_done_again(self):
        phases = tuple(Phase(name, 1, 1e-3, SHARES, mine_every_epochs=1) for name in ("first", "second"))
        recipe = short_recipe(phases=phases, steps=3)
        network = self.fit(recipe)
        stamps = {path: path.stat().st_mtime_ns for path in self.out.rglob("*.ckpt")}
        self.assertEqual({path.parent.name for path in stamps}, {"first", "second"})
        self.assert_same_weights(network, self.fit(recipe))
        self.assertEqual(stamps, {path: path.stat().st_mtime_ns for path in self.out.rglob("*.ckpt")})
        first, second = (load_file(self.out / name / FINISHED) for name in ("first", "second"))
        self.assertFalse(all(torch.equal(first[name], second[name]) for name in first))

    def test_batches_made_ahead_in_another_process_are_the_same(self):
        recipe = short_recipe(epochs=1, steps=3)
        ahead = self.fit(recipe, self.out / "ahead", machine=Machine("cpu", workers=1))
        self.assert_same_weights(self.fit(recipe, self.out / "here"), ahead)

    def test_the_weights_are_the_averaged_ones_of_the_best_epoch(self):
        network = self.fit(short_recipe())
        best = torch.load(self.out / "only" / BEST, weights_only=True)["state_dict"]
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(tensor, best[f"network.{name}"], rtol=0, atol=0)
        last = torch.load(self.out / "only" / LAST, weights_only=True)["current_model_state"]
        self.assertFalse(torch.equal(last["network.head.weight"], best["network.head.weight"]))

    def test_it_stops_early_when_the_validation_loss_does_not_fall(self):
        # At such a rate nothing is learnt.
        phases = (Phase("only", 30, 1e-12, SHARES, patience_epochs=2),)
        self.fit(short_recipe(phases=phases, steps=1, average_decay=0.0, architecture=Architecture("unet", 2, (2,), "none")))
        epochs = torch.load(self.out / "only" / LAST, weights_only=True)["epoch"]
        self.assertLess(epochs, 10)


class InterruptionTest(FitTest):
    def test_a_training_stopped_within_an_epoch_ends_with_the_same_weights(self):
        recipe = short_recipe(epochs=3, steps=7)
        straight = self.fit(recipe, self.out / "straight")
        wanted = [row["step"] for row in read_curves(self.out / "straight" / "log" / "metrics.csv")]
        before = signal.getsignal(signal.SIGTERM)
        # Within an epoch, at its last step, which is followed by the validation and one step more, and at the very last.
        for step, number, done in ((4, signal.SIGTERM, 5), (6, signal.SIGINT, 8), (20, signal.SIGTERM, 21)):
            checkpoint = self.stop_at(recipe, step, number)
            self.assertEqual(checkpoint["global_step"], done)
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)
        self.assert_same_weights(straight, self.fit(recipe, self.out / "stopped"))
        # One line, without gaps and without what was done twice.
        self.assertEqual([row["step"] for row in read_curves(self.out / "stopped" / "log" / "metrics.csv")], wanted)

    def test_it_goes_on_from_the_checkpoint_before_where_the_last_one_is_cut_off(self):
        recipe = short_recipe(epochs=3, steps=4)
        straight = self.fit(recipe, self.out / "straight")
        self.stop_at(recipe, 9, signal.SIGTERM)
        last = self.out / "stopped" / "only" / LAST
        self.assertEqual(torch.load(last.with_name(BEFORE_LAST), weights_only=True)["global_step"], 8)
        last.write_bytes(last.read_bytes()[:1000])
        self.assert_same_weights(straight, self.fit(recipe, self.out / "stopped"))

    def test_it_goes_on_at_lower_rates_and_every_phase_has_its_place_in_one_curve(self):
        phases = tuple(Phase(name, 2, 1e-2, SHARES) for name in ("first", "second"))
        recipe = short_recipe(phases=phases, steps=25)
        make = Batches.__getitem__

        def make_and_stop(batches, n):
            if n == 30 and batches.seed == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return make(batches, n)

        with unittest.mock.patch.object(Batches, "__getitem__", make_and_stop), self.assertRaises(KeyboardInterrupt):
            self.fit(recipe)
        self.fit(recipe, rate=0.1)
        rows = read_curves(self.out / "log" / "metrics.csv")
        rates = {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}
        self.assertEqual(sorted(rates), [25, 50, 75, 100])
        # The same place of the same schedule, at the recipe's rate and at a tenth.
        self.assertAlmostEqual(rates[25] / rates[75], 10, delta=1e-6)
        self.assertAlmostEqual(rates[50], rates[100])
        self.assertEqual([row["phase"] for row in rows if "phase" in row], [1, 1, 2, 2])


class FaultsTest(FitTest):
    def test_a_loss_that_is_no_number_names_the_case(self):
        cache = TinyCache(self.out / "cache")
        hu, labels = crop_hu_and_labels(5, 0)
        spoilt = cache.add("spoilt", hu, labels, kind="crop")
        network = new_network(short_recipe().architecture, short_recipe().input)
        torch.nn.init.constant_(network.head.bias, float("nan"))
        with self.assertRaisesRegex(InputError, "nan in step 0.*spoilt.*same command with '--rate 0.3'"):
            fit(short_recipe(), cache.folder, [spoilt], [], self.out / "run", start=network, machine=CPU)

    def test_weights_that_are_no_numbers_take_no_checkpoint_away(self):
        recipe = short_recipe(epochs=1, steps=3)
        self.stop_at(recipe, 1, signal.SIGTERM)
        last = self.out / "stopped" / "only" / LAST
        before = last.read_bytes()
        spoilt = torch.load(last, weights_only=True)
        spoilt["state_dict"]["network.head.bias"][:] = float("nan")
        with self.assertRaisesRegex(InputError, "network.head.bias.*no numbers after step 2; do this"):
            SafeCheckpoints("do this").save_checkpoint(spoilt, last)
        self.assertEqual(last.read_bytes(), before)

    def test_a_short_training_has_averaged_away_its_random_weights(self):
        # At the full decay three quarters of the first weights would be left after 150 steps.
        average = averaging(0.998)._kwargs["multi_avg_fn"]
        averaged = [torch.ones(1)]
        for step in range(1, 150):
            average(averaged, [torch.zeros(1)], torch.tensor(step))
        self.assertLess(float(averaged[0]), 1e-6)
        late = [torch.ones(1)]
        average(late, [torch.zeros(1)], torch.tensor(100_000))
        self.assertAlmostEqual(float(late[0]), 0.998, delta=1e-6)

    def test_a_logger_that_is_not_installed_is_named(self):
        with self.assertRaisesRegex(InputError, "'mlflow'.*pip install mlflow"):
            self.fit(short_recipe(epochs=1, steps=1), logger="mlflow")

    def test_a_damaged_case_is_named(self):
        cache = TinyCache(self.out / "cache")
        entry = cache.add("damaged", *crop_hu_and_labels(5, 0), kind="crop")
        file = cache.folder / "damaged" / "ct.b2nd"
        file.write_bytes(file.read_bytes()[:-200])
        said = []
        # Made in this process, and in another one, whose traceback nobody wants to read.
        for workers in (0, 1):
            with self.assertRaisesRegex(InputError, "damaged") as raised:
                fit(short_recipe(), cache.folder, [entry], [], self.out / str(workers), machine=Machine("cpu", workers=workers))
            said.append(str(raised.exception))
        self.assertEqual(said[0], said[1])

    def test_a_machine_that_is_not_there(self):
        if torch.cuda.is_available() or torch.backends.mps.is_available():
            self.skipTest("there is an accelerator")
        with self.assertRaisesRegex(InputError, "cannot run on this machine.*choose another"):
            self.fit(short_recipe(), machine=Machine("gpu", workers=0))

    def test_nothing_to_train_on(self):
        with self.assertRaisesRegex(InputError, "no case to train on"):
            fit(short_recipe(), self.cache.folder, [], [], self.out, machine=CPU)

    @unittest.skipIf(os.name == "nt", "Windows limits no file sizes")
    def test_a_full_disk_is_one_sentence_and_the_earlier_checkpoint_stays(self):
        import resource

        recipe = short_recipe(epochs=2, steps=3)
        self.stop_at(recipe, 1, signal.SIGTERM)
        last = self.out / "stopped" / "only" / LAST
        before = last.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        self.addCleanup(signal.signal, signal.SIGXFSZ, signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with self.assertRaisesRegex(InputError, "could not be written"):
            self.fit(recipe, self.out / "stopped")
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertEqual(last.read_bytes(), before)
        self.assertTrue(last.stat().st_mode & 0o044, "others in the group could not read it")


@slow
class MemoryTest(unittest.TestCase):
    CODE = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import torch
from nlstseg_training.recipe import Augmentation, Phase, Sampling
from NLSTSegLib.models.card import Architecture
from nlstseg_training.fitting.fit import fit
from helpers.training_recipes import CPU, short_recipe
from helpers.tiny_cache import TinyCache
torch.set_num_threads(1)
folder = Path(sys.argv[1])
cache = TinyCache(folder / "cache").add_usual()
# 6 MB in a batch.
shares = Sampling(batch=64, side_px=88, lesions=0.3, crops=0.3, mined=0.2)
cheap = {"steps": 4, "augmentation": Augmentation(), "architecture": Architecture("unet", 2, (2,), "none")}
for epochs in (2, 12):
    recipe = short_recipe(phases=(Phase("only", epochs, 1e-3, shares, mine_every_epochs=1),), **cheap)
    fit(recipe, cache.folder, cache.entries, cache.entries[:2], folder / str(epochs), machine=CPU)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

    @unittest.skipIf(sys.platform == "win32", "Windows does not tell the peak this way")
    def test_many_epochs_take_no_more_memory_than_a_few(self):
        paths = (ROOT, ROOT / "training", ROOT / "Testing" / "Python")
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", self.CODE, folder, *map(str, paths)]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.assertEqual(done.returncode, 0, done.stderr)
        few, many = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak "))
        to_mb = 1 / 1024 if sys.platform != "darwin" else 1 / 1024**2
        # To keep the batches alone would take 240 MB more.
        self.assertLess((many - few) * to_mb, 60)


class MiningTest(FitTest):
    def test_only_what_is_no_lesion_is_mined(self):
        network = new_network(short_recipe().architecture, short_recipe().input)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        # A network that marks everything: all of the lung is a false positive, what hangs together with a lesion is none.
        torch.nn.init.constant_(network.head.bias, 5.0)
        places = mining.mine(network, SPEC, self.cache.folder, self.cache.entries[-2:])
        self.assertEqual({place.case_id for place in places}, {"chest1"})
        lungs = load_case(self.cache.folder, "chest1").lungs
        self.assertTrue(all(lungs[place.kji] for place in places))
        self.assertEqual(len({place.kji[0] // 2 for place in places}), lungs.shape[0] // 2)

    def test_the_surest_come_first_and_the_threshold_holds(self):
        hu = np.full((2, 64, 96), -850, np.int16)
        # Probabilities 0.45, 0.98, 0.23 and 0.88.
        for column, own_hu in ((10, -305), (30, -200), (50, -330), (70, -250)):
            hu[:, 20:30, column : column + 10] = own_hu
        cache = TinyCache(self.out / "cache")
        entry = cache.add("marks", hu, np.zeros(hu.shape, np.uint8), kind="background")
        for most, surest_hu in ((400, [-200, -250, -305]), (2, [-200, -250])):
            with unittest.mock.patch.object(mining, "MOST_PLACES", most):
                places = mining.mine(threshold_network(), CARD.input, cache.folder, [entry])
            self.assertEqual([int(hu[place.kji]) for place in places], surest_hu)

    def test_where_not_all_is_annotated_what_may_be_a_nodule_is_left_alone(self):
        hu = np.full((8, 64, 96), -850, np.int16)
        hu[2:5, 20:26, 10:16] = -200  # as a nodule: 6 mm
        hu[2:4, 40:43, 10:60] = -200  # a vessel along its course
        hu[1, 5, 80] = -200  # a single voxel
        cache = TinyCache(self.out / "cache")
        entries = [
            cache.add(name, hu, np.zeros(hu.shape, np.uint8), kind="chest", complete=complete)
            for name, complete in (("all", True), ("some", False))
        ]
        found = [
            {place.kji[1] for place in mining.mine(threshold_network(), CARD.input, cache.folder, [entry])} for entry in entries
        ]
        self.assertEqual([len({row // 10 for row in rows}) for rows in found], [3, 2])
        self.assertFalse(any(20 <= row < 26 for row in found[1]))

    def test_many_chests_are_looked_through_in_turn(self):
        (entry,) = [entry for entry in self.cache.entries if entry.id == "chest0"]
        entries = [dataclasses.replace(entry, id=str(n)) for n in range(mining.MOST_CASES + 30)]
        drawn = [{entry.id for entry in mining.cases_to_mine(entries, 0, epoch)} for epoch in (0, 0, 3, 6, 9, 12)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertEqual({len(ids) for ids in drawn}, {mining.MOST_CASES})
        self.assertEqual(set().union(*drawn), {entry.id for entry in entries})


if __name__ == "__main__":
    unittest.main()
