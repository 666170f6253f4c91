"""Makes the cache of :mod:`.data.cache` from what the readers found: in parallel, and again from where it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from nlstseg_training.data.cache import (
    CASE_FILE,
    MANIFEST_FILE,
    CaseEntry,
    Manifest,
    Refusal,
    by_id,
    read_json,
    read_manifest,
    write_json,
)
from nlstseg_training.data.case_files import CHECKING_THREADS, damaged_file, write_case
from nlstseg_training.data.conform import Spacing, conform
from nlstseg_training.data.readers.source import Found, Source
from NLSTSegLib.disk.atomic_folder import NOT_COUNTED, atomic_folder, held
from NLSTSegLib.disk.free_name import is_plain_name
from NLSTSegLib.errors import InputError, is_out_of_memory

RULES = "3"
"""Changes when cases are prepared otherwise; those of before are then prepared again."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that the next case would meet as well."""

Outcome = CaseEntry | Refusal


def prepare(
    found: Found,
    cache: Path,
    *,
    spacing_kji_mm: Spacing | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Prepare every case of ``found`` in ``cache`` and write its manifest.

    What is wrong with a case is in the manifest's ``refused``, and the others go on. A case that is there, made of the same
    files in the same way, and whose own files have their hashes, is not made again; those of earlier runs with other sources
    stay. ``progress(done, of)`` is called after every case. Raises :class:`InputError` when the cache cannot be written or was
    made with another spacing; what is done by then, or when it is interrupted, is kept.
    """
    with held(cache):
        before = _begin(cache, spacing_kji_mm)
        sources, refused = _distinct(found, before)
        outcomes: list[Outcome] = []
        todo: list[Source] = []
        with ThreadPoolExecutor(CHECKING_THREADS) as pool:
            for source, entry in zip(sources, pool.map(lambda source: _there(cache, source), sources), strict=True):
                if entry is None:
                    todo.append(source)
                else:
                    outcomes.append(entry)
                    if progress:
                        progress(len(outcomes), len(sources))
        jobs = _in_turn(todo, cache, spacing_kji_mm) if workers == 1 else _in_processes(todo, cache, spacing_kji_mm, workers)
        try:
            with contextlib.closing(jobs):
                for outcome in jobs:
                    outcomes.append(outcome)
                    if progress:
                        progress(len(outcomes), len(sources))
        finally:
            manifest = _manifest(before, found, outcomes, refused, cache, spacing_kji_mm)
            write_json(cache / MANIFEST_FILE, manifest)
        return manifest


def _begin(cache: Path, spacing_kji_mm: Spacing | None) -> Manifest:
    """The manifest of earlier runs, or an empty one, already written."""
    if (cache / MANIFEST_FILE).exists():
        before = read_manifest(cache)
        if before.spacing_kji_mm != spacing_kji_mm:
            was = f"a spacing of {before.spacing_kji_mm} mm" if before.spacing_kji_mm else "every case's own spacing"
            raise InputError(f"the cache '{cache}' was made with {was}; ask for the same, or choose another folder")
        return before
    if cache.exists() and {path.name for path in cache.iterdir()} - NOT_COUNTED:
        raise InputError(f"'{cache}' is not empty and no cache; choose a new folder")
    cache.mkdir(exist_ok=True)
    empty = Manifest(1, spacing_kji_mm, (), ())
    write_json(cache / MANIFEST_FILE, empty)
    return empty


def _distinct(found: Found, before: Manifest) -> tuple[list[Source], list[Refusal]]:
    """The sources whose id can name a folder and is no other's."""
    taken = {entry.id: entry.reader for entry in before.cases}
    sources: dict[str, Source] = {}
    refused = []
    for source in found.sources:
        if not is_plain_name(source.id):
            reason = "its name cannot be that of a case; use up to 64 letters, digits, '-', '_' or '.'"
        elif source.id in sources or taken.get(source.id, source.reader) != source.reader:
            other = sources[source.id].reader if source.id in sources else taken[source.id]
            reason = f"another case of that name is there already, of the kind '{other}'; rename one"
        else:
            sources[source.id] = source
            continue
        refused.append(Refusal(source.id, source.reader, reason))
    return list(sources.values()), refused


def _there(cache: Path, source: Source) -> CaseEntry | None:
    """The entry of a case that need not be made again."""
    path = cache / source.id / CASE_FILE
    if not path.exists():
        return None
    try:
        entry = read_json(path, CaseEntry, "")
        same = entry.reader == source.reader and entry.source_state == _state(source)
    except Exception:  # of an older form, or a source that went or is damaged: reading it tells more, case by case
        return None
    if not same or not entry.files_sha256 or damaged_file(cache, entry) is not None:
        return None
    return dataclasses.replace(entry, given_part=source.given_part, patient=source.patient)


def _state(source: Source) -> str:
    return f"{RULES} {source.state()}"


def _manifest(
    before: Manifest,
    found: Found,
    outcomes: Sequence[Outcome],
    refused: Sequence[Refusal],
    cache: Path,
    spacing_kji_mm: Spacing | None,
) -> Manifest:
    entries = {entry.id: entry for entry in before.cases if (cache / entry.id / CASE_FILE).exists()}
    now = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    tried = {source.id for source in found.sources}
    for refusal in [*now, *(refusal for refusal in found.refused if refusal.id not in tried)]:
        entry = entries.get(refusal.id)
        if entry and entry.reader == refusal.reader:
            # Of an earlier state of its files; nobody is to load it.
            del entries[refusal.id]
            shutil.rmtree(cache / refusal.id, ignore_errors=True)
    entries |= {outcome.id: outcome for outcome in outcomes if isinstance(outcome, CaseEntry)}
    cases, twice = _without_duplicates(by_id(entries.values()))
    readers = {source.reader for source in found.sources} | {refusal.reader for refusal in found.refused}
    earlier = [refusal for refusal in before.refused if refusal.reader not in readers]
    return Manifest(1, spacing_kji_mm, cases, by_id([*earlier, *found.refused, *refused, *now, *twice]))


def _without_duplicates(entries: Sequence[CaseEntry]) -> tuple[tuple[CaseEntry, ...], list[Refusal]]:
    """The cases without those of the same scan, of which the first stays:
    else it could be trained on under one id and tested under another."""
    scans: dict[str, str] = {}
    cases, refused = [], []
    for entry in entries:
        digests = [entry.scan_sha256]
        if entry.kind == "chest" and entry.series_uid_sha256:
            digests.append(entry.series_uid_sha256)
        same = next((scans[digest] for digest in digests if digest in scans), None)
        if same is None:
            scans |= dict.fromkeys(digests, entry.id)
            cases.append(entry)
        else:
            refused.append(Refusal(entry.id, entry.reader, f"it is the same scan as '{same}', which is kept"))
    return tuple(cases), refused


def _in_turn(sources: Iterable[Source], cache: Path, spacing_kji_mm: Spacing | None) -> Generator[Outcome]:
    return (_make(source, cache, spacing_kji_mm) for source in sources)


def _in_processes(sources: Sequence[Source], cache: Path, spacing_kji_mm: Spacing | None, workers: int) -> Generator[Outcome]:
    """The made cases in the order they are done. When the caller is interrupted, the cases under way are finished and no other
    begun."""
    left = iter(sources)
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker, (workers,))
    running: set[Future[Outcome]] = set()
    try:
        while True:
            # No more than can run, so that none waits in a queue that cannot be emptied.
            for source in left:
                running.add(executor.submit(_make, source, cache, spacing_kji_mm))
                if len(running) == workers:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        what = "a process that prepared cases was ended from outside, perhaps for want of memory"
        raise InputError(f"{what}; run it again with fewer workers, what is done is kept") from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _begin_worker(workers: int) -> None:
    """Begin in a new process: Ctrl-C is for the one that started it, with which it ends; its share of the processors is its
    own."""
    import SimpleITK as sitk

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(max(1, (os.cpu_count() or 1) // workers))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(source: Source, cache: Path, spacing_kji_mm: Spacing | None) -> Outcome:
    """Read one case and write it; raises :class:`InputError` only for what no other case would escape: a full disk."""
    try:
        state = _state(source)
        prepared = conform(source, source.read(), state, spacing_kji_mm)
    except InputError as error:
        return Refusal(source.id, source.reader, str(error))
    except OSError as error:
        if error.errno in DISK_FULL:
            fix = "make room there, or name another with the environment variable TMPDIR"
            raise InputError(f"the folder for temporary files, '{tempfile.gettempdir()}', is full; {fix}") from error
        return Refusal(source.id, source.reader, f"a file of it cannot be read ({error.strerror or error}); get it again")
    except Exception as error:  # whatever a damaged file makes a library do: one case must not stop the others
        if is_out_of_memory(error):
            return Refusal(source.id, source.reader, "there is too little memory for it; run it again with fewer workers")
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return Refusal(source.id, source.reader, f"unexpected {what}; report it")
    with atomic_folder(cache / source.id) as folder:
        return write_case(folder, prepared.entry, prepared.ct, prepared.labels, prepared.target, prepared.lungs)
