"""The panel for the review in a window of its own, on the CT of :mod:`review_scene`."""

import tempfile
from pathlib import Path

import numpy as np

from helpers.mrml_nodes import add_volume
from helpers.review_scene import FAINT, FLIPPED, LARGE, NEIGHBOUR, begin, ct_with_balls, soft_result, voxels_of, world_ras_mm
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

LATER = LARGE, NEIGHBOUR._replace(radius_mm=4.6), FAINT._replace(peak=1.0)
"""What a later run sees: the first lesion as before, the second larger, not the third, and one more."""

NAME, STATUS, SCORE, DIAMETER, VOLUME, PLACE, AXES, DENSITY = range(8)
"""Columns of the table."""


class PanelTestCase(ModuleTestCase):
    """``self.panel`` is entered and shows ``self.node``, the review of three lesions on ``self.volume_node``."""

    direction_lps = FLIPPED

    def setUp(self):
        super().setUp()
        # A window that nobody holds is deleted with what is in it.
        self.windows = []
        from NLSTSegLib.widgets.lesion_panel import LesionPanel

        self.ct = ct_with_balls(direction_lps=self.direction_lps)
        self.volume_node = self.add_ct("CT")
        self.result = soft_result(self.ct)
        self.node = begin(self.result, self.volume_node)
        self.panel = LesionPanel()
        self.addCleanup(self.panel.close)
        self.ui = self.panel.ui
        self.show_in_window(self.panel.widget)
        self.panel.enter()
        self.panel.show(self.node)

    def add_ct(self, name: str):
        node = add_volume(self.ct, name)
        node.CreateDefaultDisplayNodes()
        return node

    def show_in_window(self, widget):
        import qt

        window = qt.QWidget()
        column = qt.QVBoxLayout(window)
        column.addWidget(widget)
        if not self.windows:
            window.name = host.MAIN_WINDOW
            self.addCleanup(setattr, window, "name", "")
        window.resize(480, 900)
        window.show()
        self.windows.append(window)
        self.addCleanup(window.hide)
        host.process_events()
        return window

    def temporary_folder(self) -> Path:
        return Path(self.enterContext(tempfile.TemporaryDirectory()))

    # What is shown.

    def cell(self, row: int, column: int) -> str:
        return self.ui.lesionTable.item(row, column).text()

    def column(self, column: int = NAME) -> list[str]:
        return [self.cell(row, column) for row in range(self.ui.lesionTable.rowCount)]

    def row_of(self, name: str) -> int:
        return self.column().index(name)

    def volume_mm3(self, name: str) -> int:
        return next(row["volume_mm3"] for row in self.panel._table.rows if row["lesion"] == name)

    def selected(self) -> list[str]:
        rows = {item.row() for item in self.ui.lesionTable.selectedItems()}
        return [self.cell(row, NAME) for row in sorted(rows)]

    def statuses(self) -> list[str]:
        """Of the lesions by name, in words."""
        return [self.ui.lesionTable.item(row, STATUS).toolTip() for row in np.argsort(self.column())]

    # What a reader does.

    def click_row(self, name: str, modifiers: str = "") -> None:
        """In the bench with the mouse."""
        table = self.ui.lesionTable
        if host.inside_slicer():
            table.setCurrentCell(self.row_of(name), 0)
            return
        place = table.visualItemRect(table.item(self.row_of(name), NAME)).center()
        host.click_at(table.viewport(), place.x(), place.y(), modifiers)

    def click_header(self, column: int) -> None:
        header = self.ui.lesionTable.horizontalHeader()
        host.click_at(header.viewport(), header.sectionViewportPosition(column) + 10, header.height // 2)

    def drag(self, *values: int) -> None:
        """The slider, over these values."""
        slider = self.ui.thresholdSlider
        slider.sliderDown = True
        for value in values:
            slider.value = value
        slider.sliderDown = False
        self.wait()

    def wait(self) -> None:
        """Until the panel has followed what happened."""
        host.process_events(until=lambda: not self.panel._gather.active)

    @property
    def segment_editor(self):
        return self.panel._segment_editor.widget

    def paint(self, segment_id: str, box, value: bool = True) -> None:
        """As an effect of the embedded segment editor does, under its parameters."""
        import slicer
        import vtk

        from NLSTSegLib.scene.voxels import region_image
        from NLSTSegLib.volume.regions import Region

        self.segment_editor.saveStateForUndo()
        logic = slicer.vtkSlicerSegmentEditorLogic()
        logic.SetMRMLScene(self.scene)
        logic.SetSegmentEditorNode(self.segment_editor.mrmlSegmentEditorNode())
        logic.SetSegmentationNode(self.node)
        matrix = vtk.vtkMatrix4x4()
        self.volume_node.GetIJKToRASMatrix(matrix)
        region = Region(box, np.ones([side.stop - side.start for side in box], bool))
        mode = logic.ModificationModeAdd if value else logic.ModificationModeRemove
        logic.ModifySegmentByLabelmap(self.node, segment_id, region_image(region, matrix), mode, False, False)
        self.wait()

    def voxels(self, node=None) -> dict[str, np.ndarray]:
        return voxels_of(node or self.node, self.ct.hu.shape)

    def at(self, ijk) -> np.ndarray:
        return world_ras_mm(self.volume_node, self.ct, ijk)

    def status(self, segment_id: str, node=None) -> str:
        from NLSTSegLib.scene.lesion_state import lesion_state

        return str(lesion_state(node or self.node, segment_id).status)

    def assert_views_at(self, segment_id: str, node=None) -> None:
        """Every slice view has the lesion in its middle."""
        import slicer

        middle = np.argwhere(self.voxels(node)[segment_id]).mean(axis=0)[::-1]
        for name in ("Red", "Yellow", "Green"):
            view = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
            at = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
            self.assertLess(np.abs(at - self.at(middle)).max(), 2.0, name)
