"""The layout of the NLSTseg data set, in its zips or extracted, and of the cases that the Slicer module exports.

``.../<id>/<id>_CT.nii.gz`` with ``<id>_tumor.nii.gz`` beside it, whatever the folders above are called. The id is the
patient's. What is in a zip is extracted one case at a time into a folder that goes again.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nlstseg_training.data.cache import Refusal, natural
from nlstseg_training.data.readers.label_table import TABLE_NAME, LabelRow, compare, find_table
from nlstseg_training.data.readers.source import Found, RawCase, Source, file_states
from nlstseg_training.data.readers.zip_files import extract, members
from NLSTSegLib.disk.files_below import files_below
from NLSTSegLib.disk.scratch import scratch_folder
from NLSTSegLib.errors import InputError
from NLSTSegLib.reading.read import read_ct, read_labels

FILE_NAME = re.compile(r"(?P<id>[^._].*)_(?P<what>CT|tumor)(?P<ending>\.nii(\.gz)?)")
"""Names that begin with a dot are macOS's."""

NAMED_CASES = 10
"""Cases that a sentence names; of more their number tells enough."""

LARGEST_MEMBER_BYTES = 4 * 2**30
"""No CT is larger, packed or not."""


@dataclass(frozen=True)
class StoredFile:
    """A file on the disk, or in an archive."""

    name: str
    """Path on the disk, or inside the archive."""
    archive: Path | None = None

    @property
    def folder(self) -> tuple[str, str]:
        """What two files of one case share."""
        return str(self.archive or ""), str(PurePosixPath(self.name).parent) if self.archive else str(Path(self.name).parent)

    def state(self) -> str:
        """Text that changes when the file does."""
        if self.archive is None:
            return file_states([Path(self.name)])
        with zipfile.ZipFile(self.archive) as packed:
            member = packed.getinfo(self.name)
            return f"{self.archive.name}:{member.CRC}:{member.file_size}"


@dataclass(frozen=True, kw_only=True)
class NlstsegSource(Source):
    """A CT and the mask with its lesions as values 1..k."""

    ct: StoredFile
    mask: StoredFile
    complete: bool
    table: Mapping[int, LabelRow] = field(default_factory=dict)
    """Rows of ``Label.xlsx`` by label value."""
    odd: tuple[str, ...] = ()
    """What is known before it is read, in sentences."""

    def state(self) -> str:
        return f"{self.ct.state()} {self.mask.state()} {self.complete} {sorted(self.table.items())} {self.odd}"

    def read(self) -> RawCase:
        with _on_disk(self.ct) as path:
            ct = read_ct(path)
        with _on_disk(self.mask) as path:
            labels = read_labels(path, ct)
        notes = (*self.odd, *(compare(self.table, labels, ct) if self.table else ()))
        if not labels.any() and not self.complete:
            notes = (*notes, "nothing is marked in its mask")
        kinds = {label: row.kind for label, row in self.table.items()}
        return RawCase(ct, labels, "chest", self.complete, lesion_kinds=kinds, notes=notes)


def find_nlstseg(root: Path) -> Found:
    """The cases of NLSTseg in ``root``: a folder with its zips, extracted or not, or one zip.

    With ``1_Table`` (zipped or not) tumours are told from nodules. A case that is both extracted and in a zip is read from
    the folder. Not every nodule is annotated there.
    """
    files, refused = _files(root, "nlstseg")
    table, table_refused = find_table(root)
    return _pair(files, table, refused + table_refused, reader="nlstseg", complete=False)


def find_corrected(root: Path) -> Found:
    """The training cases that the Slicer module exported to ``root``: a reader has decided on every lesion of them."""
    files, refused = _files(root, "corrected")
    return _pair(files, {}, refused, reader="corrected", complete=True)


def _files(root: Path, reader: str) -> tuple[list[StoredFile], list[Refusal]]:
    """Every file that may belong to a case, those on the disk first."""
    if not root.exists():
        raise InputError(f"there is no '{root}'; name the folder with the cases")
    refused = []
    on_disk = [] if root.is_file() else sorted(files_below(root))
    files = [StoredFile(str(path)) for path in on_disk if FILE_NAME.fullmatch(path.name)]
    for archive in [root] if root.is_file() else [path for path in on_disk if path.suffix == ".zip"]:
        try:
            files += [StoredFile(member.filename, archive) for member in members(archive)]
        except InputError as error:
            refused.append(Refusal(archive.name, reader, str(error)))
    return [file for file in files if FILE_NAME.fullmatch(PurePosixPath(file.name.replace("\\", "/")).name)], refused


def _pair(
    files: list[StoredFile],
    table: Mapping[str, Mapping[int, LabelRow]],
    refused: list[Refusal],
    *,
    reader: str,
    complete: bool,
) -> Found:
    by_case: dict[str, dict[tuple[str, str], dict[str, StoredFile]]] = {}
    for file in files:
        name = FILE_NAME.fullmatch(PurePosixPath(file.name.replace("\\", "/")).name)
        assert name is not None
        by_case.setdefault(name["id"], {}).setdefault(file.folder, {}).setdefault(name["what"], file)
    sources = []
    for case_id in sorted(by_case, key=natural):
        # Whole ones before others, extracted ones before those in an archive.
        copies = sorted(
            by_case[case_id].values(), key=lambda copy: (len(copy) < 2, next(iter(copy.values())).archive is not None)
        )
        first = copies[0]
        where = " in ".join(part for part in reversed(next(iter(first.values())).folder) if part)
        if len(first) < 2:
            lacking = "mask (_tumor.nii.gz)" if "CT" in first else "CT (_CT.nii.gz)"
            refused.append(Refusal(case_id, reader, f"there is no {lacking} in '{where}'; get the case again"))
            continue
        for copy in copies[1:]:
            if all(file.archive is None for file in copy.values()) and len(copy) == 2:
                folder = copy["CT"].folder[1]
                refused.append(Refusal(case_id, reader, f"it is in '{where}' and again in '{folder}', which is not read"))
        source = NlstsegSource(
            id=case_id,
            patient=case_id,
            reader=reader,
            ct=first["CT"],
            mask=first["tumor"],
            complete=complete,
            table=table.get(case_id, {}),
            odd=tuple(_odd(case_id, first["CT"], table)),
        )
        sources.append(source)
    if absent := sorted(table.keys() - by_case.keys(), key=natural):
        named = ", ".join(absent[:NAMED_CASES]) + (" ..." if len(absent) > NAMED_CASES else "")
        what = f"it has rows of {len(absent)} case(s) of which there is no CT and no mask: {named}"
        refused.append(Refusal(TABLE_NAME, reader, what))
    return Found(tuple(sources), tuple(refused))


def _odd(case_id: str, ct: StoredFile, table: Mapping[str, Mapping[int, LabelRow]]) -> Iterator[str]:
    if table and case_id not in table:
        yield f"it has no row in {TABLE_NAME}, so nothing tells whether its lesions are tumours or nodules"
    folder = PurePosixPath(ct.folder[1].replace("\\", "/")).name
    if folder.isdecimal() and folder != case_id:
        yield f"its files are called '{case_id}', its folder '{folder}'; the files' name counts"


@contextmanager
def _on_disk(file: StoredFile) -> Iterator[Path]:
    if file.archive is None:
        yield Path(file.name)
        return
    with scratch_folder() as folder:
        path = folder / PurePosixPath(file.name).name
        with path.open("wb") as extracted:
            extract(file.archive, file.name, extracted, LARGEST_MEMBER_BYTES)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), f"'{file.name}' in '{file.archive}'")) from error
