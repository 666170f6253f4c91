"""What a module says to the user and asks, recorded instead of shown, in the bench and inside Slicer."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

SAYING = {"infoDisplay": "info", "warningDisplay": "warning", "errorDisplay": "error", "delayDisplay": "info"}
"""Functions of ``slicer.util`` by the kind of message that they show."""

ASKING = ("confirmOkCancelDisplay", "confirmYesNoDisplay", "confirmRetryCloseDisplay", "messageBox")
"""Functions of ``slicer.util`` that wait for an answer."""

FILE_DIALOGS = ("getExistingDirectory", "getOpenFileName", "getOpenFileNames", "getSaveFileName")
"""Functions of ``qt.QFileDialog``; in PythonQt they return the path alone."""


@dataclass(frozen=True)
class Message:
    """``kind`` is ``info``, ``warning``, ``error``, ``question`` or ``file`` (a file dialog, with its title as text)."""

    kind: str
    text: str
    details: str = ""


@dataclass
class Conversation:
    """All that was said since the test began, and the answers that wait for a question."""

    messages: list[Message] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    def texts(self, kind: str) -> list[str]:
        """The texts of one kind, in order."""
        return [message.text for message in self.messages if message.kind == kind]

    def answer(self, *values: Any) -> None:
        """Give the answers to the next questions, in order: True or False, the button of a message box, a path."""
        self.answers += values

    def ask(self, kind: str, text: str, details: str = "") -> Any:
        """Record a question and take the next answer. Raises :class:`AssertionError` where there is none."""
        self.messages.append(Message(kind, text, details))
        if not self.answers:
            raise AssertionError(f"the module asked '{text}' and the test has no answer ready; give it with answer(...) first")
        return self.answers.pop(0)


@contextmanager
def recorded_messages() -> Iterator[Conversation]:
    """Replace the functions named above while in the block."""
    import qt
    import slicer

    talk = Conversation()

    def say(kind: str) -> Callable[..., None]:
        return lambda text, *_, **named: talk.messages.append(Message(kind, text, named.get("detailedText", "")))

    def ask(text: str, *_: Any, **named: Any) -> Any:
        return talk.ask("question", text, named.get("detailedText", ""))

    def ask_for_file(_parent: Any = None, title: str = "", *_: Any) -> Any:
        return talk.ask("file", title)

    with ExitStack() as patches:
        for name, kind in SAYING.items():
            patches.enter_context(mock.patch.object(slicer.util, name, say(kind)))
        for name in ASKING:
            patches.enter_context(mock.patch.object(slicer.util, name, ask))
        dialogs = SimpleNamespace(**dict.fromkeys(FILE_DIALOGS, ask_for_file))
        patches.enter_context(mock.patch.object(qt, "QFileDialog", dialogs))
        yield talk
