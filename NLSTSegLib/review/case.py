"""What a reader decides about a lesion, and a reviewed case as plain data: for tables, audits and training cases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.measure import Measurements, round_half_up, shown_sizes
from NLSTSegLib.lesions.place import Side, Third
from NLSTSegLib.review.state import LesionState, Status
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.regions import Region


@dataclass(frozen=True, eq=False)
class ReviewedLesion:
    """A lesion as the reader left it."""

    segment_id: str
    name: str
    state: LesionState
    region: Region
    sizes: Measurements | None
    """``None`` for a lesion without voxels."""
    proposal: Region | None
    """What the model proposed for it; ``None`` for an added lesion, and where the proposals are not kept."""
    slice: int | None = None
    """Index of the CT's voxels, from 0, along that axis which runs nearest to the body's long axis."""
    side: Side = ""
    third: Third = ""

    @property
    def is_counted(self) -> bool:
        """Whether it is a lesion of this case: it has voxels and was not rejected."""
        return self.region.voxels > 0 and self.state.status != Status.REJECTED


@dataclass(frozen=True, eq=False)
class LostProposal:
    """A proposed lesion of the first run that no lesion of the review came from."""

    segment_id: str
    name: str
    state: LesionState
    region: Region
    replaced: bool
    """Whether it gave way to a lesion of a later run; else a reader deleted it."""


@dataclass(frozen=True, eq=False)
class ReviewedCase:
    """A CT with its lesions as the reader left them."""

    name: str
    ct: CtVolume
    lesions: tuple[ReviewedLesion, ...]
    lost: tuple[LostProposal, ...]

    @cached_property
    def counted(self) -> tuple[ReviewedLesion, ...]:
        """The lesions that count; the first has label 1 in :attr:`labels`, and so on."""
        return tuple(lesion for lesion in self.lesions if lesion.is_counted)

    @property
    def undecided(self) -> tuple[ReviewedLesion, ...]:
        """The lesions that nobody has decided on; they count."""
        return tuple(lesion for lesion in self.lesions if lesion.state.status == Status.NEW)

    @cached_property
    def labels(self) -> np.ndarray:
        """uint8 or uint16 ``[k, j, i]`` on the voxels of ``ct``: the counted lesions. A voxel of two belongs to the first.

        Raises :class:`InputError` where a lesion has no voxel of its own.
        """
        labels = np.zeros(self.ct.hu.shape, np.uint8 if len(self.counted) <= 255 else np.uint16)
        for label, lesion in reversed(list(enumerate(self.counted, start=1))):
            labels[lesion.region.box][lesion.region.mask] = label
        for label, lesion in enumerate(self.counted, start=1):
            if not (labels[lesion.region.box] == label).any():
                raise InputError(f"'{lesion.name}' has no voxel that is not another lesion's; merge the two or delete one")
        return labels


def review_row(lesion: ReviewedLesion) -> dict[str, str | int | float]:
    """The lesion's numbers as they are shown; "" for none.

    ``seconds`` are those in focus; ``counted`` is 1 or 0; ``slice``, ``side`` and ``third`` say where it lies.
    """
    state = lesion.state
    return {
        "segment": lesion.segment_id,
        "lesion": lesion.name,
        "status": state.status.value,
        "counted": int(lesion.is_counted),
        "origin": state.origin.value,
        "score": "" if state.score is None else round_half_up(state.score, 3),
        "slice": "" if lesion.slice is None else lesion.slice,
        "side": lesion.side,
        "third": lesion.third,
        **shown_sizes(lesion.sizes),
        "reader": state.reader,
        "seconds": int(round_half_up(state.seconds, 0)),
    }
