"""Standard streams that never decide over a result: what cannot be shown is escaped, and a closed pipe is not missed."""

from __future__ import annotations

import io
import os
import sys


class UnfailingStream(io.TextIOWrapper):
    """A text stream on a file descriptor that is written to until it fails, and from then on goes nowhere.

    A closed pipe (``| head -1``) passes in silence; any other failure, such as a full disk, is said once on stderr.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # What is still in the buffers goes there too, so the flush at the end of the program succeeds.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError) and self is not sys.stderr:
            print(f"nlstseg: what it says can no longer be written ({error.strerror})", file=sys.stderr)


def use_unfailing_streams() -> None:
    """Make stdout and stderr unfailing, with escapes for the characters that their encoding lacks.

    Standard streams that are closed are opened to nowhere: else a file of a result would get their number, and with it whatever
    a library prints.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # None where there is no console
            encoding, at_once = stream.encoding, stream.line_buffering
            unfailing = UnfailingStream(stream.detach(), encoding, "backslashreplace", line_buffering=at_once)
            setattr(sys, name, unfailing)
            setattr(sys, f"__{name}__", unfailing)
