"""The base class of the module's tests, in the bench and inside Slicer."""

import os
import unittest
from typing import Any

from slicer_stand_in import host
from slicer_stand_in.messages import recorded_messages
from slicer_stand_in.slot_errors import collected_slot_errors


class ModuleTestCase(unittest.TestCase):
    """Every test starts with an empty scene and default settings, and fails when a slot, timer or observer raised.

    ``self.app`` is ``slicer.app``, ``self.scene`` the scene, ``self.talk`` what the module said and asked
    (:class:`.messages.Conversation`), ``self.slot_errors`` the tracebacks so far: a test that expects one looks at it
    and empties the list.
    """

    def setUp(self) -> None:
        self.app = self.enterContext(host.application())
        self.enterContext(host.windows_deleted_after())
        self.slot_errors = self.enterContext(collected_slot_errors())
        self.addCleanup(self._check_slot_errors)
        self.talk = self.enterContext(recorded_messages())
        self.scene = self.app.mrmlScene()
        self.scene.Clear()
        if not host.inside_slicer():
            self.app.userSettings().clear()

    def open_module(self, path: str | os.PathLike[str]) -> Any:
        """:func:`bench.host.open_module`; closed after the test."""
        widget = host.open_module(path)
        self.addCleanup(host.close_module, widget)
        return widget

    def _check_slot_errors(self) -> None:
        if self.slot_errors:
            self.fail(f"{len(self.slot_errors)} exception(s) in slots, the first:\n{self.slot_errors[0]}")
