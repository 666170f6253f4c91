"""Recipes small enough for tests."""

from nlstseg_training.fitting.fit import Machine
from nlstseg_training.recipe import Augmentation, Phase, Recipe, Sampling
from NLSTSegLib.models.card import Architecture
from NLSTSegLib.models.specs import InputSpec

SPEC = InputSpec(window_hu=(-1000.0, 400.0), slices=3, slice_step_mm=2.0, margin_px=16)


def recipe_of(sampling: Sampling, **changes) -> Recipe:
    phase = Phase("only", epochs=1, learning_rate=1e-3, sampling=sampling)
    values = {
        "format": 1,
        "name": "test",
        "description": "test",
        "architecture": Architecture("unet", 2, (8, 16), "batch", True),
        "input": SPEC,
        "phases": (phase,),
    }
    return Recipe(**(values | changes))


CPU = Machine("cpu", workers=0)


SHARES = Sampling(batch=8, side_px=32, lesions=0.3, crops=0.4, mined=0.1)


def short_recipe(*, epochs=2, steps=6, phases=None, **changes):
    phases = phases or (Phase("only", epochs, 1e-2, SHARES, mine_every_epochs=1),)
    values = {"phases": phases, "epoch_steps": steps, "validation_steps": 2, "average_decay": 0.8}
    values |= {"augmentation": Augmentation((0.9, 1.1), 10.0, 4.0, True, 10.0, 0.05, 10.0), "precision": "32-true"}
    return recipe_of(SHARES, **(values | changes))
