"""``fit``, ``export``, ``finetune`` and ``reproduce`` of the command line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlstseg_training.commands.common import (
    Accelerator,
    Attribution,
    Cache,
    Changes,
    Debug,
    IntendedUse,
    Kind,
    Licence,
    Logger,
    LoggerKind,
    Name,
    Out,
    Rate,
    Seed,
    SplitFile,
    Threads,
    Version,
    Workers,
    bars,
    going_on,
    measuring_on,
    show_alarms,
    show_card,
)

if TYPE_CHECKING:
    from nlstseg_training.workflows.finetune import FineTuned
    from nlstseg_training.workflows.reproduce import Row


def fit(
    cache: Cache,
    split: SplitFile,
    out: Out,
    recipe: Annotated[str, typer.Option(help="Name of a recipe (default, published), or a TOML file.")] = "default",
    fold: Annotated[int | None, typer.Option(min=0, help="The fold to validate on, of a split with folds.")] = None,
    seed: Seed = 0,
    start: Annotated[str | None, typer.Option(help="Model to start from: a name, bundle or published checkpoint.")] = None,
    accelerator: Kind = Accelerator.auto,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine (default: as torchrun or SLURM tell).")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines (default: as torchrun or SLURM tell).")] = None,
    workers: Workers = 1,
    threads: Threads = None,
    changes: Changes = None,
    rate: Rate = None,
    logger: Logger = LoggerKind.tensorboard,
    debug: Debug = False,
) -> None:
    """Train by a recipe and write the model to OUT/bundle, with threshold and minimum volume chosen on the validation part.

    The test part is not looked at: that is for 'export', when the model is final.
    """
    with going_on(out):
        from nlstseg_training.data.cache import fold_of, read_split
        from nlstseg_training.export.card import Texts
        from nlstseg_training.export.export import export as export_run
        from nlstseg_training.fitting.machine import Machine, is_first_process, started_processes
        from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER, begin_run, fit_run, new_run, rate_of
        from nlstseg_training.recipe import read_recipe
        from NLSTSegLib.disk.atomic_folder import held
        from NLSTSegLib.models.bundle import find_model, load_model

        base = load_model(find_model(start)) if start else None
        made = read_recipe(recipe, base.card if base else None, changes or ())
        parts = fold_of(read_split(split), fold)
        run = new_run(made, cache, parts, seed=seed, start=base, rate=rate_of(out, rate))
        here, on = started_processes()
        machine = Machine(accelerator.value, devices or here, nodes or on, workers)
        first = is_first_process()
        with held(out) if first else contextlib.nullcontext():
            if first:
                begin_run(out, run, parts)
            fit_run(out, run, parts, start=base, machine=machine, logger=logger.value)
            if not first:
                return
            bundle = out / BUNDLE_FOLDER
            if not bundle.exists():
                with bars() as progress:
                    _, contents = export_run(
                        out, bundle, Texts(), parts=("validation",), device=measuring_on(accelerator, threads), progress=progress
                    )
                for content in contents.values():
                    show_alarms(content)
        print(f"model: {bundle}")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished 'fit' or 'finetune'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle to write; nothing is overwritten.")],
    cache: Annotated[Path | None, typer.Option(help="Where the prepared cases are now (default: where they were).")] = None,
    name: Name = "",
    version: Version = "",
    licence: Licence = "",
    attribution: Attribution = "",
    intended_use: IntendedUse = "",
    accelerator: Kind = Accelerator.auto,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Measure a finished training on the validation and the test part and write its bundle, with these figures in its card."""
    with going_on(run):
        from nlstseg_training.export.card import Texts
        from nlstseg_training.export.export import export as export_run

        texts = Texts(name, version, licence, attribution, intended_use)
        with bars() as progress:
            card, contents = export_run(
                run, out, texts, cache=cache, device=measuring_on(accelerator, threads), progress=progress
            )
        show_card(card)
        for part in contents:
            print(f"report: {run / part / 'report.html'}")
        print(f"model: {out}")


