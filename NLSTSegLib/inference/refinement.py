"""The refinement: each candidate of the first network, cut out, is outlined and scored again by a small 3D network.

The first network sees five slices and finds nearly everything, with tens of vessels among it. The second sees the candidate
in the middle of some 35 mm of lung in all directions, and says what belongs to it and whether it is a lesion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.inference.candidates import LEAST_VOXELS, Candidate, CutOut, cut_out, cut_size, find_candidates, slice_step
from NLSTSegLib.inference.devices import PLAIN_CPU, Device, to_device
from NLSTSegLib.inference.low_resolution import LEAST_SCORE, SURE_FROM_MM3
from NLSTSegLib.inference.slices import arriving
from NLSTSegLib.models.specs import RefinementSpec
from NLSTSegLib.volume.components import touching
from NLSTSegLib.volume.ct import CtVolume
from NLSTSegLib.volume.probability import above
from NLSTSegLib.volume.regions import Box

if TYPE_CHECKING:
    import torch


RIM_PX = 3
"""Pixels around its outline in which a lesion's probability is kept, for lower thresholds."""

FLIPS = ((), (2, 3), (2, 4), (3, 4))
"""Axes along which a cut-out is mirrored (2 to 4: k, j, i); the answers are averaged. Each axis is mirrored in half of these four
views, which give as much as all eight (docs/experiments.md)."""

HALF_CELL_PX, MOVED_FLIPS = 4, FLIPS[1:3]
"""Half a cell of the network's lowest level, and two more views: with the cut-out moved by this along rows and columns, since
outlines depend on where in a cell a lesion lies (docs/experiments.md)."""

SMOOTH_PX, SMOOTH_FROM_MM3 = 0.7, 1_000.0
"""What is at least so large has to look like a lesion without its grain too, blurred by this (standard deviation of a Gaussian in
the plane): in a chest with contrast and a sharp kernel, hilar vessels do not, and all lesions do (docs/experiments.md)."""

LIKELY_LOGIT = -2.0
"""A candidate below this as it is is not looked at mirrored and moved: it is no lesion."""

TOGETHER_VOXELS = 8 * 16 * 48 * 48
"""Cut-outs of one size run together up to about this many voxels."""


MOST_CANDIDATES = 1000
"""Each takes about 0.2 s on a CPU. Chests have tens, at most some hundred; noise, or what is no chest, may have any number."""


@dataclass(frozen=True, eq=False)
class ScoredCandidate:
    """What the second network says of a candidate."""

    outline: np.ndarray
    """Probability of each voxel, if it is a lesion; float32 ``[k, j, i]`` of the box's shape."""
    own: np.ndarray
    """bool, the same shape: what the first network marked."""
    box: Box
    logit: float


