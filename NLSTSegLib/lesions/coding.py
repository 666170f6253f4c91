"""What a lesion is called, how it is coded and coloured as a segment: the same in MRML and in ``.seg.nrrd``."""

from __future__ import annotations

import colorsys
from typing import Protocol

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^27925004^Nodule~^^"
    "~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)
"""Slicer's terminology entry: a nodule of the lung, which says what it looks like and not what it is."""

TERMINOLOGY_TAG = "TerminologyEntry"
"""Name of the segment tag in which Slicer keeps the terminology."""

SCORE_TAG = "NLSTSeg.Score"
"""Segment tag with the lesion's score, 0 to 1 with three decimals."""

MODEL_TAG = "NLSTSeg.Model"
"""Segment tag with name and version of the model that proposed the lesion."""


class NamedLesion(Protocol):
    """What a segment needs to know of a lesion, found just now or read from a result."""

    @property
    def label(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def score(self) -> float: ...


def segment_id(lesion: NamedLesion) -> str:
    """Identifier of the lesion's segment, for example ``Lesion_01``."""
    return f"Lesion_{lesion.label:02d}"


def segment_color(label: int) -> tuple[float, float, float]:
    """Red, green, blue in 0..1; neighbours in the list differ clearly in hue (steps by the golden ratio)."""
    return colorsys.hsv_to_rgb((0.08 + 0.618034 * (label - 1)) % 1.0, 0.75, 0.95)


def segment_tags(lesion: NamedLesion, model: str) -> dict[str, str]:
    """Tags of the lesion's segment; neither ``:`` nor ``|`` may stand in a value."""
    return {
        TERMINOLOGY_TAG: TERMINOLOGY,
        SCORE_TAG: f"{lesion.score:.3f}",
        MODEL_TAG: model.replace(":", "_").replace("|", "_"),
    }
