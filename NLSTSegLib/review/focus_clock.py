"""How long a reader has looked at each lesion."""

from __future__ import annotations

IDLE_S = 60.0
"""A reader who has done nothing for so long is taken to have gone."""


class FocusClock:
    """Adds up the seconds that each lesion was looked at; the caller says what happens, and when.

    ``now_s`` are seconds of a clock that never runs backwards, such as :func:`time.monotonic`.
    """

    def __init__(self) -> None:
        self._lesion: str | None = None
        self._since_s = self._idle_from_s = 0.0
        self._spent_s: dict[str, float] = {}

    def tell(self, now_s: float, lesion: str | None, acted: bool = False) -> None:
        """Note that from now on the reader looks at ``lesion``, or at none; ``acted``: has just done something.

        Turning to another lesion counts as doing something. Time counts up to :data:`IDLE_S` after the last doing.
        """
        if self._lesion is not None:
            looked_s = min(now_s, self._idle_from_s) - self._since_s
            self._spent_s[self._lesion] = self._spent_s.get(self._lesion, 0.0) + max(0.0, looked_s)
        if acted or lesion != self._lesion:
            self._idle_from_s = now_s + IDLE_S
        self._lesion, self._since_s = lesion, now_s

    def take(self) -> dict[str, float]:
        """The seconds of each lesion up to the last :meth:`tell`, which are counted anew from here on."""
        spent_s, self._spent_s = self._spent_s, {}
        return {lesion: seconds for lesion, seconds in spent_s.items() if seconds > 0}
