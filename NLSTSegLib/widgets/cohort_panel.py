"""The cases of a cohort, one after the other: the least sure first, each review back into the cohort's folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NLSTSegLib.cohort.reading_list import (
    ListedCase,
    is_reviewed_by,
    new_review_folder,
    read_listed_ct,
    readers_of,
    reading_list,
    segmentation_to_read,
)
from NLSTSegLib.errors import InputError
from NLSTSegLib.review.folder import write_review
from NLSTSegLib.scene.cohort_case import Decisions, close_case, decisions, open_case
from NLSTSegLib.scene.segmentation_file import write_segmentation_node
from NLSTSegLib.scene.sizes import reviewed_case
from NLSTSegLib.widgets.fitting import lay_out
from NLSTSegLib.widgets.lesion_panel import READER_KEY
from NLSTSegLib.widgets.panel import ActingPanel
from NLSTSegLib.widgets.settings import save_setting, setting

FOLDER_SETTING = "CohortFolder"
"""The cohort that was opened last."""


class CohortPanel(ActingPanel):
    """A list of cases with who has read them, and buttons to save a review and go on.

    ``show(volume, segmentation)`` shows a case, of which the second may be ``None``.
    """

    def __init__(self, show: Callable[[Any, Any], None]) -> None:
        super().__init__("CohortPanel")
        self._show = show
        self._folder: Path | None = None
        self._cases: list[ListedCase] = []
        self._shown: int | None = None
        self._volume: Any = None
        self._segmentation: Any = None
        self._saved: Decisions = ()
        self.ui.openButton.connect("clicked()", self._choose_folder)
        self.ui.saveButton.connect("clicked()", lambda: self._act(self._save))
        self.ui.nextButton.connect("clicked()", lambda: self._act(self._next))
        self.ui.caseList.connect("itemDoubleClicked(QListWidgetItem*)", self._on_double_click)
        lay_out(self.ui.buttonLayout, [self.ui.saveButton, self.ui.nextButton], most_columns=2)
        self._say("")
        self._refresh()

    def close(self) -> None:
        self._volume = self._segmentation = None

    @staticmethod
    def _reader() -> str:
        return setting(READER_KEY, "")

    def _choose_folder(self) -> None:
        chosen = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of the cohort"), setting(FOLDER_SETTING, ""))
        if chosen:
            save_setting(FOLDER_SETTING, chosen)
            self._act(lambda: self._open(Path(chosen)))

    def _open(self, folder: Path) -> None:
        cases = reading_list(folder)
        if not cases:
            raise InputError(_("The cohort in {folder} has no case that was done; run it first.").format(folder=folder))
        self._keep_decisions()
        self._folder, self._cases, self._shown = folder, cases, None
        self.ui.caseList.clear()
        for case in cases:
            self.ui.caseList.addItem(qt.QListWidgetItem(case.name))
        for row in range(len(cases)):
            self._label(row)
        self._say(_("{number} cases; the first are those that failed or are least sure.").format(number=len(cases)))

    def _label(self, row: int) -> None:
        assert self._folder is not None, "a row belongs to a cohort"
        case = self._cases[row]
        found = _("failed: {reason}").format(reason=case.reason) if case.result is None else _("no lesion")
        if case.least_score is not None:
            found = _("{number} lesions, least sure {score}").format(number=case.lesions, score=f"{case.least_score:.2f}")
        readers = ", ".join(readers_of(self._folder, case))
        text = f"{case.name}: {found}"
        self.ui.caseList.item(row).setText(f"{text} ({_('read by {readers}').format(readers=readers)})" if readers else text)

    def _next(self) -> None:
        """The next case that this reader has not reviewed, after the shown one and then from the start."""
        self._keep_decisions()
        assert self._folder is not None, "the button is enabled with a cohort"
        start = 0 if self._shown is None else self._shown + 1
        for row in [*range(start, len(self._cases)), *range(start)]:
            if row != self._shown and not is_reviewed_by(self._folder, self._cases[row], self._reader()):
                self._show_case(row)
                return
        self._say(_("You have read all cases of this cohort."))

    def _on_double_click(self, item: Any) -> None:
        row = self.ui.caseList.row(item)

        def go() -> None:
            self._keep_decisions()
            self._show_case(row)

        self._act(go)

    def _show_case(self, row: int) -> None:
        assert self._folder is not None, "a row belongs to a cohort"
        case = self._cases[row]
        file = segmentation_to_read(self._folder, case, self._reader())
        volume, segmentation = open_case(read_listed_ct(case), case.name, file, slicer.mrmlScene)
        before = self._volume, self._segmentation
        self._volume, self._segmentation, self._shown = volume, segmentation, row
        self._saved = () if segmentation is None else decisions(segmentation)
        self.ui.caseList.setCurrentRow(row)
        self._show(volume, segmentation)
        if before[0] is not None and before[0].GetScene() is not None:
            close_case(*before)
        self._label(row)
        self._say(_("{name} is shown, {place} of {number}.").format(name=case.name, place=row + 1, number=len(self._cases)))

    def _lesions(self) -> Any:
        """The lesions of the shown case, which a run may have found meanwhile; ``None`` where there are none any more."""
        if self._segmentation is not None and self._segmentation.GetScene() is not None:
            return self._segmentation
        return None

    def take(self, volume: Any, segmentation: Any) -> None:
        """Lesions that a run has found on the CT of the shown case are reviewed as its own."""
        if volume is not None and volume is self._volume and self._segmentation is None:
            self._segmentation, self._saved = segmentation, ()
            self._refresh()

    def _keep_decisions(self) -> None:
        """Save what the reader has done since the last save, if anything."""
        node = self._lesions()
        if node is not None and decisions(node) != self._saved:
            self._save()

    def _save(self) -> None:
        node = self._lesions()
        if node is None or self._folder is None or self._shown is None:
            raise InputError(_("there is no case with lesions to save; open one"))
        case = self._cases[self._shown]
        folder = new_review_folder(self._folder, case, self._reader())
        write_review(reviewed_case(node), folder, partial(write_segmentation_node, node))
        self._saved = decisions(node)
        self._label(self._shown)
        self._say(_("The review is in {folder}").format(folder=folder))

    def _act(self, action: Callable[[], None]) -> None:
        with self._errors_told(), self._busy():
            action()
        self._refresh()

    def _refresh(self) -> None:
        self.ui.caseList.visible = self.ui.nextButton.enabled = self._folder is not None
        self.ui.saveButton.enabled = self._lesions() is not None
        missing = "" if self._folder is not None else _("First open a cohort.")
        self.ui.nextButton.toolTip = missing or _("Save what you have decided, and show the next case that you have not read")
        self.ui.saveButton.toolTip = missing or _("Write the review into the cohort's folder, under your name")
