"""``prepare`` and ``split`` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlstseg_training.commands.common import Debug

if TYPE_CHECKING:
    from nlstseg_training.data.cache import Manifest, Split
    from nlstseg_training.data.readers.source import Found

Cache = Annotated[Path, typer.Argument(help="Folder of the prepared cases.")]
Folders = list[Path]


def prepare(
    cache: Cache,
    nlstseg: Annotated[Folders, typer.Option(help="Folder with the NLSTseg zips, extracted or not, or one zip.")] = [],  # noqa: B006
    corrected: Annotated[Folders, typer.Option(help="Folder with training cases exported from Slicer.")] = [],  # noqa: B006
    png: Annotated[Folders, typer.Option(help="Folder with the PNG slices of the published procedure.")] = [],  # noqa: B006
    png_spacing: Annotated[
        tuple[float, float, float], typer.Option(help="Voxel spacing of the PNG slices in mm: between slices, rows, columns.")
    ] = (2.0, 0.664, 0.664),
    lidc: Annotated[Folders, typer.Option(help="Folder with lidc_nodules/, ct/ and background/.")] = [],  # noqa: B006
    marked_chests: Annotated[Folders, typer.Option(help="Folder with chests/ and chests/marks.csv.")] = [],  # noqa: B006
    pairs: Annotated[Folders, typer.Option(help="Folder with images/ and labels/.")] = [],  # noqa: B006
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Resample to this spacing in mm: between slices, rows, columns (default: every case's own)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; each takes 1 to 1.5 GB while it works.")] = 1,
    debug: Debug = False,
) -> None:
    """Read cases, check them and write them to CACHE; a run that was stopped goes on where it was.

    What is wrong with a case is listed at the end and in CACHE/manifest.json, and the other cases go on.
    """
    from nlstseg_training.data.readers.lidc import find_lidc
    from nlstseg_training.data.readers.marked_chests import find_marked_chests
    from nlstseg_training.data.readers.nlstseg import find_corrected, find_nlstseg
    from nlstseg_training.data.readers.pairs import find_pairs
    from nlstseg_training.data.readers.png_slices import find_png_slices
    from nlstseg_training.data.readers.source import Found
    from NLSTSegLib.errors import InputError

    found = Found(())
    readers = (
        (nlstseg, find_nlstseg),
        (corrected, find_corrected),
        (lidc, find_lidc),
        (marked_chests, find_marked_chests),
        (pairs, find_pairs),
    )
    for folders, find in readers:
        for folder in folders:
            found += find(folder)
    for folder in png:
        found += find_png_slices(folder, png_spacing)
    if not found.sources and not found.refused:
        raise InputError("there is no case to prepare; name a folder that holds some with --nlstseg, --pairs or another option")
    manifest = prepare_with_bar(found, cache, spacing_kji_mm=spacing, workers=workers)
    show_manifest(manifest, cache)
    stop_on_broken_archives(found)


def split(
    cache: Cache,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    validation: Annotated[float, typer.Option(help="Share of the patients to choose epoch and threshold on.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of the patients to report on.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Another seed gives another split.")] = 0,
    folds: Annotated[
        int | None, typer.Option(min=2, max=20, help="For a cross-validation: so many folds instead of one validation part.")
    ] = None,
    shipped: Annotated[bool, typer.Option("--shipped", help="The split of the bundled model lidc-25d instead of these.")] = False,
    left_out: Annotated[
        int | None, typer.Option(min=0, max=1, help="With --shipped: the fold of chests without reader masks to leave out.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Divide the patients of CACHE into training, validation and test, with lesions of all sizes in each."""
    from nlstseg_training.data.cache import read_manifest, write_json
    from nlstseg_training.data.shipped_split import shipped_split
    from nlstseg_training.data.split import make_folds, make_split
    from NLSTSegLib.errors import InputError

    if out.exists():
        raise InputError(f"'{out}' is there already, and what was trained with it belongs to it; choose another name")
    manifest = read_manifest(cache)
    if shipped:
        made = shipped_split(manifest, left_out)
    elif folds:
        made = make_folds(manifest, folds, test=test, seed=seed)
    else:
        made = make_split(manifest, validation=validation, test=test, seed=seed)
    write_json(out, made)
    show_split(manifest, made)


