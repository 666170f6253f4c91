"""PySide6 made to answer like PythonQt, the Qt binding inside 3D Slicer.

What differs is patched from Qt's meta-objects, for all classes at once and for the whole process:

- a property of the meta-object is an attribute: ``label.text = "x"``, not ``label.setText("x")`` and ``label.text()``;
- ``button.connect("clicked()", f)`` takes the signature as text;
- an object that C++ makes takes no new attributes, so a misspelt property is an error, and none over its functions and signals;
- ``singleShot`` of a timer is the static function, which hides the property there: ``timer.setSingleShot(True)``;
- ``name`` is ``objectName``, ``className()`` names the C++ class;
- nothing waits for a user: modal dialogs raise :class:`ModalDialogError`;
- ``QSignalBlocker`` is no context manager.

PySide6 by itself gives a slot no more arguments than it takes, as PythonQt does.
"""

import re
from collections.abc import Callable
from types import MethodDescriptorType
from typing import Any, NoReturn

from PySide6 import QtCore, QtGui, QtWidgets

HIDDEN_PROPERTIES = {("QTimer", "singleShot")}
"""Where PythonQt gives a static function in place of a property; of all others of one name it gives the property."""

QT_MODULES = (QtCore, QtGui, QtWidgets)
"""What the name ``qt`` holds in Slicer."""

VTK_ARGUMENT = re.compile(r"vtkMRML\w+\*")
"""An argument of a signal that PySide6 passes as a Python object."""

MODAL = {
    "QColorDialog": ("getColor",),
    "QDialog": ("exec", "exec_"),
    "QFileDialog": ("getExistingDirectory", "getOpenFileName", "getOpenFileNames", "getSaveFileName"),
    "QInputDialog": ("getDouble", "getInt", "getItem", "getMultiLineText", "getText"),
    "QMenu": ("exec", "exec_"),
    "QMessageBox": ("about", "critical", "exec", "exec_", "information", "question", "warning"),
}
"""Functions that would wait for a user in an event loop of their own."""

# PySide6's own for the subclasses refuse to be called from Python.
_object_setattr = QtCore.QObject.__mro__[-2].__setattr__
_native_getattribute = QtCore.QObject.__getattribute__
_native_connect = QtCore.QObject.connect
_native_disconnect = QtCore.QObject.disconnect


class ModalDialogError(RuntimeError):
    """The module opened a dialog that would wait for a user."""


class MetaProperty:
    """A property of Qt's meta-object as an attribute of instances; through the class the method stays what it was."""

    def __init__(self, owner: type, name: str, *, writable: bool) -> None:
        self.name, self.writable = name, writable
        self.of_class = getattr(owner, name, self)
        getter = self.of_class
        if not isinstance(getter, MethodDescriptorType):
            getter = getattr(owner, "is" + _capital(name), None)
        self.getter = getter if isinstance(getter, MethodDescriptorType) else None

    def __get__(self, instance: QtCore.QObject | None, owner: type | None = None) -> Any:
        if instance is None:
            return self.of_class
        return self.getter(instance) if self.getter else QtCore.QObject.property(instance, self.name)

    def __set__(self, instance: QtCore.QObject, value: Any) -> None:
        if not self.writable:
            raise AttributeError(f"the property '{self.name}' of {type(instance).__name__} can only be read")
        setter = getattr(type(instance), "set" + _capital(self.name), None)
        if setter:
            setter(instance, value)
        elif not QtCore.QObject.setProperty(instance, self.name, value):
            raise ValueError(f"the property '{self.name}' of {type(instance).__name__} does not take {value!r}")


def connect(sender: QtCore.QObject, *arguments: Any) -> Any:
    """``(signal, function)`` or ``(signal, receiver, "slot(types)")``, the signal as ``"clicked(bool)"``: whether it worked.

    Raises :class:`ValueError` where the class has no such signal; Slicer only prints that.
    """
    return _by_text(_native_connect, sender, *arguments)


def disconnect(sender: QtCore.QObject, *arguments: Any) -> Any:
    """Undo :func:`connect`; False where there was no such connection."""
    return _by_text(_native_disconnect, sender, *arguments)