def finetune(
    bundle: Annotated[str, typer.Argument(help="Model to start from: a name, bundle or published checkpoint.")],
    cache: Cache,
    split: SplitFile,
    out: Out,
    recipe: Annotated[
        str, typer.Option(help="Name of a recipe, or a TOML file; network and input are the model's.")
    ] = "finetune",
    seed: Seed = 0,
    name: Name = "",
    version: Version = "",
    licence: Licence = "",
    attribution: Attribution = "",
    intended_use: IntendedUse = "",
    accelerator: Kind = Accelerator.auto,
    workers: Workers = 1,
    threads: Threads = None,
    changes: Changes = None,
    rate: Rate = None,
    logger: Logger = LoggerKind.tensorboard,
    refinement_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the refinement network, where the model has one; 0 keeps it as it is.")
    ] = 100,
    debug: Debug = False,
) -> None:
    """Train a model further on a handful of corrected cases, show what that changed on the held-out ones, write OUT/bundle."""
    with going_on(out):
        from nlstseg_training.export.card import Texts
        from nlstseg_training.fitting.machine import Machine
        from nlstseg_training.fitting.run_folder import BUNDLE_FOLDER
        from nlstseg_training.recipe import read_recipe
        from nlstseg_training.workflows.finetune import finetune as finetune_model
        from NLSTSegLib.models.bundle import find_model

        base = find_model(bundle)
        with bars() as progress:
            done = finetune_model(
                base,
                cache,
                split,
                out,
                recipe=read_recipe(recipe, base.card, changes or ()),
                rate=rate,
                logger=logger.value,
                refinement_steps=refinement_steps,
                seed=seed,
                texts=Texts(name, version, licence, attribution, intended_use),
                machine=Machine(accelerator.value, workers=workers),
                device=measuring_on(accelerator, threads),
                progress=progress,
            )
        _show_change(done)
        print(f"model: {out / BUNDLE_FOLDER}")


def reproduce(
    nlstseg: Annotated[Path, typer.Option(help="Folder with the NLSTseg zips, extracted or not.")],
    out: Out,
    recipe: Annotated[str, typer.Option(help="Name of a recipe (published, default), or a TOML file.")] = "published",
    seed: Annotated[int, typer.Option(help="Of split, first weights and batches.")] = 0,
    accelerator: Kind = Accelerator.auto,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Processes that prepare cases or make batches ahead.")] = 1,
    threads: Threads = None,
    changes: Changes = None,
    rate: Rate = None,
    logger: Logger = LoggerKind.tensorboard,
    debug: Debug = False,
) -> None:
    """Prepare NLSTseg, split, train, measure, and print the figures beside the published ones."""
    with going_on(out):
        from nlstseg_training.commands.data import prepare_with_bar, show_manifest, show_split, stop_on_broken_archives
        from nlstseg_training.data.readers.nlstseg import find_nlstseg
        from nlstseg_training.evaluation.evaluate import make_folder
        from nlstseg_training.fitting.machine import Machine
        from nlstseg_training.recipe import read_recipe
        from nlstseg_training.workflows.reproduce import BUNDLE_FOLDER, CACHE_FOLDER, FIT_FOLDER
        from nlstseg_training.workflows.reproduce import reproduce as reproduce_table
        from NLSTSegLib.errors import InputError

        made, found = read_recipe(recipe, changes=changes or ()), find_nlstseg(nlstseg)
        if not found.sources:
            raise InputError(f"there is no case of NLSTseg in '{nlstseg}'; name the folder with its zips, extracted or not")
        make_folder(out)
        spacing_kji_mm = made.input.spacing_kji_mm
        manifest = prepare_with_bar(found, out / CACHE_FOLDER, spacing_kji_mm=spacing_kji_mm, workers=max(1, workers))
        show_manifest(manifest, out / CACHE_FOLDER)
        stop_on_broken_archives(found)
        with bars() as progress:
            rows = reproduce_table(
                out,
                manifest,
                made,
                seed=seed,
                rate=rate,
                logger=logger.value,
                machine=Machine(accelerator.value, workers=workers),
                device=measuring_on(accelerator, threads),
                on_split=lambda made_split: show_split(manifest, made_split),
                progress=progress,
            )
        _show_rows(rows)
        print(f"report: {out / FIT_FOLDER / 'test' / 'report.html'}")
        print(f"model: {out / BUNDLE_FOLDER}")


def _show_change(done: FineTuned) -> None:
    from rich.console import Console
    from rich.table import Table

    from nlstseg_training.export.card import measured

    before, after = measured(done.before), measured(done.after)
    title = f"{done.part}: {after['cases']} case(s) not trained on, 95 % interval by patient"
    table = Table("figure", "before", "after", title=title)
    for name, value in after.items():
        if isinstance(value, dict) and name in before:
            table.add_row(name.replace("_", " "), *(_with_interval(figures[name]) for figures in (before, after)))
    Console().print(table)
    if done.before["cases_known_to_the_model"]:
        known = done.before["cases_known_to_the_model"]
        print(f"note: the model it comes from was trained on {known} of these cases, so 'before' is flattering there")


def _with_interval(estimate: dict[str, float]) -> str:
    interval = f" ({estimate['low']:.3f} to {estimate['high']:.3f})" if "low" in estimate else ""
    return f"{estimate['value']:.3f}{interval}"


def _show_rows(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("system", "protocol", "figures", title="NLSTseg; 95 % intervals by patient")
    table.add_column("source", overflow="fold")
    for row in rows:
        table.add_row(row.system, row.protocol, row.figures, row.source)
    Console().print(table)
    print("No two of these were measured on the same cases: nobody published a split.")
