"""Side and third of the lungs in which a place lies, as a reader reports them; nothing where that cannot be told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.measure import Point

Side = Literal["left", "right", ""]
Third = Literal["upper", "middle", "lower", ""]

MIDLINE_MM = 10.0
"""Distance to the middle of the body within which no side is told: the lungs reach over it."""

BEYOND_MM = 10.0
"""A lesion on the apex or on the diaphragm may have its centre so far outside the lung's air; farther off no third is told."""


@dataclass(frozen=True)
class LungExtent:
    """Where the lungs of an upright CT lie, in mm along the patient's axes (LPS)."""

    middle_left_mm: float
    """Middle of the body, from side to side."""
    right_superior_mm: tuple[float, float] | None
    """Lower and upper end of the right lung's air; ``None`` where there is none, or the scan cuts it."""
    left_superior_mm: tuple[float, float] | None
    """The same of the left lung."""

    def side_and_third(self, point_lps_mm: Point) -> tuple[Side, Third]:
        """Side of the body, and third of the height of that side's lung; "" for what cannot be told."""
        left_mm, _, superior_mm = point_lps_mm
        if abs(left_mm - self.middle_left_mm) < MIDLINE_MM:
            return "", ""
        side: Side = "left" if left_mm > self.middle_left_mm else "right"
        ends_mm = self.left_superior_mm if side == "left" else self.right_superior_mm
        if ends_mm is None or not ends_mm[0] - BEYOND_MM <= superior_mm <= ends_mm[1] + BEYOND_MM:
            return side, ""
        share = (superior_mm - ends_mm[0]) / (ends_mm[1] - ends_mm[0])
        return side, "lower" if share < 1 / 3 else "middle" if share < 2 / 3 else "upper"

    def as_text(self) -> str:
        """Text for a node attribute; :meth:`of_text` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str | None) -> LungExtent | None:
        """What :meth:`as_text` told; ``None`` where there is no text. Raises :class:`InputError` for another text."""
        try:
            return cls.of_values(json.loads(text or "null"))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise InputError(f"'{text}' does not tell where the lungs lie; run the model again") from error

    @classmethod
    def of_values(cls, values: dict[str, Any] | None) -> LungExtent | None:
        """Extent of fields as plain values, as in a report."""
        if values is None:
            return None
        ends = [values[name] for name in ("right_superior_mm", "left_superior_mm")]
        right, left = (None if each is None else (float(each[0]), float(each[1])) for each in ends)
        return cls(float(values["middle_left_mm"]), right, left)
