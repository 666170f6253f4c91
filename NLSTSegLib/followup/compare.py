"""Several CTs of one patient compared: tracks, growth, and what is to be known before either is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import pairwise

import numpy as np

from NLSTSegLib.checks.preflight import Finding
from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.growth import Growth, growth, mass_mg
from NLSTSegLib.followup.matching import GATE_MM, ByHand
from NLSTSegLib.followup.registration import Registration, register
from NLSTSegLib.followup.rules import Rule, Sizes, recist, rules
from NLSTSegLib.followup.time_point import FoundLesion, TimePoint
from NLSTSegLib.followup.tracks import Track, follow
from NLSTSegLib.followup.volume_error import volume_cv
from NLSTSegLib.progress import Progress, silent

SLICES_DIFFER, BREATH_DIFFERS = 0.10, 0.15
"""Relative difference of the slices' distance, and of the air in the lungs, above which it is said."""

WHOLE_SHARE = 0.95
"""A CT that shows less of the other's lungs shows a part of the chest."""

SUBSOLID_HU = -250.0
"""Lesions with a lower mean are subsolid, or hold much lung: their mass is told too."""


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    gate_mm: float = GATE_MM
    cv: float | None = None
    """Coefficient of variation of every volume, in place of the table."""
    register: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.gate_mm <= 100:
            raise InputError(f"the gate must be 1 to 100 mm, not {self.gate_mm:g}")
        if self.cv is not None and not 0 <= self.cv <= 1:
            raise InputError(f"the coefficient of variation must be 0 to 1, not {self.cv:g}")