def score_candidates(
    network: torch.nn.Module,
    window_hu: tuple[float, float],
    ct: CtVolume,
    candidates: Sequence[Candidate],
    device: Device = PLAIN_CPU,
    *,
    smooth: bool = False,
) -> Iterator[tuple[Candidate, ScoredCandidate]]:
    """Show every candidate, with ``smooth`` blurred by :data:`SMOOTH_PX`, to ``network`` (evaluating, placed on ``device``), a
    few of one size at a time."""
    step = slice_step(ct.spacing_ijk_mm[2])
    sized: dict[tuple[int, int, int], list[Candidate]] = {}
    for candidate in candidates:
        sized.setdefault(cut_size(candidate.box, step), []).append(candidate)
    for size, group in sized.items():
        together = max(1, TOGETHER_VOXELS // (int(np.prod(size)) * step))
        for first in range(0, len(group), together):
            batch = group[first : first + together]
            # Thin slices are shown in turns, so that each is in the middle of its like.
            turns = [[_shown(ct.hu, candidate, turn, size, step, smooth) for turn in range(step)] for candidate in batch]
            outlines, logits = _run(network, window_hu, [cut for each in turns for cut in each], device)
            for n, candidate in enumerate(batch):
                own = slice(n * step, (n + 1) * step)
                yield candidate, _scored(candidate, turns[n], outlines[own], float(logits[own].mean()))


def _shown(hu: np.ndarray, candidate: Candidate, turn: int, size_kji: tuple[int, int, int], step: int, smooth: bool) -> CutOut:
    k, j, i = candidate.centre_kji
    cut = cut_out(hu, (k + turn, j, i), size_kji, step)
    if not smooth:
        return cut
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(cut.values.astype(np.float32))
    blurred = sitk.DiscreteGaussian(image, [SMOOTH_PX**2, SMOOTH_PX**2, 0.0], 32, 0.01, False)
    return replace(cut, values=sitk.GetArrayFromImage(blurred))


def _run(
    network: torch.nn.Module, window_hu: tuple[float, float], cuts: Sequence[CutOut], device: Device
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    x = to_device(np.stack([network_input(cut.values, cut.inside_volume, window_hu) for cut in cuts]), device)
    with torch.inference_mode():
        outline, logit = (answer.float() for answer in network(x))
        likely = (logit > LIKELY_LOGIT).nonzero()[:, 0]
        if len(likely):
            shown = x[likely]
            views = [(outline[likely], logit[likely]), *_mirrored(network, shown, FLIPS[1:])]
            outlines, logits = (torch.stack(each) for each in zip(*views, strict=True))
            outline[likely], logit[likely] = _with_moved(network, shown, outlines), logits.mean(dim=0)
        # As the network's own type, by which a float16 that was too small is known: a sum of it is not finite either.
        return arriving(torch.sigmoid(outline[:, 0]), outline.to(x.dtype))(), arriving(logit, logit.to(x.dtype))()


def _mirrored(
    network: torch.nn.Module, x: torch.Tensor, flips: Sequence[tuple[int, ...]]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Outlines, as if not mirrored, and logits of each view of the cut-outs ``x``."""
    answers = [network(x.flip(axes)) for axes in flips]
    return [(outline.float().flip(axes), logit.float()) for (outline, logit), axes in zip(answers, flips, strict=True)]


def _with_moved(network: torch.nn.Module, x: torch.Tensor, outlines: torch.Tensor) -> torch.Tensor:
    """The mean of ``outlines``, one for each view, and of what the moved cut-outs get. Their score is another place's."""
    import torch

    px = HALF_CELL_PX
    moved = torch.zeros_like(x)
    moved[..., px:, px:] = x[..., :-px, :-px]
    again = torch.stack([each for each, _ in _mirrored(network, moved, MOVED_FLIPS)])
    mean = outlines.mean(dim=0)
    # Rows and columns at one end are not in the moved cut-outs.
    mean[..., :-px, :-px] = torch.cat((outlines[..., :-px, :-px], again[..., px:, px:])).mean(dim=0)
    return mean


def _scored(candidate: Candidate, turns: Sequence[CutOut], outlines: np.ndarray, logit: float) -> ScoredCandidate:
    """The slices of all turns in their order again, without what lies beyond the ends of the CT."""
    outline = np.stack(list(outlines), axis=1).reshape(-1, *outlines.shape[2:])
    inside_volume = np.stack([cut.inside_volume for cut in turns], axis=1).reshape(outline.shape)
    k = np.stack([cut.axes[0] for cut in turns], axis=1).ravel()
    inside = [np.flatnonzero(inside_volume.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    axes = (k, *turns[0].axes[1:])
    box = tuple(slice(int(axis[n[0]]), int(axis[n[-1]]) + 1) for axis, n in zip(axes, inside, strict=True))
    own = np.zeros([side.stop - side.start for side in box], bool)
    here, in_candidate = _common(box, candidate.box)
    own[here] = candidate.mask[in_candidate]
    return ScoredCandidate(outline[np.ix_(*inside)], own, (box[0], box[1], box[2]), logit)


def network_input(hu: np.ndarray, inside_volume: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """float32 ``[2, k, j, i]``: HU clipped to the window as -1..1 (0 where there is no voxel), and 1 where there is one."""
    low, high = window_hu
    unit = (np.clip(hu, low, high).astype(np.float32) - low) / (high - low)
    return np.stack((np.where(inside_volume, unit * 2 - 1, 0), inside_volume)).astype(np.float32)


def refine(
    network: torch.nn.Module,
    spec: RefinementSpec,
    ct: CtVolume,
    probability: np.ndarray,
    lung_mask: np.ndarray | None = None,
    *,
    threshold: float,
    least_voxels: int = LEAST_VOXELS,
    device: Device = PLAIN_CPU,
    progress: Callable[[float], None] | None = None,
    left_out: Callable[[int], None] | None = None,
) -> np.ndarray:
    """What the second network makes of ``probability`` (uint8 ``[k, j, i]``, 255 is 1, of the first, on the canonical ``ct``).

    A voxel of a candidate gets the smaller of two probabilities: that it belongs to the lesion, scaled so that
    ``spec.outline_threshold`` becomes ``threshold``, and that the candidate is one; of :data:`SMOOTH_FROM_MM3` and more the lower
    of what is said of it with and without grain. So at any threshold those lesions are seen whose probability is higher, and
    their 95th percentile is that probability. All else is 0, so are candidates of less than ``least_voxels``, and those of
    ``SURE_FROM_MM3`` and more that are rather none. Of more than :data:`MOST_CANDIDATES` the surest are taken, and ``left_out``
    is told how many were not.
    """
    result = np.zeros_like(probability)
    candidates = find_candidates(probability, spec.candidate_threshold, lung_mask, least_voxels=least_voxels)
    if len(candidates) > MOST_CANDIDATES:
        if left_out is not None:
            left_out(len(candidates) - MOST_CANDIDATES)
        candidates = sorted(candidates, key=lambda each: _sureness(each, probability), reverse=True)[:MOST_CANDIDATES]
    scored = score_candidates(network, spec.window_hu, ct, candidates, device)
    for done, (candidate, look) in enumerate(scored, start=1):
        sure, values = score(look.logit, spec), _voxel_values(look, spec, threshold)
        volume_mm3 = np.count_nonzero(above(np.minimum(values, round(sure * 255)), threshold)) * ct.voxel_volume_mm3
        if volume_mm3 >= SMOOTH_FROM_MM3:
            ((_, blurred),) = score_candidates(network, spec.window_hu, ct, [candidate], device, smooth=True)
            sure = min(sure, score(blurred.logit, spec))
        if sure >= LEAST_SCORE or volume_mm3 < SURE_FROM_MM3:
            np.maximum(result[look.box], np.minimum(values, round(sure * 255)), out=result[look.box])
        if progress is not None:
            progress(done / len(candidates))
    return result


def _voxel_values(look: ScoredCandidate, spec: RefinementSpec, threshold: float) -> np.ndarray:
    """uint8, 255 is 1: that a voxel belongs to the lesion, scaled as :func:`refine` says; 0 but for the outline and its rim."""
    low, share = spec.outline_threshold, look.outline
    scaled = np.where(share <= low, share / low * threshold, 1 - (1 - share) / (1 - low) * (1 - threshold))
    values = np.round(scaled * 255).astype(np.uint8)
    values[~around_outline(look, low)] = 0
    return values


def _sureness(candidate: Candidate, probability: np.ndarray) -> tuple[int, int]:
    """Sorting key of a candidate: the highest probability in it, then its voxels."""
    return int(probability[candidate.box][candidate.mask].max()), int(candidate.mask.sum())


def score(logit: float, spec: RefinementSpec) -> float:
    """The probability that a candidate with this logit is a lesion."""
    return float(1 / (1 + np.exp(-(spec.score_slope * logit + spec.score_shift))))


def around_outline(look: ScoredCandidate, threshold: float) -> np.ndarray:
    """bool: the components above ``threshold`` that the first network marked too, and :data:`RIM_PX` around them.

    What else the cut-out shows is for its own candidate to say. Empty when the second network sees nothing there.
    """
    import SimpleITK as sitk

    inside = look.outline > threshold
    core = touching(inside, look.own)
    reach = sitk.BinaryDilate(sitk.GetImageFromArray(core.astype(np.uint8)), (RIM_PX, RIM_PX, 1))
    return (sitk.GetArrayFromImage(reach) > 0) & (core | ~inside)


def _common(box: Sequence[slice], other: Sequence[slice]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where two boxes of one grid meet, in the voxels of each."""
    spans = [(max(a.start, b.start), max(a.start, b.start, min(a.stop, b.stop))) for a, b in zip(box, other, strict=True)]
    in_box = tuple(slice(low - a.start, high - a.start) for (low, high), a in zip(spans, box, strict=True))
    in_other = tuple(slice(low - b.start, high - b.start) for (low, high), b in zip(spans, other, strict=True))
    return in_box, in_other
