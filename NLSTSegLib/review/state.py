"""A reader's decision on one lesion, and the segment tags that keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from NLSTSegLib.errors import InputError, printable
from NLSTSegLib.lesions.coding import MODEL_TAG, SCORE_TAG

FIRST_RUN = "run1"
"""Key of the run that a review began with; lesions taken over from later runs have ``run2`` and so on."""


class Status(StrEnum):
    """How far the review of a lesion is."""

    NEW = "new"
    ACCEPTED = "accepted"
    EDITED = "edited"
    """Changed, or added, since it was proposed or accepted."""
    REJECTED = "rejected"
    """No lesion: hidden, not deleted."""


class Origin(StrEnum):
    """Where a lesion's first outline came from."""

    MODEL = "model"
    PROBABILITY = "probability"
    """Added from the model's probability map, where a reader clicked."""
    MANUAL = "manual"
    """Added from the CT alone: grown from a click, or painted."""


@dataclass(frozen=True)
class LesionState:
    """What the tags of a lesion's segment say, beside its name, colour and terminology."""

    status: Status
    origin: Origin
    voxels: str = ""
    """Fingerprint of the voxels that ``status`` was given to; with others the lesion counts as edited."""
    reader: str = ""
    seconds: float = 0.0
    """Time in focus, by all readers."""
    score: float | None = None
    """0 to 1; ``None`` for a lesion that no model scored."""
    threshold: float | None = None
    """The lesion's own probability threshold; ``None`` where it has none."""
    model: str = ""
    weights_sha256: str = ""
    run: str = FIRST_RUN
    """Key of the run whose probability map the lesion grows and shrinks in."""
    proposals: tuple[str, ...] = ()
    """The proposed lesions that it came from, as ``run/segment``: none if added, several if merged."""
    replaces: tuple[str, ...] = ()
    """Proposals, as ``run/segment``, that gave way when the lesion was taken over from a later run."""

    @property
    def is_reviewed(self) -> bool:
        """Whether a reader has touched the lesion, so that no later run may change it."""
        return self.status != Status.NEW or self.origin != Origin.MODEL


STATUS_TAG = "NLSTSeg.Status"
"""Segment tag with the :class:`Status`, as it was decided: painting since then does not show in it."""


ORIGIN_TAG = "NLSTSeg.Origin"
"""Segment tag with the :class:`Origin`."""


VOXELS_TAG = "NLSTSeg.Voxels"
"""Segment tag with the fingerprint of the voxels that were decided on."""


READER_TAG = "NLSTSeg.Reader"
"""Segment tag with the reader's name."""


SECONDS_TAG = "NLSTSeg.Seconds"
"""Segment tag with the seconds in focus at the last decision."""


THRESHOLD_TAG = "NLSTSeg.Threshold"
"""Segment tag with the lesion's own threshold."""


WEIGHTS_TAG = "NLSTSeg.Weights"
"""Segment tag with the SHA-256 of the weights that proposed the lesion."""


RUN_TAG = "NLSTSeg.Run"
"""Segment tag with the key of the lesion's run."""


PROPOSALS_TAG = "NLSTSeg.Proposals"
"""Segment tag with the proposals, separated by blanks."""


REPLACES_TAG = "NLSTSeg.Replaces"
"""Segment tag with the proposals that gave way, separated by blanks."""


STATE_TAGS = (
    *(STATUS_TAG, ORIGIN_TAG, VOXELS_TAG, READER_TAG, SECONDS_TAG, SCORE_TAG, THRESHOLD_TAG),
    *(MODEL_TAG, WEIGHTS_TAG, RUN_TAG, PROPOSALS_TAG, REPLACES_TAG),
)
"""All segment tags of a :class:`LesionState`."""


def tags_of_state(state: LesionState) -> dict[str, str]:
    """A value for each of :data:`STATE_TAGS`; what may not stand in one (``:``, ``|``) becomes ``_``."""
    values = {
        STATUS_TAG: state.status.value,
        ORIGIN_TAG: state.origin.value,
        VOXELS_TAG: state.voxels,
        READER_TAG: state.reader,
        SECONDS_TAG: f"{state.seconds:.1f}",
        SCORE_TAG: "" if state.score is None else f"{state.score:.3f}",
        THRESHOLD_TAG: "" if state.threshold is None else threshold_text(state.threshold),
        MODEL_TAG: state.model,
        WEIGHTS_TAG: state.weights_sha256,
        RUN_TAG: state.run,
        PROPOSALS_TAG: " ".join(state.proposals),
        REPLACES_TAG: " ".join(state.replaces),
    }
    return {tag: printable(value).replace(":", "_").replace("|", "_").strip() for tag, value in values.items()}


def threshold_text(threshold: float) -> str:
    """Value of :data:`THRESHOLD_TAG`, fine enough to tell any two steps of a uint8 probability apart."""
    return f"{threshold:.6f}"


def state_of_tags(tags: Mapping[str, str], name: str) -> LesionState:
    """The state that the tags of segment ``name`` tell; those that are missing count as empty.

    Without a status a segment of a model is new, and any other somebody's own work: edited, by hand.
    Raises :class:`InputError` for a tag that cannot be read.
    """
    from_model = bool(tags.get(MODEL_TAG))
    try:
        return LesionState(
            status=Status(tags.get(STATUS_TAG) or (Status.NEW if from_model else Status.EDITED)),
            origin=Origin(tags.get(ORIGIN_TAG) or (Origin.MODEL if from_model else Origin.MANUAL)),
            voxels=tags.get(VOXELS_TAG, ""),
            reader=tags.get(READER_TAG, ""),
            seconds=float(tags.get(SECONDS_TAG) or 0),
            score=float(tags[SCORE_TAG]) if tags.get(SCORE_TAG) else None,
            threshold=float(tags[THRESHOLD_TAG]) if tags.get(THRESHOLD_TAG) else None,
            model=tags.get(MODEL_TAG, ""),
            weights_sha256=tags.get(WEIGHTS_TAG, ""),
            run=tags.get(RUN_TAG) or FIRST_RUN,
            proposals=tuple(tags.get(PROPOSALS_TAG, "").split()),
            replaces=tuple(tags.get(REPLACES_TAG, "").split()),
        )
    except ValueError as error:
        raise InputError(f"the segment '{name}' has a tag of NLSTSeg that cannot be read ({error}); remove that tag") from error