def recipe(
    name: Annotated[str, typer.Argument(help="Name of a recipe that ships, or a TOML file.")] = "",
    debug: Debug = False,
) -> None:
    """Print a recipe, to begin one of your own with; without a name, the names of those that ship."""
    from nlstseg_training.recipe import recipe_names, recipe_text

    print(recipe_text(name).rstrip() if name else "\n".join(recipe_names()))


def plan(
    cache: Cache,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the recipes; none is overwritten.")],
    memory_gb: Annotated[
        float | None, typer.Option(min=0.5, help="Memory that a training may take (default: of the graphics card, or computer).")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a 2.5D and a 3D recipe for the cases of CACHE and this machine, with the reasons beside the values."""
    from nlstseg_training.data.cache import read_manifest
    from nlstseg_training.data.fingerprint import fingerprint
    from nlstseg_training.workflows.plan import machine_memory, plan_3d, plan_25d
    from NLSTSegLib.disk.atomic_file import write_text
    from NLSTSegLib.errors import InputError

    found = fingerprint(cache, read_manifest(cache))
    memory, of = machine_memory() if memory_gb is None else (memory_gb * 1e9, f"{memory_gb:g} GB")
    for made in (plan_25d(found, memory, of), plan_3d(found, memory, of)):
        path = out / f"{made.name}.toml"
        if path.exists():
            raise InputError(f"'{path}' is there already and may have been changed; choose another folder")
        write_text(path, made.toml)
        print(f"recipe: {path}" + (f" (of a cache prepared with {made.prepare_with})" if made.prepare_with else ""))


def prepare_with_bar(
    found: Found, cache: Path, *, spacing_kji_mm: tuple[float, float, float] | None = None, workers: int = 1
) -> Manifest:
    """:func:`nlstseg_training.data.prepare.prepare` with a bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from nlstseg_training.data.prepare import prepare as prepare_cases

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("remaining"), TimeRemainingColumn())
    with Progress(TextColumn("cases"), *columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=len(found.sources))

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        manifest = prepare_cases(found, cache, spacing_kji_mm=spacing_kji_mm, workers=workers, progress=show)
        bars.update(task, completed=len(found.sources))
    return manifest


def show_manifest(manifest: Manifest, cache: Path) -> None:
    """What is odd, what was refused, and how many there are."""
    from NLSTSegLib.errors import printable

    for case in manifest.cases:
        for note in case.notes:
            print(printable(f"note {case.id}: {note}"))
    for refusal in manifest.refused:
        print(printable(f"refused {refusal.id}: {refusal.reason}"))
    lesions = sum(len(case.lesions) for case in manifest.cases)
    patients = len({case.patient for case in manifest.cases})
    print(
        f"{len(manifest.cases)} cases of {patients} patients with {lesions} lesions in {cache}; {len(manifest.refused)} refused"
    )


def stop_on_broken_archives(found: Found) -> None:
    """Raise :class:`InputError` when an archive could not be opened: nobody knows how many cases are missing."""
    from NLSTSegLib.errors import InputError

    broken = [refusal for refusal in found.refused if refusal.id.endswith(".zip")]
    if broken:
        raise InputError(f"{len(broken)} archive(s) could not be opened: {broken[0].reason}, then run the same command")


def show_split(manifest: Manifest, made: Split) -> None:
    """Patients, cases and lesions by diameter in each part."""
    import itertools

    from rich.console import Console
    from rich.table import Table

    from nlstseg_training.data.split import DIAMETER_BINS_MM

    limits = [0.0, *DIAMETER_BINS_MM, float("inf")]
    bins = list(itertools.pairwise(limits))
    headings = [f"{low:g}-{high:g} mm" if high < float("inf") else f"from {low:g} mm" for low, high in bins]
    table = Table("part", "patients", "cases", *headings)
    by_id = {case.id: case for case in manifest.cases}
    parts = {part: getattr(made, part) for part in ("train", "validation", "test")}
    for part, ids in (parts | {f"fold {n}": fold for n, fold in enumerate(made.folds)}).items():
        cases = [by_id[case_id] for case_id in ids]
        sizes = [lesion.diameter_mm for case in cases for lesion in case.lesions]
        counts = [sum(low <= size < high for size in sizes) for low, high in bins]
        table.add_row(part, str(len({case.patient for case in cases})), str(len(cases)), *map(str, counts))
    Console().print(table)
