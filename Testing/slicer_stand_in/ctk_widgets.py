"""Stand-ins for ctk widgets, with the public names of CTK's headers and no others; private names begin with an underscore."""

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal


def stored(kind: type | str, name: str, default: Any, changed: str = "") -> Property:
    """A property kept in ``self._name``; ``changed`` names the method to call after it got another value."""

    def get(self: Any) -> Any:
        return getattr(self, "_" + name, default)

    def set_(self: Any, value: Any) -> None:
        if value != get(self):
            setattr(self, "_" + name, value)
            if changed:
                getattr(self, changed)()

    return Property(kind, get, set_)


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header that shows and hides the children."""

    contentsCollapsed = Signal(bool)
    flat = stored(bool, "flat", False)
    collapsedHeight = stored(int, "collapsedHeight", 10)

    def __init__(self, *arguments: Any) -> None:
        """``(parent)``, ``(text)`` or ``(text, parent)``."""
        super().__init__(next((a for a in arguments if isinstance(a, QtWidgets.QWidget)), None))
        self.setText(next((a for a in arguments if isinstance(a, str)), ""))
        self._folded: list[QtWidgets.QWidget] = []
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._header_height(), 0, 0)
        self.toggled.connect(self._fold)

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, on: self.setChecked(not on))

    def _header_height(self) -> int:
        return self.fontMetrics().height() + 8

    def _fold(self, opened: bool) -> None:
        if opened:
            for child in self._folded:
                child.show()
            self._folded = []
        else:
            widgets = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
            self._folded = [widget for widget in widgets if not widget.isHidden()]
            for widget in self._folded:
                widget.hide()
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)

    def showEvent(self, event: Any) -> None:
        # Children that came after the button was collapsed, as from a .ui file.
        if not self.isChecked():
            for child in self.children():
                if isinstance(child, QtWidgets.QWidget) and not child.isHidden():
                    self._folded.append(child)
                    child.hide()

    def sizeHint(self) -> QtCore.QSize:
        if self.isChecked() and self.layout() is not None:
            return self.layout().totalSizeHint()
        return QtCore.QSize(120, self._header_height())

    def minimumSizeHint(self) -> QtCore.QSize:
        if self.isChecked() and self.layout() is not None:
            return self.layout().totalMinimumSize()
        return QtCore.QSize(60, self._header_height())

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self._header_height()

    def paintEvent(self, event: Any) -> None:
        painter, option = QtWidgets.QStylePainter(self), QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, QtWidgets.QWidget.width(self), self._header_height())
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        painter.drawText(option.rect.adjusted(24, 0, 0, 0), QtCore.Qt.AlignVCenter, QtWidgets.QAbstractButton.text(self))
        option.rect = QtCore.QRect(7, 0, 10, self._header_height())
        arrow = QtWidgets.QStyle.PE_IndicatorArrowDown if self.isChecked() else QtWidgets.QStyle.PE_IndicatorArrowRight
        painter.drawPrimitive(arrow, option)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box with one value; the slider moves in single steps."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)
    tracking = stored(bool, "tracking", True, "_follow_tracking")
    pageStep = stored(float, "pageStep", 10.0)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._slider, self._spin_box = QtWidgets.QSlider(QtCore.Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider, 1)
        row.addWidget(self._spin_box)
        self._spin_box.setRange(0, 99)
        self._spin_box.valueChanged.connect(self._spin_box_changed)
        self._slider.valueChanged.connect(lambda steps: self._spin_box.setValue(self._value_at(steps)))
        self._slider.sliderMoved.connect(lambda steps: self.valueIsChanging.emit(self._value_at(steps)))
        self._place_slider()

    def _value_at(self, steps: int) -> float:
        return self._spin_box.minimum + steps * self._spin_box.singleStep

    def _follow_tracking(self) -> None:
        self._slider.setTracking(self.tracking)

    def _spin_box_changed(self, value: float) -> None:
        self._place_slider()
        self.valueChanged.emit(value)

    def _place_slider(self) -> None:
        spin_box, blocker = self._spin_box, QtCore.QSignalBlocker(self._slider)
        self._slider.setRange(0, round((spin_box.maximum - spin_box.minimum) / spin_box.singleStep))
        self._slider.setValue(round((spin_box.value - spin_box.minimum) / spin_box.singleStep))
        blocker.unblock()

    def _set(self, name: str, value: Any) -> None:
        setattr(self._spin_box, name, value)
        self._place_slider()

    def setValue(self, value: float) -> None:
        self._spin_box.setValue(value)

    def setDecimals(self, decimals: int) -> None:
        self._spin_box.setDecimals(decimals)
        self.decimalsChanged.emit(decimals)

    def reset(self) -> None:
        self.setValue(0)

    value = Property(float, lambda self: self._spin_box.value, setValue)
    decimals = Property(int, lambda self: self._spin_box.decimals, setDecimals)
    minimum = Property(float, lambda self: self._spin_box.minimum, lambda self, value: self._set("minimum", value))
    maximum = Property(float, lambda self: self._spin_box.maximum, lambda self, value: self._set("maximum", value))
    singleStep = Property(float, lambda self: self._spin_box.singleStep, lambda self, value: self._set("singleStep", value))
    prefix = Property(str, lambda self: self._spin_box.prefix, lambda self, text: self._set("prefix", text))
    suffix = Property(str, lambda self: self._spin_box.suffix, lambda self, text: self._set("suffix", text))
