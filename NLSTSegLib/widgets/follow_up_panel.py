"""Two CTs of one patient compared: the old one over the new one, the same lesions found again, growth while outlines change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NLSTSegLib.errors import NLSTSegError, as_sentence
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.scene.follow_up import BASELINE_ROLE, FOLLOWUP_ROLE, SceneFollowUp, TrackRow, follow_up_nodes
from NLSTSegLib.scene.follow_up_views import FollowUpViews
from NLSTSegLib.scene.voxels import volume_of
from NLSTSegLib.widgets.fitting import lay_out
from NLSTSegLib.widgets.follow_up_start import FollowUpStart
from NLSTSegLib.widgets.panel import Panel

GATHER_MS = 150
"""Changes of a segmentation within this time are followed at once."""


class TableKeys(qt.QObject):
    """Keys of a widget that has the focus: they come before shortcuts of the main window, which has the review's N and P."""

    def __init__(self, actions: Mapping[int, Callable[[], None]]) -> None:
        super().__init__()
        self._actions = dict(actions)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802
        """Called by Qt for every event of the widget."""
        if event.type() not in (qt.QEvent.ShortcutOverride, qt.QEvent.KeyPress) or event.key() not in self._actions:
            return False
        if event.type() == qt.QEvent.KeyPress:
            self._actions[event.key()]()
        event.accept()
        return True


