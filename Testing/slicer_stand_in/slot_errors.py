"""Exceptions in slots, timers and observers, which Qt and VTK only print."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

slot_errors: list[str] = []
"""Tracebacks since the list was emptied."""


@contextmanager
def collected_slot_errors() -> Iterator[list[str]]:
    """Collect into :data:`slot_errors`, empty at first, while in the block."""

    def collect(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        slot_errors.append("".join(traceback.format_exception(kind, error, trace)))
        show(kind, error, trace)

    slot_errors.clear()
    # Qt and VTK hand such exceptions to this hook.
    show = sys.excepthook
    with mock.patch.object(sys, "excepthook", collect):
        yield slot_errors
