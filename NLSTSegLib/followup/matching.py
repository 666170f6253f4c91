"""Which lesion of a CT is which of a later one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from NLSTSegLib.followup.assignment import assign

GATE_MM = 15.0
"""Distance from its place, to which half the larger lesion's radius comes, within which a lesion is looked for."""

ALONE_COST = 1.5
"""Cost of leaving two lesions without a partner."""

AMBIGUOUS_COST = 0.25
"""Another pair that costs less than this more may be the right one."""

VOLUME_WEIGHT, VOLUME_FACTOR = 0.5, 8.0
DENSITY_WEIGHT, DENSITY_HU = 0.25, 300.0
"""What differs by this factor, or this much, costs the weight; a place at the gate costs 1."""

FORBIDDEN = 1e6


class Kind(StrEnum):
    """What became of a lesion from one CT to the next."""

    SAME = "same"
    MERGED = "merged"
    """Several of the earlier CT are one in the later."""
    SPLIT = "split"
    """One of the earlier CT is several in the later."""
    NEW = "new"
    """Found in the later CT alone."""
    NOT_FOUND = "not found"
    """Found in the earlier CT alone: gone, or missed by whoever outlined the later one."""
    NOT_IN_SCAN = "not in the scan"
    """Its place lies beyond the other CT."""
    NOT_COMPARED = "not compared"
    """The CTs could not be registered, and nobody paired it by hand."""


@dataclass(frozen=True, eq=False)
class Mark:
    """A lesion as far as it is matched."""

    place_lps_mm: np.ndarray
    volume_mm3: float
    mean_hu: float
    holds: Callable[[np.ndarray], bool]
    """Whether a place (LPS, mm) lies in the lesion."""

    @property
    def radius_mm(self) -> float:
        """Radius of the sphere of its volume."""
        return float(np.cbrt(3 * self.volume_mm3 / (4 * np.pi)))


@dataclass(frozen=True)
class Move:
    """How places move between two CTs, and which of them the other CT shows."""

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]
    seen_later: Callable[[np.ndarray], bool]
    """Whether the later CT has a voxel at that place of its own."""
    seen_earlier: Callable[[np.ndarray], bool]


@dataclass(frozen=True)
class Pair:
    """One lesion in two CTs, or in one: positions in the lists that were matched."""

    kind: Kind
    earlier: tuple[int, ...]
    later: tuple[int, ...]
    distance_mm: float | None = None
    """Distance from where the earlier lesion should lie to where the later one does."""
    ambiguous: bool = False
    by_hand: bool = False


ByHand = tuple[Collection[int], Collection[int]]
"""Lesions of the earlier and of the later CT that a reader calls one; an empty side: that the lesion has no partner."""


def match(
    earlier: Sequence[Mark], later: Sequence[Mark], move: Move | None, *, gate_mm: float = GATE_MM, by_hand: Sequence[ByHand] = ()
) -> list[Pair]:
    """Every lesion of both CTs in exactly one pair, those of the earlier CT first.

    Without ``move`` only pairs by hand are made. Cost of a pair: (d / gate)^2 + 0.5 (ln(V2 / V1) / ln 8)^2 +
    0.25 (dHU / 300)^2. A reader's pairs are kept whatever lies where.
    """
    pairs = [_by_hand(earlier, later, move, tuple(sorted(a)), tuple(sorted(b))) for a, b in by_hand]
    taken = {n for pair in pairs for n in pair.earlier}, {n for pair in pairs for n in pair.later}
    free = [n for n in range(len(earlier)) if n not in taken[0]], [n for n in range(len(later)) if n not in taken[1]]
    if move is None:
        pairs += [Pair(Kind.NOT_COMPARED, (n,), ()) for n in free[0]] + [Pair(Kind.NOT_COMPARED, (), (n,)) for n in free[1]]
    else:
        pairs += _automatic(earlier, later, move, gate_mm, *free)
    return sorted(pairs, key=lambda pair: (not pair.earlier, pair.earlier or pair.later))


