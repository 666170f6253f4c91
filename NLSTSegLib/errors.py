"""What can go wrong, by exit code. Every message is one sentence: what is wrong, with what, and what to do."""

OUT_OF_MEMORY = (
    *("out of memory", "allocate memory", "bad_alloc", "could not create a ", "can't start new thread"),
    *("STATUS_ALLOC_FAILED", "unable to find an engine"),
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is one of the ways in which the libraries say that they got no memory."""
    said = str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(words in said for words in OUT_OF_MEMORY))


def printable(text: str) -> str:
    """``text`` on one line, without the control characters that a damaged or hostile file may hold."""
    return "".join(character if character.isprintable() else " " for character in text)


def as_sentence(text: str) -> str:
    """``text`` of an error with a capital letter, unless it begins with a name in quotes, and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