class FollowUpPanel(Panel):
    """Choose two CTs and compare their lesions; leave, and the views are as before.

    A CT without a review is segmented first: ``options`` are those of the run, ``prepare`` comes before it and may ask the user,
    ``on_result`` gets its segmentation and CT. ``review_of`` gives the review of a CT, or None.
    """

    def __init__(
        self,
        options: Callable[[], RunOptions],
        prepare: Callable[[], None],
        review_of: Callable[[Any], Any],
        on_result: Callable[[Any, Any], None],
    ) -> None:
        super().__init__("FollowUpPanel")
        self._compared: SceneFollowUp | None = None
        self._views: FollowUpViews | None = None
        self._rows: list[TrackRow] = []
        self._observed, self._observed_scene = slicer.util.VTKObservationMixin(), slicer.util.VTKObservationMixin()
        self._say("")
        self.start = FollowUpStart(
            *(self.ui, options, prepare, review_of, on_result), say=self._say, on_chosen=self._chosen, on_found=self.take
        )
        self._gather = qt.QTimer()
        self._gather.setSingleShot(True)
        self._gather.setInterval(GATHER_MS)
        self._gather.connect("timeout()", self._follow_edits)
        for button, action in (
            (self.ui.pairButton, self._pair),
            (self.ui.unpairButton, self._unpair),
            (self.ui.alignButton, self._align),
            (self.ui.leaveButton, self.leave),
        ):
            button.connect("clicked()", action)
        self.ui.daysSpinBox.connect("valueChanged(int)", lambda days: self._days_chosen())
        self.ui.trackTable.connect("currentCellChanged(int,int,int,int)", lambda row, column, old, old_column: self._go_to(row))
        self.ui.trackTable.connect("itemSelectionChanged()", self.refresh)
        self._keys = TableKeys({qt.Qt.Key_N: lambda: self.step(1), qt.Qt.Key_P: lambda: self.step(-1)})
        self.ui.trackTable.installEventFilter(self._keys)
        self.ui.previousButton.connect("clicked()", lambda: self.step(-1))
        self.ui.nextButton.connect("clicked()", lambda: self.step(1))
        lay_out(self.ui.daysLayout, [self.ui.compareButton, self.ui.cancelButton, self.ui.leaveButton], most_columns=3)
        buttons = [self.ui.previousButton, self.ui.nextButton, self.ui.pairButton, self.ui.unpairButton, self.ui.alignButton]
        lay_out(self.ui.buttonLayout, buttons, most_columns=3)
        scene = slicer.mrmlScene
        self._observed_scene.addObserver(scene, scene.StartCloseEvent, lambda caller, event: self._scene_closes())
        self._observed_scene.addObserver(scene, scene.EndImportEvent, lambda caller, event: self._take_up())
        self.refresh()

    def close(self) -> None:
        """Let go of everything, and leave the views."""
        self.start.close()
        self.leave()
        self._observed_scene.removeObservers()
        self.ui.trackTable.removeEventFilter(self._keys)

    def leave(self) -> None:
        """Show what was shown before the comparison."""
        self._gather.stop()
        self._observed.removeObservers()
        if self._compared is not None:
            self._compared.uncolor()
        if self._views is not None:
            self._views.leave()
        self._compared = self._views = None
        self._show()

    def step(self, by: int) -> None:
        """Go to the next or the previous track; both rows of views follow."""
        if self._rows:
            row = self.ui.trackTable.currentRow()
            self.ui.trackTable.setCurrentCell((row + by) % len(self._rows) if row >= 0 else 0, 0)

    def _chosen(self) -> None:
        if self._compared is not None and tuple(map(volume_of, self._compared.nodes)) != self.start.volumes:
            self.leave()
        self.refresh()

    def take(self, nodes: tuple[Any, Any], registration: Registration) -> None:
        """Show what was found, with the outlines and pairs as they are by now."""
        if self._compared is not None and self._compared.nodes != nodes:
            self.leave()
        if self._compared is None:
            self._begin(SceneFollowUp(*nodes))
        assert self._compared is not None, "it has begun"
        assert self._views is not None, "it has begun"
        self._compared.days = self.ui.daysSpinBox.value or None
        self._compared.compare(registration)
        self._views.link(self._compared.is_registered)
        self._show()
        if self._rows:
            self.ui.trackTable.setCurrentCell(0, 0)
            self._go_to(0)

    def _begin(self, compared: SceneFollowUp) -> None:
        shown = [(volume_of(node), node) for node in compared.nodes]
        # Before the views: a refusal must leave everything as it is.
        self._views = FollowUpViews(shown[0], shown[1], slicer.app.layoutManager(), linked=compared.is_registered)
        self._compared = compared
        for node in compared.nodes:
            segmentation = node.GetSegmentation()
            for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SourceRepresentationModified):
                self._observed.addObserver(segmentation, event, lambda caller, event: self._gather.start())

    def _follow_edits(self) -> None:
        if self._compared is None:
            return
        try:
            self._compared.update()
            self._show()
        except NLSTSegError as error:
            self._say(str(error))

    def _show(self) -> None:
        """Bring the table up to date; the row that the reader is at stays."""
        self._rows = [] if self._compared is None else self._compared.rows()
        table = self.ui.trackTable
        table.blockSignals(True)
        table.setRowCount(len(self._rows))
        for number, row in enumerate(self._rows):
            kind = _("{kind} (by hand)").format(kind=row.kind) if row.by_hand else row.kind
            texts = (str(row.number), kind, *(_cell(*each) for each in zip(row.names, row.volumes_mm3, strict=True)), row.told)
            for column, text in enumerate(texts):
                item = table.item(number, column)
                if item is None:
                    item = qt.QTableWidgetItem("")
                    table.setItem(number, column, item)
                item.setText(text)
                item.setToolTip(text)
        table.resizeColumnsToContents()
        table.blockSignals(False)
        if self._compared is not None:
            self._compared.color()
        self.refresh()

    def _go_to(self, number: int) -> None:
        self.refresh()
        if self._compared is None or self._views is None or not 0 <= number < len(self._rows):
            return
        upper, lower = self._compared.places_ras_mm(self._rows[number])
        self._views.jump(upper, lower, align=self._compared.is_registered)

    def _chosen_rows(self) -> list[TrackRow]:
        chosen = sorted({index.row() for index in self.ui.trackTable.selectionModel().selectedRows()})
        return [self._rows[number] for number in chosen if number < len(self._rows)]

    def _pair(self) -> None:
        self._change(lambda compared: compared.pair(self._chosen_rows()))

    def _unpair(self) -> None:
        self._change(lambda compared: compared.unpair(self._chosen_rows()[0]))

    def _change(self, action: Any) -> None:
        self._say("")
        if self._compared is None or not self._chosen_rows():
            return
        try:
            action(self._compared)
        except NLSTSegError as error:
            self._say(str(error))
        self._show()

    def _align(self) -> None:
        if self._views is not None:
            self._views.align_here()

    def _days_chosen(self) -> None:
        if self._compared is not None:
            self._compared.days = self.ui.daysSpinBox.value or None
            self._show()

    def _take_up(self) -> None:
        """Choose and show the comparison that a scene brought."""
        nodes = follow_up_nodes(slicer.mrmlScene)
        if nodes and self._compared is None:
            reviews = [nodes[-1].GetNodeReference(role) for role in (BASELINE_ROLE, FOLLOWUP_ROLE)]
            try:
                compared = SceneFollowUp(*reviews)
                self.start.choose(*map(volume_of, reviews))
                self.ui.daysSpinBox.value = int(compared.days or 0)
                self._begin(compared)
                self._show()
            except NLSTSegError as error:
                self._say(str(error))

    def _scene_closes(self) -> None:
        self.start.stop()
        self.leave()
        self.start.choose(None, None)

    def _say(self, sentence: str) -> None:
        self.ui.messageLabel.text = as_sentence(sentence) if sentence else ""
        self.ui.messageLabel.visible = bool(sentence)

    def refresh(self) -> None:
        """Say what can be done now, and what is under way."""
        self.start.refresh()
        rows = self._chosen_rows() if self._rows else []
        shown = self._compared is not None
        self.ui.leaveButton.enabled = self.ui.alignButton.enabled = shown
        self.ui.previousButton.enabled = self.ui.nextButton.enabled = bool(self._rows)
        self.ui.pairButton.enabled = len(rows) > 1
        self.ui.unpairButton.enabled = len(rows) == 1 and bool(rows[0].earlier and rows[0].later)
        refusal = self._compared.refusal if self._compared is not None else None
        self.ui.refusalLabel.visible = bool(refusal)
        self.ui.refusalLabel.text = (
            _(
                "The CTs could not be registered: {why}. No pair is made by the program. Bring both rows to the same place and "
                "choose Align here, or choose two rows of the table and Pair."
            ).format(why=refusal)
            if refusal
            else ""
        )


def _cell(name: str, volume_mm3: float | None) -> str:
    return f"{name}, {volume_mm3:.0f} mm³" if volume_mm3 is not None else name
