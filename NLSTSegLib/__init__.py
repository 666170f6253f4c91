"""Lung nodules and masses in chest CT: from a volume to lesions, their sizes and a segmentation.

The way of the data is :func:`NLSTSegLib.pipeline.segment`; the command line, the Slicer module and the training
package's evaluation all call it. What stands in ``__all__`` is public: it changes only as docs/versions.md says. Importing
this package imports neither numpy, torch nor slicer; a name is looked up where it lies when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from NLSTSegLib.errors import InputError, ModelError, NLSTSegError
    from NLSTSegLib.models.bundle import Model, find_model, list_models, load_model
    from NLSTSegLib.pipeline import SegmentationResult, SegmentOptions, segment
    from NLSTSegLib.reading.read import read_ct, read_mask
    from NLSTSegLib.results.folder import write_result
    from NLSTSegLib.volume.ct import CtVolume

__version__ = "0.1.0"

__all__ = [
    "CtVolume",
    "InputError",
    "Model",
    "ModelError",
    "NLSTSegError",
    "SegmentOptions",
    "SegmentationResult",
    "find_model",
    "list_models",
    "load_model",
    "read_ct",
    "read_mask",
    "segment",
    "write_result",
]

_HOMES = {
    "errors": ("InputError", "ModelError", "NLSTSegError"),
    "models.bundle": ("Model", "find_model", "list_models", "load_model"),
    "pipeline": ("SegmentOptions", "SegmentationResult", "segment"),
    "reading.read": ("read_ct", "read_mask"),
    "results.folder": ("write_result",),
    "volume.ct": ("CtVolume",),
}
"""Where the public names lie."""


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for (PEP 562)."""
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
