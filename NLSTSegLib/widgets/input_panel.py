"""What goes into a run: the CT with its pre-flight card, the model, and where and how it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from NLSTSegLib.errors import InputError, as_sentence
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.phantom.make import make_phantom
from NLSTSegLib.scene.fixes import Fix
from NLSTSegLib.scene.volume_check import CheckedLine, check_volume
from NLSTSegLib.scene.volumes import volume_node_of_ct
from NLSTSegLib.widgets.device_chooser import DeviceChooser
from NLSTSegLib.widgets.model_chooser import ModelChooser
from NLSTSegLib.widgets.node_selector import NodeSelector
from NLSTSegLib.widgets.panel import Panel
from NLSTSegLib.widgets.preflight_card import PreflightCard
from NLSTSegLib.widgets.settings import save_setting, setting

SETTLE_MS = 150
"""A volume that changes is looked at again once it has not changed for so long: changes come in bursts."""

MODELS_OWN = {"threshold": 0.0, "minimumVolume": -1.0}
"""Lowest value of the boxes of the options, by their key in the settings: the model's own value is taken."""


class InputPanel(Panel):
    """``on_change`` is called whenever :meth:`reasons`, :meth:`options` or the volume may have changed."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__("InputPanel")
        self._on_change = on_change
        self._lines: list[CheckedLine] = []
        self._is_due = False
        self._observations = slicer.util.VTKObservationMixin()
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._settled)
        self._card = PreflightCard(self.ui.preflightFrame, self._mend)
        self._model = ModelChooser(self.ui, self._model_changed)
        self._device = DeviceChooser(self.ui.deviceComboBox, on_change)
        self._boxes = {"threshold": self.ui.thresholdSpinBox, "minimumVolume": self.ui.minimumVolumeSpinBox}
        self._show_models_own()
        for key, box in self._boxes.items():
            box.value = setting(key, MODELS_OWN[key])
            box.connect("valueChanged(double)", lambda value, key=key: self._option_changed(key, value))
        self.ui.lungsOnlyCheckBox.checked = setting("lungsOnly", True)
        self.ui.lungsOnlyCheckBox.connect("toggled(bool)", lambda on: self._option_changed("lungsOnly", on))
        self.ui.phantomButton.connect("clicked()", self._make_phantom)
        self._selector = NodeSelector(self.ui.volumeSelector, self._volume_changed)
        self._volume_changed(self.volume_node, tell=False)

    @property
    def volume_node(self) -> Any:
        """The chosen volume, or None."""
        return self._selector.node

    def select_volume(self, node: Any) -> None:
        """Choose a volume, or None."""
        self._selector.select(node)

    def options(self) -> RunOptions:
        """What the user chose, for the next run."""
        values = {key: box.value if box.value > MODELS_OWN[key] else None for key, box in self._boxes.items()}
        return RunOptions(
            model=self._model.path,
            device=self._device.choice,
            threshold=values["threshold"],
            min_volume_mm3=values["minimumVolume"],
            lung_field="auto" if self.ui.lungsOnlyCheckBox.checked else "none",
        )

    def own_options(self) -> str:
        """The options that are not the model's own, in words; empty where all are."""
        parts = []
        if self._boxes["threshold"].value > MODELS_OWN["threshold"]:
            parts.append(_("threshold {value}").format(value=f"{self._boxes['threshold'].value:.2f}"))
        if self._boxes["minimumVolume"].value > MODELS_OWN["minimumVolume"]:
            parts.append(_("smallest lesion {value} mm³").format(value=f"{self._boxes['minimumVolume'].value:.0f}"))
        if not self.ui.lungsOnlyCheckBox.checked:
            parts.append(_("outside the lungs too"))
        return ", ".join(parts)

    def take_models_own(self) -> None:
        """Back to what the model's card says."""
        for key, box in self._boxes.items():
            box.value = MODELS_OWN[key]
        self.ui.lungsOnlyCheckBox.checked = True

    def reasons(self) -> list[str]:
        """Why no run is possible now, in whole sentences; empty where one is."""
        volume_node = self.volume_node
        if self._is_due:
            self._check()
        if volume_node is None:
            reasons = [_("Choose the CT to segment.")]
        else:
            reasons = [f"{line.sentence} {line.advice}".strip() for line in self._lines if line.level == "error"]
        return reasons + self._model.reasons()

    def close(self) -> None:
        """Let go of the volume, the timer and the child process."""
        self._selector.close()
        self._observations.removeObservers()
        self._timer.stop()
        self._device.stop()

    def _volume_changed(self, node: Any, *, tell: bool = True) -> None:
        self._observations.removeObservers()
        if node is not None:
            for event in (vtk.vtkCommand.ModifiedEvent, node.ImageDataModifiedEvent, node.TransformModifiedEvent):
                self._observations.addObserver(node, event, self._volume_modified)
        self._check()
        if tell:
            self._on_change()

    def _volume_modified(self, node: Any, event: str) -> None:
        self._is_due = True
        self._timer.start(SETTLE_MS)

    def _settled(self) -> None:
        if self._is_due:
            self._check()
            self._on_change()

    def _check(self) -> None:
        self._is_due = False
        self._timer.stop()
        self._lines = check_volume(self.volume_node) if self.volume_node is not None else []
        self._card.show(self._lines)
        self.ui.phantomButton.visible = self.volume_node is None

    def _make_phantom(self) -> None:
        with slicer.util.WaitCursor():
            phantom = volume_node_of_ct(make_phantom(0).ct, slicer.mrmlScene, _("Phantom"))
        self.select_volume(phantom)
        slicer.util.setSliceViewerLayers(background=phantom, fit=True)

    def _mend(self, fix: Fix) -> None:
        try:
            with slicer.util.WaitCursor():
                copy = fix.apply(self.volume_node)
        except InputError as error:
            slicer.util.errorDisplay(as_sentence(str(error)))
            return
        self.select_volume(copy)
        slicer.util.setSliceViewerLayers(background=copy)

    def _model_changed(self) -> None:
        self._show_models_own()
        self._on_change()

    def _show_models_own(self) -> None:
        card = self._model.card
        threshold = _("own ({value:g})").format(value=card.threshold) if card else _("own")
        volume = _("own ({value:g} mm³)").format(value=card.min_volume_mm3) if card else _("own")
        self.ui.thresholdSpinBox.specialValueText = threshold
        self.ui.minimumVolumeSpinBox.specialValueText = volume

    def _option_changed(self, key: str, value: float | bool) -> None:
        save_setting(key, value)
        self._on_change()
