"""What can go wrong, by exit code. Every message is one sentence: what is wrong, with what, and what to do."""


class NLSTSegError(Exception):
    """Base of the errors a user can act on; ``exit_code`` is that of the command line."""

    exit_code = 2


class InputError(NLSTSegError):
    """The input or an option cannot be used (exit code 2)."""


class ModelError(NLSTSegError):
    """The model bundle or checkpoint cannot be used (exit code 3)."""

    exit_code = 3
