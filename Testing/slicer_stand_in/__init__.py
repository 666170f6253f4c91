"""A test bench that opens a scripted module of 3D Slicer, unchanged, where there is no Slicer.

Qt is PySide6 (offscreen) made to answer like PythonQt; scene, nodes, logics and drawing of slices are Slicer's own, from
slicer-core; the widgets of ctk and qMRML are stand-ins with the public names that Slicer's headers give. A test file written
with it runs unchanged inside Slicer (``slicer_add_python_unittest``), where the same calls use Slicer's application.

A test of a module::

    import sys
    from pathlib import Path

    ROOT = Path(__file__).resolve().parents[2]
    sys.path.append(str(ROOT / "Testing"))

    from slicer_stand_in import host  # noqa: E402
    from slicer_stand_in.case import ModuleTestCase  # noqa: E402


    class TestPanel(ModuleTestCase):
        def setUp(self):
            super().setUp()
            self.widget = self.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")

        def test_apply_asks_before_it_installs(self):
            self.talk.answer(False)
            host.click(self.widget.ui.applyButton)
            self.assertEqual(self.talk.texts("error"), ["torch was not installed"])

``import qt``, ``ctk`` and the module's own file inside test methods: they are there once the application has started.

What a test has (:class:`slicer_stand_in.case.ModuleTestCase`)
    ``self.scene``, empty, and default settings at every test; ``self.app`` (``slicer.app``); ``self.open_module(path)``: the
    module's widget object, set up, entered, and closed after the test; ``self.talk``: what the module said with
    ``slicer.util.infoDisplay`` and its like (``talk.texts("error")``, ``talk.messages``) and the answers to what it asks
    (``talk.answer(True, "file.csv")`` for ``slicer.util.confirm...Display``, ``messageBox`` and ``qt.QFileDialog``; a question
    without an answer is an error); ``self.slot_errors``: tracebacks of exceptions in slots, timers and observers, of which
    one fails the test. A test that expects one looks at it and empties the list.

What it can do (:mod:`slicer_stand_in.host`)
    ``click(button)`` as a user can: not on what is hidden or disabled. ``click_at(widget, x, y)``, for rows and headers of
    tables. ``press_key(widget, "N", "Ctrl+")``.
    ``choose(selector, node)`` in a selector of nodes, as a person does.
    ``click_slice("Red", ras_mm)``, for example to place a markups point. ``process_events(until=..., timeout_s=...)``: child
    processes, timers. ``screenshot(widget, path)`` of a module's widget object or any Qt widget, such as
    ``slicer.app.layoutManager().sliceWidget("Red")``; ``with beside_views(widget, ("Red", "Green")) as window`` for the panel
    beside slice views. ``close_module(widget)``: as when Slicer quits. ``with application() as app`` where there is no test
    case, as in a script that makes pictures. ``inside_slicer()`` for what only one of the two can do.

What passes here and may fail in Slicer
    Constructor keyword arguments, enum values below their enum, methods that PythonQt does not expose on Qt's own classes
    (the names in ``.ui`` files and in the stand-ins are checked where the list of Slicer's names is there), differences of Qt 5
    and 6, when and how often signals fire: test end states. Qt's enum values are no integers here.

What is not here
    The main window's bars and docks (``slicer.util.mainWindow()`` is the window of an opened module), 3D views, Segment
    Editor effects (edit with ``vtkSlicerSegmentEditorLogic``), ``slicer.parameterNodeWrapper``, ``slicer.packaging``, other
    scripted modules (``SampleData``, ``PyTorchUtils``), panels of Slicer's own modules, translations.

Another widget: a class in ``ctk_widgets.py`` or ``mrml_widgets.py`` with the name of the real one, signals as
:class:`PySide6.QtCore.Signal` (MRML nodes are ``object``), properties as :class:`PySide6.QtCore.Property`, and otherwise only
public names that the real one has. Nothing else needs to know it.
"""
