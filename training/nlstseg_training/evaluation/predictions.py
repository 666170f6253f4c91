"""The probability volume of each case, from the library's own ``segment``, kept so that the network runs once."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlstseg_training.data.cache import Case, CaseEntry
from nlstseg_training.evaluation.records import digest
from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.inference.lung_field import lung_field
from NLSTSegLib.models.bundle import Model
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.progress import Progress, silent

STATE_KEY, FINDINGS_KEY = "nlstseg_state", "nlstseg_findings"
"""Keys in the header of the NRRD: what the volume depends on, and the codes of the pre-flight's warnings."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says of a case."""

    probability: np.ndarray
    """uint8 ``[k, j, i]`` on the voxels of the case's CT, 255 is 1."""
    findings: tuple[str, ...]
    """Codes of the pre-flight's warnings."""


def network_digest(model: Model) -> str:
    """Hash of the weights and of what the network is shown."""
    weights = hashlib.sha256()
    networks = [model.network] if model.refinement is None else [model.network, model.refinement]
    for network in networks:
        for name, tensor in sorted(network.state_dict().items()):
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    card = model.card
    parts: list[Any] = [weights.hexdigest(), dataclasses.asdict(card.input), dataclasses.asdict(card.architecture)]
    if card.refinement is not None:
        parts += [dataclasses.asdict(card.refinement), card.threshold]
    return digest(*parts)


def prediction_state(network: str, entry: CaseEntry) -> str:
    """Changes when the network or anything about the case does."""
    return digest(network, dataclasses.asdict(entry))


def segment_options(case: Case, device: DeviceRequest) -> SegmentOptions:
    """A case without a lung field is searched everywhere; the others in the field that ``segment`` finds: the one of the cache
    was drawn around the reference lesions, and would give them away."""
    lungs = "none" if case.lungs is None else "auto"
    return SegmentOptions(lung_field=lungs, device=device.choice, threads=device.threads)


def predict(model: Model, case: Case, path: Path, state: str, device: DeviceRequest, progress: Progress = silent) -> Prediction:
    """The probability volume in ``path`` if it is of this ``state``, else from :func:`NLSTSegLib.pipeline.segment`.

    Raises :class:`InputError` that names the case when the library refuses it.
    """
    kept = read_prediction(case, path, state)
    if kept is not None:
        return kept
    try:
        result = segment(case.ct, model, segment_options(case, device), progress)
    except InputError as error:
        raise InputError(f"case '{case.id}' cannot be segmented: {error}") from error
    if result.canonical is not case.ct:
        raise InputError(f"case '{case.id}' does not lie on a regular grid with canonical axes; prepare it again")
    findings = tuple(sorted({finding.code for finding in result.findings if finding.severity == "warning"}))
    prediction = Prediction(result.probability, findings)
    _write(prediction, case, path, state)
    return prediction


def field_of(case: Case) -> np.ndarray | None:
    """The lung field that :func:`predict` looked in, as ``segment`` finds it."""
    return None if case.lungs is None else lung_field(case.ct)


def read_prediction(case: Case, path: Path, state: str) -> Prediction | None:
    """What was kept in ``path``, if it is there, whole, and of this ``state``."""
    import SimpleITK as sitk

    if not path.exists():
        return None
    try:
        with point_in_numbers():
            image = sitk.ReadImage(str(path))
    except RuntimeError:
        # Damaged: the network runs again.
        return None
    if not image.HasMetaDataKey(STATE_KEY) or image.GetMetaData(STATE_KEY) != state:
        return None
    probability = sitk.GetArrayFromImage(image)
    if probability.dtype != np.uint8 or probability.shape != case.ct.hu.shape:
        return None
    return Prediction(probability, tuple(image.GetMetaData(FINDINGS_KEY).split()))


def _write(prediction: Prediction, case: Case, path: Path, state: str) -> None:
    import SimpleITK as sitk

    image = case.ct.image_like(prediction.probability)
    image.SetMetaData(STATE_KEY, state)
    # An empty value would not be written.
    image.SetMetaData(FINDINGS_KEY, " ".join(prediction.findings) or " ")
    with atomic_file(path) as partial, point_in_numbers():
        sitk.WriteImage(image, str(partial), useCompression=True)
