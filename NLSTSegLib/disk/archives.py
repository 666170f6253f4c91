"""Packed folders (zip, tar and the like): recognised, so that the user is told to unpack them; they are never unpacked here."""

from __future__ import annotations

from pathlib import Path

_STARTS = (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
"""First bytes of zip, 7z, rar, gzip, bzip2, xz and zstd files."""

_TAR_MARK, _TAR_MARK_AT = b"ustar", 257


def is_archive(path: Path) -> bool:
    """Whether the file ``path`` starts like a packed one; also ``False`` when it cannot be opened."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_TAR_MARK_AT + len(_TAR_MARK))
    except OSError:
        return False
    return start.startswith(_STARTS) or start[_TAR_MARK_AT:] == _TAR_MARK
