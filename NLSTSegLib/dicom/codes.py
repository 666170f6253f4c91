"""What kinds of SEG there are, and the coded concepts of SEG and SR, as (value, scheme, meaning)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SegType(StrEnum):
    """How a SEG holds its voxels."""

    BINARY = "binary"
    """Every reader that was tried reads it."""
    DEFLATED = "deflated"
    """The same, some hundred times smaller: the whole data set compressed."""
    LABELMAP = "labelmap"
    """The class of 2024 with one label a voxel; few readers know it yet."""


CodeText = tuple[str, str, str]
"""Value, coding scheme designator, meaning."""

OWN_SCHEME = "99NLSTSEG"
"""Coding scheme of what no standard code was found for."""

ABNORMAL_STRUCTURE: CodeText = ("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE: CodeText = ("27925004", "SCT", "Nodule")
LUNG: CodeText = ("39607008", "SCT", "Lung")
SIDES: dict[str, CodeText] = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}
"""Modifiers of the lung."""
ARTIFICIAL_INTELLIGENCE: CodeText = ("123110", "DCM", "Artificial Intelligence")
CT_UNSPECIFIED_REGION: CodeText = ("25045-6", "LN", "CT unspecified body region")
"""Procedure reported: of CID 100, which the CT of the chest (LN 24627-2) is not."""
NUMBER_OF_LESIONS: CodeText = ("246206008", "SCT", "Number of lesions")
MEAN: CodeText = ("373098007", "SCT", "Mean")
PERSON: CodeText = ("121006", "DCM", "Person")
DEVICE: CodeText = ("121007", "DCM", "Device")
NO_UNITS: CodeText = ("1", "UCUM", "no units")

IMAGING_MEASUREMENTS = ("126010", "DCM")
"""Value and scheme of the container of all measurement groups."""

_MM: CodeText = ("mm", "UCUM", "millimeter")
_MM3: CodeText = ("mm3", "UCUM", "cubic millimeter")


@dataclass(frozen=True)
class MeasurementCode:
    """How a column of ``lesions.csv`` stands in an SR."""

    column: str
    name: CodeText
    unit: CodeText
    derivation: CodeText | None = None


MEASUREMENTS = (
    MeasurementCode("volume_mm3", ("YEKZ", "IBSI", "Volume from Voxel Summation"), _MM3),
    MeasurementCode("long_axis_mm", ("103339001", "SCT", "Long Axis"), _MM),
    MeasurementCode("short_axis_mm", ("103340004", "SCT", "Short Axis"), _MM),
    MeasurementCode("mean_diameter_mm", ("MeanDiameter", OWN_SCHEME, "Mean of Long and Short Axis"), _MM),
    MeasurementCode("equivalent_diameter_mm", ("EquivDiameter", OWN_SCHEME, "Diameter of the Sphere of this Volume"), _MM),
    MeasurementCode(
        "mean_hu", ("112031", "DCM", "Attenuation Coefficient"), ("[hnsf'U]", "UCUM", "Hounsfield unit"), derivation=MEAN
    ),
    MeasurementCode("solid_volume_mm3", ("SolidVolume", OWN_SCHEME, "Volume of the Solid Part"), _MM3),
    MeasurementCode("score", ("Score", OWN_SCHEME, "Score of the Model, 0 to 1"), NO_UNITS),
)
"""Measurements in the order of the SR; a lesion without a number for a column has no such measurement."""
