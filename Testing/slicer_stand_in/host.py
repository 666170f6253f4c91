"""Starts the application, opens a module, clicks, waits and takes pictures; inside 3D Slicer all this is Slicer's own."""

import ctypes
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import SkipTest, mock

from slicer_stand_in.slot_errors import slot_errors

SYSTEM_PACKAGES = (
    "libegl1",
    "libgl1",
    "libxkbcommon0",
    "libdbus-1-3",
    "libfontconfig1",
    "libglib2.0-0",
    "fonts-dejavu-core",
)
"""Debian packages that Qt and offscreen drawing need; ``.ci/system-packages.sh`` installs them."""

MAIN_WINDOW = "qSlicerMainWindow"
"""Name of the window that ``slicer.util.mainWindow()`` finds."""

PANEL_SIZE = (480, 900)
"""Width and height of a module's panel in pixels."""

HANG_S = 1200.0
"""What waits longer hangs: a busy computer may need minutes for what takes a second."""

POLL_S = 0.01
"""Seconds between two looks at what is waited for."""


def inside_slicer() -> bool:
    """Whether this Python is that of the 3D Slicer application."""
    return "PythonQt" in sys.modules


@contextmanager
def application() -> Iterator[Any]:
    """``slicer.app``, with ``slicer.mrmlScene``, ``slicer.modules``, ``qt`` and ``ctk`` in place while in the block.

    It is started at the first call and lives as long as the process, with its scene and modules. Inside Slicer it is
    Slicer's. Raises :class:`RuntimeError` that names the Debian packages where Qt does not load.
    """
    import slicer

    if inside_slicer():
        yield slicer.app
        return
    app = _started()
    with ExitStack() as patches:
        for name, value in (("app", app), ("mrmlScene", app.mrmlScene()), ("modules", app.modules)):
            patches.enter_context(mock.patch.object(slicer, name, value, create=True))
        yield app


@functools.cache
def _started() -> Any:
    # What is drawn goes nowhere but into pictures, also where there is a screen. Mesa's drawing threads wait for each
    # other, which takes many times longer where other work keeps the cores busy, so there is one.
    os.environ |= {"QT_QPA_PLATFORM": "offscreen", "VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow", "LP_NUM_THREADS": "0"}
    try:
        from PySide6 import QtCore, QtWidgets
    except ImportError as error:
        raise RuntimeError(
            f"Qt does not load ({error}); install PySide6-Essentials and the Debian packages "
            f"{' '.join(SYSTEM_PACKAGES)}, for example with .ci/system-packages.sh"
        ) from error
    _spare_none()
    import slicer

    # The bench builds on the scene of the tests without Qt.
    sys.path.append(str(Path(__file__).resolve().parents[1] / "Python"))
    from slicer_stand_in import ctk_widgets, mrml_widgets, pythonqt, scripted, segment_editor
    from slicer_stand_in.qt_namespace import QtNamespace

    pythonqt.install()
    scripted.install()
    ctk = _namespace("ctk", ctk_widgets)
    mrml = _namespace("qSlicerSegmentationsModuleWidgetsPythonQt", mrml_widgets, segment_editor)
    stand_ins = {name: value for module in (ctk, mrml) for name, value in vars(module).items() if isinstance(value, type)}
    sys.modules.update({"qt": QtNamespace(stand_ins), "ctk": ctk, mrml.__name__: mrml})

    from slicer_stand_in import application as application_module

    for name, value in (vars(mrml) | vars(application_module)).items():
        if name.startswith(("qMRML", "qSlicer")):
            setattr(slicer, name, value)
    app = application_module.qSlicerApplication()
    folder = app.temporaryPath
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, folder)
    QtWidgets.QApplication.setStyle("Fusion")
    return app


