"""Marks by which pytest chooses tests (``-m "not slow"``); inside Slicer, where there is no pytest, they do nothing."""

import importlib.util
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def _mark(name: str) -> Callable[[T], T]:
    if importlib.util.find_spec("pytest") is None:
        return lambda test: test
    import pytest

    return getattr(pytest.mark, name)


slow = _mark("slow")
"""Dear by its nature (whole chests, many kills, several trainings), and not the only test of what users meet daily."""

real_data = _mark("real_data")
"""Needs the shared folder with CT of real patients, and is skipped where there is none."""
