"""Where files lie: on a disk, or at an address of fsspec (``s3://bucket/folder``), from which they are fetched for a moment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NLSTSegLib.disk.scratch import scratch_folder
from NLSTSegLib.errors import InputError

FILE_ADDRESSES = ("file://", "local://")
"""What fsspec calls the disk: what follows is a path."""

OWNER_FILE = "cohort-table.txt"
"""At an address of results: which table they belong to."""


@dataclass(frozen=True)
class Listing:
    """What lies directly in a folder, as places."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    identity: str
    """The same for a folder that is reached in several ways, by links."""


def is_address(place: str) -> bool:
    """Whether ``place`` is for fsspec, and not one of :data:`FILE_ADDRESSES`."""
    return "://" in place and not place.startswith(FILE_ADDRESSES)


def plain_place(place: str) -> str:
    """An address as it is, anything else as an absolute path."""
    if is_address(place):
        return place.rstrip("/")
    return os.path.abspath(place.partition("://")[2] if place.startswith(FILE_ADDRESSES) else place)


def list_folder(place: str) -> Listing:
    """Raises :class:`InputError` for a folder that cannot be looked into."""
    try:
        if is_address(place):
            system, path = _file_system(place)
            entries = sorted(system.ls(path, detail=True), key=lambda entry: entry["name"])
            names = {True: [], False: []}  # type: dict[bool, list[str]]
            for entry in entries:
                if entry["name"].strip("/") != path.strip("/"):
                    names[entry["type"] == "directory"].append(system.unstrip_protocol(entry["name"]))
            return Listing(tuple(names[True]), tuple(names[False]), place)
        facts = os.stat(place)
        with os.scandir(place) as found:
            there = sorted((entry.path, entry.is_dir()) for entry in found)
    except OSError as error:
        raise InputError(f"the folder '{place}' cannot be looked into ({error.strerror or error}); change its rights") from error
    folders = tuple(path for path, is_folder in there if is_folder)
    files = tuple(path for path, is_folder in there if not is_folder)
    return Listing(folders, files, f"{facts.st_dev}/{facts.st_ino}")


def is_folder(place: str) -> bool:
    """Raises :class:`InputError` where there is nothing."""
    if is_address(place):
        system, path = _file_system(place)
        try:
            if system.isdir(path):
                return True
            exists = system.exists(path)
        except OSError as error:
            raise InputError(f"'{place}' cannot be reached ({error}); look after the address and the rights") from error
    else:
        exists = os.path.exists(place)
        if os.path.isdir(place):
            return True
    if not exists:
        raise InputError(f"there is no file or folder {place}")
    return False


@contextmanager
def fetched(files: Sequence[str]) -> Iterator[list[Path]]:
    """Paths of ``files`` on this computer, each folder's in a folder; what was fetched goes at the end of the block."""
    if not any(is_address(file) for file in files):
        yield [Path(file) for file in files]
        return
    with scratch_folder() as scratch:
        folders = {folder: scratch / str(n) for n, folder in enumerate(sorted({file.rpartition("/")[0] for file in files}))}
        paths = []
        for file in files:
            folder, _, name = file.rpartition("/")
            folders[folder].mkdir(exist_ok=True)
            system, path = _file_system(file)
            try:
                system.get_file(path, str(folders[folder] / name))
            except OSError as error:
                raise InputError(f"'{file}' cannot be fetched ({error}); look after the connection and try again") from error
            paths.append(folders[folder] / name)
        yield paths


@contextmanager
def written_to(place: str) -> Iterator[Path]:
    """A folder whose files lie at ``place`` after the block: that folder itself, or one that is then copied to the address."""
    if not is_address(place):
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with scratch_folder() as scratch:
        yield scratch
        put_folder(scratch, place)


def put_folder(folder: Path, place: str, last: str = "") -> None:
    """Copy the files of ``folder`` to the address ``place``; the file called ``last`` ends it, so who finds that finds all."""
    system, path = _file_system(place)
    try:
        system.makedirs(path, exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == last):
            system.put_file(str(file), f"{path}/{file.name}")
    except OSError as error:
        raise InputError(f"'{place}' could not be written ({error}); look after the connection and the rights") from error


def claim(place: str, owner: str) -> None:
    """Note ``owner``, a table, at the address of its results; raises :class:`InputError` where another is noted."""
    system, path = _file_system(place)
    try:
        if not system.exists(f"{path}/{OWNER_FILE}"):
            system.makedirs(path, exist_ok=True)
            system.pipe_file(f"{path}/{OWNER_FILE}", owner.encode())
        noted = system.cat_file(f"{path}/{OWNER_FILE}").decode(errors="replace")
    except OSError as error:
        raise InputError(f"'{place}' could not be written ({error}); look after the connection and the rights") from error
    if noted != owner:
        fix = f"give that with --table, or another --output; if it is lost, remove {OWNER_FILE} there"
        raise InputError(f"the results at '{place}' belong to another table; {fix}")


def _file_system(place: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise InputError(f"the address '{place}' cannot be used ({error}); install what fsspec needs for it") from error
    return system, str(path)
