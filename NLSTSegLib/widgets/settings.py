"""What the user chose, kept from one start of Slicer to the next."""

from __future__ import annotations

from typing import TypeVar

import qt
import slicer

Value = TypeVar("Value", str, int, float, bool)

GROUP = "NLSTSeg/"
"""Before every key in Slicer's settings."""


def setting(key: str, default: Value) -> Value:
    """The value kept under ``key``, of the type of ``default``; ``default`` where there is none."""
    if isinstance(default, bool):
        return slicer.util.settingsValue(GROUP + key, default, converter=slicer.util.toBool)
    return slicer.util.settingsValue(GROUP + key, default, converter=type(default))


def save_setting(key: str, value: str | int | float | bool) -> None:
    """Keep ``value`` under ``key``."""
    qt.QSettings().setValue(GROUP + key, value)