def _by_hand(earlier: Sequence[Mark], later: Sequence[Mark], move: Move | None, a: tuple[int, ...], b: tuple[int, ...]) -> Pair:
    kind = (
        Kind.NOT_FOUND if not b else Kind.NEW if not a else Kind.MERGED if len(a) > 1 else Kind.SPLIT if len(b) > 1 else Kind.SAME
    )
    distance = None
    if move is not None and len(a) == len(b) == 1:
        distance = float(np.linalg.norm(move.forward(earlier[a[0]].place_lps_mm) - later[b[0]].place_lps_mm))
    return Pair(kind, a, b, distance, by_hand=True)


def _automatic(
    earlier: Sequence[Mark], later: Sequence[Mark], move: Move, gate_mm: float, rows: list[int], columns: list[int]
) -> list[Pair]:
    expected = {n: move.forward(earlier[n].place_lps_mm) for n in rows}
    cost, distance = _costs(earlier, later, expected, gate_mm, rows, columns)
    # Every lesion may take a partner of its own that is none.
    n, m = cost.shape
    padded = np.full((n + m, n + m), FORBIDDEN)
    padded[:n, :m] = cost
    padded[:n, m:][np.eye(n, dtype=bool)] = padded[n:, :m][np.eye(m, dtype=bool)] = ALONE_COST / 2
    padded[n:, m:] = 0
    partner = {int(row): int(column) for row, column in enumerate(assign(padded)[:n]) if column < m} if n + m else {}
    found = {}
    for row, column in partner.items():
        own = cost[row, column]
        others = np.append(np.delete(cost[row], column), np.delete(cost[:, column], row))
        ambiguous = bool((others < own + AMBIGUOUS_COST).any())
        found[rows[row]] = Pair(Kind.SAME, (rows[row],), (columns[column],), float(distance[row, column]), ambiguous)
    pairs = dict(found)
    alone = [row for row in rows if row not in found]
    alone_later = [column for n, column in enumerate(columns) if n not in partner.values()]
    rest: list[Pair] = []
    for row in alone:
        into = next((one for one, pair in pairs.items() if later[pair.later[0]].holds(expected[row])), None)
        if into is not None:
            pair = pairs[into]
            pairs[into] = Pair(Kind.MERGED, (*pair.earlier, row), pair.later, pair.distance_mm, pair.ambiguous)
        else:
            rest.append(Pair(Kind.NOT_FOUND if move.seen_later(expected[row]) else Kind.NOT_IN_SCAN, (row,), ()))
    for column in alone_later:
        place = move.backward(later[column].place_lps_mm)
        of = next((one for one, pair in pairs.items() if pair.kind != Kind.MERGED and earlier[one].holds(place)), None)
        if of is not None:
            pair = pairs[of]
            pairs[of] = Pair(Kind.SPLIT, pair.earlier, (*pair.later, column), pair.distance_mm, pair.ambiguous)
        else:
            rest.append(Pair(Kind.NEW if move.seen_earlier(place) else Kind.NOT_IN_SCAN, (), (column,)))
    return [*pairs.values(), *rest]


def _costs(
    earlier: Sequence[Mark],
    later: Sequence[Mark],
    expected: dict[int, np.ndarray],
    gate_mm: float,
    rows: list[int],
    columns: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Costs and distances ``[rows, columns]``; :data:`FORBIDDEN` beyond the gate."""
    cost, distance = np.full((len(rows), len(columns)), FORBIDDEN), np.zeros((len(rows), len(columns)))
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            one, other = earlier[row], later[column]
            distance[r, c] = np.linalg.norm(expected[row] - other.place_lps_mm)
            share = distance[r, c] / (gate_mm + max(one.radius_mm, other.radius_mm) / 2)
            if share <= 1:
                grown = np.log(other.volume_mm3 / one.volume_mm3) / np.log(VOLUME_FACTOR)
                denser = (other.mean_hu - one.mean_hu) / DENSITY_HU
                cost[r, c] = share**2 + VOLUME_WEIGHT * grown**2 + DENSITY_WEIGHT * denser**2
    return cost, distance
