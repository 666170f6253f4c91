"""The module ``qt`` as Slicer has it: QtCore, QtGui and QtWidgets in one, with a loader of .ui files."""

import xml.etree.ElementTree as ET
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtUiTools

from slicer_stand_in.pythonqt import QT_MODULES, connect

ONLY_PYSIDE = {"ClassInfo", "Property", "QEnum", "QFlag", "SIGNAL", "SLOT", "Signal", "SignalInstance", "Slot"}
"""Names that PythonQt does not have."""


class QtNamespace(ModuleType):
    """What ``import qt`` gives; ``stand_ins`` are the widget classes that a .ui file may name besides Qt's."""

    def __init__(self, stand_ins: dict[str, type]) -> None:
        super().__init__("qt", __doc__)
        self.QUiLoader = lambda: UiLoader(stand_ins)

    def __getattr__(self, name: str) -> Any:
        for module in QT_MODULES:
            if name not in ONLY_PYSIDE and hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module 'qt' has no attribute '{name}'")


class UiLoader(QtUiTools.QUiLoader):
    """Makes stand-ins for the classes Qt does not know, and connections with the signatures of Slicer's headers."""

    def __init__(self, stand_ins: dict[str, type]) -> None:
        super().__init__()
        self._stand_ins = stand_ins

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        if class_name not in self._stand_ins:
            return super().createWidget(class_name, parent, name)
        widget = self._stand_ins[class_name](parent)
        widget.setObjectName(name)
        return widget

    def load(self, device: QtCore.QIODevice) -> Any:
        """The top widget of the file that ``device`` reads.

        Raises :class:`ValueError` for classes that neither Qt nor the bench has; Slicer shows a plain widget for them.
        """
        ui = ET.fromstring(bytes(device.readAll()))
        unknown = {widget.get("class") for widget in ui.iter("widget")} - {*self._stand_ins, *self.availableWidgets()}
        if unknown:
            raise ValueError(f"the .ui file uses {', '.join(sorted(map(str, unknown)))}, which the bench has no stand-in for")
        connections = ui.find("connections")
        if connections is not None:
            ui.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(ui))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        top = super().load(buffer)
        if top is None:
            raise ValueError(f"Qt cannot make the .ui file: {self.errorString()}")
        by_name = {child.name: child for child in [top, *top.findChildren(QtCore.QObject)]}
        for item in connections if connections is not None else ():
            sender, signal, receiver, slot = (item.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot"))
            connect(by_name[sender], signal, by_name[receiver], slot)
        return top
