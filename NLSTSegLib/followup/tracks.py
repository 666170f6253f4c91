"""The same lesion through all CTs of a patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from NLSTSegLib.followup.matching import GATE_MM, ByHand, Kind, Mark, Move, Pair, match
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.followup.time_point import TimePoint


@dataclass(frozen=True, eq=False)
class Step:
    """What became of a track from one CT to the next."""

    kind: Kind
    distance_mm: float | None = None
    ambiguous: bool = False
    by_hand: bool = False
    place_lps_mm: np.ndarray | None = None
    """Where the lesion would lie in the CT that lacks it."""
    probability: float | None = None
    """The model's largest one around that place."""


@dataclass(frozen=True, eq=False)
class Track:
    """One lesion, or lesions that merged or fell apart, through all CTs."""

    number: int
    """1, 2, ..."""
    members: tuple[tuple[int, ...], ...]
    """Positions, for every CT, of its lesions in :attr:`TimePoint.lesions`; none where it has none."""
    steps: tuple[Step | None, ...]
    """Steps from every CT to the next; ``None`` before the track begins."""


@dataclass(eq=False)
class _Open:
    """A track while it is followed."""

    members: list[tuple[int, ...]]
    steps: list[Step | None]
    ghost: Mark
    """The lesion as it was found last, at its place in the latest CT."""
    joined: _Open | None = None
    """The track that this one merged into."""

    def united(self) -> _Open:
        """The track that this one belongs to by now."""
        return self if self.joined is None else self.joined.united()


def move_of(registration: Registration | None, earlier: TimePoint, later: TimePoint) -> Move | None:
    """How places move; ``None`` where the registration is none, or refused."""
    if registration is None or not registration.is_accepted:
        return None
    return Move(registration.forward, registration.backward, later.shows, earlier.shows)


def follow(
    points: Sequence[TimePoint],
    registrations: Sequence[Registration | None],
    *,
    gate_mm: float = GATE_MM,
    by_hand: Sequence[Sequence[ByHand]] = (),
) -> list[Track]:
    """The tracks through ``points``, in the order of time; ``registrations`` are of every CT to the next.

    ``by_hand`` has, for every such step, the pairs that a reader made, as positions of lesions. A lesion that one CT lacks is
    looked for again in the next.
    """
    marks = [[point.mark(lesion) for lesion in point.lesions] for point in points]
    tracks = [_Open([(n,)], [], mark) for n, mark in enumerate(marks[0])]
    for t, registration in enumerate(registrations):
        move = move_of(registration, points[t], points[t + 1])
        at = [(track, n) for track in tracks for n in track.members[t]]
        # What the last CT lacks is looked for in the next one, where its place is known.
        lost = [track for track in tracks if not track.members[t]] if move else []
        row_of = {n: row for row, (_, n) in enumerate(at)}
        hand = [([row_of[n] for n in a], b) for a, b in (by_hand[t] if by_hand else ())]
        earlier = [*(marks[t][n] for _, n in at), *(track.ghost for track in lost)]
        pairs = match(earlier, marks[t + 1], move, gate_mm=gate_mm, by_hand=hand)
        owners = [*(track for track, _ in at), *lost]
        tracks = _step(tracks, owners, pairs, points[t : t + 2], marks[t + 1], move, t + 1)
    in_order = sorted(tracks, key=lambda track: next((n, min(some)) for n, some in enumerate(track.members) if some))
    return [Track(number, tuple(one.members), tuple(one.steps)) for number, one in enumerate(in_order, start=1)]


def _step(
    tracks: list[_Open],
    owners: list[_Open],
    pairs: list[Pair],
    points: Sequence[TimePoint],
    later: list[Mark],
    move: Move | None,
    now: int,
) -> list[_Open]:
    """The tracks one CT further, the one of number ``now``; ``owners`` are those of the earlier lesions that were matched."""
    for first, other in ((owners[pair.earlier[0]], owners[n]) for pair in pairs for n in pair.earlier[1:]):
        one, two = first.united(), other.united()
        if one is not two:
            # From where they merged, and for what was before, they are one track.
            one.members = [tuple(sorted({*a, *b})) for a, b in zip(one.members, two.members, strict=True)]
            two.joined = one
    pairs_of: dict[int, list[Pair]] = {}
    for pair in pairs:
        if pair.earlier:
            pairs_of.setdefault(id(owners[pair.earlier[0]].united()), []).append(pair)
    kept = [track for track in tracks if track.joined is None]
    for track in kept:
        own = pairs_of.get(id(track), [])
        found = [pair for pair in own if pair.later]
        track.members.append(tuple(sorted(n for pair in found for n in pair.later)))
        if found:
            pair = max(found, key=lambda one: len(one.earlier) + len(one.later))
            track.steps.append(Step(pair.kind, pair.distance_mm, pair.ambiguous, pair.by_hand))
            track.ghost = max((later[n] for n in track.members[-1]), key=lambda mark: mark.volume_mm3)
            continue
        step = Step(own[0].kind, by_hand=own[0].by_hand) if own else Step(Kind.NOT_COMPARED)
        if move:
            place = move.forward(track.ghost.place_lps_mm)
            track.ghost = replace(track.ghost, place_lps_mm=place)
            step = replace(step, place_lps_mm=place, probability=points[1].probability_at(place))
        track.steps.append(step)
    for pair in pairs:
        if not pair.earlier:
            step = Step(pair.kind, by_hand=pair.by_hand)
            mark = later[pair.later[0]]
            if move:
                place = move.backward(mark.place_lps_mm)
                step = replace(step, place_lps_mm=place, probability=points[0].probability_at(place))
            kept.append(_Open([()] * now + [pair.later], [None] * (now - 1) + [step], mark))
    return kept
