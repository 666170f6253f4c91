"""What can go wrong, by exit code. Every message is one sentence: what is wrong, with what, and what to do."""

from __future__ import annotations

import os

UNEXPECTED, STOPPED, OWNER_GONE = 1, 130, 131
"""Exit codes beside those of the errors: of a fault that is nobody's but the program's, after Ctrl-C or another request to end,
and of a child whose owner has died."""

OUT_OF_MEMORY = (
    *("out of memory", "OutOfMemory", "not enough memory", "allocate memory", "bad_alloc", "MemoryError"),
    *("could not create a ", "can't start new thread", "STATUS_ALLOC_FAILED", "unable to find an engine"),
)
"""Words of torch, of oneDNN in it, of SimpleITK and of Python (which takes memory for a thread) when there is none left, and
of cuBLAS and cuDNN."""


class NLSTSegError(Exception):
    """Base of the errors a user can act on; ``exit_code`` is that of the command line."""

    exit_code = 2

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


class InputError(NLSTSegError):
    """The input or an option cannot be used (exit code 2)."""


class ModelError(NLSTSegError):
    """The model bundle or checkpoint cannot be used (exit code 3)."""

    exit_code = 3


class PacsError(NLSTSegError):
    """The PACS cannot be reached, or does not do what it is asked for (exit code 4)."""

    exit_code = 4


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is one of the ways in which the libraries say that they got no memory."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says_out_of_memory(str(error)))


def says_out_of_memory(text: str) -> bool:
    """Whether ``text``, of an error or of a log, holds any of :data:`OUT_OF_MEMORY`, in whatever case."""
    return any(words.lower() in text.lower() for words in OUT_OF_MEMORY)


def printable(text: str) -> str:
    """``text`` on one line, without the control characters that a damaged or hostile file may hold."""
    return "".join(character if character.isprintable() else " " for character in text)


def is_utf8(path: os.PathLike[str] | str) -> bool:
    """Whether the name can be given to the libraries in C++, which end the process at one that cannot."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_sentence(text: str) -> str:
    """``text`` of an error with a capital letter, unless it begins with a name in quotes, and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
