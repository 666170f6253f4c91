"""Which of the lesions are listed, and how far their review is, in a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slicer.i18n import tr as _

from NLSTSegLib.review.state import Status
from NLSTSegLib.review.worklist import Row, counts, is_decided, is_folded
from NLSTSegLib.scene.review import run_options_text
from NLSTSegLib.widgets.lesion_table import status_word
from NLSTSegLib.widgets.settings import save_setting, setting

LOWEST_SCORE_KEY, HIDE_DECIDED_KEY = "LowestScore", "HideDecided"
"""Keys of the settings."""

ORDER = (Status.NEW, Status.ACCEPTED, Status.EDITED, Status.REJECTED)
"""Order in which the lesions are counted."""


class WorklistFilter:
    """Works with ``lowestScoreSpinBox`` and ``hideDecidedCheckBox`` of ``ui``; ``on_change`` follows every change."""

    def __init__(self, ui: Any, on_change: Callable[[], None]) -> None:
        self._ui, self._on_change = ui, on_change
        ui.lowestScoreSpinBox.value = setting(LOWEST_SCORE_KEY, 0.0)
        ui.lowestScoreSpinBox.connect("valueChanged(double)", lambda value: self._changed(LOWEST_SCORE_KEY, value))
        ui.hideDecidedCheckBox.checked = setting(HIDE_DECIDED_KEY, False)
        ui.hideDecidedCheckBox.connect("toggled(bool)", lambda on: self._changed(HIDE_DECIDED_KEY, on))

    def listed(self, rows: Sequence[Row]) -> list[Row]:
        """The rows without marks of a low score and, where the reader wants that, without those that are decided on."""
        hides, lowest = self._ui.hideDecidedCheckBox.checked, self._ui.lowestScoreSpinBox.value
        return [row for row in rows if not (hides and is_decided(row)) and not is_folded(row, lowest)]

    def _changed(self, key: str, value: float | bool) -> None:
        save_setting(key, value)
        self._on_change()


def summary_of(segmentation_node: Any, rows: Sequence[Row], not_listed: int) -> str:
    """:func:`summary_text` of a segmentation; "" for none, and where its lesions cannot be seen, which is said elsewhere."""
    if segmentation_node is None:
        return ""
    volume_node = segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())
    if volume_node is None or (not rows and segmentation_node.GetSegmentation().GetNumberOfSegments()):
        return ""
    return summary_text(volume_node.GetName(), run_options_text(segmentation_node), rows, not_listed)


def summary_text(ct_name: str, options: str, rows: Sequence[Row], not_listed: int) -> str:
    """Whose lesions they are, how they were found, and how far the review is."""
    found = counts(rows)
    words = ", ".join(f"{found[status]} {status_word(status)}" for status in ORDER if status in found)
    number = {0: _("no lesions"), 1: _("1 lesion: {words}")}.get(len(rows), _("{number} lesions: {words}"))
    text = f"{ct_name}: {number.format(number=len(rows), words=words)}"
    text += _("; {number} not listed").format(number=not_listed) if not_listed else ""
    return f"{text} ({options})" if options else text