def install() -> None:
    """Patch PySide6."""
    for module in QT_MODULES:
        for name in dir(module):
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(value, QtCore.QObject):
                _patch(value)
    root = QtCore.QObject
    root.name = property(root.objectName, root.setObjectName)
    root.className = lambda self: root.metaObject(self).className()
    root.connect, root.disconnect, root.__getattribute__ = connect, disconnect, _getattribute
    del QtCore.QSignalBlocker.__enter__, QtCore.QSignalBlocker.__exit__
    for class_name, functions in MODAL.items():
        owner = getattr(QtWidgets, class_name)
        for function in functions:
            if hasattr(owner, function):
                setattr(owner, function, staticmethod(_modal(class_name, function)))


def _patch(owner: type) -> None:
    meta = owner.staticMetaObject
    for index in range(meta.propertyCount()):
        name, writable = meta.property(index).name(), meta.property(index).isWritable()
        if (owner.__name__, name) in HIDDEN_PROPERTIES:
            continue
        # An inherited property is given again where a method of the class, such as sizeHint, would hide it.
        if index >= meta.propertyOffset() or name in owner.__dict__:
            setattr(owner, name, MetaProperty(owner, name, writable=writable))
    owner.__setattr__ = _setattr


def _by_text(native: Callable, sender: QtCore.QObject, *arguments: Any) -> Any:
    if not isinstance(arguments[0], str):
        # PySide6 itself, as in QTimer.singleShot, gives the sender once more.
        return native(*arguments)
    signal, receiver, *slot = arguments
    function = getattr(receiver, slot[0].partition("(")[0]) if slot else receiver
    return bool(native(sender, QtCore.SIGNAL(_signature(sender, signal)), function))


def _signature(sender: QtCore.QObject, signal: str) -> str:
    """How PySide6 writes a signal that was written as in Slicer's headers."""
    normal = bytes(QtCore.QMetaObject.normalizedSignature(signal)).decode()
    signature = VTK_ARGUMENT.sub("PyObject", normal)
    if QtCore.QObject.metaObject(sender).indexOfSignal(signature) < 0:
        raise ValueError(f"{type(sender).__name__} has no signal {signal}")
    return signature


def _getattribute(self: QtCore.QObject, name: str) -> Any:
    # PySide6 answers these two for most classes before it looks at the class.
    if name in ("connect", "disconnect"):
        return (connect if name == "connect" else disconnect).__get__(self)
    return _native_getattribute(self, name)


def _setattr(self: QtCore.QObject, name: str, value: Any) -> None:
    owner = next((cls for cls in type(self).__mro__ if name in cls.__dict__), None)
    attribute = owner.__dict__[name] if owner else None
    # PySide6 keeps bound signals, and the children of what a .ui file makes, as attributes.
    by_pyside = isinstance(value, QtCore.SignalInstance) or (isinstance(value, QtCore.QObject) and value.objectName == name)
    if isinstance(attribute, QtCore.Property):
        QtCore.QObject.setProperty(self, name, value)
    elif by_pyside or isinstance(attribute, (MetaProperty, property)) or name.startswith("_"):
        _object_setattr(self, name, value)
    elif owner and _made_by_cpp(owner) and (callable(attribute) or isinstance(attribute, QtCore.Signal)):
        raise AttributeError(f"'{name}' of {type(self).__name__} is a function or signal, which can not be overwritten")
    elif owner is None and _made_by_cpp(type(self)):
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}', and an object made by C++ takes no new one")
    else:
        _object_setattr(self, name, value)


def _made_by_cpp(cls: type) -> bool:
    """Whether C++ provides this class in Slicer: Qt's own, and those that the bench stands in for."""
    return cls.__module__.partition(".")[0] in ("PySide6", "slicer_stand_in")


def _modal(class_name: str, function: str) -> Callable[..., NoReturn]:
    def refuse(*_arguments: Any) -> NoReturn:
        raise ModalDialogError(
            f"{class_name}.{function} would wait for a user; ask with slicer.util (confirmOkCancelDisplay, ...) or open()"
        )

    return refuse


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
