"""Why a case failed, without the names that say whose it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

UID = re.compile(r"\b\d+(?:\.\d+){3,}(?:/\w+)?")

QUOTED, PATH = re.compile(r"'[^']*'"), re.compile(r"(?:\w+:/)?[^\s'\"(),;:]*[/\\][^\s'\"(),;]*")

HIDDEN = "..."


def plain_reason(reason: str, files: Sequence[str], names: Iterable[str] = ()) -> str:
    """``reason`` without ``files``, the names of these and of the folders above them, ``names``, UIDs and whatever stands in
    quotes or looks like a path: file names and descriptions of series are often a patient's name.
    """
    parts = {file.replace("\\", "/") for file in files}
    folders = {file.rpartition("/")[0] for file in parts}
    single = {name for file in (*parts, *folders) for name in file.split("/")} | set(names)
    for hidden in (*sorted({*parts, *folders}, key=len, reverse=True), *sorted(single, key=len, reverse=True)):
        if len(hidden) > 1:
            reason = re.sub(rf"(?<!\w){re.escape(hidden)}(?!\w)", HIDDEN, reason)
    for pattern in (QUOTED, UID, PATH):
        reason = pattern.sub(HIDDEN, reason)
    return " ".join(reason.split())
