"""The catalogue: a tree or a list of CTs looked through once, headers only, by the workers of a Dask client."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NLSTSegLib.cohort.case import Found
from NLSTSegLib.cohort.dask_map import each_done
from NLSTSegLib.cohort.headers import ListRow, Looked, case_of_file, case_of_row, cases_of_folders, look_at
from NLSTSegLib.cohort.places import fetched, is_address, is_folder
from NLSTSegLib.disk.free_name import is_plain_name
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

LIST_ENDINGS = (".csv", ".parquet")

COLUMNS = ("id", "path", "patient", "date", "series")
"""Columns of a list of cases; the first two are needed, others than these are passed over."""

AT_ONCE = 16
"""Folders or headers that a worker takes in one go: each alone takes milliseconds."""

DIED = "its worker died while the headers were read"

Tell = Callable[[int, int], None]
"""Called with the number of folders looked at and of cases found."""


def look_through(client: Client, source: str, tell: Tell = lambda folders, cases: None) -> list[Found]:
    """The cases of ``source``: a list (:data:`LIST_ENDINGS`), or a folder with DICOM or image files anywhere in it.

    Raises :class:`InputError` when there is nothing to be found, or the list is wrong.
    """
    is_list = source.lower().endswith(LIST_ENDINGS)
    found = _of_list(client, source, tell) if is_list else _of_tree(client, source, tell)
    if not found:
        raise InputError(f"no DICOM or image files were found in {source}; give another folder, or unpack archives first")
    return found


def _of_tree(client: Client, root: str, tell: Tell) -> list[Found]:
    if not is_folder(root):
        raise InputError(f"'{root}' is neither a folder nor a list (.csv, .parquet); for one CT use 'nlstseg segment'")
    found: list[Found] = []
    images: list[str] = []
    studies: dict[str, list[str]] = {}
    folders = 0
    for looked in _folders(client, root):
        folders += 1
        if looked.refused:
            found.append(Found((looked.place,), refused=looked.refused))
        images += looked.images
        if looked.study is not None:
            studies.setdefault(looked.study, []).append(looked.place)
        tell(folders, 0)
    # By their first folder: neighbours on the disk are read by one worker.
    units = sorted(tuple(sorted(places)) for places in studies.values())
    for cases in _in_batches(client, cases_of_folders, units, lambda folders: [Found(folders, refused=DIED)]):
        found += cases
        tell(folders, len(found))
    for one in _in_batches(client, case_of_file, images, lambda file: Found((file,), refused=DIED)):
        found.append(one)
        tell(folders, len(found))
    return found


def _folders(client: Client, root: str) -> Iterator[Looked]:
    """All folders below ``root``, each once; links to folders are followed."""
    waiting = deque([[root]])
    known: set[str] = set()
    below: list[str] = []
    for looked in _results(client, look_at, waiting, lambda place: Looked(place, refused=DIED)):
        if looked.identity and looked.identity in known:
            continue
        known.add(looked.identity)
        below += looked.folders
        # Small batches only where workers would have nothing to do.
        while len(below) >= AT_ONCE or (below and not waiting):
            waiting.append(below[:AT_ONCE])
            del below[:AT_ONCE]
        yield looked


def _in_batches(
    client: Client, function: Callable[[Any], Any], items: Sequence[Any], lost: Callable[[Any], Any]
) -> Iterator[Any]:
    waiting = deque(items[n : n + AT_ONCE] for n in range(0, len(items), AT_ONCE))
    return _results(client, function, waiting, lost)


def _results(client: Client, function: Callable[[Any], Any], waiting: deque[Any], lost: Callable[[Any], Any]) -> Iterator[Any]:
    """Results of every item of the batches; ``lost(item)`` for one whose worker died, with others and then alone."""
    from distributed import KilledWorker

    for batch, future in each_done(client, lambda items, _: (_each, function, items), waiting):
        if future.status == "error" and isinstance(future.exception(), KilledWorker):
            if len(batch) > 1:
                waiting.extend([item] for item in batch)
            else:
                yield lost(batch[0])
        else:
            yield from future.result()


def _each(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


def _of_list(client: Client, source: str, tell: Tell) -> list[Found]:
    rows = read_list(source)
    found = []
    for one in _in_batches(client, case_of_row, rows, lambda row: Found((row.path,), name=row.id, refused=DIED)):
        found.append(one)
        tell(0, len(found))
    return found


def read_list(source: str) -> list[ListRow]:
    """The rows of a CSV or Parquet file with the :data:`COLUMNS`; paths count from the folder of the list.

    Raises :class:`InputError` for missing columns and for an id that is empty, there twice, or no name for a folder.
    """
    with fetched([source]) as (path,):
        values = _parquet(path) if source.lower().endswith(".parquet") else _csv(path)
    folder = source.replace("\\", "/").rpartition("/")[0] or "."
    rows, known = [], set()
    for number, value in enumerate(values, start=2):
        row = ListRow(**{name: str(value.get(name) or "").strip() for name in COLUMNS})
        if not is_plain_name(row.id) or row.id.casefold() in known:
            fix = "give each case a name of its own, of letters, digits, points and dashes"
            raise InputError(f"line {number} of '{source}' has the id '{row.id}', which is empty, there twice or no name; {fix}")
        if not row.path:
            raise InputError(f"line {number} of '{source}' has no path; name the folder or file of the CT")
        known.add(row.id.casefold())
        place = row.path if is_address(row.path) or Path(row.path).is_absolute() else f"{folder}/{row.path}"
        rows.append(ListRow(row.id, place, row.patient, row.date, row.series))
    return rows


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            _check_columns(path, table.fieldnames or ())
            return list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the list '{path}' cannot be read ({error}); write it as CSV in UTF-8") from error


def _parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise InputError(f"the list '{path}' cannot be read ({error}); write it again") from error
    _check_columns(path, table.column_names)
    return list(table.to_pylist())


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if missing:
        raise InputError(
            f"the list '{path}' has no column '{missing[0]}'; it needs id and path, and may have {', '.join(COLUMNS[2:])}"
        )