@dataclass(frozen=True, eq=False)
class Change:
    """One track from one CT to a later one that both show it; unrounded."""

    volumes_mm3: tuple[float, float]
    """Sums where several lesions belong to the track."""
    growth: Growth
    cvs: tuple[float, float]
    sizes: tuple[Sizes, Sizes] | None
    """``None`` where one of the CTs has several lesions of the track: diameters do not add up."""
    rules: tuple[Rule, ...]
    mass: Growth | None
    """Growth of the mass, for subsolid lesions."""


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Several CTs of one patient, compared."""

    points: tuple[TimePoint, ...]
    days: tuple[float, ...] | None
    """Days of every CT since the first; ``None`` where dates are missing."""
    registrations: tuple[Registration | None, ...]
    """Registration of every CT to the next; ``None`` where none was wanted."""
    tracks: tuple[Track, ...]
    findings: tuple[Finding, ...]
    options: Options

    def lesions(self, track: Track, t: int) -> list[FoundLesion]:
        """The lesions of the track in CT ``t``."""
        return [self.points[t].lesions[n] for n in track.members[t]]

    def change(self, track: Track, t: int, since: int) -> Change | None:
        """How the track changed from CT ``since`` to CT ``t``; ``None`` where one of them lacks it."""
        first, second = self.lesions(track, since), self.lesions(track, t)
        if not first or not second:
            return None
        days = None if self.days is None else self.days[t] - self.days[since]
        cvs = self._cv(since, first, t), self._cv(t, second, since)
        volumes = sum_mm3(first), sum_mm3(second)
        single = len(first) == len(second) == 1
        sizes = (shown(first[0]), shown(second[0])) if single else None
        mass = None
        if single and (is_subsolid(first[0]) or is_subsolid(second[0])):
            was, now = (mass_mg(one.sizes.volume_mm3, one.sizes.mean_hu) for one in (first[0], second[0]))
            mass = growth(was, now, days, *cvs, what="mass") if was > 0 and now > 0 else None
        fired = tuple(rules(*sizes, days)) if sizes else ()
        return Change(volumes, growth(*volumes, days, *cvs), cvs, sizes, fired, mass)

    def recist(self, t: int) -> Rule | None:
        """What RECIST 1.1 would say of the lungs alone at CT ``t``, against the first CT and the smallest sum so far."""
        lengths = [[self._length_mm(track, n) for n in range(t + 1)] for track in self.tracks if track.members[0]]
        new = sum(bool(track.members[t]) and not any(track.members[:t]) for track in self.tracks)
        return recist(lengths, new)

    def _length_mm(self, track: Track, t: int) -> float:
        return max((one.sizes.long_axis_mm for one in self.lesions(track, t)), default=0.0)

    def _cv(self, t: int, lesions: Sequence[FoundLesion], other: int) -> float:
        if self.options.cv is not None:
            return self.options.cv
        here, there = self.points[t], self.points[other]
        diameter_mm = float(np.cbrt(6 / np.pi * sum_mm3(lesions)))
        return volume_cv(diameter_mm, here.slice_mm, there.slice_mm, kernels_differ=kernels_differ(here, there))


def follow_up(
    points: Sequence[TimePoint],
    days: Sequence[float] | None = None,
    options: Options | None = None,
    by_hand: Sequence[Sequence[ByHand]] = (),
    progress: Progress = silent,
) -> FollowUp:
    """Compare two or more CTs of one patient, in the order of time.

    ``days`` are those of every CT since the first; without them there is no doubling time. ``by_hand`` has, for every CT but the
    last, the pairs with the next that a reader made, as positions in ``lesions``. Raises :class:`InputError` for fewer than two
    CTs, and for days that do not ascend.
    """
    options = options or Options()
    if len(points) < 2:
        raise InputError(f"a follow-up needs two CTs or more, not {len(points)}")
    if days is not None and (len(days) != len(points) or any(b <= a for a, b in pairwise(days))):
        raise InputError("the CTs must be given in the order of their dates, each on another day; give them so, or name --days")
    steps = len(points) - 1
    registrations: list[Registration | None] = [None] * steps
    for n in range(steps if options.register else 0):
        registrations[n] = register(points[n].ct, points[n + 1].ct, partial(_step_progress, progress, n, steps))
    tracks = follow(points, registrations, gate_mm=options.gate_mm, by_hand=by_hand)
    findings = [finding for n in range(steps) for finding in step_findings(points[n], points[n + 1], registrations[n], n + 2)]
    if days is None:
        message = "The dates of the CTs are not known, so there are changes, but no doubling times."
        findings.append(Finding("warning", "no_dates", message, "Give --days or --dates."))
    return FollowUp(
        tuple(points), None if days is None else tuple(days), tuple(registrations), tuple(tracks), tuple(findings), options
    )


def _step_progress(progress: Progress, step: int, steps: int, done: float, stage: str) -> None:
    progress((step + done) / steps, f"registration: {stage}")


def days_of(dates: Sequence[str]) -> list[float] | None:
    """Days of every date (YYYYMMDD or YYYY-MM-DD) since the first; ``None`` where one is empty.

    Raises :class:`InputError` for what is no date; the sentence does not show it.
    """
    if not all(dates):
        return None
    try:
        when = [date.fromisoformat(text) for text in dates]
    except ValueError as error:
        raise InputError("one of the dates cannot be read; give them as YYYY-MM-DD, or give --days") from error
    return [float((one - when[0]).days) for one in when]


def step_findings(earlier: TimePoint, later: TimePoint, registration: Registration | None, number: int) -> list[Finding]:
    """What is to be known of a CT and the next, the one of that ``number`` from 1."""
    which = f"CT {number - 1} and CT {number}"
    one, other = earlier.ct.acquisition, later.ct.acquisition
    found = []
    if slices_differ(earlier, later):
        message = f"The slices of {which} differ: {earlier.slice_mm:.3g} and {later.slice_mm:.3g} mm."
        found.append(Finding("warning", "slices_differ", message, "Volumes differ for that alone; compare like with like."))
    if kernels_differ(earlier, later):
        message = f"{which} were reconstructed with different kernels: {one.kernel} and {other.kernel}."
        found.append(Finding("warning", "kernel_differs", message, "Volumes differ for that alone; compare like with like."))
    if one.format == other.format == "DICOM" and bool(one.contrast) != bool(other.contrast):
        message = f"Of {which} only one has contrast medium by its header."
        found.append(
            Finding("warning", "contrast_differs", message, "Density, and the outline beside vessels, may differ for it.")
        )
    if one.patient_id and other.patient_id and one.patient_id != other.patient_id:
        message = f"{which} have different patient IDs."
        found.append(Finding("warning", "other_patient_id", message, "Make sure that both are of one patient."))
    if registration is None:
        message = f"{which} were not registered, so only pairs by hand are made."
        found.append(Finding("warning", "not_registered", message, "Pair the lesions by hand."))
    elif not registration.is_accepted:
        message = f"{which} could not be registered: {registration.refusal}. Only pairs by hand are made."
        found.append(
            Finding("warning", "not_registered", message, "Look whether both are of one patient; pair the lesions by hand.")
        )
    else:
        found += _lung_findings(registration, which)
    return found


def _lung_findings(registration: Registration, which: str) -> list[Finding]:
    found = []
    shares = registration.seen_share, registration.seen_share_back
    if min(shares) < WHOLE_SHARE:
        told = f"{100 * shares[0]:.0f} % of the first's lungs are in the second and {100 * shares[1]:.0f} % the other way"
        message = f"{which} show different parts of the chest: {told}."
        found.append(
            Finding("warning", "part_of_chest", message, "What lies beyond the other CT is called so, and not new or gone.")
        )
        return found
    first_l, second_l = (ml / 1000 for ml in registration.lungs_ml)
    if abs(second_l / first_l - 1) > BREATH_DIFFERS:
        message = f"The lungs of {which} hold {first_l:.1f} and {second_l:.1f} litres, so the patient breathed in differently."
        found.append(Finding("warning", "breath_differs", message, "Volumes may differ by a fifth for that alone."))
    return found


def slices_differ(one: TimePoint, other: TimePoint) -> bool:
    """Whether the slices are not as thick, or far apart."""
    return abs(np.log(other.slice_mm / one.slice_mm)) > np.log1p(SLICES_DIFFER)


def kernels_differ(one: TimePoint, other: TimePoint) -> bool:
    """Whether the kernels are known and differ."""
    kernels = one.ct.acquisition.kernel, other.ct.acquisition.kernel
    return all(kernels) and kernels[0] != kernels[1]


def sum_mm3(lesions: Sequence[FoundLesion]) -> float:
    """Volume of all of them."""
    return sum(one.sizes.volume_mm3 for one in lesions)


def shown(lesion: FoundLesion) -> Sizes:
    """What the rules look at."""
    return Sizes(lesion.sizes.volume_mm3, lesion.sizes.mean_diameter_mm, lesion.sizes.long_axis_mm)


def is_subsolid(lesion: FoundLesion) -> bool:
    """Whether the mean is below :data:`SUBSOLID_HU`."""
    return lesion.sizes.mean_hu < SUBSOLID_HU
