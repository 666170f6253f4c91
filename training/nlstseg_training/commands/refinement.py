"""``refinement`` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlstseg_training.commands.common import (
    Accelerator,
    Attribution,
    Cache,
    Debug,
    IntendedUse,
    Kind,
    Licence,
    Out,
    Seed,
    SplitFile,
    Threads,
    Version,
    Workers,
    bars,
    going_on,
    measuring_on,
    show_card,
)


def refinement(
    bundle: Annotated[str, typer.Argument(help="Model that finds the candidates: a name or a bundle.")],
    cache: Cache,
    split: SplitFile,
    out: Out,
    further: Annotated[
        bool, typer.Option("--further", help="Train the model's own refinement further; give another seed than it had.")
    ] = False,
    seed: Seed = 0,
    name: Annotated[str, typer.Option(help="Name of the new model (default: the same, with another version).")] = "",
    version: Version = "",
    licence: Licence = "",
    attribution: Attribution = "",
    intended_use: IntendedUse = "",
    accelerator: Kind = Accelerator.auto,
    workers: Workers = 1,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train a 3D network that judges and outlines what a model finds, and write both as OUT/bundle."""
    with going_on(out):
        from nlstseg_training.export.card import Texts
        from nlstseg_training.fitting.machine import Machine
        from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER
        from nlstseg_training.refinement.workflow import add_refinement
        from NLSTSegLib.models.bundle import find_model, load_model

        with bars() as progress:
            card, _ = add_refinement(
                load_model(find_model(bundle)),
                cache,
                split,
                out,
                further=further,
                seed=seed,
                texts=Texts(name, version, licence, attribution, intended_use),
                machine=Machine(accelerator.value, workers=workers),
                device=measuring_on(accelerator, threads),
                progress=progress,
            )
        show_card(card)
        print(f"report: {out / 'validation' / 'report.html'}")
        print(f"model: {out / BUNDLE_FOLDER}")


def shipped(
    data: Annotated[Path, typer.Argument(help="Folder with lidc_nodules/, ct/, background/ and chests/.")],
    out: Out,
    base: Annotated[str, typer.Option(help="Bundle of version 2.4, to train its refinement further; from nothing without.")] = "",
    accelerator: Kind = Accelerator.auto,
    workers: Workers = 1,
    debug: Debug = False,
) -> None:
    """Make the bundled model again, from its data, with its split and seeds; what is done already is not done again."""
    with going_on(out):
        from nlstseg_training.commands.data import prepare_with_bar
        from nlstseg_training.data.readers.lidc import find_lidc
        from nlstseg_training.data.readers.marked_chests import find_marked_chests
        from nlstseg_training.data.shipped_split import shipped_split
        from nlstseg_training.evaluation.evaluate import make_folder
        from nlstseg_training.fitting.machine import Machine
        from nlstseg_training.workflows.shipped import CACHE_FOLDER, make_shipped

        make_folder(out)
        manifest = prepare_with_bar(find_lidc(data) + find_marked_chests(data), out / CACHE_FOLDER, workers=max(1, workers))
        split, machine = shipped_split(manifest), Machine(accelerator.value, workers=workers)
        with bars() as progress:
            card = make_shipped(out, split, base or None, machine=machine, progress=progress)
        show_card(card)
