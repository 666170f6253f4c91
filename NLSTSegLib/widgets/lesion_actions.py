"""What a reader does to the selected lesions: decisions, splitting, merging, undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import slicer
from slicer.i18n import tr as _

from NLSTSegLib.review.lesion_text import report_line
from NLSTSegLib.review.state import Status
from NLSTSegLib.review.worklist import Row, neighbour, next_new
from NLSTSegLib.scene.correction import delete_lesion, merge_lesions, split_lesion
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.widgets.lesion_table import LesionTable, status_word


class LesionActions:
    """Acts on ``editor`` and on what is selected in the table; whoever calls brings the panel up to date afterwards."""

    def __init__(
        self,
        table: LesionTable,
        *,
        rows: Callable[[], Sequence[Row]],
        reader: Callable[[], str],
        go_to: Callable[[str], None],
        refresh: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """``rows`` are all lesions, those too that are not listed; ``go_to`` selects a lesion and brings the views to it;
        ``refresh`` shows what has changed so far."""
        self._table, self._rows, self._reader = table, rows, reader
        self._go_to, self._refresh, self._say = go_to, refresh, say
        self.editor: LesionEditor | None = None
        self.seen: set[str] = set()
        """The lesions that the views were brought to; no other one is accepted."""

    def step(self, step: Literal[1, -1]) -> None:
        """Go to the next or the previous lesion; at first to the selected one, which nobody has seen yet."""
        current = self._table.current
        goal = current if current is not None and current not in self.seen else neighbour(self._table.ids, current, step)
        if goal is not None:
            self._go_to(goal)

    def accept(self) -> None:
        """Accept the selected lesions; where one of them was not shown yet, it is shown instead."""
        unseen = [each for each in self._table.selected if each not in self.seen]
        if unseen:
            name = next(str(row["lesion"]) for row in self._table.rows if row["segment"] == unseen[0])
            self._go_to(unseen[0])
            self._say(_("{name} was not shown before: look at it, then accept it.").format(name=name))
        else:
            self._decide(Status.ACCEPTED)

    def reject(self) -> None:
        self._decide(Status.REJECTED)

    def reopen(self) -> None:
        self._decide(Status.NEW)

    def split(self) -> None:
        if self.editor is not None:
            split_lesion(self.editor, self._table.selected[0])

    def merge(self) -> None:
        if self.editor is not None:
            kept = merge_lesions(self.editor, self._table.selected)
            self._refresh()
            self._go_to(kept)

    def delete(self) -> None:
        if self.editor is not None:
            delete_lesion(self.editor, self._table.selected[0])

    def undo(self) -> None:
        """Take the last step back, and show and say what that changes: it may lie off screen."""
        if self.editor is not None:
            before = self._rows()
            self.editor.undo()
            self._refresh()
            self.tell_changes(before, _("Undone"))

    def redo(self) -> None:
        """Do the step that was taken back last again, and show and say what that changes."""
        if self.editor is not None:
            before = self._rows()
            self.editor.redo()
            self._refresh()
            self.tell_changes(before, _("Done again"))

    def tell_changes(self, before: Sequence[Row], what: str) -> None:
        """Bring the views to the first lesion that has changed since ``before``, and say of each what it is now."""
        now = {str(row["segment"]): row for row in self._rows()}
        old = {str(row["segment"]): row for row in before}
        sentences = [_("{name} is gone").format(name=row["lesion"]) for each, row in old.items() if each not in now]
        changed = [each for each, row in now.items() if _told(row) != _told(old.get(each, {}))]
        for each in changed:
            words = {"name": now[each]["lesion"], "status": status_word(Status(str(now[each]["status"])))}
            sentence = _("{name} is back, {status}") if each not in old else _("{name} is {status} again")
            sentences.append(sentence.format(**words))
        listed = [each for each in changed if each in self._table.ids]
        if listed:
            self._go_to(listed[0])
        if sentences:
            self._say(f"{what}: {', '.join(sentences)}.")

    def copy_as_text(self) -> None:
        """One line for each selected lesion, or for all where no more than one is selected, into the clipboard."""
        chosen = self._table.selected
        rows: list[Any] = [row for row in self._table.rows if len(chosen) < 2 or row["segment"] in chosen]
        slicer.app.clipboard().setText("\n".join(report_line(row) for row in rows))
        self._say(_("{number} line(s) for the report are in the clipboard.").format(number=len(rows)))

    def _decide(self, status: Status) -> None:
        if self.editor is None or not self._table.selected:
            return
        chosen, current = self._table.selected, self._table.current
        others = [{**row, "status": status} if row["segment"] in chosen else row for row in self._table.rows]
        following = next_new(others, current)
        self.editor.decide(chosen, status, self._reader())
        if status != Status.NEW:
            if following is not None:
                self._go_to(following)
            else:
                self._say(_("No lesion in the list is new any more."))


def _told(row: Row) -> dict[str, str | int | float]:
    """What of a row a step can change; time goes on by itself."""
    return {key: value for key, value in row.items() if key != "seconds"}
