"""What can go wrong, by exit code. Every message is one sentence: what is wrong, with what, and what to do."""


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


def printable(text: str) -> str:
    """``text`` on one line, without the control characters that a damaged or hostile file may hold."""
    return "".join(character if character.isprintable() else " " for character in text)
