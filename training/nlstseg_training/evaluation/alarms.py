"""When a model is worse than marking nothing."""

from __future__ import annotations

from typing import Any


def alarms(content: dict[str, Any]) -> list[str]:
    """Sentences on what ``evaluation.json`` holds; none for a model that is of some use."""
    found = []
    precision, strict = content["overlap"][0]["pooled_voxel_precision"]["value"], content["detection"]["strict"]
    if precision is not None and precision < 0.5:
        found.append(
            f"This model is worse than marking nothing: of all that it marks {100 * precision:.0f} % is lesion, so an empty "
            "segmentation would have fewer wrong voxels."
        )
    if strict["lesions"] and not strict["found"]:
        found.append(
            f"This model found none of the {strict['lesions']} lesions by the strict rule (an IoU of 0.1 at least), however many "
            "its marks touch."
        )
    return found