def _spare_none() -> None:
    """Keep Python from deleting ``None``.

    PySide6 6.12 gives a reference to it away with every call that returns nothing, as if it lived for ever, which it does
    from Python 3.12 on. Before, some ten thousand calls later, the process ends with "deallocating None".
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def _namespace(name: str, *sources: ModuleType) -> ModuleType:
    namespace = ModuleType(name)
    for source in sources:
        vars(namespace).update({key: value for key, value in vars(source).items() if key.startswith(("ctk", "qMRML", "qSlicer"))})
    return namespace


def open_module(path: str | os.PathLike[str]) -> Any:
    """The widget object (``<Name>Widget``) of the scripted module ``path``, set up, entered and shown.

    The file is run when it is opened first; while the module is open, opening it again gives the same object. Inside Slicer
    the module must be loaded already, and its panel is selected where there is a main window.
    """
    import slicer

    name = Path(path).stem
    if not inside_slicer():
        from slicer_stand_in.application import load_module

        _show_in_window(load_module(str(Path(path).resolve())))
    widget = slicer.util.getModuleWidget(name)
    if inside_slicer() and hasattr(slicer.util.mainWindow(), "moduleSelector"):
        slicer.util.selectModule(name)
    elif not widget.parent.isEntered:
        widget.parent.enter()
    slicer.app.processEvents()
    return widget


def _show_in_window(module: Any) -> None:
    """Put the panel into a window with room for slice views at the right, where it stays until the module is closed."""
    from PySide6 import QtWidgets

    panel = module.widgetRepresentation()
    if module.window is not None:
        return
    module.window = window = QtWidgets.QWidget()
    window.setObjectName(MAIN_WINDOW)
    scroll, views = QtWidgets.QScrollArea(), QtWidgets.QVBoxLayout()
    scroll.setWidgetResizable(True)
    scroll.setMinimumWidth(PANEL_SIZE[0])
    scroll.setWidget(panel)
    row = QtWidgets.QHBoxLayout(window)
    row.addWidget(scroll)
    row.addLayout(views, 1)
    window.resize(*PANEL_SIZE)
    window.show()


def close_module(widget: Any) -> None:
    """Leave the module (``exit``) and, in the bench, let it ``cleanup`` and delete its panel, as when Slicer quits.

    Once more does nothing.
    """
    import slicer

    if inside_slicer():
        if widget.parent.isEntered:
            widget.parent.exit()
        return
    from PySide6 import QtCore

    module = slicer.util.getModule(widget.moduleName)
    panel, window = module.representation, module.window
    if panel is None:
        return
    panel.exit()
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(widget.moduleName)
    module.representation = module.window = None
    window.hide()
    window.deleteLater()
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)


@contextmanager
def windows_deleted_after() -> Iterator[None]:
    """At the end of the block the windows that were made in it are deleted, but slice views; nothing inside Slicer.

    A panel of a test that stays would follow the scenes of all tests to come.
    """
    if inside_slicer():
        yield
        return
    import shiboken6
    from PySide6 import QtCore, QtWidgets

    from slicer_stand_in.slice_views import qMRMLSliceWidget

    def windows() -> dict[int, Any]:
        tops = QtWidgets.QApplication.topLevelWidgets()
        free = [window for window in tops if window.parentWidget() is None and not isinstance(window, qMRMLSliceWidget)]
        return {shiboken6.getCppPointer(window)[0]: window for window in free}

    before = windows().keys()
    yield
    for place, window in windows().items():
        if place not in before:
            window.deleteLater()
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)


def process_events(until: Callable[[], Any] | None = None, timeout_s: float = HANG_S) -> None:
    """Let timers, child processes and views do what is due; with ``until``, go on until it is true.

    Raises :class:`TimeoutError` when that takes longer than ``timeout_s``, and :class:`AssertionError` with the traceback
    as soon as a slot has raised.
    """
    import slicer

    end_s = time.monotonic() + timeout_s
    slicer.app.processEvents()
    while until is not None and not until():
        if slot_errors:
            raise AssertionError(f"while waiting, a slot raised\n{slot_errors[0]}")
        if time.monotonic() > end_s:
            raise TimeoutError(f"waited {timeout_s:g} s in vain")
        time.sleep(POLL_S)
        slicer.app.processEvents()


def click(button: Any) -> None:
    """Click a button as a user can. Raises :class:`AssertionError` where it is hidden or disabled."""
    title = f"the button '{button.text}' ({button.name})"
    if not button.isVisible():
        raise AssertionError(f"{title} is hidden")
    if not button.isEnabled():
        raise AssertionError(f"{title} is disabled: {button.toolTip}")
    if inside_slicer():
        button.click()
        return
    from PySide6 import QtCore, QtTest

    # The middle of a check box or of an open collapsible button is not where it can be clicked.
    places = (button.rect.center(), QtCore.QPoint(8, button.height // 2), QtCore.QPoint(8, 8))
    QtTest.QTest.mouseClick(button, QtCore.Qt.LeftButton, pos=next(filter(button.hitButton, places)))


def choose(selector: Any, node: Any) -> None:
    """Choose a node, or None, in a ``qMRMLNodeComboBox`` as a person does: what the widget tells then it tells for no script.

    Raises :class:`AssertionError` where the widget has no entry for it.
    """
    (combo,) = (child for child in selector.children() if child.className() in ("QComboBox", "ctkComboBox"))
    rows = [None] * selector.noneEnabled + [selector.nodeFromIndex(index) for index in range(selector.nodeCount())]
    if node not in rows:
        raise AssertionError(f"{selector.name} does not offer {node and node.GetName()}")
    row = rows.index(node)
    combo.setCurrentIndex(row)
    # A signal of PythonQt is told by calling it.
    getattr(combo.activated, "emit", combo.activated)(row)
    process_events()


def click_at(widget: Any, x: int, y: int, modifiers: str = "") -> None:
    """Click at a place of a widget, such as the viewport of a table, with ``"Ctrl+"`` or ``"Shift+"``.

    Raises :class:`unittest.SkipTest` inside Slicer, which has no such means.
    """
    if inside_slicer():
        raise SkipTest("Slicer's Python cannot click at a place")
    from PySide6 import QtCore, QtGui, QtTest

    held = QtGui.QKeySequence(f"{modifiers}A")[0].keyboardModifiers()
    QtTest.QTest.mouseClick(widget, QtCore.Qt.LeftButton, held, QtCore.QPoint(x, y))
    process_events()


def press_key(widget: Any, key: str, modifiers: str = "") -> None:
    """Press a key, such as ``"N"`` or ``"Delete"``, with ``"Ctrl+"`` or ``"Shift+"``, while ``widget`` has the focus.

    Raises :class:`unittest.SkipTest` inside Slicer, which has no such means.
    """
    if inside_slicer():
        raise SkipTest("Slicer's Python cannot press keys")
    from PySide6 import QtGui, QtTest

    pressed = QtGui.QKeySequence(modifiers + key)[0]
    widget.window().activateWindow()
    widget.setFocus()
    QtTest.QTest.qWaitForWindowActive(widget.window())
    QtTest.QTest.keyClick(widget, pressed.key(), pressed.keyboardModifiers())
    process_events()


@contextmanager
def held_key(widget: Any, key: str) -> Iterator[None]:
    """Hold a key during the block while ``widget`` has the focus.

    Raises :class:`unittest.SkipTest` inside Slicer, which has no such means.
    """
    if inside_slicer():
        raise SkipTest("Slicer's Python cannot press keys")
    from PySide6 import QtGui, QtTest

    pressed = QtGui.QKeySequence(key)[0]
    widget.window().activateWindow()
    widget.setFocus()
    QtTest.QTest.qWaitForWindowActive(widget.window())
    QtTest.QTest.keyPress(widget, pressed.key())
    process_events()
    try:
        yield
    finally:
        QtTest.QTest.keyRelease(widget, pressed.key())
        process_events()


def click_slice(view: str, ras_mm: tuple[float, float, float]) -> None:
    """Click in a slice view ("Red", "Green", "Yellow") at the place ``ras_mm``; the view must show that slice."""
    import slicer
    import vtk

    widget = slicer.app.layoutManager().sliceWidget(view)
    widget.sliceView().forceRender()
    xy_from_ras = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(widget.mrmlSliceNode().GetXYToRAS(), xy_from_ras)
    xy = tuple(round(value) for value in xy_from_ras.MultiplyPoint((*ras_mm, 1.0))[:2])
    slicer.util.clickAndDrag(widget, start=xy, end=xy, steps=1)
    process_events()


@contextmanager
def beside_views(widget: Any, views: tuple[str, ...] = ("Red", "Green"), size: tuple[int, int] = (1280, 800)) -> Iterator[Any]:
    """A window with the panel of the module ``widget`` at the left and slice views at the right, while in the block.

    Inside Slicer this is the main window; raises :class:`unittest.SkipTest` where there is none.
    """
    import slicer

    if inside_slicer():
        if slicer.util.mainWindow() is None:
            raise SkipTest("Slicer runs without a main window")
        yield slicer.util.mainWindow()
        return
    window, size_before = widget.parent.window(), widget.parent.window().size
    column = window.layout().itemAt(1).layout()
    slice_widgets = [slicer.app.layoutManager().sliceWidget(view) for view in views]
    for slice_widget in slice_widgets:
        column.addWidget(slice_widget)
        slice_widget.show()
    window.resize(*size)
    process_events()
    try:
        yield window
    finally:
        for slice_widget in slice_widgets:
            slice_widget.setParent(None)
        window.resize(size_before)


def screenshot(widget: Any, path: str | os.PathLike[str]) -> Path:
    """Write what ``widget`` (any Qt widget, or a module's widget object) shows to the PNG file ``path``."""
    process_events()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = (widget if hasattr(widget, "grab") else widget.parent).grab()
    if not picture.save(str(target)):
        raise OSError(f"the picture cannot be written to {target}")
    return target
